// Thousands of handshakes that come to nothing: half of them say nothing at all, half a ClientHello octet by octet.
// Calls go on, and peers from other addresses get in.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "system/record_layer_fixture.h"

namespace ktrunk::test {
namespace {

class HandshakeCrowd : public RecordLayerTest {
 protected:
  static constexpr unsigned kAddresses = 50;  // 127.0.1.1 and on

  // A connection from the crowd, which may be refused at any time.
  [[nodiscard]] Fd one_of_the_crowd(unsigned number) const {
    Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int on = 1;
    ::setsockopt(socket.get(), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    const auto from = Address::from_ip(fmt::format("127.0.1.{}", 1 + number % kAddresses), 0);
    if (!from || ::bind(socket.get(), from->data(), from->size()) != 0) return {};
    if (::connect(socket.get(), edge_tls_.data(), edge_tls_.size()) != 0 && errno != EINPROGRESS) return {};
    return socket;
  }
};

TEST_F(HandshakeCrowd, KeepsNobodyOut) {
  const unsigned each = scaled(2000, 100);
  const rlimit wanted = {.rlim_cur = 2 * each + 1000, .rlim_max = 2 * each + 1000};
  rlimit had = {};
  ::getrlimit(RLIMIT_NOFILE, &had);
  if (had.rlim_cur < wanted.rlim_cur && ::setrlimit(RLIMIT_NOFILE, &wanted) != 0)
    GTEST_SKIP() << "the limit on open files is " << had.rlim_cur;
  ASSERT_NO_FATAL_FAILURE(start());
  auto caller = call_in();
  ASSERT_NE(caller, nullptr);
  SipStream calls(std::move(caller));
  Echo pbx(*pbx_tls_);
  ASSERT_TRUE(answers(calls, request_to("tls.test"), 200));

  std::vector<Fd> silent;
  std::vector<Fd> slow;
  const std::string hello = plain_record(22, handshake_message(1, std::string(200, '\x03')), 0x0301);
  std::size_t said = 0;
  const auto say_one_more_octet = [&] {
    if (said == hello.size() - 1) return;  // never whole
    for (const Fd& socket : slow) (void)::send(socket.get(), hello.data() + said, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    ++said;
  };
  for (unsigned i = 0; i < each; ++i) {
    silent.push_back(one_of_the_crowd(i));
    slow.push_back(one_of_the_crowd(i));
    if (i % 100 == 99) {
      say_one_more_octet();
      EXPECT_TRUE(answers(calls, request_to("tls.test"), 200)) << daemon_->log().substr(0, 10'000);
    }
  }
  for (int i = 0; i < 20; ++i) {
    say_one_more_octet();
    EXPECT_TRUE(answers(calls, request_to("tls.test"), 200));
    auto stream = call_in();  // from another address
    ASSERT_NE(stream, nullptr);
    SipStream newcomer(std::move(stream));
    EXPECT_TRUE(answers(newcomer, options_to_us(), 200));
  }
  const Json now = status();
  EXPECT_GT(now["handshakes"].value("in_progress", 0), 0) << now["handshakes"].dump();
  EXPECT_LE(now["handshakes"].value("in_progress", 0), static_cast<int>(64 * kAddresses));
  // Not a line for each.
  const std::string log = daemon_->log();
  EXPECT_LT(std::ranges::count(log, '\n'), 1000);
  silent.clear();
  slow.clear();
  const Status forgotten =
      daemon_->wait_status([](const Json& later) { return later["handshakes"].value("in_progress", -1) == 0; });
  EXPECT_TRUE(forgotten) << forgotten.error().what;
  EXPECT_TRUE(answers(calls, request_to("tls.test"), 200));
}

}  // namespace
}  // namespace ktrunk::test
