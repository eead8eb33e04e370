// Handoff service: TLS connections for other programs on this machine, by the contract of handoff/wire.h, with the
// certificates, keys and CAs of a configuration's [[listen]] tables (accept) and [[trunk]] tables (connect; those with
// a TLS target). `ktrunkd-handshake --serve` runs it, without a supervisor; a program of one's own may run it in its
// event loop. It binds none of the listeners and connects to none of the trunks: sockets come from its clients.
//
// What a client can cost is bounded: so many clients, so many requests of each that are not answered yet (the next wait
// in its socket), limits.handshakes of all together, limits.handshake for each, limits.max_connections relays, as many
// connections whose keys are kept.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/packet.h"
#include "base/result.h"
#include "config/config.h"
#include "handoff/wire.h"
#include "handshake/closing.h"
#include "handshake/contexts.h"
#include "handshake/handoff_handshake.h"
#include "handshake/handoff_keys.h"
#include "handshake/relay.h"
#include "ktls/kernel.h"
#include "ktls/support.h"

namespace ktrunk::handshake {

class Listener;

class HandoffService {
 public:
  struct Limits {
    std::size_t clients = 256;
    std::size_t requests_per_client = 1024;
  };
  // path: of the socket, made with mode 0600; one that nobody serves any more is replaced. loop, config and kernel
  // outlive the service. Error: the socket, or the first context whose certificate, key or CA is no good.
  [[nodiscard]] static Result<std::unique_ptr<HandoffService>> create(EventLoop& loop, const config::Config& config,
                                                                      std::string path, const Limits& limits,
                                                                      ktls::Kernel& kernel = ktls::running_kernel());
  ~HandoffService();  // removes the socket; ends everything at once
  HandoffService(const HandoffService&) = delete;
  HandoffService& operator=(const HandoffService&) = delete;

  // Reads certificates, keys and CAs again. Error: nothing has changed.
  [[nodiscard]] Status reload();

  // No more clients and requests; those in progress are given up, relays end with what waits in them and close_notify.
  void stop();
  // ... and have ended.
  [[nodiscard]] bool finished() const { return relays_.empty() && closing_.empty(); }

  // For tests and status lines.
  [[nodiscard]] std::size_t clients() const { return clients_.size(); }
  [[nodiscard]] std::size_t in_progress() const { return handshakes_.size(); }
  [[nodiscard]] std::size_t relays() const { return relays_.size(); }
  [[nodiscard]] std::size_t kept() const { return keys_->connections(); }  // connections whose keys we keep

 private:
  using ClientKey = HandoffKeys::ClientKey;
  using Body = std::array<std::byte, handoff::kMaxBodyBytes>;
  struct Outgoing {
    handoff::Header header;
    std::vector<std::byte> body;
    Fd descriptor;
  };
  struct Client {
    Fd channel;
    std::size_t in_progress = 0;
    std::deque<Outgoing> outgoing;  // what its channel has not taken yet
    EventLoop::Watch watch;
    EventLoop::Timer retry;
  };
  struct InProgress {
    ClientKey client = 0;
    handoff::Keys keys = handoff::Keys::kForget;
    std::unique_ptr<HandoffHandshake> handshake;
  };

  HandoffService(EventLoop& loop, const config::Config& config, std::string path, const Limits& limits,
                 ktls::Kernel& kernel);
  [[nodiscard]] const TlsContext* context(handoff::Role role, std::string_view name) const;
  [[nodiscard]] Status open();
  void accepted(Fd channel);
  void read(ClientKey key);
  [[nodiscard]] bool may_take(const Client& client) const;
  void mind_reading();
  void begin(ClientKey key, const handoff::Request& request, Fd socket);
  void done(std::uint64_t handshake, HandedBack result);
  [[nodiscard]] Result<Fd> make_relay(TlsSession session, std::string name);
  void take_packet(ClientKey key, const handoff::Header& header, const Body& body, PacketReceipt& receipt);
  template <typename T, typename Use>
  void take(ClientKey key, const handoff::Header& header, const Body& body, PacketReceipt& receipt, Use use);
  template <typename T>
  [[nodiscard]] bool enqueue(ClientKey key, const T& body, Fd descriptor);
  void answer(ClientKey key, const handoff::Answer& answer, Fd connection);
  void instruct(ClientKey key, const handoff::Instruction& instruction);
  void flush(ClientKey key);
  void drop(ClientKey key, std::string_view why);

  EventLoop& loop_;
  const config::Config& config_;
  std::string path_;
  Limits limits_;
  ktls::Support support_;
  Closing closing_;
  HandoffSettings settings_;
  TlsContexts contexts_;
  bool bound_ = false;
  std::unique_ptr<Listener> listener_;
  std::uint64_t next_key_ = 1;  // of clients, handshakes and relays
  std::unique_ptr<HandoffKeys> keys_;
  std::unordered_map<ClientKey, Client> clients_;
  std::unordered_map<std::uint64_t, InProgress> handshakes_;
  std::unordered_map<std::uint64_t, std::unique_ptr<Relay>> relays_;
};

}  // namespace ktrunk::handshake
