#include "bench/designs/designs.h"

#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <utility>

#include "bench/common/certificate.h"
#include "bench/common/subprocess.h"
#include "bench/designs/peer.h"
#include "bench/designs/worker.h"
#include "ktls/support.h"

namespace ktrunk::bench {
namespace {

using std::chrono::milliseconds;

constexpr auto kStartLimit = std::chrono::seconds(30);
constexpr auto kSettle = milliseconds(300);
constexpr auto kDrainLimit = std::chrono::seconds(60);

// One life of a design: its processes, and the peer.
class Trial {
 public:
  Trial(const DesignsOptions& options, Design design, const ktls::Support& support)
      : options_(options), design_(design), support_(support) {}

  Status start() {
    auto shared = make_shared_state();
    if (!shared) return std::unexpected(shared.error());
    shared_ = std::move(*shared);
    auto peer = Peer::create(options_.tls, support_, options_.message_bytes);
    if (!peer) return std::unexpected(peer.error());
    peer_ = std::move(*peer);
    const ServerOptions server{.design = design_,
                               .workers = options_.workers,
                               .message_bytes = options_.message_bytes,
                               .batch = options_.batch,
                               .peer = peer_->endpoint(),
                               .tls = options_.tls};
    auto leader = Subprocess::start([&] {
      const Status status = run_server(server, *shared_);
      shared_->failed = true;
      return status ? EXIT_SUCCESS : complain(Error{fmt::format("{}: {}", design_name(design_), status.error().what)});
    });
    if (!leader) return std::unexpected(leader.error());
    leader_ = std::move(*leader);
    const unsigned wanted = design_ == Design::kOwn ? options_.workers : 1;
    const Clock::time_point end = Clock::now() + kStartLimit;
    while (shared_->ready < options_.workers || peer_->connections() < wanted) {
      if (shared_->failed) return fail("it could not be started");
      if (Clock::now() > end) return fail("its connections did not come up: {}", peer_->failure());
      if (auto status = peer_->receive(milliseconds(10)); !status) return status;
    }
    return {};
  }

  // Processes that live; the first one first.
  [[nodiscard]] std::vector<pid_t> pids() const {
    std::vector<pid_t> all = {leader_.pid()};
    for (const WorkerState& worker : shared_->workers) {
      const pid_t pid = worker.pid;
      if (pid > 0 && std::ranges::find(all, pid) == all.end()) all.push_back(pid);
    }
    return all;
  }

  Status full_pace(DesignResult& result) {
    shared_->pace = Pace::kFull;
    if (auto status = peer_->receive(kSettle); !status) return status;
    std::vector<MeasuredProcess> processes;
    for (const pid_t pid : pids()) processes.push_back({pid, ""});
    CpuMeter meter(processes);
    if (auto status = meter.start(); !status) return status;
    const std::uint64_t before = peer_->messages();
    const Clock::time_point begin = Clock::now();
    if (auto status = peer_->receive(options_.duration); !status) return status;
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    const auto messages = static_cast<double>(peer_->messages() - before);
    if (auto status = meter.stop(); !status) return status;
    if (messages == 0) return fail("not one message came");
    result.messages_per_s = messages / seconds;
    result.cpu_ns_per_message = static_cast<double>(meter.total_ns()) / messages;
    result.processes = static_cast<unsigned>(processes.size());
    result.connections = peer_->connections();
    for (const pid_t pid : pids()) result.pss_kib += pss_kib(pid).value_or(0);
    return drain();
  }

  // Nobody sends any more, and everything that was sent has come. Error: it has not.
  Status drain() {
    shared_->pace = Pace::kPause;
    const Clock::time_point end = Clock::now() + kDrainLimit;
    for (std::uint64_t before = 0; Clock::now() < end;) {
      if (auto status = peer_->receive(kSettle); !status) return status;
      std::uint64_t written = 0;
      for (const WorkerState& worker : shared_->workers) written += worker.written;
      // A worker may have been in the middle of it.
      if (peer_->messages() == written && std::exchange(before, written) == written) return {};
      if (peer_->broken() != 0) return fail("what came was not what was sent");
    }
    return fail("not all that was sent has come");
  }

  void begin_rate() {
    shared_->rate_millihertz = static_cast<std::uint64_t>(options_.rate * 1000 / options_.workers);
    shared_->rate_begin_ns = monotonic_ns() + 1'000'000;
    shared_->pace = Pace::kRate;
  }

  Status at_rate(DesignResult& result) {
    begin_rate();
    if (auto status = peer_->receive(kSettle); !status) return status;
    peer_->forget_latencies();
    if (auto status = peer_->receive(options_.duration); !status) return status;
    result.latency = peer_->latency();
    return {};
  }

  // The peer reads nothing for a time, while everybody sends as much as it takes.
  Status stall(DesignResult& result) {
    shared_->pace = Pace::kFull;
    if (auto status = peer_->receive(kSettle); !status) return status;
    for (WorkerState& worker : shared_->workers) worker.longest_still_ns = 0;
    const timespec pause{.tv_sec = options_.stall.count() / 1000, .tv_nsec = options_.stall.count() % 1000 * 1'000'000};
    ::clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
    result.stall_recovered = drain().has_value();
    // Whoever stood still has noted it by now.
    std::uint64_t longest = 0;
    for (const WorkerState& worker : shared_->workers) longest = std::max(longest, worker.longest_still_ns.load());
    result.stall_longest_still_ms = static_cast<double>(longest) / 1e6;
    return {};
  }

  Status kill(pid_t pid, std::string victim, DesignResult& result) {
    KillResult killed{.victim = std::move(victim)};
    begin_rate();
    if (auto status = peer_->receive(kSettle); !status) return status;
    const auto rate = [this](double& found) -> Status {
      const std::uint64_t before = peer_->messages();
      const Clock::time_point begin = Clock::now();
      if (auto status = peer_->receive(options_.stall); !status) return status;
      found =
          static_cast<double>(peer_->messages() - before) / std::chrono::duration<double>(Clock::now() - begin).count();
      return {};
    };
    killed.connections_before = peer_->connections();
    if (auto status = rate(killed.messages_per_s_before); !status) return status;
    ::kill(pid, SIGKILL);
    if (auto status = peer_->receive(kSettle); !status) return status;
    if (auto status = rate(killed.messages_per_s_after); !status) return status;
    killed.connections_after = peer_->connections();
    killed.broken = peer_->broken();
    result.kills.push_back(std::move(killed));
    return {};
  }

  [[nodiscard]] std::string records() const {
    const bool kernel = design_ == Design::kKernel;
    return kernel ? "kernel" : "OpenSSL";
  }
  [[nodiscard]] pid_t leader() const { return leader_.pid(); }
  [[nodiscard]] pid_t first_worker() const { return shared_->workers[0].pid; }

 private:
  const DesignsOptions& options_;
  Design design_;
  const ktls::Support& support_;
  SharedStatePtr shared_;
  std::unique_ptr<Peer> peer_;
  Subprocess leader_;
};

Status measure(const DesignsOptions& options, const ktls::Support& support, DesignResult& result) {
  Trial trial(options, result.design, support);
  if (auto status = trial.start(); !status) return status;
  result.records = trial.records();
  if (auto status = trial.full_pace(result); !status) return status;
  if (auto status = trial.at_rate(result); !status) return status;
  if (auto status = trial.stall(result); !status) return status;
  const bool one_process = result.design == Design::kLock;
  if (auto status = trial.kill(one_process ? trial.leader() : trial.first_worker(),
                               one_process ? "the process" : "a worker", result);
      !status)
    return status;
  if (result.design == Design::kOwner) return trial.kill(trial.leader(), "the owner", result);
  return {};
}

}  // namespace

Result<std::vector<DesignResult>> run_designs(const DesignsOptions& given) {
  DesignsOptions options = given;
  auto certificate = TemporaryCertificate::make(TemporaryCertificate::KeyType::kEcdsaP256);
  if (!certificate) return std::unexpected(certificate.error());
  options.tls.ca = options.tls.answer_certificate = certificate->certificate();
  options.tls.answer_key = certificate->key();
  options.tls.verify_name = TemporaryCertificate::kName;
  const ktls::Support support = ktls::probe_support();
  std::vector<DesignResult> results;
  for (const Design design : options.designs) {
    DesignResult result{.design = design};
    if (!options.quiet) fmt::print(stderr, "{}: {}\n", design_name(design), design_text(design));
    if (design == Design::kKernel && !support.ulp) {
      result.failure = support.reason;
    } else if (auto status = measure(options, support, result); !status) {
      result.failure = status.error().what;
    }
    if (!result.failure.empty() && !options.quiet) fmt::print(stderr, "  not measured: {}\n", result.failure);
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace ktrunk::bench
