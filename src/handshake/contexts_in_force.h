// Contexts in force: the TLS contexts that new handshakes use, and beside them those of a reload that is being tried
// out (ipc::Reload). Nothing of a reload is used before all handshake processes could read everything. Sessions and
// handshakes in progress keep the contexts that they began with.
//
// Reading is done in one go, in the caller's thread: some milliseconds per table, as OpenSSL parses certificates.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "base/id.h"
#include "config/config.h"
#include "handshake/contexts.h"
#include "handshake/ticket_keys.h"
#include "ipc/messages.h"

namespace ktrunk::handshake {

class ContextsInForce {
 public:
  // Reads every file. A table whose files are no good is logged and has no context; the others have theirs.
  // config and tickets outlive the object and what it gives.
  ContextsInForce(const config::Config& config, TicketKeys& tickets);
  ContextsInForce(const ContextsInForce&) = delete;
  ContextsInForce& operator=(const ContextsInForce&) = delete;

  // Null: no TLS there, or its files are no good. Keep the pointer while the context is in use.
  [[nodiscard]] const std::shared_ptr<const TlsContext>& listener(ListenerId id) const { return now_.listener(id); }
  [[nodiscard]] const std::shared_ptr<const TlsContext>& trunk(TrunkId id) const { return now_.trunk(id); }

  // Reads every file again, beside what is in force. The answer carries what is wrong, or what is to be warned of, one
  // per line; kReady: commit() may follow.
  [[nodiscard]] ipc::Reloaded prepare(std::uint32_t number);
  enum class Committed : std::uint8_t {
    kYes,
    kNothing,  // this reload was not prepared here
  };
  [[nodiscard]] Committed commit(std::uint32_t number);
  void discard(std::uint32_t number);

 private:
  struct Prepared {
    std::uint32_t number;
    TlsContexts contexts;
  };
  const config::Config& config_;
  TicketKeys& tickets_;
  TlsContexts now_;
  std::optional<Prepared> prepared_;
};

}  // namespace ktrunk::handshake
