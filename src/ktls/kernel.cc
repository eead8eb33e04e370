#include "ktls/kernel.h"

#include <cerrno>

namespace ktrunk::ktls {

int Kernel::set_option(int fd, int level, int name, const void* value, socklen_t length) {
  return ::setsockopt(fd, level, name, value, length) == 0 ? 0 : errno;
}

int Kernel::get_option(int fd, int level, int name, void* value, socklen_t* length) {
  return ::getsockopt(fd, level, name, value, length) == 0 ? 0 : errno;
}

Kernel& running_kernel() {
  static Kernel kernel;
  return kernel;
}

}  // namespace ktrunk::ktls
