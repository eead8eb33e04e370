#include "handshake/process.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "base/log.h"
#include "ipc/limits.h"

namespace ktrunk::handshake {
namespace {

constexpr int kMessagesPerTurn = 64;
constexpr std::chrono::seconds kDrainTime{2};  // for handshakes in progress, unless limits.handshake is less
constexpr std::chrono::seconds kStopTime{1};   // for what waits in relays
constexpr std::chrono::seconds kLongestTurn{60};

Result<std::string> read_whole(const Fd& file) {
  struct stat about = {};
  if (::fstat(file.get(), &about) != 0) return fail_errno(errno, "read the configuration's text");
  if (about.st_size < 0 || static_cast<std::uint64_t>(about.st_size) > config::kMaxTextBytes)
    return fail("the configuration's text has {} octets", about.st_size);
  std::string text(static_cast<std::size_t>(about.st_size), '\0');
  std::size_t done = 0;
  while (done < text.size()) {  // by offset: the file's position is shared with other processes
    const ssize_t got = ::pread(file.get(), text.data() + done, text.size() - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return fail_errno(got < 0 ? errno : EIO, "read the configuration's text");
    done += static_cast<std::size_t>(got);
  }
  return text;
}

}  // namespace

Process::Process(std::unique_ptr<EventLoop> loop, Fd channel, const Service::Timing& timing, ktls::Kernel& kernel)
    : loop_(std::move(loop)),
      channel_(std::move(channel), {ipc::Kind::kSetup, ipc::Kind::kReady, ipc::Kind::kStop, ipc::Kind::kAdmitted,
                                    ipc::Kind::kRefused, ipc::Kind::kGone, ipc::Kind::kDrain}),
      timing_(timing),
      kernel_(kernel) {}

Result<std::unique_ptr<Process>> Process::create(Fd channel, const Service::Timing& timing, ktls::Kernel& kernel) {
  auto loop = EventLoop::create();
  if (!loop) return std::unexpected(std::move(loop.error()));
  std::unique_ptr<Process> process(new Process(std::move(*loop), std::move(channel), timing, kernel));
  auto watch =
      process->loop_->watch(process->channel_.descriptor(), Interest::kRead, [self = process.get()](Ready ready) {
        if (ready.write) self->note(self->channel_.flush());
        if (ready.read) self->receive();
      });
  if (!watch) return std::unexpected(std::move(watch.error()));
  process->channel_watch_ = std::move(*watch);
  return process;
}

Status Process::run() {
  note(channel_.send(ipc::Hello{.role = ipc::Role::kHandshake, .worker = {}, .pid = ::getpid()}));
  while (failure_ && !stopped_) {
    note(loop_->turn(kLongestTurn));
    settle();
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
    if (!outcome) return note(fail("the supervisor's message: {}", outcome.error().what));
    if (*outcome == ipc::Channel::Outcome::kWouldBlock) return;
    if (*outcome == ipc::Channel::Outcome::kClosed) return note(fail("the supervisor is gone"));
    note(dispatch(packet));
  }
}

Status Process::dispatch(ipc::Packet& packet) {
  switch (packet.kind()) {
    case ipc::Kind::kSetup:
      return set_up(packet.as<ipc::Setup>(), packet.take_descriptor());
    case ipc::Kind::kReady:
      return begin();
    case ipc::Kind::kStop:
      stop();
      return {};
    default:
      break;
  }
  if (service_ == nullptr)
    return fail("the supervisor sent message kind {} before Ready", static_cast<unsigned>(packet.kind()));
  switch (packet.kind()) {
    case ipc::Kind::kAdmitted:
      service_->admitted(packet.as<ipc::Admitted>());
      acknowledged();
      return {};
    case ipc::Kind::kRefused:
      service_->refused(packet.as<ipc::Refused>());
      acknowledged();
      return {};
    case ipc::Kind::kGone:
      service_->gone(packet.as<ipc::Gone>());
      return {};
    case ipc::Kind::kDrain:
      drain();
      return {};
    default:
      return fail("message kind {} has no meaning here", static_cast<unsigned>(packet.kind()));
  }
}

Status Process::set_up(const ipc::Setup& setup, Fd descriptor) {
  if (phase_ != Phase::kSettingUp) return fail("the supervisor sent Setup after Ready");
  switch (setup.what) {
    case ipc::Setup::What::kConfig:
      return take_config(setup, descriptor);
    case ipc::Setup::What::kRegion: {
      auto region = ipc::SharedRegion::map(std::move(descriptor));
      if (!region) return std::unexpected(std::move(region.error()));
      region_.emplace(std::move(*region));
      return {};
    }
    case ipc::Setup::What::kListener:
      listening_.emplace_back(setup.listener, std::move(descriptor));
      return {};
    case ipc::Setup::What::kDoorbell:
      break;
  }
  return fail("Setup with something ({}) that is not for this process", static_cast<unsigned>(setup.what));
}

Status Process::take_config(const ipc::Setup& setup, const Fd& text) {
  const auto whole = read_whole(text);
  if (!whole) return std::unexpected(whole.error());
  auto config = config::parse(*whole, setup.path.view());
  if (!config) return std::unexpected(std::move(config.error()));
  config_.emplace(std::move(*config));
  log::init("handshake", config_->log_format, config_->log_level);
  return {};
}

Status Process::begin() {
  if (phase_ != Phase::kSettingUp) return fail("the supervisor sent Ready twice");
  if (!config_ || !region_) return fail("Ready without configuration or shared region");
  if (region_->sizes().trunks < config_->trunks.size()) return fail("the shared region is of another configuration");
  for (const auto& [id, socket] : listening_) {
    if (id.value >= config_->listeners.size() || config_->listeners[id.value].transport == config::Transport::kUdp)
      return fail("a socket of listener {}, which is none of this process's", id.value);
  }
  phase_ = Phase::kServing;
  service_ = std::make_unique<Service>(
      *loop_, *config_, *region_, kernel_, timing_,
      Service::Outlet{
          .established = [this](const ipc::Established& message, Fd fd) { established(message, std::move(fd)); },
          .resolved = [this](const ipc::Resolved& message) { note(channel_.send(message)); }});
  service_->start(std::move(listening_));
  return {};
}

void Process::established(const ipc::Established& message, Fd descriptor) {
  waiting_.emplace_back(message, std::move(descriptor));
}

void Process::acknowledged() {
  if (in_flight_ > 0) --in_flight_;
}

void Process::drain() {
  if (phase_ != Phase::kServing) return;
  phase_ = Phase::kDraining;
  service_->drain(std::min<Clock::duration>(kDrainTime, config_->limits.handshake));
}

void Process::stop() {
  if (phase_ == Phase::kStopping) return;
  phase_ = Phase::kStopping;
  if (service_ == nullptr) {
    stopped_ = true;
    return;
  }
  service_->drain(Clock::duration::zero());
  waiting_.clear();
  service_->close_relays();
  stop_timer_ = loop_->after(kStopTime, [this] { stopped_ = true; });
}

// After every turn: what has piled up in it goes out, and the phase moves on when its work is done.
void Process::settle() {
  if (phase_ == Phase::kStopping) {
    if (service_ != nullptr && service_->finished() && !service_->busy()) stopped_ = true;
  } else {
    while (!waiting_.empty() && in_flight_ < ipc::kMaxDescriptorsInFlight) {
      auto& [message, descriptor] = waiting_.front();
      ++in_flight_;
      note(channel_.send(message, std::move(descriptor)));
      waiting_.pop_front();
    }
    if (phase_ == Phase::kDraining && waiting_.empty() && !service_->busy()) {
      phase_ = Phase::kIdle;
      note(channel_.send(ipc::Idle{}));
    }
  }
  channel_watch_.set(interest(true, channel_.wants_write()));
}

}  // namespace ktrunk::handshake
