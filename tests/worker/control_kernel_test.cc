// A worker behind kernel TLS, against a peer that seals its records itself and so can send any: alerts, tickets,
// KeyUpdates, empty records and forged ones. The test is also the handshake process: it installs the new keys.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cerrno>
#include <thread>
#include <vector>

#include "ktls/install.h"
#include "ktls/key_schedule.h"
#include "support/ktls_available.h"
#include "support/record_protection.h"
#include "worker/control_records.h"
#include "worker/worker_on_bench.h"

namespace ktrunk::test {
namespace {

using namespace std::chrono_literals;
using ipc::FaultReason;
using ktls::Direction;
using ktls::Version;
using Place = ipc::HandshakeOctets::Place;
using What = ipc::Resume::What;

constexpr std::uint8_t kAlert = 21;
constexpr std::uint8_t kHandshake = 22;
constexpr std::uint8_t kData = 23;
const std::string kKeyUpdate("\x18\0\0\1\0", 5);
const std::string kTicket("\4\0\0\5abcde", 9);
const std::string kPing = "\r\n\r\n";
const std::string kPong = "\r\n";
const std::string kCloseNotify("\1\0", 2);

// Any secret will do between two ends of one test.
ktls::TrafficSecret first_secret(unsigned char fill) {
  std::array<std::byte, 32> bytes;
  bytes.fill(static_cast<std::byte>(fill));
  return ktls::TrafficSecret(bytes);
}
template <Direction D>
ktls::Keys<D> keys_of(const ktls::TrafficSecret& secret, Version version) {
  auto keys = ktls::keys_from_secret<D>(ktls::Aead::kAes128Gcm, ktls::Hash::kSha256, secret, {0});
  EXPECT_TRUE(keys);
  keys->version = version;
  return std::move(*keys);
}

class ControlKernel : public testing::Test {
 protected:
  void SetUp() override { KTRUNK_REQUIRE_KTLS(); }

  void connect(Version version, int buffer = 0) {
    if (!bench_) bench_.emplace();
    TcpPair pair = tcp_pair(buffer);
    receive_secret_ = first_secret(1);
    transmit_secret_ = first_secret(2);
    ktls::SessionKeys keys{.transmit = keys_of<Direction::kTransmit>(transmit_secret_, version),
                           .receive = keys_of<Direction::kReceive>(receive_secret_, version)};
    auto socket = ktls::install_keys(std::move(pair.near), keys);
    ASSERT_TRUE(socket) << socket.error().error.what;
    Fd near = std::move(*socket).release();
    peer_ = std::move(pair.far);
    copy_ = Fd(::fcntl(near.get(), F_DUPFD_CLOEXEC, 0));
    seal_.emplace(keys_of<Direction::kTransmit>(receive_secret_, version), ktls::Hash::kSha256, first_secret(1));
    open_.emplace(keys_of<Direction::kReceive>(transmit_secret_, version), ktls::Hash::kSha256, first_secret(2));
    id_ = bench_->give(std::move(near), ipc::RecordLayerKind::kKernel,
                       version == Version::kTls13 ? ipc::TlsVersion::kTls13 : ipc::TlsVersion::kTls12);
  }
  void close() {
    bench_->tell(ipc::Close{.how = ipc::Close::How::kAbort, .connection = id_});
    ASSERT_TRUE(bench_->expect<ipc::Released>());
    copy_.reset();
    peer_.reset();
  }

  [[nodiscard]] std::string sealed(std::uint8_t type, std::string_view payload, const RecordShape& shape = {}) {
    return seal_->seal(type, payload, shape);
  }
  void send(std::uint8_t type, std::string_view payload) { write_all(peer_, sealed(type, payload)); }
  // One record of the worker, opened.
  TlsRecord receive() {
    const std::string header = read_some(peer_, kRecordHeaderBytes);
    if (header.size() < kRecordHeaderBytes) return {};
    const std::size_t length =
        static_cast<std::size_t>(static_cast<unsigned char>(header[3])) << 8 | static_cast<unsigned char>(header[4]);
    auto record = open_->open(header + read_some(peer_, length));
    EXPECT_TRUE(record) << record.error().what;
    return record ? *record : TlsRecord{};
  }
  void expect_pong() {
    const TlsRecord record = receive();
    EXPECT_EQ(record.type, kData);
    EXPECT_EQ(record.payload, kPong);
  }
  void ping() {
    send(kData, kPing);
    expect_pong();
  }
  void resume(What what) { bench_->tell(ipc::Resume{.connection = id_, .what = what}); }
  [[nodiscard]] std::string handshake_octets() {
    std::string all;
    for (;;) {
      const auto message = bench_->expect<ipc::HandshakeOctets>();
      if (!message) return all + " and no more";
      EXPECT_EQ(message->connection, id_);
      all.append(reinterpret_cast<const char*>(message->octets.data()), message->bytes);
      if (message->place == Place::kEndOfRecord) return all;
      EXPECT_EQ(message->bytes, message->octets.size());
    }
  }
  void expect_fault(FaultReason reason, int detail = 0) {
    const auto fault = bench_->expect<ipc::Fault>();
    ASSERT_TRUE(fault);
    EXPECT_EQ(ipc::fault_text(fault->reason), ipc::fault_text(reason));
    EXPECT_EQ(fault->detail, detail);
  }
  // As the handshake process does it. False: this kernel cannot.
  bool install_receive() {
    auto next = ktls::next_secret(ktls::Hash::kSha256, receive_secret_);
    EXPECT_TRUE(next);
    const auto keys = keys_of<Direction::kReceive>(*next, Version::kTls13);
    const auto status = ktls::rekey(copy_.get(), keys);
    if (!status) return false;
    receive_secret_ = std::move(*next);
    return true;
  }
  bool install_transmit() {
    auto next = ktls::next_secret(ktls::Hash::kSha256, transmit_secret_);
    EXPECT_TRUE(next);
    const auto status = ktls::rekey(copy_.get(), keys_of<Direction::kTransmit>(*next, Version::kTls13));
    if (!status) return false;
    transmit_secret_ = std::move(*next);
    return true;
  }
  // KeyUpdates can be followed here. Uses up the connection.
  bool kernel_rekeys() {
    connect(Version::kTls13);
    const bool can = install_transmit();
    close();
    return can;
  }

  std::optional<WorkerOnBench> bench_;
  Fd peer_;
  Fd copy_;  // as the handshake process gets it
  ConnectionId id_;
  ktls::TrafficSecret receive_secret_;  // of the worker's receiving side
  ktls::TrafficSecret transmit_secret_;
  std::optional<RecordProtection<Direction::kTransmit>> seal_;
  std::optional<RecordProtection<Direction::kReceive>> open_;
};

TEST_F(ControlKernel, TicketsAndWhatIsAroundThem) {
  for (const Version version : ktls::kVersions) {
    connect(version);
    std::string stream;
    for (int turn = 0; turn < 4; ++turn) {
      stream += sealed(kData, kPing);
      stream += sealed(kHandshake, kTicket);
    }
    stream += sealed(kData, kPing);
    write_all(peer_, stream);
    for (int turn = 0; turn < 4; ++turn) {
      EXPECT_EQ(handshake_octets(), kTicket);
      resume(What::kReceive);
    }
    std::string pongs;
    while (pongs.size() < 5 * kPong.size()) {
      const TlsRecord record = receive();
      ASSERT_EQ(record.type, kData);
      pongs += record.payload;
    }
    ping();
    EXPECT_GE(bench_->slot(id_).records_received.load(), 9u);
    close();
  }
}

TEST_F(ControlKernel, NothingIsReceivedWhileARecordIsUnanswered) {
  connect(Version::kTls13);
  TcpPair other = tcp_pair();
  (void)bench_->give(std::move(other.near), ipc::RecordLayerKind::kNone, ipc::TlsVersion::kNone);
  // An answer on another connection: the worker has been round its loop.
  const auto go_round = [&] {
    write_all(other.far, kPing);
    EXPECT_EQ(read_some(other.far, kPong.size()), kPong);
  };
  send(kHandshake, kTicket);
  EXPECT_EQ(handshake_octets(), kTicket);
  go_round();
  const auto before = bench_->stats().keepalives.read();
  send(kData, kPing);
  go_round();
  go_round();
  EXPECT_EQ(bench_->stats().keepalives.read(), before + 2);
  resume(What::kReceive);
  expect_pong();
}

TEST_F(ControlKernel, ARecordOfAnyLength) {
  connect(Version::kTls13);
  for (const std::size_t bytes : {1u, 2047u, 2048u, 2049u, 4096u, 16383u, 16384u}) {
    std::string octets(bytes, 'x');
    for (std::size_t i = 0; i < bytes; ++i) octets[i] = static_cast<char>(i * 7 + 1);
    octets[0] = 4;
    send(kHandshake, octets);
    EXPECT_EQ(handshake_octets(), octets) << bytes;
    resume(What::kReceive);
    ping();
  }
}

struct Stream {
  const char* name;
  Version version;
  std::vector<std::pair<std::uint8_t, std::string>> records;
  FaultReason reason;
  int detail = 0;
};

TEST_F(ControlKernel, HowStreamsEnd) {
  const std::string kWarning("\1\x64", 2);  // no_renegotiation
  const std::string kUserCanceled("\1\x5a", 2);
  const std::string kFatal("\2\x50", 2);  // internal_error
  const std::vector<Stream> streams = {
      {"close_notify", Version::kTls13, {{kAlert, kCloseNotify}}, FaultReason::kCloseNotify},
      {"close_notify behind data", Version::kTls13, {{kData, "x"}, {kAlert, kCloseNotify}}, FaultReason::kCloseNotify},
      {"user_canceled first",
       Version::kTls13,
       {{kAlert, kUserCanceled}, {kAlert, kCloseNotify}},
       FaultReason::kCloseNotify},
      {"a fatal alert", Version::kTls13, {{kAlert, kFatal}}, FaultReason::kAlert, 80},
      {"a warning is fatal in 1.3", Version::kTls13, {{kAlert, kWarning}}, FaultReason::kAlert, 100},
      {"half an alert", Version::kTls13, {{kAlert, "\1"}}, FaultReason::kBadAlert},
      {"two alerts", Version::kTls13, {{kAlert, kUserCanceled + kCloseNotify}}, FaultReason::kBadAlert},
      {"an empty alert", Version::kTls13, {{kAlert, ""}}, FaultReason::kUnexpectedRecord, 21},
      {"an empty alert behind empty data",
       Version::kTls13,
       {{kData, ""}, {kAlert, ""}},
       FaultReason::kUnexpectedRecord,
       21},
      {"an empty handshake record", Version::kTls13, {{kHandshake, ""}}, FaultReason::kUnexpectedRecord, 22},
      {"change_cipher_spec", Version::kTls13, {{20, "\1"}}, FaultReason::kUnexpectedRecord, 20},
      {"heartbeat", Version::kTls13, {{24, "\1"}}, FaultReason::kUnexpectedRecord, 24},
      {"an unknown type", Version::kTls13, {{99, "\1"}}, FaultReason::kUnexpectedRecord, 99},
      {"close_notify", Version::kTls12, {{kAlert, kCloseNotify}}, FaultReason::kCloseNotify},
      {"a warning is passed over in 1.2",
       Version::kTls12,
       {{kAlert, kWarning}, {kAlert, kCloseNotify}},
       FaultReason::kCloseNotify},
      {"alerts in pieces",
       Version::kTls12,
       {{kAlert, "\1"}, {kData, "x"}, {kAlert, "\x64\1"}, {kAlert, std::string(1, '\0')}},
       FaultReason::kCloseNotify},
      {"several in one", Version::kTls12, {{kAlert, kWarning + kWarning + kFatal}}, FaultReason::kAlert, 80},
      {"an alert of no level", Version::kTls12, {{kAlert, "\3\1"}}, FaultReason::kBadAlert},
      {"an empty alert", Version::kTls12, {{kAlert, ""}}, FaultReason::kUnexpectedRecord, 21},
      {"an empty handshake record", Version::kTls12, {{kHandshake, ""}}, FaultReason::kUnexpectedRecord, 22},
      {"change_cipher_spec", Version::kTls12, {{20, "\1"}}, FaultReason::kUnexpectedRecord, 20},
  };
  for (const Stream& stream : streams) {
    for (const bool together : {true, false}) {
      SCOPED_TRACE(fmt::format("{}, {}, {}", stream.name, ktls::version_name(stream.version),
                               together ? "in one segment" : "record by record"));
      connect(stream.version);
      std::string all;
      for (const auto& [type, payload] : stream.records) {
        all += sealed(type, payload);
        if (!together) write_all(peer_, std::exchange(all, ""));
      }
      write_all(peer_, all);
      expect_fault(stream.reason, stream.detail);
      close();
    }
  }
}

TEST_F(ControlKernel, EmptyDataIsNoEnd) {
  for (const Version version : ktls::kVersions) {
    connect(version);
    ping();
    for (int turn = 0; turn < 5; ++turn) {
      send(kData, "");
      ping();
    }
    std::string many;
    for (int i = 0; i < 500; ++i) many += sealed(kData, "");
    write_all(peer_, many);
    ping();
    EXPECT_TRUE(bench_->silent());
    // In front of other types, where the kernel shows them.
    for (int turn = 0; turn < 5; ++turn) {
      std::string mixed = sealed(kData, "");
      mixed += sealed(kHandshake, kTicket);
      mixed += sealed(kData, kPing);
      write_all(peer_, mixed);
      EXPECT_EQ(handshake_octets(), kTicket);
      resume(What::kReceive);
      expect_pong();
    }
    write_all(peer_, sealed(kData, ""));
    ASSERT_EQ(::shutdown(peer_.get(), SHUT_WR), 0);
    expect_fault(FaultReason::kTruncated);
    close();
  }
}

TEST_F(ControlKernel, ControlRecordsWithoutEnd) {
  connect(Version::kTls12);
  std::string warnings;
  for (unsigned i = 0; i <= ktrunk::worker::ControlRecords::kMaxRun; ++i) warnings += sealed(kAlert, "\1\x64");
  write_all(peer_, warnings);
  expect_fault(FaultReason::kControlFlood);
  close();

  connect(Version::kTls13);
  for (unsigned i = 0; i < ktrunk::worker::ControlRecords::kMaxRun; ++i) {
    send(kHandshake, kTicket);
    ASSERT_EQ(handshake_octets(), kTicket);
    resume(What::kReceive);
  }
  send(kHandshake, kTicket);
  expect_fault(FaultReason::kControlFlood);
}

TEST_F(ControlKernel, ForgedRecords) {
  for (const Version version : ktls::kVersions) {
    const std::vector<std::pair<RecordShape, int>> forged = {
        {{.tag = RecordShape::Tag::kWrong}, EBADMSG}, {{.length = 17'000}, EMSGSIZE}, {{.version = 0x0505}, EINVAL}};
    for (const auto& [shape, error] : forged) {
      connect(version);
      ping();
      write_all(peer_, sealed(kData, kPing, shape));
      expect_fault(FaultReason::kBadRecord, error);
      close();
    }
    connect(version);
    send(kData, std::string(16'385, 'x'));
    expect_fault(FaultReason::kBadRecord, EMSGSIZE);
    close();
  }
}

// What is wrong behind an unanswered handshake record is told after the answer.
TEST_F(ControlKernel, AForgedRecordBehindATicket) {
  connect(Version::kTls13);
  std::string stream = sealed(kHandshake, kTicket);
  stream += sealed(kData, kPing, {.tag = RecordShape::Tag::kWrong});
  write_all(peer_, stream);
  EXPECT_EQ(handshake_octets(), kTicket);
  ::usleep(200'000);
  EXPECT_TRUE(bench_->silent());
  resume(What::kReceive);
  expect_fault(FaultReason::kBadRecord, EBADMSG);
}

TEST_F(ControlKernel, AKeyUpdateWithoutNewKeysEndsIt) {
  const bool rekeys = kernel_rekeys();
  connect(Version::kTls13);
  std::string stream = sealed(kHandshake, kKeyUpdate);
  ASSERT_TRUE(seal_->advance());
  stream += sealed(kData, kPing);
  write_all(peer_, stream);
  EXPECT_EQ(handshake_octets(), kKeyUpdate);
  ::usleep(200'000);
  EXPECT_TRUE(bench_->silent());
  resume(What::kReceive);
  if (rekeys) {
    expect_fault(FaultReason::kKeysFailed, EKEYEXPIRED);
  } else {
    expect_fault(FaultReason::kBadRecord, EBADMSG);
  }
}

TEST_F(ControlKernel, KeyUpdatesOfThePeer) {
  if (!kernel_rekeys()) GTEST_SKIP() << "this kernel has no rekey (Linux 6.14)";
  connect(Version::kTls13);
  for (int turn = 0; turn < 60; ++turn) {
    send(kHandshake, kKeyUpdate);
    ASSERT_TRUE(seal_->advance());
    if (turn % 3 == 0) send(kData, kPing);  // before the keys are in
    ASSERT_EQ(handshake_octets(), kKeyUpdate);
    ASSERT_TRUE(install_receive());
    if (turn % 3 == 1) send(kData, kPing);
    resume(What::kReceiveRekeyed);
    if (turn % 3 == 2) send(kData, kPing);
    expect_pong();
  }
  EXPECT_TRUE(bench_->silent());
}

// Many at once, with data between them: nothing is lost, nothing overtakes.
TEST_F(ControlKernel, KeyUpdatesInOneSegment) {
  if (!kernel_rekeys()) GTEST_SKIP() << "this kernel has no rekey (Linux 6.14)";
  connect(Version::kTls13);
  constexpr int kUpdates = 40;
  std::string stream;
  for (int turn = 0; turn < kUpdates; ++turn) {
    stream += sealed(kData, kPing);
    stream += sealed(kHandshake, kKeyUpdate);
    ASSERT_TRUE(seal_->advance());
  }
  write_all(peer_, stream);
  for (int turn = 0; turn < kUpdates; ++turn) {
    ASSERT_EQ(handshake_octets(), kKeyUpdate) << turn;
    ASSERT_TRUE(install_receive());
    resume(What::kReceiveRekeyed);
  }
  EXPECT_TRUE(eventually([&] { return bench_->stats().keepalives.read() == kUpdates; }));
}

// Records of every size behind and in front of KeyUpdates, through a window that holds two of them.
TEST_F(ControlKernel, KeyUpdatesThroughASmallWindow) {
  if (!kernel_rekeys()) GTEST_SKIP() << "this kernel has no rekey (Linux 6.14)";
  connect(Version::kTls13, 20'000);
  constexpr int kUpdates = 100;
  constexpr int kRecords = 3;  // between two updates
  std::jthread writer([&] {
    for (int turn = 0; turn < kUpdates; ++turn) {
      for (int i = 0; i < kRecords; ++i)
        write_all(peer_, sealed(kData, kPing, {.padding = static_cast<std::size_t>((turn * 7 + i) * 997 % 16'000)}));
      send(kHandshake, kKeyUpdate);
      EXPECT_TRUE(seal_->advance());
    }
  });
  std::jthread reader([&] { (void)read_to_end(peer_); });  // the pongs
  for (int turn = 0; turn < kUpdates; ++turn) {
    ASSERT_EQ(handshake_octets(), kKeyUpdate) << turn;
    ASSERT_TRUE(install_receive());
    resume(What::kReceiveRekeyed);
  }
  EXPECT_TRUE(eventually([&] { return bench_->stats().keepalives.read() == kUpdates * kRecords; }));
  EXPECT_TRUE(bench_->silent());
  writer.join();
  bench_->tell(ipc::Close{.how = ipc::Close::How::kFinish, .connection = id_});
  copy_.reset();
}

TEST_F(ControlKernel, KeyUpdatesOfOurs) {
  if (!kernel_rekeys()) GTEST_SKIP() << "this kernel has no rekey (Linux 6.14)";
  connect(Version::kTls13);
  for (int turn = 0; turn < 10; ++turn) {
    ping();
    ipc::SendControl order{.connection = id_,
                           .record_type = kHandshake,
                           .bytes = 5,
                           .after = ipc::SendControl::After::kHoldSends,
                           .octets = {}};
    std::memcpy(order.octets.data(), kKeyUpdate.data(), kKeyUpdate.size());
    bench_->tell(order);
    ASSERT_TRUE(bench_->expect<ipc::ControlSent>());
    send(kData, kPing);
    const TlsRecord update = receive();
    EXPECT_EQ(update.type, kHandshake);
    EXPECT_EQ(update.payload, kKeyUpdate);
    ASSERT_TRUE(open_->advance());
    ASSERT_TRUE(install_transmit());
    resume(What::kSendRekeyed);
    expect_pong();
  }
  EXPECT_EQ(bench_->stats().key_updates_sent.read(), 10u);
  // In the end an alert, under the last keys.
  bench_->tell(ipc::Close{.how = ipc::Close::How::kFinish, .connection = id_});
  const TlsRecord last = receive();
  EXPECT_EQ(last.type, kAlert);
  EXPECT_EQ(last.payload, kCloseNotify);
}

TEST_F(ControlKernel, AnAnswerThatNeverComes) {
  connect(Version::kTls13);
  send(kHandshake, kTicket);
  EXPECT_EQ(handshake_octets(), kTicket);
  expect_fault(FaultReason::kKeysFailed, ETIMEDOUT);
}

}  // namespace
}  // namespace ktrunk::test
