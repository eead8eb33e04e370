// What an idle TLS connection costs in memory, of all processes of ktrunkd together and in the kernel; and that nothing
// of it stays when the connections have gone. KTRUNK_IDLE_CONNECTIONS says how many (default 1000).
#include <sys/resource.h>

#include <charconv>
#include <cstdlib>
#include <fstream>
#include <map>

#include "ipc/shared_region.h"
#include "ipc/vault.h"
#include "system/daemon_fixture.h"

namespace ktrunk::test {
namespace {

// The user memory that one connection may cost in all processes together.
constexpr std::uint64_t kMostPerConnection = 4096;

std::size_t wanted_connections() {
  const char* text = std::getenv("KTRUNK_IDLE_CONNECTIONS");
  return text != nullptr ? std::strtoul(text, nullptr, 10) : 1000;
}

// A line "Name:   123 kB" of a file of /proc, in octets.
std::uint64_t proc_value(const std::string& path, std::string_view name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(name)) continue;
    return std::strtoull(line.c_str() + name.size(), nullptr, 10) * 1024;
  }
  ADD_FAILURE() << path << " has no " << name;
  return 0;
}

struct Memory {
  std::map<std::string, std::uint64_t> pss;  // by process
  std::uint64_t slab = 0;

  [[nodiscard]] std::uint64_t user() const {
    std::uint64_t sum = 0;
    for (const auto& [name, octets] : pss) sum += octets;
    return sum;
  }
};

Memory measure(const Json& status) {
  Memory memory;
  const auto look = [&](const std::string& name, int pid) {
    // Not the files' pages: a process's part of those grows when other users of the same library end.
    const std::string file = fmt::format("/proc/{}/smaps_rollup", pid);
    memory.pss[name] = proc_value(file, "Pss_Anon:") + proc_value(file, "Pss_Shmem:");
  };
  look("supervisor", status["pid"].get<int>());
  for (const Json& process : status["processes"]) look(process["name"], process["pid"].get<int>());
  memory.slab = proc_value("/proc/meminfo", "Slab:");
  return memory;
}

// Clients of one context that keep nothing but their socket once the handshake is done.
class Crowd {
 public:
  explicit Crowd(const Address& to) : to_(to), context_(SSL_CTX_new(TLS_client_method())) {
    SSL_CTX_set_verify(context_.get(), SSL_VERIFY_NONE, nullptr);
  }

  // From one of a hundred addresses, so that no limit by address is met.
  Status join() {
    Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto from = Address::from_ip(fmt::format("127.0.9.{}", 1 + sockets_.size() % 100), 0);
    if (::bind(socket.get(), from->data(), from->size()) != 0) return fail_errno(errno, "bind");
    if (::connect(socket.get(), to_.data(), to_.size()) != 0) return fail_errno(errno, "connect");
    const std::unique_ptr<SSL, decltype(&::SSL_free)> session(SSL_new(context_.get()), &::SSL_free);
    SSL_set_fd(session.get(), socket.get());
    if (SSL_connect(session.get()) != 1) return fail("TLS handshake {} failed", sockets_.size());
    SSL_set_quiet_shutdown(session.get(), 1);
    sockets_.push_back(std::move(socket));
    return {};
  }
  void leave() { sockets_.clear(); }

 private:
  Address to_;
  std::unique_ptr<SSL_CTX, decltype([](SSL_CTX* context) { SSL_CTX_free(context); })> context_;
  std::vector<Fd> sockets_;
};

class IdleConnectionsTest : public DaemonTest {
 protected:
  [[nodiscard]] testing::AssertionResult settles_at(std::size_t count) const {
    const Status reached = daemon_->wait_status([count](const Json& now) {
      const auto is_open = [](const Json& connection) { return connection["state"] == "open"; };
      const Json& all = now["connections"];
      return all.size() == count && std::ranges::all_of(all, is_open);
    });
    return reached ? testing::AssertionSuccess() : testing::AssertionFailure() << reached.error().what.substr(0, 400);
  }
};

TEST_F(IdleConnectionsTest, CostLittleAndLeaveNothing) {
  KTRUNK_REQUIRE_KTLS();
  const std::size_t count = wanted_connections();
  rlimit descriptors{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &descriptors), 0);
  descriptors.rlim_cur = descriptors.rlim_max = std::max<rlim_t>(descriptors.rlim_max, count + 1024);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &descriptors), 0);

  const Certificates& files = certificates();
  launch(fmt::format(R"(
[[listen]]
name = "edge"
transport = "tls"
address = "{}"
certificate = "{}"
key = "{}"
)",
                     edge_tls_.text(), files.edge.certificate, files.edge.key));
  ASSERT_TRUE(daemon_);
  ASSERT_TRUE(daemon_->wait_ready());
  Crowd crowd(edge_tls_);
  // The first few bring in what is there only once: code, pools, OpenSSL's tables.
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(crowd.join());
  ASSERT_TRUE(settles_at(20));
  crowd.leave();
  ASSERT_TRUE(settles_at(0));
  const Memory before = measure(status());

  for (std::size_t i = 0; i < count; ++i) {
    const Status joined = crowd.join();
    ASSERT_TRUE(joined) << joined.error().what;
  }
  ASSERT_TRUE(settles_at(count));
  const Memory full = measure(status());
  crowd.leave();
  ASSERT_TRUE(settles_at(0));
  const Memory after = measure(status());

  const auto each = [count](std::uint64_t now, std::uint64_t then) {
    return (static_cast<double>(now) - static_cast<double>(then)) / static_cast<double>(count);
  };
  std::string table = fmt::format("{} idle TLS connections in the kernel's hands; octets per connection\n", count);
  for (const auto& [name, octets] : full.pss) {
    table += fmt::format("  {:<12} {:8.0f}   (after: {:+.0f})\n", name, each(octets, before.pss.at(name)),
                         each(after.pss.at(name), before.pss.at(name)));
  }
  table += fmt::format("  {:<12} {:8.0f}   (after: {:+.0f})\n", "user, all", each(full.user(), before.user()),
                       each(after.user(), before.user()));
  // Both ends of every connection live in this kernel.
  table += fmt::format("  {:<12} {:8.0f}   (after: {:+.0f})\n", "kernel slab", each(full.slab, before.slab),
                       each(after.slab, before.slab));
  std::fputs(table.c_str(), stderr);
  EXPECT_LE(full.user(), before.user() + count * kMostPerConnection) << table;
  // Places in the shared tables stay for the next connections, once they have been used; of all else next to nothing.
  constexpr std::uint64_t kPlace = sizeof(ipc::ConnectionSlot) + 2 * sizeof(ipc::SentCounts) + ipc::kVaultEntryBytes;
  constexpr std::uint64_t kPools = 1u << 19;
  EXPECT_LE(after.user(), before.user() + count * kPlace + (full.user() - before.user()) / 10 + kPools) << table;
}

}  // namespace
}  // namespace ktrunk::test
