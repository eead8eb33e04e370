// ControlKernel: a worker behind kernel TLS, against a peer that seals its records itself and so can send any. The test
// is also the handshake process: it installs the new keys.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "ktls/install.h"
#include "ktls/key_schedule.h"
#include "support/ktls_available.h"
#include "support/record_protection.h"
#include "worker/worker_on_bench.h"

namespace ktrunk::test {

using namespace std::chrono_literals;
using ipc::FaultReason;
using ktls::Direction;
using ktls::Version;
using Place = ipc::HandshakeOctets::Place;
using What = ipc::Resume::What;

inline constexpr std::uint8_t kAlert = 21;
inline constexpr std::uint8_t kHandshake = 22;
inline constexpr std::uint8_t kData = 23;
inline const std::string kKeyUpdate("\x18\0\0\1\0", 5);
inline const std::string kTicket("\4\0\0\5abcde", 9);
inline const std::string kPing = "\r\n\r\n";
inline const std::string kPong = "\r\n";
inline const std::string kCloseNotify("\1\0", 2);

// Any secret will do between two ends of one test.
inline ktls::TrafficSecret first_secret(unsigned char fill) {
  std::array<std::byte, 32> bytes;
  bytes.fill(static_cast<std::byte>(fill));
  return ktls::TrafficSecret(bytes);
}
template <Direction D>
ktls::Keys<D> keys_of(const ktls::TrafficSecret& secret, Version version, ktls::RecordSeq next = {0}) {
  auto keys = ktls::keys_from_secret<D>(ktls::Aead::kAes128Gcm, ktls::Hash::kSha256, secret, next);
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
                       version == Version::kTls13 ? ipc::TlsVersion::kTls13 : ipc::TlsVersion::kTls12, home_);
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
  // The keys that it has once more: so the kernel goes on behind what begins like a KeyUpdate and is none yet.
  void reinstall_receive() {
    const auto installed =
        ktls::installed_key(copy_.get(), Direction::kReceive, Version::kTls13, ktls::Aead::kAes128Gcm);
    ASSERT_TRUE(installed) << installed.error().what;
    const auto again = keys_of<Direction::kReceive>(receive_secret_, Version::kTls13, installed->next);
    EXPECT_TRUE(ktls::rekey(copy_.get(), again));
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
  WorkerIndex home_ = WorkerOnBench::kSelf;
  ktls::TrafficSecret receive_secret_;  // of the worker's receiving side
  ktls::TrafficSecret transmit_secret_;
  std::optional<RecordProtection<Direction::kTransmit>> seal_;
  std::optional<RecordProtection<Direction::kReceive>> open_;
};

}  // namespace ktrunk::test
