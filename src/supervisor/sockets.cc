#include "supervisor/sockets.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "base/log.h"

namespace ktrunk::supervisor {
namespace {

// Room for a burst of datagrams while every worker is busy; the kernel caps it at net.core.rmem_max.
constexpr int kUdpReceiveBytes = 4 << 20;

const char* advice(int code) {
  switch (code) {
    case EADDRINUSE:
      return "; another program listens there";
    case EADDRNOTAVAIL:
      return "; no interface of this machine has the address";
    case EACCES:
      return "; ports below 1024 need root or CAP_NET_BIND_SERVICE";
    default:
      return "";
  }
}

// The kernel takes a process's rings apart behind its back: those of a ktrunkd that has just ended, of its own will or
// not, may keep its datagram sockets for a moment.
constexpr std::chrono::milliseconds kBetweenBinds{20};
constexpr int kMostBinds = 100;

int bind_when_free(const Fd& socket, const Address& address) {
  int result = ::bind(socket.get(), address.data(), address.size());
  for (int i = 1; i < kMostBinds && result != 0 && errno == EADDRINUSE; ++i) {
    std::this_thread::sleep_for(kBetweenBinds);
    result = ::bind(socket.get(), address.data(), address.size());
  }
  return result;
}

Result<Fd> open_listener(const config::Listener& listener) {
  const bool stream = listener.transport != config::Transport::kUdp;
  const auto failed = [&](const char* what) {
    const int code = errno;
    return fail("listen '{}': {} {}: {}{}", listener.name, what, listener.address.text(), errno_text(code),
                advice(code));
  };
  Fd fd(::socket(listener.address.family(), (stream ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return failed("socket for");
  const int on = 1;
  if (stream) ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  // Each address family has its own listener, so that [::] and 0.0.0.0 can stand side by side.
  if (listener.address.family() == AF_INET6) ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (!stream) ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &kUdpReceiveBytes, sizeof kUdpReceiveBytes);
  const int bound = stream ? ::bind(fd.get(), listener.address.data(), listener.address.size())
                           : bind_when_free(fd, listener.address);
  if (bound != 0) return failed("bind");
  if (stream && ::listen(fd.get(), SOMAXCONN) != 0) return failed("listen on");
  return fd;
}

}  // namespace

Result<Fd> open_collector(const config::Config& config) {
  const Address& address = config.hep.collector;
  if (address.empty()) return Fd();
  Fd fd(::socket(address.family(), SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return fail_errno(errno, fmt::format("key 'hep.collector': socket for {}", address.text()));
  if (auto status = connect_collector(fd, config); !status) log::warn("{}; trying again", status.error().what);
  return fd;
}

Status connect_collector(const Fd& socket, const config::Config& config) {
  const Address& address = config.hep.collector;
  sockaddr nowhere{};
  nowhere.sa_family = AF_UNSPEC;
  (void)::connect(socket.get(), &nowhere, sizeof nowhere);
  if (::connect(socket.get(), address.data(), address.size()) != 0)
    return fail_errno(errno, fmt::format("the HEP collector {}", address.text()));
  return {};
}

Result<std::vector<Fd>> open_listeners(const config::Config& config) {
  std::vector<Fd> sockets;
  for (const config::Listener& listener : config.listeners) {
    auto fd = open_listener(listener);
    if (!fd) return std::unexpected(fd.error());
    sockets.push_back(std::move(*fd));
  }
  return sockets;
}

}  // namespace ktrunk::supervisor
