#include "system/record_layer_fixture.h"

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "support/scale.h"

namespace ktrunk::test {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

// io_uring_enter calls that one injection may cost all workers together; one that spins makes thousands at once.
constexpr std::uint64_t kMostSubmits = 2000;

std::string names_of(const std::vector<ktls::AlertDescription>& alerts) {
  std::string text;
  for (const auto alert : alerts) text += std::string(ktls::alert_name(alert)) + " ";
  return text;
}

}  // namespace

TlsOptions RecordLayerTest::with_version(TlsOptions options, Tls version) {
  options.min_version = options.max_version = version == Tls::k13 ? TLS1_3_VERSION : TLS1_2_VERSION;
  return options;
}

void RecordLayerTest::start_with_hostile_trunk(Tls version, const Options& options) {
  auto listener = TcpListener::bind(fresh_address());
  ASSERT_TRUE(listener) << listener.error().what;
  hostile_listener_ = std::move(*listener);
  std::jthread accept([&] { hostile_ = accept_hostile(version); });
  const Certificates& files = certificates();
  ASSERT_NO_FATAL_FAILURE(start({.limits = options.limits,
                                 .tables = fmt::format(R"(
[[trunk]]
name = "hostile"
targets = ["tls:{}"]
verify_name = "pbx.test"
ca = "{}"
certificate = "{}"
key = "{}"
listen = "edge-tls"

[[route]]
host = "hostile.test"
to = "hostile"
)",
                                                       hostile_listener_->address().text(), files.ca.file(),
                                                       files.edge.certificate, files.edge.key) +
                                           options.tables,
                                 .ktrunk_lines = options.ktrunk_lines,
                                 .workers = options.workers}));
  accept.join();
  ASSERT_NE(hostile_, nullptr);
}

std::unique_ptr<HostilePeer> RecordLayerTest::accept_hostile(Tls version) const {
  auto socket = hostile_listener_->accept(kLong);
  if (!socket) {
    ADD_FAILURE() << "ktrunkd does not connect: " << socket.error().what;
    return nullptr;
  }
  auto peer = HostilePeer::accept(std::move(*socket), with_version(as_pbx(), version), kLong);
  if (peer) return std::move(*peer);
  ADD_FAILURE() << peer.error().what;
  return nullptr;
}

std::unique_ptr<HostilePeer> RecordLayerTest::hostile_call_in(Tls version) const {
  auto peer = HostilePeer::connect(edge_tls_, with_version(as_carrier(), version), kLong);
  if (peer) return std::move(*peer);
  ADD_FAILURE() << peer.error().what << "\n" << daemon_->log();
  return nullptr;
}

std::optional<Layer> RecordLayerTest::layer_of(const ByteStream& peer) const {
  const auto connection = with_peer(status(), peer);
  if (!connection) return std::nullopt;
  return (*connection)["record_layer"] == "kernel" ? Layer::kKernel : Layer::kRelay;
}

bool RecordLayerTest::kernel_rekeys() { return ktls_support().rekey; }

unsigned RecordLayerTest::scaled(unsigned size, unsigned least) { return std::max(least, size / scale()); }

Outcome RecordLayerTest::expected(const Injection& injection, Layer layer) const {
  if (layer == Layer::kKernel)
    return kernel_rekeys() ? injection.kernel : injection.no_rekey.value_or(injection.kernel);
  if (injection.relay) return *injection.relay;
  Outcome outcome = injection.kernel;
  outcome.reason.clear();  // OpenSSL has other words
  return outcome;
}

std::vector<std::string> RecordLayerTest::lines_about_end(const Address& peer) const {
  std::vector<std::string> found;
  std::istringstream log(daemon_->log().substr(log_seen_));
  for (std::string line; std::getline(log, line);)
    if (line.find(peer.text()) != std::string::npos &&
        (line.find("clos") != std::string::npos || line.find("broken") != std::string::npos))
      found.push_back(line);
  return found;
}

std::uint64_t RecordLayerTest::sum_of_workers(const Json& status, std::string_view counter) const {
  std::uint64_t sum = 0;
  for (const Json& worker : status["workers"]) sum += worker.value(std::string(counter), std::uint64_t{0});
  return sum;
}

void RecordLayerTest::expect_idle() const {
  const std::uint64_t before = submits();
  std::this_thread::sleep_for(milliseconds(500));
  EXPECT_LT(submits() - before, 100u) << "a worker spins";
}

std::unique_ptr<HostilePeer> RecordLayerTest::check(const Injection& injection, std::unique_ptr<HostilePeer> owned,
                                                    WhenItCarriesOn then) {
  SCOPED_TRACE(injection.name);
  if (owned == nullptr) return nullptr;
  HostilePeer& peer = *owned;
  SipStream sip(std::move(owned));
  log_seen_ = daemon_->log().size();
  const auto checks = [&]() -> bool {  // true: it carries on, and is kept
    const SipMessage first = options_to_us();
    const auto answered = answers(sip, first, 200);
    EXPECT_TRUE(answered) << daemon_->log();
    const auto layer = layer_of(peer);
    EXPECT_TRUE(layer) << status().dump(2);
    if (!answered || !layer) return false;
    const Outcome outcome = expected(injection, *layer);
    const std::uint64_t submits_before = submits();
    const std::uint64_t replies_before = sum_of_workers(status(), "replies");

    // The data before it is served, in whatever way it came; the data behind it only where the connection carries on.
    const SipMessage before = options_to_us();
    const SipMessage behind = options_to_us();
    std::string octets = peer.seal(ktls::RecordType::kApplicationData, before.text());
    octets += injection.octets(peer);
    octets += peer.seal(ktls::RecordType::kApplicationData, behind.text());
    const Status sent = peer.send_raw(octets, kSoon);  // may fail when it ends midway
    const bool carries_on = outcome.kind == Outcome::Kind::kCarriesOn;
    if (*layer == Layer::kKernel || carries_on) {
      const auto served = sip.receive(kSoon);
      if (!served) {
        ADD_FAILURE() << "data before it: " << served.error().what << daemon_->log();
        return false;
      }
      EXPECT_EQ(served->header("Call-ID"), before.header("Call-ID"));
    } else {
      // OpenSSL has ended the stream before the answer can be sent.
      EXPECT_TRUE(eventually([&] { return sum_of_workers(status(), "replies") == replies_before + 1; }, kSoon));
    }
    if (carries_on) {
      EXPECT_TRUE(sent);
      if (!check_it_carries_on(sip, behind)) return false;
    }
    const bool kept = carries_on && then == WhenItCarriesOn::kKeep;
    if (carries_on && !kept) {
      EXPECT_TRUE(peer.finish());
      check_end(peer, Outcome::orderly(), *layer);
    } else if (!carries_on) {
      check_end(peer, outcome, *layer);
    }
    EXPECT_LT(submits() - submits_before, kMostSubmits) << "a worker spins";
    if (neighbour_ != nullptr) {
      EXPECT_TRUE(answers(*neighbour_, options_to_us(), 200));
    }
    return kept;
  };
  if (!checks()) return nullptr;
  return std::unique_ptr<HostilePeer>(dynamic_cast<HostilePeer*>(sip.release().release()));
}

bool RecordLayerTest::check_it_carries_on(SipStream& sip, const SipMessage& behind) {
  const auto next = sip.receive(kSoon);
  if (!next) {
    ADD_FAILURE() << "data behind it: " << next.error().what << daemon_->log();
    return false;
  }
  EXPECT_EQ(next->header("Call-ID"), behind.header("Call-ID"));
  const auto answered = answers(sip, options_to_us(), 200);
  EXPECT_TRUE(answered) << daemon_->log();
  EXPECT_THAT(lines_about_end(sip.stream().local()), SizeIs(0));
  return static_cast<bool>(answered);
}

void RecordLayerTest::check_end(HostilePeer& peer, const Outcome& outcome, Layer layer) {
  using How = HostilePeer::End::How;
  const Address address = peer.local();
  const auto end = peer.receive_end(kSoon);
  const std::string said =
      end.how == How::kAlert ? std::string(ktls::alert_name(end.alert.description)) : "no alert; " + end.error.what;
  switch (outcome.kind) {
    case Outcome::Kind::kAlert:
      EXPECT_EQ(end.how, How::kAlert) << said;
      EXPECT_EQ(end.alert.level, ktls::AlertLevel::kFatal) << said;
      EXPECT_NE(std::ranges::find(outcome.alerts, end.alert.description), outcome.alerts.end())
          << said << ", not one of " << names_of(outcome.alerts);
      break;
    case Outcome::Kind::kOrderly:
    case Outcome::Kind::kCarriesOn:
      EXPECT_TRUE(end.how == How::kAlert && end.alert == ktls::kCloseNotify) << said;
      break;
    case Outcome::Kind::kEnds:
      EXPECT_TRUE(end.how != How::kError || end.error.code == ECONNRESET) << said;
      EXPECT_FALSE(end.how == How::kAlert && end.alert.level == ktls::AlertLevel::kFatal) << said;
      break;
  }
  if (end.how == How::kAlert) {
    const auto after = peer.receive(kSoon);
    EXPECT_TRUE(after ? !*after : after.error().code == ECONNRESET)
        << "after the alert: " << (after ? fmt::format("a record of type {}", (*after)->type) : after.error().what);
  }
  EXPECT_TRUE(gone(address));
  const auto lines = lines_about_end(address);
  EXPECT_THAT(lines, testing::Contains(HasSubstr(outcome.reason))) << daemon_->log();
  EXPECT_THAT(lines, SizeIs(1)) << "layer " << static_cast<int>(layer);
}

}  // namespace ktrunk::test
