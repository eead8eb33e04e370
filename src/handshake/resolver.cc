#include "handshake/resolver.h"

#include <ares.h>
#include <sys/time.h>

#include <algorithm>

namespace ktrunk::handshake {
namespace {

constexpr int kTimeoutMs = 2000;  // of the first try at each server; c-ares makes later ones longer
constexpr int kTries = 2;
// Of one name; what a server sends beyond that is left out.
constexpr std::size_t kMostAddresses = 16;

ResolveError error_of(const std::string& host, int status) {
  const char* text = ares_strerror(status);
  switch (status) {
    case ARES_ENOTFOUND:
    case ARES_ENODATA:
      return {ResolveError::Kind::kNoSuchName,
              fmt::format("'{}' does not resolve: {}; check the name and the zone", host, text)};
    case ARES_ETIMEOUT:
    case ARES_ECONNREFUSED:
    case ARES_ESERVFAIL:
      return {ResolveError::Kind::kPassing,
              fmt::format("'{}' does not resolve: {}; check the servers in /etc/resolv.conf", host, text)};
    default:
      return {ResolveError::Kind::kPassing, fmt::format("'{}' does not resolve: {}", host, text)};
  }
}

}  // namespace

struct Resolver::Channel {
  ares_channel handle = nullptr;
  ~Channel() {
    if (handle != nullptr) ares_destroy(handle);
  }
};

struct Resolver::Pending {
  Resolver* resolver = nullptr;  // null once the resolver is gone
  std::string host;
  std::uint16_t port = 0;
  Answer answer;  // empty once given, or no longer wanted
  EventLoop::Timer timer;
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

Resolver::Resolver(EventLoop& loop, std::string servers) : loop_(loop), servers_(std::move(servers)) {}

Resolver::~Resolver() {
  // c-ares answers every open question (ARES_EDESTRUCTION) and ends its sockets while it goes.
  channel_.reset();
}

bool Resolver::is_literal(const std::string& host) { return Address::from_ip(host, 0).has_value(); }

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

void Resolver::answer_later(std::shared_ptr<Pending> pending, Resolved result) {
  if (pending->answer == nullptr) return;
  Pending& target = *pending;
  target.timer = loop_.after({}, [pending = std::move(pending), result = std::move(result)] {
    if (const Answer answer = std::exchange(pending->answer, nullptr); answer) answer(result);
  });
}

Resolver::Query Resolver::resolve(const std::string& host, std::uint16_t port, Answer answer) {
  auto pending = std::make_shared<Pending>();
  pending->resolver = this;
  pending->host = host;
  pending->port = port;
  pending->answer = std::move(answer);
  if (const auto literal = Address::from_ip(host, port); literal) {
    answer_later(pending, std::vector<Address>{*literal});
    return Query(std::move(pending));
  }
  if (const Status status = open_channel(); !status) {
    answer_later(pending, std::unexpected(ResolveError{ResolveError::Kind::kPassing, status.error().what}));
    return Query(std::move(pending));
  }
  ++open_questions_;
  ares_addrinfo_hints hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  const auto on_answer = [](void* argument, int status, int, ares_addrinfo* found) {
    const std::unique_ptr<std::shared_ptr<Pending>> owned(static_cast<std::shared_ptr<Pending>*>(argument));
    const std::unique_ptr<ares_addrinfo, decltype(&ares_freeaddrinfo)> addresses(found, &ares_freeaddrinfo);
    Pending& question = **owned;
    Resolver& resolver = *question.resolver;
    --resolver.open_questions_;
    if (status == ARES_EDESTRUCTION) return;  // the resolver is going
    std::vector<Address> list;
    for (const ares_addrinfo_node* node = found == nullptr ? nullptr : found->nodes; node != nullptr;
         node = node->ai_next) {
      const Address address = Address::from_sockaddr(node->ai_addr, static_cast<socklen_t>(node->ai_addrlen));
      if (address.empty() || list.size() == kMostAddresses) continue;
      if (auto with_port = Address::from_ip(address.ip(), question.port); with_port) list.push_back(*with_port);
    }
    if (status == ARES_SUCCESS && list.empty()) status = ARES_ENODATA;
    if (status == ARES_SUCCESS) {
      resolver.answer_later(*owned, std::move(list));
    } else {
      resolver.answer_later(*owned, std::unexpected(error_of(question.host, status)));
    }
    resolver.close_when_idle();
  };
  ares_getaddrinfo(channel_->handle, host.c_str(), nullptr, &hints, on_answer, new std::shared_ptr<Pending>(pending));
  arm_timeout();
  return Query(std::move(pending));
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
