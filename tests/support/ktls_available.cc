#include "support/ktls_available.h"

#include <fmt/format.h>

#include <cstdlib>
#include <string_view>

namespace ktrunk::test {

const ktls::Support& ktls_support() {
  static const ktls::Support support = ktls::probe_support();
  return support;
}

std::string ktls_missing() { return ktls_support().ulp ? std::string() : ktls_support().describe(); }

std::string ktls_missing(ktls::Version version, ktls::Aead aead) {
  if (ktls_support().complete(version, aead)) return {};
  return fmt::format("{} {}: {}", ktls::version_name(version), ktls::aead_name(aead), ktls_support().describe());
}

bool ktls_expected() {
  const char* value = std::getenv("KTRUNK_EXPECT_KTLS");
  return value != nullptr && std::string_view(value) == "1";
}

}  // namespace ktrunk::test
