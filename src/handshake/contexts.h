// TLS contexts: those of every listener and every trunk of one configuration, loaded together, so that a reload can be
// tried out whole before anything of it is used (`ktrunk reload`, `ktrunk check`). The handshake process holds them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/id.h"
#include "config/config.h"
#include "handshake/ticket_keys.h"
#include "handshake/tls_context.h"

namespace ktrunk::handshake {

class TlsContexts {
 public:
  // One thing that an operator should know, about a table of the configuration.
  struct Problem {
    unsigned line = 0;  // of the configuration's text; 0: not known
    std::string what;   // names the listener or trunk, the key and the file

    [[nodiscard]] std::string text(const config::Config& config) const;  // "FILE:LINE: what"
  };
  struct Loaded;

  // Reads every file that is needed. A table whose files are no good has no context, and an error says why; the others
  // have theirs. tickets: may be null (OpenSSL's own keys then), else it must outlive the contexts and their sessions.
  [[nodiscard]] static Loaded load(const config::Config& config, TicketKeys* tickets);

  // Null: no TLS there, or its files are no good. Whoever goes on using a context after a reload keeps the pointer;
  // sessions need not, as they keep what they need.
  [[nodiscard]] const std::shared_ptr<const TlsContext>& listener(ListenerId id) const { return listeners_[id.value]; }
  [[nodiscard]] const std::shared_ptr<const TlsContext>& trunk(TrunkId id) const { return trunks_[id.value]; }

 private:
  std::vector<std::shared_ptr<const TlsContext>> listeners_;  // one for each of the configuration's
  std::vector<std::shared_ptr<const TlsContext>> trunks_;
};

struct TlsContexts::Loaded {
  TlsContexts contexts;
  std::vector<Problem> errors;    // what cannot be used
  std::vector<Problem> warnings;  // what can, though not for long or not for all
};

}  // namespace ktrunk::handshake
