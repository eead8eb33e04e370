// Install: moves a TLS session's record protection from a library into the kernel (Documentation/networking/tls.rst).
// Every precondition is checked first; then the TCP_ULP, the transmit keys and the receive keys are set, and after that
// nothing can fail. The handshake process runs it; a worker gets the socket when it is done.
#pragma once

#include <cstdint>
#include <expected>
#include <utility>

#include "base/fd.h"
#include "base/result.h"
#include "ktls/crypto_info.h"
#include "ktls/kernel.h"

namespace ktrunk::ktls {

// A TCP socket on which the kernel encrypts and decrypts. Only install_keys() makes one.
class KtlsSocket {
 public:
  [[nodiscard]] int get() const { return socket_.get(); }
  [[nodiscard]] Version version() const { return version_; }
  [[nodiscard]] Aead aead() const { return aead_; }
  // Gives the descriptor away, for another process.
  [[nodiscard]] Fd release() && { return std::move(socket_); }

 private:
  friend class Installer;
  KtlsSocket(Fd socket, Version version, Aead aead) : socket_(std::move(socket)), version_(version), aead_(aead) {}
  Fd socket_;
  Version version_;
  Aead aead_;
};

// What a failed installation leaves behind.
enum class SocketState : std::uint8_t {
  kUntouched,  // no key is installed: a TLS library can go on with the connection
  kUnusable,   // one direction's keys are in: the connection can only be closed
};
struct InstallError {
  Error error;
  SocketState socket = SocketState::kUntouched;
};

// Installs the keys and sets TCP_NODELAY. socket: ESTABLISHED TCP, blocking or not, no ULP. It is moved from only when
// the installation succeeds; on failure the caller still has it, in the state that the error tells.
[[nodiscard]] std::expected<KtlsSocket, InstallError> install_keys(Fd&& socket, const SessionKeys& keys,
                                                                   Kernel& kernel = running_kernel());

// Replaces one direction's keys of a TLS 1.3 connection (KeyUpdate, RFC 8446 4.6.3); Linux 6.14 and later, EBUSY
// before. Transmit: no process may be sending, and the KeyUpdate record must have been sent. Nothing changes on
// failure.
template <Direction D>
[[nodiscard]] Status rekey(int fd, const Keys<D>& keys, Kernel& kernel = running_kernel());

// What key the kernel has for one direction: whether a rekey that a process died over has come about.
[[nodiscard]] Result<InstalledKey> installed_key(int fd, Direction direction, Version version, Aead aead,
                                                 Kernel& kernel = running_kernel());

}  // namespace ktrunk::ktls
