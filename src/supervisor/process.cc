#include "supervisor/process.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "base/processors.h"
#include "ipc/vault.h"
#include "supervisor/sockets.h"
#include "supervisor/token_key.h"

namespace ktrunk::supervisor {
namespace {

using namespace std::chrono_literals;
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
  ::signal(SIGPIPE, SIG_IGN);  // a log reader that goes away must not take the daemon with it
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR2, SIGCHLD}) ::sigaddset(&set, signal);
  if (::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return fail_errno(errno, "block signals");
  Fd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) return fail_errno(errno, "signalfd");
  return fd;
}

// What one process may have open at once: a descriptor for each connection, in a handshake process that relays two;
// what is in the middle of its handshake; and some more.
rlim_t descriptors_needed(const config::Config& config) {
  constexpr rlim_t kOthers = 1024;
  const rlim_t each = config.record_layer == config::RecordLayer::kRelay ? 2 : 1;
  return each * config.limits.max_connections + config.limits.handshakes + kOthers;
}

// The children inherit the limit: take what the hard limit allows, more where we may, and say when it is not enough.
void raise_descriptor_limit(const config::Config& config) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t needed = descriptors_needed(config);
  const rlim_t most = std::max(limit.rlim_max, needed);
  if (const rlimit raised{most, most}; ::setrlimit(RLIMIT_NOFILE, &raised) == 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
  log::warn(
      "a process may open {} files, and limits.max_connections = {} with limits.handshakes = {} may need {}: beyond "
      "that connections are refused; raise LimitNOFILE= in the systemd unit (else ulimit -n, fs.nr_open), or lower "
      "those limits",
      limit.rlim_cur, config.limits.max_connections, config.limits.handshakes, needed);
}

// The vault is memory that is never swapped, and the workers' rings may count as locked memory too. Without root what
// the hard limit allows must do: the handshake process says what it could not lock.
void raise_locked_memory_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return;
  const rlimit all{RLIM_INFINITY, RLIM_INFINITY};
  if (::geteuid() == 0 && ::setrlimit(RLIMIT_MEMLOCK, &all) == 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_MEMLOCK, &limit);
}

}  // namespace

Result<std::unique_ptr<Process>> Process::create(config::Config config, const std::string& text, Image image,
                                                 std::string version) {
  raise_descriptor_limit(config);
  raise_locked_memory_limit();
  std::uint32_t invites = 0;
  const auto large_invites = [](const config::Trunk& trunk) {
    return ipc::InviteTable::words_for(config::is_large_by_tcp(trunk) ? ipc::kMostLargeInvites : 0);
  };
  for (const config::Trunk& trunk : config.trunks)
    invites += ipc::InviteTable::words_for(trunk.max_invites) + large_invites(trunk);
  const auto seed = token_seed(config);
  if (!seed) return std::unexpected(seed.error());
  auto region = ipc::SharedRegion::create({.workers = config.workers,
                                           .handshakes = config.handshake_processes,
                                           .max_connections = config.limits.max_connections,
                                           .trunks = static_cast<std::uint32_t>(config.trunks.size()),
                                           .invites = invites},
                                          *seed);
  if (!region) return std::unexpected(region.error());
  invites = 0;
  for (std::uint16_t i = 0; i < config.trunks.size(); ++i) {
    ipc::TrunkEntry& entry = region->trunk(TrunkId{i});
    entry.invites_begin = invites;
    entry.invites_size = ipc::InviteTable::words_for(config.trunks[i].max_invites);
    invites += entry.invites_size;
    entry.large_invites_begin = invites;
    entry.large_invites_size = large_invites(config.trunks[i]);
    invites += entry.large_invites_size;
  }
  auto loop = EventLoop::create();
  if (!loop) return std::unexpected(loop.error());
  std::unique_ptr<Process> process(
      new Process(std::move(config), std::move(*region), std::move(*loop), std::move(image), std::move(version)));
  process->started_as_ = started_as();
  if (auto status = process->open(text); !status) return std::unexpected(status.error());
  return process;
}

Process::Process(config::Config config, ipc::SharedRegion region, std::unique_ptr<EventLoop> loop, Image image,
                 std::string version)
    : config_(std::move(config)),
      version_(std::move(version)),
      image_(std::move(image)),
      region_(std::move(region)),
      loop_(std::move(loop)),
      connections_(config_, region_, *this, static_cast<unsigned>(processors())),
      trunk_states_(config_, region_),
      control_(*loop_, config_.control_socket,
               [this](const Control::Request& request, const Control::Reply& reply) { answer(request, reply); }),
      quarantine_(config_.quarantine),
      reload_([this](HandshakeIndex process, const ipc::Reload& message) { tell(child_of(process), message); }) {
  for (unsigned process = 0; process < config_.handshake_processes; ++process)
    children_.emplace_back(fmt::format("handshake/{}", process), ipc::Role::kHandshake);
  for (unsigned worker = 0; worker < config_.workers; ++worker)
    children_.emplace_back(fmt::format("worker/{}", worker), ipc::Role::kWorker);
  for (unsigned former = 0; former < kMostFormerHandshakes; ++former)
    children_.emplace_back(fmt::format("handshake/former/{}", former), ipc::Role::kHandshake);
  channel_watches_.resize(children_.size());
  restart_timers_.resize(children_.size());
}

Process::~Process() {
  control_.dismiss();  // while there are children to be told
  for (const ChildProcess& child : children_) child.kill();
}

Status Process::open(const std::string& text) {
  auto memory = seal(text);
  if (!memory) return std::unexpected(memory.error());
  config_memory_ = std::move(*memory);
  auto vault = ipc::Vault::create(config_.limits.max_connections);
  if (!vault) return std::unexpected(vault.error());
  vault_ = std::move(*vault);
  auto listeners = open_listeners(config_);
  if (!listeners) return std::unexpected(listeners.error());
  listeners_ = std::move(*listeners);
  auto collector = open_collector(config_);
  if (!collector) return std::unexpected(collector.error());
  collector_ = std::move(*collector);
  for (unsigned worker = 0; worker < config_.workers; ++worker) {
    Fd bell(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!bell.valid()) return fail_errno(errno, "eventfd for a worker's doorbell");
    doorbells_.push_back(std::move(bell));
    auto place = WorkerPlace::create();
    if (!place) return std::unexpected(place.error());
    places_.push_back(std::move(*place));
  }
  if (auto status = take_signals(); !status) return status;
  return control_.open();
}

Status Process::take_signals() {
  auto signals = watch_signals();
  if (!signals) return std::unexpected(signals.error());
  signals_ = std::move(*signals);
  auto watch = loop_->watch(signals_.get(), Interest::kRead, [this](Ready) { on_signals(); });
  if (!watch) return std::unexpected(watch.error());
  signal_watch_ = std::move(*watch);
  return {};
}

// What a predecessor in this process has started is there; what is not, died while it left.
Status Process::begin() {
  if (origin_ == Origin::kTakenOver) {
    on_child_signal();
    for (std::size_t index = 0; index < places(); ++index) {
      if (!children_[index].running() && !restart_timers_[index].pending()) start_again(index);
    }
    upgrade_.next = loop_->after(0ms, [this] { replace_foreign(); });
    return {};
  }
  for (std::size_t index = 0; index < places(); ++index) {
    if (auto status = start_child(index); !status) return status;
  }
  log::info("ktrunkd {} started: {} listeners, {} trunks, {} handshake processes, {} workers", version_,
            config_.listeners.size(), config_.trunks.size(), config_.handshake_processes, config_.workers);
  return {};
}

Status Process::run() {
  if (auto status = begin(); !status) return status;
  look_at_connections();
  while (phase_ != Phase::kStopped) {
    if (auto status = loop_->turn(1h); !status) return status;
  }
  log::info("ktrunkd ended");
  return {};
}

void Process::on_signals() {
  signalfd_siginfo signal{};
  bool children = false;
  bool end = false;
  while (::read(signals_.get(), &signal, sizeof signal) == sizeof signal) {
    switch (signal.ssi_signo) {
      case SIGCHLD:
        children = true;
        break;
      case SIGHUP:
        begin_reload([](const ReloadOutcome&) {});
        break;
      case SIGUSR2:
        begin_upgrade(std::nullopt);
        break;
      default:
        end = true;
        break;
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
  // One that is being started has nothing in progress, and hears of the drain first of all.
  for (std::size_t index = 0; index < config_.handshake_processes; ++index)
    handshakes_idle_.set(index, !children_[index].ready());
  // Whoever comes now is refused by the kernel, and not kept waiting.
  for (std::size_t listener = 0; listener < listeners_.size(); ++listener) {
    if (config_.listeners[listener].transport != config::Transport::kUdp) listeners_[listener].reset();
  }
  for (std::size_t index = 0; index < places(); ++index) tell(index, ipc::Drain{});
  drain_timer_ = loop_->after(kDrainTick, [this] { on_drain_tick(); });
}

// Those that went through: what is refused because of the drain keeps nothing open.
std::uint64_t Process::messages_handled() const {
  std::uint64_t count = 0;
  for (unsigned worker = 0; worker < config_.workers; ++worker) {
    const ipc::WorkerStats& stats = region_.worker(WorkerIndex{static_cast<std::uint8_t>(worker)});
    count += stats.requests_forwarded.read() + stats.responses_forwarded.read();
  }
  return count;
}

void Process::on_drain_tick() {
  const Clock::time_point now = Clock::now();
  if (phase_ == Phase::kDraining) {
    if (const std::uint64_t seen = messages_handled(); seen != std::exchange(messages_seen_, seen)) quiet_since_ = now;
    const bool idle = handshakes_idle_.count() == config_.handshake_processes;
    const bool quiet = idle && (connections_.count() == 0 || now - quiet_since_ >= kQuiet);
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

}  // namespace ktrunk::supervisor
