// What the kernel knows of the way to a UDP peer.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "base/fd.h"
#include "handshake/udp_targets.h"

namespace ktrunk::test {
namespace {

std::uint16_t mtu_to(std::string_view ip) { return handshake::path_mtu(*Address::from_ip(ip, 5060)); }

// Loopback, in a network of our own, with this MTU.
bool make_loopback(int mtu) {
  if (::unshare(CLONE_NEWNET) != 0) return false;
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_mtu = mtu;
  if (::ioctl(socket.get(), SIOCSIFMTU, &request) != 0) return false;
  request.ifr_flags = IFF_UP | IFF_RUNNING | IFF_LOOPBACK;
  return ::ioctl(socket.get(), SIOCSIFFLAGS, &request) == 0;
}

TEST(PathMtu, IsThatOfTheRoute) {
  EXPECT_GE(mtu_to("127.0.0.1"), 16384);
  const pid_t child = ::fork();
  if (child == 0) {
    if (!make_loopback(1400)) ::_exit(77);
    if (mtu_to("127.0.0.1") != 1400) ::_exit(1);
    ::_exit(mtu_to("192.0.2.1") == 0 ? 0 : 2);  // there is no way
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << "no network of one's own without root";
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace ktrunk::test
