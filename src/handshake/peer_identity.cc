#include "handshake/peer_identity.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <openssl/bio.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <memory>
#include <optional>

namespace ktrunk::handshake {
namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

std::string lowered(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), lower);
  return out;
}

// Printable ASCII without blanks: what every host name and URI is made of. So an embedded NUL ends no name early.
bool plain(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c > ' ' && c < '\x7f'; });
}

std::string_view view(const ASN1_STRING* text) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
          static_cast<std::size_t>(std::max(0, ASN1_STRING_length(text)))};
}

// A literal address in inet_ntop's form; nothing when it is none.
std::optional<std::string> canonical_address(std::string_view text) {
  std::array<unsigned char, sizeof(in6_addr)> bytes = {};
  std::array<char, INET6_ADDRSTRLEN> out = {};
  const std::string terminated(text);
  for (const int family : {AF_INET, AF_INET6}) {
    if (::inet_pton(family, terminated.c_str(), bytes.data()) == 1)
      return ::inet_ntop(family, bytes.data(), out.data(), static_cast<socklen_t>(out.size()));
  }
  return std::nullopt;
}

// The host of a URI that names a domain. The scheme is "sip", and nothing else, not "sips" (RFC 5922 7.1, 1a). One with
// an "@" names a user, not the domain. A port or parameters do not make the host another.
std::optional<std::string> sip_domain(std::string_view uri) {
  constexpr std::string_view kScheme = "sip:";
  if (lowered(uri.substr(0, kScheme.size())) != kScheme || uri.find('@') != std::string_view::npos) return std::nullopt;
  std::string_view host = uri.substr(kScheme.size());
  if (host.starts_with('[')) {
    const std::size_t close = host.find(']');
    if (close == std::string_view::npos) return std::nullopt;
    const std::string_view rest = host.substr(close + 1);
    if (!rest.empty() && std::string_view(":;?").find(rest.front()) == std::string_view::npos) return std::nullopt;
    return canonical_address(host.substr(1, close - 1));
  }
  host = host.substr(0, host.find_first_of(":;?"));
  if (host.empty() || host.find_first_of("/[]") != std::string_view::npos) return std::nullopt;
  return lowered(host);
}

std::optional<std::string> address_text(std::string_view octets) {
  std::array<char, INET6_ADDRSTRLEN> out = {};
  const int family = octets.size() == sizeof(in_addr) ? AF_INET : AF_INET6;
  if (family == AF_INET6 && octets.size() != sizeof(in6_addr)) return std::nullopt;
  return ::inet_ntop(family, octets.data(), out.data(), static_cast<socklen_t>(out.size()));
}

std::string_view without_root_dot(std::string_view name) {
  if (name.size() > 1 && name.back() == '.') name.remove_suffix(1);
  return name;
}

bool contains(const std::vector<std::string>& names, std::string_view wanted) {
  // A wildcard is only ever equal to itself, and no name that is looked for has a '*' in it.
  return std::ranges::any_of(names, [&](const std::string& name) { return without_root_dot(name) == wanted; });
}

std::string read_subject(const X509* certificate) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> memory(BIO_new(BIO_s_mem()), BIO_free);
  if (!memory || X509_NAME_print_ex(memory.get(), X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253) < 0)
    return {};
  char* data = nullptr;
  const long size = BIO_get_mem_data(memory.get(), &data);
  return size > 0 ? std::string(data, static_cast<std::size_t>(size)) : std::string();
}

std::string read_common_name(const X509* certificate) {
  const X509_NAME* subject = X509_get_subject_name(certificate);
  int place = -1;
  for (int next = X509_NAME_get_index_by_NID(subject, NID_commonName, -1); next >= 0;
       next = X509_NAME_get_index_by_NID(subject, NID_commonName, next))
    place = next;  // the last one is the most specific
  if (place < 0) return {};
  unsigned char* utf8 = nullptr;
  const int size = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, place)));
  if (size < 0) return {};
  const std::string_view text(reinterpret_cast<const char*>(utf8), static_cast<std::size_t>(size));
  std::string name = plain(text) ? lowered(text) : std::string();
  OPENSSL_free(utf8);
  return name;
}

}  // namespace

PeerIdentity read_identity(const X509* certificate) {
  PeerIdentity identity;
  identity.subject = read_subject(certificate);
  const std::unique_ptr<GENERAL_NAMES, decltype(&GENERAL_NAMES_free)> names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)),
      GENERAL_NAMES_free);
  const int count = names ? sk_GENERAL_NAME_num(names.get()) : 0;
  for (int i = 0; i < count; ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type == GEN_URI) {
      const std::string_view uri = view(name->d.uniformResourceIdentifier);
      if (!plain(uri)) continue;
      if (auto domain = sip_domain(uri)) identity.sip_domains.push_back(std::move(*domain));
    } else if (name->type == GEN_DNS) {
      if (const std::string_view dns = view(name->d.dNSName); plain(dns)) identity.dns_names.push_back(lowered(dns));
    } else if (name->type == GEN_IPADD) {
      if (auto address = address_text(view(name->d.iPAddress))) identity.addresses.push_back(std::move(*address));
    }
  }
  // "If and only if the subjectAltName does not appear in the certificate" (7.1, 2): of whatever kind its names are,
  // and even when it cannot be read.
  if (X509_get_ext_by_NID(certificate, NID_subject_alt_name, -1) < 0)
    identity.common_name = read_common_name(certificate);
  return identity;
}

bool PeerIdentity::matches(std::string_view name) const {
  if (!plain(name) || name.find('*') != std::string_view::npos) return false;
  if (const auto address = canonical_address(name))
    return contains(addresses, *address) || contains(sip_domains, *address);
  const std::string wanted = lowered(without_root_dot(name));
  if (!sip_domains.empty()) return contains(sip_domains, wanted);
  if (!dns_names.empty()) return contains(dns_names, wanted);
  return !common_name.empty() && without_root_dot(common_name) == wanted;
}

std::vector<std::size_t> PeerIdentity::matching(std::span<const std::string> names) const {
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < names.size(); ++i)
    if (matches(names[i])) places.push_back(i);
  return places;
}

std::string PeerIdentity::describe() const {
  std::vector<std::string> all;
  for (const std::string& domain : sip_domains) all.push_back("sip:" + domain);
  all.insert(all.end(), dns_names.begin(), dns_names.end());
  all.insert(all.end(), addresses.begin(), addresses.end());
  if (!common_name.empty()) all.push_back("CN=" + common_name);
  return all.empty() ? "no name" : fmt::format("{}", fmt::join(all, ", "));
}

}  // namespace ktrunk::handshake
