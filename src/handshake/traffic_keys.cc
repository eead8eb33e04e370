#include "handshake/traffic_keys.h"

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/provider.h>

#include <algorithm>
#include <utility>

#include "handshake/tls_failure.h"

namespace ktrunk::handshake {
namespace {

thread_local TrafficKeysHearing* hearing = nullptr;

std::span<const std::byte> octets_of(const OSSL_PARAM* parameters, const char* name) {
  const OSSL_PARAM* found = OSSL_PARAM_locate_const(parameters, name);
  if (found == nullptr || found->data_type != OSSL_PARAM_OCTET_STRING) return {};
  return {static_cast<const std::byte*>(found->data), found->data_size};
}

// A context of ours is one of the KDF that the provider was given (provider-kdf(7)).
EVP_KDF_CTX* context_of(void* context) { return static_cast<EVP_KDF_CTX*>(context); }
EVP_KDF* kdf_of(void* provider) { return static_cast<EVP_KDF*>(provider); }

void* new_context(void* provider) { return EVP_KDF_CTX_new(kdf_of(provider)); }
void free_context(void* context) { EVP_KDF_CTX_free(context_of(context)); }
void reset(void* context) { EVP_KDF_CTX_reset(context_of(context)); }

int derive(void* context, unsigned char* out, std::size_t size, const OSSL_PARAM* parameters) {
  if (EVP_KDF_derive(context_of(context), out, size, parameters) != 1) return 0;
  if (hearing == nullptr) return 1;
  const std::span<const std::byte> label = octets_of(parameters, OSSL_KDF_PARAM_LABEL);
  hearing->derived({reinterpret_cast<const char*>(label.data()), label.size()},
                   octets_of(parameters, OSSL_KDF_PARAM_KEY), std::as_bytes(std::span(out, size)));
  return 1;
}

const OSSL_PARAM* settable(void*, void* provider) { return EVP_KDF_settable_ctx_params(kdf_of(provider)); }
int set(void* context, const OSSL_PARAM* parameters) { return EVP_KDF_CTX_set_params(context_of(context), parameters); }
const OSSL_PARAM* gettable(void*, void* provider) { return EVP_KDF_gettable_ctx_params(kdf_of(provider)); }
int get(void* context, OSSL_PARAM* parameters) { return EVP_KDF_CTX_get_params(context_of(context), parameters); }

// libcrypto knows the functions' types by their numbers.
template <typename Function>
auto untyped(Function* function) {
  return reinterpret_cast<void (*)()>(function);
}

const OSSL_ALGORITHM* algorithms(void*, int operation, int* may_not_be_kept) {
  static const OSSL_DISPATCH functions[] = {{OSSL_FUNC_KDF_NEWCTX, untyped(new_context)},
                                            {OSSL_FUNC_KDF_FREECTX, untyped(free_context)},
                                            {OSSL_FUNC_KDF_RESET, untyped(reset)},
                                            {OSSL_FUNC_KDF_DERIVE, untyped(derive)},
                                            {OSSL_FUNC_KDF_SETTABLE_CTX_PARAMS, untyped(settable)},
                                            {OSSL_FUNC_KDF_SET_CTX_PARAMS, untyped(set)},
                                            {OSSL_FUNC_KDF_GETTABLE_CTX_PARAMS, untyped(gettable)},
                                            {OSSL_FUNC_KDF_GET_CTX_PARAMS, untyped(get)},
                                            {0, nullptr}};
  // fips=yes: where the machine's configuration asks for that, what we hand on to was asked for it too.
  static const OSSL_ALGORITHM all[] = {
      {OSSL_KDF_NAME_TLS1_3_KDF, "provider=ktrunk,fips=yes", functions, "hears application traffic keys"},
      {nullptr, nullptr, nullptr, nullptr}};
  *may_not_be_kept = 0;
  return operation == OSSL_OP_KDF ? all : nullptr;
}

// Both live to the process's end.
OSSL_PROVIDER* loaded = nullptr;
EVP_KDF* implementation = nullptr;

int start_provider(const OSSL_CORE_HANDLE*, const OSSL_DISPATCH*, const OSSL_DISPATCH** out, void** provider) {
  static const OSSL_DISPATCH functions[] = {{OSSL_FUNC_PROVIDER_QUERY_OPERATION, untyped(algorithms)}, {0, nullptr}};
  *out = functions;
  *provider = implementation;
  return 1;
}

Result<const char*> load_provider() {
  implementation = EVP_KDF_fetch(nullptr, OSSL_KDF_NAME_TLS1_3_KDF, nullptr);
  if (implementation == nullptr) return fail("libcrypto has no {}: {}", OSSL_KDF_NAME_TLS1_3_KDF, openssl_error());
  constexpr int kKeepDefaults = 1;
  if (OSSL_PROVIDER_add_builtin(nullptr, "ktrunk", start_provider) == 1)
    loaded = OSSL_PROVIDER_try_load(nullptr, "ktrunk", kKeepDefaults);
  if (loaded == nullptr) return fail("libcrypto does not take a provider: {}", openssl_error());
  return "?provider=ktrunk";  // rather than others; for all else there are these
}

}  // namespace

Result<const char*> traffic_keys_are_heard() {
  static const Result<const char*> query = load_provider();
  return query;
}

TrafficKeysHearing::TrafficKeysHearing(TrafficKeysHearer& hearer)
    : hearer_(hearer), before_(std::exchange(hearing, this)) {}
TrafficKeysHearing::~TrafficKeysHearing() { hearing = before_; }

void TrafficKeysHearing::derived(std::string_view label, std::span<const std::byte> from,
                                 std::span<const std::byte> out) {
  if (label == "c ap traffic" || label == "s ap traffic") {
    writer_ = label.front() == 'c' ? ktls::Endpoint::kClient : ktls::Endpoint::kServer;
    keys_.secret = ktls::TrafficSecret(out);
    return;
  }
  if (keys_.secret.empty() || !std::ranges::equal(from, keys_.secret.bytes())) return;
  if (label == "key") keys_.key = ktls::Secret<ktls::kMaxKeyBytes>(out);
  if (label == "iv") keys_.iv = ktls::Secret<ktls::kNonceBytes>(out);
  if (!keys_.key.empty() && !keys_.iv.empty()) hearer_.on_traffic_keys(writer_, std::exchange(keys_, {}));
}

}  // namespace ktrunk::handshake
