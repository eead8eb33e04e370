#include "bench/idle/idle.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>

#include "bench/common/interrupts.h"
#include "bench/io/opening.h"

namespace ktrunk::bench {
namespace {

constexpr std::size_t kAtOnce = 32;                      // connections on their way up
constexpr auto kLook = std::chrono::milliseconds(200);   // at interrupts, at least so often
constexpr auto kSay = std::chrono::milliseconds(1'000);  // progress

constexpr std::chrono::milliseconds kForever = std::chrono::hours(24 * 365);

class Crowd final : public StreamUser {
 public:
  explicit Crowd(const IdleOptions& options) : options_(options), support_(ktls::probe_support()) {}

  Result<IdleResult> run(const std::function<Status(const IdleResult&)>& up) {
    if (auto status = prepare(); !status) return std::unexpected(status.error());
    const auto before = memory();
    if (!before) return std::unexpected(before.error());
    result_.memory_before_kib = *before;
    if (auto status = open(); !status) return std::unexpected(status.error());
    if (auto status = wait(options_.settle); !status) return std::unexpected(status.error());
    const auto after = memory();
    if (!after) return std::unexpected(after.error());
    result_.memory_after_kib = *after;
    if (auto status = up(result_); !status) return std::unexpected(status.error());
    const bool forever = options_.hold.count() == 0;
    if (auto status = wait(forever ? kForever : options_.hold); !status) return std::unexpected(status.error());
    for (const auto& stream : streams_)
      if (!stream->ended()) stream->finish();
    reactor_.reset();
    return std::move(result_);
  }

  void on_octets(Stream&, std::string_view) override {}
  void on_end(Stream&, const std::string& reason) override {
    ++result_.ended;
    note_failure(reason);
  }

 private:
  Status prepare() {
    auto reactor = Reactor::create();
    if (!reactor) return std::unexpected(reactor.error());
    reactor_ = std::move(*reactor);
    opener_ = std::make_unique<Opener>(*reactor_, options_.tls.wanted_record_layer(), support_);
    if (options_.connect.transport != config::Transport::kTls) return {};
    auto context = options_.tls.connecting();
    if (!context) return std::unexpected(context.error());
    connecting_ = std::move(*context);
    return {};
  }

  [[nodiscard]] Result<std::uint64_t> memory() const {
    std::uint64_t sum = 0;
    for (const MeasuredProcess& process : options_.measured) {
      const auto kib = own_memory_kib(process.pid);
      if (!kib) return std::unexpected(kib.error());
      sum += *kib;
    }
    return sum;
  }

  void note_failure(const std::string& reason) {
    if (result_.first_failure.empty()) result_.first_failure = reason;
  }

  Status open() {
    const Clock::time_point begin = Clock::now();
    Clock::time_point say = begin + kSay;
    std::size_t begun = 0;
    std::size_t done = 0;
    streams_.reserve(options_.connections);
    while (done < options_.connections && !Interrupts::asked() && Clock::now() - begin < options_.set_up) {
      for (; begun < options_.connections && begun - done < kAtOnce; ++begun) {
        opener_->connect(options_.connect, connecting_ ? &*connecting_ : nullptr,
                         [this, &done](Result<std::unique_ptr<Stream>> stream) {
                           ++done;
                           if (!stream) return note_failure(stream.error().what);
                           streams_.push_back(std::move(*stream));
                           streams_.back()->start(*this, streams_.size() - 1);
                         });
      }
      if (Clock::now() > say && !options_.quiet) {
        fmt::print(stderr, "connecting: {} of {} up\n", streams_.size(), options_.connections);
        say += kSay;
      }
      if (auto status = reactor_->turn(Clock::now() + kLook); !status) return status;
    }
    result_.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    result_.connections = streams_.size() - result_.ended;
    if (result_.connections == 0)
      return fail("no connection came up to {}: {}", options_.connect.address.text(),
                  result_.first_failure.empty() ? "nothing was heard in time" : result_.first_failure);
    result_.stream_kind = streams_.front()->kind();
    result_.ended = 0;
    return {};
  }

  // So long, or until interrupted, or until none is left.
  Status wait(std::chrono::milliseconds time) {
    const Clock::time_point begin = Clock::now();
    while (!Interrupts::asked() && Clock::now() - begin < time && result_.ended < result_.connections) {
      const auto rest = time - std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin);
      if (auto status = reactor_->turn(Clock::now() + std::min<Clock::duration>(kLook, rest)); !status) return status;
    }
    return {};
  }

  const IdleOptions& options_;
  ktls::Support support_;
  Interrupts interrupts_;
  std::optional<handshake::TlsContext> connecting_;
  IdleResult result_;
  std::vector<std::unique_ptr<Stream>> streams_;
  std::unique_ptr<Opener> opener_;
  std::unique_ptr<Reactor> reactor_;  // goes first: the others' operations are in it
};

}  // namespace

double IdleResult::octets_per_connection() const {
  if (connections == 0 || memory_after_kib < memory_before_kib) return 0;
  return 1024.0 * static_cast<double>(memory_after_kib - memory_before_kib) / static_cast<double>(connections);
}

Result<IdleResult> run_idle(const IdleOptions& options, const std::function<Status(const IdleResult&)>& up) {
  return Crowd(options).run(up);
}

Json idle_json(const IdleOptions& options, const IdleResult& result) {
  Json document = {{"options", {{"connect", options.connect.address.text()}}},
                   {"connections",
                    {{"wanted", options.connections},
                     {"up", result.connections},
                     {"ended", result.ended},
                     {"first_failure", result.first_failure}}},
                   {"seconds", result.seconds}};
  if (result.stream_kind) document["tls"] = stream_kind_json(*result.stream_kind);
  if (!options.measured.empty())
    document["memory"] = {{"before_kib", result.memory_before_kib},
                          {"after_kib", result.memory_after_kib},
                          {"octets_per_connection", result.octets_per_connection()}};
  return document;
}

std::string idle_text(const IdleOptions& options, const IdleResult& result) {
  std::string text =
      fmt::format("{:<18} {} of {}, opened in {:.2f} s{}\n", "Connections", result.connections, options.connections,
                  result.seconds, result.first_failure.empty() ? "" : "; first failure: " + result.first_failure);
  if (!options.measured.empty())
    text += fmt::format("{:<18} {} KiB before, {} KiB after: {:.0f} octets a connection\n", "Memory",
                        count_text(result.memory_before_kib), count_text(result.memory_after_kib),
                        result.octets_per_connection());
  return text;
}

}  // namespace ktrunk::bench
