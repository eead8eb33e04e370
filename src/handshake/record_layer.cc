#include "handshake/record_layer.h"

#include <fmt/format.h>

#include <utility>

namespace ktrunk::handshake {
namespace {

// Why the kernel cannot take this session; empty when it may be tried.
std::string obstacle(const RecordLayerPolicy& policy, const TlsSession& session) {
  const ktls::Support& support = *policy.support;
  if (!support.ulp) return "this kernel has no TLS: run `modprobe tls`, or use a kernel with CONFIG_TLS";
  const Result<Suite> suite = session.kernel_suite();
  if (!suite) return suite.error().what;
  if (!support.complete(suite->version, suite->aead))
    return fmt::format("{} with {} is not done by this kernel", ktls::version_name(suite->version),
                       ktls::aead_name(suite->aead));
  return {};
}

}  // namespace

Result<RecordLayerChoice> choose_record_layer(const RecordLayerPolicy& policy, TlsSession& session) {
  if (policy.wanted == config::RecordLayer::kRelay) return RecordLayerChoice{std::nullopt, "configured"};
  std::string note = obstacle(policy, session);
  if (note.empty()) {
    auto handover = session.into_kernel(*policy.kernel);
    if (handover)
      return RecordLayerChoice{RecordLayerChoice::Kernel{std::move(handover->socket), std::move(handover->secrets)},
                               {}};
    if (handover.error().socket == ktls::SocketState::kUnusable)
      return fail("the kernel took the keys of one direction only: {}", handover.error().error.what);
    note = std::move(handover.error().error.what);
  }
  if (policy.wanted == config::RecordLayer::kKernel)
    return fail("record_layer is \"kernel\", but {}; or set record_layer = \"auto\"", note);
  return RecordLayerChoice{std::nullopt, std::move(note)};
}

}  // namespace ktrunk::handshake
