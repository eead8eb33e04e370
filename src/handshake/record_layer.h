// Record layer: who protects the records of a connection whose handshake is done: the kernel, or this process as a
// relay; by the configuration's record_layer, what the running kernel can do, and what was negotiated.
#pragma once

#include <optional>
#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "config/config.h"
#include "handshake/tls_session.h"
#include "ktls/kernel.h"
#include "ktls/support.h"

namespace ktrunk::handshake {

// Refers to what the process holds for its life.
struct RecordLayerPolicy {
  config::RecordLayer wanted = config::RecordLayer::kAuto;
  const ktls::Support* support = nullptr;
  ktls::Kernel* kernel = nullptr;
};

struct RecordLayerChoice {
  struct Kernel {
    ktls::KtlsSocket socket;
    KernelSecrets secrets;
  };
  std::optional<Kernel> kernel;  // set: the kernel does it; the session is spent, but for tickets; unset: relay
  std::string note;              // why relay
};

// Moves the session into the kernel if it may and can be. Error: the connection must be closed, because the
// configuration wants the kernel and nothing else, or because the installation stopped half-way.
[[nodiscard]] Result<RecordLayerChoice> choose_record_layer(const RecordLayerPolicy& policy, TlsSession& session);

}  // namespace ktrunk::handshake
