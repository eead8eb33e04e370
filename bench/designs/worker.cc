#include "bench/designs/worker.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <ctime>

#include "handshake/tcp_socket.h"
#include "ipc/limits.h"

namespace ktrunk::bench {
namespace {

constexpr int kPatienceMs = 10'000;
constexpr auto kStalledPeer = std::chrono::seconds(60);
constexpr int kLookMs = 5;                 // how long a worker waits for a full outlet before it looks round
constexpr std::uint64_t kNapNs = 200'000;  // when nothing is due

void nap(std::uint64_t ns) {
  const timespec time{.tv_sec = 0, .tv_nsec = static_cast<long>(std::min(ns, kNapNs))};
  ::clock_nanosleep(CLOCK_MONOTONIC, 0, &time, nullptr);
}

class Worker {
 public:
  Worker(const ServerOptions& options, SharedState& shared, unsigned index)
      : options_(options), shared_(shared), state_(shared.workers[index]), index_(index), last_turn_(monotonic_ns()) {
    most_ = std::max<std::size_t>(1, ipc::kRecordBytes / options.message_bytes);
    buffer_.resize(most_ * options.message_bytes);
  }

  void run(Outlet& outlet) {
    for (;;) {
      const std::uint64_t now = turn();
      const std::size_t count = due(now);
      if (count == 0) continue;
      for (std::size_t i = 0; i < count; ++i) write(i, now);
      const auto messages = std::span(buffer_).first(count * options_.message_bytes);
      Outlet::Outcome outcome = outlet.offer(messages);
      while (outcome == Outlet::Outcome::kFull) {
        pollfd wait{outlet.fd(), POLLOUT, 0};
        ::poll(&wait, 1, kLookMs);
        (void)turn();  // a worker does other work meanwhile
        outcome = outlet.offer(messages);
      }
      if (outcome == Outlet::Outcome::kBroken) return;
      state_.written.fetch_add(count, std::memory_order_relaxed);
    }
  }

 private:
  // Notes how long the last turn has taken.
  std::uint64_t turn() {
    const std::uint64_t now = monotonic_ns();
    const std::uint64_t still = now - last_turn_;
    last_turn_ = now;
    if (still > state_.longest_still_ns.load(std::memory_order_relaxed)) state_.longest_still_ns = still;
    return now;
  }

  // How many messages are to be sent now.
  std::size_t due(std::uint64_t now) {
    const Pace pace = shared_.pace.load(std::memory_order_acquire);
    if (pace != Pace::kRate) rate_number_ = 0;
    if (pace == Pace::kFull) return std::min(options_.batch, most_);
    const std::uint64_t begin = shared_.rate_begin_ns.load(std::memory_order_relaxed);
    const std::uint64_t rate = shared_.rate_millihertz.load(std::memory_order_relaxed);
    if (pace == Pace::kPause || now < begin || rate == 0) return nap(kNapNs), 0;
    interval_ns_ = 1e12 / static_cast<double>(rate);
    const auto passed = static_cast<std::uint64_t>(static_cast<double>(now - begin) / interval_ns_) + 1;
    if (passed <= rate_number_) return nap(due_ns(rate_number_) - now), 0;
    return std::min<std::uint64_t>(passed - rate_number_, most_);
  }

  [[nodiscard]] std::uint64_t due_ns(std::uint64_t number) const {
    return shared_.rate_begin_ns.load(std::memory_order_relaxed) +
           static_cast<std::uint64_t>(static_cast<double>(number) * interval_ns_);
  }

  void write(std::size_t place, std::uint64_t now) {
    const bool rate = shared_.pace.load(std::memory_order_relaxed) == Pace::kRate;
    MessageHead head{.worker = index_, .number = number_++, .due_ns = now};
    if (rate) head.due_ns = due_ns(rate_number_++);
    std::memcpy(buffer_.data() + place * options_.message_bytes, &head, sizeof head);
  }

  const ServerOptions& options_;
  SharedState& shared_;
  WorkerState& state_;
  unsigned index_;
  std::uint64_t last_turn_;
  std::uint64_t number_ = 0;       // of the next message
  std::uint64_t rate_number_ = 0;  // the same, at this pace
  double interval_ns_ = 1e9;
  std::size_t most_ = 1;
  std::vector<std::byte> buffer_;
};

}  // namespace

std::uint64_t monotonic_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

void run_worker(const ServerOptions& options, SharedState& shared, unsigned index, Outlet& outlet) {
  Worker worker(options, shared, index);
  shared.ready.fetch_add(1);
  worker.run(outlet);
}

void limit_socket_buffers(int fd) {
  static constexpr int kBytes = 128 * 1024;
  ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &kBytes, sizeof kBytes);
  ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &kBytes, sizeof kBytes);
}

Result<handshake::TlsSession> connect_to_peer(const ServerOptions& options) {
  using handshake::TlsSession;
  const auto context = options.tls.connecting();
  if (!context) return std::unexpected(context.error());
  auto socket = handshake::start_connect(options.peer.address, kStalledPeer);
  if (!socket) return std::unexpected(socket.error());
  limit_socket_buffers(socket->get());
  const auto wait = [](int fd, short events) {
    pollfd waited{fd, events, 0};
    return ::poll(&waited, 1, kPatienceMs) > 0;
  };
  if (!wait(socket->get(), POLLOUT)) return fail("the peer does not accept");
  if (const int error = handshake::connect_result(socket->get()); error != 0) return fail_errno(error, "connect");
  auto session = TlsSession::connect(*context, std::move(*socket), options.peer.host);
  if (!session) return session;
  for (auto step = session->step(); step != TlsSession::Step::kDone; step = session->step()) {
    if (step == TlsSession::Step::kFailed) return std::unexpected(session->failure().error);
    if (!wait(session->fd(), step == TlsSession::Step::kWantRead ? POLLIN : POLLOUT))
      return fail("the handshake was not done in time");
  }
  return session;
}

}  // namespace ktrunk::bench
