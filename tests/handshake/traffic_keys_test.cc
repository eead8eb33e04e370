// What OpenSSL derives for a session's records is heard, and nothing else.
#include "handshake/traffic_keys.h"

#include <gmock/gmock.h>
#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/provider.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ktls/key_schedule.h"

namespace ktrunk::handshake {
namespace {

using testing::ElementsAreArray;
using testing::IsEmpty;
using testing::SizeIs;

struct Heard {
  ktls::Endpoint writer;
  TrafficKeys keys;
};

struct Hearer final : TrafficKeysHearer {
  void on_traffic_keys(ktls::Endpoint writer, TrafficKeys keys) override {
    heard.push_back({.writer = writer, .keys = std::move(keys)});
  }
  std::vector<Heard> heard;
};

class TrafficKeysTest : public testing::Test {
 protected:
  void SetUp() override {
    const Result<const char*> query = traffic_keys_are_heard();
    ASSERT_TRUE(query) << query.error().what;
    kdf_.reset(EVP_KDF_fetch(nullptr, OSSL_KDF_NAME_TLS1_3_KDF, *query));
    ASSERT_NE(kdf_, nullptr);
    for (std::size_t i = 0; i < secret_.size(); ++i) secret_[i] = static_cast<unsigned char>(i * 7);
  }
  // As OpenSSL asks for it: HKDF-Expand-Label (RFC 8446 7.1). Empty when it fails.
  std::vector<unsigned char> expand(std::string label, std::vector<unsigned char> from, std::size_t size,
                                    std::string digest = "SHA2-256") {
    const std::unique_ptr<EVP_KDF_CTX, decltype(&EVP_KDF_CTX_free)> context(EVP_KDF_CTX_new(kdf_.get()),
                                                                            EVP_KDF_CTX_free);
    int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
    std::string prefix = "tls13 ";
    const std::array parameters = {
        OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest.data(), 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, from.data(), from.size()),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PREFIX, prefix.data(), prefix.size()),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_LABEL, label.data(), label.size()),
        OSSL_PARAM_construct_end()};
    std::vector<unsigned char> out(size);
    if (EVP_KDF_derive(context.get(), out.data(), out.size(), parameters.data()) != 1) return {};
    return out;
  }
  std::unique_ptr<EVP_KDF, decltype(&EVP_KDF_free)> kdf_{nullptr, EVP_KDF_free};
  std::vector<unsigned char> secret_ = std::vector<unsigned char>(32);
};

std::vector<unsigned char> octets(std::span<const std::byte> from) {
  std::vector<unsigned char> all;
  for (const std::byte each : from) all.push_back(static_cast<unsigned char>(each));
  return all;
}

TEST_F(TrafficKeysTest, ASecretWithItsKeyAndItsIv) {
  Hearer hearer;
  const TrafficKeysHearing hearing(hearer);
  for (const char* label : {"c ap traffic", "s ap traffic"}) {
    const auto secret = expand(label, secret_, 32);
    const auto key = expand("key", secret, 16);
    EXPECT_THAT(hearer.heard, IsEmpty()) << "the IV is still to come";
    const auto iv = expand("iv", secret, 12);
    ASSERT_THAT(hearer.heard, SizeIs(1));
    const Heard heard = std::move(hearer.heard.front());
    hearer.heard.clear();
    EXPECT_EQ(heard.writer, label[0] == 'c' ? ktls::Endpoint::kClient : ktls::Endpoint::kServer);
    EXPECT_EQ(octets(heard.keys.secret.bytes()), secret);
    EXPECT_EQ(octets(heard.keys.key.bytes()), key);
    EXPECT_EQ(octets(heard.keys.iv.bytes()), iv);
    // And they are what a key update's next secret would give them.
    const auto ours = ktls::keys_from_secret<ktls::Direction::kTransmit>(ktls::Aead::kAes128Gcm, ktls::Hash::kSha256,
                                                                         heard.keys.secret, {0});
    ASSERT_TRUE(ours) << ours.error().what;
    EXPECT_EQ(octets(ours->key.bytes()), key);
    EXPECT_EQ(octets(ours->nonce.bytes()), iv);
  }
}

TEST_F(TrafficKeysTest, NoOtherSecretsNorTheirKeys) {
  Hearer hearer;
  const TrafficKeysHearing hearing(hearer);
  for (const char* label : {"c hs traffic", "s hs traffic", "c e traffic", "exp master", "res master"}) {
    const auto secret = expand(label, secret_, 32);
    ASSERT_FALSE(secret.empty());
    EXPECT_FALSE(expand("key", secret, 16).empty());
    EXPECT_FALSE(expand("iv", secret, 12).empty());
  }
  const auto secret = expand("s ap traffic", secret_, 32);
  EXPECT_FALSE(expand("key", secret_, 16).empty());
  EXPECT_FALSE(expand("iv", secret_, 12).empty());
  EXPECT_FALSE(expand("finished", secret, 32).empty());
  EXPECT_THAT(hearer.heard, IsEmpty());
}

TEST_F(TrafficKeysTest, OnlyWhileSomebodyHears) {
  Hearer outer, inner;
  const auto derive_all = [&] {
    const auto secret = expand("c ap traffic", secret_, 32);
    return !expand("key", secret, 16).empty() && !expand("iv", secret, 12).empty();
  };
  EXPECT_TRUE(derive_all());
  {
    const TrafficKeysHearing hearing(outer);
    {
      const TrafficKeysHearing within(inner);
      EXPECT_TRUE(derive_all());
    }
    EXPECT_THAT(outer.heard, IsEmpty());
    EXPECT_THAT(inner.heard, SizeIs(1));
    EXPECT_TRUE(derive_all());
  }
  EXPECT_TRUE(derive_all());
  EXPECT_THAT(outer.heard, SizeIs(1));
  EXPECT_THAT(inner.heard, SizeIs(1));
}

TEST_F(TrafficKeysTest, WhatFailsIsNotHeard) {
  Hearer hearer;
  const TrafficKeysHearing hearing(hearer);
  EXPECT_THAT(expand("c ap traffic", secret_, 32, "no such digest"), IsEmpty());
  EXPECT_THAT(expand("key", secret_, 16, "no such digest"), IsEmpty());
  EXPECT_THAT(hearer.heard, IsEmpty());
}

// What the rest of the program fetches is what it would be without us.
TEST_F(TrafficKeysTest, OtherAlgorithmsStay) {
  const std::unique_ptr<EVP_KDF, decltype(&EVP_KDF_free)> hkdf(EVP_KDF_fetch(nullptr, "HKDF", "?provider=ktrunk"),
                                                               EVP_KDF_free);
  ASSERT_NE(hkdf, nullptr);
  EXPECT_STREQ(OSSL_PROVIDER_get0_name(EVP_KDF_get0_provider(hkdf.get())), "default");
  EXPECT_STREQ(OSSL_PROVIDER_get0_name(EVP_KDF_get0_provider(kdf_.get())), "ktrunk");
}

}  // namespace
}  // namespace ktrunk::handshake
