#include "base/fd.h"

#include <unistd.h>

namespace ktrunk {

Fd& Fd::operator=(Fd&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

void Fd::reset() {
  // Linux frees the number even when close() reports EINTR: never again.
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

}  // namespace ktrunk
