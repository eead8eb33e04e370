// Opening: from an endpoint to a Stream: connect or accept, and the TLS handshake (ktrunk::handshake), on the reactor.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "bench/common/endpoint.h"
#include "bench/io/reactor.h"
#include "bench/io/stream.h"
#include "handshake/record_layer.h"
#include "ktls/support.h"

namespace ktrunk::bench {

// A listening socket; port 0 takes a free one.
[[nodiscard]] Result<Fd> listening_socket(const Address& at);

// Makes streams and says of each how it went. It must outlive the reactor's turns; the handler may be called from
// within connect().
class Opener {
 public:
  using Handler = std::function<void(Result<std::unique_ptr<Stream>>)>;

  // support: what the kernel can do; lives as long as this.
  Opener(Reactor& reactor, config::RecordLayer wanted, const ktls::Support& support)
      : reactor_(reactor), policy_{.wanted = wanted, .support = &support, .kernel = &ktls::running_kernel()} {}

  // context: for TLS endpoints, else null; lives as long as this.
  void connect(const Endpoint& to, const handshake::TlsContext* context, Handler handler);
  // Accepts on a listening socket for as long as this lives.
  void listen(Fd socket, const handshake::TlsContext* context, Handler handler);

  // Handshakes and connects that are not done.
  [[nodiscard]] std::size_t in_progress() const { return in_progress_; }

 private:
  class Attempt;
  class Listening;
  void begin(std::unique_ptr<Attempt> attempt);

  Reactor& reactor_;
  handshake::RecordLayerPolicy policy_;
  std::size_t in_progress_ = 0;
  std::vector<std::unique_ptr<Source>> owned_;  // attempts under way, and listeners
};

}  // namespace ktrunk::bench
