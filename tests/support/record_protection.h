// Records of TLS 1.2 and 1.3 sealed and opened in user space, with every field open to abuse: for tests alone.
// RFC 8446 5.2; RFC 5246 6.2.3.3 with RFC 5288 and RFC 7905.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "ktls/control_record.h"
#include "ktls/key_schedule.h"

namespace ktrunk::test {

inline constexpr std::size_t kRecordHeaderBytes = 5;

struct TlsRecord {
  std::uint8_t type = 0;  // ContentType; in TLS 1.3 the one inside
  std::string payload;
};

// How a record is to differ from what the standard says. As it is: not at all.
struct RecordShape {
  std::size_t padding = 0;                 // TLS 1.3: zeros behind the inner type
  std::optional<std::uint64_t> number;     // instead of the next one, which then is not used up
  std::optional<std::uint8_t> outer_type;  // in the header
  std::uint16_t version = 0x0303;          // in the header
  std::optional<std::uint16_t> length;     // in the header; not what follows
  enum class Tag : std::uint8_t { kRight, kWrong, kCutOff } tag = Tag::kRight;
};

// A record without protection.
[[nodiscard]] std::string plain_record(std::uint8_t type, std::string_view payload, std::uint16_t version = 0x0303);

// One direction's keys and record numbers.
template <ktls::Direction D>
class RecordProtection {
 public:
  // hash and secret: TLS 1.3, to follow KeyUpdates.
  RecordProtection(ktls::Keys<D> keys, ktls::Hash hash, ktls::TrafficSecret secret)
      : keys_(std::move(keys)), hash_(hash), secret_(std::move(secret)) {}

  // The keys that follow a KeyUpdate (RFC 8446 7.2).
  [[nodiscard]] Status advance();
  [[nodiscard]] std::uint64_t next_number() const { return keys_.next.value; }
  [[nodiscard]] bool tls13() const { return keys_.version == ktls::Version::kTls13; }

  [[nodiscard]] std::string seal(std::uint8_t type, std::string_view payload, const RecordShape& shape = {})
    requires(D == ktls::Direction::kTransmit);
  // A whole record with its header.
  [[nodiscard]] Result<TlsRecord> open(std::string_view record)
    requires(D == ktls::Direction::kReceive);

 private:
  [[nodiscard]] bool explicit_nonce() const { return !tls13() && keys_.aead != ktls::Aead::kChaCha20Poly1305; }
  [[nodiscard]] std::string nonce(std::uint64_t number, std::string_view explicit_part) const;
  [[nodiscard]] std::string associated(std::uint64_t number, std::string_view header, std::size_t plain) const;
  // Works on text in place; the tag is written or checked.
  [[nodiscard]] bool run(const std::string& nonce, const std::string& aad, std::string& text, std::string& tag) const;

  ktls::Keys<D> keys_;
  ktls::Hash hash_;
  ktls::TrafficSecret secret_;
  std::uint64_t explicit_next_ = 0x8000'0000'0000'0000;  // far from where OpenSSL's handshake records were
};

}  // namespace ktrunk::test
