// Published vectors: RFC 8448 3 for TLS 1.3; for TLS 1.2's PRF those that the TLS working group's list agreed on.
#include "ktls/key_schedule.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

namespace ktrunk::ktls {
namespace {

std::vector<std::byte> from_hex(std::string_view text) {
  std::vector<std::byte> out;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2)
    out.push_back(static_cast<std::byte>(std::stoi(std::string(text.substr(i, 2)), nullptr, 16)));
  return out;
}

std::string to_hex(std::span<const std::byte> bytes) {
  std::string out;
  for (const std::byte byte : bytes) out += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  return out;
}

TEST(KeySchedule13, Rfc8448ClientAndServerApplicationKeys) {
  const TrafficSecret client(from_hex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5"));
  const auto receive = keys_from_secret<Direction::kReceive>(Aead::kAes128Gcm, Hash::kSha256, client, {7});
  ASSERT_TRUE(receive.has_value());
  EXPECT_EQ(to_hex(receive->key.bytes()), "17422dda596ed5d9acd890e3c63f5051");
  EXPECT_EQ(to_hex(receive->nonce.bytes()), "5b78923dee08579033e523d9");
  EXPECT_EQ(receive->next, RecordSeq{7});
  EXPECT_EQ(receive->version, Version::kTls13);

  const TrafficSecret server(from_hex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643"));
  const auto transmit = keys_from_secret<Direction::kTransmit>(Aead::kAes128Gcm, Hash::kSha256, server, {0});
  ASSERT_TRUE(transmit.has_value());
  EXPECT_EQ(to_hex(transmit->key.bytes()), "9f02283b6c9c07efc26bb9f2ac92e356");
  EXPECT_EQ(to_hex(transmit->nonce.bytes()), "cf782b88dd83549aadf1e984");
}

TEST(KeySchedule13, ContextGoesIntoTheLabel) {
  // RFC 8448 3: resumption PSK from the resumption master secret and the ticket's nonce 0000.
  const auto secret = from_hex("7df235f2031d2a051287d02b0241b0bfdaf86cc856231f2d5aba46c434ec196c");
  std::array<std::byte, 32> psk = {};
  ASSERT_TRUE(expand_label(Hash::kSha256, secret, "resumption", from_hex("0000"), psk).has_value());
  EXPECT_EQ(to_hex(psk), "4ecd0eb6ec3b4d87f5d6028f922ca4c5851a277fd41311c9e62d2c9492e1c4f3");
}

TEST(KeySchedule13, NextSecretIsNeverTheSameAndKeepsItsLength) {
  for (const Hash hash : {Hash::kSha256, Hash::kSha384}) {
    TrafficSecret secret;
    secret.resize(hash_bytes(hash));
    const auto next = next_secret(hash, secret);
    ASSERT_TRUE(next.has_value());
    EXPECT_EQ(next->size(), hash_bytes(hash));
    EXPECT_NE(to_hex(next->bytes()), to_hex(secret.bytes()));
  }
}

TEST(KeySchedule13, RefusesWrongLengths) {
  std::array<std::byte, 16> out = {};
  const std::array<std::byte, 31> short_secret = {};
  const std::array<std::byte, 32> secret = {};
  EXPECT_FALSE(expand_label(Hash::kSha256, short_secret, "key", {}, out).has_value());
  EXPECT_FALSE(expand_label(Hash::kSha384, secret, "key", {}, out).has_value());
  EXPECT_FALSE(expand_label(Hash::kSha256, secret, "", {}, out).has_value());
  EXPECT_FALSE(expand_label(Hash::kSha256, secret, std::string(250, 'x'), {}, out).has_value());
  EXPECT_FALSE(expand_label(Hash::kSha256, secret, "key", {}, {}).has_value());
  const std::array<std::byte, 256> long_context = {};
  EXPECT_FALSE(expand_label(Hash::kSha256, secret, "key", long_context, out).has_value());
}

TEST(KeySchedule12, PrfSha256) {
  std::array<std::byte, 100> out = {};
  ASSERT_TRUE(prf12(Hash::kSha256, from_hex("9bbe436ba940f017b17652849a71db35"), "test label",
                    from_hex("a0ba9f936cda311827a6f796ffd5198c"), out)
                  .has_value());
  EXPECT_EQ(
      to_hex(out),
      "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14baf9af0fa022f7077"
      "def17abfd3797c0564bab4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff70187347b66");
}

TEST(KeySchedule12, PrfSha384) {
  std::array<std::byte, 148> out = {};
  ASSERT_TRUE(prf12(Hash::kSha384, from_hex("b80b733d6ceefcdc71566ea48e5567df"), "test label",
                    from_hex("cd665cf6a8447dd6ff8b27555edb7465"), out)
                  .has_value());
  EXPECT_EQ(
      to_hex(out),
      "7b0c18e9ced410ed1804f2cfa34a336a1c14dffb4900bb5fd7942107e81c83cde9ca0faa60be9fe34f82b1233c9146a0e534cb400fe"
      "d2700884f9dc236f80edd8bfa961144c9e8d792eca722a7b32fc3d416d473ebc2c5fd4abfdad05d9184259b5bf8cd4d90fa0d31e2de"
      "c479e4f1a26066f2eea9a69236a3e52655c9e9aee691c8f3a26854308d5eaa3be85e0990703d73e56f");
}

// The two ends' keys are each other's, whoever is the client.
TEST(KeySchedule12, WhatOneEndSendsTheOtherReceives) {
  const std::vector<std::byte> master(48, std::byte{1});
  const std::vector<std::byte> client(32, std::byte{2});
  const std::vector<std::byte> server(32, std::byte{3});
  for (const Aead aead : kAeads) {
    const Tls12Secrets secrets{master, client, server};
    const auto ours =
        keys_from_master_secret(Endpoint::kClient, aead, Hash::kSha256, secrets, {{1}, {2}, 0x1122334455667788});
    const auto theirs = keys_from_master_secret(Endpoint::kServer, aead, Hash::kSha256, secrets, {{3}, {4}, 0});
    ASSERT_TRUE(ours.has_value() && theirs.has_value());
    EXPECT_EQ(to_hex(ours->transmit.key.bytes()), to_hex(theirs->receive.key.bytes()));
    EXPECT_EQ(to_hex(ours->receive.key.bytes()), to_hex(theirs->transmit.key.bytes()));
    EXPECT_NE(to_hex(ours->transmit.key.bytes()), to_hex(ours->receive.key.bytes()));
    EXPECT_EQ(to_hex(ours->transmit.nonce.bytes().first(4)), to_hex(theirs->receive.nonce.bytes().first(4)));
    EXPECT_EQ(ours->transmit.nonce.size(), kNonceBytes);
    EXPECT_EQ(ours->transmit.key.size(), key_bytes(aead));
    EXPECT_EQ(ours->transmit.next, RecordSeq{1});
    EXPECT_EQ(ours->receive.next, RecordSeq{2});
    const bool explicit_nonce = to_hex(ours->transmit.nonce.bytes().subspan(4)) == "1122334455667788";
    EXPECT_EQ(explicit_nonce, aead != Aead::kChaCha20Poly1305);
  }
}

TEST(KeySchedule12, RefusesWrongLengths) {
  const std::vector<std::byte> master(47);
  const std::vector<std::byte> random(32);
  EXPECT_FALSE(keys_from_master_secret(Endpoint::kClient, Aead::kAes128Gcm, Hash::kSha256, {master, random, random}, {})
                   .has_value());
  EXPECT_FALSE(prf12(Hash::kSha256, random, "key expansion", random, {}).has_value());
}

}  // namespace
}  // namespace ktrunk::ktls
