#include "fake_supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>

#include "base/log.h"
#include "ipc/vault.h"

namespace ktrunk::test {
namespace {

Fd listen_on(const Address& address) {
  Fd socket(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(socket.get(), address.data(), address.size()) != 0 || ::listen(socket.get(), 1024) != 0)
    throw std::runtime_error("listen on " + address.text() + ": " + errno_text(errno));
  return socket;
}

Fd copy_of(int fd) { return Fd(::fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

template <typename T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().what);
  return std::move(*result);
}

}  // namespace

FakeSupervisor::FakeSupervisor(const std::string& config_text)
    : config_(must(config::parse(config_text, "test.toml"))), text_(config_text) {
  region_.emplace(must(ipc::SharedRegion::create({.workers = 1,
                                                  .handshakes = config_.handshake_processes,
                                                  .max_connections = config_.limits.max_connections,
                                                  .trunks = static_cast<std::uint32_t>(config_.trunks.size())})));
  for (std::size_t i = 0; i < config_.listeners.size(); ++i) {
    if (config_.listeners[i].transport != config::Transport::kUdp)
      listeners_.emplace_back(ListenerId{static_cast<std::uint16_t>(i)}, listen_on(config_.listeners[i].address));
  }
  vault_ = must(ipc::Vault::create(config_.limits.max_connections));
  open_channel();
}

FakeSupervisor::FakeSupervisor(const FakeSupervisor& sibling, HandshakeIndex self)
    : timing(sibling.timing), self_(self), config_(sibling.config_), text_(sibling.text_) {
  region_.emplace(must(ipc::SharedRegion::map(copy_of(sibling.region_->descriptor()))));
  vault_ = copy_of(sibling.vault_.get());
  for (const auto& [id, socket] : sibling.listeners_) listeners_.emplace_back(id, copy_of(socket.get()));
  open_channel();
}

void FakeSupervisor::open_channel() {
  auto [ours, theirs] = must(ipc::Channel::pair());
  channel_.emplace(std::move(ours), ipc::AcceptList{ipc::Kind::kEstablished, ipc::Kind::kResolved, ipc::Kind::kIdle,
                                                    ipc::Kind::kSendControl, ipc::Kind::kResume, ipc::Kind::kFault,
                                                    ipc::Kind::kRetire, ipc::Kind::kReloaded});
  child_end_ = std::move(theirs);
}

FakeSupervisor::~FakeSupervisor() { (void)hang_up(); }

void FakeSupervisor::run() {
  (void)log::is_on(log::Level::kInfo);  // made here: the thread sanitizer does not see how the library guards it
  ipc::ChildSetup setup{
      .config = must(config::parse(text_, "test.toml")),
      .region = must(ipc::SharedRegion::map(copy_of(region_->descriptor()))),
      .worker = {},
      .handshake = self_,
      .vault = copy_of(vault_.get()),
      .doorbells = {},
      .listeners = std::move(listeners_),
  };
  auto process = must(handshake::Process::create(ipc::Channel(std::move(child_end_), handshake::Process::accept_list()),
                                                 std::move(setup), timing));
  thread_ = std::thread([this, process = std::move(process)]() mutable {
    ended_ = process->run();
    process.reset();
  });
}

Status FakeSupervisor::join() {
  if (thread_.joinable()) thread_.join();
  return ended_;
}

Status FakeSupervisor::hang_up() {
  channel_.reset();
  return join();
}

Status FakeSupervisor::stop() {
  send(ipc::Stop{});
  return join();
}

void FakeSupervisor::gone(const Handed& handed, ipc::Gone::Again again) {
  send(ipc::Gone{.reference = handed.message.reference,
                 .connection = handed.id,
                 .trunk = handed.message.info.trunk,
                 .role = handed.message.info.role,
                 .again = again});
}

void FakeSupervisor::open_slot(ConnectionId id, const ipc::ConnectionInfo& info, ipc::SlotState state) {
  ipc::ConnectionSlot& slot = region_->slot(id.slot);
  slot.info = info;
  slot.word.store(ipc::SlotWord{.generation = id.generation, .state = state, .home = WorkerIndex{0}}.pack());
}

void FakeSupervisor::pump(milliseconds patience) {
  (void)channel_->flush();
  pollfd entry = {.fd = channel_->descriptor(), .events = POLLIN, .revents = 0};
  if (::poll(&entry, 1, static_cast<int>(patience.count())) <= 0) return;
  ipc::Packet packet;
  for (;;) {
    auto outcome = channel_->receive(packet);
    if (!outcome) throw std::runtime_error(outcome.error().what);
    if (*outcome != ipc::Channel::Outcome::kMessage) return;
    if (packet.kind() == ipc::Kind::kIdle) ++idles_;
    if (packet.kind() == ipc::Kind::kResolved) resolved_.push_back(packet.as<ipc::Resolved>());
    if (packet.kind() != ipc::Kind::kEstablished) {
      if (packet.kind() != ipc::Kind::kIdle && packet.kind() != ipc::Kind::kResolved)
        others_.push_back(std::make_unique<ipc::Packet>(std::move(packet)));
      continue;
    }
    Handed handed{packet.as<ipc::Established>(), packet.take_descriptor(), {}};
    if (answer == Answer::kAdmit) {
      handed.id = {SlotIndex{next_slot_++ % region_->sizes().max_connections}, Generation{++lives_}};
      open_slot(handed.id, handed.message.info);
      send(ipc::Admitted{.reference = handed.message.reference, .connection = handed.id});
    } else if (answer == Answer::kRefuse) {
      send(ipc::Refused{.reference = handed.message.reference, .why = why});
      continue;  // and its descriptor is closed
    }
    established_.push_back(std::move(handed));
  }
}

namespace {

template <typename Condition, typename Step>
bool wait_until(milliseconds patience, Condition condition, Step step) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!condition()) {
    const auto left = std::chrono::ceil<milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return false;
    step(left);
  }
  return true;
}

}  // namespace

std::optional<Handed> FakeSupervisor::established(milliseconds patience) {
  if (!wait_until(patience, [&] { return !established_.empty(); }, [&](milliseconds left) { pump(left); })) return {};
  Handed handed = std::move(established_.front());
  established_.pop_front();
  return handed;
}

std::optional<ipc::Resolved> FakeSupervisor::resolved(milliseconds patience) {
  if (!wait_until(patience, [&] { return !resolved_.empty(); }, [&](milliseconds left) { pump(left); })) return {};
  const ipc::Resolved message = resolved_.front();
  resolved_.pop_front();
  return message;
}

std::unique_ptr<ipc::Packet> FakeSupervisor::next_packet(ipc::Kind kind, milliseconds patience) {
  const auto find = [&] {
    return std::ranges::find_if(others_, [&](const auto& packet) { return packet->kind() == kind; });
  };
  if (!wait_until(patience, [&] { return find() != others_.end(); }, [&](milliseconds left) { pump(left); })) return {};
  const auto found = find();
  auto packet = std::move(*found);
  others_.erase(found);
  return packet;
}

bool FakeSupervisor::idle(milliseconds patience) {
  return wait_until(patience, [&] { return idles_ > 0; }, [&](milliseconds left) { pump(left); });
}

std::optional<std::string> receive_packet(const Fd& fd, milliseconds patience) {
  pollfd entry = {.fd = fd.get(), .events = POLLIN, .revents = 0};
  if (::poll(&entry, 1, static_cast<int>(patience.count())) <= 0) return std::nullopt;
  std::string packet(65536, '\0');
  const ssize_t got = ::recv(fd.get(), packet.data(), packet.size(), MSG_DONTWAIT);
  if (got < 0) return std::nullopt;
  packet.resize(static_cast<std::size_t>(got));
  return packet;
}

bool send_packet(const Fd& fd, std::string_view packet) {
  return ::send(fd.get(), packet.data(), packet.size(), MSG_DONTWAIT | MSG_NOSIGNAL) ==
         static_cast<ssize_t>(packet.size());
}

}  // namespace ktrunk::test
