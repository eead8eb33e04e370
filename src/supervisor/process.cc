#include "supervisor/process.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/log.h"
#include "supervisor/sockets.h"
#include "supervisor/status.h"

namespace ktrunk::supervisor {
namespace {

using namespace std::chrono_literals;
constexpr std::size_t kHandshakeChild = 0;
constexpr auto kDrainTick = 50ms;
// No message for so long after the listeners closed: nothing is under way any more.
constexpr auto kQuiet = 500ms;
// How long closing every connection, and stopping the children, may take before they are ended.
constexpr auto kCloseLimit = 4s;
constexpr auto kStopLimit = 3s;

// A copy of the configuration that no one can change any more.
Result<Fd> seal(const std::string& text) {
  Fd memory(::memfd_create("ktrunk-config", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory.valid()) return fail_errno(errno, "memory for the configuration");
  if (::write(memory.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return fail_errno(errno, "write the configuration to memory");
  if (::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0)
    return fail_errno(errno, "seal the configuration");
  return memory;
}

Result<Fd> watch_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGCHLD}) ::sigaddset(&set, signal);
  if (::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return fail_errno(errno, "block signals");
  Fd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) return fail_errno(errno, "signalfd");
  return fd;
}

// Every process holds a descriptor per connection: take what the hard limit allows, and say when it is not enough.
void raise_descriptor_limit(const config::Config& config) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t wanted = config.limits.max_connections * rlim_t{2} + 256;
  limit.rlim_max = std::max(limit.rlim_max, wanted);
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &limit) == 0) return;
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < wanted)
    log::warn("open files are limited to {}; {} connections need {}: raise LimitNOFILE or ulimit -n", limit.rlim_cur,
              config.limits.max_connections, wanted);
}

Result<Fd> copy_of(const Fd& fd) {
  Fd copy(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return fail_errno(errno, "duplicate a descriptor");
  return copy;
}

}  // namespace

Result<std::unique_ptr<Process>> Process::create(config::Config config, const std::string& text,
                                                 const Programs& programs, std::string version) {
  raise_descriptor_limit(config);
  auto region = ipc::SharedRegion::create({.workers = config.workers,
                                           .max_connections = config.limits.max_connections,
                                           .trunks = static_cast<std::uint32_t>(config.trunks.size())});
  if (!region) return std::unexpected(region.error());
  auto loop = EventLoop::create();
  if (!loop) return std::unexpected(loop.error());
  std::unique_ptr<Process> process(
      new Process(std::move(config), std::move(*region), std::move(*loop), programs, std::move(version)));
  if (auto status = process->open(text); !status) return std::unexpected(status.error());
  return process;
}

Process::Process(config::Config config, ipc::SharedRegion region, std::unique_ptr<EventLoop> loop,
                 const Programs& programs, std::string version)
    : config_(std::move(config)),
      version_(std::move(version)),
      region_(std::move(region)),
      loop_(std::move(loop)),
      connections_(region_, *this),
      control_(*loop_, config_.control_socket, [this](std::string_view command) { return answer(command); }) {
  children_.emplace_back("handshake", ipc::Role::kHandshake, programs.handshake);
  for (unsigned worker = 0; worker < config_.workers; ++worker)
    children_.emplace_back(fmt::format("worker/{}", worker), ipc::Role::kWorker, programs.worker);
  channel_watches_.resize(children_.size());
  restart_timers_.resize(children_.size());
}

Process::~Process() {
  for (const ChildProcess& child : children_) child.kill();
}

Status Process::open(const std::string& text) {
  auto memory = seal(text);
  if (!memory) return std::unexpected(memory.error());
  config_memory_ = std::move(*memory);
  auto listeners = open_listeners(config_);
  if (!listeners) return std::unexpected(listeners.error());
  listeners_ = std::move(*listeners);
  for (unsigned worker = 0; worker < config_.workers; ++worker) {
    Fd bell(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!bell.valid()) return fail_errno(errno, "eventfd for a worker's doorbell");
    doorbells_.push_back(std::move(bell));
  }
  auto signals = watch_signals();
  if (!signals) return std::unexpected(signals.error());
  signals_ = std::move(*signals);
  auto watch = loop_->watch(signals_.get(), Interest::kRead, [this](Ready) { on_signals(); });
  if (!watch) return std::unexpected(watch.error());
  signal_watch_ = std::move(*watch);
  return control_.open();
}

Status Process::run() {
  for (std::size_t index = 0; index < children_.size(); ++index) {
    if (auto status = start_child(index); !status) return status;
  }
  log::info("ktrunkd {} started: {} listeners, {} trunks, {} workers", version_, config_.listeners.size(),
            config_.trunks.size(), config_.workers);
  while (phase_ != Phase::kStopped) {
    if (auto status = loop_->turn(1h); !status) return status;
  }
  log::info("ktrunkd ended");
  return outcome_;
}

// ---- children

Status Process::start_child(std::size_t index) {
  ChildProcess& child = children_[index];
  if (auto status = child.start(Clock::now()); !status) return status;
  auto watch =
      loop_->watch(child.channel()->descriptor(), Interest::kRead, [this, index](Ready) { on_channel(index); });
  if (!watch) return std::unexpected(watch.error());
  channel_watches_[index] = std::move(*watch);
  return {};
}

void Process::on_channel(std::size_t index) {
  ChildProcess& child = children_[index];
  if (child.channel() == nullptr) return;
  flushed(index, child.channel()->flush());
  // A bounded number, so that no child keeps the supervisor from the others.
  for (int i = 0; i < 256 && child.channel() != nullptr; ++i) {
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
  children_[index].kill();
}

Status Process::on_packet(std::size_t index, ipc::Packet& packet) {
  const WorkerIndex worker{static_cast<std::uint8_t>(index - 1)};
  if (packet.kind() != ipc::Kind::kHello && !children_[index].ready()) return fail("it speaks before its Hello");
  switch (packet.kind()) {
    case ipc::Kind::kHello:
      return on_hello(index);
    case ipc::Kind::kEstablished: {
      const auto message = packet.as<ipc::Established>();
      const ipc::ConnectionInfo& info = message.info;
      if ((info.trunk.valid() && info.trunk.value >= config_.trunks.size()) ||
          (info.listener.valid() && info.listener.value >= config_.listeners.size()))
        return fail("Established with a trunk or listener that does not exist");
      connections_.established(message, packet.take_descriptor());
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
      handshake_idle_ = true;
      return {};
    case ipc::Kind::kHeld:
      if (!connections_.held(worker, packet.as<ipc::Held>().connection)) return fail("Held without an Offer");
      return {};
    case ipc::Kind::kFault:
      if (!connections_.fault(worker, packet.as<ipc::Fault>())) return fail("Fault of a connection it does not hold");
      return {};
    case ipc::Kind::kReleased:
      if (!connections_.released(worker, packet.as<ipc::Released>().connection))
        return fail("Released of a connection it was not told to close");
      return {};
    default:
      return fail("message kind {}", static_cast<unsigned>(packet.kind()));
  }
}

Status Process::on_hello(std::size_t index) {
  ChildProcess& child = children_[index];
  if (child.ready()) return fail("a second Hello");
  const bool is_worker = child.role() == ipc::Role::kWorker;
  const auto give = [&](ipc::Setup setup, const Fd& descriptor) -> Status {
    auto copy = copy_of(descriptor);
    if (!copy) return std::unexpected(copy.error());
    return child.channel()->send(setup, std::move(*copy));
  };
  using What = ipc::Setup::What;
  if (auto s = give({.what = What::kConfig, .path = ipc::Text<256>(config_.path)}, config_memory_); !s) return s;
  const Fd region(::fcntl(region_.descriptor(), F_DUPFD_CLOEXEC, 0));
  if (auto s = give({.what = What::kRegion}, region); !s) return s;
  for (std::size_t listener = 0; listener < listeners_.size(); ++listener) {
    const bool udp = config_.listeners[listener].transport == config::Transport::kUdp;
    if (udp != is_worker) continue;
    const ListenerId id{static_cast<std::uint16_t>(listener)};
    if (auto s = give({.what = What::kListener, .listener = id}, listeners_[listener]); !s) return s;
  }
  for (std::size_t worker = 0; is_worker && worker < doorbells_.size(); ++worker) {
    const WorkerIndex id{static_cast<std::uint8_t>(worker)};
    if (auto s = give({.what = What::kDoorbell, .worker = id}, doorbells_[worker]); !s) return s;
  }
  const WorkerIndex self = is_worker ? WorkerIndex{static_cast<std::uint8_t>(index - 1)} : WorkerIndex{};
  if (auto s = child.channel()->send(ipc::Ready{.worker = self}); !s) return s;
  child.set_ready();
  if (is_worker) connections_.worker_ready(self);
  if (!is_worker && phase_ != Phase::kRunning) return child.channel()->send(ipc::Drain{});
  return {};
}

void Process::on_child_signal() {
  int wait_status = 0;
  for (pid_t pid = ::waitpid(-1, &wait_status, WNOHANG); pid > 0; pid = ::waitpid(-1, &wait_status, WNOHANG)) {
    const auto child = std::ranges::find(children_, pid, &ChildProcess::pid);
    if (child != children_.end()) on_child_end(static_cast<std::size_t>(child - children_.begin()), wait_status);
  }
}

void Process::on_child_end(std::size_t index, int wait_status) {
  ChildProcess& child = children_[index];
  const bool was_ready = child.ready();
  const pid_t pid = child.pid();
  // What it still said before it died is heard first.
  if (child.channel() != nullptr) on_channel(index);
  channel_watches_[index].reset();
  child.ended(Clock::now());
  if (was_ready && child.role() == ipc::Role::kWorker)
    connections_.worker_ended(WorkerIndex{static_cast<std::uint8_t>(index - 1)});
  if (child.role() == ipc::Role::kHandshake) {
    connections_.handshake_ended();
    handshake_idle_ = true;  // nothing of it is in progress any more
  }
  if (phase_ >= Phase::kStopping) {
    if (std::ranges::none_of(children_, &ChildProcess::running)) phase_ = Phase::kStopped;
    return;
  }
  const bool signalled = WIFSIGNALED(wait_status);
  if (!signalled && WEXITSTATUS(wait_status) == EX_CONFIG) {
    outcome_ = fail("{} cannot use the configuration; its message is above", child.name());
    return stop_children();
  }
  const int code = signalled ? WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
  log::error("{} (pid {}) ended by {} {}; starting it again", child.name(), pid, signalled ? "signal" : "exit status",
             code);
  restart_timers_[index] = loop_->after(*child.restart_due() - Clock::now(), [this, index] {
    if (phase_ >= Phase::kStopping) return;
    if (auto status = start_child(index); !status) log::critical("{}", status.error().what);
  });
}

// After sending to a child: what did not go waits for the channel to be writable.
void Process::flushed(std::size_t index, const Status& sent) {
  ChildProcess& child = children_[index];
  if (!sent || child.channel() == nullptr) return;  // it has died; SIGCHLD follows
  channel_watches_[index].set(interest(true, child.channel()->wants_write()));
}

template <ipc::Body T>
void Process::tell(std::size_t index, const T& body) {
  ChildProcess& child = children_[index];
  if (child.channel() != nullptr && child.ready()) flushed(index, child.channel()->send(body));
}

void Process::to_worker(WorkerIndex worker, const ipc::Offer& offer, Fd descriptor) {
  const std::size_t index = child_of(worker);
  ChildProcess& child = children_[index];
  if (child.channel() != nullptr) flushed(index, child.channel()->send(offer, std::move(descriptor)));
}
void Process::to_worker(WorkerIndex worker, const ipc::Start& start) { tell(child_of(worker), start); }
void Process::to_worker(WorkerIndex worker, const ipc::Close& close) { tell(child_of(worker), close); }
void Process::to_handshake(const ipc::Admitted& admitted) { tell(kHandshakeChild, admitted); }
void Process::to_handshake(const ipc::Refused& refused) { tell(kHandshakeChild, refused); }
void Process::to_handshake(const ipc::Gone& gone) { tell(kHandshakeChild, gone); }

void Process::ring(ipc::WorkerMask workers) {
  for (; workers != 0; workers &= workers - 1) {
    const std::uint64_t one = 1;
    (void)!::write(doorbells_[static_cast<std::size_t>(std::countr_zero(workers))].get(), &one, sizeof one);
  }
}

void Process::publish(const ipc::Resolved& resolved) {
  ipc::TrunkEntry::UdpTarget& target = region_.trunk(resolved.trunk).udp[resolved.target];
  if (resolved.address.empty()) return target.current.store(0, std::memory_order_release);
  const std::uint32_t next = target.current.load(std::memory_order_relaxed) == 1 ? 2 : 1;
  target.copies[next - 1] = resolved.address;
  target.current.store(next, std::memory_order_release);
}

// ---- the end

void Process::on_signals() {
  signalfd_siginfo signal{};
  bool children = false;
  bool end = false;
  while (::read(signals_.get(), &signal, sizeof signal) == sizeof signal) {
    if (signal.ssi_signo == SIGCHLD) {
      children = true;
    } else {
      end = true;
    }
  }
  if (children) on_child_signal();
  if (!end) return;
  if (phase_ == Phase::kRunning) return begin_drain();
  if (phase_ == Phase::kDraining) close_connections();  // asked twice: do not wait for calls
}

void Process::begin_drain() {
  log::info("draining: no new connections; {} are open", connections_.count());
  phase_ = Phase::kDraining;
  phase_since_ = quiet_since_ = Clock::now();
  messages_seen_ = messages_handled();
  tell(kHandshakeChild, ipc::Drain{});
  drain_timer_ = loop_->after(kDrainTick, [this] { on_drain_tick(); });
}

std::uint64_t Process::messages_handled() const {
  std::uint64_t count = 0;
  for (unsigned worker = 0; worker < config_.workers; ++worker)
    count += region_.worker(WorkerIndex{static_cast<std::uint8_t>(worker)}).messages_received.read();
  return count;
}

void Process::on_drain_tick() {
  const Clock::time_point now = Clock::now();
  if (phase_ == Phase::kDraining) {
    if (const std::uint64_t seen = messages_handled(); seen != std::exchange(messages_seen_, seen)) quiet_since_ = now;
    const bool quiet = handshake_idle_ && (connections_.count() == 0 || now - quiet_since_ >= kQuiet);
    if (quiet || now - phase_since_ >= config_.limits.drain) close_connections();
  } else if (phase_ == Phase::kClosing) {
    if (connections_.count() == 0 || now - phase_since_ >= kCloseLimit) stop_children();
  } else if (phase_ == Phase::kStopping && now - phase_since_ >= kStopLimit) {
    for (const ChildProcess& child : children_) child.kill();
  }
  if (phase_ != Phase::kStopped) drain_timer_ = loop_->after(kDrainTick, [this] { on_drain_tick(); });
}

void Process::close_connections() {
  phase_ = Phase::kClosing;
  phase_since_ = Clock::now();
  connections_.close_all();
}

void Process::stop_children() {
  if (connections_.count() != 0) log::warn("{} connections did not close in time", connections_.count());
  phase_ = Phase::kStopping;
  phase_since_ = Clock::now();
  for (std::size_t index = 0; index < children_.size(); ++index) {
    tell(index, ipc::Stop{});
    if (!children_[index].ready()) children_[index].kill();
  }
  if (std::ranges::none_of(children_, &ChildProcess::running)) phase_ = Phase::kStopped;
  if (!drain_timer_.pending()) drain_timer_ = loop_->after(kDrainTick, [this] { on_drain_tick(); });
}

std::string Process::answer(std::string_view command) const {
  if (command != "status")
    return nlohmann::json{{"error", fmt::format("unknown command '{}'; known: status", command)}}.dump(
        -1, ' ', false, nlohmann::json::error_handler_t::replace);
  DaemonStatus daemon{.version = version_,
                      .state = phase_ == Phase::kRunning ? "running" : "draining",
                      .uptime = std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - started_),
                      .processes = {}};
  for (const ChildProcess& child : children_)
    daemon.processes.push_back({.name = child.name(), .pid = child.pid(), .restarts = child.restarts()});
  return status_json(daemon, config_, region_);
}

}  // namespace ktrunk::supervisor
