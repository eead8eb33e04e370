// RouteTable: the operator's [[route]] tables, asked for every request that no token directs. First match wins. Its
// regular expressions are compiled when it is made.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/id.h"
#include "config/config.h"
#include "config/user_pattern.h"
#include "sip/message.h"

namespace ktrunk::sip {

class RouteTable {
 public:
  struct Query {
    TrunkId from_trunk;
    ListenerId from_listener;
    std::string_view method;
    std::string_view user;             // of the Request-URI, as written
    std::string_view host;             // without brackets
    const Message* request = nullptr;  // for has_headers; null: no header field is there
  };

  explicit RouteTable(const config::Config& config);

  // ACK and CANCEL match where INVITE does: they must go the INVITE's way. So they never have what has_headers asks
  // for, whatever they have. Null: no route; else it lives as long as the table.
  [[nodiscard]] const config::Route* find(const Query& query) const;
  // The same route's place among the configuration's [[route]] tables.
  [[nodiscard]] std::optional<std::size_t> place(const Query& query) const;

 private:
  struct Entry {
    config::Route route;  // its host without brackets
    std::optional<config::UserPattern> user_match;
  };
  std::vector<Entry> entries_;
};

}  // namespace ktrunk::sip
