// A program that installs keys, reads control records and probes, as a worker or the supervisor may, must not map
// libcrypto although ktls can use it.
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "ktls/control_record.h"
#include "ktls/install.h"
#include "ktls/support.h"
#include "ktls/tls_stat.h"

namespace ktrunk::ktls {
namespace {

TEST(NoLibcrypto, IsMappedWithoutTheKeySchedule) {
  const Support support = probe_support();
  (void)read_tls_stat();
  const AlertMessage alert(kCloseNotify);
  (void)record_type({}, alert.header()->msg_flags);
  (void)install_keys(Fd(), {});
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    EXPECT_EQ(line.find("libcrypto.so"), std::string::npos) << line;
    EXPECT_EQ(line.find("libssl.so"), std::string::npos) << line;
  }
}

}  // namespace
}  // namespace ktrunk::ktls
