// Resolver: host names to addresses (A and AAAA) by c-ares in the event loop; nothing in it waits. /etc/hosts and
// /etc/resolv.conf are read afresh whenever no other name is being asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/address.h"
#include "base/event_loop.h"
#include "base/result.h"

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
using Resolved = std::expected<std::vector<Address>, ResolveError>;  // not empty; in the order to try them (RFC 6724)

class Resolver {
  struct Channel;
  struct Pending;

 public:
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

  // servers: "IP:PORT,..." to ask instead of those of /etc/resolv.conf.
  explicit Resolver(EventLoop& loop, std::string servers = {});
  // Answers nothing that is still open.
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  // host: a name, or a literal address without brackets, which no server is asked for. All addresses get `port`.
  [[nodiscard]] Query resolve(const std::string& host, std::uint16_t port, Answer answer);

  // True for a literal address.
  [[nodiscard]] static bool is_literal(const std::string& host);

 private:
  [[nodiscard]] Status open_channel();
  void answer_later(std::shared_ptr<Pending> pending, Resolved result);
  void socket_state(int fd, Interest interest);
  void arm_timeout();
  void close_when_idle();

  EventLoop& loop_;
  std::string servers_;
  std::unique_ptr<Channel> channel_;  // while a question is open
  std::size_t open_questions_ = 0;    // that c-ares has
  std::unordered_map<int, EventLoop::Watch> watches_;
  EventLoop::Timer timeout_;
  EventLoop::Timer close_;
};

}  // namespace ktrunk::handshake
