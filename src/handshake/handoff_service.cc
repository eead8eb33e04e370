#include "handshake/handoff_service.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>

#include "base/log.h"
#include "base/packet.h"
#include "handshake/listener.h"

namespace ktrunk::handshake {
namespace {

constexpr int kPacketsPerTurn = 16;  // of one client, so that it leaves time for the others
// A channel that takes nothing may be out of room or of descriptors in flight; poll tells only of the first.
constexpr std::chrono::milliseconds kRetry{2};

// Only who could read the private keys anyway: the service's own user, and root.
Status check_peer(int channel) {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(channel, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return fail_errno(errno, "SO_PEERCRED");
  if (peer.uid != 0 && peer.uid != ::geteuid()) return fail("user {} may not use it", peer.uid);
  return {};
}

}  // namespace

HandoffService::HandoffService(EventLoop& loop, const config::Config& config, std::string path, const Limits& limits,
                               ktls::Kernel& kernel)
    : loop_(loop),
      config_(config),
      path_(std::move(path)),
      limits_(limits),
      closing_(loop),
      settings_{.loop = loop,
                .closing = closing_,
                .record_layer = {config.record_layer, &support_, &kernel},
                .limit = config.limits.handshake,
                .stalled_peer = config.limits.stalled_peer} {
  if (config.record_layer == config::RecordLayer::kRelay) return;
  support_ = ktls::probe_support(kernel);
  log::info("{}", support_.describe());
}

HandoffService::~HandoffService() {
  if (bound_) ::unlink(path_.c_str());
}

Result<std::unique_ptr<HandoffService>> HandoffService::create(EventLoop& loop, const config::Config& config,
                                                               std::string path, const Limits& limits,
                                                               ktls::Kernel& kernel) {
  std::unique_ptr<HandoffService> made(new HandoffService(loop, config, std::move(path), limits, kernel));
  if (auto status = made->reload(); !status) return std::unexpected(std::move(status.error()));
  auto keys = HandoffKeys::create(loop, made->support_, kernel, config.limits.max_connections,
                                  [self = made.get()](ClientKey key, const handoff::Instruction& instruction) {
                                    self->instruct(key, instruction);
                                  });
  if (!keys) return std::unexpected(std::move(keys.error()));
  made->keys_ = std::move(*keys);
  if (auto status = made->open(); !status) return std::unexpected(std::move(status.error()));
  return made;
}

Status HandoffService::reload() {
  TlsContexts::Loaded loaded = TlsContexts::load(config_, nullptr);
  for (const auto& warning : loaded.warnings) log::warn("{}", warning.text(config_));
  if (!loaded.errors.empty()) return fail("{}", loaded.errors.front().text(config_));
  contexts_ = std::move(loaded.contexts);  // sessions keep what they need of the old ones
  return {};
}

// Null: there is none of that name.
const TlsContext* HandoffService::context(handoff::Role role, std::string_view name) const {
  if (role == handoff::Role::kAccept) {
    const auto found = std::ranges::find(config_.listeners, name, &config::Listener::name);
    if (found == config_.listeners.end()) return nullptr;
    return contexts_.listener(ListenerId{static_cast<std::uint16_t>(found - config_.listeners.begin())}).get();
  }
  const auto found = std::ranges::find(config_.trunks, name, &config::Trunk::name);
  if (found == config_.trunks.end()) return nullptr;
  return contexts_.trunk(TrunkId{static_cast<std::uint16_t>(found - config_.trunks.begin())}).get();
}

Status HandoffService::open() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path_.size() >= sizeof address.sun_path)
    return fail("{}: the path has more than {} octets", path_, sizeof address.sun_path - 1);
  std::memcpy(address.sun_path, path_.data(), path_.size());
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);

  struct stat there{};
  if (::lstat(path_.c_str(), &there) == 0 && !S_ISSOCK(there.st_mode))
    return fail("{}: a file that is no socket is in the way", path_);
  Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return fail_errno(errno, "socket");
  if (::connect(fd.get(), generic, sizeof address) == 0 || errno == EAGAIN)
    return fail("{}: another handshake service is there; stop it, or take another path", path_);
  if (errno == ECONNREFUSED) ::unlink(path_.c_str());
  const mode_t before = ::umask(0177);
  const int bound = ::bind(fd.get(), generic, sizeof address);
  const int code = errno;
  ::umask(before);
  if (bound != 0) return fail_errno(code, path_);
  bound_ = true;
  if (::listen(fd.get(), 64) != 0) return fail_errno(errno, path_);
  auto listener = Listener::create(loop_, std::move(fd), path_,
                                   [this](Fd channel, const Address&) { accepted(std::move(channel)); });
  if (!listener) return std::unexpected(std::move(listener.error()));
  listener_ = std::move(*listener);
  return {};
}

void HandoffService::accepted(Fd channel) {
  if (const Status status = check_peer(channel.get()); !status)
    return log::warn("{}: client refused: {}", path_, status.error().what);
  const ClientKey key = next_key_++;
  auto watch = loop_.watch(channel.get(), Interest::kRead, [this, key](Ready) { read(key); });
  if (!watch) return log::error("{}: client refused: {}", path_, watch.error().what);
  Client& client = clients_[key];
  client.channel = std::move(channel);
  client.watch = std::move(*watch);
  if (clients_.size() >= limits_.clients) listener_->pause();
}

bool HandoffService::may_take(const Client& client) const {
  return client.in_progress + client.outgoing.size() < limits_.requests_per_client &&
         handshakes_.size() < config_.limits.handshakes;
}

// Clients are read as long as there is room for what they ask.
void HandoffService::mind_reading() {
  for (auto& [key, client] : clients_) client.watch.set(may_take(client) ? Interest::kRead : Interest::kNothing);
}

void HandoffService::read(ClientKey key) {
  for (int i = 0; i < kPacketsPerTurn; ++i) {
    const auto found = clients_.find(key);
    if (found == clients_.end()) return;
    if (!may_take(found->second)) return mind_reading();
    handoff::Header header;
    Body body;
    auto receipt = receive_packet(found->second.channel.get(), std::as_writable_bytes(std::span(&header, 1)), body);
    if (!receipt) return drop(key, receipt.error().what);
    if (receipt->outcome == PacketReceipt::Outcome::kWouldBlock) return;
    if (receipt->outcome == PacketReceipt::Outcome::kClosed) return drop(key, {});
    if (receipt->cut) return drop(key, "a packet longer than any message");
    take_packet(key, header, body, *receipt);
  }
}

void HandoffService::take_packet(ClientKey key, const handoff::Header& header, const Body& body,
                                 PacketReceipt& receipt) {
  if (receipt.bytes < sizeof header) return drop(key, "a packet that is no message");
  if (header.kind == handoff::Kind::kRequest)
    return take<handoff::Request>(key, header, body, receipt, [&](const handoff::Request& request, Fd socket) {
      if (!socket.valid())
        return answer(key, refusal(request, "no room for the descriptor: raise the service's limit on open files"),
                      Fd());
      begin(key, request, std::move(socket));
    });
  if (header.kind == handoff::Kind::kRecord)
    return take<handoff::Record>(key, header, body, receipt, [&](const handoff::Record& record, const Fd& socket) {
      keys_->record(key, record, socket);
    });
  if (header.kind == handoff::Kind::kSent)
    return take<handoff::Sent>(key, header, body, receipt, [&](const handoff::Sent& sent, Fd socket) {
      keys_->sent(key, sent, std::move(socket));
    });
  if (header.kind == handoff::Kind::kRenew)
    return take<handoff::Renew>(key, header, body, receipt,
                                [&](const handoff::Renew& renew, const Fd&) { keys_->renew(key, renew); });
  take<handoff::Gone>(key, header, body, receipt,
                      [&](const handoff::Gone& gone, const Fd&) { keys_->gone(key, gone.connection); });
}

// One message, if it keeps the contract; else the client's end. A descriptor that came, but that this process has no
// room for, is none in use().
template <typename T, typename Use>
void HandoffService::take(ClientKey key, const handoff::Header& header, const Body& body, PacketReceipt& receipt,
                          Use use) {
  const auto message = handoff::parse<T>(header, body, receipt.bytes);
  if (!message) return drop(key, message.error().what);
  const bool no_room = T::kDescriptors == 1 && receipt.descriptors == 0 && receipt.descriptors_cut;
  if (!no_room && (receipt.descriptors != T::kDescriptors || receipt.descriptors_cut))
    return drop(key, fmt::format("{} descriptors with a message that has {}", receipt.descriptors, T::kDescriptors));
  use(*message, std::move(receipt.descriptor));
}

void HandoffService::begin(ClientKey key, const handoff::Request& request, Fd socket) {
  const TlsContext* context = this->context(request.role, request.context.view());
  if (context == nullptr) {
    const bool accept = request.role == handoff::Role::kAccept;
    return answer(key,
                  refusal(request, fmt::format("'{}' is no [[{}]] of {} with TLS", request.context.view(),
                                               accept ? "listen" : "trunk", config_.path)),
                  Fd());
  }
  const std::uint64_t number = next_key_++;
  auto handshake = HandoffHandshake::begin(settings_, *context, request, std::move(socket),
                                           [this, number](HandedBack result) { done(number, std::move(result)); });
  if (!handshake) return answer(key, refusal(request, handshake.error().what), Fd());
  handshakes_.emplace(number, InProgress{key, request.keys, std::move(*handshake)});
  ++clients_.at(key).in_progress;
}

void HandoffService::done(std::uint64_t number, HandedBack result) {
  const auto ended = handshakes_.extract(number);
  const ClientKey key = ended.mapped().client;
  --clients_.at(key).in_progress;
  if (!result.relay) {
    if (result.kernel && ended.mapped().keys == handoff::Keys::kKeep)
      result.answer.connection = keys_->admit(key, std::move(result.kernel->secrets));
    answer(key, result.answer, result.kernel ? std::move(result.kernel->socket).release() : Fd());
    return mind_reading();
  }
  auto end = make_relay(std::move(*result.relay), fmt::format("relay for '{}'", path_));
  if (end) {
    answer(key, result.answer, std::move(*end));
  } else {
    handoff::Request request;
    request.number = result.answer.number;
    answer(key, refusal(request, end.error().what), Fd());
  }
  mind_reading();
}

Result<Fd> HandoffService::make_relay(TlsSession session, std::string name) {
  if (relays_.size() >= config_.limits.max_connections)
    return fail("{} connections are relayed already (limits.max_connections)", relays_.size());
  const std::uint64_t number = next_key_++;
  auto made = Relay::create(loop_, closing_, std::move(session), std::move(name), config_.limits.stalled_peer,
                            [this, number](const Relay::End&) { relays_.erase(number); });
  if (!made) return std::unexpected(std::move(made.error()));
  relays_.emplace(number, std::move(made->relay));
  return std::move(made->workers_end);
}

template <typename T>
bool HandoffService::enqueue(ClientKey key, const T& body, Fd descriptor) {
  const auto found = clients_.find(key);
  if (found == clients_.end()) return false;
  const auto octets = std::as_bytes(std::span(&body, 1));
  found->second.outgoing.push_back({handoff::header_of(body), {octets.begin(), octets.end()}, std::move(descriptor)});
  return true;
}

void HandoffService::answer(ClientKey key, const handoff::Answer& answer, Fd connection) {
  if (enqueue(key, answer, std::move(connection))) flush(key);
}

// Not at once: it is said in the middle of work on the connection, which a client that is gone would take away.
void HandoffService::instruct(ClientKey key, const handoff::Instruction& instruction) {
  if (!enqueue(key, instruction, Fd())) return;
  clients_.at(key).retry = loop_.after({}, [this, key] {
    flush(key);
    mind_reading();
  });
}

void HandoffService::flush(ClientKey key) {
  const auto found = clients_.find(key);
  if (found == clients_.end()) return;
  Client& client = found->second;
  while (!client.outgoing.empty()) {
    const Outgoing& next = client.outgoing.front();
    const auto sent =
        send_packet(client.channel.get(), std::as_bytes(std::span(&next.header, 1)), next.body, next.descriptor);
    if (!sent) return drop(key, {});
    if (*sent == PacketSent::kWouldBlock) {
      client.retry = loop_.after(kRetry, [this, key] {
        flush(key);
        mind_reading();
      });
      return;
    }
    client.outgoing.pop_front();
  }
}

void HandoffService::drop(ClientKey key, std::string_view why) {
  if (!why.empty()) log::warn("{}: a client broke the contract and was closed: {}", path_, why);
  const auto gone = clients_.extract(key);
  std::erase_if(handshakes_, [key](const auto& each) { return each.second.client == key; });
  keys_->client_gone(key);
  if (listener_) listener_->resume();
  mind_reading();
}

void HandoffService::stop() {
  listener_.reset();
  while (!clients_.empty()) drop(clients_.begin()->first, {});
  for (const auto& [number, relay] : relays_) relay->close();
}

}  // namespace ktrunk::handshake
