#include "cli/control_client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <span>

#include "base/fd.h"
#include "base/packet.h"
#include "cli/trace.h"

namespace ktrunk::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMostAnswerBytes = 256u << 20;  // about 16,000 bytes for each of the default's connections

std::unexpected<Error> no_connection(int code, const std::string& path) {
  switch (code) {
    case ENOENT:
      return std::unexpected(Error{fmt::format("there is no control socket at {}: ktrunkd is not running, or its "
                                               "configuration has another path (control in [ktrunk]; see --config)",
                                               path),
                                   code});
    case ECONNREFUSED:
      return std::unexpected(
          Error{fmt::format("nobody listens at {}: ktrunkd is not running (its last run left the socket behind)", path),
                code});
    case EACCES:
    case EPERM:
      return std::unexpected(
          Error{fmt::format("no permission to use {}: run as root or as the user that ktrunkd runs as", path), code});
    case EAGAIN:
      return std::unexpected(
          Error{fmt::format("ktrunkd's control socket {} has too many clients waiting", path), code});
    default:
      return fail_errno(code, fmt::format("cannot connect to the control socket {}", path));
  }
}

Result<Fd> connect_to(const std::string& path) {
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return fail("'{}' is no path for a control socket; expected 1 to {} bytes", path, sizeof address.sun_path - 1);
  std::ranges::copy(path, address.sun_path);
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return fail_errno(errno, "cannot make a socket");
  // A Unix socket connects at once or not at all.
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return no_connection(errno, path);
  return socket;
}

// Waits until the socket is ready or the deadline has passed.
Status wait_for(const Fd& socket, short events, Clock::time_point deadline) {
  for (;;) {  // ends with the deadline
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    if (left.count() <= 0) return fail("ktrunkd takes too long to answer");
    pollfd entry = {.fd = socket.get(), .events = events, .revents = 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(left.count()));
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "cannot wait for ktrunkd's answer");
  }
}

Status send_all(const Fd& socket, std::string_view bytes, Clock::time_point deadline) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN) {
      if (Status status = wait_for(socket, POLLOUT, deadline); !status) return status;
    } else if (errno != EINTR) {
      return fail_errno(errno, "cannot send the command to ktrunkd");
    }
  }
  return {};
}

Result<std::string> receive_all(const Fd& socket, Clock::time_point deadline) {
  std::string answer;
  char buffer[65536];
  while (answer.size() <= kMostAnswerBytes) {
    const ssize_t got = ::recv(socket.get(), buffer, sizeof buffer, 0);
    if (got == 0) return answer;
    if (got > 0) {
      answer.append(buffer, static_cast<std::size_t>(got));
    } else if (errno == EAGAIN) {
      if (Status status = wait_for(socket, POLLIN, deadline); !status) return std::unexpected(status.error());
    } else if (errno != EINTR) {
      return fail_errno(errno, "ktrunkd broke off its answer");
    }
    if (Clock::now() >= deadline) return fail("ktrunkd takes too long to answer");
  }
  return fail("ktrunkd's answer is longer than {} bytes", kMostAnswerBytes);
}

}  // namespace

Result<nlohmann::ordered_json> ask(const std::string& socket_path, std::string_view command,
                                   std::chrono::milliseconds timeout) {
  const Clock::time_point deadline = Clock::now() + timeout;
  const Result<Fd> socket = connect_to(socket_path);
  if (!socket) return std::unexpected(socket.error());
  const std::string request = nlohmann::ordered_json{{"command", command}}.dump() + "\n";
  if (Status status = send_all(*socket, request, deadline); !status) return std::unexpected(std::move(status.error()));
  Result<std::string> text = receive_all(*socket, deadline);
  if (!text) return std::unexpected(std::move(text.error()));
  if (text->empty()) return fail("ktrunkd closed the control socket without an answer");
  nlohmann::ordered_json answer = nlohmann::ordered_json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (answer.is_discarded()) return fail("ktrunkd's answer is not JSON, or was cut off after {} bytes", text->size());
  if (answer.is_object() && answer.contains("error")) {
    const auto& error = answer["error"];
    return fail("ktrunkd refuses '{}': {}", command, error.is_string() ? error.get<std::string>() : error.dump());
  }
  return answer;
}

Result<TraceSource> begin_trace(const std::string& socket_path, const std::string& trunk) {
  const Clock::time_point deadline = Clock::now() + kControlTimeout;
  Result<Fd> socket = connect_to(socket_path);
  if (!socket) return std::unexpected(socket.error());
  const std::string request = nlohmann::ordered_json{{"command", "trace"}, {"trunk", trunk}}.dump() + "\n";
  if (Status status = send_all(*socket, request, deadline); !status) return std::unexpected(std::move(status.error()));
  if (Status status = wait_for(*socket, POLLIN, deadline); !status) return std::unexpected(std::move(status.error()));
  // What begins a trace comes with a descriptor, what refuses it does not.
  std::string text(4096, '\0');
  auto receipt = receive_packet(socket->get(), std::as_writable_bytes(std::span(text)), {});
  if (!receipt) return fail_errno(receipt.error().code, "ktrunkd broke off its answer");
  if (receipt->descriptor.valid()) return TraceSource{std::move(*socket), std::move(receipt->descriptor)};
  text.resize(receipt->bytes);
  const auto answer = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (answer.is_object() && answer.contains("error") && answer["error"].is_string())
    return fail("ktrunkd refuses 'trace': {}", answer["error"].get<std::string>());
  return fail("ktrunkd closed the control socket without an answer");
}

Status wait_for_end(pid_t pid) {
  const Fd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!process.valid()) {
    if (errno == ESRCH) return {};
    return fail_errno(errno, fmt::format("watch process {}", pid));
  }
  pollfd entry = {.fd = process.get(), .events = POLLIN, .revents = 0};
  while (::poll(&entry, 1, -1) < 0) {
    if (errno != EINTR) return fail_errno(errno, fmt::format("wait for process {}", pid));
  }
  return {};
}

}  // namespace ktrunk::cli
