#include "ktls/install.h"

#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>

namespace ktrunk::ktls {
namespace {

constexpr std::string_view kUlp = "tls";

template <Direction D>
constexpr int option() {
  return D == Direction::kTransmit ? TLS_TX : TLS_RX;
}
template <Direction D>
constexpr std::string_view option_name() {
  return D == Direction::kTransmit ? "TLS_TX" : "TLS_RX";
}

template <Direction D>
Status set_keys(int fd, const Keys<D>& keys, Kernel& kernel) {
  const CryptoInfo info(keys);
  const auto bytes = info.bytes();
  const int code = kernel.set_option(fd, SOL_TLS, option<D>(), bytes.data(), static_cast<socklen_t>(bytes.size()));
  if (code == 0) return {};
  return fail_errno(code, fmt::format("setsockopt {} for {} with {}", option_name<D>(), version_name(keys.version),
                                      aead_name(keys.aead)));
}

Status check_keys(const SessionKeys& keys) {
  if (keys.transmit.version != keys.receive.version || keys.transmit.aead != keys.receive.aead)
    return fail("transmit and receive keys are of different versions or ciphers");
  if (CryptoInfo(keys.transmit).bytes().empty() || CryptoInfo(keys.receive).bytes().empty())
    return fail("a key or nonce has not the length that {} wants", aead_name(keys.transmit.aead));
  return {};
}

Status check_socket(int fd, Kernel& kernel) {
  int protocol = 0;
  socklen_t length = sizeof protocol;
  if (const int code = kernel.get_option(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length); code != 0)
    return fail_errno(code, "getsockopt SO_PROTOCOL");
  if (protocol != IPPROTO_TCP) return fail("not a TCP socket: kernel TLS is for TCP alone");

  tcp_info info = {};
  length = sizeof info;
  if (const int code = kernel.get_option(fd, IPPROTO_TCP, TCP_INFO, &info, &length); code != 0)
    return fail_errno(code, "getsockopt TCP_INFO");
  if (info.tcpi_state != TCP_ESTABLISHED)
    return std::unexpected(Error{"the TCP connection is not ESTABLISHED (has the peer closed it?)", ENOTCONN});

  std::array<char, 16> ulp = {};
  length = ulp.size();
  if (const int code = kernel.get_option(fd, IPPROTO_TCP, TCP_ULP, ulp.data(), &length); code != 0)
    return fail_errno(code, "getsockopt TCP_ULP");
  if (length != 0 && ulp[0] != '\0')
    return std::unexpected(Error{fmt::format("the socket has the TCP_ULP '{}' already", ulp.data()), EEXIST});
  return {};
}

std::unexpected<InstallError> untouched(Error error) {
  return std::unexpected(InstallError{std::move(error), SocketState::kUntouched});
}

}  // namespace

class Installer {
 public:
  static KtlsSocket make(Fd socket, const SessionKeys& keys) {
    return {std::move(socket), keys.transmit.version, keys.transmit.aead};
  }
};

std::expected<KtlsSocket, InstallError> install_keys(Fd&& socket, const SessionKeys& keys, Kernel& kernel) {
  const int fd = socket.get();
  if (auto status = check_keys(keys); !status) return untouched(std::move(status.error()));
  if (auto status = check_socket(fd, kernel); !status) return untouched(std::move(status.error()));
  const int on = 1;
  if (const int code = kernel.set_option(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); code != 0)
    return untouched(fail_errno(code, "setsockopt TCP_NODELAY").error());

  // Until the first key is in, a socket with the ULP passes bytes as before.
  const int code = kernel.set_option(fd, IPPROTO_TCP, TCP_ULP, kUlp.data(), static_cast<socklen_t>(kUlp.size()));
  if (code == ENOENT)
    return untouched(
        {"this kernel has no TLS (TCP_ULP \"tls\"): run `modprobe tls`, or use a kernel with CONFIG_TLS", code});
  if (code != 0) return untouched(fail_errno(code, "setsockopt TCP_ULP \"tls\"").error());
  if (auto status = set_keys(fd, keys.transmit, kernel); !status) return untouched(std::move(status.error()));
  if (auto status = set_keys(fd, keys.receive, kernel); !status)
    return std::unexpected(InstallError{std::move(status.error()), SocketState::kUnusable});
  return Installer::make(std::move(socket), keys);
}

template <Direction D>
Status rekey(int fd, const Keys<D>& keys, Kernel& kernel) {
  if (keys.version != Version::kTls13) return fail("only TLS 1.3 has key updates");
  if (CryptoInfo(keys).bytes().empty())
    return fail("a key or nonce has not the length that {} wants", aead_name(keys.aead));
  return set_keys(fd, keys, kernel);
}
template Status rekey(int, const TransmitKeys&, Kernel&);
template Status rekey(int, const ReceiveKeys&, Kernel&);

Result<InstalledKey> installed_key(int fd, Direction direction, Version version, Aead aead, Kernel& kernel) {
  const bool transmit = direction == Direction::kTransmit;
  const std::string_view name = transmit ? option_name<Direction::kTransmit>() : option_name<Direction::kReceive>();
  Secret<kMaxCryptoInfoBytes> info;
  info.resize(crypto_info_bytes(aead));
  auto length = static_cast<socklen_t>(info.size());
  if (const int code = kernel.get_option(fd, SOL_TLS, transmit ? TLS_TX : TLS_RX, info.writable().data(), &length);
      code != 0)
    return fail_errno(code, fmt::format("getsockopt {}", name));
  if (length != info.size()) return fail("getsockopt {} gave {} octets", name, length);
  return parse_crypto_info(info.bytes(), version, aead);
}

}  // namespace ktrunk::ktls
