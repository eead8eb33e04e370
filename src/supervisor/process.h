// The supervisor process: the middle of the star. It parses nothing that comes from the network, holds no key, and
// outlives its children: it opens the sockets, maps the shared region, starts handshake processes and workers, starts
// them again when they die, and ends everything in order on SIGTERM or SIGINT.
#pragma once

#include <array>
#include <bitset>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "config/config.h"
#include "ipc/shared_region.h"
#include "supervisor/child_process.h"
#include "supervisor/connections.h"
#include "supervisor/control.h"
#include "supervisor/image.h"
#include "supervisor/quarantine.h"
#include "supervisor/reload.h"
#include "supervisor/state.h"
#include "supervisor/trunk_states.h"
#include "supervisor/upgrade.h"
#include "supervisor/worker_place.h"

namespace ktrunk::supervisor {

class Process final : private ChildMail {
 public:
  // text: the configuration as it was read, which the children get. Opens every socket; starts nothing yet.
  [[nodiscard]] static Result<std::unique_ptr<Process>> create(config::Config config, const std::string& text,
                                                               Image image, std::string version);
  // What another program has left in this process (upgrade.h says how); in a rehearsal, to find out whether it could
  // be, and then nothing must be done with the object. An error leaves everything as it was.
  [[nodiscard]] static Result<std::unique_ptr<Process>> take_over(StateReader& state, const TakeOver& how,
                                                                  std::string version);
  ~Process() override;
  [[nodiscard]] const std::string& config_path() const { return config_.path; }
  [[nodiscard]] const Fd& config_memory() const { return config_memory_; }

  // Runs until a signal asks for the end and all is closed. An error: a child could not be started, or epoll failed.
  [[nodiscard]] Status run();

 private:
  enum class Phase : std::uint8_t {
    kRunning,
    kDraining,  // no new connections; until traffic is quiet or limits.drain has passed
    kClosing,   // every connection is being closed
    kStopping,  // children are told to stop
    kStopped,
  };
  Process(config::Config config, ipc::SharedRegion region, std::unique_ptr<EventLoop> loop, Image image,
          std::string version);
  [[nodiscard]] Status open(const std::string& text);
  [[nodiscard]] Status take_signals();
  [[nodiscard]] Status begin();

  // Children: process_children.cc.
  [[nodiscard]] Status start_child(std::size_t index);
  [[nodiscard]] Status listen_to(std::size_t index);
  void on_channel(std::size_t index, unsigned most_packets);
  [[nodiscard]] Status on_packet(std::size_t index, ipc::Packet& packet);
  [[nodiscard]] Status on_handshake_packet(HandshakeIndex process, ipc::Packet& packet);
  [[nodiscard]] Status on_worker_packet(WorkerIndex worker, const ipc::Packet& packet);
  [[nodiscard]] Status on_hello(std::size_t index);
  void start_again(std::size_t index);
  void on_child_signal();
  void on_child_end(std::size_t index, int wait_status);
  void end_child(std::size_t index, const Error& why);
  void worker_ended(WorkerIndex worker, Connections::Cause cause, std::string_view how);
  void flushed(std::size_t index, const Status& sent);
  template <ipc::Body T>
  void tell(std::size_t index, const T& body) {
    ChildProcess& child = children_[index];
    if (child.channel() != nullptr && child.ready()) flushed(index, child.channel()->send(body));
  }
  template <ipc::Body T>
  void tell(std::size_t index, const T& body, Fd descriptor) {
    ChildProcess& child = children_[index];
    if (child.channel() != nullptr && child.ready()) flushed(index, child.channel()->send(body, std::move(descriptor)));
  }
  // children_ holds the handshake processes, then the workers, then handshake processes that have left their places.
  [[nodiscard]] std::size_t places() const { return config_.handshake_processes + config_.workers; }
  [[nodiscard]] std::size_t child_of(HandshakeIndex process) const {
    if (process.value < ipc::kMaxHandshakeProcesses) return process.value;
    return places() + process.value - ipc::kMaxHandshakeProcesses;
  }
  [[nodiscard]] std::size_t child_of(WorkerIndex worker) const { return config_.handshake_processes + worker.value; }
  // Which of its role a child is; not valid for a child of the other.
  [[nodiscard]] HandshakeIndex handshake_of(std::size_t index) const {
    if (index >= places())
      return HandshakeIndex{static_cast<std::uint8_t>(index - places() + ipc::kMaxHandshakeProcesses)};
    if (index >= config_.handshake_processes) return {};
    return HandshakeIndex{static_cast<std::uint8_t>(index)};
  }
  [[nodiscard]] WorkerIndex worker_of(std::size_t index) const {
    if (index < config_.handshake_processes || index >= places()) return {};
    return WorkerIndex{static_cast<std::uint8_t>(index - config_.handshake_processes)};
  }
  template <ipc::Body T>
  void tell_handshakes(const T& body) {
    for (std::size_t index = 0; index < config_.handshake_processes; ++index) tell(index, body);
  }
  [[nodiscard]] Status set_up_handshake(std::size_t index);
  [[nodiscard]] Status set_up_worker(std::size_t index);
  [[nodiscard]] Status give(std::size_t index, const ipc::Setup& setup, int descriptor);
  [[nodiscard]] Status give_listeners(std::size_t index);
  void publish(const ipc::Resolved& resolved);

  // The end.
  void on_signals();
  void begin_drain();
  void on_drain_tick();
  void close_connections();
  void stop_children();
  [[nodiscard]] std::uint64_t messages_handled() const;

  // Upgrades: process_upgrade.cc (to the take-over), process_takeover.cc (it), process_replacement.cc (the children).
  void begin_upgrade(std::optional<Control::Reply> reply);
  [[nodiscard]] Status rehearse();
  void rehearsal_ended(int wait_status);
  void refuse_upgrade(const std::string& why);
  void hand_over();
  [[nodiscard]] Error become(const Program& program, const std::string& why_back);
  void save(StateWriter& state) const;
  [[nodiscard]] Status restore(StateReader& state, const TakeOver& how);
  void replace_foreign();
  void replace(std::size_t index);
  void start_successor(std::size_t index);
  void successor_up(std::size_t index);
  void successor_failed(const std::string& why);
  void handshake_left(std::size_t index);
  [[nodiscard]] std::optional<std::size_t> room_for_former() const;
  void look_at_former_handshakes(Clock::time_point now);
  void finish_upgrade();

  // Commands: process_commands.cc.
  void answer(const Control::Request& request, const Control::Reply& reply);
  [[nodiscard]] std::string status();
  void begin_reload(Reload::Finished finished);
  void look_at_connections();

  // Tracing: process_tracing.cc.
  void begin_trace(const std::string& trunk, const Control::Reply& reply);
  void end_trace(std::uint16_t place);
  void tell_of_trace(std::size_t index, std::uint16_t place);
  void look_at_collector();

  // ChildMail
  void to_worker(WorkerIndex worker, const ipc::Offer& offer, Fd descriptor) override;
  void to_worker(WorkerIndex worker, const ipc::Start& start) override;
  void to_worker(WorkerIndex worker, const ipc::Serve& serve) override;
  void to_worker(WorkerIndex worker, const ipc::Close& close) override;
  void to_worker(WorkerIndex worker, const ipc::SendControl& control) override;
  void to_worker(WorkerIndex worker, const ipc::Resume& resume) override;
  void to_worker(WorkerIndex worker, const ipc::Move& move) override;
  void to_handshake(HandshakeIndex process, const ipc::Admitted& admitted) override;
  void to_handshake(HandshakeIndex process, const ipc::Refused& refused) override;
  void to_handshake(HandshakeIndex process, const ipc::Gone& gone) override;
  void to_handshake(HandshakeIndex process, const ipc::PostHandshake& record, Fd descriptor) override;
  void to_handshake(HandshakeIndex process, const ipc::InstallTransmit& install, Fd descriptor) override;
  void to_handshake(HandshakeIndex process, const ipc::Renew& renew) override;
  void ring(ipc::WorkerMask workers) override;

  config::Config config_;
  std::string version_;
  std::string started_as_;  // where the next version will be
  Image image_;
  ipc::SharedRegion region_;
  std::unique_ptr<EventLoop> loop_;
  Connections connections_;
  TrunkStates trunk_states_;
  // A `ktrunk trace` that goes on: the end that workers write to.
  struct Trace {
    TrunkId trunk;
    Fd socket;
  };
  std::array<Trace, ipc::kMaxTraces> traces_;
  Fd collector_;  // UDP, for hep.collector
  std::uint64_t hep_dropped_ = 0;
  Control control_;
  Fd config_memory_;
  Fd vault_;  // for handshake processes alone; never mapped here
  Fd signals_;
  EventLoop::Watch signal_watch_;
  std::vector<Fd> listeners_;        // in the order of the configuration
  std::vector<Fd> doorbells_;        // by worker
  std::vector<WorkerPlace> places_;  // by worker
  Quarantine quarantine_;
  std::vector<ChildProcess> children_;  // see child_of()
  std::vector<EventLoop::Watch> channel_watches_;
  std::vector<EventLoop::Timer> restart_timers_;
  EventLoop::Timer drain_timer_;
  EventLoop::Timer look_timer_;
  Reload reload_;
  EventLoop::Timer reload_timer_;
  Upgrade upgrade_;
  enum class Origin : std::uint8_t { kFresh, kTakenOver } origin_ = Origin::kFresh;
  Phase phase_ = Phase::kRunning;
  Clock::time_point started_ = Clock::now();
  Clock::time_point phase_since_{};
  Clock::time_point quiet_since_{};
  std::uint64_t messages_seen_ = 0;
  std::bitset<ipc::kMaxHandshakeProcesses> handshakes_idle_;
};

}  // namespace ktrunk::supervisor
