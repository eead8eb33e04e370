// Connections: many at once, every way in which one can end, and peers that take nothing.
#include <sys/socket.h>

#include <algorithm>
#include <latch>

#include "system/daemon_fixture.h"

namespace ktrunk::test {
namespace {

using testing::IsEmpty;
using testing::SizeIs;

class DaemonConnections : public DaemonTest {};

TEST_F(DaemonConnections, TwoHundredAtOnce) {
  constexpr std::size_t kMany = 200;
  ASSERT_NO_FATAL_FAILURE(start({.limits = "handshakes_per_address = 1000\nhandshake_rate = 1000"}));
  std::latch begin(kMany);
  std::vector<std::string> failures(kMany);
  std::vector<std::unique_ptr<SipStream>> streams(kMany);
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < kMany; ++i) {
      threads.emplace_back([&, i] {
        begin.arrive_and_wait();
        auto stream = TlsStream::connect(edge_tls_, as_carrier(), milliseconds(300'000));
        if (!stream) {
          failures[i] = stream.error().what;
          return;
        }
        streams[i] = std::make_unique<SipStream>(std::move(*stream));
        const auto answer = streams[i]->exchange(options_to_us(), milliseconds(300'000));
        if (!answer || answer->status() != 200) failures[i] = answer ? answer->text() : answer.error().what;
      });
    }
  }
  for (const std::string& failure : failures) EXPECT_EQ(failure, "");
  ASSERT_FALSE(HasFailure()) << daemon_->log();
  EXPECT_THAT(of_trunk(status(), "carrier"), SizeIs(kMany));
  for (const auto& stream : streams) EXPECT_TRUE(answers(*stream, options_to_us(), 200));
  streams.clear();
  const Status all_gone = daemon_->wait_status([](const Json& now) { return of_trunk(now, "carrier").empty(); });
  EXPECT_TRUE(all_gone) << all_gone.error().what;
}

// ---- ways to end

// What the peer must see of ktrunkd's end.
enum class Sees {
  kCloseNotify,
  kAnyEnd,   // of the stream, in whatever way
  kNothing,  // it cannot look any more
};
struct Ending {
  const char* name;
  Sees sees;
  void (*end)(TlsStream& stream);
};
void PrintTo(const Ending& ending, std::ostream* out) { *out << ending.name; }

void reset(int fd) {
  const linger now = {.l_onoff = 1, .l_linger = 0};
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

constexpr unsigned char kForgedRecord[] = {0x17, 0x03, 0x03, 0x00, 0x20, 1,  2,  3,  4,  5,  6,  7,  8,
                                           9,    10,   11,   12,   13,   14, 15, 16, 17, 18, 19, 20, 21,
                                           22,   23,   24,   25,   26,   27, 28, 29, 30, 31, 32};

// The peer is made to believe that ktrunkd sent a forged record: it sends a fatal alert.
void send_fatal_alert(TlsStream& stream) {
  ::SSL_set0_rbio(stream.ssl(), ::BIO_new_mem_buf(kForgedRecord, sizeof kForgedRecord));
  EXPECT_FALSE(stream.read_some());
}

class DaemonEndings : public DaemonTest, public testing::WithParamInterface<Ending> {};

TEST_P(DaemonEndings, LeaveNothingBehind) {
  ASSERT_NO_FATAL_FAILURE(start());
  const auto open = [&] {
    auto stream = call_in();
    if (stream == nullptr) return std::unique_ptr<SipStream>();
    auto sip = std::make_unique<SipStream>(std::move(stream));
    EXPECT_TRUE(answers(*sip, options_to_us(), 200));
    return sip;
  };
  {
    // One connection before counting: what is made once is made now.
    auto first = open();
    ASSERT_NE(first, nullptr);
    const Address address = first->stream().local();
    ASSERT_TRUE(first->stream().finish());
    EXPECT_TRUE(gone(address));
  }
  const auto before = settled_descriptors();
  std::vector<std::unique_ptr<SipStream>> streams;
  for (int i = 0; i < 4; ++i) {  // both workers are home of some
    streams.push_back(open());
    ASSERT_NE(streams.back(), nullptr);
  }
  for (const auto& stream : streams) ASSERT_TRUE(with_peer(status(), stream->stream()));
  for (auto& stream : streams) {
    const Address address = stream->stream().local();
    GetParam().end(dynamic_cast<TlsStream&>(stream->stream()));
    if (GetParam().sees != Sees::kNothing) {
      const auto end = stream->receive_or_end(kLong);
      ASSERT_TRUE(end || GetParam().sees != Sees::kCloseNotify) << end.error().what << daemon_->log();
      EXPECT_TRUE(end ? !*end : end.error().code != ETIMEDOUT) << daemon_->log();
    }
    stream.reset();
    EXPECT_TRUE(gone(address));
  }
  std::map<std::string, std::size_t> after;
  EXPECT_TRUE(eventually([&] { return (after = descriptors()) == before; }, kLong))
      << testing::PrintToString(before) << " became " << testing::PrintToString(after);
  // No one else was touched.
  Echo pbx(*pbx_tls_);
  auto last = open();
  ASSERT_NE(last, nullptr);
  EXPECT_TRUE(answers(*last, request_to("tls.test"), 200));
}

INSTANTIATE_TEST_SUITE_P(
    All, DaemonEndings,
    testing::Values(Ending{"CloseNotify", Sees::kCloseNotify, [](TlsStream& stream) { EXPECT_TRUE(stream.finish()); }},
                    Ending{"Fin", Sees::kAnyEnd, [](TlsStream& stream) { ::shutdown(stream.fd(), SHUT_WR); }},
                    Ending{"Reset", Sees::kNothing, [](TlsStream& stream) { reset(stream.fd()); }},
                    Ending{"FatalAlert", Sees::kNothing, send_fatal_alert},
                    Ending{"ForgedRecord", Sees::kAnyEnd,
                           [](TlsStream& stream) {
                             EXPECT_EQ(::send(stream.fd(), kForgedRecord, sizeof kForgedRecord, MSG_NOSIGNAL),
                                       static_cast<ssize_t>(sizeof kForgedRecord));
                           }}),
    [](const auto& mix) { return mix.param.name; });

TEST_F(DaemonConnections, PlainTcpLeavesNothingBehindEither) {
  ASSERT_NO_FATAL_FAILURE(start());
  const auto before = settled_descriptors();
  for (int i = 0; i < 4; ++i) {
    auto tcp = call_in_tcp();
    ASSERT_NE(tcp, nullptr);
    auto stream = std::make_unique<SipStream>(std::move(tcp));
    EXPECT_TRUE(answers(*stream, options_to_us(), 200));
    const Address address = stream->stream().local();
    if (i % 2 == 0) {
      ASSERT_TRUE(stream->stream().finish());
      const auto end = stream->receive_or_end(kLong);
      ASSERT_TRUE(end) << end.error().what;
      EXPECT_FALSE(*end);
    } else {
      reset(stream->stream().fd());
    }
    stream.reset();
    EXPECT_TRUE(gone(address));
  }
  std::map<std::string, std::size_t> after;
  EXPECT_TRUE(eventually([&] { return (after = descriptors()) == before; }, kLong))
      << testing::PrintToString(before) << " became " << testing::PrintToString(after);
}

// ---- peers that take nothing

TEST_F(DaemonConnections, AStalledPeerCostsItsOwnQueueAlone) {
  auto listener = TcpListener::bind(fresh_address());
  ASSERT_TRUE(listener);
  const Certificates& files = certificates();
  std::unique_ptr<TlsStream> stalled;
  std::jthread accept([&] {
    auto socket = listener->accept(kLong);
    if (!socket) return;
    const int little = 4096;
    ::setsockopt(socket->get(), SOL_SOCKET, SO_RCVBUF, &little, sizeof little);
    auto stream = TlsStream::accept(std::move(*socket), as_pbx(), kLong);
    if (stream) stalled = std::move(*stream);
  });
  ASSERT_NO_FATAL_FAILURE(
      start({.limits = "max_queue_bytes = 131072\nstalled_peer = \"10s\"",
             .tables = fmt::format(R"(
[[trunk]]
name = "stalled"
targets = ["tls:{}"]
verify_name = "pbx.test"
ca = "{}"
certificate = "{}"
key = "{}"
listen = "edge-tls"

[[route]]
host = "stalled.test"
to = "stalled"
)",
                                   listener->address().text(), files.ca.file(), files.edge.certificate, files.edge.key),
             .ktrunk_lines = ""}));
  accept.join();
  ASSERT_NE(stalled, nullptr);
  ASSERT_THAT(of_trunk(status(), "stalled"), SizeIs(1));

  Echo pbx(*pbx_tls_);
  auto stream = call_in();
  auto neighbour_stream = call_in();
  ASSERT_TRUE(stream && neighbour_stream);
  SipStream caller(std::move(stream));
  SipStream neighbour(std::move(neighbour_stream));
  const std::string body(50'000, 'x');
  std::optional<SipMessage> refused;
  std::uint64_t queued = 0;      // the most
  constexpr int kEnough = 1000;  // 50 MB: more than all buffers on the way together
  for (int i = 0; i < kEnough && !refused; ++i) {
    ASSERT_TRUE(caller.send(request_to("stalled.test", body)));
    if (i % 8 == 0) {
      EXPECT_TRUE(answers(neighbour, request_to("tls.test"), 200));
    }
    if (auto answer = caller.receive(milliseconds(20)); answer) refused = std::move(*answer);
    const Json now = status();
    for (const Json& worker : now["workers"]) queued = std::max(queued, worker["queued_bytes"].get<std::uint64_t>());
  }
  ASSERT_TRUE(refused) << daemon_->log();
  EXPECT_EQ(refused->status(), 503) << refused->text();
  EXPECT_NE(refused->header("Retry-After"), "") << refused->text();
  EXPECT_GT(queued, 0U);
  EXPECT_TRUE(answers(neighbour, request_to("tls.test"), 200));

  // Its time runs out: the connection is given up, and its trunk is down until the peer takes a new one.
  const Status closed = daemon_->wait_status([](const Json& now) { return of_trunk(now, "stalled").empty(); });
  EXPECT_TRUE(closed) << closed.error().what;
  EXPECT_TRUE(answers(neighbour, request_to("stalled.test"), 503));
  EXPECT_TRUE(answers(neighbour, request_to("tls.test"), 200));
}

TEST_F(DaemonConnections, OneThatStopsReadingAmongFifty) {
  ASSERT_NO_FATAL_FAILURE(start({.limits = "stalled_peer = \"60s\"", .tables = "", .ktrunk_lines = ""}));
  Echo pbx(*pbx_tls_);
  std::vector<std::unique_ptr<SipStream>> callers;
  for (int i = 0; i < 50; ++i) {
    auto stream = call_in();
    ASSERT_NE(stream, nullptr);
    callers.push_back(std::make_unique<SipStream>(std::move(stream)));
  }
  SipStream& silent = *callers.back();
  const auto queued = [&] {
    const auto of_silent = with_peer(status(), silent.stream());
    return of_silent ? (*of_silent)["queued_bytes"].get<std::uint64_t>() : 0;
  };
  // It asks, and takes no answer, until the answers wait in ktrunkd, and not because they are on their way only.
  const std::string body(16'000, 'x');
  bool waits = false;
  for (int crowd = 0; crowd < 500 && !waits; ++crowd) {
    for (int i = 0; i < 8; ++i) ASSERT_TRUE(silent.send(request_to("tls.test", body))) << daemon_->log();
    // Behind them on the way to the PBX and back: no more than these few are on their way at a time.
    ASSERT_TRUE(answers(*callers[0], request_to("tls.test"), 200));
    if (queued() == 0) continue;
    for (int round = 0; round < 3; ++round) {
      for (std::size_t i = 0; i + 1 < callers.size(); ++i)
        EXPECT_TRUE(answers(*callers[i], request_to("tls.test"), 200)) << i;
    }
    waits = queued() > 0;
  }
  EXPECT_TRUE(waits);
}

}  // namespace
}  // namespace ktrunk::test
