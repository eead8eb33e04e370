#include "handshake/tls_failure.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/sslerr.h>
#include <openssl/x509_vfy.h>

#include <algorithm>
#include <string_view>

namespace ktrunk::handshake {
namespace {

std::string reason_text(unsigned long error) {
  if (error == 0) return "no reason given";
  const char* reason = ERR_reason_error_string(error);
  return reason != nullptr ? reason : fmt::format("OpenSSL error {:#x}", error);
}

std::string_view key_prefix(Role role) { return role == Role::kAccept ? "listen" : "trunk"; }

std::string explain_verify(const FailureFacts& facts) {
  const std::string_view keys = key_prefix(facts.role);
  const char* text = X509_verify_cert_error_string(facts.verify_error);
  switch (facts.verify_error) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
      return fmt::format(
          "the peer's certificate is for {}, not for '{}'; set 'trunk.verify_name' to a name in it, or have the peer "
          "use one with that name (wildcards do not count, RFC 5922)",
          facts.verify_names, facts.expected);
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
      return fmt::format(
          "unknown CA: the peer's certificate '{}' leads to '{}', which we do not trust ({}); add that CA to the file "
          "of '{}.ca', or have the peer send its intermediate certificates",
          facts.verify_leaf, facts.verify_issuer, text, keys);
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return fmt::format("the peer's certificate '{}': {}; have the peer renew it, and check the clock here",
                         facts.verify_subject, text);
    case X509_V_ERR_INVALID_PURPOSE:
      if (facts.role == Role::kAccept)
        return fmt::format(
            "the certificate '{}' of the peer's chain is not for a TLS client (extendedKeyUsage); have the peer use "
            "one "
            "for clientAuth or sipDomain, or set 'listen.client_purpose' to \"any\" to take server certificates too",
            facts.verify_subject);
      return fmt::format(
          "the certificate '{}' of the peer's chain is not for a TLS server (extendedKeyUsage); have the peer use one "
          "for serverAuth or sipDomain",
          facts.verify_subject);
    case X509_V_ERR_CERT_REVOKED:
      return fmt::format(
          "the peer's certificate '{}' is revoked, says the list of '{}' in the file of '{}.crl'; have the "
          "peer get a new one",
          facts.verify_subject, facts.verify_issuer, keys);
    case X509_V_ERR_UNABLE_TO_GET_CRL:
      return fmt::format(
          "whether the peer's certificate '{}' is revoked cannot be told: the file of '{}.crl' has no list "
          "of '{}'; add it, then reload",
          facts.verify_subject, keys, facts.verify_issuer);
    case X509_V_ERR_CRL_HAS_EXPIRED:
    case X509_V_ERR_CRL_NOT_YET_VALID:
      return fmt::format(
          "whether the peer's certificate '{}' is revoked cannot be told: the list of '{}' in the file of "
          "'{}.crl': {}; fetch a new one, then reload, and check the clock",
          facts.verify_subject, facts.verify_issuer, keys, text);
    default:
      return fmt::format("the peer's certificate '{}' does not verify: {}", facts.verify_subject, text);
  }
}

std::string_view alert_remedy(const FailureFacts& facts) {
  const bool client = facts.role == Role::kConnect;
  switch (facts.received->description) {
    case ktls::AlertDescription::kUnknownCa:
      return "the peer does not trust our certificate's CA: give the whole chain in the certificate file, or have the "
             "peer add our CA (a certificate that it cannot check may also be the wrong one)";
    case ktls::AlertDescription::kBadCertificate:
    case ktls::AlertDescription::kCertificateUnknown:
    case ktls::AlertDescription::kUnsupportedCertificate:
    case ktls::AlertDescription::kAccessDenied:
      return "the peer does not accept our certificate: check its names, its key usage, and what the peer expects";
    case ktls::AlertDescription::kCertificateExpired:
      return "our certificate has expired: renew it and reload";
    case ktls::AlertDescription::kCertificateRevoked:
      return "our certificate is revoked: renew it and reload";
    case ktls::AlertDescription::kCertificateRequired:
      return "the peer wants a client certificate: set 'trunk.certificate' and 'trunk.key'";
    case ktls::AlertDescription::kHandshakeFailure:
      return client ? "no cipher suite in common, or the peer wants a client certificate: check 'trunk.ciphers', "
                      "'trunk.certificate' and 'trunk.key'"
                    : "no cipher suite or signature algorithm in common: check 'listen.ciphers' and our key's type";
    case ktls::AlertDescription::kProtocolVersion:
      return client ? "no TLS version in common: check 'trunk.min_version' and 'trunk.max_version'"
                    : "no TLS version in common: check 'listen.min_version' and 'listen.max_version'";
    case ktls::AlertDescription::kUnrecognizedName:
      return "the peer has no certificate for the name that we asked for: check the target's host and "
             "'trunk.verify_name'";
    case ktls::AlertDescription::kNoApplicationProtocol:
      return "the peer speaks no \"sip/2\" by ALPN: set 'trunk.alpn' to \"off\", or have the peer do it";
    case ktls::AlertDescription::kCloseNotify:
    case ktls::AlertDescription::kUserCanceled:
      return "the peer gave up the handshake";
    default:
      return {};
  }
}

std::string explain_received(const FailureFacts& facts) {
  const ktls::Alert alert = *facts.received;
  const std::string_view remedy = alert_remedy(facts);
  return fmt::format("the peer sent alert {} ({}){}{}", ktls::alert_name(alert.description),
                     static_cast<unsigned>(alert.description), remedy.empty() ? "" : ": ", remedy);
}

// The peer's first octets when they are text: every TLS record begins with an octet below 0x20, and so did SSLv2's
// with one from 0x80.
std::string_view plain_text(std::span<const std::byte> beginning) {
  const std::string_view text(reinterpret_cast<const char*>(beginning.data()), beginning.size());
  const bool printable =
      std::ranges::all_of(text, [](char c) { return (c >= ' ' && c < '\x7f') || c == '\r' || c == '\n'; });
  return printable ? text : std::string_view();
}

std::string explain_plain_text(const FailureFacts& facts, std::string_view text) {
  const bool accepting = facts.role == Role::kAccept;
  const auto begins = [&](std::string_view with) { return text.substr(0, with.size()) == with; };
  if (begins("GET ") || begins("POST ") || begins("HEAD ") || begins("PUT ") || begins("CONNE") || begins("HTTP"))
    return accepting ? "the peer speaks HTTP: this port is for SIP over TLS"
                     : "the peer speaks HTTP: the trunk's target is a web server's port";
  std::string shown;
  for (const char c : text) shown += c == '\r' || c == '\n' ? ' ' : c;
  return accepting ? fmt::format(
                         "the peer speaks plain text (it began with '{}'), likely SIP over TCP on a TLS port; "
                         "have it use transport=tls, or point it to a tcp listener",
                         shown)
                   : fmt::format(
                         "the peer speaks plain text (it began with '{}'); the target's port is not a TLS one: "
                         "use its TLS port, often 5061, or a tcp: target",
                         shown);
}

std::string explain_reason(const FailureFacts& facts, unsigned long error) {
  const std::string_view keys = key_prefix(facts.role);
  switch (ERR_GET_LIB(error) == ERR_LIB_SSL ? ERR_GET_REASON(error) : 0) {
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
      return "the peer sent no client certificate, and 'listen.verify_client' is \"require\": have the peer use one, "
             "or set \"optional\"";
    case SSL_R_NO_SHARED_CIPHER:
      return fmt::format(
          "no shared cipher: none of the peer's cipher suites is among ours; check '{0}.ciphers' and "
          "'{0}.ciphersuites', and that our key's type (RSA or EC) suits the peer",
          keys);
    case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
    case SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS:
      return "no signature algorithm in common: the peer cannot check a key of our certificate's type";
    case SSL_R_NO_SUITABLE_KEY_SHARE:
    case SSL_R_NO_SHARED_GROUPS:
      return fmt::format("no key exchange group in common with the peer; check '{}.groups'", keys);
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_VERSION_TOO_HIGH:
    case SSL_R_NO_PROTOCOLS_AVAILABLE:
      return fmt::format(
          "no TLS version in common: the peer offers none from '{0}.min_version' to '{0}.max_version' "
          "(TLS 1.1 and older are never spoken)",
          keys);
    case SSL_R_WRONG_VERSION_NUMBER:
      return "what the peer sent is not TLS";
    case SSL_R_NO_APPLICATION_PROTOCOL:
      return "the peer offers other protocols than \"sip/2\" by ALPN: have it offer that, or set 'listen.alpn' to "
             "\"off\"";
    case SSL_R_CALLBACK_FAILED:
      if (facts.sent && facts.sent->description == ktls::AlertDescription::kNoApplicationProtocol)
        return "the peer offers no protocol by ALPN, and 'listen.alpn' is \"require\": have it offer \"sip/2\", or set "
               "\"accept\"";
      return reason_text(error);
    default:
      return reason_text(error);
  }
}

}  // namespace

Error explain_failure(const FailureFacts& facts) {
  const unsigned long error = ERR_peek_error();
  const int reason = ERR_GET_LIB(error) == ERR_LIB_SSL ? ERR_GET_REASON(error) : 0;
  const std::string_view text = plain_text(facts.beginning);
  std::string what;
  if (facts.received) {
    what = explain_received(facts);
  } else if (facts.verify_error != 0 && reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
    what = explain_verify(facts);
  } else if (!text.empty()) {
    what = explain_plain_text(facts, text);
  } else if (facts.socket_error != 0) {
    what = errno_text(facts.socket_error);
  } else if (facts.eof) {
    what = facts.beginning.empty() ? "the peer closed the connection without a word of TLS"
                                   : "the peer closed the connection in the middle of the handshake, without an alert";
  } else {
    what = explain_reason(facts, error);
  }
  if (facts.sent)
    what += fmt::format(" [sent alert {} ({})]", ktls::alert_name(facts.sent->description),
                        static_cast<unsigned>(facts.sent->description));
  ERR_clear_error();
  return {fmt::format("{}: TLS handshake failed: {}", facts.owner, what), facts.socket_error};
}

std::string openssl_error() {
  const std::string text = reason_text(ERR_peek_error());
  ERR_clear_error();
  return text;
}

}  // namespace ktrunk::handshake
