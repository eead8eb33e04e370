#include "bench/floor/bare_server.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <memory>

#include "handshake/tls_failure.h"

namespace ktrunk::bench {
namespace {

struct Free {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* session) const { SSL_free(session); }
};

Result<std::unique_ptr<SSL_CTX, Free>> context_of(const TlsSettings& settings) {
  std::unique_ptr<SSL_CTX, Free> context(SSL_CTX_new(TLS_server_method()));
  SSL_CTX* made = context.get();
  const auto failed = [](std::string_view what) { return fail("{}: {}", what, handshake::openssl_error()); };
  if (made == nullptr) return failed("SSL_CTX_new");
  SSL_CTX_set_min_proto_version(made, settings.version == "1.3" ? TLS1_3_VERSION : TLS1_2_VERSION);
  SSL_CTX_set_max_proto_version(made, settings.version == "1.2" ? TLS1_2_VERSION : TLS1_3_VERSION);
  if (SSL_CTX_use_certificate_chain_file(made, settings.answer_certificate.c_str()) != 1)
    return failed(settings.answer_certificate);
  if (SSL_CTX_use_PrivateKey_file(made, settings.answer_key.c_str(), SSL_FILETYPE_PEM) != 1)
    return failed(settings.answer_key);
  if (settings.cipher.starts_with("TLS_")) {
    if (SSL_CTX_set_ciphersuites(made, settings.cipher.c_str()) != 1) return failed(settings.cipher);
  } else if (!settings.cipher.empty() && SSL_CTX_set_cipher_list(made, settings.cipher.c_str()) != 1) {
    return failed(settings.cipher);
  }
  if (!settings.answer_ca.empty()) {
    if (SSL_CTX_load_verify_locations(made, settings.answer_ca.c_str(), nullptr) != 1)
      return failed(settings.answer_ca);
    SSL_CTX_set_verify(made, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  }
  static constexpr unsigned char kSessions[] = "ktrunk-bench";
  SSL_CTX_set_session_id_context(made, kSessions, sizeof kSessions - 1);
  return context;
}

}  // namespace

Status run_bare_server(Fd listening, const TlsSettings& settings) {
  std::signal(SIGPIPE, SIG_IGN);
  const auto context = context_of(settings);
  if (!context) return std::unexpected(context.error());
  ::fcntl(listening.get(), F_SETFL, ::fcntl(listening.get(), F_GETFL) & ~O_NONBLOCK);
  for (;;) {
    const Fd socket(::accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!socket.valid()) continue;
    const std::unique_ptr<SSL, Free> session(SSL_new(context->get()));
    SSL_set_fd(session.get(), socket.get());
    if (SSL_accept(session.get()) == 1) {
      char octets[256];
      while (SSL_read(session.get(), octets, sizeof octets) > 0) {
      }
      SSL_shutdown(session.get());
    }
    ERR_clear_error();
  }
}

}  // namespace ktrunk::bench
