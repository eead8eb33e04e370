// RecordLayerTest: a ktrunkd, and hostile peers on both sides of it: the trunk "carrier" connects to us, the trunk
// "hostile" is connected to. What a peer injects between two requests is judged by everything that can be seen of it:
// the alert, the log, the status, the other connections, and the work that the workers had with it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "support/hostile_peer.h"
#include "system/daemon_fixture.h"

namespace ktrunk::test {

inline constexpr milliseconds kSoon{30'000};  // for what is to come at once

enum class Tls : std::uint8_t { k12, k13 };

// Whose record layer ktrunkd's end is.
enum class Layer : std::uint8_t { kKernel, kRelay };

// What becomes of the connection.
struct Outcome {
  enum class Kind : std::uint8_t {
    kCarriesOn,  // what comes behind is served
    kAlert,      // a fatal alert, then the end
    kOrderly,    // close_notify, then the end
    kEnds,       // the end, without a fatal alert: the peer said one itself
  } kind = Kind::kCarriesOn;
  std::vector<ktls::AlertDescription> alerts;  // kAlert: one of these
  std::string reason;                          // in the log line

  [[nodiscard]] static Outcome carries_on() { return {}; }
  [[nodiscard]] static Outcome alert(std::vector<ktls::AlertDescription> one_of, std::string why) {
    return {Kind::kAlert, std::move(one_of), std::move(why)};
  }
  [[nodiscard]] static Outcome orderly() { return {Kind::kOrderly, {}, "the peer closed it"}; }
  [[nodiscard]] static Outcome ends(std::string why) { return {Kind::kEnds, {}, std::move(why)}; }
};

struct Injection {
  std::string name;
  // The octets to send, sealed in their order.
  std::function<std::string(HostilePeer&)> octets;
  Outcome kernel;
  // In relay OpenSSL judges; without: as `kernel`, but for the words of the reason.
  std::optional<Outcome> relay;
  // Kernels without rekey; without: as `kernel`.
  std::optional<Outcome> no_rekey;
};

class RecordLayerTest : public DaemonTest {
 protected:
  // DaemonTest::start() with the trunk "hostile", whose connection is hostile_.
  void start_with_hostile_trunk(Tls version, const Options& options = {});
  // The next connection of that trunk.
  [[nodiscard]] std::unique_ptr<HostilePeer> accept_hostile(Tls version) const;
  [[nodiscard]] static TlsOptions with_version(TlsOptions options, Tls version);
  // A new connection of the trunk "carrier".
  [[nodiscard]] std::unique_ptr<HostilePeer> hostile_call_in(Tls version) const;

  [[nodiscard]] std::optional<Layer> layer_of(const ByteStream& peer) const;
  [[nodiscard]] Outcome expected(const Injection& injection, Layer layer) const;
  // Sends, in one go, a request, the injection and another request, and checks everything. Gives the peer back when
  // its connection carries on and is to be kept.
  enum class WhenItCarriesOn : std::uint8_t { kEnd, kKeep };
  std::unique_ptr<HostilePeer> check(const Injection& injection, std::unique_ptr<HostilePeer> peer,
                                     WhenItCarriesOn then = WhenItCarriesOn::kEnd);

  // The parts of check().
  bool check_it_carries_on(SipStream& sip, const SipMessage& behind);
  void check_end(HostilePeer& peer, const Outcome& outcome, Layer layer);
  // Lines of the log that name the address and say that its connection ends.
  [[nodiscard]] std::vector<std::string> lines_about_end(const Address& peer) const;
  [[nodiscard]] std::uint64_t sum_of_workers(const Json& status, std::string_view counter) const;
  [[nodiscard]] std::uint64_t submits() const { return sum_of_workers(status(), "submits"); }
  // Nobody is busy while nothing happens.
  void expect_idle() const;
  [[nodiscard]] static bool kernel_rekeys();
  // A size of a test, divided by KTRUNK_TEST_SCALE where that is set.
  [[nodiscard]] static unsigned scaled(unsigned size, unsigned least = 1);

  std::optional<TcpListener> hostile_listener_;
  std::unique_ptr<HostilePeer> hostile_;
  std::size_t log_seen_ = 0;              // of the log, before the injection
  std::unique_ptr<SipStream> neighbour_;  // another connection, which nothing may happen to
};

}  // namespace ktrunk::test
