// The relay, through the whole process: a TLS client on one side, the workers' end of the packet pair on the other.
#include <poll.h>
#include <sys/socket.h>

#include <thread>
#include <vector>

#include "process_fixture.h"

namespace ktrunk::test {
namespace {

class RelayTest : public HandshakeProcessTest {
 protected:
  struct Pair {
    std::unique_ptr<TlsStream> client;
    Handed handed;
  };
  Pair join(FakeSupervisor& supervisor) {
    Pair pair;
    pair.client = connect(client());
    auto handed = supervisor.established();
    EXPECT_TRUE(handed.has_value());
    if (handed) pair.handed = std::move(*handed);
    return pair;
  }
};

TEST_F(RelayTest, CarriesBothWaysAndSaysWhyItIsOne) {
  FakeSupervisor supervisor(base());
  supervisor.run();
  auto [client, handed] = join(supervisor);
  ASSERT_NE(client, nullptr);
  const ipc::ConnectionInfo& info = handed.message.info;
  EXPECT_NE(handed.message.reference, 0U);
  EXPECT_EQ(info.record_layer, ipc::RecordLayerKind::kRelay);
  EXPECT_EQ(info.record_layer_note.view(), "configured");
  EXPECT_EQ(info.tls_version, ipc::TlsVersion::kTls13);
  EXPECT_EQ(info.role, ipc::ConnectionInfo::Role::kAccepted);
  EXPECT_EQ(info.listener, ListenerId{0});
  EXPECT_FALSE(info.trunk.valid());
  EXPECT_EQ(info.peer, client->local());
  EXPECT_EQ(info.local, address_);
  EXPECT_EQ(info.cipher.view(), client->cipher());

  ASSERT_TRUE(client->write_all("from the peer"));
  EXPECT_EQ(receive_packet(handed.fd), "from the peer");
  ASSERT_TRUE(send_packet(handed.fd, "from a worker"));
  EXPECT_EQ(read_bytes(*client, 13), "from a worker");
  EXPECT_EQ(supervisor.region().handshake().accepted.read(), 1U);
  EXPECT_EQ(supervisor.region().handshake().relayed.read(), 1U);
  EXPECT_TRUE(supervisor.stop());
}

TEST_F(RelayTest, CarriesPacketsOfAFullRecord) {
  FakeSupervisor supervisor(base());
  supervisor.run();
  auto [client, handed] = join(supervisor);
  ASSERT_NE(client, nullptr);
  constexpr std::size_t kPackets = 64;  // more than the socket pair holds: waits on both sides
  std::string all;
  for (std::size_t i = 0; i < kPackets; ++i) all += std::string(ipc::kRecordBytes, static_cast<char>('a' + i % 26));

  std::string echoed;
  std::thread reader([&, stream = client.get()] { echoed = read_bytes(*stream, all.size()); });
  for (std::size_t at = 0; at < all.size();) {
    if (send_packet(handed.fd, std::string_view(all).substr(at, ipc::kRecordBytes))) {
      at += ipc::kRecordBytes;
    } else {
      ASSERT_EQ(errno, EAGAIN);
      ASSERT_TRUE(wait_ready(handed.fd.get(), POLLOUT, std::chrono::steady_clock::now() + kPatience));
    }
  }
  reader.join();
  EXPECT_TRUE(echoed == all);

  std::thread writer([&, stream = client.get()] { EXPECT_TRUE(stream->write_all(all)); });
  std::string received;
  while (received.size() < all.size()) {
    const auto packet = receive_packet(handed.fd);
    ASSERT_TRUE(packet.has_value() && !packet->empty());
    ASSERT_LE(packet->size(), ipc::kRecordBytes);
    received += *packet;
  }
  writer.join();
  EXPECT_TRUE(received == all);
}

TEST_F(RelayTest, KeyUpdatesPassUnnoticed) {
  FakeSupervisor supervisor(base());
  supervisor.run();
  auto [client, handed] = join(supervisor);
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(client->key_update(SSL_KEY_UPDATE_REQUESTED));
    ASSERT_TRUE(client->write_all("under new keys"));
    ASSERT_EQ(receive_packet(handed.fd), "under new keys");
    ASSERT_TRUE(send_packet(handed.fd, "here too"));
    ASSERT_EQ(read_bytes(*client, 8), "here too");
  }
}

TEST_F(RelayTest, APacketOverARecordEndsItsRelayOnly) {
  FakeSupervisor supervisor(base());
  supervisor.run();
  auto [bad_client, bad] = join(supervisor);
  auto [good_client, good] = join(supervisor);
  ASSERT_TRUE(send_packet(bad.fd, std::string(ipc::kRecordBytes + 1, 'x')));
  EXPECT_EQ(receive_packet(bad.fd), "");
  ASSERT_TRUE(send_packet(good.fd, "still here"));
  EXPECT_EQ(read_bytes(*good_client, 10), "still here");
}

TEST_F(RelayTest, CloseNotifyHalfCloses) {
  FakeSupervisor supervisor(base());
  supervisor.run();
  auto [client, handed] = join(supervisor);
  ASSERT_TRUE(client->write_all("last words"));
  ASSERT_TRUE(client->finish());
  EXPECT_EQ(receive_packet(handed.fd), "last words");
  EXPECT_EQ(receive_packet(handed.fd), "");
  ASSERT_TRUE(send_packet(handed.fd, "an answer all the same"));
  EXPECT_EQ(read_bytes(*client, 22), "an answer all the same");
  handed.fd.reset();
  EXPECT_EQ(client->read_some(), "");  // close_notify: an orderly end
}

TEST_F(RelayTest, WorkersThatLetGoEndItInOrder) {
  FakeSupervisor supervisor(base());
  supervisor.run();
  auto [client, handed] = join(supervisor);
  ASSERT_TRUE(client->write_all("never read by a worker"));
  ASSERT_TRUE(receive_packet(handed.fd).has_value());
  ASSERT_TRUE(client->write_all("never read by a worker"));
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(send_packet(handed.fd, std::string(10'000, 'z')));
  handed.fd.reset();
  EXPECT_EQ(read_bytes(*client, 50'000).size(), 50'000U);
  EXPECT_EQ(client->read_some(), "");
}

TEST_F(RelayTest, ShutdownByAWorkerEndsItInOrder) {
  FakeSupervisor supervisor(base());
  supervisor.run();
  auto [client, handed] = join(supervisor);
  ASSERT_TRUE(send_packet(handed.fd, "bye"));
  ASSERT_EQ(::shutdown(handed.fd.get(), SHUT_WR), 0);
  EXPECT_EQ(read_bytes(*client, 3), "bye");
  EXPECT_EQ(client->read_some(), "");
  EXPECT_EQ(receive_packet(handed.fd), "");
}

TEST_F(RelayTest, TruncationEndsIt) {
  FakeSupervisor supervisor(base());
  supervisor.run();
  auto [client, handed] = join(supervisor);
  ASSERT_TRUE(client->write_all("cut"));
  EXPECT_EQ(receive_packet(handed.fd), "cut");
  ASSERT_EQ(::shutdown(client->fd(), SHUT_WR), 0);
  EXPECT_EQ(receive_packet(handed.fd), "");
  EXPECT_FALSE(send_packet(handed.fd, "x"));
}

TEST_F(RelayTest, ABrokenRecordEndsIt) {
  FakeSupervisor supervisor(base());
  supervisor.run();
  auto [client, handed] = join(supervisor);
  std::string record("\x17\x03\x03\x00\x20", 5);
  record.append(32, 'q');
  ASSERT_EQ(::send(client->fd(), record.data(), record.size(), MSG_NOSIGNAL), 37);
  EXPECT_EQ(receive_packet(handed.fd), "");
}

TEST_F(RelayTest, AStalledPeerCostsItsOwnRelayOnly) {
  FakeSupervisor supervisor(base("stalled_peer = \"700ms\""));
  supervisor.run();
  auto [stalled_client, stalled] = join(supervisor);
  auto [client, handed] = join(supervisor);
  const std::string packet(ipc::kRecordBytes, 's');
  // The pair, the relay and both TCP buffers fill up; a pause tells a full line from a slow one.
  int refusals = 0;
  for (int i = 0; i < 100'000 && refusals < 10; ++i) {
    if (send_packet(stalled.fd, packet)) {
      refusals = 0;
    } else if (errno == EAGAIN) {
      ++refusals;
      pause_briefly();
    } else {
      break;
    }
  }
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(send_packet(handed.fd, "on and on"));
    ASSERT_EQ(read_bytes(*client, 9), "on and on");
    ASSERT_TRUE(client->write_all("and on"));
    ASSERT_EQ(receive_packet(handed.fd), "and on");
  }
  const auto end = receive_packet(stalled.fd);  // by limits.stalled_peer
  EXPECT_TRUE(!end || end->empty());
  EXPECT_FALSE(send_packet(stalled.fd, packet));
  ASSERT_TRUE(send_packet(handed.fd, "on and on"));
  EXPECT_EQ(read_bytes(*client, 9), "on and on");
}

TEST_F(RelayTest, WorkersThatDoNotReadStopThePeerOnly) {
  FakeSupervisor supervisor(base());
  supervisor.run();
  auto [client, handed] = join(supervisor);
  const std::string all(8u << 20, 'w');
  std::thread writer([&, stream = client.get()] { EXPECT_TRUE(stream->write_all(all)); });
  auto [other_client, other] = join(supervisor);
  ASSERT_TRUE(other_client->write_all("meanwhile"));
  EXPECT_EQ(receive_packet(other.fd), "meanwhile");
  ASSERT_TRUE(send_packet(handed.fd, "the other way is free"));
  std::size_t received = 0;
  while (received < all.size()) {
    const auto packet = receive_packet(handed.fd);
    ASSERT_TRUE(packet.has_value() && !packet->empty());
    received += packet->size();
  }
  writer.join();
  EXPECT_EQ(read_bytes(*client, 21), "the other way is free");
}

TEST_F(RelayTest, StopFlushesAndSaysCloseNotify) {
  FakeSupervisor supervisor(base());
  supervisor.run();
  auto [client, handed] = join(supervisor);
  ASSERT_TRUE(send_packet(handed.fd, "first"));
  EXPECT_EQ(read_bytes(*client, 5), "first");
  EXPECT_TRUE(supervisor.stop());
  EXPECT_EQ(client->read_some(), "");
}

}  // namespace
}  // namespace ktrunk::test
