// Client: a program's end of the channel to a handshake service (handoff/wire.h has the contract). For programs that
// want TLS connections and no TLS library: the private key stays in the service. One thread at a time.
//
// With a loop of one's own: poll fd() for input, then receive() (and instruction(), where keys are
// kept) until it gives nothing. Without: secure().
#pragma once

#include <chrono>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/packet.h"
#include "base/result.h"
#include "handoff/wire.h"

namespace ktrunk::handoff {

// What to ask for. context, host: as in Request; longer ones than it has room for are an error when sent.
struct Wish {
  std::uint64_t number = 0;  // tells answers apart
  Role role = Role::kAccept;
  Relay relay = Relay::kRefused;
  Keys keys = Keys::kForget;
  std::string_view context;
  std::string_view host;
};

// An answer, and its connection when it is kDone (then descriptor is valid, else not).
struct Reply {
  Answer answer;
  Fd connection;
};

class Client {
 public:
  // path: the service's socket. Connects at once or not at all.
  [[nodiscard]] static Result<Client> connect(const std::string& path);

  // For poll(2): readable when an answer is there or the service is gone. The client's own: do not close it.
  [[nodiscard]] int fd() const { return channel_.get(); }

  // Sends a request without waiting. kSent: the socket belongs to the service and `socket` is empty. kWouldBlock: the
  // service is busy, nothing has happened; receive what there is, and try again. Error: the service is gone, or the
  // wish cannot be written down; the socket is still the caller's.
  [[nodiscard]] Result<PacketSent> send(const Wish& wish, Fd& socket);

  // The next answer without waiting; nothing when there is none yet. Error: the service is gone or broke the contract;
  // what was asked and not answered is lost.
  [[nodiscard]] Result<std::optional<Reply>> receive();

  // Both, and waits: the answer to this wish. Answers to others that come meanwhile are kept for receive(). On a
  // timeout (Error::code ETIMEDOUT) the answer may still come, to receive().
  [[nodiscard]] Result<Reply> secure(const Wish& wish, Fd socket, std::chrono::milliseconds timeout);

  // ---- after the handover, for connections with Keys::kKeep (Answer::connection); wire.h says when. Without waiting,
  // as send(). fd: the connection, lent.
  [[nodiscard]] Result<PacketSent> record(std::uint64_t connection, std::span<const std::byte> octets, const Fd& fd);
  [[nodiscard]] Result<PacketSent> sent(std::uint64_t connection, const Fd& fd);
  [[nodiscard]] Result<PacketSent> renew(std::uint64_t connection, Renew::Which which);
  [[nodiscard]] Result<PacketSent> gone(std::uint64_t connection);
  // As receive(), for what the service says of connections.
  [[nodiscard]] Result<std::optional<Instruction>> instruction();

 private:
  explicit Client(Fd channel) : channel_(std::move(channel)) {}
  enum class Took : std::uint8_t { kSomething, kNothing };
  [[nodiscard]] Result<Took> take();
  template <typename T>
  [[nodiscard]] Result<std::optional<T>> next(std::deque<T>& queue);

  Fd channel_;
  std::deque<Reply> replies_;             // that came, at most as many as were asked for
  std::deque<Instruction> instructions_;  // likewise
};

}  // namespace ktrunk::handoff
