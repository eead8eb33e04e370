#include "ipc/vault.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

namespace ktrunk::ipc {
namespace {

constexpr std::uint32_t kConnections = 1000;
constexpr VaultEntry::Holder kHolder{{7}, {1}};

std::array<std::byte, kVaultSecretBytes> octets(int value) {
  std::array<std::byte, kVaultSecretBytes> made{};
  made.fill(static_cast<std::byte>(value));
  return made;
}

bool is_clean(const VaultEntry& entry) {
  const auto bytes = std::as_bytes(std::span(&entry, 1));
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{}; });
}

class VaultMemory : public testing::TestWithParam<Vault::Kind> {
 protected:
  static Fd memory() {
    auto made = Vault::create(kConnections, GetParam());
    EXPECT_TRUE(made.has_value()) << made.error().what;
    return std::move(*made);
  }
  static Fd copy(const Fd& memory) { return Fd(::fcntl(memory.get(), F_DUPFD_CLOEXEC, 3)); }
};

TEST_P(VaultMemory, TwoProcessesSeeTheSameEntries) {
  const Fd kept = memory();
  const auto first = Vault::map(copy(kept), kConnections).value();
  const auto second = Vault::map(copy(kept), kConnections).value();
  VaultEntry& entry = first.entry({999});
  EXPECT_FALSE(entry.holder());
  entry.receive.begin(octets(5));
  entry.publish(kHolder);
  EXPECT_EQ(second.entry({999}).holder(), kHolder);
  EXPECT_EQ(second.entry({999}).receive.current(), octets(5));
  second.ticket_keys().current.store(3);
  EXPECT_EQ(first.ticket_keys().current.load(), 3u);
}

TEST_P(VaultMemory, WhatOneLeavesTheNextFinds) {
  const Fd kept = memory();
  {
    const auto vault = Vault::map(copy(kept), kConnections).value();
    vault.entry({3}).transmit.begin(octets(1));
    vault.entry({3}).transmit.prepare(octets(2));
    vault.entry({3}).publish(kHolder);
  }
  const auto vault = Vault::map(copy(kept), kConnections).value();
  ASSERT_EQ(vault.entry({3}).holder(), kHolder);
  EXPECT_EQ(vault.entry({3}).transmit.current(), octets(1));
  ASSERT_NE(vault.entry({3}).transmit.pending(), nullptr);
  EXPECT_EQ(*vault.entry({3}).transmit.pending(), octets(2));
}

TEST_P(VaultMemory, HasTheSizeThatItWasMadeFor) {
  const Fd kept = memory();
  EXPECT_FALSE(Vault::map(copy(kept), kConnections + 1000).has_value());
  EXPECT_FALSE(Vault::map(copy(kept), 1).has_value());
  EXPECT_NE(::ftruncate(kept.get(), 4096), 0);
  EXPECT_NE(::ftruncate(kept.get(), 1 << 24), 0);
  EXPECT_NE(::fcntl(kept.get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST_P(VaultMemory, DoesNotGoToForks) {
  const auto vault = Vault::map(memory(), kConnections).value();
  VaultEntry& entry = vault.entry({0});
  entry.publish(kHolder);
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGSEGV, [](int) { ::_exit(42); });
    ::_exit(entry.holder() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 42);
}

TEST_P(VaultMemory, MoveLeavesNothingBehind) {
  auto first = Vault::map(memory(), kConnections).value();
  first.entry({1}).publish(kHolder);
  Vault second = std::move(first);
  EXPECT_EQ(first.max_connections(), 0u);  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(second.entry({1}).holder(), kHolder);
  second = Vault::map(memory(), kConnections).value();
  EXPECT_FALSE(second.entry({1}).holder());
}

INSTANTIATE_TEST_SUITE_P(Kinds, VaultMemory, testing::Values(Vault::Kind::kBest, Vault::Kind::kMemfd),
                         [](const auto& each) { return each.param == Vault::Kind::kBest ? "Best" : "Memfd"; });

// The mapping's flags and its pages in memory, as /proc/self/smaps tells.
struct Mapping {
  std::string flags;
  long resident_kib = -1;
};
Mapping mapping_of(const void* address) {
  std::ifstream smaps("/proc/self/smaps");
  std::string line;
  bool inside = false;
  Mapping found;
  while (std::getline(smaps, line)) {
    unsigned long from = 0;
    unsigned long to = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &from, &to) == 2) {
      const auto at = reinterpret_cast<unsigned long>(address);
      inside = from <= at && at < to;
    }
    if (inside && line.starts_with("Rss:")) found.resident_kib = std::stol(line.substr(4));
    if (inside && line.starts_with("VmFlags:")) found.flags = line + " ";
  }
  return found;
}

TEST(Vault, TakesAPageWhenItIsUsedAndKeepsItOutOfDumps) {
  const auto vault = Vault::map(Vault::create(100'000, Vault::Kind::kMemfd).value(), 100'000).value();
  const Mapping idle = mapping_of(&vault.entry({0}));
  EXPECT_EQ(idle.resident_kib, 0);
  EXPECT_NE(idle.flags.find(" dd "), std::string::npos) << idle.flags;
  EXPECT_NE(idle.flags.find(" dc "), std::string::npos) << idle.flags;
  vault.entry({50'000}).publish(kHolder);
  EXPECT_EQ(mapping_of(&vault.entry({0})).resident_kib, 4);
}

// A process that may lock nothing still gets a vault: an unlocked memfd.
TEST(Vault, WorksWithoutLockedMemory) {
  const pid_t child = ::fork();
  if (child == 0) {
    const rlimit none{0, 0};
    const bool limited = ::setrlimit(RLIMIT_MEMLOCK, &none) == 0 && (::getuid() != 0 || ::setuid(65534) == 0);
    auto memory = Vault::create(kConnections);
    if (!limited || !memory) ::_exit(1);
    const auto vault = Vault::map(std::move(*memory), kConnections);
    if (!vault) ::_exit(2);
    vault->entry({1}).publish(kHolder);
    ::_exit(vault->entry({1}).holder() ? 0 : 3);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(Vault, RefusesMemoryThatCanShrink) {
  Fd memory(::memfd_create("test", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(memory.get(), static_cast<off_t>(Vault::bytes(kConnections))), 0);
  EXPECT_FALSE(Vault::map(std::move(memory), kConnections).has_value());
}

class VaultEntries : public testing::Test {
 protected:
  Vault vault_ = Vault::map(Vault::create(4, Vault::Kind::kMemfd).value(), 4).value();
  VaultEntry& entry_ = vault_.entry({2});
};

TEST_F(VaultEntries, TakeOneStepAtATime) {
  VaultSecret& secret = entry_.transmit;
  secret.begin(octets(1));
  EXPECT_EQ(secret.pending(), nullptr);
  for (int i = 1; i < 5; ++i) {
    secret.prepare(octets(i + 1));
    EXPECT_EQ(secret.current(), octets(i));
    ASSERT_NE(secret.pending(), nullptr);
    EXPECT_EQ(*secret.pending(), octets(i + 1));
    secret.commit();
    EXPECT_EQ(secret.current(), octets(i + 1));
    EXPECT_EQ(secret.pending(), nullptr);
  }
  secret.commit();  // nothing to commit
  EXPECT_EQ(secret.current(), octets(5));
}

TEST_F(VaultEntries, AbandonAndPrepareAgain) {
  VaultSecret& secret = entry_.receive;
  secret.begin(octets(1));
  secret.prepare(octets(2));
  secret.abandon();
  EXPECT_EQ(secret.pending(), nullptr);
  EXPECT_EQ(secret.current(), octets(1));
  secret.prepare(octets(3));
  secret.prepare(octets(4));
  EXPECT_EQ(*secret.pending(), octets(4));
  secret.commit();
  EXPECT_EQ(secret.current(), octets(4));
}

TEST_F(VaultEntries, OverwriteEveryOctetThatWas) {
  entry_.suite = {.version = 1, .aead = 2, .hash = 1, .role = VaultSuite::Role::kClient};
  entry_.transmit.begin(octets(1));
  entry_.transmit.prepare(octets(2));
  entry_.receive.begin(octets(3));
  entry_.set_stream(VaultStream{.header = {}, .have = 3, .last_record = 9});
  entry_.set_stream(VaultStream{.header = {}, .have = 4, .last_record = 9});
  entry_.publish(kHolder);
  entry_.wipe();
  EXPECT_TRUE(is_clean(entry_));
}

TEST_F(VaultEntries, OldSecretsAreOverwritten) {
  entry_.transmit.begin(octets(0x5a));
  entry_.transmit.prepare(octets(0x33));
  entry_.transmit.commit();
  const auto bytes = std::as_bytes(std::span(&entry_.transmit, 1));
  EXPECT_EQ(std::ranges::count(bytes, std::byte{0x5a}), 0);
  entry_.transmit.prepare(octets(0x44));
  entry_.transmit.abandon();
  EXPECT_EQ(std::ranges::count(bytes, std::byte{0x44}), 0);
}

TEST_F(VaultEntries, KeepTheStreamsPlace) {
  EXPECT_FALSE(entry_.stream());
  for (std::uint32_t have = 1; have < 6; ++have) {
    const VaultStream place{.header = {std::byte{24}}, .have = have, .last_record = have * 11};
    entry_.set_stream(place);
    EXPECT_EQ(entry_.stream(), place);
  }
  entry_.set_stream(std::nullopt);
  EXPECT_FALSE(entry_.stream());
}

}  // namespace
}  // namespace ktrunk::ipc
