// Ticket reader: how a connection that the kernel carries still gets the session tickets that its server sends after
// the handshake (RFC 8446 4.6.1). OpenSSL has no public way to the resumption secret, so a client's session stays in
// OpenSSL for a while after the handover: every NewSessionTicket that the kernel has decrypted is encrypted once more,
// under the keys of the handover and with OpenSSL's own next record number, and OpenSSL reads it from memory and makes
// a session of it. Nothing of that leaves the process; the session's socket is gone.
//
// The handshake process runs it. Costs about as much memory as a TLS session: bounded by kTickets and kept no longer
// than its owner wants.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "base/result.h"
#include "handshake/key_export.h"
#include "handshake/tls_session.h"
#include "ktls/key_schedule.h"

namespace ktrunk::handshake {

class TicketReader {
 public:
  // So many tickets of one connection are read.
  static constexpr unsigned kTickets = 4;

  // session: a client's, TLS 1.3, just gone into the kernel with these secrets. No value: it is none, or its keys
  // cannot be made; then there is nothing to read tickets with.
  [[nodiscard]] static std::optional<TicketReader> create(TlsSession session, const KernelSecrets& secrets);
  TicketReader(TicketReader&&) noexcept = default;
  TicketReader& operator=(TicketReader&&) noexcept = default;

  // message: one whole NewSessionTicket, header included. Error: OpenSSL does not want it; the reader is done then.
  [[nodiscard]] Result<Resumption> feed(std::span<const std::byte> message);
  [[nodiscard]] bool done() const { return left_ == 0; }

 private:
  TicketReader(TlsSession session, ktls::ReceiveKeys keys) : session_(std::move(session)), keys_(std::move(keys)) {}

  TlsSession session_;
  ktls::ReceiveKeys keys_;  // next: the number of the record that OpenSSL waits for
  unsigned left_ = kTickets;
};

}  // namespace ktrunk::handshake
