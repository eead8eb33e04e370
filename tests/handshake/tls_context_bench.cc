#include "handshake/tls_context_bench.h"

#include <openssl/x509.h>

#include <array>
#include <stdexcept>

namespace ktrunk::test {
namespace {

void need(bool ok, const char* what) {
  if (!ok) throw std::runtime_error(what);
}

std::string common_name(X509* certificate) {
  std::array<char, 256> text = {};
  X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, text.data(),
                            static_cast<int>(text.size()));
  return text.data();
}

}  // namespace

Meeting meet(const handshake::TlsContext& context, const std::string& authorities, const ClientWish& wish) {
  const Context client = client_context(authorities);
  SSL_CTX* theirs = client.get();
  if (!wish.certificate.certificate.empty()) {
    need(SSL_CTX_use_certificate_chain_file(theirs, wish.certificate.certificate.c_str()) == 1, "certificate");
    need(SSL_CTX_use_PrivateKey_file(theirs, wish.certificate.key.c_str(), SSL_FILETYPE_PEM) == 1, "key");
  }
  if (!wish.groups.empty()) need(SSL_CTX_set1_groups_list(theirs, wish.groups.c_str()) == 1, "groups");
  if (!wish.signatures.empty()) need(SSL_CTX_set1_sigalgs_list(theirs, wish.signatures.c_str()) == 1, "sigalgs");
  if (!wish.ciphers.empty()) need(SSL_CTX_set_cipher_list(theirs, wish.ciphers.c_str()) == 1, "ciphers");
  if (wish.version != 0) {
    SSL_CTX_set_min_proto_version(theirs, wish.version);
    SSL_CTX_set_max_proto_version(theirs, wish.version);
  }
  if (!wish.alpn.empty())
    SSL_CTX_set_alpn_protos(theirs, reinterpret_cast<const unsigned char*>(wish.alpn.data()),
                            static_cast<unsigned>(wish.alpn.size()));
  TcpPair sockets = tcp_pair();
  auto ours = handshake::TlsSession::accept(context, std::move(sockets.second));
  need(ours.has_value(), "accept");
  Peer peer(theirs, std::move(sockets.first), handshake::Role::kConnect);
  std::string name = wish.server_name;
  if (!name.empty()) SSL_ctrl(peer.get(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, name.data());
  if (wish.ask_status) SSL_ctrl(peer.get(), SSL_CTRL_SET_TLSEXT_STATUS_REQ_TYPE, TLSEXT_STATUSTYPE_ocsp, nullptr);
  if (wish.resume != nullptr) need(SSL_set_session(peer.get(), wish.resume) == 1, "session");

  Meeting meeting;
  meeting.done = shake(*ours, peer) == handshake::TlsSession::Step::kDone;
  meeting.error = ours->failure().error.what;
  if (ours->failure().sent) meeting.alert = ours->failure().sent->description;
  if (!meeting.done) return meeting;
  meeting.resumed = ours->negotiated().resumed;
  meeting.peer_known = ours->negotiated().peer.has_value();
  if (const auto suite = ours->kernel_suite(); !suite) meeting.relay_note = suite.error().what;
  const std::byte hello{'x'};
  need(ours->write({&hello, 1}).outcome == handshake::TlsSession::Io::kBytes, "write");
  need(peer.receive() == "x", "read");  // takes in the tickets too
  if (X509* leaf = SSL_get0_peer_certificate(peer.get()); leaf != nullptr) meeting.leaf = common_name(leaf);
  const STACK_OF(X509)* chain = SSL_get_peer_cert_chain(peer.get());
  for (int i = 1; i < sk_X509_num(chain); ++i) meeting.issuers.push_back(common_name(sk_X509_value(chain, i)));
  const unsigned char* data = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(peer.get(), &data, &size);
  meeting.alpn.assign(reinterpret_cast<const char*>(data), size);
  const unsigned char* status = nullptr;
  const long status_size = SSL_ctrl(peer.get(), SSL_CTRL_GET_TLSEXT_STATUS_REQ_OCSP_RESP, 0, &status);
  if (status_size > 0)
    meeting.status.assign(reinterpret_cast<const char*>(status), static_cast<std::size_t>(status_size));
  peer.close_notify();
  meeting.session = peer.memory();
  return meeting;
}

}  // namespace ktrunk::test
