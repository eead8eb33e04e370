#include "cli/trace.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <vector>

#include "cli/table.h"
#include "config/config.h"

namespace ktrunk::cli {
namespace {

// The longest message, with what a proxy adds.
constexpr std::size_t kMostOctets = config::kMaxMessageBytes + 128 * 1024;

Result<Fd> take_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM}) ::sigaddset(&set, signal);
  if (::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return fail_errno(errno, "block signals");
  Fd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) return fail_errno(errno, "signalfd");
  return fd;
}

// What the workers have told, one packet after another.
class Follower {
 public:
  Follower(const TraceSink& sink, std::uint64_t most) : sink_(sink), most_(most), buffer_(kMostOctets) {}

  [[nodiscard]] bool enough() const { return most_ != 0 && ended_.messages >= most_; }
  [[nodiscard]] TraceEnded ended(TraceEnded::Why why) {
    ended_.why = why;
    ended_.dropped = 0;
    for (const std::uint64_t dropped : dropped_) ended_.dropped += dropped;
    return ended_;
  }

  // All that is there now, and not more than that; false when nobody is left who could send more.
  [[nodiscard]] Result<bool> take(const Fd& messages) {
    constexpr unsigned kAtOnce = 1024;
    for (unsigned i = 0; i < kAtOnce && !enough(); ++i) {
      ipc::TraceHead head;
      iovec parts[2] = {{&head, sizeof head}, {buffer_.data(), buffer_.size()}};
      msghdr message{};
      message.msg_iov = parts;
      message.msg_iovlen = 2;
      const ssize_t got = ::recvmsg(messages.get(), &message, MSG_DONTWAIT);
      if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
      if (got < 0 && errno != ECONNRESET) return fail_errno(errno, "cannot read the trace");
      if (got <= 0) return false;
      const auto bytes = static_cast<std::size_t>(got);
      if ((message.msg_flags & MSG_TRUNC) != 0 || bytes < sizeof head || head.layout != ipc::TraceHead::kLayout ||
          head.octets != bytes - sizeof head)
        return fail(
            "ktrunkd tells of its messages otherwise than this program understands: they are of different "
            "versions");
      dropped_[head.worker] = head.dropped;
      ++ended_.messages;
      if (auto status = sink_(head, {buffer_.data(), head.octets}); !status) return std::unexpected(status.error());
    }
    return true;
  }

 private:
  const TraceSink& sink_;
  std::uint64_t most_;
  std::vector<char> buffer_;
  TraceEnded ended_;
  std::array<std::uint64_t, 256> dropped_{};  // by worker
};

std::string time_text(const ipc::TraceHead& head) {
  const auto seconds = static_cast<std::time_t>(head.seconds);
  std::tm parts{};
  if (::gmtime_r(&seconds, &parts) == nullptr) return "-";
  std::array<char, 32> text{};
  (void)std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &parts);
  return fmt::format("{}.{:06} UTC", text.data(), head.microseconds);
}

}  // namespace

Result<TraceEnded> follow_trace(const TraceSource& source, const TraceSink& sink, std::uint64_t most) {
  const auto signals = take_signals();
  if (!signals) return std::unexpected(signals.error());
  Follower follower(sink, most);
  for (;;) {  // ends with the daemon, with a signal, or with enough
    std::array<pollfd, 3> ready = {pollfd{source.messages.get(), POLLIN, 0}, pollfd{source.control.get(), POLLIN, 0},
                                   pollfd{signals->get(), POLLIN, 0}};
    if (::poll(ready.data(), ready.size(), -1) < 0 && errno != EINTR) return fail_errno(errno, "wait for messages");
    const auto going_on = follower.take(source.messages);
    if (!going_on) return std::unexpected(going_on.error());
    if (follower.enough()) return follower.ended(TraceEnded::Why::kEnough);
    if (ready[2].revents != 0) return follower.ended(TraceEnded::Why::kInterrupted);
    if (!*going_on || ready[1].revents != 0) return follower.ended(TraceEnded::Why::kDaemonEnded);
  }
}

std::string trace_text(const ipc::TraceHead& head, std::string_view octets, std::string_view trunk) {
  const bool received = head.direction == ipc::TraceHead::Direction::kReceived;
  std::string text = printable(fmt::format("{}  {} {} -> {}  {}  {} trunk {}", time_text(head),
                                           received ? "received" : "sent", head.from.text(), head.to.text(),
                                           config::transport_name(head.transport), received ? "from" : "to", trunk));
  text += '\n';
  while (!octets.empty()) {
    const std::size_t end = std::min(octets.find('\n'), octets.size());
    std::string_view line = octets.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    text += printable(std::string(line)) + "\n";
    octets.remove_prefix(std::min(end + 1, octets.size()));
  }
  return text + "\n";
}

}  // namespace ktrunk::cli
