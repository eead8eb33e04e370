// Key keeper: what the handshake process does for connections that the kernel carries, after their handshake: it reads
// the handshake messages that come then, follows the peer's KeyUpdates and makes our own (RFC 8446 4.6, 5.5, 7.2),
// learns session tickets, and refuses renegotiation (RFC 5246 7.4.1.1). It holds no descriptor: each message that needs
// the socket brings it.
//
// All that must not be lost lies in the vault. When the process dies, the supervisor repeats to the successor what was
// not answered, and the successor can do every step again: which keys are installed it asks the socket
// (getsockopt TLS_TX, TLS_RX), and a SendControl{kHoldSends} that it says twice the supervisor drops while one is
// outstanding for the connection.
//
//   HandshakeOctets, last of a record   -> one Resume{kReceive | kReceiveRekeyed}, or one Fault
//   KeyUpdate(update_requested), Renew  -> SendControl{kHoldSends}; one at a time, requests meanwhile make one more
//   InstallTransmit                     -> Resume{kSendRekeyed}, or Fault
//   after a Fault                       -> silence until Gone
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/id.h"
#include "base/result.h"
#include "handshake/key_export.h"
#include "handshake/ticket_reader.h"
#include "handshake/tls_session.h"
#include "ipc/messages.h"
#include "ipc/shared_region.h"
#include "ipc/vault.h"
#include "ktls/kernel.h"
#include "ktls/support.h"

namespace ktrunk::handshake {

// What a connection brings along that has gone into the kernel; Secured carries it from the handshake to the keeper.
struct KernelSession {
  KernelSecrets secrets;
  std::optional<TicketReader> tickets;  // a client's, TLS 1.3
  TrunkId trunk;                        // whose tickets they are, and for which of its hosts
  std::string host;
};

class KeyKeeper {
 public:
  // Where its words go; called from its own calls and from the event loop. learnt may be empty.
  struct Outlet {
    std::function<void(const ipc::SendControl&)> send_control;
    std::function<void(const ipc::Resume&)> resume;
    std::function<void(const ipc::Fault&)> fault;
    std::function<void(TrunkId, const std::string& host, Resumption)> learnt;
  };
  struct Limits {
    // Handshake records of one connection: so many at once, and so many a second for good.
    unsigned records_burst = 256;
    unsigned records_per_second = 64;
    // Octets of handshake messages that are not complete, of all connections together.
    std::size_t most_octets = std::size_t{8} << 20;
    // How long tickets are waited for.
    Clock::duration tickets_for = std::chrono::seconds(60);
  };

  // All but the last two outlive it. self: this process, the owner of the vault entries that it writes.
  KeyKeeper(ipc::Vault& vault, HandshakeIndex self, const ktls::Support& support, ktls::Kernel& kernel,
            ipc::HandshakeStats& stats, EventLoop& loop, Outlet outlet, const Limits& limits);
  KeyKeeper(ipc::Vault& vault, HandshakeIndex self, const ktls::Support& support, ktls::Kernel& kernel,
            ipc::HandshakeStats& stats, EventLoop& loop, Outlet outlet)
      : KeyKeeper(vault, self, support, kernel, stats, loop, std::move(outlet), Limits()) {}
  ~KeyKeeper();
  KeyKeeper(const KeyKeeper&) = delete;
  KeyKeeper& operator=(const KeyKeeper&) = delete;

  // Once, at the start: takes over what a predecessor had handed over and was not told the slots of, and overwrites
  // entries of this index whose connections ended while no process was there to be told.
  void tidy(const ipc::SharedRegion& region);

  // What the next Established is called; it will never be given out again, by whatever life of the process.
  [[nodiscard]] std::uint64_t next_reference();
  // Right before Established goes: a successor can keep the connection's keys from here on. For connections whose
  // record layer is the kernel; at most ipc::kMaxDescriptorsInFlight may be unanswered.
  void hand_over(std::uint64_t reference, const KernelSecrets& secrets);
  // It has been admitted, and admitted() has been called, or refused. Of any connection.
  void answered(std::uint64_t reference);
  // A connection whose record layer is the kernel has got its name; not for the others.
  void admitted(ConnectionId connection, KernelSession session);
  // Any connection; what is not known is nothing.
  void gone(ConnectionId connection);

  // The socket is used during the call alone.
  void post_handshake(const ipc::PostHandshake& message, Fd socket);
  void install_transmit(const ipc::InstallTransmit& message, Fd socket);

  // Makes new keys for one direction: by our own KeyUpdate, or by asking the peer for one (which brings ours with it).
  // Of a connection that is not known: kCannot.
  using Update = KeyRenewal;
  [[nodiscard]] Update update(ConnectionId connection, ipc::Renew::Which which);

  // Connections that wait for tickets now; each holds an OpenSSL session.
  [[nodiscard]] std::size_t ticket_readers() const { return readers_.size(); }

 private:
  struct Work;    // of a connection that has had handshake records; gone again when it is quiet
  struct Reader;  // of a connection that waits for tickets
  struct Refusal {
    ipc::FaultReason reason;
    int detail;
  };

  [[nodiscard]] ipc::VaultEntry* find(ConnectionId connection) const;
  void take_unanswered(const ipc::SharedRegion& region);
  [[nodiscard]] Work& work(ConnectionId connection, const ipc::VaultEntry& entry);
  void forget(std::uint32_t slot);
  void forget_quiet();
  [[nodiscard]] std::expected<ipc::Resume::What, Refusal> take_record(Work& work, ipc::VaultEntry& entry, int socket);
  [[nodiscard]] std::expected<void, Refusal> follow(ipc::VaultEntry& entry, int socket);
  [[nodiscard]] static std::unexpected<Refusal> keys_failed(const Error& error);
  void keep_place(Work& work, ipc::VaultEntry& entry, std::uint64_t record);
  void learn(ConnectionId connection, std::span<const std::byte> message);
  void refuse_renegotiation(ConnectionId connection);
  void start_update(Work& work, KeyUpdateRequest request);
  void end(Work& work, ipc::FaultReason reason, int detail = 0);
  void fault(ConnectionId connection, ipc::FaultReason reason, int detail);

  ipc::Vault& vault_;
  HandshakeIndex self_;
  const ktls::Support& support_;
  ktls::Kernel& kernel_;
  ipc::HandshakeStats& stats_;
  EventLoop& loop_;
  Outlet outlet_;
  Limits limits_;
  std::size_t octets_ = 0;                                              // of messages that are not complete
  std::unordered_map<std::uint32_t, std::unique_ptr<Work>> work_;       // by slot
  std::unordered_map<std::uint32_t, std::unique_ptr<Reader>> readers_;  // by slot
  EventLoop::Timer tidying_;
};

}  // namespace ktrunk::handshake
