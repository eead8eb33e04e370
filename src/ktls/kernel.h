// Kernel: the socket calls that ktls makes, as a seam: tests put one in that fails the Nth call.
#pragma once

#include <sys/socket.h>

namespace ktrunk::ktls {

class Kernel {
 public:
  virtual ~Kernel() = default;
  // As setsockopt(2) and getsockopt(2), but 0 or an errno value is returned. EINTR cannot happen.
  [[nodiscard]] virtual int set_option(int fd, int level, int name, const void* value, socklen_t length);
  [[nodiscard]] virtual int get_option(int fd, int level, int name, void* value, socklen_t* length);
};

// The kernel that runs.
[[nodiscard]] Kernel& running_kernel();

}  // namespace ktrunk::ktls
