// The TLS keys of [[listen]], [[listen.certificates]] and [[trunk]].
#include <algorithm>
#include <array>
#include <filesystem>

#include "config/notation.h"
#include "config/tables.h"

namespace ktrunk::config {
namespace {

// A file's name, made absolute and noted for check_files().
std::string read_file_name(TableReader& reader, std::string_view key, FileReference::Kind kind, Config& config) {
  const std::string name = reader.text(key);
  if (name.empty()) return {};
  std::error_code none;  // without a working directory a relative path stays one
  const std::filesystem::path folder = std::filesystem::absolute(config.path, none).parent_path();
  const std::string file = (folder / name).lexically_normal().string();
  config.files.push_back({kind, file, reader.full_key(key), reader.line(key)});
  return file;
}

// Names of ciphers and groups are OpenSSL's to judge; spaces and the like are refused here, with the line.
std::string read_names_of_openssl(TableReader& reader, std::string_view key) {
  std::string names = reader.text(key);
  if (names.find_first_of(" \t\"'") != std::string::npos)
    reader.problem(key, fmt::format("'{}'; expected OpenSSL's names with colons between them", names));
  return names;
}

void read_pair(TableReader& reader, std::string& certificate, std::string& key, Config& config) {
  certificate = read_file_name(reader, "certificate", FileReference::Kind::kCertificate, config);
  key = read_file_name(reader, "key", FileReference::Kind::kPrivateKey, config);
  if (reader.has("certificate") && !reader.has("key"))
    reader.missing("key", "the private key's PEM file, since there is a certificate");
  if (reader.has("key") && !reader.has("certificate"))
    reader.missing("certificate", "the certificate chain's PEM file, since there is a key");
}

// A name that a client may ask for in SNI, in lower case: a DNS name (RFC 6066 3), or one with "*" for its first label.
std::string read_served_name(TableReader& reader, const TextItem& item) {
  const bool wildcard = item.text.starts_with("*.");
  const std::string_view host = wildcard ? std::string_view(item.text).substr(2) : std::string_view(item.text);
  if (!check_host(host) || Address::from_ip(host, 0) || (wildcard && host.find('.') == std::string_view::npos)) {
    reader.problem(item, fmt::format("'{}' is no name that a client can ask for; expected a DNS name, or one like "
                                     "\"*.example.com\"",
                                     item.text));
    return {};
  }
  std::string name = to_lower(item.text);
  if (name.ends_with('.')) name.pop_back();
  return name;
}

Certificate read_certificate(TableReader& reader, Config& config) {
  Certificate certificate;
  read_pair(reader, certificate.certificate, certificate.key, config);
  if (!reader.has("certificate") && !reader.has("key")) {
    reader.missing("certificate", "the certificate chain's PEM file");
    reader.missing("key", "the private key's PEM file");
  }
  certificate.ocsp = read_file_name(reader, "ocsp", FileReference::Kind::kOcspResponse, config);
  const std::vector<TextItem> names = reader.texts("names");
  for (const TextItem& item : names) {
    std::string name = read_served_name(reader, item);
    if (name.empty()) continue;
    if (std::ranges::find(certificate.names, name) != certificate.names.end())
      reader.problem(item, fmt::format("'{}' is there twice; expected each name once", name));
    certificate.names.push_back(std::move(name));
  }
  if (reader.has("names") && names.empty())
    reader.problem("names", "no name; expected one or more, or no such key for those in the certificate");
  reader.finish();
  return certificate;
}

constexpr std::array<std::string_view, 10> kTlsKeys = {"certificate", "key",     "ca",           "min_version", "crl",
                                                       "max_version", "ciphers", "ciphersuites", "groups",      "alpn"};
constexpr std::array<std::string_view, 5> kListenerKeys = {"ocsp", "verify_client", "client_purpose", "tickets",
                                                           "certificates"};

}  // namespace

Tls read_tls(TableReader& reader, Config& config, Alpn alpn) {
  enum class Version : std::uint8_t { k12, k13 };
  Tls tls;
  read_pair(reader, tls.certificate, tls.key, config);
  tls.ca = read_file_name(reader, "ca", FileReference::Kind::kAuthorities, config);
  tls.crl = read_file_name(reader, "crl", FileReference::Kind::kRevocations, config);
  const auto lowest = reader.choice("min_version", {{"1.2", Version::k12}, {"1.3", Version::k13}}, Version::k12);
  const auto highest = reader.choice("max_version", {{"1.2", Version::k12}, {"1.3", Version::k13}}, Version::k13);
  if (lowest == Version::k13 && highest == Version::k12)
    reader.problem("max_version", "\"1.2\" is below min_version; expected \"1.3\"");
  tls.allow_tls12 = lowest == Version::k12;
  tls.allow_tls13 = highest == Version::k13;
  tls.ciphers = read_names_of_openssl(reader, "ciphers");
  tls.ciphersuites = read_names_of_openssl(reader, "ciphersuites");
  tls.groups = read_names_of_openssl(reader, "groups");
  tls.alpn = reader.choice("alpn", {{"off", Alpn::kOff}, {"accept", Alpn::kAccept}, {"require", Alpn::kRequire}}, alpn);
  return tls;
}

void read_listener_tls(TableReader& reader, Listener& listener, Config& config) {
  listener.tls = read_tls(reader, config, Alpn::kAccept);
  listener.tls.ocsp = read_file_name(reader, "ocsp", FileReference::Kind::kOcspResponse, config);
  listener.verify_client = reader.choice("verify_client",
                                         {{"off", ClientVerification::kOff},
                                          {"optional", ClientVerification::kOptional},
                                          {"require", ClientVerification::kRequire}},
                                         listener.verify_client);
  listener.client_purpose = reader.choice(
      "client_purpose", {{"client", ClientPurpose::kClient}, {"any", ClientPurpose::kAny}}, listener.client_purpose);
  constexpr std::uint32_t kMostTickets = 8;
  listener.tickets = reader.number("tickets", {0, kMostTickets}, listener.tickets);
  std::vector<TableReader> certificates = reader.readers("certificates");
  if (certificates.size() > kMaxCertificates)
    reader.problem("certificates",
                   fmt::format("{} tables; expected at most {}", certificates.size(), kMaxCertificates));
  for (TableReader& certificate : certificates) listener.certificates.push_back(read_certificate(certificate, config));
  if (!reader.has("certificate") && !reader.has("key")) {
    reader.missing("certificate", "the certificate chain's PEM file, since transport is \"tls\"");
    reader.missing("key", "the private key's PEM file, since transport is \"tls\"");
  }
  if (listener.verify_client != ClientVerification::kOff) {
    if (!reader.has("ca"))
      reader.missing("ca", "the PEM file of the authorities that sign client certificates, since verify_client is set");
    return;
  }
  for (const std::string_view key : {"ca", "crl", "client_purpose"})
    if (reader.has(key))
      reader.problem(
          key, fmt::format("verify_client is \"off\"; expected \"optional\" or \"require\" there, or no {}", key));
}

void refuse_tls(TableReader& reader, std::string_view why) {
  for (const std::string_view key : kTlsKeys)
    if (reader.has(key) && !why.empty()) reader.problem(key, fmt::format("{}; expected no TLS keys", why));
}

void refuse_listener_tls(TableReader& reader, std::string_view why) {
  refuse_tls(reader, why);
  for (const std::string_view key : kListenerKeys)
    if (reader.has(key) && !why.empty()) reader.problem(key, fmt::format("{}; expected no TLS keys", why));
}

}  // namespace ktrunk::config
