#include "ktls/support.h"

#include <gtest/gtest.h>

#include "ktls/fake_kernel.h"

namespace ktrunk::ktls {
namespace {

using test::FakeKernel;

TEST(ProbeSupport, WholeKernel) {
  FakeKernel kernel;
  kernel.has_rekey = true;
  const Support support = probe_support(kernel);
  EXPECT_TRUE(support.ulp);
  EXPECT_TRUE(support.rekey);
  EXPECT_EQ(support.reason, "");
  for (const Version version : kVersions)
    for (const Aead aead : kAeads) EXPECT_TRUE(support.complete(version, aead));
  EXPECT_EQ(support.describe(),
            "kernel TLS; TLS 1.2: AES-128-GCM, AES-256-GCM, CHACHA20-POLY1305; TLS 1.3: AES-128-GCM, AES-256-GCM, "
            "CHACHA20-POLY1305; rekey");
}

TEST(ProbeSupport, KernelWithoutTls) {
  FakeKernel kernel;
  kernel.has_tls = false;
  const Support support = probe_support(kernel);
  EXPECT_FALSE(support.ulp);
  EXPECT_FALSE(support.complete(Version::kTls12, Aead::kAes128Gcm));
  EXPECT_NE(support.describe().find("no kernel TLS"), std::string::npos);
  EXPECT_NE(support.describe().find("modprobe tls"), std::string::npos);
}

TEST(ProbeSupport, OldKernelWithoutTls13) {
  FakeKernel kernel;
  kernel.only_version = TLS_1_2_VERSION;
  const Support support = probe_support(kernel);
  EXPECT_TRUE(support.complete(Version::kTls12, Aead::kChaCha20Poly1305));
  EXPECT_FALSE(support.suite(Version::kTls13, Aead::kAes128Gcm).transmit);
  EXPECT_FALSE(support.rekey);
  EXPECT_NE(support.describe().find("TLS 1.3: none"), std::string::npos);
}

TEST(ProbeSupport, OneDirectionOnlyShows) {
  FakeKernel kernel;
  kernel.no_receive_cipher = TLS_CIPHER_CHACHA20_POLY1305;
  const Support support = probe_support(kernel);
  EXPECT_TRUE(support.suite(Version::kTls13, Aead::kChaCha20Poly1305).transmit);
  EXPECT_FALSE(support.suite(Version::kTls13, Aead::kChaCha20Poly1305).receive);
  EXPECT_FALSE(support.complete(Version::kTls13, Aead::kChaCha20Poly1305));
  EXPECT_TRUE(support.complete(Version::kTls13, Aead::kAes128Gcm));
  EXPECT_NE(support.describe().find("CHACHA20-POLY1305 (transmit only)"), std::string::npos);
  EXPECT_NE(support.reason, "");
}

// Any call may fail: something is then missing, and no descriptor stays open (test_main looks).
TEST(ProbeSupport, EveryFailingCall) {
  FakeKernel counting;
  (void)probe_support(counting);
  for (int call = 0; call < counting.calls; ++call) {
    FakeKernel kernel;
    kernel.fail_call = call;
    kernel.fail_with = EPERM;
    const Support support = probe_support(kernel);
    bool whole = support.ulp;
    for (const Version version : kVersions)
      for (const Aead aead : kAeads) whole = whole && support.complete(version, aead);
    EXPECT_TRUE(!whole || !support.rekey) << call;
  }
}

TEST(ProbeSupport, TheRunningKernelGivesAnAnswer) { EXPECT_NE(probe_support().describe(), ""); }

}  // namespace
}  // namespace ktrunk::ktls
