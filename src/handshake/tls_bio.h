// TLS BIO: what OpenSSL reads and writes through. It is a socket BIO that never raises SIGPIPE and never closes the
// descriptor, and it follows the record headers in the bytes that cross it (RFC 8446 5.1), so that a handover knows how
// many records the kernel's sequence numbers have to skip. The handshake process runs it, below TlsSession.
#pragma once

#include <openssl/bio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "handshake/key_export.h"

namespace ktrunk::handshake {

// Counts a record of either direction, by OpenSSL's account or by the bytes: TLS 1.2's change_cipher_spec starts the
// application keys; TLS 1.3's means nothing, there the traffic secret does.
void count_record(const DirectionTrace& trace, std::uint8_t type, std::uint64_t& counter);

// Cuts one direction's byte stream into records, however it is chopped, and keeps the trace. trace must outlive it.
class RecordTap {
 public:
  explicit RecordTap(DirectionTrace& trace) : trace_(trace) {}
  void feed(std::span<const std::byte> bytes);
  // The first octets of the stream, up to five: what a peer that speaks no TLS began with.
  [[nodiscard]] std::span<const std::byte> beginning() const { return {beginning_.data(), beginning_size_}; }

 private:
  static constexpr std::size_t kHeaderBytes = 5;
  static constexpr std::size_t kNonceBytes = 8;
  void end_record();

  DirectionTrace& trace_;
  std::array<std::byte, kHeaderBytes> beginning_ = {};
  std::size_t beginning_size_ = 0;
  std::array<std::byte, kHeaderBytes> header_ = {};
  std::size_t header_size_ = 0;
  std::size_t body_size_ = 0;  // octets of the record's body seen
  std::uint64_t first_octets_ = 0;
};

// The descriptor and the two taps of one connection. A BIO made from it points to it: it must stay where it is.
// Without a descriptor OpenSSL reads what `memory` has, then would block; what it writes goes nowhere.
struct TappedSocket {
  int fd = -1;
  RecordTap transmit;
  RecordTap receive;
  int error = 0;     // errno of the call that broke the connection
  bool eof = false;  // the peer's FIN was read
  std::span<const std::byte> memory = {};
};

struct FreeBio {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
// Null only when memory is out.
[[nodiscard]] std::unique_ptr<BIO, FreeBio> make_bio(TappedSocket& socket);

}  // namespace ktrunk::handshake
