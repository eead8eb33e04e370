// The sockets that ktrunkd listens on, opened before any child starts, so that ports below 1024 and clear errors are
// the supervisor's business alone, and a restarted child finds them as they were.
#pragma once

#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "config/config.h"

namespace ktrunk::supervisor {

// One socket per [[listen]] table, in their order: listening streams, bound UDP. Errors name the table and the address.
[[nodiscard]] Result<std::vector<Fd>> open_listeners(const config::Config& config);

// The socket for hep.collector; not valid where there is none. It is non-blocking. A collector that cannot be reached
// is no error: connect_collector() may be tried again.
[[nodiscard]] Result<Fd> open_collector(const config::Config& config);
// Chooses the way to the collector, and our own address for it, anew.
[[nodiscard]] Status connect_collector(const Fd& socket, const config::Config& config);

}  // namespace ktrunk::supervisor
