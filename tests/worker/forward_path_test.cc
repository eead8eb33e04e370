// What a worker does for each batch of messages that it forwards: one packet out for one that came in, two system calls
// (one that brings the batch, one that sends it), no memory from the heap. A program of its own, as it replaces
// operator new.
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <string>

#include "worker/worker_on_bench.h"

namespace {

// Of the worker alone, which is a child of this process; where both see it.
std::atomic<std::uint64_t>* const allocations = [] {
  void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return page == MAP_FAILED ? nullptr : new (page) std::atomic<std::uint64_t>(0);
}();
bool is_worker = false;
const int watches_forks = ::pthread_atfork(nullptr, nullptr, [] { is_worker = true; });

}  // namespace

// Not inlined: the compiler would see malloc where it knows delete, and the other way round.
[[gnu::noinline]] void* operator new(std::size_t size) {
  if (is_worker) allocations->fetch_add(1);
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace ktrunk::test {
namespace {

constexpr unsigned kBatch = 20;
constexpr unsigned kWarmUp = 10;
constexpr unsigned kBatches = 200;

config::Config one_trunk() {
  config::Config config;
  config.listeners.emplace_back().address = Address::parse("192.0.2.10:5061").value();
  config.trunks.resize(1);
  config.trunks[0].listener = ListenerId{0};
  config.routes.emplace_back().to = {TrunkId{0}};
  return config;
}

std::string request(unsigned number) {
  return fmt::format(
      "MESSAGE sip:bob@example.org SIP/2.0\r\nVia: SIP/2.0/TLS 192.0.2.1;branch=z9hG4bK{0}\r\nMax-Forwards: 70\r\n"
      "From: <sip:alice@example.org>;tag={0}\r\nTo: <sip:bob@example.org>\r\nCall-ID: {0}\r\nCSeq: 1 MESSAGE\r\n"
      "Content-Length: 5\r\n\r\nhello",
      number);
}

// A record or a packet at a time, as a relay's.
class ForwardPathTest : public testing::Test {
 protected:
  explicit ForwardPathTest(Fd collector = {}) : worker_({}, one_trunk(), std::move(collector)) {}
  void SetUp() override {
    caller_ = connect(TrunkId{}, caller_id_);
    trunk_ = connect(TrunkId{0}, trunk_id_);
    worker_.region().trunk(TrunkId{0}).list(0, trunk_id_);
  }

  Fd connect(TrunkId trunk, ConnectionId& id) {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    ipc::ConnectionInfo& info = worker_.region().slot(SlotIndex{connections_++}).info;
    info.trunk = trunk;
    info.listener = ListenerId{0};
    info.peer = Address::parse("192.0.2.1:5061").value();
    Fd far(ends[1]);
    id = worker_.give(Fd(ends[0]), ipc::RecordLayerKind::kRelay, ipc::TlsVersion::kTls13);
    return far;
  }

  // Sends a packet, and returns the one that comes of it at the other end.
  static std::string pass(const Fd& from, const std::string& packet, const Fd& to) {
    EXPECT_EQ(::send(from.get(), packet.data(), packet.size(), MSG_NOSIGNAL), static_cast<ssize_t>(packet.size()));
    std::string got(ipc::kRecordBytes, '\0');
    const ssize_t size = ::recv(to.get(), got.data(), got.size(), 0);
    got.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
    return got;
  }

  static unsigned count(std::string_view text, std::string_view part) {
    unsigned found = 0;
    for (std::size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + 1)) ++found;
    return found;
  }

  // The same batch there and back, again and again, and what it costs: submissions of the ring for each at most.
  void expect_cost(unsigned submits_of_a_batch);

  WorkerOnBench worker_;
  std::uint32_t connections_ = 0;
  ConnectionId caller_id_;
  ConnectionId trunk_id_;
  Fd caller_;
  Fd trunk_;
};

void ForwardPathTest::expect_cost(unsigned submits_of_a_batch) {
  ASSERT_EQ(watches_forks, 0);
  ASSERT_GT(allocations->load(), 0u);  // it counts: the worker has begun
  std::string requests;
  for (unsigned i = 0; i < kBatch; ++i) requests += request(i);
  std::string responses;

  const auto round = [&] {
    const std::string forwarded = pass(caller_, requests, trunk_);
    ASSERT_EQ(count(forwarded, "MESSAGE sip:bob@example.org SIP/2.0\r\n"), kBatch);
    // What a server copies is enough for a response here, and the rest does no harm.
    responses = forwarded;
    for (std::size_t at = responses.find("MESSAGE sip:bob"); at != std::string::npos;
         at = responses.find("MESSAGE sip:bob", at + 1))
      responses.replace(at, responses.find('\r', at) - at, "SIP/2.0 200 OK");
    ASSERT_EQ(count(pass(trunk_, responses, caller_), "SIP/2.0 200 OK\r\n"), kBatch);
  };
  for (unsigned i = 0; i < kWarmUp; ++i) ASSERT_NO_FATAL_FAILURE(round());

  const ipc::WorkerStats& stats = worker_.stats();
  const std::uint64_t allocated = allocations->load();
  const std::uint64_t packets = stats.relay_packets_sent.read();
  const std::uint64_t messages = stats.messages_sent.read();
  const std::uint64_t submits = stats.submits.read();
  for (unsigned i = 0; i < kBatches; ++i) ASSERT_NO_FATAL_FAILURE(round());
  // Its counts are up to date when the completion of its last send is seen.
  ASSERT_TRUE(eventually([&] { return stats.messages_sent.read() - messages >= 2 * kBatches * kBatch; }));

  EXPECT_EQ(allocations->load(), allocated);
  // One send that was still to be counted at the start may be among them, or one at the end missing.
  EXPECT_LE(stats.relay_packets_sent.read() - packets, 2 * kBatches + 1);
  // The rest is for the clock's ticks, of which there is one in half a second.
  EXPECT_LE(stats.submits.read() - submits, 2 * submits_of_a_batch * kBatches + kBatches / 2);
}

TEST_F(ForwardPathTest, ABatchCostsTwoSystemCallsOnePacketAndNoMemory) {
  expect_cost(2);
  EXPECT_EQ(worker_.stats().hep_sent.read() + worker_.stats().hep_dropped.read(), 0u);
}

// Nobody reads what the collector's socket takes, which is full soon.
class ForwardPathWithCollectorTest : public ForwardPathTest {
 protected:
  ForwardPathWithCollectorTest() : ForwardPathTest(full_soon()) {}
  static Fd full_soon() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    unread_ = Fd(ends[1]);
    return Fd(ends[0]);
  }
  void TearDown() override { unread_.reset(); }
  static inline Fd unread_;
};

TEST_F(ForwardPathWithCollectorTest, CopiesCostNoMemoryAndNoPacket) {
  expect_cost(3);
  const ipc::WorkerStats& stats = worker_.stats();
  constexpr std::uint64_t kCopies = 2 * 2 * (kWarmUp + kBatches) * kBatch;
  EXPECT_TRUE(eventually([&] { return stats.hep_sent.read() + stats.hep_dropped.read() == kCopies; }));
  EXPECT_GT(stats.hep_sent.read(), 0u);
  EXPECT_GT(stats.hep_dropped.read(), 0u);
}

}  // namespace
}  // namespace ktrunk::test
