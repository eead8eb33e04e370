// The handshake process with the kernel's record layer: what it hands over is the kTLS socket itself.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "process_fixture.h"
#include "support/ktls_available.h"

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
