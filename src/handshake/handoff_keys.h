// Handoff keys: what the handoff service does for connections in the kernel after their handshake, when their program
// asked for it (Request::keys in handoff/wire.h): a KeyKeeper whose vault is this process's own, and its words in the
// form of the wire contract. At most max_connections at once; a connection belongs to the client that asked for it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/id.h"
#include "base/result.h"
#include "handoff/wire.h"
#include "handshake/key_export.h"
#include "handshake/key_keeper.h"
#include "ipc/shared_region.h"
#include "ipc/vault.h"
#include "ktls/kernel.h"
#include "ktls/support.h"

namespace ktrunk::handshake {

class HandoffKeys {
 public:
  using ClientKey = std::uint64_t;
  // Called from its own calls and from the event loop.
  using Say = std::function<void(ClientKey, const handoff::Instruction&)>;

  // loop, support and kernel outlive it.
  [[nodiscard]] static Result<std::unique_ptr<HandoffKeys>> create(EventLoop& loop, const ktls::Support& support,
                                                                   ktls::Kernel& kernel, std::uint32_t max_connections,
                                                                   Say say);
  HandoffKeys(const HandoffKeys&) = delete;
  HandoffKeys& operator=(const HandoffKeys&) = delete;

  // The name of the connection from now on; 0: there is no place, and its secrets are gone.
  [[nodiscard]] std::uint64_t admit(ClientKey client, KernelSecrets secrets);

  // What a client says of a connection that is not its own is answered kClose or kCannotRenew, or is nothing.
  void record(ClientKey client, const handoff::Record& record, const Fd& socket);
  void sent(ClientKey client, const handoff::Sent& sent, Fd socket);
  void renew(ClientKey client, const handoff::Renew& renew);
  void gone(ClientKey client, std::uint64_t connection);
  // All connections of a client that has gone.
  void client_gone(ClientKey client);

  [[nodiscard]] std::size_t connections() const { return owners_.size(); }

 private:
  explicit HandoffKeys(ipc::Vault vault) : vault_(std::move(vault)) {}
  [[nodiscard]] bool owns(ClientKey client, std::uint64_t connection) const;
  void refuse(ClientKey client, std::uint64_t connection);
  void say(ConnectionId connection, handoff::Instruction instruction);

  ipc::Vault vault_;
  ipc::HandshakeStats stats_;
  Say say_;
  std::vector<std::uint32_t> free_;                      // slots
  std::vector<std::uint32_t> lives_;                     // generation of each slot
  std::unordered_map<std::uint64_t, ClientKey> owners_;  // by name
  std::unique_ptr<KeyKeeper> keeper_;                    // last: its words use the rest
};

}  // namespace ktrunk::handshake
