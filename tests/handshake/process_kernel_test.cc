// The handshake process with the kernel's record layer: what it hands over is the kTLS socket itself.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <span>

#include "ktls/control_record.h"
#include "process_fixture.h"
#include "support/ktls_available.h"
#include "tls_test_peer.h"

namespace ktrunk::test {
namespace {

class ProcessKernelTest : public HandshakeProcessTest {
 protected:
  ProcessKernelTest() { record_layer_ = "kernel"; }

  static void expect_kernel_socket(const Handed& handed) {
    EXPECT_EQ(handed.message.info.record_layer, ipc::RecordLayerKind::kKernel);
    EXPECT_EQ(handed.message.info.record_layer_note.view(), "");
    char ulp[16] = "";
    socklen_t length = sizeof ulp;
    EXPECT_EQ(::getsockopt(handed.fd.get(), IPPROTO_TCP, TCP_ULP, ulp, &length), 0);
    EXPECT_STREQ(ulp, "tls");
    EXPECT_EQ(::fcntl(handed.fd.get(), F_GETFL) & O_NONBLOCK, 0);
    int on = 0;
    length = sizeof on;
    EXPECT_EQ(::getsockopt(handed.fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, &length), 0);
    EXPECT_EQ(on, 1);
  }
  static void talk(ByteStream& stream, const Handed& handed) {
    const std::string record(ipc::kRecordBytes, 'r');
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(send_packet(handed.fd, record));
      ASSERT_EQ(read_bytes(stream, record.size()), record);
      ASSERT_TRUE(stream.write_all("a line\r\n"));
      ASSERT_EQ(receive_packet(handed.fd), "a line\r\n");
    }
  }
};

TEST_F(ProcessKernelTest, Accepts) {
  KTRUNK_REQUIRE_KTLS(ktls::Version::kTls13, ktls::Aead::kAes128Gcm);
  FakeSupervisor supervisor(base());
  supervisor.run();
  for (const int version : {TLS1_3_VERSION, TLS1_2_VERSION}) {
    TlsOptions options = client();
    options.max_version = version;
    const auto stream = connect(options);
    const auto handed = supervisor.established();
    ASSERT_TRUE(handed.has_value());
    expect_kernel_socket(*handed);
    talk(*stream, *handed);
  }
  EXPECT_EQ(supervisor.region().handshake().kernel.read(), 2U);
}

TEST_F(ProcessKernelTest, Connects) {
  KTRUNK_REQUIRE_KTLS(ktls::Version::kTls13, ktls::Aead::kAes128Gcm);
  for (const int version : {TLS1_3_VERSION, TLS1_2_VERSION}) {
    const auto target = TcpListener::bind(free_address());
    ASSERT_TRUE(target);
    address_ = free_address();
    FakeSupervisor supervisor(base() + trunk(fmt::format("\"tls:{}\"", target->address().text()), trust()));
    supervisor.run();
    auto socket = target->accept();
    ASSERT_TRUE(socket);
    TlsOptions options = server();
    options.max_version = version;
    const auto stream = TlsStream::accept(std::move(*socket), options);
    ASSERT_TRUE(stream) << stream.error().what;
    const auto handed = supervisor.established();
    ASSERT_TRUE(handed.has_value());
    expect_kernel_socket(*handed);
    // A TLS 1.3 server's tickets come first: a plain recv would stop at them.
    if (version == TLS1_2_VERSION) {
      talk(**stream, *handed);
    } else {
      ASSERT_TRUE(send_packet(handed->fd, "to the server"));
      EXPECT_EQ(read_bytes(**stream, 13), "to the server");
    }
  }
}

// What the home worker does with a connection, as far as the handshake process sees it.
class ProcessKeysTest : public ProcessKernelTest {
 protected:
  struct Record {
    ktls::RecordType type = ktls::RecordType::kApplicationData;
    std::string octets;
  };
  static std::optional<Record> receive_record(const Handed& handed) {
    if (!wait_ready(handed.fd.get(), POLLIN, std::chrono::steady_clock::now() + kPatience)) return {};
    Record record;
    record.octets.resize(ipc::kRecordBytes);
    iovec part = {.iov_base = record.octets.data(), .iov_len = record.octets.size()};
    alignas(cmsghdr) std::array<std::byte, ktls::kControlBytes> control{};
    msghdr header = {};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const ssize_t got = ::recvmsg(handed.fd.get(), &header, MSG_DONTWAIT);
    if (got < 0) return {};
    record.octets.resize(static_cast<std::size_t>(got));
    const auto type = ktls::record_type(std::span(control).first(header.msg_controllen), header.msg_flags);
    if (!type) return {};
    record.type = *type;
    return record;
  }
  // The next record is a handshake record: passed on.
  static void pass_on(FakeSupervisor& supervisor, const Handed& handed) {
    const auto record = receive_record(handed);
    ASSERT_TRUE(record.has_value());
    ASSERT_EQ(record->type, ktls::RecordType::kHandshake);
    ipc::PostHandshake message{};
    message.record.connection = handed.id;
    message.record.bytes = static_cast<std::uint16_t>(record->octets.size());
    ASSERT_LE(record->octets.size(), message.record.octets.size());
    std::memcpy(message.record.octets.data(), record->octets.data(), record->octets.size());
    supervisor.send(message, copy_of(handed));
  }
  static Fd copy_of(const Handed& handed) { return Fd(::fcntl(handed.fd.get(), F_DUPFD_CLOEXEC, 0)); }
  // Does what the process asks for in order to have new transmit keys.
  static void send_key_update(FakeSupervisor& supervisor, const Handed& handed) {
    const auto control = supervisor.next<ipc::SendControl>();
    ASSERT_TRUE(control.has_value());
    EXPECT_EQ(control->connection, handed.id);
    EXPECT_EQ(control->after, ipc::SendControl::After::kHoldSends);
    const ktls::ControlMessage record(static_cast<ktls::RecordType>(control->record_type),
                                      std::span(control->octets).first(control->bytes));
    ASSERT_EQ(::sendmsg(handed.fd.get(), record.header(), MSG_DONTWAIT | MSG_NOSIGNAL),
              static_cast<ssize_t>(record.bytes()));
    supervisor.send(ipc::InstallTransmit{.connection = handed.id}, copy_of(handed));
    expect_resume(supervisor, handed, ipc::Resume::What::kSendRekeyed);
  }
  static void expect_resume(FakeSupervisor& supervisor, const Handed& handed, ipc::Resume::What what) {
    const auto resume = supervisor.next<ipc::Resume>();
    ASSERT_TRUE(resume.has_value());
    EXPECT_EQ(resume->connection, handed.id);
    EXPECT_EQ(resume->what, what);
  }
};

TEST_F(ProcessKeysTest, FollowsThePeersKeyUpdateOrSaysThatTheKernelCannot) {
  KTRUNK_REQUIRE_KTLS(ktls::Version::kTls13, ktls::Aead::kAes128Gcm);
  FakeSupervisor supervisor(base());
  supervisor.run();
  const auto stream = connect(client());
  const auto handed = supervisor.established();
  ASSERT_TRUE(handed.has_value());
  ASSERT_TRUE(stream->key_update(SSL_KEY_UPDATE_NOT_REQUESTED));
  ASSERT_TRUE(stream->write_all("under new keys"));
  pass_on(supervisor, *handed);
  if (ktls_support().rekey) {
    expect_resume(supervisor, *handed, ipc::Resume::What::kReceiveRekeyed);
    EXPECT_EQ(receive_packet(handed->fd), "under new keys");
    EXPECT_EQ(supervisor.region().handshake().receive_rekeyed.read(), 1U);
  } else {
    const auto fault = supervisor.next<ipc::Fault>();
    ASSERT_TRUE(fault.has_value());
    EXPECT_EQ(fault->connection, handed->id);
    EXPECT_EQ(fault->reason, ipc::FaultReason::kNoRekey);
  }
}

TEST_F(ProcessKeysTest, RenewsKeysOrRetires) {
  KTRUNK_REQUIRE_KTLS(ktls::Version::kTls13, ktls::Aead::kAes128Gcm);
  FakeSupervisor supervisor(base());
  supervisor.run();
  const auto stream = connect(client());
  const auto handed = supervisor.established();
  ASSERT_TRUE(handed.has_value());
  for (int i = 0; i < 3; ++i) {
    supervisor.send(ipc::Renew{.reference = handed->message.reference, .connection = handed->id});
    if (!ktls_support().rekey) {
      const auto retired = supervisor.next<ipc::Retire>();
      ASSERT_TRUE(retired.has_value());
      EXPECT_EQ(retired->connection, handed->id);
      return;
    }
    send_key_update(supervisor, *handed);
    talk(*stream, *handed);
  }
  EXPECT_EQ(supervisor.region().handshake().transmit_rekeyed.read(), 3U);
}

TEST_F(ProcessKeysTest, ASuccessorGoesOnWithTheConnectionsOfADeadProcess) {
  KTRUNK_REQUIRE_KTLS(ktls::Version::kTls13, ktls::Aead::kAes128Gcm);
  if (!ktls_support().rekey) GTEST_SKIP() << "this kernel takes no second keys";
  FakeSupervisor first(base());
  first.run();
  const auto stream = connect(client());
  const auto handed = first.established();
  ASSERT_TRUE(handed.has_value());
  // Its first step done, so that it knows of the admission.
  first.send(ipc::Renew{.reference = handed->message.reference, .connection = handed->id});
  send_key_update(first, *handed);
  (void)first.hang_up();
  FakeSupervisor successor(first, HandshakeIndex{0});
  successor.run();
  successor.send(ipc::Renew{.reference = 0, .connection = handed->id});
  send_key_update(successor, *handed);
  talk(*stream, *handed);
  ASSERT_TRUE(stream->key_update(SSL_KEY_UPDATE_NOT_REQUESTED));
  ASSERT_TRUE(stream->write_all("under new keys"));
  pass_on(successor, *handed);
  expect_resume(successor, *handed, ipc::Resume::What::kReceiveRekeyed);
  EXPECT_EQ(receive_packet(handed->fd), "under new keys");
}

TEST_F(ProcessKeysTest, LearnsTicketsAndResumesWithThem) {
  KTRUNK_REQUIRE_KTLS(ktls::Version::kTls13, ktls::Aead::kAes128Gcm);
  const auto target = TcpListener::bind(free_address());
  ASSERT_TRUE(target);
  FakeSupervisor supervisor(base() + trunk(fmt::format("\"tls:{}\"", target->address().text()), trust()));
  supervisor.timing.connector = {.first_wait = milliseconds(50), .longest_wait = milliseconds(200)};
  supervisor.run();
  const Context context = server_context(server_.certificate, server_.key);
  for (int round = 0; round < 3; ++round) {
    auto socket = target->accept();
    ASSERT_TRUE(socket);
    Peer peer(context.get(), std::move(*socket), handshake::Role::kAccept);
    while (!peer.handshake()) ASSERT_TRUE(wait_readable(peer.fd()));
    EXPECT_EQ(SSL_session_reused(peer.get()), round == 0 ? 0 : 1) << round;
    auto handed = supervisor.established();
    ASSERT_TRUE(handed.has_value());
    pass_on(supervisor, *handed);
    expect_resume(supervisor, *handed, ipc::Resume::What::kReceive);
    handed->fd.reset();
    supervisor.gone(*handed);
  }
  EXPECT_EQ(supervisor.region().handshake().resumed.read(), 2U);
  EXPECT_GE(supervisor.region().handshake().tickets.read(), 2U);
}

TEST_F(ProcessKernelTest, OutlivesTheProcess) {
  KTRUNK_REQUIRE_KTLS(ktls::Version::kTls13, ktls::Aead::kAes128Gcm);
  FakeSupervisor supervisor(base());
  supervisor.run();
  const auto stream = connect(client());
  const auto handed = supervisor.established();
  ASSERT_TRUE(handed.has_value());
  (void)supervisor.hang_up();
  talk(*stream, *handed);
}

}  // namespace
}  // namespace ktrunk::test
