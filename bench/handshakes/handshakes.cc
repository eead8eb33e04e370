#include "bench/handshakes/handshakes.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "base/event_loop.h"
#include "handshake/tcp_socket.h"
#include "handshake/tls_session.h"

namespace ktrunk::bench {
namespace {

using handshake::TlsSession;
using std::chrono::milliseconds;

constexpr auto kPauseAfterFailure = milliseconds(20);

class Client {
 public:
  explicit Client(const HandshakeOptions& options) : options_(options) { result_.cpu = CpuMeter(options.measured); }

  Result<HandshakeResult> run() {
    auto context = options_.tls.connecting();
    if (!context) return std::unexpected(context.error());
    context_ = std::move(*context);
    auto loop = EventLoop::create();
    if (!loop) return std::unexpected(loop.error());
    loop_ = std::move(*loop);
    lanes_ = std::vector<Lane>(options_.concurrency);
    for (Lane& lane : lanes_) begin(lane);
    if (auto status = pass(options_.warm_up); !status) return std::unexpected(status.error());
    if (auto status = measure(); !status) return std::unexpected(status.error());
    lanes_.clear();
    if (result_.done == 0)
      return fail("no handshake with {} was done: {}", options_.connect.address.text(),
                  result_.first_failure.empty() ? "nothing was heard in time" : result_.first_failure);
    return std::move(result_);
  }

 private:
  struct Lane {
    enum class Step : std::uint8_t { kConnecting, kShaking, kAwaitingTicket, kClosing } step = Step::kConnecting;
    Fd socket;                          // until the session has it
    std::optional<TlsSession> session;  // goes after its watch
    EventLoop::Watch watch;
    EventLoop::Timer timer;
    Clock::time_point begun;
    handshake::Resumption ticket;
  };

  void begin(Lane& lane) {
    lane.watch.reset();
    lane.session.reset();
    lane.begun = Clock::now();
    lane.step = Lane::Step::kConnecting;
    auto socket = handshake::start_connect(options_.connect.address, options_.timeout);
    if (!socket) return failed(lane, socket.error().what);
    lane.socket = std::move(*socket);
    auto watch = loop_->watch(lane.socket.get(), Interest::kWrite, [this, &lane](Ready) { proceed(lane); });
    if (!watch) return failed(lane, watch.error().what);
    lane.watch = std::move(*watch);
    lane.timer = loop_->after(options_.timeout, [this, &lane] { failed(lane, "no answer in time"); });
  }

  void proceed(Lane& lane) {
    switch (lane.step) {
      case Lane::Step::kConnecting:
        return connected(lane);
      case Lane::Step::kShaking:
        return shake(lane);
      case Lane::Step::kAwaitingTicket:
        return await_ticket(lane);
      case Lane::Step::kClosing:
        return await_end(lane);
    }
  }

  void connected(Lane& lane) {
    if (const int error = handshake::connect_result(lane.socket.get()); error != 0)
      return failed(lane, fmt::format("connect: {}", errno_text(error)));
    auto session =
        TlsSession::connect(*context_, std::move(lane.socket), options_.connect.host, std::exchange(lane.ticket, {}));
    if (!session) return failed(lane, session.error().what);
    lane.session = std::move(*session);
    lane.step = Lane::Step::kShaking;
    shake(lane);
  }

  void shake(Lane& lane) {
    switch (lane.session->step()) {
      case TlsSession::Step::kWantRead:
        return lane.watch.set(Interest::kRead);
      case TlsSession::Step::kWantWrite:
        return lane.watch.set(Interest::kWrite);
      case TlsSession::Step::kFailed:
        return failed(lane, lane.session->failure().error.what);
      case TlsSession::Step::kDone:
        break;
    }
    lane.watch.set(Interest::kRead);
    if (measuring_) {
      const std::chrono::nanoseconds taken = Clock::now() - lane.begun;
      result_.latency.record(static_cast<std::uint64_t>(taken.count()));
    }
    const handshake::Negotiated& agreed = lane.session->negotiated();
    if (result_.version.empty()) {
      result_.version = ktls::version_name(agreed.version);
      result_.cipher = agreed.cipher;
    }
    if (measuring_ && agreed.resumed) ++result_.resumed;
    lane.step = Lane::Step::kAwaitingTicket;
    await_ticket(lane);
  }

  void await_ticket(Lane& lane) {
    if (options_.resume == Resume::kYes) {
      lane.ticket = lane.session->resumption();
      while (!lane.ticket.valid()) {
        const auto outcome = lane.session->read(std::as_writable_bytes(std::span(buffer_))).outcome;
        lane.ticket = lane.session->resumption();
        if (lane.ticket.valid()) break;
        if (outcome == TlsSession::Io::kWantRead) return;
        if (outcome != TlsSession::Io::kBytes) return failed(lane, "the server gives no session to resume");
      }
    }
    (void)lane.session->shutdown();
    lane.step = Lane::Step::kClosing;
    await_end(lane);
  }

  void await_end(Lane& lane) {
    for (;;) {
      const auto outcome = lane.session->read(std::as_writable_bytes(std::span(buffer_))).outcome;
      if (outcome == TlsSession::Io::kBytes) continue;
      if (outcome == TlsSession::Io::kWantRead || outcome == TlsSession::Io::kWantWrite) return;
      break;  // the end, in whatever way
    }
    if (measuring_) ++result_.done;
    ++rounds_;
    begin(lane);
  }

  void failed(Lane& lane, const std::string& reason) {
    if (result_.first_failure.empty()) result_.first_failure = reason;
    ++result_.failed;
    lane.watch.reset();
    lane.session.reset();
    lane.socket.reset();
    lane.ticket = {};
    lane.timer = loop_->after(kPauseAfterFailure, [this, &lane] { begin(lane); });
  }

  Status pass(milliseconds duration) {
    const Clock::time_point end = Clock::now() + duration;
    Clock::time_point next_line = Clock::now() + std::chrono::seconds(1);
    std::uint64_t before = rounds_;
    for (Clock::time_point now = Clock::now(); now < end; now = Clock::now()) {
      if (now >= next_line) {
        if (!options_.quiet)
          fmt::print(stderr, "{}: {} handshakes/s, {} failed\n", measuring_ ? "measuring" : "warming up",
                     rounds_ - before, result_.failed);
        before = rounds_;
        next_line += std::chrono::seconds(1);
      }
      if (auto status = loop_->turn(std::min<Clock::duration>(end - now, milliseconds(100))); !status) return status;
    }
    return {};
  }

  Status measure() {
    if (auto status = result_.cpu.start(); !status) return status;
    const auto own_before = cpu_nanoseconds(0);
    measured_from_ = Clock::now();
    measuring_ = true;
    if (auto status = pass(options_.duration); !status) return status;
    measuring_ = false;
    result_.seconds = std::chrono::duration<double>(Clock::now() - measured_from_).count();
    if (const auto own_after = cpu_nanoseconds(0); own_before && own_after)
      result_.own_cpu_ns = *own_after - *own_before;
    return result_.cpu.stop();
  }

  const HandshakeOptions& options_;
  std::optional<handshake::TlsContext> context_;
  std::unique_ptr<EventLoop> loop_;
  std::vector<Lane> lanes_;
  HandshakeResult result_;
  bool measuring_ = false;
  Clock::time_point measured_from_;
  std::uint64_t rounds_ = 0;
  std::array<char, 16384> buffer_;
};

}  // namespace

Result<HandshakeResult> run_handshakes(const HandshakeOptions& options) { return Client(options).run(); }

Json handshakes_json(const HandshakeOptions& options, const HandshakeResult& result) {
  const auto done = static_cast<double>(result.done);
  Json document = {{"options",
                    {{"connect", options.connect.address.text()},
                     {"resume", options.resume == Resume::kYes},
                     {"client_certificate", !options.tls.certificate.empty()},
                     {"concurrency", options.concurrency}}},
                   {"seconds", result.seconds},
                   {"tls", {{"version", result.version}, {"cipher", result.cipher}}},
                   {"handshakes", result.done},
                   {"handshakes_per_s", result.seconds > 0 ? done / result.seconds : 0},
                   {"resumed", result.resumed},
                   {"failed", result.failed},
                   {"first_failure", result.first_failure},
                   {"latency_us", latency_json(result.latency)},
                   {"own_cpu_ns", result.own_cpu_ns}};
  if (!result.cpu.empty()) {
    document["cpu"] = cpu_json(result.cpu);
    document["cpu"]["ns_per_handshake"] = result.cpu_per_handshake_ns();
  }
  return document;
}

std::string handshakes_text(const HandshakeResult& result) {
  std::string text;
  const auto row = [&text](std::string_view title, const std::string& value) {
    text += fmt::format("{:<18} {}\n", title, value);
  };
  const auto done = static_cast<double>(result.done);
  row("Handshakes", fmt::format("{} in {:.2f} s, {:.0f}/s; {}, {}", count_text(result.done), result.seconds,
                                result.seconds > 0 ? done / result.seconds : 0, result.version, result.cipher));
  row("Resumed", count_text(result.resumed));
  row("Failed", count_text(result.failed) + (result.first_failure.empty() ? "" : " (" + result.first_failure + ")"));
  row("Latency", latency_text(result.latency));
  for (const CpuMeter::Share& share : result.cpu.shares())
    row("CPU of " + (share.process.name.empty() ? std::to_string(share.process.pid) : share.process.name),
        fmt::format("{}, {} a handshake", duration_text(static_cast<double>(share.ns)),
                    duration_text(static_cast<double>(share.ns) / done)));
  if (!result.cpu.empty())
    row("CPU of all these", fmt::format("{}, {} a handshake", duration_text(static_cast<double>(result.cpu.total_ns())),
                                        duration_text(result.cpu_per_handshake_ns())));
  return text;
}

}  // namespace ktrunk::bench
