// Fake supervisor: runs a handshake Process in a thread and is the other end of its channel: admits what it gives,
// and says what a test wants said.
#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "config/config.h"
#include "handshake/process.h"
#include "ipc/channel.h"
#include "ipc/messages.h"
#include "ipc/shared_region.h"

namespace ktrunk::test {

using std::chrono::milliseconds;

// What the process handed over: the workers' end.
struct Handed {
  ipc::Established message;
  Fd fd;
  ConnectionId id;  // as admitted
};

class FakeSupervisor {
 public:
  // Before run(): the region may be filled in, and timing changed. Throws std::runtime_error.
  explicit FakeSupervisor(const std::string& config_text);
  // Of another process of the same ktrunkd: with the same sockets, region and vault. Before sibling.run().
  FakeSupervisor(const FakeSupervisor& sibling, HandshakeIndex self);
  ~FakeSupervisor();  // hangs up and waits for the thread's end
  FakeSupervisor(const FakeSupervisor&) = delete;
  FakeSupervisor& operator=(const FakeSupervisor&) = delete;

  enum class Answer { kAdmit, kRefuse, kNothing };
  Answer answer = Answer::kAdmit;  // to Established
  ipc::Refused::Why why = ipc::Refused::Why::kTableFull;
  handshake::Service::Timing timing;
  [[nodiscard]] ipc::SharedRegion& region() { return *region_; }
  [[nodiscard]] const config::Config& config() const { return config_; }

  void run();
  // Hangs up without a word; the process's answer to that.
  Status hang_up();
  // Says Stop; how the process ended.
  Status stop();
  // Waits for the end.
  Status join();

  template <typename T>
  void send(const T& message) {
    (void)channel_->send(message);
  }
  template <typename T>
  void send(const T& message, Fd descriptor) {
    (void)channel_->send(message, std::move(descriptor));
  }
  void gone(const Handed& handed, ipc::Gone::Again again = ipc::Gone::Again::kAfterWait);
  // Writes the connection's slot as the supervisor does. Slots are numbered as they are admitted.
  void open_slot(ConnectionId id, const ipc::ConnectionInfo& info, ipc::SlotState state = ipc::SlotState::kOpen);

  // What comes next; none when it does not come in time.
  [[nodiscard]] std::optional<Handed> established(milliseconds patience = milliseconds(15'000));
  [[nodiscard]] std::optional<ipc::Resolved> resolved(milliseconds patience = milliseconds(15'000));
  [[nodiscard]] bool idle(milliseconds patience = milliseconds(15'000));
  template <typename T>  // SendControl, Resume, Fault, Retire, Reloaded
  [[nodiscard]] std::optional<T> next(milliseconds patience = milliseconds(15'000)) {
    auto packet = next_packet(T::kKind, patience);
    return packet ? std::optional<T>(packet->template as<T>()) : std::nullopt;
  }
  // Descriptors of Established messages that have come and were not answered yet (Answer::kNothing).
  [[nodiscard]] std::size_t pending() const { return established_.size(); }
  void pump(milliseconds patience);

 private:
  [[nodiscard]] std::unique_ptr<ipc::Packet> next_packet(ipc::Kind kind, milliseconds patience);
  void open_channel();

  HandshakeIndex self_{0};
  config::Config config_;
  std::string text_;
  std::optional<ipc::SharedRegion> region_;
  Fd vault_;
  std::vector<std::pair<ListenerId, Fd>> listeners_;
  std::optional<ipc::Channel> channel_;
  Fd child_end_;
  std::thread thread_;
  Status ended_;
  std::uint32_t next_slot_ = 0;
  std::uint32_t lives_ = 0;
  std::deque<Handed> established_;
  std::deque<ipc::Resolved> resolved_;
  std::deque<std::unique_ptr<ipc::Packet>> others_;
  unsigned idles_ = 0;
};

// One packet of a relay, or what one recv gives of a socket; "" at the end, none when nothing comes in time.
[[nodiscard]] std::optional<std::string> receive_packet(const Fd& fd, milliseconds patience = milliseconds(15'000));
// As a worker sends: not blocking. False: EAGAIN or an error (errno).
[[nodiscard]] bool send_packet(const Fd& fd, std::string_view packet);

}  // namespace ktrunk::test
