// A worker behind kernel TLS whose keys change: KeyUpdates of the peer, in every shape, and our own (RFC 8446 4.6.3).
#include <thread>
#include <vector>

#include "worker/control_kernel_fixture.h"

namespace ktrunk::test {
namespace {

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

// A KeyUpdate whose record does not begin with it: the kernel goes on behind it and fails, and has the record still
// when the keys are in.
TEST_F(ControlKernel, KeyUpdatesThatTheKernelDoesNotSee) {
  if (!kernel_rekeys()) GTEST_SKIP() << "this kernel has no rekey (Linux 6.14)";
  const auto cut = [](const std::string& octets, std::size_t at) -> std::vector<std::string> {
    return {octets.substr(0, at), octets.substr(at)};
  };
  std::vector<std::vector<std::string>> shapes;
  for (std::size_t at = 1; at < kKeyUpdate.size(); ++at) shapes.push_back(cut(kKeyUpdate, at));
  shapes.push_back({"\x18", std::string(1, '\0'), std::string(1, '\0'), "\1", std::string(1, '\0')});
  for (std::size_t at = 1; at <= kTicket.size() + kKeyUpdate.size(); ++at)
    shapes.push_back(cut(kTicket + kKeyUpdate, at));
  shapes.back().pop_back();  // of which nothing is left

  connect(Version::kTls13);
  for (const bool together : {true, false}) {
    for (const auto& shape : shapes) {
      SCOPED_TRACE(fmt::format("{} records, the first of {} octets{}", shape.size(), shape.front().size(),
                               together ? ", in one segment" : ""));
      std::string stream;
      for (const std::string& part : shape) stream += sealed(kHandshake, part);
      ASSERT_TRUE(seal_->advance());
      const std::string behind = sealed(kData, kPing);
      write_all(peer_, together ? stream + behind : stream);
      for (std::size_t i = 0; i < shape.size(); ++i) {
        ASSERT_EQ(handshake_octets(), shape[i]);
        if (!together && i + 1 == shape.size()) write_all(peer_, behind);
        if (i + 1 == shape.size()) {
          ASSERT_TRUE(install_receive());
          resume(What::kReceiveRekeyed);
        } else {
          if (shape[i].front() == kKeyUpdate.front()) reinstall_receive();
          resume(What::kReceive);
        }
      }
      expect_pong();
      ASSERT_TRUE(bench_->silent());
    }
  }
}

// Who sends meets the error that a record has left. Where the connection is at home it is judged: it may stand behind a
// KeyUpdate, and is met there too. An error that may be met but once is told by whoever meets it.
TEST_F(ControlKernel, ErrorsOfReceivingThatAnotherWorkerMeets) {
  home_ = WorkerOnBench::kOther;
  const auto send_by_worker = [&] {
    bench_->tell(ipc::SendControl{.connection = id_, .record_type = kHandshake, .bytes = 3, .octets = {}});
    const TlsRecord record = receive();
    EXPECT_EQ(record.type, kHandshake);
    EXPECT_EQ(record.payload, std::string(3, '\0'));
  };
  connect(Version::kTls13);
  write_all(peer_, sealed(kData, kPing, {.tag = RecordShape::Tag::kWrong}));
  for (int turn = 0; turn < 20; ++turn) {
    const auto is_met_at_home = [&] {
      std::array<char, 64> octets;
      return ::recv(copy_.get(), octets.data(), octets.size(), MSG_DONTWAIT) < 0 && errno == EBADMSG;
    };
    ASSERT_TRUE(eventually(is_met_at_home)) << turn;
    send_by_worker();
  }
  EXPECT_TRUE(bench_->silent());
  close();

  for (const auto& [shape, error] :
       {std::pair(RecordShape{.length = 17'000}, EMSGSIZE), std::pair(RecordShape{.version = 0x0505}, EINVAL)}) {
    connect(Version::kTls13);
    write_all(peer_, sealed(kData, kPing, shape));
    send_by_worker();
    expect_fault(FaultReason::kBadRecord, error);
    close();
  }
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

}  // namespace
}  // namespace ktrunk::test
