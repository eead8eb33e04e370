#include "bench/common/endpoint.h"

#include <netdb.h>
#include <CLI/CLI.hpp>

#include <charconv>
#include <memory>
#include <string_view>

namespace ktrunk::bench {
namespace {

Result<Address> resolve(const std::string& host, std::uint16_t port) {
  if (auto literal = Address::from_ip(host, port)) return literal;
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(host.c_str(), nullptr, &wanted, &found); error != 0)
    return fail("{}: {}", host, ::gai_strerror(error));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, ::freeaddrinfo);
  return Address::from_ip(Address::from_sockaddr(found->ai_addr, found->ai_addrlen).ip(), port);
}

}  // namespace

Result<Endpoint> Endpoint::parse(const std::string& text, const std::string& option) {
  const auto wrong = [&](std::string_view what) {
    return fail("{} {}: {}; expected tls:HOST:PORT or tcp:HOST:PORT, as in tls:127.0.0.1:5061", option, text, what);
  };
  Endpoint endpoint;
  std::string_view rest = text;
  if (rest.starts_with("tls:")) {
    endpoint.transport = config::Transport::kTls;
  } else if (rest.starts_with("tcp:")) {
    endpoint.transport = config::Transport::kTcp;
  } else {
    return wrong("no transport that is known");
  }
  rest.remove_prefix(4);
  const std::size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos) return wrong("no port");
  std::string_view host = rest.substr(0, colon);
  const std::string_view digits = rest.substr(colon + 1);
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc() || end != digits.data() + digits.size() || port == 0) return wrong("not a port");
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (host.empty()) return wrong("no host");
  endpoint.host = host;
  auto address = resolve(endpoint.host, port);
  if (!address) return fail("{} {}: {}", option, text, address.error().what);
  endpoint.address = *address;
  return endpoint;
}

void TlsSettings::add_common(CLI::App& command) {
  command.add_option("--tls", version, "TLS version of this program's side; default: the highest both have")
      ->check(CLI::IsMember({"1.2", "1.3"}));
  command.add_option("--cipher", cipher, "cipher suite, OpenSSL's name, such as TLS_AES_128_GCM_SHA256");
  command
      .add_option("--record-layer", record_layer,
                  "who makes this program's own TLS records: kernel, user (OpenSSL), auto (the kernel where it can)")
      ->check(CLI::IsMember({"kernel", "user", "auto"}))
      ->capture_default_str();
}

void TlsSettings::add_connecting(CLI::App& command) {
  command.add_option("--ca", ca, "authorities that may sign the server's certificate, PEM; default: the system's");
  CLI::Option* shown = command.add_option("--cert", certificate, "client certificate, PEM, for a server that asks");
  command.add_option("--key", key, "its private key, PEM")->needs(shown);
  command.add_option("--verify-name", verify_name, "name that the server's certificate must carry; default: the host");
}

void TlsSettings::add_answering(CLI::App& command) {
  command.add_option("--answer-cert", answer_certificate, "certificate of the answering side, PEM");
  command.add_option("--answer-key", answer_key, "its private key, PEM");
  command.add_option("--answer-ca", answer_ca, "require a client certificate that one of these signs, PEM");
}

config::RecordLayer TlsSettings::wanted_record_layer() const {
  if (record_layer == "kernel") return config::RecordLayer::kKernel;
  return record_layer == "user" ? config::RecordLayer::kRelay : config::RecordLayer::kAuto;
}

void TlsSettings::fill(config::Tls& tls) const {
  const bool suite_of_13 = cipher.starts_with("TLS_");  // OpenSSL's names of TLS 1.2 ciphers never begin so
  // A cipher without a version means the version that has it.
  tls.allow_tls12 = version.empty() ? cipher.empty() || !suite_of_13 : version == "1.2";
  tls.allow_tls13 = version.empty() ? cipher.empty() || suite_of_13 : version == "1.3";
  if (!cipher.empty()) (suite_of_13 ? tls.ciphersuites : tls.ciphers) = cipher;
}

Result<handshake::TlsContext> TlsSettings::connecting() const {
  config::Trunk trunk;
  trunk.name = "--connect";
  trunk.verify_name = verify_name;
  trunk.tls.ca = ca;
  trunk.tls.certificate = certificate;
  trunk.tls.key = key;
  fill(trunk.tls);
  return handshake::TlsContext::for_trunk(trunk);
}

Result<handshake::TlsContext> TlsSettings::answering() const {
  if (answer_certificate.empty() || answer_key.empty())
    return fail("--answer tls:...: a certificate is needed; give --answer-cert and --answer-key");
  config::Listener listener;
  listener.name = "--answer";
  listener.tls.certificate = answer_certificate;
  listener.tls.key = answer_key;
  listener.tls.ca = answer_ca;
  if (!answer_ca.empty()) listener.verify_client = config::ClientVerification::kRequire;
  fill(listener.tls);
  return handshake::TlsContext::for_listener(listener);
}

}  // namespace ktrunk::bench
