// Revocation lists (RFC 5280 6.3): who is let in, what the peer is told (RFC 8446 6.2), what the operator reads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "handshake/tls_context_bench.h"

namespace ktrunk::handshake {
namespace {

using test::Meeting;
using test::Pki;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using Alert = ktls::AlertDescription;

class RevocationTest : public testing::Test {
 protected:
  config::Listener listener(const std::string& authorities, const std::string& lists) {
    auto made = ca_.listener(server_);
    made.verify_client = config::ClientVerification::kRequire;
    made.tls.ca = ca_.write_file("authorities.pem", authorities);
    made.tls.crl = ca_.write_file("lists.pem", lists);
    return made;
  }
  Meeting meet(const config::Listener& with, const Pki::Files& client) {
    const auto context = TlsContext::for_listener(with);
    EXPECT_TRUE(context.has_value()) << context.error().what;
    warnings_ = context ? context->warnings() : std::vector<std::string>();
    return context ? test::meet(*context, ca_.authority_file(), {.certificate = client}) : Meeting{};
  }
  Meeting meet(const std::string& authorities, const std::string& lists, const Pki::Files& client) {
    return meet(listener(authorities, lists), client);
  }

  Pki ca_{"Root"};
  Pki middle_{"Middle", ca_};
  Pki other_{"Other"};
  Pki::Files server_ = ca_.issue({.common_name = "server"});
  Pki::Files good_ = ca_.issue({.common_name = "good"});
  Pki::Files bad_ = ca_.issue({.common_name = "bad"});
  std::vector<std::string> warnings_;
};

TEST_F(RevocationTest, ARevokedClientIsRefusedAsSuch) {
  const std::string list = ca_.revocations({bad_});
  const Meeting good = meet(ca_.authority_text(), list, good_);
  EXPECT_TRUE(good.done) << good.error;
  EXPECT_TRUE(good.peer_known);
  EXPECT_THAT(warnings_, IsEmpty());
  const Meeting bad = meet(ca_.authority_text(), list, bad_);
  EXPECT_FALSE(bad.done);
  EXPECT_EQ(bad.alert, Alert::kCertificateRevoked);
  EXPECT_THAT(bad.error, AllOf(HasSubstr("is revoked"), HasSubstr("bad"), HasSubstr("'listen.crl'")));
}

TEST_F(RevocationTest, AListMayStandBesideOthers) {
  const std::string lists = other_.revocations({}) + ca_.revocations({bad_});
  const std::string authorities = ca_.authority_text() + other_.authority_text();
  EXPECT_TRUE(meet(authorities, lists, good_).done);
  EXPECT_TRUE(meet(authorities, lists, other_.issue({})).done);
  EXPECT_EQ(meet(authorities, lists, bad_).alert, Alert::kCertificateRevoked);
}

TEST_F(RevocationTest, WithoutItsIssuersListNobodyIsLetIn) {
  const Meeting meeting = meet(ca_.authority_text(), other_.revocations({}), good_);
  EXPECT_FALSE(meeting.done);
  EXPECT_EQ(meeting.alert, Alert::kUnknownCa);
  EXPECT_THAT(meeting.error, AllOf(HasSubstr("no list of"), HasSubstr("Root"), HasSubstr("'listen.crl'")));
}

TEST_F(RevocationTest, AnExpiredListWarnsAtLoadAndLetsNobodyIn) {
  const Meeting meeting = meet(ca_.authority_text(), ca_.revocations({}, -60), good_);
  ASSERT_EQ(warnings_.size(), 1u);
  EXPECT_THAT(warnings_[0], AllOf(HasSubstr("'listen.crl'"), HasSubstr("Root"), HasSubstr("has expired")));
  EXPECT_FALSE(meeting.done);
  EXPECT_EQ(meeting.alert, Alert::kCertificateExpired);
  EXPECT_THAT(meeting.error, AllOf(HasSubstr("Root"), HasSubstr("fetch a new one")));
}

TEST_F(RevocationTest, AForgedListIsNoList) {
  Pki forger("Root");  // the same name, another key
  const Meeting meeting = meet(ca_.authority_text(), forger.revocations({}), good_);
  EXPECT_FALSE(meeting.done);
}

TEST_F(RevocationTest, OfTheCasAboveThoseListsCountThatAreThere) {
  const auto leaf = middle_.issue({.common_name = "leaf"});
  const auto revoked = middle_.issue({.common_name = "revoked"});
  const Pki::Files chain{middle_.chain_file(leaf), leaf.key};
  const Pki::Files revoked_chain{middle_.chain_file(revoked), revoked.key};
  const std::string lists = middle_.revocations({revoked});
  // The root's list is missing: no matter.
  const Meeting good = meet(ca_.authority_text(), lists, chain);
  EXPECT_TRUE(good.done) << good.error;
  EXPECT_EQ(meet(ca_.authority_text(), lists, revoked_chain).alert, Alert::kCertificateRevoked);
  // The root has revoked the intermediate.
  const Meeting below = meet(ca_.authority_text(), lists + ca_.revocations({{middle_.authority_file(), ""}}), chain);
  EXPECT_FALSE(below.done);
  EXPECT_EQ(below.alert, Alert::kCertificateRevoked);
  EXPECT_THAT(below.error, HasSubstr("Middle"));
  // The intermediate's list is missing: nothing is known of the leaf.
  EXPECT_FALSE(meet(ca_.authority_text(), ca_.revocations({}), chain).done);
}

TEST_F(RevocationTest, ClientsOfOptionalVerificationAreCheckedToo) {
  auto with = listener(ca_.authority_text(), ca_.revocations({bad_}));
  with.verify_client = config::ClientVerification::kOptional;
  EXPECT_TRUE(meet(with, {}).done);
  EXPECT_EQ(meet(with, bad_).alert, Alert::kCertificateRevoked);
}

TEST_F(RevocationTest, ATrunkChecksItsServer) {
  for (const bool revoked : {false, true}) {
    auto trunk = ca_.trunk();
    trunk.tls.crl = ca_.write_file("server.crl", ca_.revocations(revoked ? std::vector{server_} : std::vector{bad_}));
    const auto context = TlsContext::for_trunk(trunk);
    ASSERT_TRUE(context.has_value()) << context.error().what;
    const auto theirs = test::server_context(server_.certificate, server_.key);
    test::TcpPair sockets = test::tcp_pair();
    auto ours = TlsSession::connect(*context, std::move(sockets.first), "sip.example.com");
    test::Peer peer(theirs.get(), std::move(sockets.second), Role::kAccept);
    EXPECT_EQ(test::shake(*ours, peer), revoked ? TlsSession::Step::kFailed : TlsSession::Step::kDone);
    if (revoked) {
      EXPECT_EQ(ours->failure().sent->description, Alert::kCertificateRevoked);
      EXPECT_THAT(ours->failure().error.what, HasSubstr("'trunk.crl'"));
    }
  }
}

TEST_F(RevocationTest, FilesThatAreNoLists) {
  const auto error = [&](const std::string& text) {
    const auto context = TlsContext::for_listener(listener(ca_.authority_text(), text));
    return context ? "" : context.error().what;
  };
  EXPECT_THAT(error(""), AllOf(HasSubstr("'listen.crl'"), HasSubstr("lists.pem"), HasSubstr("revocation list")));
  EXPECT_THAT(error(ca_.authority_text()), HasSubstr("revocation list"));
  EXPECT_THAT(error("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"), HasSubstr("revocation list"));
  const std::string list = ca_.revocations({bad_});
  for (std::size_t size = 0; size + 6 < list.size(); size += 11) EXPECT_NE(error(list.substr(0, size)), "") << size;
  EXPECT_EQ(error(list), "");
}

}  // namespace
}  // namespace ktrunk::handshake
