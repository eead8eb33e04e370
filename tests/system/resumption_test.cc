// Sessions resumed by tickets (RFC 8446 2.2, RFC 5077), in both roles, with the kernel's record layer and in relay: by
// trunks of ours that reconnect, and by peers that come back to another handshake process, or to one that was
// restarted.
#include <signal.h>

#include <algorithm>

#include "system/record_layer_fixture.h"

namespace ktrunk::test {
namespace {

class Resumption : public RecordLayerTest, public testing::WithParamInterface<Tls> {
 protected:
  [[nodiscard]] std::uint64_t handshakes(const std::string& counter) const {
    return status()["handshakes"].value(counter, std::uint64_t{0});
  }
};

TEST_P(Resumption, OfATrunkThatReconnects) {
  ASSERT_NO_FATAL_FAILURE(start());
  TlsOptions options = with_version(as_pbx(), GetParam());
  options.ticket_key = std::string(80, 'k');
  const auto next_connection = [&] {
    EXPECT_TRUE(pbx_tls_->stream().finish());  // a relay does not resume what was cut off
    pbx_tls_.reset();
    auto stream = accept_tls(*pbx_tls_listener_, options);
    TlsStream* raw = stream.get();
    if (stream) pbx_tls_ = std::make_unique<SipStream>(std::move(stream));
    return raw;
  };
  TlsStream* first = next_connection();
  ASSERT_NE(first, nullptr) << daemon_->log();
  EXPECT_FALSE(first->resumed());
  auto caller = call_in();
  ASSERT_NE(caller, nullptr);
  SipStream calls(std::move(caller));
  for (int round = 1; round <= 3; ++round) {
    {
      Echo pbx(*pbx_tls_);
      EXPECT_TRUE(eventually([&] { return answers(calls, request_to("tls.test"), 200); }, kSoon)) << daemon_->log();
      if (GetParam() == Tls::k13 && kernel_records()) {  // in relay OpenSSL has them without being asked
        EXPECT_TRUE(eventually([&] { return handshakes("tickets") >= static_cast<std::uint64_t>(round); }, kSoon))
            << status().dump(2);
      }
    }
    const TlsStream* again = next_connection();
    ASSERT_NE(again, nullptr) << daemon_->log();
    EXPECT_TRUE(again->resumed()) << "round " << round << daemon_->log();
    EXPECT_TRUE(eventually([&] { return handshakes("resumed") == static_cast<std::uint64_t>(round); }, kSoon));
  }
}

TEST_P(Resumption, OfPeersAcrossProcessesAndRestarts) {
  ASSERT_NO_FATAL_FAILURE(start({.limits = "", .tables = "", .ktrunk_lines = "handshake_processes = 3", .workers = 2}));
  TlsOptions options = with_version(as_carrier(), GetParam());
  TlsStream::Session session;
  const auto visit = [&](bool resumes) {
    options.session = session.get();
    auto stream = call_in(options);
    ASSERT_NE(stream, nullptr);
    TlsStream* raw = stream.get();
    SipStream sip(std::move(stream));
    EXPECT_EQ(raw->resumed(), resumes) << daemon_->log();
    EXPECT_TRUE(answers(sip, options_to_us(), 200)) << daemon_->log();
    const auto seen = with_peer(status(), *raw);
    ASSERT_TRUE(seen);
    EXPECT_EQ((*seen)["trunk"], "carrier") << "the identity of the first handshake";
    session = raw->session();
    EXPECT_TRUE(raw->finish());
    EXPECT_TRUE(sip.receive_or_end(kSoon));
  };
  ASSERT_NO_FATAL_FAILURE(visit(false));
  for (int i = 0; i < 6; ++i) ASSERT_NO_FATAL_FAILURE(visit(true));
  for (int i = 0; i < 3; ++i) ASSERT_NO_FATAL_FAILURE(kill_child(fmt::format("handshake/{}", i)));
  for (int i = 0; i < 6; ++i) ASSERT_NO_FATAL_FAILURE(visit(true));
  EXPECT_EQ(handshakes("resumed"), 12u);
}

INSTANTIATE_TEST_SUITE_P(Versions, Resumption, testing::Values(Tls::k12, Tls::k13),
                         [](const auto& version) { return version.param == Tls::k13 ? "Tls13" : "Tls12"; });

}  // namespace
}  // namespace ktrunk::test
