// Service records: which servers a SIP domain has, from the DNS's SRV and NAPTR records (RFC 3263 4.1 and 4.2), pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"

namespace ktrunk::handshake {

// RFC 2782.
struct SrvRecord {
  std::uint16_t priority = 0;
  std::uint16_t weight = 0;
  std::uint16_t port = 0;
  std::string host;  // "." or empty: there is no such service
};

// RFC 3403 4.1; the regexp is left out, as RFC 3263 uses none.
struct NaptrRecord {
  std::uint16_t order = 0;
  std::uint16_t preference = 0;
  std::string flags;
  std::string service;
  std::string replacement;
};

// "_sips._tcp.HOST" and the like.
[[nodiscard]] std::string srv_name(config::Transport transport, std::string_view host);

// The SRV name that the records give for the transport: of those that fit, the first by order, then preference.
[[nodiscard]] std::optional<std::string> srv_name_of(const std::vector<NaptrRecord>& records,
                                                     config::Transport transport);

// Puts the records in the order in which they are to be tried: the lowest priority first, within one by chance, with
// chances like their weights (RFC 2782). Those beyond `most` are left out.
void order_servers(std::vector<SrvRecord>& records, std::size_t most, std::minstd_rand& random);

}  // namespace ktrunk::handshake
