// A key keeper on a bench: a fake kernel with one kTLS socket, the supervisor's part (what is not answered is said
// again, a second KeyUpdate while one is under way is dropped), and death: at a chosen point, before or after a call of
// the kernel or a word to the supervisor, the keeper is thrown away and a new one made on the same vault.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "handshake/key_keeper.h"
#include "ktls/fake_kernel.h"
#include "ktls/key_schedule.h"

namespace ktrunk::test {

inline constexpr ConnectionId kConnection{{3}, {7}};

// What kills the keeper.
struct Death {};

class KeeperBench {
 public:
  struct Scene {
    ktls::Version version = ktls::Version::kTls13;
    ktls::Aead aead = ktls::Aead::kAes128Gcm;
    ktls::Hash hash = ktls::Hash::kSha256;
    ktls::Endpoint self = ktls::Endpoint::kServer;
    bool rekey = true;
    handshake::KeyKeeper::Limits limits = {};
  };
  KeeperBench() : KeeperBench(Scene()) {}
  explicit KeeperBench(Scene scene);

  // The keeper dies at this point, counted from now; points() have been passed.
  void die_at(int point) {
    die_at_ = point;
    points_ = 0;
  }
  [[nodiscard]] int points() const { return points_; }
  [[nodiscard]] bool died() const { return died_; }
  void restart();  // the keeper is another process's

  // One handshake record comes, in pieces of `piece` octets; repeated to the successor when the keeper dies over it.
  void record(const std::string& octets, std::size_t piece = 2048);
  // The home worker has sent the KeyUpdate: the transmit keys are installed, as above.
  void control_sent();
  void ask(ipc::Renew::Which which);  // Renew, as above

  // The keys in the kernel are those after so many updates.
  [[nodiscard]] bool receives_under(unsigned updates);
  [[nodiscard]] bool sends_under(unsigned updates);
  // How often keys were installed, the first time included.
  [[nodiscard]] int installs(int name) const;
  [[nodiscard]] ipc::VaultEntry& entry() { return vault.entry(kConnection.slot); }
  [[nodiscard]] bool update_under_way() const { return under_way_; }
  [[nodiscard]] bool octets_in_vault(const ktls::TrafficSecret& secret);
  [[nodiscard]] ktls::TrafficSecret secret(const ktls::TrafficSecret& first, unsigned updates) const;

  // A kernel in which every call is a point to die at.
  class DyingKernel final : public ktls::Kernel {
   public:
    explicit DyingKernel(KeeperBench& bench) : bench_(bench) {}
    int set_option(int fd, int level, int name, const void* value, socklen_t length) override;
    int get_option(int fd, int level, int name, void* value, socklen_t* length) override;

   private:
    KeeperBench& bench_;
  };

  Scene scene;
  FakeKernel kernel;
  ktls::Support support;
  ipc::Vault vault;
  ipc::HandshakeStats stats;
  std::unique_ptr<EventLoop> loop;
  Fd socket;
  ktls::TrafficSecret transmit;
  ktls::TrafficSecret receive;

  // What came through to the supervisor.
  std::vector<ipc::SendControl> controls;  // to the worker: without those that were dropped
  std::vector<ipc::Resume> resumes;
  std::vector<ipc::Fault> faults;
  std::unique_ptr<handshake::KeyKeeper> keeper;

 private:
  void point();
  void make_keeper();
  template <typename Call>
  void until_answered(const Call& call);
  template <ktls::Direction D>
  [[nodiscard]] bool has_keys(int name, const ktls::TrafficSecret& first, unsigned updates);

  DyingKernel dying_{*this};
  int die_at_ = -1;
  int points_ = 0;
  bool died_ = false;
  bool under_way_ = false;  // a KeyUpdate of ours
};

enum class Asks : char { kNo = 0, kYes = 1 };  // for a KeyUpdate in return
[[nodiscard]] inline std::string key_update(Asks asks) {
  return std::string("\x18\0\0\1", 4) + static_cast<char>(asks);
}
// A NewSessionTicket of the right form, but of no use.
[[nodiscard]] std::string ticket(std::size_t size = 32);

}  // namespace ktrunk::test
