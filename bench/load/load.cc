#include "bench/load/load.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <thread>
#include <utility>

#include "bench/common/interrupts.h"
#include "bench/io/opening.h"

namespace ktrunk::bench {
namespace {

constexpr auto kLook = std::chrono::milliseconds(200);  // at interrupts, at least so often
constexpr auto kAgain = std::chrono::seconds(1);        // after a connection of a stalled peer came to nothing

CallerCounts difference(const CallerCounts& now, const CallerCounts& then) {
  return {.begun = now.begun - then.begun,
          .answered = now.answered - then.answered,
          .failed = now.failed - then.failed,
          .timeouts = now.timeouts - then.timeouts,
          .lost = now.lost - then.lost,
          .messages_sent = now.messages_sent - then.messages_sent,
          .messages_received = now.messages_received - then.messages_received,
          .unexpected = now.unexpected - then.unexpected,
          .connections_ended = now.connections_ended - then.connections_ended};
}

CalleeCounts difference(const CalleeCounts& now, const CalleeCounts& then) {
  return {.requests = now.requests - then.requests,
          .responses = now.responses - then.responses,
          .dropped = now.dropped - then.dropped,
          .unexpected = now.unexpected - then.unexpected,
          .connections = now.connections};
}

class Run {
 public:
  Run(const LoadOptions& options, Fd answer_socket)
      : options_(options), answer_socket_(std::move(answer_socket)), support_(ktls::probe_support()) {}

  Result<LoadResult> run() {
    if (auto status = prepare(); !status) return std::unexpected(status.error());
    if (auto status = set_up(); !status) return std::unexpected(status.error());
    result_.connections = caller_ ? caller_->connections() : callee_->connections();
    if (caller_) caller_->begin(Clock::now());
    open_stalled(Clock::now());
    if (auto status = pass(options_.warm_up, "warming up"); !status) return std::unexpected(status.error());
    if (auto status = measure(); !status) return std::unexpected(status.error());
    if (auto status = drain(); !status) return std::unexpected(status.error());
    conclude();
    return std::move(result_);
  }

 private:
  Status prepare() {
    result_.cpu = CpuMeter(options_.measured);
    auto reactor = Reactor::create();
    if (!reactor) return std::unexpected(reactor.error());
    reactor_ = std::move(*reactor);
    const auto wanted = options_.tls.wanted_record_layer();
    if (wanted == config::RecordLayer::kKernel && !support_.ulp)
      return fail("--record-layer kernel: {}", support_.describe());
    opener_ = std::make_unique<Opener>(*reactor_, wanted, support_);
    if (options_.answer) {
      callee_ = std::make_unique<Callee>(*reactor_, options_.caller.shape.message_bytes);
      if (options_.answer->transport == config::Transport::kTls) {
        auto context = options_.tls.answering();
        if (!context) return std::unexpected(context.error());
        answering_ = std::move(*context);
      }
      const auto accepted = [this](Result<std::unique_ptr<Stream>> stream) {
        if (stream) return callee_->add(std::move(*stream));
        note_failure(stream.error());
      };
      if (!answer_socket_.valid()) {
        auto socket = listening_socket(options_.answer->address);
        // The kernel lets go of a run's sockets some time after its ring has gone.
        for (int more = 50; !socket && more > 0; --more) {
          std::this_thread::sleep_for(std::chrono::milliseconds(100));
          socket = listening_socket(options_.answer->address);
        }
        if (!socket) return std::unexpected(socket.error());
        answer_socket_ = std::move(*socket);
      }
      opener_->listen(std::move(answer_socket_), answering_ ? &*answering_ : nullptr, accepted);
    }
    if (options_.connect) {
      CallerOptions caller = options_.caller;
      const bool tls = options_.connect->transport == config::Transport::kTls;
      caller.shape.transport = tls ? "TLS" : "TCP";
      caller.shape.run = fmt::format("{:x}-{:x}", ::getpid(), Clock::now().time_since_epoch().count());
      caller_ = std::make_unique<Caller>(*reactor_, caller);
      if (tls) {
        auto context = options_.tls.connecting();
        if (!context) return std::unexpected(context.error());
        connecting_ = std::move(*context);
      }
      result_.connections_wanted = options_.connections;
      if (options_.stalled != 0) {
        caller.shape.run += "-stalled";
        stalled_ = std::make_unique<StalledPeers>(*reactor_, caller.shape, caller.method, options_.stalled_rate);
      }
    }
    return {};
  }

  void note_failure(const Error& error) {
    if (result_.connection_failure.empty()) result_.connection_failure = error.what;
  }

  Status set_up() {
    const Clock::time_point begin = Clock::now();
    Clock::time_point said = begin;
    std::size_t begun = 0;
    std::size_t done = 0;
    const std::size_t wanted = caller_ ? options_.connections : 0;
    const bool forever = !caller_ && options_.duration.count() == 0;
    for (;;) {
      const Clock::time_point now = Clock::now();
      const double seconds = std::chrono::duration<double>(now - begin).count();
      while (begun < wanted && begun - done < kAtOnce &&
             (options_.open_rate <= 0 || static_cast<double>(begun) <= seconds * options_.open_rate)) {
        ++begun;
        opener_->connect(*options_.connect, connecting_ ? &*connecting_ : nullptr,
                         [this, &done](Result<std::unique_ptr<Stream>> stream) {
                           ++done;
                           if (stream) return caller_->add(std::move(*stream));
                           note_failure(stream.error());
                         });
      }
      const bool callers_up = done == wanted;
      if (callers_up && caller_ && caller_->connections() == 0) return no_connection();
      if (callers_up && (!callee_ || callee_->connections() > 0 || (caller_ && options_.on_demand))) return {};
      if (Interrupts::asked()) return fail("interrupted before the connections were up");
      if (!forever && now - begin > options_.set_up) return no_connection();
      if (now - said > std::chrono::seconds(1) && !options_.quiet) {
        said = now;
        fmt::print(stderr, "connecting: {} of {} up; answering side: {} up\n", caller_ ? caller_->connections() : 0,
                   wanted, callee_ ? std::to_string(callee_->connections()) : "none");
      }
      if (auto status = reactor_->turn(now + std::chrono::milliseconds(10)); !status) return status;
    }
  }

  // So many that read nothing; another one for each that the proxy has ended.
  void open_stalled(Clock::time_point now) {
    if (!stalled_) return;
    while (now >= open_stalled_from_ && stalled_->connections() + stalled_opening_ < options_.stalled) {
      ++stalled_opening_;
      opener_->connect(*options_.connect, connecting_ ? &*connecting_ : nullptr,
                       [this](Result<std::unique_ptr<Stream>> stream) {
                         --stalled_opening_;
                         if (stream) return stalled_->add(std::move(*stream), Clock::now());
                         note_failure(stream.error());
                         open_stalled_from_ = Clock::now() + kAgain;
                       });
    }
  }

  // At the end of its time: whoever has not come up by now does not.
  Status no_connection() {
    const bool answering = callee_ && callee_->connections() == 0;
    if (caller_ && caller_->connections() > 0 && !answering) return {};
    const std::string why =
        result_.connection_failure.empty() ? "nothing was heard in time" : result_.connection_failure;
    if (caller_ && caller_->connections() == 0) {
      return fail("no connection came up to {}:{}: {}", config::transport_name(options_.connect->transport),
                  options_.connect->address.text(), why);
    }
    return fail("nobody connected to the answering side, {}:{}: {}", config::transport_name(options_.answer->transport),
                options_.answer->address.text(), why);
  }

  Status turn(Clock::time_point end) {
    const Clock::time_point now = Clock::now();
    Clock::time_point until = std::min(end, now + kLook);
    if (caller_) until = std::min(until, caller_->next_due(now));
    if (stalled_) until = std::min(until, stalled_->next_due());
    if (auto status = reactor_->turn(until); !status) return status;
    if (caller_) caller_->proceed(Clock::now());
    if (stalled_) stalled_->proceed(Clock::now());
    open_stalled(Clock::now());
    return {};
  }

  [[nodiscard]] bool all_gone() const { return caller_ ? caller_->connections() == 0 : callee_->connections() == 0; }

  // Lets time pass, with a line of progress each second. duration 0: until interrupted.
  Status pass(std::chrono::milliseconds duration, const char* what) {
    const bool forever = duration.count() == 0 && std::string_view(what) != "warming up";
    const Clock::time_point begin = Clock::now();
    const Clock::time_point end = forever ? Clock::time_point::max() : begin + duration;
    Clock::time_point next_line = begin + std::chrono::seconds(1);
    CallerCounts before = caller_ ? caller_->counts() : CallerCounts{};
    CalleeCounts answered = callee_ ? callee_->counts() : CalleeCounts{};
    for (Clock::time_point now = begin; now < end && !Interrupts::asked(); now = Clock::now()) {
      if (all_gone() && caller_) return {};
      if (now >= next_line) {
        const double seconds = std::chrono::duration<double>(now - next_line + std::chrono::seconds(1)).count();
        if (!options_.quiet) progress(what, now - begin, seconds, before, answered);
        if (caller_) before = caller_->counts();
        if (callee_) answered = callee_->counts();
        next_line = now + std::chrono::seconds(1);
      }
      if (auto status = turn(std::min(end, next_line)); !status) return status;
    }
    return {};
  }

  void progress(const char* what, Clock::duration passed, double seconds, const CallerCounts& before,
                const CalleeCounts& answered) {
    const auto rate = [seconds](std::uint64_t count) {
      return count_text(static_cast<std::uint64_t>(static_cast<double>(count) / seconds));
    };
    std::string line = fmt::format("{:4.0f} s {}: ", std::chrono::duration<double>(passed).count(), what);
    if (caller_) {
      const CallerCounts& now = caller_->counts();
      const Histogram latency = caller_->take_interval();
      line += fmt::format("{} begun/s, {} answered/s, {} in progress, p50 {}, p99 {}", rate(now.begun - before.begun),
                          rate(now.answered - before.answered), caller_->in_progress(),
                          duration_text(static_cast<double>(latency.percentile(50))),
                          duration_text(static_cast<double>(latency.percentile(99))));
      const std::uint64_t bad = now.failed + now.timeouts + now.lost;
      if (bad != 0) line += fmt::format(", {} failed so far", count_text(bad));
    } else {
      line += fmt::format("{} requests/s, {} connections", rate(callee_->counts().requests - answered.requests),
                          callee_->connections());
    }
    fmt::print(stderr, "{}\n", line);
  }

  Status measure() {
    const CallerCounts before = caller_ ? caller_->counts() : CallerCounts{};
    const CalleeCounts answered = callee_ ? callee_->counts() : CalleeCounts{};
    if (auto status = result_.cpu.start(); !status) return status;
    const auto own_before = cpu_nanoseconds(0);
    const Clock::time_point begin = Clock::now();
    if (caller_) caller_->measure_from(begin);
    if (auto status = pass(options_.duration, "measuring"); !status) return status;
    result_.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    const auto own_after = cpu_nanoseconds(0);
    if (own_before && own_after) result_.own_cpu_ns = *own_after - *own_before;
    if (auto status = result_.cpu.stop(); !status) return status;
    result_.interrupted = Interrupts::asked();
    if (caller_) {
      base_ = before;
      result_.caller = difference(caller_->counts(), before);
    }
    if (callee_) result_.callee = difference(callee_->counts(), answered);
    return {};
  }

  // What is in progress ends, or runs out of time.
  Status drain() {
    if (!caller_) return {};
    caller_->stop();
    const Clock::time_point end = Clock::now() + options_.caller.timeout + std::chrono::seconds(1);
    while (caller_->in_progress() != 0 && caller_->connections() != 0 && Clock::now() < end) {
      if (auto status = turn(end); !status) return status;
    }
    return {};
  }

  void conclude() {
    if (caller_) {
      const CallerCounts late = difference(caller_->counts(), base_);
      result_.caller.failed = late.failed;
      result_.caller.timeouts = late.timeouts;
      result_.caller.lost = late.lost;
      result_.caller.unexpected = late.unexpected;
      result_.caller.connections_ended = late.connections_ended;
      result_.latency = caller_->latency();
      result_.bye_latency = caller_->bye_latency();
      result_.troubles = caller_->troubles();
      result_.stream_kind = caller_->stream_kind();
      caller_->finish();
    }
    if (callee_) callee_->finish();
    if (stalled_) result_.stalled = stalled_->counts();
    reactor_.reset();
  }

  static constexpr std::size_t kAtOnce = 32;  // connections on their way up

  const LoadOptions& options_;
  Fd answer_socket_;
  ktls::Support support_;
  Interrupts interrupts_;
  std::optional<handshake::TlsContext> connecting_;
  std::optional<handshake::TlsContext> answering_;
  LoadResult result_;
  CallerCounts base_;
  std::unique_ptr<Caller> caller_;
  std::unique_ptr<Callee> callee_;
  std::unique_ptr<StalledPeers> stalled_;
  std::size_t stalled_opening_ = 0;
  Clock::time_point open_stalled_from_{};
  std::unique_ptr<Opener> opener_;
  std::unique_ptr<Reactor> reactor_;  // goes first: the others' operations are in it
};

}  // namespace

Result<LoadResult> run_load(const LoadOptions& options, Fd answer_socket) {
  return Run(options, std::move(answer_socket)).run();
}

double StallComparison::p99_ratio() const {
  const auto before = static_cast<double>(without.latency.percentile(99));
  return before > 0 ? static_cast<double>(with.latency.percentile(99)) / before : 0;
}

Result<StallComparison> compare_stall(const LoadOptions& options) {
  LoadOptions alone = options;
  alone.stalled = 0;
  auto without = run_load(alone);
  if (!without) return std::unexpected(without.error());
  if (without->interrupted) return fail("interrupted before the run with stalled peers");
  auto with = run_load(options);
  if (!with) return std::unexpected(with.error());
  return StallComparison{std::move(*without), std::move(*with)};
}

}  // namespace ktrunk::bench
