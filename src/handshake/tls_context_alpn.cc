#include "handshake/tls_context_alpn.h"

#include <string_view>

#include "handshake/tls_failure.h"

namespace ktrunk::handshake {
namespace {

constexpr std::string_view kOffer = "\x05sip/2";  // ProtocolNameList's one entry: its length, then the name
constexpr std::string_view kProtocol = kOffer.substr(1);

// On a client's context that insists.
struct Required {};

int on_alpn(SSL*, const unsigned char** out, unsigned char* out_size, const unsigned char* in, unsigned in_size,
            void*) {
  // OpenSSL has checked the list's form.
  for (unsigned at = 0; at < in_size; at += 1u + in[at]) {
    const std::string_view name(reinterpret_cast<const char*>(in) + at + 1, in[at]);
    if (name != kProtocol) continue;
    *out = in + at + 1;
    *out_size = in[at];
    return SSL_TLSEXT_ERR_OK;
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL;  // no_application_protocol
}

// A ClientHello without the extension never gets to on_alpn().
int on_client_hello(SSL* session, int* alert, void*) {
  const unsigned char* data = nullptr;
  std::size_t size = 0;
  if (SSL_client_hello_get0_ext(session, TLSEXT_TYPE_application_layer_protocol_negotiation, &data, &size) == 1)
    return SSL_CLIENT_HELLO_SUCCESS;
  *alert = SSL_AD_NO_APPLICATION_PROTOCOL;
  return SSL_CLIENT_HELLO_ERROR;
}

}  // namespace

void accept_alpn(SSL_CTX* context, config::Alpn alpn) {
  if (alpn == config::Alpn::kOff) return;
  SSL_CTX_set_alpn_select_cb(context, on_alpn, nullptr);
  if (alpn == config::Alpn::kRequire) SSL_CTX_set_client_hello_cb(context, on_client_hello, nullptr);
}

Status offer_alpn(SSL_CTX* context, const Place& place, config::Alpn alpn) {
  if (alpn == config::Alpn::kOff) return {};
  constexpr int kDone = 0;  // unlike most of OpenSSL
  if (SSL_CTX_set_alpn_protos(context, reinterpret_cast<const unsigned char*>(kOffer.data()),
                              static_cast<unsigned>(kOffer.size())) != kDone)
    return place.wrong("alpn", openssl_error());
  if (alpn == config::Alpn::kRequire && !attach(context, std::make_unique<Required>()))
    return place.wrong("alpn", openssl_error());
  return {};
}

Status check_alpn(const SSL* session) {
  if (attached<Required>(SSL_get_SSL_CTX(session)) == nullptr) return {};
  const unsigned char* name = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(session, &name, &size);
  if (std::string_view(reinterpret_cast<const char*>(name), size) == kProtocol) return {};
  return fail(
      "the peer did not choose \"sip/2\" by ALPN, and 'trunk.alpn' is \"require\": set \"accept\", or have the "
      "peer use ALPN");
}

}  // namespace ktrunk::handshake
