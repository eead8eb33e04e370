// The handshake process (ktrunkd-handshake), as the supervisor sees it: one channel, on which it takes its setup and
// the fate of its connections, and tells of new ones. Contract: ipc/messages.h. It lives as long as the channel.
//
//   Hello ->, <- Setup (configuration, region, listeners), <- Ready: it serves
//   Established ->, <- Admitted | Refused, later <- Gone;  Resolved ->
//   <- Drain, Idle ->;  <- Stop: it ends
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "base/fd.h"
#include "base/result.h"
#include "config/config.h"
#include "handshake/event_loop.h"
#include "handshake/service.h"
#include "ipc/channel.h"
#include "ipc/messages.h"
#include "ipc/shared_region.h"
#include "ktls/kernel.h"

namespace ktrunk::handshake {

class Process {
 public:
  // channel: the child's end of the pair. kernel outlives the process object.
  [[nodiscard]] static Result<std::unique_ptr<Process>> create(Fd channel, const Service::Timing& timing = {},
                                                               ktls::Kernel& kernel = ktls::running_kernel());
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // Serves until Stop. An error: the supervisor is gone, or has broken the contract.
  [[nodiscard]] Status run();

 private:
  enum class Phase { kSettingUp, kServing, kDraining, kIdle, kStopping };

  Process(std::unique_ptr<EventLoop> loop, Fd channel, const Service::Timing& timing, ktls::Kernel& kernel);
  void receive();
  [[nodiscard]] Status dispatch(ipc::Packet& packet);
  [[nodiscard]] Status set_up(const ipc::Setup& setup, Fd descriptor);
  [[nodiscard]] Status take_config(const ipc::Setup& setup, const Fd& text);
  [[nodiscard]] Status begin();
  void drain();
  void stop();
  void established(const ipc::Established& message, Fd descriptor);
  void acknowledged();
  void settle();
  void note(const Status& status);

  std::unique_ptr<EventLoop> loop_;
  ipc::Channel channel_;
  Service::Timing timing_;
  ktls::Kernel& kernel_;
  Phase phase_ = Phase::kSettingUp;
  Status failure_;  // ends the loop

  std::optional<config::Config> config_;
  std::optional<ipc::SharedRegion> region_;
  Service::ListeningSockets listening_;  // until Ready
  std::unique_ptr<Service> service_;     // from Ready on

  // Established messages that are not acknowledged yet, and those that wait because there are too many of these.
  unsigned in_flight_ = 0;
  std::deque<std::pair<ipc::Established, Fd>> waiting_;

  EventLoop::Watch channel_watch_;
  EventLoop::Timer stop_timer_;
  bool stopped_ = false;
};

}  // namespace ktrunk::handshake
