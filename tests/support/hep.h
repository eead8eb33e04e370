// HEPv3 taken apart, independently of ktrunk's encoder: for the tests of that, and for a collector that a test plays.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ktrunk::test {

struct HepDatagram {
  std::map<unsigned, std::string> chunks;  // of vendor 0, by type

  // Each chunk once, lengths that add up, and nothing else.
  [[nodiscard]] static Result<HepDatagram> parse(std::string_view octets);

  [[nodiscard]] bool has(unsigned type) const { return chunks.contains(type); }
  [[nodiscard]] std::uint64_t number(unsigned type) const;  // network order; 0 when it is not there
  [[nodiscard]] std::string text(unsigned type) const { return has(type) ? chunks.at(type) : std::string(); }
  [[nodiscard]] std::string payload() const { return text(15); }
  // "127.0.0.1:5060", of either family.
  [[nodiscard]] std::string source() const { return end(3, 5, 7); }
  [[nodiscard]] std::string destination() const { return end(4, 6, 8); }

 private:
  [[nodiscard]] std::string end(unsigned ipv4, unsigned ipv6, unsigned port) const;
};

}  // namespace ktrunk::test
