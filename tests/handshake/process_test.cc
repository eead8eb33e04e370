// The handshake process over its channel: accepting, bad handshakes, identity, drain, the contract with the supervisor.
#include <fcntl.h>
#include <sys/socket.h>

#include <map>
#include <thread>
#include <vector>

#include "process_fixture.h"

namespace ktrunk::test {
namespace {

class ProcessTest : public HandshakeProcessTest {
 protected:
  // The process ends the connection: what it says before is thrown away.
  static void expect_closed(TcpStream& stream) {
    for (;;) {
      const auto some = stream.read_some();
      if (!some) {
        EXPECT_NE(some.error().code, ETIMEDOUT) << "still open";
      }
      if (!some || some->empty()) return;
    }
  }
  std::unique_ptr<TcpStream> dial() const {
    auto stream = TcpStream::connect(address_);
    EXPECT_TRUE(stream) << stream.error().what;
    return std::move(*stream);
  }
};

TEST_F(ProcessTest, TwoHundredConnectsAtOnce) {
  FakeSupervisor supervisor(base("handshake = \"60s\"\nhandshakes_per_address = 200\nhandshake_rate = 200"));
  supervisor.run();
  constexpr std::size_t kConnections = 200;
  constexpr std::size_t kThreads = 4;
  std::vector<std::unique_ptr<TcpStream>> sockets;
  for (std::size_t i = 0; i < kConnections; ++i) sockets.push_back(dial());
  std::vector<std::unique_ptr<TlsStream>> streams(kConnections);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = t; i < kConnections; i += kThreads) {
        auto stream = TlsStream::handshake(sockets[i]->take(), client(), milliseconds(60'000));
        if (stream) streams[i] = std::move(*stream);
      }
    });
  }
  std::map<std::string, Handed> by_peer;
  for (std::size_t i = 0; i < kConnections; ++i) {
    auto handed = supervisor.established(milliseconds(60'000));
    if (!handed) break;
    by_peer.insert_or_assign(handed->message.info.peer.text(), std::move(*handed));
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_EQ(by_peer.size(), kConnections);
  for (std::size_t i = 0; i < kConnections; ++i) {
    ASSERT_NE(streams[i], nullptr);
    const std::string name = streams[i]->local().text();
    const Handed& handed = by_peer.at(name);
    ASSERT_TRUE(send_packet(handed.fd, name));
    EXPECT_EQ(read_bytes(*streams[i], name.size()), name);
  }
  EXPECT_EQ(supervisor.region().handshake().accepted.read(), kConnections);
  EXPECT_EQ(supervisor.region().handshake().failed.read(), 0U);
}

TEST_F(ProcessTest, NoMoreDescriptorsInFlightThanAgreed) {
  FakeSupervisor supervisor(base("handshake = \"60s\""));
  supervisor.answer = FakeSupervisor::Answer::kNothing;
  supervisor.run();
  std::vector<std::unique_ptr<TlsStream>> streams;
  for (unsigned i = 0; i < ipc::kMaxDescriptorsInFlight + 8; ++i) {
    streams.push_back(connect(client()));
    supervisor.pump(milliseconds(0));
  }
  for (int i = 0; i < 20 && supervisor.pending() < ipc::kMaxDescriptorsInFlight; ++i)
    supervisor.pump(milliseconds(100));
  supervisor.pump(milliseconds(300));
  EXPECT_EQ(supervisor.pending(), ipc::kMaxDescriptorsInFlight);
  const auto first = supervisor.established();
  ASSERT_TRUE(first.has_value());
  supervisor.send(ipc::Admitted{.reference = first->message.reference, .connection = {SlotIndex{0}, Generation{1}}});
  supervisor.pump(milliseconds(5000));
  EXPECT_EQ(supervisor.pending(), ipc::kMaxDescriptorsInFlight);
}

TEST_F(ProcessTest, BadHandshakesFailAloneAndAreCounted) {
  FakeSupervisor supervisor(base("handshake = \"700ms\""));
  supervisor.run();
  auto http = dial();
  ASSERT_TRUE(http->write_all("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
  auto sip = dial();
  ASSERT_TRUE(sip->write_all("OPTIONS sip:x SIP/2.0\r\n\r\n"));
  auto garbage = dial();
  ASSERT_TRUE(garbage->write_all(std::string(5000, '\xff')));
  auto cut = dial();
  ASSERT_TRUE(cut->write_all(std::string("\x16\x03\x01\x02", 4)));
  auto silent = dial();
  {
    auto gone = dial();
  }
  auto good = connect(client());
  const auto handed = supervisor.established();
  ASSERT_TRUE(handed.has_value());
  for (TcpStream* bad : {http.get(), sip.get(), garbage.get(), cut.get(), silent.get()}) expect_closed(*bad);
  const ipc::HandshakeStats& stats = supervisor.region().handshake();
  EXPECT_TRUE(eventually([&] { return stats.failed.read() == 6; })) << stats.failed.read();
  EXPECT_EQ(stats.accepted.read(), 1U);
  ASSERT_TRUE(good->write_all("unharmed"));
  EXPECT_EQ(receive_packet(handed->fd), "unharmed");
}

TEST_F(ProcessTest, AnOctetAtATimeIsNoFailure) {
  FakeSupervisor supervisor(base());
  supervisor.run();
  // A client hello, taken from OpenSSL, then trickled: the server answers once it is whole.
  auto memory = std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)>(SSL_CTX_new(TLS_client_method()), &SSL_CTX_free);
  SSL* ssl = SSL_new(memory.get());
  BIO* in = BIO_new(BIO_s_mem());
  BIO* out = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl, in, out);
  EXPECT_LT(SSL_connect(ssl), 1);
  char* data = nullptr;
  const auto size = static_cast<std::size_t>(BIO_get_mem_data(out, &data));
  auto stream = dial();
  for (std::size_t i = 0; i < size; ++i) ASSERT_TRUE(stream->write_all(std::string_view(data + i, 1)));
  const auto answer = stream->read_some();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->at(0), '\x16');
  SSL_free(ssl);
}

TEST_F(ProcessTest, PlainTcpIsHandedOverAsItIs) {
  const Address plain = free_address();
  FakeSupervisor supervisor(
      base() + fmt::format("[[listen]]\nname = \"plain\"\ntransport = \"tcp\"\naddress = \"{}\"\n", plain.text()));
  supervisor.run();
  auto stream = TcpStream::connect(plain);
  ASSERT_TRUE(stream);
  const auto handed = supervisor.established();
  ASSERT_TRUE(handed.has_value());
  const ipc::ConnectionInfo& info = handed->message.info;
  EXPECT_EQ(info.transport, config::Transport::kTcp);
  EXPECT_EQ(info.record_layer, ipc::RecordLayerKind::kNone);
  EXPECT_EQ(info.tls_version, ipc::TlsVersion::kNone);
  EXPECT_EQ(info.listener, ListenerId{1});
  EXPECT_EQ(info.local, plain);
  EXPECT_EQ(::fcntl(handed->fd.get(), F_GETFL) & O_NONBLOCK, 0);
  ASSERT_TRUE((*stream)->write_all("hello"));
  EXPECT_EQ(receive_packet(handed->fd), "hello");
  ASSERT_TRUE(send_packet(handed->fd, "hello yourself"));
  EXPECT_EQ(read_bytes(**stream, 14), "hello yourself");
}

TEST_F(ProcessTest, AVerifiedCertificateSaysWhichTrunk) {
  FakeSupervisor supervisor(base({}, fmt::format("verify_client = \"optional\"\nca = \"{}\"\n", authority_.file())) +
                            "[[trunk]]\nname = \"other\"\nverify_name = \"other.example\"\nlisten = \"edge\"\n" +
                            "[[trunk]]\nname = \"carrier\"\nverify_name = \"carrier.example\"\nlisten = \"edge\"\n");
  supervisor.run();
  const auto trunk_for = [&](std::vector<std::string> dns, std::vector<std::string> uris) {
    const auto files =
        authority_.issue({.name = "client", .common_name = "", .dns = std::move(dns), .uris = std::move(uris)});
    TlsOptions options = client();
    options.certificate = files.certificate;
    options.key = files.key;
    const auto stream = connect(options);
    const auto handed = supervisor.established();
    return handed ? handed->message.info.trunk : TrunkId{999};
  };
  EXPECT_EQ(trunk_for({"carrier.example"}, {}), TrunkId{1});
  EXPECT_EQ(trunk_for({"unrelated.example"}, {"sip:other.example"}), TrunkId{0});
  EXPECT_EQ(trunk_for({"carrier.example"}, {"sip:nobody.example"}), TrunkId{});  // RFC 5922 7.1: the URI alone counts
  EXPECT_EQ(trunk_for({"sub.carrier.example"}, {}), TrunkId{});
  const auto anonymous = connect(client());
  const auto handed = supervisor.established();
  ASSERT_TRUE(handed.has_value());
  EXPECT_FALSE(handed->message.info.trunk.valid());
}

TEST_F(ProcessTest, ARequiredCertificateIsRequired) {
  FakeSupervisor supervisor(base({}, fmt::format("verify_client = \"require\"\nca = \"{}\"\n", authority_.file())));
  supervisor.run();
  // TLS 1.3: the client is done first and learns it by the alert, which must get through whatever it has sent.
  auto stream = TlsStream::connect(address_, client());
  if (stream) {
    (void)(*stream)->write_all("REGISTER sip:example.com SIP/2.0\r\n");
    const auto some = (*stream)->read_some();
    EXPECT_FALSE(some);
    if (!some) {
      EXPECT_NE(some.error().what.find("certificate required"), std::string::npos) << some.error().what;
    }
  }
  const CertificateAuthority stranger(folder_.path(), "stranger");
  const auto files = stranger.issue({.name = "foreign", .common_name = "", .dns = {"carrier.example"}});
  TlsOptions options = client();
  options.certificate = files.certificate;
  options.key = files.key;
  auto foreign = TlsStream::connect(address_, options);
  if (foreign) {
    EXPECT_FALSE((*foreign)->read_some());
  }
  EXPECT_FALSE(supervisor.established(milliseconds(300)).has_value());
  EXPECT_EQ(supervisor.region().handshake().failed.read(), 2U);
}

TEST_F(ProcessTest, KernelAndNothingElseClosesWhatTheKernelCannotDo) {
  record_layer_ = "kernel";
  // A suite that no kernel does.
  FakeSupervisor supervisor(base({}, "max_version = \"1.2\"\nciphers = \"ECDHE-ECDSA-AES128-SHA256\"\n"));
  supervisor.run();
  TlsOptions options = client();
  options.max_version = TLS1_2_VERSION;
  options.ciphers = "ECDHE-ECDSA-AES128-SHA256";
  auto stream = TlsStream::connect(address_, options);
  if (stream) {
    const auto end = (*stream)->read_some();
    EXPECT_TRUE(!end || end->empty());
  }
  EXPECT_TRUE(eventually([&] { return supervisor.region().handshake().failed.read() == 1; }));
  EXPECT_FALSE(supervisor.established(milliseconds(100)).has_value());
}

TEST_F(ProcessTest, AutoRelaysWhatTheKernelCannotDoAndSaysWhy) {
  record_layer_ = "auto";
  FakeSupervisor supervisor(base({}, "max_version = \"1.2\"\nciphers = \"ECDHE-ECDSA-AES128-SHA256\"\n"));
  supervisor.run();
  TlsOptions options = client();
  options.ciphers = "ECDHE-ECDSA-AES128-SHA256";
  const auto stream = connect(options);
  const auto handed = supervisor.established();
  ASSERT_TRUE(handed.has_value());
  EXPECT_EQ(handed->message.info.record_layer, ipc::RecordLayerKind::kRelay);
  EXPECT_EQ(handed->message.info.tls_version, ipc::TlsVersion::kTls12);
  EXPECT_GT(handed->message.info.record_layer_note.view().size(), 10U);
  ASSERT_TRUE(stream->write_all("over CBC"));
  EXPECT_EQ(receive_packet(handed->fd), "over CBC");
}

TEST_F(ProcessTest, RefusedIsClosedInOrder) {
  FakeSupervisor supervisor(base());
  supervisor.answer = FakeSupervisor::Answer::kRefuse;
  supervisor.run();
  auto stream = connect(client());
  EXPECT_FALSE(supervisor.established(milliseconds(300)).has_value());
  EXPECT_EQ(stream->read_some(), "");
}

TEST_F(ProcessTest, DrainEndsAcceptingAndKeepsRelays) {
  FakeSupervisor supervisor(base("handshake = \"500ms\""));
  supervisor.run();
  auto stream = connect(client());
  const auto handed = supervisor.established();
  ASSERT_TRUE(handed.has_value());
  auto half = dial();  // a handshake in progress, which nobody will finish
  ASSERT_TRUE(half->write_all(std::string("\x16\x03\x01", 3)));
  pause_briefly();
  supervisor.send(ipc::Drain{});
  ASSERT_TRUE(supervisor.idle());
  expect_closed(*half);
  ASSERT_TRUE(send_packet(handed->fd, "going on"));
  EXPECT_EQ(read_bytes(*stream, 8), "going on");
  supervisor.send(ipc::Drain{});  // once is enough
  EXPECT_TRUE(supervisor.stop());
  EXPECT_EQ(stream->read_some(), "");
}

TEST_F(ProcessTest, DrainWithNothingInProgressIsIdleAtOnce) {
  FakeSupervisor supervisor(base());
  supervisor.run();
  supervisor.send(ipc::Drain{});
  EXPECT_TRUE(supervisor.idle());
}

TEST_F(ProcessTest, EndsWithItsSupervisor) {
  FakeSupervisor supervisor(base());
  supervisor.run();
  auto stream = connect(client());
  ASSERT_TRUE(supervisor.established().has_value());
  const Status status = supervisor.hang_up();
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().what.find("gone"), std::string::npos);
}

TEST_F(ProcessTest, EndsWhenTheContractIsBroken) {
  FakeSupervisor supervisor(base());
  supervisor.run();
  supervisor.send(ipc::Ready{});  // twice
  EXPECT_FALSE(supervisor.join());
}

TEST_F(ProcessTest, WordsOfConnectionsThatItDoesNotKnowAreHarmless) {
  FakeSupervisor supervisor(base() + udp_trunk("\"udp:127.0.0.1:9\""));
  supervisor.run();
  supervisor.send(ipc::Admitted{.reference = 77, .connection = {SlotIndex{3}, Generation{1}}});
  supervisor.send(ipc::Refused{.reference = 78});
  supervisor.send(ipc::Gone{.reference = 79, .connection = {}, .trunk = TrunkId{0}, .role = {}});
  supervisor.send(ipc::Gone{.reference = 0,
                            .connection = {SlotIndex{3}, Generation{1}},
                            .trunk = TrunkId{60000},
                            .role = ipc::ConnectionInfo::Role::kConnected});
  const auto stream = connect(client());
  EXPECT_TRUE(supervisor.established().has_value());
}

TEST_F(ProcessTest, AListenerWithBadFilesLeavesTheOthersServing) {
  const Address bad = free_address();
  FakeSupervisor supervisor(base() + fmt::format("[[listen]]\nname = \"bad\"\ntransport = \"tls\"\naddress = \"{}\"\n"
                                                 "certificate = \"/nonexistent.pem\"\nkey = \"/nonexistent.key\"\n",
                                                 bad.text()));
  supervisor.run();
  const auto stream = connect(client());
  EXPECT_TRUE(supervisor.established().has_value());
  auto refused = TcpStream::connect(bad);
  ASSERT_TRUE(refused);
  expect_closed(**refused);
}

}  // namespace
}  // namespace ktrunk::test
