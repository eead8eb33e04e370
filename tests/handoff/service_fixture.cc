#include "service_fixture.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <span>

#include "ktls/control_record.h"
#include "ktls/crypto_info.h"

namespace ktrunk::test {

HandoffServiceTest::HandoffServiceTest() {
  config_.path = "handoff.toml";
  config::Listener edge;
  edge.name = "edge";
  edge.tls.certificate = edge_.certificate;
  edge.tls.key = edge_.key;
  edge.tls.ca = authority_.file();
  edge.verify_client = config::ClientVerification::kOptional;
  config_.listeners.push_back(edge);
  config::Trunk carrier;
  carrier.name = "carrier";
  carrier.targets.push_back({.transport = config::Transport::kTls, .host = "carrier.test", .port = 5061});
  carrier.tls.ca = authority_.file();
  config_.trunks.push_back(carrier);
}

void HandoffServiceTest::start() {
  auto loop = EventLoop::create();
  ASSERT_TRUE(loop);
  loop_ = std::move(*loop);
  auto service = handshake::HandoffService::create(*loop_, config_, path_, limits_);
  ASSERT_TRUE(service) << service.error().what;
  service_ = std::move(*service);
  thread_ = std::jthread([this](const std::stop_token& stopped) {
    while (!stopped.stop_requested()) {
      {
        const std::lock_guard lock(mutex_);
        EXPECT_TRUE(loop_->turn(milliseconds(1)));
      }
      std::this_thread::sleep_for(std::chrono::microseconds(100));  // lets ask() in
    }
  });
}

void HandoffServiceTest::stop() {
  if (service_ == nullptr) return;
  ask([](handshake::HandoffService& service) { service.stop(); });
  EXPECT_TRUE(eventually(
      [&] { return ask([](const handshake::HandoffService& service) { return service.finished(); }); }, kPatience));
  thread_ = {};
  service_.reset();
  loop_.reset();
}

handoff::Client HandoffServiceTest::client() const {
  auto made = handoff::Client::connect(path_);
  if (!made) throw std::runtime_error(made.error().what);
  return std::move(*made);
}

std::pair<Fd, Fd> HandoffServiceTest::tcp_pair() {
  auto listener = TcpListener::bind(free_address());
  if (!listener) throw std::runtime_error(listener.error().what);
  auto near = TcpStream::connect(listener->address());
  auto far = listener->accept();
  if (!near || !far) throw std::runtime_error("no TCP connection on loopback");
  return {(*near)->take(), std::move(*far)};
}

namespace {

// What `next` gives, once it gives something.
template <typename Next>
auto wait_for(handoff::Client& client, Next next) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (std::chrono::steady_clock::now() < deadline) {
    auto got = next();
    if (!got) throw std::runtime_error(got.error().what);
    if (*got) return std::move(**got);
    pollfd wait{client.fd(), POLLIN, 0};
    (void)::poll(&wait, 1, 100);
  }
  throw std::runtime_error("nothing came");
}

}  // namespace

handoff::Reply HandoffServiceTest::reply(handoff::Client& client) {
  return wait_for(client, [&] { return client.receive(); });
}

handoff::Instruction HandoffServiceTest::instruction(handoff::Client& client) {
  return wait_for(client, [&] { return client.instruction(); });
}

void HandoffServiceTest::send(handoff::Client& client, const handoff::Wish& wish, Fd socket) {
  const auto sent = client.send(wish, socket);
  ASSERT_TRUE(sent) << sent.error().what;
  ASSERT_EQ(*sent, PacketSent::kSent);
}

TlsOptions HandoffServiceTest::as_client() const {
  TlsOptions options;
  options.ca = authority_.file();
  options.server_name = "edge.test";
  options.verify_name = "edge.test";
  return options;
}

TlsOptions HandoffServiceTest::as_carrier() const {
  TlsOptions options;
  options.certificate = carrier_.certificate;
  options.key = carrier_.key;
  return options;
}

std::unique_ptr<TlsStream> HandoffServiceTest::peer(Fd socket) const {
  auto stream = TlsStream::handshake(std::move(socket), as_client());
  EXPECT_TRUE(stream) << stream.error().what;
  return stream ? std::move(*stream) : nullptr;
}

std::string HandoffServiceTest::receive_data(const Fd& connection) {
  while (true) {
    std::array<char, ktls::kMaxRecordBytes> data;
    alignas(cmsghdr) std::array<std::byte, ktls::kControlBytes> control;
    iovec part{data.data(), data.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    pollfd wait{connection.get(), POLLIN, 0};
    if (::poll(&wait, 1, static_cast<int>(kPatience.count())) != 1) return "nothing in time";
    const ssize_t got = ::recvmsg(connection.get(), &message, 0);
    if (got < 0) return errno_text(errno);
    if (got == 0) return "end of file";
    const auto type = ktls::record_type(std::span(control).first(message.msg_controllen), message.msg_flags);
    if (!type) return type.error().what;
    if (*type == ktls::RecordType::kHandshake) continue;  // a session ticket
    if (*type == ktls::RecordType::kAlert) return "alert";
    return {data.data(), static_cast<std::size_t>(got)};
  }
}

void HandoffServiceTest::expect_good(const handoff::Reply& reply, TlsStream& peer) {
  ASSERT_EQ(reply.answer.outcome, handoff::Outcome::kDone) << reply.answer.what.view();
  ASSERT_TRUE(reply.connection.valid());
  EXPECT_EQ(::send(reply.connection.get(), "from us", 7, MSG_NOSIGNAL), 7);
  const auto heard = peer.read_some();
  EXPECT_TRUE(heard && *heard == "from us");
  EXPECT_TRUE(peer.write_all("from the peer"));
  EXPECT_EQ(receive_data(reply.connection), "from the peer");
}

}  // namespace ktrunk::test
