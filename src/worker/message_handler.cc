#include "worker/message_handler.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "sip/options_ping.h"
#include "sip/validate.h"
#include "worker/preference.h"

namespace ktrunk::worker {
namespace {

sip::TokenKey key_of(const ipc::SharedRegion& region) {
  sip::TokenKey key;
  static_assert(sizeof key.bytes == sizeof(ipc::TokenSecret));
  std::memcpy(key.bytes.data(), region.secret().bytes.data(), key.bytes.size());
  return key;
}

// RFC 3261 21.5.4: when to try again; long enough for a queue to empty or a trunk to come back.
constexpr std::string_view kRetryAfter = "Retry-After: 5\r\n";

template <typename Act>
void for_each_message(const Block& block, Act&& act) {
  sip::Framer framer(block.bytes);
  std::string_view rest(block.chunk.octets, block.bytes);
  while (!rest.empty()) {
    const sip::Framer::Result frame = framer.next(rest);
    if (frame.outcome == sip::Framer::Outcome::kMessage) act(rest.substr(0, frame.length));
    if (frame.length == 0 || frame.outcome == sip::Framer::Outcome::kMalformed) return;
    rest.remove_prefix(frame.length);
  }
}

}  // namespace

MessageHandler::MessageHandler(const config::Config& config, const ipc::SharedRegion& region, WorkerIndex self,
                               ConnectionTable& connections, Sender& sender, WaitingRoom& waiting, Datagrams& datagrams,
                               Tracer& tracer)
    : config_(config),
      region_(region),
      self_(self),
      stats_(region.worker(self)),
      connections_(connections),
      sender_(sender),
      waiting_(waiting),
      datagrams_(datagrams),
      tracer_(tracer),
      admission_(config, region),
      large_(config, region),
      datagram_peers_(config, region),
      key_(key_of(region)),
      proxy_(config, key_) {}

sip::Flow MessageHandler::flow_of(const Connection& connection) {
  const ipc::ConnectionInfo& info = connection.info();
  return {.transport = info.transport,
          .connection = connection.id,
          .trunk = info.trunk,
          .listener = info.listener,
          .remote = info.peer};
}

sip::Flow MessageHandler::flow_of(ListenerId listener, const Address& from) const {
  return {.transport = config::Transport::kUdp,
          .connection = {},
          .trunk = datagram_peers_.trunk_of(from, listener),
          .listener = listener,
          .remote = from};
}

void MessageHandler::handle(std::string_view octets, const sip::Flow& source, sip::Carrier carrier,
                            const sip::HeaderIndex& index) {
  stats_.messages_received.add();
  message_.parse(octets, carrier, index);
  trace_received(octets, source);
  if (message_.is_request()) {
    if (const auto how = admission_.treatment(source); how != config::Strangers::kServe) return turn_away(how, source);
  }
  const sip::Decision decision = proxy_.decide(message_, source, edits_);
  if (draining_ && !std::holds_alternative<sip::Drop>(decision) && comes_too_late())
    return reply_unavailable("Draining", source);
  std::visit([&](const auto& action) { perform(action, source); }, decision);
}

// RFC 3261 16.3 and 21.5.4: the peer's next proxy may take it. What belongs to something that has begun goes on.
bool MessageHandler::comes_too_late() const {
  if (!message_.is_request() || message_.method() == sip::Method::kAck || message_.method() == sip::Method::kCancel)
    return false;
  return sip::check_request(message_, config_.limits).status == 0 && !message_.facts().to_has_tag;
}

void MessageHandler::refuse(std::string_view head, const sip::Flow& source, int status, const char* reason) {
  if (head.empty()) return;
  stats_.messages_received.add();
  message_.parse(head, sip::Carrier::kDatagram);
  trace_received(head, source);
  if (message_.is_request()) perform(sip::Reply{.status = status, .reason = reason, .extra_headers = {}}, source);
}

void MessageHandler::pong(Connection& connection) {
  constexpr std::string_view kCrlf = "\r\n";
  stats_.keepalives.add();
  if (!connection.accepts_messages() || !sender_.has_room(connection, kCrlf.size())) return;
  std::memcpy(sender_.reserve(connection, kCrlf.size()), kCrlf.data(), kCrlf.size());
  sender_.commit(connection, kCrlf.size());
}

void MessageHandler::perform(const sip::Reply& reply, const sip::Flow& source) {
  reply_.clear();
  proxy_.build_reply(message_, source, reply, reply_);
  if (reply_.empty()) return drop("a request that cannot be answered", source);
  const Hop hop = hop_to(source);
  if (hop.connection != nullptr && sender_.has_room(*hop.connection, reply_.size())) {
    std::memcpy(sender_.reserve(*hop.connection, reply_.size()), reply_.data(), reply_.size());
    sender_.commit(*hop.connection, reply_.size());
    trace_sent(reply_.data(), reply_.size(), hop.flow);
  } else if (hop.socket != nullptr && datagrams_.has_room()) {
    std::memcpy(datagrams_.reserve(reply_.size()), reply_.data(), reply_.size());
    sip::Flow way = hop.flow;
    way.remote = sip::reply_address(message_, source);
    datagrams_.commit(*hop.socket, way.remote, reply_.size());
    trace_sent(reply_.data(), reply_.size(), way);
  } else {
    return drop("the peer takes no answers", source);
  }
  stats_.replies.add();
}

void MessageHandler::perform(const sip::Drop& why, const sip::Flow& source) {
  if (!take_answer_to_ping(source)) drop(why.why, source);
}

void MessageHandler::perform(const sip::ToTrunk& way, const sip::Flow& source) {
  const Hop hop = hop_to_one_of(*way.route, way.affinity, way.needs);
  if (!hop.usable()) return reply_unavailable("Trunk Down", source);
  const TrunkId trunk = hop.flow.trunk;
  if (!admission_.admit(message_, trunk, way.affinity)) return reply_unavailable("Trunk At Its Limit", source);
  const std::uint64_t forwarded = stats_.requests_forwarded.read();
  forward(hop, way.needs, way.affinity, source, way.route);
  if (forwarded == stats_.requests_forwarded.read()) admission_.ended(trunk, way.affinity);
}

void MessageHandler::perform(const sip::ToFlow& way, const sip::Flow& source) {
  Hop hop = hop_to(way.flow);
  // The connection has gone since; another one to the same trunk reaches the same peer.
  if (!hop.usable() && way.flow.trunk.valid()) hop = hop_by_connection(way.flow.trunk, way.affinity);
  if (!hop.usable() && way.flow.trunk.valid()) hop = hop_to_trunk(way.flow.trunk, way.affinity);
  if (message_.is_request()) {
    if (hop.usable()) return forward(hop, way.needs, way.affinity, source, nullptr);
    if (way.flow.trunk.valid()) return reply_unavailable("Trunk Down", source);
    // RFC 5626 5.3.1: a stranger's flow does not come back.
    return refuse(430, "Flow Failed", source);
  }
  admission_.answered(message_, source, way.affinity);
  large_.answered(message_, source, way.affinity);
  if (!hop.usable()) return drop("a response whose connection has gone", source);
  if (!has_room_for_response(hop, edits_.size(message_.bytes()))) {
    if (hop.connection != nullptr) hop.connection->overflowed = true;
    return drop("a response to a peer that takes nothing", source);
  }
  put(hop);
  stats_.responses_forwarded.add();
}

void MessageHandler::forward(Hop hop, sip::Needs needs, std::uint64_t affinity, const sip::Flow& source,
                             const config::Route* route) {
  if (needs == sip::Needs::kTls && hop.flow.transport != config::Transport::kTls)
    return std::visit([&](const auto& action) { perform(action, source); }, sip::Proxy::refuse_sips(message_));
  proxy_.forward_request(message_, source, hop.flow, edits_, route, affinity);
  if (hop.socket != nullptr && large_.concern(hop.flow.trunk) && !edits_.failed()) {
    const Hop stream = hop_by_connection(hop.flow.trunk, affinity, hop.flow.remote);
    const bool large =
        edits_.size(message_.bytes()) > datagram_peers_.most_request_bytes(hop.flow.trunk, hop.flow.remote);
    if (stream.usable() && large_.take(message_, hop.flow.trunk, affinity, large)) {
      proxy_.forward_request(message_, source, hop.flow, edits_, route, affinity, &stream.flow);
      hop = stream;
    }
  }
  if (edits_.failed()) return refuse(500, "Message Needs Too Many Changes", source);
  if (!has_room(hop, edits_.size(message_.bytes()))) {
    stats_.queue_full.add();
    return reply_unavailable("Next Hop Congested", source);
  }
  put(hop);
  stats_.requests_forwarded.add();
}

bool MessageHandler::has_room(const Hop& hop, std::size_t bytes) const {
  if (hop.connection != nullptr) return sender_.has_room(*hop.connection, bytes);
  return hop.awaited.valid() ? waiting_.has_room(hop.awaited, bytes) : datagrams_.has_room();
}

bool MessageHandler::has_room_for_response(const Hop& hop, std::size_t bytes) const {
  if (hop.connection != nullptr) return sender_.has_room_for_response(*hop.connection, bytes);
  return !hop.awaited.valid() || waiting_.has_room_for_response(hop.awaited, bytes);
}

void MessageHandler::put(const Hop& hop) {
  const std::size_t bytes = edits_.size(message_.bytes());
  if (hop.connection != nullptr) {
    char* octets = sender_.reserve(*hop.connection, bytes);
    edits_.write(message_.bytes(), octets);
    sender_.commit(*hop.connection, bytes);
    trace_sent(octets, bytes, hop.flow);
  } else if (hop.awaited.valid()) {
    edits_.write(message_.bytes(), waiting_.reserve(hop.awaited, bytes));
    waiting_.commit(hop.awaited, bytes);
  } else {
    char* octets = datagrams_.reserve(bytes);
    edits_.write(message_.bytes(), octets);
    datagrams_.commit(*hop.socket, hop.flow.remote, bytes);
    trace_sent(octets, bytes, hop.flow);
  }
}

void MessageHandler::drop(const char* why, const sip::Flow& source) {
  stats_.dropped.add();
  log::debug("dropped from {} {}: {}", config::transport_name(source.transport), source.remote.text(), why);
}

void MessageHandler::refuse(int status, std::string_view reason, const sip::Flow& source) {
  if (message_.method() == sip::Method::kAck) return drop("an ACK that cannot go on", source);
  perform(sip::Reply{.status = status, .reason = reason, .extra_headers = {}}, source);
}

void MessageHandler::reply_unavailable(const char* reason, const sip::Flow& source) {
  if (message_.method() == sip::Method::kAck) return drop("an ACK whose next hop has gone", source);
  perform(sip::Reply{.status = 503, .reason = reason, .extra_headers = kRetryAfter}, source);
}

void MessageHandler::turn_away(config::Strangers how, const sip::Flow& source) {
  if (how == config::Strangers::kIgnore) return drop("a request of a stranger", source);
  refuse(403, "Forbidden", source);
}

// An answer to an OPTIONS of ours (trunk_watch.h), from whom it was asked. To the proxy its Via is none of ours.
bool MessageHandler::take_answer_to_ping(const sip::Flow& source) const {
  if (message_.status() < 200) return false;
  const auto subject = sip::ping_answered(message_, key_);
  if (!subject || subject->trunk.value >= config_.trunks.size()) return false;
  if (subject->target == sip::PingSubject::kConnection) {
    if (source.trunk != subject->trunk || !source.connection.valid()) return false;
    // One that another worker handed over may come after its connection's end.
    ipc::ConnectionSlot& slot = region_.slot(source.connection.slot);
    if (slot.state().generation != source.connection.generation) return true;
    slot.health.answered(message_.status(), Clock::now());
    return true;
  }
  ipc::TrunkEntry& entry = region_.trunk(subject->trunk);
  if (subject->target >= ipc::kMaxTargets || source.transport != config::Transport::kUdp ||
      (entry.udp_address(subject->target) != source.remote && source.trunk != subject->trunk))
    return false;
  entry.udp[subject->target].health.answered(message_.status(), Clock::now());
  return true;
}

Connection* MessageHandler::find(ConnectionId id) const {
  if (!id.valid() || id.slot.value >= connections_.size()) return nullptr;
  Connection* connection = connections_[id.slot.value].get();
  return connection != nullptr && connection->id == id && connection->accepts_messages() ? connection : nullptr;
}

MessageHandler::Hop MessageHandler::hop_to(const sip::Flow& flow) const {
  if (flow.transport == config::Transport::kUdp)
    return {.connection = nullptr, .socket = datagrams_.socket(flow.listener), .awaited = {}, .flow = flow};
  Connection* connection = find(flow.connection);
  if (connection == nullptr || connection->info().trunk != flow.trunk) return {};
  return {.connection = connection, .socket = nullptr, .awaited = {}, .flow = flow_of(*connection)};
}

Connection* MessageHandler::open_connection(TrunkId trunk, std::uint64_t affinity, const Address& to) const {
  const ipc::TrunkEntry& entry = region_.trunk(trunk);
  Connection* best = nullptr;
  std::uint64_t most = 0;
  const std::uint32_t places = entry.places.load(std::memory_order_acquire);
  for (unsigned place = 0; place < places; ++place) {
    Connection* connection = find(entry.connection(place));
    if (connection == nullptr || connection->slot->health.is_down()) continue;
    if (!to.empty() && connection->info().peer.ip_bytes() != to.ip_bytes()) continue;
    const std::uint64_t liked = preference(affinity, connection->id.slot.value);
    if (best != nullptr && liked <= most) continue;
    best = connection;
    most = liked;
  }
  return best;
}

MessageHandler::Hop MessageHandler::hop_by_connection(TrunkId trunk, std::uint64_t affinity, const Address& to) const {
  Connection* connection = open_connection(trunk, affinity, to);
  if (connection == nullptr) return {};
  return {.connection = connection, .socket = nullptr, .awaited = {}, .flow = flow_of(*connection)};
}

MessageHandler::Hop MessageHandler::hop_to_trunk(TrunkId trunk, std::uint64_t affinity) {
  const ipc::TrunkEntry& entry = region_.trunk(trunk);
  const config::Trunk& settings = config_.trunks[trunk.value];
  // Twice: the connection that is awaited may have come between the two questions.
  for (int look = 0; look < 2; ++look) {
    // One to udp targets is for large requests alone.
    const bool by_connection = !config::is_datagram(settings);
    if (const Hop hop = by_connection ? hop_by_connection(trunk, affinity) : Hop{}; hop.usable()) {
      if (waiting_.holds(trunk)) send_waiting(trunk, *hop.connection);
      return hop;
    }
    if (const Address address = by_connection ? Address() : datagram_peers_.choose(trunk, affinity); !address.empty())
      return {.connection = nullptr,
              .socket = datagrams_.socket(settings.listener),
              .awaited = {},
              .flow = {.transport = config::Transport::kUdp,
                       .connection = {},
                       .trunk = trunk,
                       .listener = settings.listener,
                       .remote = address}};
    if (const auto next = entry.awaits(Clock::now()))
      return {.connection = nullptr,
              .socket = nullptr,
              .awaited = trunk,
              .flow = {.transport = next->transport,
                       .connection = {},
                       .trunk = trunk,
                       .listener = settings.listener,
                       .remote = {}}};
  }
  return {};
}

// Of a route's trunks the first that takes the message now; else the first whose next connection is on its way.
MessageHandler::Hop MessageHandler::hop_to_one_of(const config::Route& route, std::uint64_t affinity,
                                                  sip::Needs needs) {
  enum Rank { kUnusable, kNotAllowed, kLater, kNow };
  const auto rank_of = [needs](const Hop& hop) {
    if (!hop.usable()) return kUnusable;
    if (needs == sip::Needs::kTls && hop.flow.transport != config::Transport::kTls) return kNotAllowed;
    return hop.awaited.valid() ? kLater : kNow;
  };
  Hop best;
  for (const TrunkId trunk : route.to) {
    const Hop hop = hop_to_trunk(trunk, affinity);
    if (rank_of(hop) > rank_of(best)) best = hop;
    if (rank_of(best) == kNow) break;
  }
  return best;
}

void MessageHandler::serve_waiting(Clock::time_point now) {
  waiting_.for_each([&](TrunkId trunk) {
    const bool awaited = region_.trunk(trunk).awaits(now).has_value();  // asked first: then it is there, or listed
    if (Connection* connection = open_connection(trunk, 0); connection != nullptr)
      return send_waiting(trunk, *connection);
    if (awaited) return;
    log::warn("trunk '{}': no connection has come for the messages that wait for it: they are given back",
              config_.trunks[trunk.value].name);
    BlockQueue late;
    waiting_.take(trunk, late);
    while (BlockPtr block = late.pop_front()) {
      give_back(trunk, *block);
      waiting_.dispose(std::move(block));
    }
  });
}

void MessageHandler::send_waiting(TrunkId trunk, Connection& connection) {
  BlockQueue blocks;
  waiting_.take(trunk, blocks);
  if (tracer_.active()) trace_waiting(blocks, connection);
  sender_.put_unsent(connection, blocks);
}

// Until now it was not known where they go.
void MessageHandler::trace_waiting(const BlockQueue& blocks, const Connection& connection) {
  const sip::Flow flow = flow_of(connection);
  for (const Block* block = blocks.front(); block != nullptr; block = block->next.get())
    for_each_message(*block, [&](std::string_view message) { tracer_.sent(flow, message); });
}

void MessageHandler::give_back(TrunkId trunk, const Block& block) {
  const sip::Flow source{.transport = config::Transport::kTls,
                         .connection = {},
                         .trunk = trunk,
                         .listener = config_.trunks[trunk.value].listener,
                         .remote = {}};
  for_each_message(block, [&](std::string_view message) { give_back(message, source); });
}

// A request has our Via on top: the answer goes back by it, as one of the trunk's would.
void MessageHandler::give_back(std::string_view message, const sip::Flow& trunk) {
  message_.parse(message, sip::Carrier::kStream);
  if (!message_.is_request()) return drop("a response whose connection has gone", trunk);
  std::string answer;
  proxy_.build_reply(message_, trunk, {.status = 503, .reason = "Trunk Down", .extra_headers = kRetryAfter}, answer);
  if (answer.empty()) return drop("an ACK whose next hop has gone", trunk);
  message_.parse(answer, sip::Carrier::kStream);
  const sip::Decision decision = proxy_.decide(message_, trunk, edits_);
  std::visit([&](const auto& action) { perform(action, trunk); }, decision);
}

}  // namespace ktrunk::worker
