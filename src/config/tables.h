// How each table of the file becomes a struct, and the draft that the checks across tables look at. Private to config/.
#pragma once

#include <vector>

#include "config/config.h"
#include "config/toml_reader.h"

namespace ktrunk::config {

// A configuration while it is being read. The readers stay, one for each table, because checks across tables report at
// the line of the key they are about.
struct Draft {
  Config config;
  Problems problems;
  std::vector<TableReader> listeners;
  std::vector<TableReader> trunks;
  std::vector<TableReader> routes;
};

void read_ktrunk(TableReader& reader, Config& config);
void read_limits(TableReader& reader, Limits& limits);
void read_hep(TableReader& reader, Hep& hep);
// These report what one table alone can tell; names of other tables are looked up by check_references().
[[nodiscard]] Listener read_listener(TableReader& reader, Config& config);
[[nodiscard]] Trunk read_trunk(TableReader& reader, Config& config);
[[nodiscard]] Route read_route(TableReader& reader);

// How a trunk's peers are known that come to us (peer_tables.cc). Its targets and verify_name have been read.
void read_peers(TableReader& reader, Trunk& trunk);
// The listeners they come by; what has been read is of use with these.
void resolve_peers(TableReader& reader, Trunk& trunk, const std::vector<Listener>& listeners);

// The TLS keys of a table (tls_tables.cc). `alpn` is what holds without the key.
[[nodiscard]] Tls read_tls(TableReader& reader, Config& config, Alpn alpn);
// The same and those that listeners alone have.
void read_listener_tls(TableReader& reader, Listener& listener, Config& config);
// Reports every TLS key of a table that has no use for them: `why` says why not, or is empty where they are only to be
// known as keys.
void refuse_tls(TableReader& reader, std::string_view why);
void refuse_listener_tls(TableReader& reader, std::string_view why);

// Reports what only several routes together can tell: has_headers that would part an INVITE from its CANCEL.
void check_routes(Draft& draft);

// Resolves the names that tables call each other by, and reports what only several tables together can tell.
void check_references(Draft& draft);

}  // namespace ktrunk::config
