// Ticket keys: what session tickets are sealed with (RFC 5077 4, RFC 8446 4.6.1): AES-256-CBC and HMAC-SHA-256 under
// keys that lie in the vault, so that a ticket of one handshake process opens in every other and in successors, and
// that a restart of ktrunkd ends them all. The handshake processes alone run it.
//
// Process 0 makes a new key every `rotation`; the newest key seals, it and the one before it open. So a ticket is good
// for one rotation at least and two at most; a key that opens nothing any more is overwritten. What a ticket may do
// where (which listener, verified by which CAs and revocation lists) is not the keys' matter: a listener's session id
// context says that (tls_context.h).
#pragma once

#include <openssl/ssl.h>

#include <chrono>
#include <cstdint>

#include "base/id.h"
#include "base/result.h"
#include "ipc/vault.h"

namespace ktrunk::handshake {

class TicketKeys {
 public:
  using Clock = std::chrono::system_clock;  // the vault outlives processes: wall clock

  // The ring (shared memory) must outlive this. `self` says who rotates: process 0. Error: no random octets.
  [[nodiscard]] static Result<TicketKeys> on(ipc::TicketKeyRing& ring, HandshakeIndex self,
                                             std::chrono::milliseconds rotation);
  TicketKeys(TicketKeys&&) noexcept;
  TicketKeys& operator=(TicketKeys&&) noexcept;
  ~TicketKeys();

  // Process 0: makes the first key, and a new one when the newest is `rotation` old or from the future. Others:
  // nothing. To be called at the start and from a timer, at least every now and then. Error: no random octets; the old
  // key stays.
  [[nodiscard]] Status rotate_if_due(Clock::time_point now);

  // How long a ticket may be used, in whole seconds: SSL_CTX_set_timeout.
  [[nodiscard]] std::chrono::seconds lifetime() const;

  // Seals the tickets of a server's context, and opens them. This object must stay where it is, and outlive the context
  // and its sessions.
  void serve(SSL_CTX* context);

 private:
  TicketKeys(ipc::TicketKeyRing& ring, HandshakeIndex self, std::chrono::milliseconds rotation)
      : ring_(&ring), self_(self), rotation_(rotation) {}
  // A key's copy, wiped when it goes. number: as in the ring; 0: none.
  struct Copy {
    ipc::TicketKey key = {};
    std::uint32_t number = 0;
    Copy() = default;
    Copy(Copy&&) noexcept = default;
    Copy& operator=(Copy&&) noexcept = default;
    ~Copy();
  };
  [[nodiscard]] Copy newest() const;
  [[nodiscard]] Copy named(const unsigned char* name) const;
  [[nodiscard]] Copy copy(std::uint32_t number) const;
  static int on_ticket(SSL* session, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher, EVP_MAC_CTX* mac,
                       int seal);

  ipc::TicketKeyRing* ring_;
  HandshakeIndex self_;
  std::chrono::milliseconds rotation_;
  // Seals until process 0 has made the first key: TLS 1.3 has no form for "no ticket after all".
  ipc::TicketKey own_ = {};
};

}  // namespace ktrunk::handshake
