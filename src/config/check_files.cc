#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/fd.h"
#include "config/config.h"

namespace ktrunk::config {
namespace {

constexpr std::size_t kMostBytes = 8u << 20;  // a system's bundle of authorities is about a quarter of a megabyte

// RFC 7468: what every PEM file of the kind has somewhere.
std::string_view pem_mark(FileReference::Kind kind) {
  switch (kind) {
    case FileReference::Kind::kPrivateKey:
      return "PRIVATE KEY-----";
    case FileReference::Kind::kRevocations:
      return "-----BEGIN X509 CRL-----";
    default:
      return "-----BEGIN CERTIFICATE-----";
  }
}

// An OCSP response is DER: a SEQUENCE (RFC 6960 4.2.1). Whether it is any good is for the handshake process to find
// out.
bool holds(FileReference::Kind kind, std::string_view text) {
  constexpr char kSequence = 0x30;
  if (kind == FileReference::Kind::kOcspResponse) return text.starts_with(kSequence);
  return text.find(pem_mark(kind)) != std::string_view::npos;
}

std::string_view kind_text(FileReference::Kind kind) {
  switch (kind) {
    case FileReference::Kind::kCertificate:
      return "a PEM certificate chain";
    case FileReference::Kind::kPrivateKey:
      return "a PEM private key";
    case FileReference::Kind::kAuthorities:
      return "PEM certificates of authorities";
    case FileReference::Kind::kRevocations:
      return "PEM certificate revocation lists";
    case FileReference::Kind::kOcspResponse:
      return "an OCSP response (DER)";
  }
  std::unreachable();
}

// The file's text. A named pipe or device is refused before anything could block on it.
Result<std::string> read_regular(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file.valid()) return fail_errno(errno, fmt::format("cannot read {}", path));
  struct stat about = {};
  if (::fstat(file.get(), &about) != 0) return fail_errno(errno, fmt::format("cannot read {}", path));
  if (!S_ISREG(about.st_mode)) return fail("{} is not a regular file", path);
  std::string text;
  char buffer[16384];
  while (text.size() < kMostBytes) {
    const ssize_t got = ::read(file.get(), buffer, sizeof buffer);
    if (got == 0) return text;
    if (got > 0) {
      text.append(buffer, static_cast<std::size_t>(got));
    } else if (errno != EINTR) {
      return fail_errno(errno, fmt::format("cannot read {}", path));
    }
  }
  return fail("{} is longer than {} bytes", path, kMostBytes);
}

Status check_file(const FileReference& reference) {
  const Result<std::string> text = read_regular(reference.file);
  if (!text) return std::unexpected(text.error());
  if (!holds(reference.kind, *text)) return fail("{} holds none", reference.file);
  return {};
}

}  // namespace

Status check_files(const Config& config) {
  for (const FileReference& reference : config.files) {
    if (const Status status = check_file(reference); !status)
      return std::unexpected(Error{fmt::format("{}:{}: key '{}': {}; expected {}", config.path, reference.line,
                                               reference.key, status.error().what, kind_text(reference.kind)),
                                   status.error().code});
  }
  return {};
}

}  // namespace ktrunk::config
