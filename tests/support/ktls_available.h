// Tests that need kernel TLS say so first: KTRUNK_REQUIRE_KTLS(); they are skipped with the reason where the kernel has
// none, and fail instead when the environment has KTRUNK_EXPECT_KTLS=1 (the machines whose kernel must have it).
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "ktls/crypto_info.h"
#include "ktls/support.h"

namespace ktrunk::test {

// The probe's result, taken once per process.
[[nodiscard]] const ktls::Support& ktls_support();
// Why kernel TLS, or this version and cipher in both directions, cannot be used; empty when it can.
[[nodiscard]] std::string ktls_missing();
[[nodiscard]] std::string ktls_missing(ktls::Version version, ktls::Aead aead);
// True when the environment says that kernel TLS must be there.
[[nodiscard]] bool ktls_expected();

}  // namespace ktrunk::test

// At the start of a test body (or SetUp): returns from it when kernel TLS, or KTRUNK_REQUIRE_KTLS(version, aead), is
// missing.
#define KTRUNK_REQUIRE_KTLS(...)                                                                     \
  do {                                                                                               \
    const std::string ktrunk_missing = ::ktrunk::test::ktls_missing(__VA_ARGS__);                    \
    if (!ktrunk_missing.empty()) {                                                                   \
      if (::ktrunk::test::ktls_expected()) FAIL() << "KTRUNK_EXPECT_KTLS=1, but " << ktrunk_missing; \
      GTEST_SKIP() << ktrunk_missing;                                                                \
    }                                                                                                \
  } while (false)
