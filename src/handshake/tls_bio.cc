#include "handshake/tls_bio.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "ktls/control_record.h"

namespace ktrunk::handshake {
namespace {

TappedSocket& socket_of(BIO* bio) { return *static_cast<TappedSocket*>(BIO_get_data(bio)); }

// MSG_DONTWAIT: O_NONBLOCK belongs to the open file, which another process may hold a descriptor of too.
int write_some(BIO* bio, const char* data, std::size_t size, std::size_t* written) {
  TappedSocket& socket = socket_of(bio);
  BIO_clear_retry_flags(bio);
  if (socket.fd < 0) {
    *written = size;
    return 1;
  }
  ssize_t count = 0;
  do {
    count = ::send(socket.fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (count < 0 && errno == EINTR);
  if (count >= 0) {
    *written = static_cast<std::size_t>(count);
    socket.transmit.feed(std::as_bytes(std::span(data, *written)));
    return 1;
  }
  *written = 0;
  if (errno == EAGAIN) {
    BIO_set_retry_write(bio);
  } else {
    socket.error = errno;
  }
  return -1;
}

int read_memory(BIO* bio, TappedSocket& socket, std::span<std::byte> into, std::size_t* received) {
  *received = std::min(into.size(), socket.memory.size());
  std::copy_n(socket.memory.begin(), *received, into.begin());
  socket.memory = socket.memory.subspan(*received);
  if (*received > 0) return 1;
  BIO_set_retry_read(bio);
  return -1;
}

int read_some(BIO* bio, char* data, std::size_t size, std::size_t* received) {
  TappedSocket& socket = socket_of(bio);
  BIO_clear_retry_flags(bio);
  if (socket.fd < 0) return read_memory(bio, socket, std::as_writable_bytes(std::span(data, size)), received);
  ssize_t count = 0;
  do {
    count = ::recv(socket.fd, data, size, MSG_DONTWAIT);
  } while (count < 0 && errno == EINTR);
  *received = 0;
  if (count > 0) {
    *received = static_cast<std::size_t>(count);
    socket.receive.feed(std::as_bytes(std::span(data, *received)));
    return 1;
  }
  if (count == 0) {
    socket.eof = true;
    return 0;
  }
  if (errno == EAGAIN) {
    BIO_set_retry_read(bio);
  } else {
    socket.error = errno;
  }
  return -1;
}

long control(BIO* bio, int command, long, void*) {
  switch (command) {
    case BIO_CTRL_FLUSH:  // nothing is held back here
      return 1;
    case BIO_CTRL_EOF:
      return socket_of(bio).eof ? 1 : 0;
    default:
      return 0;
  }
}

const BIO_METHOD* method() {
  static BIO_METHOD* const made = [] {
    BIO_METHOD* fresh = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "ktrunk socket");
    if (fresh != nullptr) {
      BIO_meth_set_write_ex(fresh, write_some);
      BIO_meth_set_read_ex(fresh, read_some);
      BIO_meth_set_ctrl(fresh, control);
    }
    return fresh;
  }();
  return made;
}

}  // namespace

void count_record(const DirectionTrace& trace, std::uint8_t type, std::uint64_t& counter) {
  if (type != static_cast<std::uint8_t>(ktls::RecordType::kChangeCipherSpec)) {
    ++counter;
  } else if (trace.keys.secret.empty()) {
    counter = 0;
  }
}

void RecordTap::feed(std::span<const std::byte> bytes) {
  const std::size_t first = std::min(bytes.size(), beginning_.size() - beginning_size_);
  std::copy_n(bytes.begin(), first, beginning_.begin() + static_cast<std::ptrdiff_t>(beginning_size_));
  beginning_size_ += first;

  while (!bytes.empty()) {
    if (header_size_ < kHeaderBytes) {
      header_[header_size_++] = bytes.front();
      bytes = bytes.subspan(1);
    } else {
      const std::size_t length =
          std::to_integer<std::size_t>(header_[3]) << 8 | std::to_integer<std::size_t>(header_[4]);
      const std::size_t part = std::min(bytes.size(), length - body_size_);
      for (std::size_t i = 0; i < part && body_size_ + i < kNonceBytes; ++i)
        first_octets_ = first_octets_ << 8 | std::to_integer<std::uint64_t>(bytes[i]);
      body_size_ += part;
      bytes = bytes.subspan(part);
    }
    if (header_size_ == kHeaderBytes) {
      const std::size_t length =
          std::to_integer<std::size_t>(header_[3]) << 8 | std::to_integer<std::size_t>(header_[4]);
      if (body_size_ == length) end_record();
    }
  }
  trace_.at_record_boundary = header_size_ == 0;
}

void RecordTap::end_record() {
  count_record(trace_, std::to_integer<std::uint8_t>(header_[0]), trace_.passed);
  trace_.last_explicit_nonce = first_octets_;
  first_octets_ = 0;
  header_size_ = 0;
  body_size_ = 0;
}

std::unique_ptr<BIO, FreeBio> make_bio(TappedSocket& socket) {
  std::unique_ptr<BIO, FreeBio> bio(method() != nullptr ? BIO_new(method()) : nullptr);
  if (bio) {
    BIO_set_data(bio.get(), &socket);
    BIO_set_init(bio.get(), 1);
  }
  return bio;
}

}  // namespace ktrunk::handshake
