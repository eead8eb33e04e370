// Bare server: what OpenSSL alone needs for a connection without messages: accept(2), SSL_accept, the peer's
// close_notify and ours, close(2). One blocking loop, no ktrunk in it.
#pragma once

#include "base/fd.h"
#include "base/result.h"
#include "bench/common/endpoint.h"

namespace ktrunk::bench {

// Serves until the process is killed. listening: blocking or not. settings: of its answering side.
[[nodiscard]] Status run_bare_server(Fd listening, const TlsSettings& settings);

}  // namespace ktrunk::bench
