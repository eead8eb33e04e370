// Certificate: a throw-away certificate and key, for measurements that have both ends in one program.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace ktrunk::bench {

// A folder with a self-signed certificate for "bench.invalid" and its key, PEM; gone with its owner. The certificate is
// its own authority.
class TemporaryCertificate {
 public:
  static constexpr std::string_view kName = "bench.invalid";

  enum class KeyType : std::uint8_t { kEcdsaP256, kRsa2048 };
  // Error: no folder for temporary files ($TMPDIR, /tmp), or OpenSSL.
  [[nodiscard]] static Result<TemporaryCertificate> make(KeyType type);
  TemporaryCertificate(TemporaryCertificate&& other) noexcept : folder_(std::exchange(other.folder_, {})) {}
  TemporaryCertificate& operator=(TemporaryCertificate&&) = delete;
  ~TemporaryCertificate();

  [[nodiscard]] std::string certificate() const { return folder_ / "bench.pem"; }
  [[nodiscard]] std::string key() const { return folder_ / "bench.key"; }

 private:
  explicit TemporaryCertificate(std::filesystem::path folder) : folder_(std::move(folder)) {}
  std::filesystem::path folder_;
};

}  // namespace ktrunk::bench
