#include "ktls/support.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <utility>

#include "base/address.h"
#include "base/fd.h"
#include "base/result.h"

namespace ktrunk::ktls {
namespace {

using Clock = std::chrono::steady_clock;

// Closed with a reset, so that no probe leaves a connection in TIME_WAIT.
struct Pair {
  Fd near;
  Fd far;
};

class PairMaker {
 public:
  [[nodiscard]] static Result<PairMaker> create(Clock::time_point deadline) {
    PairMaker maker;
    maker.deadline_ = deadline;
    maker.listener_ = tcp_socket();
    sockaddr_in any = {};
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sockaddr_storage bound = {};
    socklen_t length = sizeof bound;
    if (!maker.listener_.valid() ||
        ::bind(maker.listener_.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any) != 0 ||
        ::listen(maker.listener_.get(), 8) != 0 ||
        ::getsockname(maker.listener_.get(), reinterpret_cast<sockaddr*>(&bound), &length) != 0)
      return fail_errno(errno, "a TCP listener on 127.0.0.1");
    maker.address_ = Address::from_sockaddr(reinterpret_cast<const sockaddr*>(&bound), length);
    return maker;
  }

  [[nodiscard]] Result<Pair> make() {
    Pair pair{tcp_socket(), Fd()};
    if (!pair.near.valid()) return fail_errno(errno, "socket");
    if (::connect(pair.near.get(), address_.data(), address_.size()) != 0 && errno != EINPROGRESS)
      return fail_errno(errno, "connect over 127.0.0.1");
    if (auto status = wait(pair.near, POLLOUT); !status) return std::unexpected(status.error());
    if (auto status = wait(listener_, POLLIN); !status) return std::unexpected(status.error());
    pair.far = Fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!pair.far.valid()) return fail_errno(errno, "accept over 127.0.0.1");
    const linger reset = {.l_onoff = 1, .l_linger = 0};
    ::setsockopt(pair.near.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    return pair;
  }

 private:
  [[nodiscard]] static Fd tcp_socket() {
    return Fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
  }
  [[nodiscard]] Status wait(const Fd& fd, short events) const {
    pollfd entry = {.fd = fd.get(), .events = events, .revents = 0};
    for (;;) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - Clock::now()).count();
      const int ready = ::poll(&entry, 1, left > 0 ? static_cast<int>(left) : 0);
      if (ready > 0) return {};
      if (ready == 0) return fail("127.0.0.1 did not answer within {} ms", kProbeTimeoutMs);
      if (errno != EINTR) return fail_errno(errno, "poll");
    }
  }
  Fd listener_;
  Address address_;
  Clock::time_point deadline_;
};

template <Direction D>
Keys<D> any_keys(Version version, Aead aead) {
  Keys<D> keys;
  keys.version = version;
  keys.aead = aead;
  keys.key.resize(key_bytes(aead));
  keys.nonce.resize(kNonceBytes);
  return keys;
}

int set_ulp(const Fd& socket, Kernel& kernel) {
  return kernel.set_option(socket.get(), IPPROTO_TCP, TCP_ULP, "tls", 3);
}

template <Direction D>
int set_keys(const Fd& socket, Version version, Aead aead, Kernel& kernel) {
  const CryptoInfo info(any_keys<D>(version, aead));
  return kernel.set_option(socket.get(), SOL_TLS, D == Direction::kTransmit ? TLS_TX : TLS_RX, info.bytes().data(),
                           static_cast<socklen_t>(info.bytes().size()));
}

void probe_suites(Support& support, PairMaker& pairs, Kernel& kernel) {
  for (const Version version : kVersions) {
    for (const Aead aead : kAeads) {
      auto pair = pairs.make();
      if (!pair) {
        support.reason = "the probe was cut short: " + pair.error().what;
        return;
      }
      auto& found = support.suites[static_cast<std::size_t>(version)][static_cast<std::size_t>(aead)];
      int code = set_ulp(pair->near, kernel);
      if (code == 0) code = set_keys<Direction::kTransmit>(pair->near, version, aead, kernel);
      found.transmit = code == 0;
      // On the other end, so that a version which can be sent only, or received only, shows.
      int receive_code = set_ulp(pair->far, kernel);
      if (receive_code == 0) receive_code = set_keys<Direction::kReceive>(pair->far, version, aead, kernel);
      found.receive = receive_code == 0;
      if (code == 0) code = receive_code;
      if (code != 0 && support.reason.empty())
        support.reason = fmt::format("{} with {} is refused: {}; the kernel's crypto may lack the cipher",
                                     version_name(version), aead_name(aead), errno_text(code));
      if (version == Version::kTls13 && found.transmit && !support.rekey)
        support.rekey = set_keys<Direction::kTransmit>(pair->near, version, aead, kernel) == 0;
    }
  }
}

}  // namespace

Support probe_support(Kernel& kernel) {
  Support support;
  auto pairs = PairMaker::create(Clock::now() + std::chrono::milliseconds(kProbeTimeoutMs));
  if (!pairs) {
    support.reason = "the probe could not run: " + pairs.error().what;
    return support;
  }
  auto pair = pairs->make();
  if (!pair) {
    support.reason = "the probe could not run: " + pair.error().what;
    return support;
  }
  const int code = set_ulp(pair->near, kernel);
  if (code == ENOENT) {
    support.reason =
        "this kernel has no TLS module loaded or built in (TCP_ULP \"tls\": ENOENT); run `modprobe tls`, "
        "or use a kernel with CONFIG_TLS";
  } else if (code != 0) {
    support.reason = fmt::format("TCP_ULP \"tls\": {}", errno_text(code));
  } else {
    support.ulp = true;
    probe_suites(support, *pairs, kernel);
  }
  return support;
}

std::string Support::describe() const {
  if (!ulp) return "no kernel TLS: " + (reason.empty() ? std::string("not probed") : reason);
  std::string text = "kernel TLS";
  for (const Version version : kVersions) {
    std::string ciphers;
    for (const Aead aead : kAeads) {
      const Directions found = suite(version, aead);
      if (!found.transmit && !found.receive) continue;
      ciphers += fmt::format("{}{}{}", ciphers.empty() ? "" : ", ", aead_name(aead),
                             complete(version, aead) ? "" : (found.transmit ? " (transmit only)" : " (receive only)"));
    }
    text += fmt::format("; {}: {}", version_name(version), ciphers.empty() ? "none" : ciphers);
  }
  text += rekey ? "; rekey" : "; no rekey";
  if (!reason.empty()) text += "; " + reason;
  return text;
}

}  // namespace ktrunk::ktls
