// RouteTable: the operator's [[route]] tables, asked for every request that no token directs. First match wins.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/id.h"
#include "config/config.h"

namespace ktrunk::sip {

class RouteTable {
 public:
  struct Query {
    TrunkId from_trunk;
    ListenerId from_listener;
    std::string_view method;
    std::string_view user;  // of the Request-URI, as written
    std::string_view host;  // without brackets
  };

  explicit RouteTable(const config::Config& config);

  // ACK and CANCEL match where INVITE does: they must go the INVITE's way.
  [[nodiscard]] std::optional<TrunkId> find(const Query& query) const;
  // The same route's place among the configuration's [[route]] tables.
  [[nodiscard]] std::optional<std::size_t> place(const Query& query) const;

 private:
  std::vector<config::Route> routes_;  // hosts without brackets
};

}  // namespace ktrunk::sip
