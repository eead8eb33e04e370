// A configuration's contexts, loaded together: what works, what does not, and the lines that say so.
#include "handshake/contexts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "handshake/tls_context_bench.h"

namespace ktrunk::handshake {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

class ContextsTest : public testing::Test {
 protected:
  config::Config parse(const std::string& rest = "") {
    const auto parsed =
        config::parse("[[listen]]\nname = 'edge'\ntransport = 'tls'\naddress = '127.0.0.1:5061'\ncertificate = '" +
                          files_.certificate + "'\nkey = '" + files_.key + "'\n" +
                          "[[listen]]\nname = 'plain'\ntransport = 'udp'\naddress = '127.0.0.1:5060'\n" + rest,
                      "/etc/k.toml");
    EXPECT_TRUE(parsed.has_value()) << parsed.error().what;
    return parsed.value_or(config::Config{});
  }

  test::Pki pki_;
  test::Pki::Files files_ = pki_.issue({});
};

TEST_F(ContextsTest, OnePerTableThatSpeaksTls) {
  const auto config = parse("[[trunk]]\nname = 'a'\ntargets = ['tls:a.example']\nca = '" + pki_.authority_file() +
                            "'\n[[trunk]]\nname = 'b'\ntargets = ['udp:127.0.0.1']\n");
  const auto loaded = TlsContexts::load(config, nullptr);
  EXPECT_THAT(loaded.errors, IsEmpty());
  EXPECT_THAT(loaded.warnings, IsEmpty());
  ASSERT_NE(loaded.contexts.listener(ListenerId{0}), nullptr);
  EXPECT_EQ(loaded.contexts.listener(ListenerId{0})->owner(), "listener 'edge'");
  EXPECT_EQ(loaded.contexts.listener(ListenerId{1}), nullptr);
  ASSERT_NE(loaded.contexts.trunk(TrunkId{0}), nullptr);
  EXPECT_EQ(loaded.contexts.trunk(TrunkId{1}), nullptr);
}

TEST_F(ContextsTest, WhatIsNoGoodIsToldWithItsLineAndTheRestWorks) {
  const auto config = parse(
      "[[trunk]]\nname = 'a'\ntargets = ['tls:a.example']\nca = '/no/such.pem'\n"
      "[[trunk]]\nname = 'b'\ntargets = ['tls:b.example']\nca = '" +
      pki_.authority_file() + "'\ncrl = '" + pki_.write_file("old.pem", pki_.revocations({}, -60)) + "'\n");
  const auto loaded = TlsContexts::load(config, nullptr);
  ASSERT_EQ(loaded.errors.size(), 1u);
  EXPECT_EQ(loaded.errors[0].line, 14u);
  EXPECT_THAT(loaded.errors[0].text(config),
              AllOf(StartsWith("/etc/k.toml:14: trunk 'a': key 'trunk.ca': /no/such.pem"), HasSubstr("ENOENT")));
  ASSERT_EQ(loaded.warnings.size(), 1u);
  EXPECT_EQ(loaded.warnings[0].line, 19u);
  EXPECT_NE(loaded.contexts.listener(ListenerId{0}), nullptr);
  EXPECT_EQ(loaded.contexts.trunk(TrunkId{0}), nullptr);
  EXPECT_NE(loaded.contexts.trunk(TrunkId{1}), nullptr);
}

TEST_F(ContextsTest, TheLineIsThatOfTheKeyWhereAFileIsNamedTwice) {
  const auto other = pki_.issue({.names = "DNS:b.example"});
  auto config =
      config::parse("[[listen]]\ntransport = 'tls'\naddress = '127.0.0.1:5061'\ncertificate = '" + files_.certificate +
                        "'\nkey = '" + files_.key + "'\n[[listen.certificates]]\ncertificate = '" + other.certificate +
                        "'\nkey = '" + files_.key + "'\n",
                    "k.toml");
  ASSERT_TRUE(config.has_value()) << config.error().what;
  const auto loaded = TlsContexts::load(*config, nullptr);
  ASSERT_EQ(loaded.errors.size(), 1u);
  EXPECT_EQ(loaded.errors[0].line, 8u) << loaded.errors[0].what;
}

TEST_F(ContextsTest, ContextsOutliveTheirSetAndSessionsOutliveTheirContext) {
  const auto config = parse();
  auto loaded = TlsContexts::load(config, nullptr);
  std::shared_ptr<const TlsContext> kept = loaded.contexts.listener(ListenerId{0});
  loaded = TlsContexts::load(config, nullptr);
  EXPECT_NE(loaded.contexts.listener(ListenerId{0}), kept);
  EXPECT_EQ(loaded.contexts.listener(ListenerId{0})->verification(), kept->verification());
  const auto theirs = test::client_context(pki_.authority_file());
  test::TcpPair sockets = test::tcp_pair();
  auto ours = TlsSession::accept(*kept, std::move(sockets.second));
  ASSERT_TRUE(ours.has_value());
  kept.reset();
  test::Peer peer(theirs.get(), std::move(sockets.first), Role::kConnect);
  EXPECT_EQ(test::shake(*ours, peer), TlsSession::Step::kDone);
}

}  // namespace
}  // namespace ktrunk::handshake
