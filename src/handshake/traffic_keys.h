// Traffic keys: a session's application traffic secrets of TLS 1.3 (RFC 8446 7.1), with the key and the IV made of each
// (7.3), in the moment that OpenSSL derives them, which is when it takes them into use.
//
// OpenSSL's own way to the secrets is the keylog callback: it prints all of a session's secrets, and its random with
// each, octet by octet with sprintf, which is a twentieth of a handshake's instructions. But it derives by EVP_KDF's
// "TLS13-KDF" (EVP_KDF-TLS13_KDF(7)), and a program may have a provider of its own for that (provider(7)). Ours hands
// every call on to the implementation that there would be without it, and sees what comes of it.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "base/result.h"
#include "ktls/crypto_info.h"
#include "ktls/key_schedule.h"

namespace ktrunk::handshake {

// The property query for SSL_CTX_new_ex with which a context's sessions derive by way of our provider. That is loaded
// when this is called first. Error: why libcrypto does not take it.
[[nodiscard]] Result<const char*> traffic_keys_are_heard();

// All for one direction. Wipes itself.
struct TrafficKeys {
  ktls::TrafficSecret secret;
  ktls::Secret<ktls::kMaxKeyBytes> key;
  ktls::Secret<ktls::kNonceBytes> iv;
};

// Who is told of them.
class TrafficKeysHearer {
 public:
  // writer: whose records they are for.
  virtual void on_traffic_keys(ktls::Endpoint writer, TrafficKeys keys) = 0;

 protected:
  ~TrafficKeysHearer() = default;
};

// While it lives, the hearer is told of what OpenSSL derives in this thread.
class TrafficKeysHearing {
 public:
  explicit TrafficKeysHearing(TrafficKeysHearer& hearer);
  ~TrafficKeysHearing();
  TrafficKeysHearing(const TrafficKeysHearing&) = delete;
  TrafficKeysHearing& operator=(const TrafficKeysHearing&) = delete;

  // By the provider: `out` is what HKDF-Expand-Label(from, label, ..) has given.
  void derived(std::string_view label, std::span<const std::byte> from, std::span<const std::byte> out);

 private:
  TrafficKeysHearer& hearer_;
  TrafficKeysHearing* before_;
  ktls::Endpoint writer_ = ktls::Endpoint::kClient;
  TrafficKeys keys_;  // as far as they have come
};

}  // namespace ktrunk::handshake
