// What a worker behind kernel TLS makes of records beside data: alerts, tickets, empty records and forged ones.
#include "worker/control_records.h"

#include <thread>
#include <vector>

#include "worker/control_kernel_fixture.h"

namespace ktrunk::test {
namespace {

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

TEST_F(ControlKernel, AnAnswerThatNeverComes) {
  connect(Version::kTls13);
  send(kHandshake, kTicket);
  EXPECT_EQ(handshake_octets(), kTicket);
  expect_fault(FaultReason::kKeysFailed, ETIMEDOUT);
}

}  // namespace
}  // namespace ktrunk::test
