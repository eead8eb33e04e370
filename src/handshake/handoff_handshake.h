// Handoff handshake: one request of another program on its way: the TLS handshake on the socket that it handed over,
// the choice of the record layer, and the answer (handoff/wire.h). The counterpart of Handshake, which makes ktrunkd's
// own connections, for `ktrunkd-handshake --serve`; both stand on TlsSession and choose_record_layer.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "handoff/wire.h"
#include "handshake/closing.h"
#include "handshake/record_layer.h"
#include "handshake/tls_context.h"
#include "handshake/tls_session.h"

namespace ktrunk::handshake {

// What all of them share; outlives them.
struct HandoffSettings {
  EventLoop& loop;
  Closing& closing;
  RecordLayerPolicy record_layer;
  std::chrono::milliseconds limit;         // for the whole handshake
  std::chrono::milliseconds stalled_peer;  // TCP_USER_TIMEOUT
};

// How it ended. answer.outcome kDone: exactly one of the other two is set.
struct HandedBack {
  handoff::Answer answer;
  std::optional<RecordLayerChoice::Kernel> kernel;  // its socket in blocking mode
  std::optional<TlsSession> relay;                  // for a Relay
};

class HandoffHandshake {
 public:
  // Called once, from the event loop; it may destroy the HandoffHandshake.
  using Done = std::function<void(HandedBack)>;

  // socket: whatever the program sent. Error: it is not a connected TCP socket, or the host cannot be verified; the
  // socket is closed.
  [[nodiscard]] static Result<std::unique_ptr<HandoffHandshake>> begin(const HandoffSettings& settings,
                                                                       const TlsContext& context,
                                                                       const handoff::Request& request, Fd socket,
                                                                       Done done);
  HandoffHandshake(const HandoffHandshake&) = delete;
  HandoffHandshake& operator=(const HandoffHandshake&) = delete;

 private:
  HandoffHandshake(const HandoffSettings& settings, const handoff::Request& request, TlsSession session, Done done);
  void step();
  void secured();
  void give_up(const std::string& why);
  void finish(HandedBack result);

  const HandoffSettings& settings_;
  handoff::Request request_;
  TlsSession session_;
  Done done_;
  EventLoop::Watch watch_;  // after the session: it must go first
  EventLoop::Timer deadline_;
};

// An Answer that says no.
[[nodiscard]] handoff::Answer refusal(const handoff::Request& request, std::string_view why);

}  // namespace ktrunk::handshake
