// The handshake process (ktrunkd-handshake), as the supervisor sees it: one channel, on which it takes its setup and
// the fate of its connections, and tells of new ones. Contract: ipc/messages.h. It lives as long as the channel.
//
//   Hello ->, <- Setup (configuration, region, vault, listeners), <- Ready, Up ->: it serves
//   Established ->, <- Admitted | Refused, later <- Gone;  Resolved ->
//   <- PostHandshake, InstallTransmit, Renew;  SendControl, Resume, Fault, Retire ->
//   <- Reload, Reloaded ->
//   <- Drain, Idle ->;  <- Yield, Idle ->, then only relays go on;  <- Stop: it ends
#pragma once

#include <deque>
#include <memory>
#include <utility>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "config/config.h"
#include "handshake/service.h"
#include "ipc/channel.h"
#include "ipc/child.h"
#include "ipc/messages.h"
#include "ipc/shared_region.h"
#include "ipc/vault.h"
#include "ktls/kernel.h"

namespace ktrunk::handshake {

class Process {
 public:
  // What it takes on its channel, setup included.
  [[nodiscard]] static ipc::AcceptList accept_list();

  // Serves from run() on. kernel outlives the object.
  [[nodiscard]] static Result<std::unique_ptr<Process>> create(ipc::Channel channel, ipc::ChildSetup setup,
                                                               const Service::Timing& timing = {},
                                                               ktls::Kernel& kernel = ktls::running_kernel());
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // Tells the supervisor that it serves; once, before run().
  [[nodiscard]] Status announce() { return channel_.send(ipc::Up{}); }

  // Serves until Stop. An error: the supervisor is gone, or has broken the contract.
  [[nodiscard]] Status run();

 private:
  enum class Phase { kServing, kDraining, kIdle, kStopping };

  Process(std::unique_ptr<EventLoop> loop, ipc::Channel channel, ipc::ChildSetup setup, ipc::Vault vault,
          TicketKeys tickets, const Service::Timing& timing, ktls::Kernel& kernel);
  [[nodiscard]] Service::Outlet outlet();
  void receive();
  [[nodiscard]] Status dispatch(ipc::Packet& packet);
  void drain();
  void stop();
  void acknowledged();
  void settle();
  void note(const Status& status);

  std::unique_ptr<EventLoop> loop_;
  ipc::Channel channel_;
  config::Config config_;
  ipc::SharedRegion region_;
  ipc::Vault vault_;
  Service::ListeningSockets listening_;  // until run()
  Service service_;
  Phase phase_ = Phase::kServing;
  Status failure_;  // ends the loop

  // Established messages that are not acknowledged yet, and those that wait because there are too many of these.
  unsigned in_flight_ = 0;
  std::deque<std::pair<ipc::Established, Fd>> waiting_;

  EventLoop::Watch channel_watch_;
  EventLoop::Timer stop_timer_;
  bool stopped_ = false;
};

}  // namespace ktrunk::handshake
