// A worker process, confined as in ktrunkd, with the test as its supervisor and as its connections' peers.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <optional>
#include <string>

#include "base/fd.h"
#include "config/config.h"
#include "ipc/channel.h"
#include "ipc/shared_region.h"
#include "supervisor/worker_place.h"

namespace ktrunk::test {

struct TcpPair {
  Fd near;  // for the worker
  Fd far;   // the peer's
};
// Connected over loopback. buffer: for sending and for receiving, at both ends; 0 for the kernel's own.
[[nodiscard]] TcpPair tcp_pair(int buffer = 0);

// Everything that comes within the time, until `bytes` octets are there or the stream ends.
[[nodiscard]] std::string read_some(const Fd& fd, std::size_t bytes,
                                    std::chrono::milliseconds limit = std::chrono::seconds(30));
// What is left on the stream, up to its end; nothing if no end comes.
[[nodiscard]] std::optional<std::string> read_to_end(const Fd& fd);
void write_all(const Fd& fd, std::string_view octets);

class WorkerOnBench {
 public:
  static constexpr WorkerIndex kSelf{0};
  static constexpr WorkerIndex kOther{1};  // played by the test

  // limits: in place of config's; collector: connected, to config.hep.collector as it were.
  explicit WorkerOnBench(config::Limits limits = {}, config::Config config = {}, Fd collector = {});
  ~WorkerOnBench();  // ends the process
  WorkerOnBench(const WorkerOnBench&) = delete;
  WorkerOnBench& operator=(const WorkerOnBench&) = delete;

  // Gives the worker a connection, open and with it at home, or with the other one. The test keeps nothing of `socket`.
  [[nodiscard]] ConnectionId give(Fd socket, ipc::RecordLayerKind layer, ipc::TlsVersion version,
                                  WorkerIndex home = kSelf);

  template <ipc::Body T>
  void tell(const T& body) {
    if (!channel_.send(body)) problem_ = "the worker has gone";
  }
  // The next message, which must be a T; nothing when another comes, or none in half a minute.
  template <ipc::Body T>
  [[nodiscard]] std::optional<T> expect() {
    auto packet = next();
    if (!packet || packet->kind() != T::kKind) return std::nullopt;
    return packet->template as<T>();
  }
  // Nothing has come up to now.
  [[nodiscard]] bool silent();
  void ring() const;  // the worker's doorbell

  // Orders Stop; the exit status as of waitpid(2).
  [[nodiscard]] int stop();
  void kill();

  [[nodiscard]] ipc::SharedRegion& region() { return region_; }
  [[nodiscard]] ipc::ConnectionSlot& slot(ConnectionId id) { return region_.slot(id.slot); }
  [[nodiscard]] ipc::WorkerStats& stats() { return region_.worker(kSelf); }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  [[nodiscard]] std::optional<ipc::Packet> next();

  ipc::SharedRegion region_;
  supervisor::WorkerPlace place_;
  std::array<Fd, 2> bells_;
  ipc::Channel channel_;
  pid_t pid_ = -1;
  std::uint32_t next_slot_ = 0;
  std::string problem_;
};

// Waits until it holds; false after half a minute.
template <typename Condition>
[[nodiscard]] bool eventually(Condition&& holds) {
  for (int turn = 0; turn < 3000; ++turn) {
    if (holds()) return true;
    ::usleep(10'000);
  }
  return false;
}

}  // namespace ktrunk::test
