// Relay: a TLS connection whose records this process makes and opens, because the kernel does not: between the session
// and one end of a SOCK_SEQPACKET pair. The workers hold the other end and treat it as they treat a kTLS socket: a
// packet of at most ipc::kRecordBytes octets is one record, all or nothing, and never mixed with another worker's.
//
//   workers -> peer   one packet, one record. The workers' ends closed or shut down -> the rest goes out, close_notify
//   peer -> workers   what one read gives, one packet. close_notify -> end of file for the workers, who may still send
//
// One packet per direction waits here at most: a side that takes nothing stops the other, and costs its own relay only.
#pragma once

#include <sys/socket.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "handshake/closing.h"
#include "handshake/tls_session.h"
#include "ipc/messages.h"

namespace ktrunk::handshake {

class Relay {
 public:
  struct End {
    enum class How : std::uint8_t { kInOrder, kBroken } how;  // broken: the log says why
    Resumption resumption;  // what the session has learnt for the next one; may be empty
  };
  // Called once, from the event loop, before the workers can see the end; it may destroy the Relay.
  using Ended = std::function<void(End)>;

  struct Made {
    std::unique_ptr<Relay> relay;
    Fd workers_end;  // in blocking mode, for the workers
  };
  // session: its handshake is done, its socket non-blocking. name: for log lines. stalled_peer: a peer that takes
  // nothing for so long ends the relay.
  [[nodiscard]] static Result<Made> create(EventLoop& loop, Closing& closing, TlsSession session, std::string name,
                                           std::chrono::milliseconds stalled_peer, Ended ended);
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  // New keys for one direction (Renew): by a KeyUpdate before the next packet of the workers. Peers' KeyUpdates OpenSSL
  // follows by itself.
  [[nodiscard]] KeyRenewal renew(ipc::Renew::Which which);

  // No more from the workers: what waits goes out, then close_notify, then the end.
  void close();

 private:
  enum class Progress { kSome, kBlocked, kOver };

  Relay(EventLoop& loop, Closing& closing, TlsSession session, Fd end, std::string name,
        std::chrono::milliseconds stalled_peer, Ended ended);
  void run();
  [[nodiscard]] Progress carry_up();
  [[nodiscard]] Progress carry_down();
  [[nodiscard]] Progress say_close_notify();
  [[nodiscard]] Progress say_key_update();
  [[nodiscard]] Progress not_sent(TlsSession::Io why);
  [[nodiscard]] Progress deliver(std::span<const std::byte> packet);
  void watch_what_is_wanted();
  void mind_the_stall(bool sent);
  Progress broken(std::string_view why);
  Progress over(End end);

  EventLoop& loop_;
  Closing& closing_;
  TlsSession session_;
  Fd end_;
  std::string name_;
  std::chrono::milliseconds stalled_peer_;
  Ended ended_;

  std::vector<std::byte> up_;                 // a packet of the workers that the peer has not taken
  std::vector<std::byte> down_;               // octets of the peer that the workers have not taken
  std::optional<KeyUpdateRequest> update_;    // a KeyUpdate is to go out
  bool workers_done_ = false;                 // nothing more comes from them
  bool workers_deaf_ = false;                 // nothing more can be given to them
  bool peer_done_ = false;                    // its close_notify has come
  bool down_ended_ = false;                   // ... and the workers have been told
  Interest up_wants_ = Interest::kNothing;    // what the session waits for in order to send
  Interest down_wants_ = Interest::kNothing;  // and to receive
  EventLoop::Watch socket_watch_;
  EventLoop::Watch end_watch_;
  EventLoop::Timer again_;  // there is more to do, though no descriptor says so
  EventLoop::Timer stall_;
};

}  // namespace ktrunk::handshake
