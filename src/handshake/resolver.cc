#include "handshake/resolver.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <sys/time.h>

#include <algorithm>
#include <optional>

#include "handshake/service_records.h"

namespace ktrunk::handshake {
namespace {

constexpr int kTimeoutMs = 2000;  // of the first try at each server; c-ares makes later ones longer
constexpr int kTries = 2;

bool is_absent(int status) { return status == ARES_ENOTFOUND || status == ARES_ENODATA; }

// What c-ares has parsed, as ours.
std::vector<SrvRecord> srv_records(const unsigned char* octets, int length) {
  ares_srv_reply* list = nullptr;
  if (ares_parse_srv_reply(octets, length, &list) != ARES_SUCCESS) return {};
  const std::unique_ptr<ares_srv_reply, decltype(&ares_free_data)> owned(list, &ares_free_data);
  std::vector<SrvRecord> records;
  for (const ares_srv_reply* each = list; each != nullptr; each = each->next)
    records.push_back({.priority = each->priority, .weight = each->weight, .port = each->port, .host = each->host});
  return records;
}

std::vector<NaptrRecord> naptr_records(const unsigned char* octets, int length) {
  ares_naptr_reply* list = nullptr;
  if (ares_parse_naptr_reply(octets, length, &list) != ARES_SUCCESS) return {};
  const std::unique_ptr<ares_naptr_reply, decltype(&ares_free_data)> owned(list, &ares_free_data);
  std::vector<NaptrRecord> records;
  for (const ares_naptr_reply* each = list; each != nullptr; each = each->next)
    records.push_back({.order = each->order,
                       .preference = each->preference,
                       .flags = reinterpret_cast<const char*>(each->flags),
                       .service = reinterpret_cast<const char*>(each->service),
                       .replacement = each->replacement});
  return records;
}

}  // namespace

struct Resolver::Channel {
  ares_channel handle = nullptr;
  ~Channel() {
    if (handle != nullptr) ares_destroy(handle);
  }
  // /etc/hosts has it.
  [[nodiscard]] bool is_in_hosts_file(const std::string& host) const {
    for (const int family : {AF_INET, AF_INET6}) {
      hostent* found = nullptr;
      if (ares_gethostbyname_file(handle, host.c_str(), family, &found) != ARES_SUCCESS) continue;
      ares_free_hostent(found);
      return true;
    }
    return false;
  }
};

struct Resolver::Pending {
  struct Server {
    std::string host;
    std::uint16_t port = 0;
    std::uint16_t rank = 0;
    std::vector<Address> addresses;
  };
  Resolver* resolver = nullptr;
  config::Target target;
  Answer answer;      // empty once given, or no longer wanted
  std::string asked;  // the name whose answer is awaited, or was last
  std::vector<Server> servers;
  std::size_t servers_open = 0;
  int status = ARES_SUCCESS;  // of the first server without an address
  EventLoop::Timer timer;
};

// A question that c-ares has.
struct Resolver::Lookup {
  Held pending;
  OnRecords then = nullptr;
  std::size_t server = 0;
};

Resolver::Query& Resolver::Query::operator=(Query&& other) noexcept {
  if (this != &other) {
    reset();
    pending_ = std::move(other.pending_);
  }
  return *this;
}

void Resolver::Query::reset() {
  if (pending_ == nullptr) return;
  pending_->answer = nullptr;
  pending_->timer.reset();
  pending_.reset();
}

bool Resolver::Query::pending() const { return pending_ != nullptr && pending_->answer != nullptr; }

Resolver::Resolver(EventLoop& loop, const std::vector<Address>& servers) : loop_(loop) {
  for (const Address& server : servers) servers_ += fmt::format("{}{}", servers_.empty() ? "" : ",", server.text());
}

Resolver::~Resolver() {
  // c-ares answers every open question (ARES_EDESTRUCTION) and ends its sockets while it goes.
  channel_.reset();
}

Status Resolver::open_channel() {
  if (channel_ != nullptr) return {};
  // Counted by c-ares; once for the life of the process.
  static const int ready = ares_library_init(ARES_LIB_INIT_ALL);
  if (ready != ARES_SUCCESS) return fail("c-ares: {}", ares_strerror(ready));
  ares_options options = {};
  options.timeout = kTimeoutMs;
  options.tries = kTries;
  options.sock_state_cb_data = this;
  options.sock_state_cb = [](void* self, ares_socket_t fd, int read, int write) {
    static_cast<Resolver*>(self)->socket_state(fd, interest(read != 0, write != 0));
  };
  auto channel = std::make_unique<Channel>();
  const int status =
      ares_init_options(&channel->handle, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);
  if (status != ARES_SUCCESS) return fail("c-ares: {}", ares_strerror(status));
  if (!servers_.empty()) {
    const int set = ares_set_servers_ports_csv(channel->handle, servers_.c_str());
    if (set != ARES_SUCCESS) return fail("name servers '{}': {}", servers_, ares_strerror(set));
  }
  channel_ = std::move(channel);
  return {};
}

ResolveError Resolver::error_of(const Pending& pending, int status) const {
  const std::string name = pending.asked == pending.target.host
                               ? fmt::format("'{}'", pending.asked)
                               : fmt::format("'{}' (of '{}')", pending.asked, pending.target.host);
  const char* text = ares_strerror(status);
  const char* servers = servers_.empty() ? "the servers in /etc/resolv.conf" : "the servers in ktrunk.dns";
  switch (status) {
    case ARES_ENOTFOUND:
    case ARES_ENODATA:
      return {ResolveError::Kind::kNoSuchName,
              fmt::format("{} does not resolve: {}; check the name and the zone", name, text)};
    case ARES_ETIMEOUT:
    case ARES_ECONNREFUSED:
    case ARES_ESERVFAIL:
    case ARES_EREFUSED:
      return {ResolveError::Kind::kPassing, fmt::format("{} does not resolve: {}; check {}", name, text, servers)};
    default:
      return {ResolveError::Kind::kPassing, fmt::format("{} does not resolve: {}", name, text)};
  }
}

void Resolver::answer_later(Held pending, Resolved result) {
  if (pending->answer == nullptr) return;
  Pending& target = *pending;
  target.timer = loop_.after({}, [pending = std::move(pending), result = std::move(result)] {
    if (const Answer answer = std::exchange(pending->answer, nullptr); answer) answer(result);
  });
}

void Resolver::fail_later(const Held& pending, int status) {
  answer_later(pending, std::unexpected(error_of(*pending, status)));
}

Resolver::Query Resolver::resolve(const config::Target& target, Answer answer) {
  auto pending = std::make_shared<Pending>();
  pending->resolver = this;
  pending->target = target;
  pending->answer = std::move(answer);
  const std::uint16_t port = target.port != 0 ? target.port : config::default_port(target.transport);
  if (const auto literal = Address::from_ip(target.host, port); literal) {
    answer_later(pending, std::vector<ServerAddress>{{*literal, 0}});
    return Query(std::move(pending));
  }
  if (const Status status = open_channel(); !status) {
    answer_later(pending, std::unexpected(ResolveError{ResolveError::Kind::kPassing, status.error().what}));
    return Query(std::move(pending));
  }
  if (target.port != 0 || channel_->is_in_hosts_file(target.host)) {
    pending->servers.push_back({.host = target.host, .port = port, .rank = 0, .addresses = {}});
    ask_addresses(pending);
  } else {
    ask(pending, target.host, ns_t_naptr, &Resolver::naptr_answered);
  }
  arm_timeout();
  return Query(std::move(pending));
}

void Resolver::ask(const Held& pending, const std::string& name, int type, OnRecords then) {
  const auto on_answer = [](void* argument, int status, int, unsigned char* octets, int length) {
    const std::unique_ptr<Lookup> lookup(static_cast<Lookup*>(argument));
    if (status == ARES_EDESTRUCTION) return;  // the resolver is going
    Resolver& resolver = *lookup->pending->resolver;
    --resolver.open_questions_;
    if (lookup->pending->answer != nullptr) (resolver.*lookup->then)(lookup->pending, status, octets, length);
    resolver.close_when_idle();
  };
  ++open_questions_;
  pending->asked = name;
  ares_query(channel_->handle, name.c_str(), ns_c_in, type, on_answer,
             new Lookup{.pending = pending, .then = then, .server = 0});
}

// Servers that do not know the type, or refuse it (which c-ares calls ARES_ECONNREFUSED), have no say: the usual SRV
// name is asked for.
void Resolver::naptr_answered(const Held& pending, int status, const unsigned char* octets, int length) {
  if (status == ARES_ETIMEOUT) return fail_later(pending, status);
  const config::Target& target = pending->target;
  std::optional<std::string> name;
  if (status == ARES_SUCCESS) name = srv_name_of(naptr_records(octets, length), target.transport);
  ask(pending, name.value_or(srv_name(target.transport, target.host)), ns_t_srv, &Resolver::srv_answered);
}

void Resolver::srv_answered(const Held& pending, int status, const unsigned char* octets, int length) {
  if (status != ARES_SUCCESS && !is_absent(status)) return fail_later(pending, status);
  std::vector<SrvRecord> records;
  if (status == ARES_SUCCESS) records = srv_records(octets, length);
  const bool any = !records.empty();
  // RFC 2782: "." says that the service is decidedly not there.
  std::erase_if(records, [](const SrvRecord& each) { return each.host.empty() || each.host == "."; });
  if (any && records.empty()) return fail_later(pending, ARES_ENODATA);
  order_servers(records, kMostServers, random_);
  std::uint16_t rank = 0;
  for (std::size_t i = 0; i < records.size(); ++i) {
    if (i > 0 && records[i].priority != records[i - 1].priority) ++rank;
    pending->servers.push_back(
        {.host = std::move(records[i].host), .port = records[i].port, .rank = rank, .addresses = {}});
  }
  if (!any) {
    const std::uint16_t port = config::default_port(pending->target.transport);
    pending->servers.push_back({.host = pending->target.host, .port = port, .rank = 0, .addresses = {}});
  }
  ask_addresses(pending);
}

// Of all servers at once.
void Resolver::ask_addresses(const Held& pending) {
  const auto on_answer = [](void* argument, int status, int, ares_addrinfo* found) {
    const std::unique_ptr<Lookup> lookup(static_cast<Lookup*>(argument));
    const std::unique_ptr<ares_addrinfo, decltype(&ares_freeaddrinfo)> owned(found, &ares_freeaddrinfo);
    if (status == ARES_EDESTRUCTION) return;  // the resolver is going
    Pending& question = *lookup->pending;
    Resolver& resolver = *question.resolver;
    --resolver.open_questions_;
    Pending::Server& server = question.servers[lookup->server];
    for (const ares_addrinfo_node* node = found == nullptr ? nullptr : found->nodes; node != nullptr;
         node = node->ai_next) {
      const Address address = Address::from_sockaddr(node->ai_addr, static_cast<socklen_t>(node->ai_addrlen));
      if (address.empty() || server.addresses.size() == kMostAddressesOfServer) continue;
      if (auto with_port = Address::from_ip(address.ip(), server.port); with_port)
        server.addresses.push_back(*with_port);
    }
    if (server.addresses.empty() && question.status == ARES_SUCCESS) {
      question.status = status == ARES_SUCCESS ? ARES_ENODATA : status;
      question.asked = server.host;
    }
    if (--question.servers_open == 0) resolver.addresses_answered(lookup->pending);
    resolver.close_when_idle();
  };
  ares_addrinfo_hints hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  // First all, as c-ares may answer at once.
  const std::size_t servers = pending->servers.size();
  pending->servers_open = servers;
  open_questions_ += servers;
  for (std::size_t server = 0; server < servers; ++server)
    ares_getaddrinfo(channel_->handle, pending->servers[server].host.c_str(), nullptr, &hints, on_answer,
                     new Lookup{.pending = pending, .then = nullptr, .server = server});
}

void Resolver::addresses_answered(const Held& pending) {
  std::vector<ServerAddress> all;
  for (const Pending::Server& server : pending->servers) {
    for (const Address& address : server.addresses) {
      const bool known = std::ranges::any_of(all, [&](const Address& other) { return other == address; });
      if (all.size() < kMostAddresses && !known) all.push_back({address, server.rank});
    }
  }
  if (all.empty()) return fail_later(pending, pending->status);
  answer_later(pending, std::move(all));
}

void Resolver::socket_state(int fd, Interest interest) {
  const auto found = watches_.find(fd);
  if (interest == Interest::kNothing) {
    if (found != watches_.end()) watches_.erase(found);
    return;
  }
  if (found != watches_.end()) return found->second.set(interest);
  auto watch = loop_.watch(fd, interest, [this, fd](Ready ready) {
    if (channel_ == nullptr) return;
    ares_process_fd(channel_->handle, ready.read ? fd : ARES_SOCKET_BAD, ready.write ? fd : ARES_SOCKET_BAD);
    arm_timeout();
  });
  // Unwatched, the question ends by its timeout.
  if (watch) watches_.emplace(fd, std::move(*watch));
}

void Resolver::arm_timeout() {
  timeout_.reset();
  if (channel_ == nullptr || open_questions_ == 0) return;
  timeval most = {.tv_sec = kTimeoutMs / 1000, .tv_usec = 0};
  timeval wait = {};
  const timeval* next = ares_timeout(channel_->handle, &most, &wait);
  // One millisecond more than asked for: c-ares counts in whole ones and would find nothing due.
  timeout_ = loop_.after(std::chrono::seconds(next->tv_sec) + std::chrono::microseconds(next->tv_usec + 1000), [this] {
    if (channel_ == nullptr) return;
    ares_process_fd(channel_->handle, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    arm_timeout();
  });
}

// c-ares must not be ended from within its own callback.
void Resolver::close_when_idle() {
  if (open_questions_ != 0) return;
  close_ = loop_.after({}, [this] {
    if (open_questions_ != 0) return;
    timeout_.reset();
    channel_.reset();
  });
}

}  // namespace ktrunk::handshake
