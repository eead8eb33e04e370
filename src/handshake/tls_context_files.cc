#include "handshake/tls_context_files.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/fd.h"
#include "handshake/tls_failure.h"

namespace ktrunk::handshake {
namespace {

constexpr int kExpirySoonDays = 14;
constexpr std::size_t kMostBytes = 8u << 20;  // as config::check_files()
constexpr std::size_t kMostIssuers = 16;      // OpenSSL follows chains of 100; nobody's is longer than a few

// Only regular files: a named pipe would block.
Result<Fd> open_regular(const Place& place, std::string_view key, const std::string& path) {
  Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  struct stat about = {};
  if (!file.valid() || ::fstat(file.get(), &about) != 0)
    return place.wrong(key, fmt::format("{}: {}", path, errno_text(errno)));
  if (!S_ISREG(about.st_mode)) return place.wrong(key, fmt::format("{}: not a regular file", path));
  return file;
}

// Nobody is there to type a password.
int no_password(char*, int, int, void*) { return -1; }

// Some keep the key in the same file.
struct Wipe {
  std::string& text;
  ~Wipe() { OPENSSL_cleanse(text.data(), text.size()); }
};

Status read_chain(const Place& place, Pair& pair) {
  auto text = read_whole(place, "certificate", pair.certificate_file);
  if (!text) return std::unexpected(std::move(text.error()));
  const Wipe wipe{*text};
  const BioPtr file = memory_bio(*text);
  pair.leaf.reset(file ? PEM_read_bio_X509_AUX(file.get(), nullptr, no_password, nullptr) : nullptr);
  if (!pair.leaf) {
    const bool none = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    const std::string reason = openssl_error();
    return place.wrong(
        "certificate",
        none ? fmt::format("{}: no PEM certificate in it; expected \"BEGIN CERTIFICATE\"", pair.certificate_file)
             : fmt::format("{}: not a valid certificate: {}", pair.certificate_file, reason));
  }
  while (pair.chain.size() < kMostIssuers) {
    CertificatePtr issuer(PEM_read_bio_X509(file.get(), nullptr, no_password, nullptr));
    if (!issuer) break;
    pair.chain.push_back(std::move(issuer));
  }
  const bool end = pair.chain.size() < kMostIssuers && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  if (end) {
    ERR_clear_error();
    return {};
  }
  return place.wrong("certificate", pair.chain.size() < kMostIssuers
                                        ? fmt::format("{}: certificate {} in it is not valid: {}",
                                                      pair.certificate_file, pair.chain.size() + 2, openssl_error())
                                        : fmt::format("{}: more than {} certificates; expected a chain",
                                                      pair.certificate_file, kMostIssuers));
}

// Whether a line of the file begins a private key of any kind: the decoder's own error does not tell.
bool has_private_key(BIO* file) {
  std::array<char, 128> line = {};
  bool found = false;
  BIO_ctrl(file, BIO_CTRL_RESET, 0, nullptr);
  while (!found && BIO_gets(file, line.data(), static_cast<int>(line.size())) > 0) {
    const std::string_view text(line.data());
    found = text.starts_with("-----BEGIN ") && text.find("PRIVATE KEY-----") != std::string_view::npos;
  }
  OPENSSL_cleanse(line.data(), line.size());
  return found;
}

Status read_key(const Place& place, Pair& pair) {
  const std::string& path = pair.key_file;
  if (auto probe = open_regular(place, "key", path); !probe) return std::unexpected(std::move(probe.error()));
  const BioPtr file(BIO_new_file(path.c_str(), "r"));
  if (!file) return place.wrong("key", fmt::format("{}: {}", path, openssl_error()));
  pair.key.reset(PEM_read_bio_PrivateKey(file.get(), nullptr, no_password, nullptr));
  if (pair.key) return {};
  const int code = ERR_GET_REASON(ERR_peek_last_error());
  const std::string reason = openssl_error();
  if (code == PEM_R_BAD_PASSWORD_READ || code == PEM_R_BAD_DECRYPT)
    return place.wrong("key", fmt::format("{}: the key is encrypted; give one without a password, readable by ktrunk "
                                          "alone",
                                          path));
  if (!has_private_key(file.get()))
    return place.wrong("key", fmt::format("{}: no PEM private key in it; expected \"BEGIN PRIVATE KEY\"", path));
  return place.wrong("key", fmt::format("{}: not a valid private key: {}", path, reason));
}

void warn_about_dates(const Place& place, const Pair& pair, std::vector<std::string>& out) {
  const auto add = [&](std::string_view what) {
    out.push_back(place.message("certificate", fmt::format("{}: {}", pair.certificate_file, what)));
  };
  const X509* leaf = pair.leaf.get();
  if (X509_cmp_current_time(X509_get0_notBefore(leaf)) > 0) add("the certificate is not valid yet; check the clock");
  if (X509_cmp_current_time(X509_get0_notAfter(leaf)) < 0) {
    add("the certificate has expired: peers will refuse it; renew it");
    return;
  }
  int days = 0;
  int seconds = 0;
  if (ASN1_TIME_diff(&days, &seconds, nullptr, X509_get0_notAfter(leaf)) == 1 && days < kExpirySoonDays)
    add(fmt::format("the certificate expires in {} days; renew it", days));
}

void warn_about_mode(const Place& place, const std::string& path, std::vector<std::string>& out) {
  struct stat status = {};
  if (::stat(path.c_str(), &status) == 0 && (status.st_mode & (S_IROTH | S_IWOTH)) != 0)
    out.push_back(place.message(
        "key", fmt::format("{}: everyone on this machine may read or write the private key; chmod 600", path)));
}

}  // namespace

Result<Pair> read_pair(const Place& place, const std::string& certificate_file, const std::string& key_file,
                       std::vector<std::string>& warnings) {
  Pair pair;
  pair.certificate_file = certificate_file;
  pair.key_file = key_file;
  if (Status status = read_chain(place, pair); !status) return std::unexpected(std::move(status.error()));
  if (Status status = read_key(place, pair); !status) return std::unexpected(std::move(status.error()));
  if (X509_check_private_key(pair.leaf.get(), pair.key.get()) != 1) {
    ERR_clear_error();
    return place.wrong("key", fmt::format("{}: does not belong to the certificate in {}; the file's first certificate "
                                          "must be the one of this key",
                                          key_file, certificate_file));
  }
  warn_about_dates(place, pair, warnings);
  warn_about_mode(place, key_file, warnings);
  return pair;
}

Result<std::string> read_whole(const Place& place, std::string_view key, const std::string& path) {
  const auto file = open_regular(place, key, path);
  if (!file) return std::unexpected(file.error());
  std::string text;
  std::array<char, 16384> buffer = {};
  while (text.size() < kMostBytes) {
    const ssize_t got = ::read(file->get(), buffer.data(), buffer.size());
    if (got == 0) return text;
    if (got > 0) {
      text.append(buffer.data(), static_cast<std::size_t>(got));
    } else if (errno != EINTR) {
      return place.wrong(key, fmt::format("{}: {}", path, errno_text(errno)));
    }
  }
  return place.wrong(key, fmt::format("{}: longer than {} bytes", path, kMostBytes));
}

BioPtr memory_bio(std::string_view text) { return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

}  // namespace ktrunk::handshake
