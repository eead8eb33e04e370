// A kernel with TLS in a few lines: it keeps what was set, answers what install_keys() asks, and fails the call that a
// test wants to fail. So the order of an installation is tested where there is no kernel TLS.
#pragma once

#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "ktls/kernel.h"

namespace ktrunk::test {

class FakeKernel final : public ktls::Kernel {
 public:
  struct Set {
    unsigned long socket;  // its inode: numbers of descriptors come back
    int level;
    int name;
    std::string value;
  };
  std::vector<Set> sets;  // that succeeded
  int calls = 0;          // of both kinds
  int fail_call = -1;     // the number of the call that fails, from 0
  int fail_with = EINVAL;
  int tcp_state = TCP_ESTABLISHED;
  int protocol = IPPROTO_TCP;
  std::string ulp;  // the ULP that the socket has
  bool has_tls = true;
  bool has_rekey = false;
  int only_version = 0;       // when set, other versions are refused
  int no_receive_cipher = 0;  // this cipher is refused for TLS_RX

  int set_option(int fd, int level, int name, const void* value, socklen_t length) override {
    if (calls++ == fail_call) return fail_with;
    std::string bytes(static_cast<const char*>(value), length);
    const auto was_set = [&](int which) {
      return std::ranges::any_of(
          sets, [&](const Set& set) { return set.socket == inode(fd) && set.level == level && set.name == which; });
    };
    if (level == IPPROTO_TCP && name == TCP_ULP) {
      if (!has_tls) return ENOENT;
      if (was_set(TCP_ULP)) return EEXIST;
    }
    if (level == SOL_TLS) {
      tls_crypto_info info = {};
      if (bytes.size() < sizeof info) return EINVAL;
      std::memcpy(&info, bytes.data(), sizeof info);
      if (only_version != 0 && info.version != only_version) return ENOTSUPP;
      if (name == TLS_RX && info.cipher_type == no_receive_cipher) return EINVAL;
      if (was_set(name) && !(has_rekey && info.version == TLS_1_3_VERSION)) return EBUSY;
    }
    sets.push_back({inode(fd), level, name, std::move(bytes)});
    return 0;
  }

  // So many records under the keys that a socket has now.
  void carry(int fd, int name, std::uint64_t records) {
    Set* keys = installed(fd, name);
    if (keys == nullptr) return;
    for (std::size_t i = 0; i < sizeof records; ++i) {
      auto& octet = keys->value[keys->value.size() - 1 - i];
      records += static_cast<unsigned char>(octet);
      octet = static_cast<char>(records);
      records >>= 8;
    }
  }
  // What was set last; null when nothing was.
  Set* installed(int fd, int name) {
    const auto found = std::find_if(sets.rbegin(), sets.rend(), [&](const Set& set) {
      return set.socket == inode(fd) && set.level == SOL_TLS && set.name == name;
    });
    return found == sets.rend() ? nullptr : &*found;
  }

  int get_option(int fd, int level, int name, void* value, socklen_t* length) override {
    if (calls++ == fail_call) return fail_with;
    if (level == SOL_TLS) {
      const Set* keys = installed(fd, name);
      if (keys == nullptr) return EBUSY;
      if (*length != keys->value.size()) return EINVAL;
      std::memcpy(value, keys->value.data(), keys->value.size());
      return 0;
    }
    if (level == SOL_SOCKET && name == SO_PROTOCOL) {
      std::memcpy(value, &protocol, sizeof protocol);
    } else if (level == IPPROTO_TCP && name == TCP_INFO) {
      tcp_info info = {};
      info.tcpi_state = static_cast<unsigned char>(tcp_state);
      std::memcpy(value, &info, std::min<std::size_t>(*length, sizeof info));
    } else if (level == IPPROTO_TCP && name == TCP_ULP) {
      *length = static_cast<socklen_t>(std::min<std::size_t>(*length, ulp.size()));
      std::memcpy(value, ulp.data(), *length);
    } else {
      return ENOPROTOOPT;
    }
    return 0;
  }

 private:
  static unsigned long inode(int fd) {
    struct stat status = {};
    return ::fstat(fd, &status) == 0 ? status.st_ino : static_cast<unsigned long>(fd);
  }
  static constexpr int ENOTSUPP = 524;  // the kernel's own, without a name in user space
};

}  // namespace ktrunk::test
