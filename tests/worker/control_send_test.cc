// A worker that is told to send control records, a KeyUpdate above all: the gate, the order, and every way in which it
// can end. Where the kernel has no TLS, it takes the record's octets as any others, which is all that is needed here.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <fstream>

#include "worker/worker_on_bench.h"

namespace ktrunk::test {
namespace {

using namespace std::chrono_literals;
using After = ipc::SendControl::After;
using How = ipc::Close::How;
using ipc::FaultReason;

const std::string kKeyUpdate("\x18\0\0\1\0", 5);
const std::string kCloseNotify("\1\0", 2);
constexpr std::string_view kPing = "\r\n\r\n";  // a worker answers with kPong
const std::string kPong = "\r\n";

class ControlSend : public testing::Test {
 protected:
  void open(config::Limits limits = {}, int buffer = 0) {
    bench_.emplace(limits);
    id_ = add(peer_, buffer);
  }
  ConnectionId add(Fd& peer, int buffer = 0) {
    TcpPair pair = tcp_pair(buffer);
    peer = std::move(pair.far);
    copy_ = Fd(::fcntl(pair.near.get(), F_DUPFD_CLOEXEC, 0));
    return bench_->give(std::move(pair.near), ipc::RecordLayerKind::kKernel, ipc::TlsVersion::kTls13);
  }
  ipc::SendControl order(After after, std::string_view octets = kKeyUpdate) const {
    ipc::SendControl order{.connection = id_,
                           .record_type = 22,
                           .bytes = static_cast<std::uint8_t>(octets.size()),
                           .after = after,
                           .octets = {}};
    std::memcpy(order.octets.data(), octets.data(), octets.size());
    return order;
  }
  void ping(const Fd& peer) {
    const std::uint64_t before = bench_->stats().keepalives.read();
    write_all(peer, kPing);
    ASSERT_TRUE(eventually([&] { return bench_->stats().keepalives.read() == before + 1; }));
  }
  void hold() {
    bench_->tell(order(After::kHoldSends));
    ASSERT_TRUE(bench_->expect<ipc::ControlSent>());
    ASSERT_EQ(read_some(peer_, kKeyUpdate.size()), kKeyUpdate);
  }
  void close(How how, std::uint8_t alert = 0) {
    bench_->tell(ipc::Close{.how = how, .alert = alert, .connection = id_});
  }
  bool released() { return bench_->expect<ipc::Released>().has_value(); }
  ipc::SendGate& gate() { return bench_->slot(id_).gate; }
  bool gate_is_free() {
    const bool free = gate().begin_record(WorkerOnBench::kOther).granted;
    if (free) (void)gate().end_record(WorkerOnBench::kOther);
    return free;
  }
  // Until not one octet more is taken, and stays so.
  void fill() {
    const std::string junk(60'000, 'x');
    for (int refused = 0; refused < 5; ++refused) {
      while (::send(copy_.get(), junk.data(), junk.size(), MSG_DONTWAIT | MSG_NOSIGNAL) > 0) refused = 0;
      ::usleep(20'000);
    }
  }

  std::optional<WorkerOnBench> bench_;
  Fd peer_;
  Fd copy_;  // the worker's socket, as another worker has it
  ConnectionId id_;
};

TEST_F(ControlSend, IsConfinedAndEndsInOrder) {
  open();
  ping(peer_);
  std::ifstream status("/proc/" + std::to_string(bench_->pid()) + "/status");
  std::string text((std::istreambuf_iterator<char>(status)), {});
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_NE(text.find("\nSeccomp:\t2\n"), std::string::npos) << text;
#endif
  EXPECT_NE(text.find("\nNoNewPrivs:\t1\n"), std::string::npos);
  EXPECT_NE(text.find("\nCapEff:\t0000000000000000\n"), std::string::npos);
  EXPECT_EQ(bench_->stop(), 0);
}

TEST_F(ControlSend, InItsPlaceAmongMessages) {
  open();
  for (int turn = 0; turn < 20; ++turn) {
    bench_->tell(order(After::kGoOn, "control"));
    EXPECT_EQ(read_some(peer_, 7), "control");
    ping(peer_);
    EXPECT_EQ(read_some(peer_, 2), kPong);
  }
  EXPECT_TRUE(bench_->silent());
  EXPECT_EQ(bench_->stats().key_updates_sent.read(), 0u);
}

TEST_F(ControlSend, NobodySendsUntilTheKeysAreIn) {
  open();
  for (int turn = 1; turn <= 3; ++turn) {
    hold();
    EXPECT_FALSE(gate_is_free());
    ping(peer_);
    ping(peer_);
    EXPECT_EQ(read_some(peer_, 1, 50ms), "");
    bench_->tell(ipc::Resume{.connection = id_, .what = ipc::Resume::What::kSendRekeyed});
    EXPECT_EQ(read_some(peer_, 4), kPong + kPong);
    EXPECT_TRUE(eventually([&] { return gate_is_free(); }));
    EXPECT_EQ(bench_->stats().key_updates_sent.read(), static_cast<unsigned>(turn));
  }
  EXPECT_TRUE(bench_->silent());
}

TEST_F(ControlSend, TwoAtOnceGoOneByOne) {
  open();
  bench_->tell(order(After::kHoldSends));
  bench_->tell(order(After::kGoOn, "between"));
  bench_->tell(order(After::kHoldSends));
  ASSERT_TRUE(bench_->expect<ipc::ControlSent>());
  EXPECT_EQ(read_some(peer_, 6, 50ms), kKeyUpdate);
  bench_->tell(ipc::Resume{.connection = id_, .what = ipc::Resume::What::kSendRekeyed});
  ASSERT_TRUE(bench_->expect<ipc::ControlSent>());
  EXPECT_EQ(read_some(peer_, 12), "between" + kKeyUpdate);
  bench_->tell(ipc::Resume{.connection = id_, .what = ipc::Resume::What::kSendRekeyed});
  ping(peer_);
  EXPECT_EQ(read_some(peer_, 2), kPong);
}

TEST_F(ControlSend, WaitsForOtherWorkersRecords) {
  open();
  ASSERT_TRUE(gate().begin_record(WorkerOnBench::kOther).granted);
  bench_->tell(order(After::kHoldSends));
  ASSERT_TRUE(eventually([&] { return gate().end_record(WorkerOnBench::kOther) != 0; }));
  bench_->ring();
  ASSERT_TRUE(bench_->expect<ipc::ControlSent>());
  EXPECT_EQ(read_some(peer_, 5), kKeyUpdate);
}

TEST_F(ControlSend, WaitsForAnotherWorkersLongMessage) {
  open();
  ASSERT_TRUE(gate().acquire(WorkerOnBench::kOther));
  bench_->tell(order(After::kHoldSends));
  EXPECT_EQ(read_some(peer_, 1, 50ms), "");
  EXPECT_TRUE(bench_->silent());
  ASSERT_TRUE(eventually([&] { return gate().release(WorkerOnBench::kOther) != 0 || !bench_->silent(); }));
  bench_->ring();
  ASSERT_TRUE(bench_->expect<ipc::ControlSent>());
}

TEST_F(ControlSend, AStreamThatEndsBetweenTwoKeysHasNoAlert) {
  open();
  hold();
  close(How::kFinish);
  copy_.reset();
  EXPECT_EQ(read_to_end(peer_), "");
  EXPECT_TRUE(released());
  EXPECT_TRUE(gate_is_free());
}

TEST_F(ControlSend, KeysThatComeWhileItIsBeingClosedMakeItOrderly) {
  open();
  hold();
  ping(peer_);
  close(How::kFinish);
  bench_->tell(ipc::Resume{.connection = id_, .what = ipc::Resume::What::kSendRekeyed});
  copy_.reset();
  EXPECT_EQ(read_to_end(peer_), kPong + kCloseNotify);
  EXPECT_TRUE(released());
}

TEST_F(ControlSend, AbortWhileHeld) {
  open();
  hold();
  close(How::kAbort);
  EXPECT_TRUE(released());
  EXPECT_TRUE(gate_is_free());
}

TEST_F(ControlSend, WhatHasNotGoneIsDroppedAtTheClose) {
  open();
  ASSERT_TRUE(gate().acquire(WorkerOnBench::kOther));
  bench_->tell(order(After::kHoldSends));
  bench_->tell(order(After::kGoOn, "control"));
  ping(peer_);
  bench_->tell(order(After::kHoldSends));
  close(How::kFinish);
  EXPECT_TRUE(gate().release(WorkerOnBench::kOther) != 0 || true);
  bench_->ring();
  copy_.reset();
  EXPECT_EQ(read_to_end(peer_), kPong + kCloseNotify);
  EXPECT_TRUE(released());
  EXPECT_TRUE(gate_is_free());
}

TEST_F(ControlSend, APeerThatTakesNothing) {
  config::Limits limits;
  limits.stalled_peer = 1s;
  open(limits, 20'000);
  fill();
  Fd stalled = std::move(peer_);
  const ConnectionId stalled_id = id_;
  bench_->tell(order(After::kHoldSends));
  Fd other;
  (void)add(other);
  for (int turn = 0; turn < 5; ++turn) {
    ping(other);
    EXPECT_EQ(read_some(other, 2), kPong);
  }
  const auto fault = bench_->expect<ipc::Fault>();
  ASSERT_TRUE(fault);
  EXPECT_EQ(fault->reason, FaultReason::kStalled);
  EXPECT_EQ(fault->connection, stalled_id);
  close(How::kAbort);
  EXPECT_TRUE(released());
  EXPECT_TRUE(gate_is_free());
  ping(other);
  EXPECT_EQ(read_some(other, 2), kPong);
}

TEST_F(ControlSend, KeysThatNeverCome) {
  open();
  hold();
  const auto fault = bench_->expect<ipc::Fault>();
  ASSERT_TRUE(fault);
  EXPECT_EQ(fault->reason, FaultReason::kKeysFailed);
  EXPECT_EQ(fault->detail, ETIMEDOUT);
}

TEST_F(ControlSend, AWorkerThatDiesBetweenTwoKeysBreaksTheStream) {
  open();
  hold();
  bench_->kill();
  EXPECT_EQ(gate().repair(WorkerOnBench::kSelf).damage, ipc::SendGate::Damage::kStreamBroken);
  EXPECT_TRUE(gate_is_free());
}

TEST_F(ControlSend, OrdersThatBreakTheContractEndTheWorker) {
  open();
  ipc::SendControl too_long = order(After::kGoOn);
  too_long.bytes = 9;
  bench_->tell(too_long);
  EXPECT_FALSE(bench_->expect<ipc::Held>());
  bench_->kill();
}

TEST_F(ControlSend, OrdersForAConnectionThatHasGone) {
  open();
  close(How::kAbort);
  EXPECT_TRUE(released());
  bench_->tell(order(After::kHoldSends));
  for (const auto what :
       {ipc::Resume::What::kReceive, ipc::Resume::What::kReceiveRekeyed, ipc::Resume::What::kSendRekeyed})
    bench_->tell(ipc::Resume{.connection = id_, .what = what});
  Fd other;
  (void)add(other);
  ping(other);
  EXPECT_EQ(read_some(other, 2), kPong);
  EXPECT_TRUE(bench_->silent());
}

}  // namespace
}  // namespace ktrunk::test
