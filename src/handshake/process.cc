#include "handshake/process.h"

#include <algorithm>

#include "base/log.h"
#include "ipc/limits.h"

namespace ktrunk::handshake {
namespace {

constexpr int kMessagesPerTurn = 64;
constexpr std::chrono::seconds kDrainTime{2};  // for handshakes in progress, unless limits.handshake is less
constexpr std::chrono::seconds kStopTime{1};   // for what waits in relays
constexpr std::chrono::seconds kLongestTurn{60};

}  // namespace

ipc::AcceptList Process::accept_list() {
  return {ipc::Kind::kSetup,           ipc::Kind::kReady, ipc::Kind::kStop,   ipc::Kind::kAdmitted,
          ipc::Kind::kRefused,         ipc::Kind::kGone,  ipc::Kind::kDrain,  ipc::Kind::kPostHandshake,
          ipc::Kind::kInstallTransmit, ipc::Kind::kRenew, ipc::Kind::kReload, ipc::Kind::kYield};
}

Process::Process(std::unique_ptr<EventLoop> loop, ipc::Channel channel, ipc::ChildSetup setup, ipc::Vault vault,
                 TicketKeys tickets, const Service::Timing& timing, ktls::Kernel& kernel)
    : loop_(std::move(loop)),
      channel_(std::move(channel)),
      config_(std::move(setup.config)),
      region_(std::move(setup.region)),
      vault_(std::move(vault)),
      listening_(std::move(setup.listeners)),
      service_(*loop_, config_, region_, vault_, kernel, std::move(tickets),
               {.self = setup.handshake, .processes = config_.handshake_processes}, timing, outlet()) {}

Service::Outlet Process::outlet() {
  const auto send = [this](const auto& message) { note(channel_.send(message)); };
  return {.established = [this](const ipc::Established& message,
                                Fd descriptor) { waiting_.emplace_back(message, std::move(descriptor)); },
          .resolved = send,
          .send_control = send,
          .resume = send,
          .fault = send,
          .retire = send,
          .reloaded = send};
}

Result<std::unique_ptr<Process>> Process::create(ipc::Channel channel, ipc::ChildSetup setup,
                                                 const Service::Timing& timing, ktls::Kernel& kernel) {
  if (setup.region.sizes().trunks < setup.config.trunks.size())
    return fail("the shared region is of another configuration");
  if (setup.handshake.value >= std::min(setup.config.handshake_processes, setup.region.sizes().handshakes))
    return fail("the supervisor calls this handshake process {}, of {}", setup.handshake.value,
                setup.config.handshake_processes);
  for (const auto& [id, socket] : setup.listeners) {
    if (id.value >= setup.config.listeners.size() ||
        setup.config.listeners[id.value].transport == config::Transport::kUdp)
      return fail("the supervisor sent a socket of listener {}, which is none of this process's", id.value);
  }
  auto vault = ipc::Vault::map(std::move(setup.vault), setup.region.sizes().max_connections);
  if (!vault) return std::unexpected(std::move(vault.error()));
  auto tickets = TicketKeys::on(vault->ticket_keys(), setup.handshake, setup.config.ticket_rotation);
  if (!tickets) return std::unexpected(std::move(tickets.error()));
  // Before it says that it is there: who waits for that gets tickets that open everywhere.
  if (auto made = tickets->rotate_if_due(TicketKeys::Clock::now()); !made)
    return std::unexpected(std::move(made.error()));
  auto loop = EventLoop::create();
  if (!loop) return std::unexpected(std::move(loop.error()));
  std::unique_ptr<Process> process(new Process(std::move(*loop), std::move(channel), std::move(setup),
                                               std::move(*vault), std::move(*tickets), timing, kernel));
  const auto on_event = [self = process.get()](Ready ready) {
    if (ready.write) self->note(self->channel_.flush());
    if (ready.read) self->receive();
  };
  auto watch = process->loop_->watch(process->channel_.descriptor(), Interest::kRead, on_event);
  if (!watch) return std::unexpected(std::move(watch.error()));
  process->channel_watch_ = std::move(*watch);
  return process;
}

Status Process::run() {
  service_.start(std::move(listening_));
  while (failure_ && !stopped_) {
    settle();
    if (!stopped_) note(loop_->turn(kLongestTurn));
  }
  return failure_;
}

void Process::note(const Status& status) {
  if (!status && failure_) failure_ = status;
}

void Process::receive() {
  ipc::Packet packet;
  for (int i = 0; i < kMessagesPerTurn && failure_ && !stopped_; ++i) {
    const auto outcome = channel_.receive(packet);
    if (!outcome) return note(fail("the supervisor broke the contract: {}", outcome.error().what));
    if (*outcome == ipc::Channel::Outcome::kWouldBlock) return;
    if (*outcome == ipc::Channel::Outcome::kClosed) return note(fail("the supervisor is gone"));
    note(dispatch(packet));
  }
}

Status Process::dispatch(ipc::Packet& packet) {
  switch (packet.kind()) {
    case ipc::Kind::kAdmitted:
      service_.admitted(packet.as<ipc::Admitted>());
      acknowledged();
      return {};
    case ipc::Kind::kRefused:
      service_.refused(packet.as<ipc::Refused>());
      acknowledged();
      return {};
    case ipc::Kind::kGone:
      service_.gone(packet.as<ipc::Gone>());
      return {};
    case ipc::Kind::kPostHandshake:
      service_.post_handshake(packet.as<ipc::PostHandshake>(), packet.take_descriptor());
      return {};
    case ipc::Kind::kInstallTransmit:
      service_.install_transmit(packet.as<ipc::InstallTransmit>(), packet.take_descriptor());
      return {};
    case ipc::Kind::kRenew:
      service_.renew(packet.as<ipc::Renew>());
      return {};
    case ipc::Kind::kReload:
      service_.reload(packet.as<ipc::Reload>());
      return {};
    case ipc::Kind::kDrain:
      drain();
      return {};
    case ipc::Kind::kYield:
      service_.leave();
      drain();
      return {};
    case ipc::Kind::kStop:
      stop();
      return {};
    default:
      return fail("the supervisor sent message kind {} after Ready", static_cast<unsigned>(packet.kind()));
  }
}

void Process::acknowledged() {
  if (in_flight_ > 0) --in_flight_;
}

void Process::drain() {
  if (phase_ != Phase::kServing) return;
  phase_ = Phase::kDraining;
  service_.drain(std::min<Clock::duration>(kDrainTime, config_.limits.handshake));
}

void Process::stop() {
  if (phase_ == Phase::kStopping) return;
  phase_ = Phase::kStopping;
  service_.drain(Clock::duration::zero());
  waiting_.clear();
  service_.close_relays();
  stop_timer_ = loop_->after(kStopTime, [this] { stopped_ = true; });
}

// Between turns: what has piled up goes out, and the phase moves on when its work is done.
void Process::settle() {
  if (phase_ == Phase::kStopping) {
    waiting_.clear();  // a handshake may have been done in the last turn
    if (service_.finished() && !service_.busy()) stopped_ = true;
  }
  while (!waiting_.empty() && in_flight_ < ipc::kMaxDescriptorsInFlight) {
    auto& [message, descriptor] = waiting_.front();
    ++in_flight_;
    service_.hands_over(message.reference);
    note(channel_.send(message, std::move(descriptor)));
    waiting_.pop_front();
  }
  if (phase_ == Phase::kDraining && waiting_.empty() && in_flight_ == 0 && !service_.busy()) {
    phase_ = Phase::kIdle;
    note(channel_.send(ipc::Idle{}));
  }
  channel_watch_.set(interest(true, channel_.wants_write()));
}

}  // namespace ktrunk::handshake
