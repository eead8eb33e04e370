// Peer identity: the names that a certificate speaks for (RFC 5922 7), as values without any OpenSSL object.
// The handshake process reads them from the verified certificate; other processes get the names that matched.
#pragma once

#include <openssl/x509.h>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ktrunk::handshake {

struct PeerIdentity {
  std::string subject;                   // RFC 2253 form, for logs only
  std::vector<std::string> sip_domains;  // host of each subjectAltName URI sip:HOST without user, lower case
  std::vector<std::string> dns_names;    // subjectAltName dNSName, lower case
  std::vector<std::string> addresses;    // subjectAltName iPAddress, in inet_ntop's form
  std::string common_name;               // lower case; set only when there is no subjectAltName at all

  // True when the certificate speaks for name: a domain or a literal address, without brackets.
  //   - any such sip: URI present: the domain must be one of those (RFC 5922 7.1 step 2: dNSNames do not count then);
  //   - else any dNSName: it must be one of those; else the common name. No wildcard, ever (7.2);
  //   - a literal address: one of the iPAddress entries (or a sip: URI with that address).
  [[nodiscard]] bool matches(std::string_view name) const;
  // Places in names of all names that match.
  [[nodiscard]] std::vector<std::size_t> matching(std::span<const std::string> names) const;
  // "sip:a.example, b.example", for messages; "no name" when there is none.
  [[nodiscard]] std::string describe() const;
};

// Reads a certificate. Names with embedded NUL or other octets that no name has are left out.
[[nodiscard]] PeerIdentity read_identity(const X509* certificate);

}  // namespace ktrunk::handshake
