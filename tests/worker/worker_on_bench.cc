#include "worker/worker_on_bench.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>
#include <utility>

#include "worker/process.h"

namespace ktrunk::test {
namespace {

constexpr int kPatience = 30'000;  // ms

int live(ipc::SharedRegion region, supervisor::WorkerPlace& place, std::array<Fd, 2> bells, Fd channel, Fd collector,
         const config::Config& config) {
  auto estate = ipc::Estate::map(Fd(::dup(place.estate())));
  if (!estate) return 9;
  worker::Endowment endowment{.config = config,
                              .region = std::move(region),
                              .estate = std::move(*estate),
                              .ring = Fd(::dup(place.ring())),
                              .self = WorkerOnBench::kSelf,
                              .doorbells = {},
                              .udp_sockets = {},
                              .collector = std::move(collector)};
  endowment.config.workers = 2;
  for (std::size_t i = 0; i < bells.size(); ++i) endowment.doorbells[i] = std::move(bells[i]);
  log::init("worker/0", log::Format::kText, log::Level::kWarn);
  auto process = worker::Process::create(
      std::move(endowment),
      ipc::Channel(std::move(channel),
                   {ipc::Kind::kOffer, ipc::Kind::kStart, ipc::Kind::kServe, ipc::Kind::kClose, ipc::Kind::kSendControl,
                    ipc::Kind::kResume, ipc::Kind::kMove, ipc::Kind::kStop, ipc::Kind::kTrace, ipc::Kind::kTraceEnd}));
  if (!process) return 10;
  if (!(*process)->confine()) return 11;
  return (*process)->run() ? 0 : 12;
}

std::pair<Fd, Fd> channel_ends() {
  auto ends = ipc::Channel::pair();
  EXPECT_TRUE(ends);
  return ends ? std::move(*ends) : std::pair<Fd, Fd>();
}

}  // namespace

TcpPair tcp_pair(int buffer) {
  const Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  TcpPair pair{Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), Fd()};
  if (buffer != 0) {
    for (const int end : {listener.get(), pair.near.get()}) {
      for (const int which : {SO_RCVBUF, SO_SNDBUF}) (void)::setsockopt(end, SOL_SOCKET, which, &buffer, sizeof buffer);
    }
  }
  EXPECT_EQ(::bind(listener.get(), generic, size), 0);
  EXPECT_EQ(::listen(listener.get(), 1), 0);
  EXPECT_EQ(::getsockname(listener.get(), generic, &size), 0);
  EXPECT_EQ(::connect(pair.near.get(), generic, size), 0);
  pair.far = Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  EXPECT_TRUE(pair.far.valid());
  const int on = 1;
  for (const Fd* end : {&pair.near, &pair.far})
    EXPECT_EQ(::setsockopt(end->get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
  return pair;
}

std::string read_some(const Fd& fd, std::size_t bytes, std::chrono::milliseconds limit) {
  std::string all;
  while (all.size() < bytes) {
    pollfd wait{fd.get(), POLLIN, 0};
    if (::poll(&wait, 1, static_cast<int>(limit.count())) != 1) break;
    std::array<char, 4096> piece;
    const ssize_t got = ::recv(fd.get(), piece.data(), std::min(piece.size(), bytes - all.size()), MSG_DONTWAIT);
    if (got <= 0) break;
    all.append(piece.data(), static_cast<std::size_t>(got));
  }
  return all;
}

std::optional<std::string> read_to_end(const Fd& fd) {
  std::string all;
  for (;;) {
    pollfd wait{fd.get(), POLLIN, 0};
    if (::poll(&wait, 1, kPatience) != 1) return std::nullopt;
    std::array<char, 4096> piece;
    const ssize_t got = ::recv(fd.get(), piece.data(), piece.size(), MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno == ECONNRESET)) return all;
    if (got < 0) return std::nullopt;
    all.append(piece.data(), static_cast<std::size_t>(got));
  }
}

void write_all(const Fd& fd, std::string_view octets) {
  while (!octets.empty()) {
    const ssize_t sent = ::send(fd.get(), octets.data(), octets.size(), MSG_NOSIGNAL);
    ASSERT_GT(sent, 0) << errno_text(errno);
    octets.remove_prefix(static_cast<std::size_t>(sent));
  }
}

WorkerOnBench::WorkerOnBench(config::Limits limits, config::Config config, Fd collector)
    : region_(std::move(*ipc::SharedRegion::create({.workers = 2, .max_connections = 64, .trunks = 1}))),
      place_(std::move(*supervisor::WorkerPlace::create())),
      channel_(Fd(), {}) {
  config.limits = limits;
  EXPECT_TRUE(place_.make_ring(64));
  for (Fd& bell : bells_) bell = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  auto [ours, theirs] = channel_ends();
  pid_ = ::fork();
  if (pid_ == 0) {
    ours.reset();
    // By exit, not _exit: what is destroyed at the end must do with the calls that are left.
    std::exit(live(std::move(region_), place_, std::move(bells_), std::move(theirs), std::move(collector), config));
  }
  EXPECT_GT(pid_, 0);
  channel_ = ipc::Channel(std::move(ours), {ipc::Kind::kHeld, ipc::Kind::kFault, ipc::Kind::kReleased,
                                            ipc::Kind::kHandshakeOctets, ipc::Kind::kControlSent, ipc::Kind::kMoved});
}

WorkerOnBench::~WorkerOnBench() {
  kill();
  EXPECT_EQ(problem_, "");
}

ConnectionId WorkerOnBench::give(Fd socket, ipc::RecordLayerKind layer, ipc::TlsVersion version, WorkerIndex home) {
  const ConnectionId id{SlotIndex{next_slot_++}, Generation{1}};
  ipc::ConnectionSlot& slot = region_.slot(id.slot);
  slot.info.transport = config::Transport::kTls;
  slot.info.record_layer = layer;
  slot.info.tls_version = version;
  slot.word.store(ipc::SlotWord{id.generation, ipc::SlotState::kOpen, home}.pack());
  EXPECT_TRUE(channel_.send(ipc::Offer{.connection = id}, std::move(socket)));
  EXPECT_TRUE(expect<ipc::Held>());
  if (home == kSelf) tell(ipc::Start{.connection = id});
  return id;
}

std::optional<ipc::Packet> WorkerOnBench::next() {
  ipc::Packet packet;
  for (;;) {
    const auto outcome = channel_.receive(packet);
    if (!outcome || *outcome == ipc::Channel::Outcome::kClosed) return std::nullopt;
    if (*outcome == ipc::Channel::Outcome::kMessage) return packet;
    pollfd wait{channel_.descriptor(), POLLIN, 0};
    if (::poll(&wait, 1, kPatience) != 1) return std::nullopt;
  }
}

bool WorkerOnBench::silent() {
  pollfd wait{channel_.descriptor(), POLLIN, 0};
  return ::poll(&wait, 1, 0) == 0;
}

void WorkerOnBench::ring() const {
  const std::uint64_t one = 1;
  EXPECT_EQ(::write(bells_[kSelf.value].get(), &one, sizeof one), static_cast<ssize_t>(sizeof one));
}

int WorkerOnBench::stop() {
  tell(ipc::Stop{});
  int status = -1;
  EXPECT_EQ(::waitpid(std::exchange(pid_, -1), &status, 0) > 0, true);
  return status;
}

void WorkerOnBench::kill() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  EXPECT_EQ(::waitpid(std::exchange(pid_, -1), nullptr, 0) > 0, true);
}

}  // namespace ktrunk::test
