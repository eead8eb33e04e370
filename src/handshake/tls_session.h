// TLS session: one connection's TLS in OpenSSL, non-blocking: first the handshake, then either the handover of its keys
// to the kernel, or relay (read, write, shutdown) for as long as the connection lives. The handshake process runs it;
// it never loops, sleeps or polls: after kWantRead or kWantWrite wait for the descriptor and call again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"
#include "handshake/key_export.h"
#include "handshake/peer_identity.h"
#include "handshake/tls_context.h"
#include "ktls/control_record.h"
#include "ktls/install.h"

namespace ktrunk::handshake {

// A client's memory of a session, for resumption with the same trunk and name. Move-only value.
class Resumption {
 public:
  Resumption() = default;
  [[nodiscard]] bool valid() const { return session_ != nullptr; }

 private:
  friend class TlsSession;
  struct Free {
    void operator()(SSL_SESSION* session) const { SSL_SESSION_free(session); }
  };
  std::unique_ptr<SSL_SESSION, Free> session_;
};

// Why a handshake failed. error.what is one line for the log, with a remedy where there is a usual one.
struct HandshakeFailure {
  Error error;
  std::optional<ktls::Alert> sent;      // fatal alert that we sent
  std::optional<ktls::Alert> received;  // fatal alert that the peer sent
};

// What a finished handshake agreed on.
struct Negotiated {
  ktls::Version version = ktls::Version::kTls13;
  std::string cipher;  // OpenSSL's name, "TLS_AES_128_GCM_SHA256"
  std::string alpn;    // the application protocol (RFC 7301); empty: none was agreed on
  bool resumed = false;
  std::optional<PeerIdentity> peer;  // set when the peer showed a certificate that was verified
};

// Whether a KeyUpdate asks the peer to make new keys too (KeyUpdateRequest, RFC 8446 4.6.3).
enum class KeyUpdateRequest : std::uint8_t { kNotRequested = 0, kRequested = 1 };

// Whether new keys can be had on a connection.
enum class KeyRenewal : std::uint8_t {
  kBegun,   // or under way already
  kCannot,  // TLS 1.2, or a kernel that takes no second keys: replace the connection, or retire it
};

class TlsSession {
 public:
  // socket: connected, O_NONBLOCK. It belongs to the session from here on.
  [[nodiscard]] static Result<TlsSession> accept(const TlsContext& context, Fd socket);
  // target_host: whom we connected to (Target::host); the certificate must carry it, unless the trunk has a
  // verify_name; the same name goes into SNI when it is not a literal address. resumption: may be empty.
  [[nodiscard]] static Result<TlsSession> connect(const TlsContext& context, Fd socket, std::string_view target_host,
                                                  Resumption resumption = {});
  TlsSession(TlsSession&&) noexcept;
  TlsSession& operator=(TlsSession&&) noexcept;
  ~TlsSession();  // says nothing to the peer: shutdown() does; closes the socket unless it went to the kernel

  [[nodiscard]] int fd() const;  // for polling; -1 after into_kernel()

  enum class Step : std::uint8_t { kWantRead, kWantWrite, kDone, kFailed };
  // Goes on with the handshake. Once kDone or kFailed, always that.
  [[nodiscard]] Step step();
  [[nodiscard]] const HandshakeFailure& failure() const;  // after kFailed
  [[nodiscard]] const Negotiated& negotiated() const;     // after kDone

  // Whether this session could go to the kernel as far as version and cipher suite are concerned. After kDone.
  [[nodiscard]] Result<Suite> kernel_suite() const;

  // ---- to the kernel. After kDone, and before the first read() or write().
  struct HandoverError {
    Error error;
    ktls::SocketState socket = ktls::SocketState::kUntouched;  // kUntouched: this session can still relay
  };
  struct Handover {
    ktls::KtlsSocket socket;
    KernelSecrets secrets;
  };
  // Exports the keys and installs them in the kernel. On success nothing was written to the socket, and the session can
  // only be destroyed; or be given to a TicketReader (ticket_reader.h) if it is a client's under TLS 1.3: of others
  // OpenSSL's part is gone.
  [[nodiscard]] std::expected<Handover, HandoverError> into_kernel(ktls::Kernel& kernel = ktls::running_kernel());
  // Only the export, once: into_kernel() uses it.
  [[nodiscard]] Result<HandoverKeys> export_keys();

  // ---- relay. After kDone, and not after export_keys() succeeded.
  enum class Io : std::uint8_t {
    kBytes,      // `bytes` octets were moved
    kWantRead,   // wait until the socket is readable, then the same call again (write: the same bytes)
    kWantWrite,  // wait until it is writable, then the same call again
    kClosed,     // read: the peer's close_notify. shutdown: our close_notify is with the kernel
    kEof,        // the stream ended without close_notify: truncated
    kFailed,     // the connection is broken: io_error() says why
  };
  struct IoResult {
    Io outcome = Io::kFailed;
    std::size_t bytes = 0;
  };
  // At most one record's payload.
  [[nodiscard]] IoResult read(std::span<std::byte> into);
  // One record: 1 to ktls::kMaxRecordBytes octets, all or nothing. After kWantWrite the call must be repeated with the
  // same octets (they may lie elsewhere).
  [[nodiscard]] IoResult write(std::span<const std::byte> from);
  // Sends close_notify.
  [[nodiscard]] IoResult shutdown();
  // Sends a KeyUpdate, after which our records are under new keys (TLS 1.3; kFailed without breaking the connection
  // under TLS 1.2). Not while a write() is to be repeated. kBytes when it is with the kernel.
  [[nodiscard]] IoResult update_keys(KeyUpdateRequest request);
  [[nodiscard]] const Error& io_error() const;
  // Octets that OpenSSL has received and decrypted, or could without the socket: read() before polling.
  [[nodiscard]] bool has_pending() const;

  // After kDone: the socket has failed while the last of the handshake was being sent, which OpenSSL does not mind; the
  // peer is gone.
  [[nodiscard]] bool socket_failed() const;

  // ---- for TicketReader: a client's, TLS 1.3, after into_kernel() or export_keys().
  // From now on OpenSSL reads from memory. The number of the record that it waits for; none when the session is not of
  // that kind.
  [[nodiscard]] std::optional<ktls::RecordSeq> detach();
  // OpenSSL reads these records as if they came from the peer. What it has learnt from them is in resumption().
  [[nodiscard]] Status read_detached(std::span<const std::byte> records);

  // ---- resumption (client). What the server has given so far; invalid when nothing. TLS 1.3 tickets come after the
  // handshake, so that only a session that read() from the peer has one.
  [[nodiscard]] Resumption resumption() const;

 private:
  struct State;
  explicit TlsSession(std::unique_ptr<State> state);
  [[nodiscard]] static Result<TlsSession> make(const TlsContext& context, Fd socket);
  std::unique_ptr<State> state_;
};

}  // namespace ktrunk::handshake
