#include "handshake/failure_log.h"

#include <fmt/format.h>

#include <iterator>
#include <utility>

namespace ktrunk::handshake {

bool FailureLog::within_the_rate(Clock::time_point now) {
  if (now - second_began_ >= std::chrono::seconds(1)) {
    second_began_ = now;
    lines_in_second_ = 0;
  }
  return lines_in_second_ < kLinesPerSecond;
}

void FailureLog::forget_first() {
  left_out_of_others_ += entries_.front().left_out;
  by_address_.erase(entries_.front().address);
  entries_.pop_front();
}

std::optional<std::string> FailureLog::line(const Address& peer, Clock::time_point now) {
  // Those that may speak again need no memory, unless something of theirs is still to be said; that waits a while.
  constexpr int kForgottenAtOnce = 8;
  for (int i = 0; i < kForgottenAtOnce && !entries_.empty(); ++i) {
    const Entry& first = entries_.front();
    if (now - first.said < (first.left_out == 0 ? period_ : period_ * 10)) break;
    forget_first();
  }
  const AddressBlock address(peer);
  const auto known = by_address_.find(address);
  const bool in_period = known != by_address_.end() && now - known->second->said < period_;
  if (in_period && known->second->lines >= lines_) {
    ++known->second->left_out;
    return std::nullopt;
  }
  if (!within_the_rate(now)) {
    ++(known != by_address_.end() ? known->second->left_out : left_out_of_others_);
    return std::nullopt;
  }
  ++lines_in_second_;
  std::uint64_t of_this = 0;
  if (known != by_address_.end()) {
    of_this = std::exchange(known->second->left_out, 0);
    if (in_period) {
      ++known->second->lines;
    } else {
      known->second->said = now;
      known->second->lines = 1;
      entries_.splice(entries_.end(), entries_, known->second);
    }
  } else {
    if (entries_.size() >= kMostAddresses) forget_first();
    entries_.push_back({.address = address, .said = now, .lines = 1, .left_out = 0});
    by_address_.emplace(address, std::prev(entries_.end()));
  }
  std::string end;
  if (of_this != 0) end += fmt::format("; {} more from there are not shown", of_this);
  if (const auto others = std::exchange(left_out_of_others_, 0); others != 0)
    end += fmt::format("; {} from other addresses are not shown", others);
  return end;
}

}  // namespace ktrunk::handshake
