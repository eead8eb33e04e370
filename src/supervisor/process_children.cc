// The supervisor's children: started, given what they need, listened to, and started again when they die.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <csignal>
#include <utility>

#include "base/log.h"
#include "supervisor/process.h"

namespace ktrunk::supervisor {
namespace {

using namespace std::chrono_literals;
// At once, so that no child keeps the supervisor from the others.
constexpr unsigned kPacketsPerTurn = 256;
// More than a socket's buffer holds.
constexpr unsigned kAllPackets = 1u << 16;
// Of a worker, in a row.
constexpr unsigned kMostEarlyDeaths = 6;

Result<Fd> copy_of(int fd) {
  Fd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return fail_errno(errno, "duplicate a descriptor");
  return copy;
}

}  // namespace

Status Process::start_child(std::size_t index) {
  ChildProcess& child = children_[index];
  int ring = -1;
  if (const WorkerIndex worker = worker_of(index); worker.valid()) {
    WorkerPlace& place = places_[worker.value];
    if (auto status = place.make_ring(config_.limits.max_connections); !status) return status;
    ring = place.ring();
  }
  const Program& program = child.role() == ipc::Role::kWorker ? image_.worker : image_.handshake;
  if (auto status = child.start(program, Clock::now(), ring); !status) return status;
  return listen_to(index);
}

Status Process::listen_to(std::size_t index) {
  ChildProcess& child = children_[index];
  auto watch = loop_->watch(child.channel()->descriptor(), Interest::kRead,
                            [this, index](Ready) { on_channel(index, kPacketsPerTurn); });
  if (!watch) return std::unexpected(watch.error());
  channel_watches_[index] = std::move(*watch);
  channel_watches_[index].set(interest(true, child.channel()->wants_write()));
  return {};
}

void Process::on_channel(std::size_t index, unsigned most_packets) {
  ChildProcess& child = children_[index];
  if (child.channel() == nullptr) return;
  flushed(index, child.channel()->flush());
  for (unsigned i = 0; i < most_packets && child.channel() != nullptr; ++i) {
    ipc::Packet packet;
    const auto outcome = child.channel()->receive(packet);
    if (!outcome) return end_child(index, outcome.error());
    if (*outcome == ipc::Channel::Outcome::kWouldBlock) return;
    // SIGCHLD tells how it ended.
    if (*outcome == ipc::Channel::Outcome::kClosed) return channel_watches_[index].set(Interest::kNothing);
    if (auto status = on_packet(index, packet); !status) return end_child(index, status.error());
  }
}

void Process::end_child(std::size_t index, const Error& why) {
  log::error("{} is ended: {}", children_[index].name(), why.what);
  channel_watches_[index].set(Interest::kNothing);
  children_[index].condemn();
}

Status Process::on_packet(std::size_t index, ipc::Packet& packet) {
  if (packet.kind() == ipc::Kind::kHello) return on_hello(index);
  if (!children_[index].ready()) return fail("it speaks before its Hello");
  if (packet.kind() == ipc::Kind::kUp) {
    children_[index].set_up();
    successor_up(index);
    return {};
  }
  if (const WorkerIndex worker = worker_of(index); worker.valid()) return on_worker_packet(worker, packet);
  return on_handshake_packet(handshake_of(index), packet);
}

Status Process::on_handshake_packet(HandshakeIndex process, ipc::Packet& packet) {
  // One that has left its place has its relays, and nothing else.
  const bool of_relays = packet.kind() == ipc::Kind::kFault || packet.kind() == ipc::Kind::kRetire;
  if (process.value >= ipc::kMaxHandshakeProcesses && !of_relays)
    return fail("message kind {} from a former handshake process", static_cast<unsigned>(packet.kind()));
  switch (packet.kind()) {
    case ipc::Kind::kEstablished: {
      const auto message = packet.as<ipc::Established>();
      const ipc::ConnectionInfo& info = message.info;
      if ((info.trunk.valid() && info.trunk.value >= config_.trunks.size()) ||
          (info.listener.valid() && info.listener.value >= config_.listeners.size()))
        return fail("Established with a trunk or listener that does not exist");
      if (!connections_.established(process, message, packet.take_descriptor()))
        return fail("Established in the place of another trunk's connection");
      return {};
    }
    case ipc::Kind::kResolved: {
      const auto resolved = packet.as<ipc::Resolved>();
      if (resolved.trunk.value >= config_.trunks.size() || resolved.target >= ipc::kMaxTargets)
        return fail("Resolved for a target that does not exist");
      publish(resolved);
      return {};
    }
    case ipc::Kind::kIdle:
      if (children_[child_of(process)].leaving()) {
        upgrade_.next = loop_->after(0ms, [this, process] { handshake_left(child_of(process)); });
      } else {
        handshakes_idle_.set(process.value);
      }
      return {};
    case ipc::Kind::kFault:
      if (!connections_.fault(process, packet.as<ipc::Fault>())) return fail("Fault of a connection it does not own");
      return {};
    case ipc::Kind::kSendControl:
      if (!connections_.send_control(process, packet.as<ipc::SendControl>()))
        return fail("SendControl for a connection that it does not own, or that is not in the kernel's hands");
      return {};
    case ipc::Kind::kResume:
      if (!connections_.resume(process, packet.as<ipc::Resume>())) return fail("Resume where nothing waits for it");
      return {};
    case ipc::Kind::kRetire:
      if (!connections_.retire(process, packet.as<ipc::Retire>()))
        return fail("Retire of a connection it does not own");
      return {};
    case ipc::Kind::kReloaded:
      if (!reload_.reloaded(process, packet.as<ipc::Reloaded>())) return fail("Reloaded without a Reload");
      return {};
    default:
      return fail("message kind {}", static_cast<unsigned>(packet.kind()));
  }
}

Status Process::on_worker_packet(WorkerIndex worker, const ipc::Packet& packet) {
  switch (packet.kind()) {
    case ipc::Kind::kHeld:
      if (!connections_.held(worker, packet.as<ipc::Held>().connection)) return fail("Held without an Offer");
      return {};
    case ipc::Kind::kFault: {
      const auto fault = packet.as<ipc::Fault>();
      // If its relay broke, the process that relayed has said so before the worker saw an end. Neither channel waits
      // for the other, so that is heard now.
      if (const HandshakeIndex relaying = connections_.relaying(fault.connection); relaying.valid())
        on_channel(child_of(relaying), kAllPackets);
      if (!connections_.fault(worker, fault)) return fail("Fault of a connection it does not hold");
      return {};
    }
    case ipc::Kind::kReleased:
      if (!connections_.released(worker, packet.as<ipc::Released>().connection))
        return fail("Released of a connection it was not told to close");
      return {};
    case ipc::Kind::kHandshakeOctets:
      if (!connections_.handshake_octets(worker, packet.as<ipc::HandshakeOctets>()))
        return fail("HandshakeOctets of a connection it does not receive from");
      return {};
    case ipc::Kind::kControlSent:
      if (!connections_.control_sent(worker, packet.as<ipc::ControlSent>()))
        return fail("ControlSent without a SendControl");
      return {};
    case ipc::Kind::kMoved:
      if (!connections_.moved(worker, packet.as<ipc::Moved>())) return fail("Moved without a Move");
      return {};
    default:
      return fail("message kind {}", static_cast<unsigned>(packet.kind()));
  }
}

Status Process::give(std::size_t index, const ipc::Setup& setup, int descriptor) {
  auto copy = copy_of(descriptor);
  if (!copy) return std::unexpected(copy.error());
  return children_[index].channel()->send(setup, std::move(*copy));
}

// Streams are accepted by every handshake process, datagrams are received by every worker.
Status Process::give_listeners(std::size_t index) {
  const bool to_worker = children_[index].role() == ipc::Role::kWorker;
  for (std::size_t listener = 0; listener < listeners_.size(); ++listener) {
    const bool udp = config_.listeners[listener].transport == config::Transport::kUdp;
    if (udp != to_worker || !listeners_[listener].valid()) continue;
    const ListenerId id{static_cast<std::uint16_t>(listener)};
    const ipc::Setup setup{.what = ipc::Setup::What::kListener, .listener = id};
    if (auto s = give(index, setup, listeners_[listener].get()); !s) return s;
  }
  return {};
}

Status Process::on_hello(std::size_t index) {
  ChildProcess& child = children_[index];
  if (child.ready()) return fail("a second Hello");
  using What = ipc::Setup::What;
  const ipc::Setup config{.what = What::kConfig, .path = ipc::Text<256>(config_.path)};
  if (auto s = give(index, config, config_memory_.get()); !s) return s;
  if (auto s = give(index, {.what = What::kRegion}, region_.descriptor()); !s) return s;
  if (auto s = give_listeners(index); !s) return s;
  return child.role() == ipc::Role::kWorker ? set_up_worker(index) : set_up_handshake(index);
}

Status Process::set_up_worker(std::size_t index) {
  for (std::size_t worker = 0; worker < doorbells_.size(); ++worker) {
    const WorkerIndex id{static_cast<std::uint8_t>(worker)};
    const ipc::Setup setup{.what = ipc::Setup::What::kDoorbell, .worker = id};
    if (auto s = give(index, setup, doorbells_[worker].get()); !s) return s;
  }
  const WorkerIndex self = worker_of(index);
  if (auto s = give(index, {.what = ipc::Setup::What::kEstate}, places_[self.value].estate()); !s) return s;
  if (collector_.valid()) {
    if (auto s = give(index, {.what = ipc::Setup::What::kCollector}, collector_.get()); !s) return s;
  }
  if (auto s = children_[index].channel()->send(ipc::Ready{.worker = self}); !s) return s;
  children_[index].set_ready();
  if (phase_ != Phase::kRunning) tell(index, ipc::Drain{});
  for (std::uint16_t place = 0; place < traces_.size(); ++place) tell_of_trace(index, place);
  connections_.worker_ready(self);
  return {};
}

Status Process::set_up_handshake(std::size_t index) {
  if (auto s = give(index, {.what = ipc::Setup::What::kVault}, vault_.get()); !s) return s;
  const HandshakeIndex self = handshake_of(index);
  if (auto s = children_[index].channel()->send(ipc::Ready{.handshake = self}); !s) return s;
  children_[index].set_ready();
  connections_.handshake_ready(self);
  if (phase_ != Phase::kRunning) return children_[index].channel()->send(ipc::Drain{});
  return {};
}

void Process::on_child_signal() {
  int wait_status = 0;
  for (pid_t pid = ::waitpid(-1, &wait_status, WNOHANG); pid > 0; pid = ::waitpid(-1, &wait_status, WNOHANG)) {
    if (pid == upgrade_.rehearsal) {
      rehearsal_ended(wait_status);
      continue;
    }
    const auto child = std::ranges::find(children_, pid, &ChildProcess::pid);
    if (child != children_.end()) on_child_end(static_cast<std::size_t>(child - children_.begin()), wait_status);
  }
}

void Process::on_child_end(std::size_t index, int wait_status) {
  ChildProcess& child = children_[index];
  const pid_t pid = child.pid();
  // What it still said before it died is heard first.
  if (child.channel() != nullptr) on_channel(index, kAllPackets);
  channel_watches_[index].reset();
  const WorkerIndex worker = worker_of(index);
  const bool signalled = WIFSIGNALED(wait_status);
  const int code = signalled ? WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
  const bool fruitful =
      worker.valid() && places_[worker.value].has_received(region_.worker(worker).messages_received.read());
  using Life = ChildProcess::Life;
  const bool left = child.leaving() && !signalled && code == 0;
  const bool foreign = child.foreign();
  const bool killed = signalled && code == SIGKILL && !child.condemned();
  child.ended(Clock::now(), fruitful || left ? Life::kFruitful : killed ? Life::kKilled : Life::kUnknown);
  const std::string how =
      fmt::format("{} (pid {}) ended by {} {}", child.name(), pid, signalled ? "signal" : "exit status", code);
  const auto cause = killed ? Connections::Cause::kKilled : Connections::Cause::kItself;
  if (worker.valid() && phase_ < Phase::kStopping) worker_ended(worker, cause, how);
  if (child.role() == ipc::Role::kHandshake) {
    connections_.handshake_ended(handshake_of(index), cause);
  }
  if (child.role() == ipc::Role::kHandshake && index < places()) {
    reload_.ended(handshake_of(index), child.name());
    handshakes_idle_.set(index);  // nothing of it is in progress any more
  }
  if (phase_ >= Phase::kStopping) {
    if (std::ranges::none_of(children_, &ChildProcess::running)) phase_ = Phase::kStopped;
    return;
  }
  if (index >= places()) return log::info("{}", how);
  if (upgrade_.replacing == index && foreign) {
    log::info("{}; its successor follows", how);
    return start_successor(index);
  }
  log::error("{}; starting it again", how);
  start_again(index);
  if (upgrade_.former && !foreign) successor_failed(how);
}

void Process::start_again(std::size_t index) {
  const Clock::time_point due = children_[index].restart_due().value_or(Clock::now());
  restart_timers_[index] = loop_->after(std::max<Clock::duration>(due - Clock::now(), 0ms), [this, index] {
    if (phase_ >= Phase::kStopping) return;
    if (auto status = start_child(index); !status) log::critical("{}", status.error().what);
  });
}

// What it left goes to its successor, but for the message that it had in hand.
void Process::worker_ended(WorkerIndex worker, Connections::Cause cause, std::string_view how) {
  WorkerPlace& place = places_[worker.value];
  const auto in_hand = place.ended(region_.handovers(), worker);
  if (in_hand) {
    const auto file = quarantine_.keep(in_hand->octets, fmt::format("worker{}", worker.value));
    log::error("{} over a message of {} octets from {}, which is not handled again: {}", how, in_hand->octets.size(),
               connections_.sender_of(in_hand->connection), file ? "kept in " + *file : file.error().what);
    if (cause == Connections::Cause::kItself) connections_.blame(in_hand->connection);
  }
  // What kills every successor before it can begin is not kept for ever.
  const bool hopeless = children_[child_of(worker)].early_deaths() >= kMostEarlyDeaths;
  if (hopeless) {
    log::error("{} {} times in a row soon after its start: what it had is given up", how, kMostEarlyDeaths);
    place.clear(region_.handovers(), worker);
  }
  connections_.worker_ended(worker, hopeless ? Connections::Left::kNothing : Connections::Left::kEstate);
}

// After sending to a child: what did not go waits for the channel to be writable.
void Process::flushed(std::size_t index, const Status& sent) {
  ChildProcess& child = children_[index];
  if (!sent || child.channel() == nullptr) return;  // it has died; SIGCHLD follows
  channel_watches_[index].set(interest(true, child.channel()->wants_write()));
}

void Process::to_worker(WorkerIndex worker, const ipc::Offer& offer, Fd descriptor) {
  const std::size_t index = child_of(worker);
  ChildProcess& child = children_[index];
  if (child.channel() != nullptr) flushed(index, child.channel()->send(offer, std::move(descriptor)));
}
void Process::to_worker(WorkerIndex worker, const ipc::Start& start) { tell(child_of(worker), start); }
void Process::to_worker(WorkerIndex worker, const ipc::Serve& serve) { tell(child_of(worker), serve); }
void Process::to_worker(WorkerIndex worker, const ipc::Close& close) { tell(child_of(worker), close); }
void Process::to_worker(WorkerIndex worker, const ipc::SendControl& control) { tell(child_of(worker), control); }
void Process::to_worker(WorkerIndex worker, const ipc::Resume& resume) { tell(child_of(worker), resume); }
void Process::to_worker(WorkerIndex worker, const ipc::Move& move) { tell(child_of(worker), move); }
void Process::to_handshake(HandshakeIndex process, const ipc::Admitted& admitted) { tell(child_of(process), admitted); }
void Process::to_handshake(HandshakeIndex process, const ipc::Refused& refused) { tell(child_of(process), refused); }
void Process::to_handshake(HandshakeIndex process, const ipc::Gone& gone) { tell(child_of(process), gone); }
// What a process that leaves its place is not told, its successor is.
void Process::to_handshake(HandshakeIndex process, const ipc::PostHandshake& record, Fd descriptor) {
  if (!children_[child_of(process)].leaving()) tell(child_of(process), record, std::move(descriptor));
}
void Process::to_handshake(HandshakeIndex process, const ipc::InstallTransmit& install, Fd descriptor) {
  if (!children_[child_of(process)].leaving()) tell(child_of(process), install, std::move(descriptor));
}
void Process::to_handshake(HandshakeIndex process, const ipc::Renew& renew) {
  if (!children_[child_of(process)].leaving()) tell(child_of(process), renew);
}

void Process::ring(ipc::WorkerMask workers) {
  for (; workers != 0; workers &= workers - 1) {
    const std::uint64_t one = 1;
    (void)!::write(doorbells_[static_cast<std::size_t>(std::countr_zero(workers))].get(), &one, sizeof one);
  }
}

void Process::publish(const ipc::Resolved& resolved) {
  ipc::TrunkEntry::UdpTarget& target = region_.trunk(resolved.trunk).udp[resolved.target];
  target.path_mtu.store(resolved.path_mtu, std::memory_order_relaxed);
  if (resolved.address.empty()) return target.current.store(0, std::memory_order_release);
  if (region_.trunk(resolved.trunk).udp_address(resolved.target) == resolved.address) return;
  const std::uint32_t next = target.current.load(std::memory_order_relaxed) == 1 ? 2 : 1;
  target.copies[next - 1] = resolved.address;
  target.health.clear();
  target.current.store(next, std::memory_order_release);
}

}  // namespace ktrunk::supervisor
