// Fd: the one owner of a file descriptor. Every process uses it; nothing else in ktrunk calls close(2).
#pragma once

#include <utility>

namespace ktrunk {

// Owns one descriptor, or none. Move-only; the descriptor is closed when the owner goes. There is no conversion to int
// or bool: get() lends the number for a system call, release() gives the ownership away.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept;
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }

  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool valid() const { return fd_ >= 0; }
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }
  void reset();

 private:
  int fd_ = -1;
};

}  // namespace ktrunk
