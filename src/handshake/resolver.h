// Resolver: targets to addresses as RFC 3263 4 has it, by c-ares in the event loop; nothing in it waits.
//
//   a target with a port, or that is an address       A and AAAA
//   any other    NAPTR, for the target's transport alone: it may name another SRV record than the usual one
//                SRV (_sips._tcp, _sip._tcp, _sip._udp), by priority and weight, then A and AAAA of each server
//                no SRV record: A and AAAA, and the transport's port
//
// A name that /etc/hosts knows is taken from there, without NAPTR and SRV. /etc/hosts and /etc/resolv.conf are read
// afresh whenever no other name is being asked for. Nothing is kept: every question is asked anew, so that no answer is
// older than its time to live in the name server. An answer that was cut short is asked for again over TCP, by c-ares.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/address.h"
#include "base/event_loop.h"
#include "base/result.h"
#include "config/config.h"

namespace ktrunk::handshake {

// Why a name has no address.
struct ResolveError {
  enum class Kind : std::uint8_t {
    kNoSuchName,  // the servers say so: the name does not exist, or has no address
    kPassing,     // no answer, or none that can be used: it may resolve the next time
  };
  Kind kind = Kind::kPassing;
  std::string what;  // with a remedy
};
// Of a server.
struct ServerAddress : Address {
  std::uint16_t rank = 0;  // 0 for those of the best SRV priority, 1 for the next one, ...; without SRV 0
};
// Not empty; in the order to try them (priority and weight, then RFC 6724).
using Resolved = std::expected<std::vector<ServerAddress>, ResolveError>;

class Resolver {
  struct Channel;
  struct Pending;

 public:
  // What more there is, is left out.
  static constexpr std::size_t kMostServers = 8;            // of an SRV answer
  static constexpr std::size_t kMostAddresses = 16;         // of a target
  static constexpr std::size_t kMostAddressesOfServer = 8;  // of one host

  // One answer, always from the event loop and never from within resolve(). It may start and end queries.
  using Answer = std::function<void(Resolved)>;

  // A question; when it goes, the answer is not given. It may outlive the resolver.
  class Query {
   public:
    Query() = default;
    Query(Query&&) noexcept = default;
    Query& operator=(Query&& other) noexcept;
    ~Query() { reset(); }
    void reset();
    [[nodiscard]] bool pending() const;

   private:
    friend class Resolver;
    explicit Query(std::shared_ptr<Pending> pending) : pending_(std::move(pending)) {}
    std::shared_ptr<Pending> pending_;
  };

  // servers: to ask instead of those of /etc/resolv.conf.
  explicit Resolver(EventLoop& loop, const std::vector<Address>& servers = {});
  // Answers nothing that is still open.
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  // No server is asked for a literal address.
  [[nodiscard]] Query resolve(const config::Target& target, Answer answer);

 private:
  using Held = std::shared_ptr<Pending>;
  struct Lookup;
  using OnRecords = void (Resolver::*)(const Held& pending, int status, const unsigned char* octets, int length);

  [[nodiscard]] Status open_channel();
  void answer_later(Held pending, Resolved result);
  void fail_later(const Held& pending, int status);
  void ask(const Held& pending, const std::string& name, int type, OnRecords then);
  void naptr_answered(const Held& pending, int status, const unsigned char* octets, int length);
  void srv_answered(const Held& pending, int status, const unsigned char* octets, int length);
  void ask_addresses(const Held& pending);
  void addresses_answered(const Held& pending);
  [[nodiscard]] ResolveError error_of(const Pending& pending, int status) const;
  void socket_state(int fd, Interest interest);
  void arm_timeout();
  void close_when_idle();

  EventLoop& loop_;
  std::string servers_;               // as c-ares wants them
  std::unique_ptr<Channel> channel_;  // while a question is open
  std::size_t open_questions_ = 0;    // that c-ares has
  std::minstd_rand random_{std::random_device{}()};
  std::unordered_map<int, EventLoop::Watch> watches_;
  EventLoop::Timer timeout_;
  EventLoop::Timer close_;
};

}  // namespace ktrunk::handshake
