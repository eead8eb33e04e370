// The worker process: one io_uring loop over its channel to the supervisor, its doorbell, its connections and the UDP
// sockets. It takes what messages.h says a worker takes, and holds no key of any kind but the flow tokens'.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string_view>

#include "base/spare_memory.h"
#include "config/config.h"
#include "ipc/channel.h"
#include "ipc/estate.h"
#include "ipc/shared_region.h"
#include "worker/connection.h"
#include "worker/datagrams.h"
#include "worker/fan_out.h"
#include "worker/inheritance.h"
#include "worker/message_handler.h"
#include "worker/receiver.h"
#include "worker/ring.h"
#include "worker/sender.h"
#include "worker/tracer.h"
#include "worker/trunk_watch.h"

namespace ktrunk::worker {

// What the supervisor's Setup messages have brought.
struct Endowment {
  config::Config config;
  ipc::SharedRegion region;
  ipc::Estate estate;
  Fd ring;  // made by the supervisor; its parameters are in the estate
  WorkerIndex self;
  std::array<Fd, ipc::kMaxWorkers> doorbells;  // by worker; our own is waited for, the others are rung
  std::vector<std::pair<ListenerId, Fd>> udp_sockets;
  Fd collector{};  // connected to hep.collector, where there is one
};

class Process final : private StreamEvents {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Process>> create(Endowment endowment, ipc::Channel channel);

  // Gives up every right that run() does not need (confinement.h). Once, before run.
  [[nodiscard]] Status confine();

  // Tells the supervisor that it serves; once, before run().
  [[nodiscard]] Status announce() { return channel_.send(ipc::Up{}); }

  // Runs until the supervisor says Stop, or Yield. An error: the supervisor is gone, or io_uring fails.
  [[nodiscard]] Status run();
  // It ends because another takes its place.
  [[nodiscard]] bool yields() const { return yield_by_.has_value(); }

 private:
  Process(Endowment endowment, ipc::Channel channel, std::unique_ptr<Ring> ring);
  [[nodiscard]] Status start();

  // Completions.
  [[nodiscard]] Status dispatch(Operation operation, int result, unsigned flags, std::uint32_t number);
  [[nodiscard]] Status on_channel();
  void on_send(Connection& connection, int result, std::uint32_t number);
  void after_send(Connection& connection, Sender::Sent sent, int error);
  void on_alert_sent(Connection& connection);
  void on_tick();

  // Messages of the supervisor.
  [[nodiscard]] Status on_packet(ipc::Packet& packet);
  void on_offer(const ipc::Offer& offer, Fd descriptor);
  void on_start(const ipc::Start& start);
  void on_serve();
  void on_close(const ipc::Close& close);
  [[nodiscard]] Status on_send_control(const ipc::SendControl& order);
  void on_resume(const ipc::Resume& resume);
  void on_move(const ipc::Move& move);  // process_move.cc
  void go_on_moving(Connection& connection);
  template <ipc::Body T>
  void tell(const T& body) {
    if (auto status = channel_.send(body); !status) channel_status_ = status;
  }

  // A connection's way out: fault -> (supervisor) -> close_down ... -> release.
  void fault(Connection& connection, ipc::FaultReason reason, int detail);
  void close_down(Connection& connection, Connection::Phase phase);
  void keep_unsent(Connection& connection);
  void proceed_closing(Connection& connection);
  void end_stream(Connection& connection);
  void release_if_done(Connection& connection);
  [[nodiscard]] bool may_yield() const;

  // Busy connections: process_spread.cc.
  void tend_spread();
  void go_on_with(Connection& connection);
  void stop_held();
  void look_again_soon();
  void let_held_go(Connection& connection);
  // A stream that cannot be received from any more: told to the supervisor, in its time.
  void end_of_stream(Connection& connection, const StreamFault& end);

  [[nodiscard]] Connection* find(Operation operation);
  void arm_channel();
  void arm_channel_write();
  void arm_doorbell();
  void arm_tick();
  void ring_doorbells();

  // StreamEvents
  void on_message(Connection& connection, std::string_view message, const sip::HeaderIndex& index) override;
  void on_ping(Connection& connection) override;
  void on_malformed(Connection& connection, std::string_view head, int status, const char* reason) override;
  void on_handshake(Connection& connection, std::string_view octets, ControlRecords::Place place,
                    std::uint32_t number) override;
  void on_datagram(ListenerId listener, const Address& from, std::string_view octets);

  Endowment endowment_;
  ipc::WorkerStats& stats_;
  ipc::Channel channel_;
  std::unique_ptr<Ring> ring_;
  ConnectionTable connections_;
  Datagrams datagrams_;
  ChunkStore chunks_;
  BlockPool blocks_;
  Sender sender_;
  WaitingRoom waiting_;
  Inheritance inheritance_;
  FanOut fan_out_;
  std::unique_ptr<Receiver> receiver_;
  Tracer tracer_;
  MessageHandler handler_;
  TrunkWatch watch_;
  SpareMemory spare_;
  Clock::time_point now_{};
  bool stopping_ = false;
  std::optional<Clock::time_point> yield_by_;  // Yield has come
  bool serving_ = false;                       // the supervisor has said Serve
  bool awaiting_channel_write_ = false;
  std::uint64_t submits_counted_ = 0;
  Status channel_status_;
};

}  // namespace ktrunk::worker
