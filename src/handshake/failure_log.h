// Failure log: how many lines strangers may make this process write. One address gets a few lines per period, all
// together a bounded number per second; what was left out is said in the next line. Pure: the time is passed in. Memory
// is bounded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <string>

#include "base/address_block.h"
#include "base/event_loop.h"

namespace ktrunk::handshake {

class FailureLog {
 public:
  static constexpr std::size_t kMostAddresses = 4096;  // remembered; beyond that the one quiet for longest is forgotten
  static constexpr unsigned kLinesPerSecond = 100;     // of all addresses together

  // lines: of one address in one period.
  explicit FailureLog(Clock::duration period, unsigned lines = 1) : period_(period), lines_(lines) {}

  // Something happened with this peer. A value: write a line; it is the end of that line (empty when nothing was left
  // out). No value: leave it out.
  [[nodiscard]] std::optional<std::string> line(const Address& peer, Clock::time_point now);

  [[nodiscard]] std::size_t addresses() const { return entries_.size(); }

 private:
  struct Entry {
    AddressBlock address;
    Clock::time_point said{};  // its first line of this period
    unsigned lines = 1;        // in this period
    std::uint64_t left_out = 0;
  };
  using Entries = std::list<Entry>;  // the one whose period is oldest first
  [[nodiscard]] bool within_the_rate(Clock::time_point now);
  void forget_first();

  Clock::duration period_;
  unsigned lines_;
  Entries entries_;
  std::map<AddressBlock, Entries::iterator> by_address_;
  std::uint64_t left_out_of_others_ = 0;  // by addresses that are forgotten, or never got a line
  Clock::time_point second_began_{};
  unsigned lines_in_second_ = 0;
};

}  // namespace ktrunk::handshake
