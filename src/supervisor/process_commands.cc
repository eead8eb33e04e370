// What ktrunkd is asked to do while it runs: by its control socket, by SIGHUP, and by its own clock.
#include <fmt/ranges.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "base/log.h"
#include "supervisor/process.h"
#include "supervisor/status.h"

namespace ktrunk::supervisor {
namespace {

using namespace std::chrono_literals;
// For every handshake process to read its files; Control keeps its clients longer.
constexpr auto kReloadLimit = 10s;

std::string text_of(const nlohmann::ordered_json& document) {
  return document.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string reload_json(const ReloadOutcome& outcome) {
  const bool done = outcome.result == ReloadOutcome::Result::kDone;
  return text_of({{"reload", done ? "done" : "failed"}, {"what", outcome.what}});
}

}  // namespace

void Process::answer(const Control::Request& request, const Control::Reply& reply) {
  const std::string& command = request.command;
  if (command == "trace") return begin_trace(request.trunk, reply);
  if (command == "status") return reply(status());
  if (command == "reload") return begin_reload([reply](const ReloadOutcome& outcome) { reply(reload_json(outcome)); });
  if (command == "upgrade") return begin_upgrade(reply);
  if (command == "drain") {
    if (phase_ == Phase::kRunning) begin_drain();
    return reply(text_of({{"drain", "begun"}, {"pid", ::getpid()}, {"connections", connections_.count()}}));
  }
  reply(
      text_of({{"error", fmt::format("unknown command '{}'; known: status, reload, upgrade, drain, trace", command)}}));
}

std::string Process::status() {
  trunk_states_.look(Clock::now());
  DaemonStatus daemon{.version = version_,
                      .state = phase_ == Phase::kRunning ? "running" : "draining",
                      .uptime = std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - started_),
                      .processes = {}};
  for (std::size_t index = 0; index < children_.size(); ++index) {
    const ChildProcess& child = children_[index];
    if (index >= places() && !child.running()) continue;
    daemon.processes.push_back({.name = child.name(), .pid = child.pid(), .restarts = child.restarts()});
  }
  return status_json(daemon, config_, region_, connections_, trunk_states_);
}

void Process::begin_reload(Reload::Finished finished) {
  const auto cannot = [&](const char* why) {
    log::warn("reload: {}", why);
    finished({.result = ReloadOutcome::Result::kFailed, .what = {why}});
  };
  if (phase_ != Phase::kRunning) return cannot("ktrunkd is ending");
  if (upgrade_.under_way) return cannot("an upgrade is in progress; reload when it is done");
  if (reload_.under_way()) return cannot("another reload is in progress; reload again when it is done");
  Reload::Processes running;
  for (std::size_t index = 0; index < config_.handshake_processes; ++index)
    running.set(index, children_[index].ready());
  reload_timer_ = loop_->after(kReloadLimit, [this] { reload_.expired(); });
  reload_.begin(running, [this, finished = std::move(finished)](const ReloadOutcome& outcome) {
    reload_timer_.reset();
    if (outcome.result == ReloadOutcome::Result::kDone) {
      log::info("reloaded: new handshakes use the certificates, keys, CAs and CRLs as they are in their files now{}{}",
                outcome.what.empty() ? "" : "; ", fmt::join(outcome.what, "; "));
    } else {
      log::error("reload failed, what was read before stays in force: {}", fmt::join(outcome.what, "; "));
    }
    finished(outcome);
  });
}

void Process::look_at_connections() {
  connections_.look(Clock::now());
  trunk_states_.look(Clock::now());
  look_at_former_handshakes(Clock::now());
  look_at_collector();
  look_timer_ = loop_->after(connections_.look_interval(), [this] { look_at_connections(); });
}

}  // namespace ktrunk::supervisor
