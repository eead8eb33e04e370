#include "handshake/contexts_in_force.h"

#include <string>
#include <utility>
#include <vector>

#include "base/log.h"

namespace ktrunk::handshake {
namespace {

std::string lines_of(const std::vector<TlsContexts::Problem>& problems, const config::Config& config) {
  std::string text;
  for (const TlsContexts::Problem& problem : problems) {
    if (!text.empty()) text += '\n';
    text += problem.text(config);
  }
  return text;
}

}  // namespace

ContextsInForce::ContextsInForce(const config::Config& config, TicketKeys& tickets)
    : config_(config), tickets_(tickets) {
  TlsContexts::Loaded loaded = TlsContexts::load(config, &tickets);
  for (const auto& problem : loaded.errors) log::error("{}", problem.text(config));
  for (const auto& problem : loaded.warnings) log::warn("{}", problem.text(config));
  now_ = std::move(loaded.contexts);
}

ipc::Reloaded ContextsInForce::prepare(std::uint32_t number) {
  prepared_.reset();
  TlsContexts::Loaded loaded = TlsContexts::load(config_, &tickets_);
  ipc::Reloaded answer{.number = number};
  if (loaded.errors.empty()) {
    answer.outcome = ipc::Reloaded::Outcome::kReady;
    answer.what = ipc::Text<1024>(lines_of(loaded.warnings, config_));
    prepared_.emplace(number, std::move(loaded.contexts));
  } else {
    answer.outcome = ipc::Reloaded::Outcome::kFailed;
    answer.what = ipc::Text<1024>(lines_of(loaded.errors, config_));
  }
  return answer;
}

ContextsInForce::Committed ContextsInForce::commit(std::uint32_t number) {
  if (!prepared_ || prepared_->number != number) return Committed::kNothing;
  now_ = std::move(prepared_->contexts);
  prepared_.reset();
  return Committed::kYes;
}

void ContextsInForce::discard(std::uint32_t number) {
  if (prepared_ && prepared_->number == number) prepared_.reset();
}

}  // namespace ktrunk::handshake
