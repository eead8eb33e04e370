#include "bench/floor/floor.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "bench/common/certificate.h"
#include "bench/common/subprocess.h"
#include "bench/floor/bare_server.h"
#include "bench/floor/forwarder.h"
#include "bench/io/opening.h"
#include "handshake/tcp_socket.h"
#include "ktls/support.h"

namespace ktrunk::bench {
namespace {

struct Place {
  Fd socket;
  Endpoint endpoint;
};

// A listening socket on a free port of 127.0.0.1.
Result<Place> place(config::Transport transport) {
  const auto loopback = Address::from_ip("127.0.0.1", 0);
  if (!loopback) return std::unexpected(loopback.error());
  auto socket = listening_socket(*loopback);
  if (!socket) return std::unexpected(socket.error());
  Endpoint endpoint{.transport = transport, .host = "127.0.0.1", .address = handshake::local_address(socket->get())};
  return Place{std::move(*socket), std::move(endpoint)};
}

Status forward(const FloorOptions& options, FloorResult& result) {
  const TlsSettings& tls = options.load.tls;
  const ktls::Support support = ktls::probe_support();
  result.plain_tcp = tls.record_layer == "auto" && !support.ulp;
  if (result.plain_tcp) {
    result.how = fmt::format(
        "plain TCP, NOTHING ENCRYPTED, as this kernel has no TLS ({}); --record-layer user measures OpenSSL's records",
        support.reason);
    fmt::print(stderr, "forwarding: {}\n", result.how);
  } else {
    result.how = tls.record_layer == "user" ? "TLS records by OpenSSL in the forwarder" : "TLS records by the kernel";
  }
  const auto transport = result.plain_tcp ? config::Transport::kTcp : config::Transport::kTls;
  auto forwarder_at = place(transport);
  if (!forwarder_at) return std::unexpected(forwarder_at.error());
  auto callee_at = place(transport);
  if (!callee_at) return std::unexpected(callee_at.error());
  auto forwarder = Subprocess::start([&] {
    callee_at->socket.reset();
    const auto status =
        Forwarder::run({.next_hop = callee_at->endpoint, .tls = options.load.tls}, std::move(forwarder_at->socket));
    return status ? EXIT_SUCCESS : complain(Error{"the forwarder: " + status.error().what});
  });
  if (!forwarder) return std::unexpected(forwarder.error());
  forwarder_at->socket.reset();
  LoadOptions load = options.load;
  load.connect = forwarder_at->endpoint;
  load.answer = callee_at->endpoint;
  load.measured = {{forwarder->pid(), "forwarder"}};
  auto ran = run_load(load, std::move(callee_at->socket));
  if (!ran) return std::unexpected(ran.error());
  result.forwarding = std::move(*ran);
  return {};
}

Result<FloorResult::Handshakes> shake(const FloorOptions& options, Resume resume) {
  auto at = place(config::Transport::kTls);
  if (!at) return std::unexpected(at.error());
  HandshakeOptions handshakes = options.handshakes;
  handshakes.tls = options.load.tls;
  handshakes.resume = resume;
  handshakes.connect = at->endpoint;
  // OpenSSL's own listener serves one at a time: one lane keeps others from waiting.
  handshakes.concurrency = 1;
  if (options.mutual) {
    handshakes.tls.certificate = handshakes.tls.answer_certificate;
    handshakes.tls.key = handshakes.tls.answer_key;
    handshakes.tls.answer_ca = handshakes.tls.ca;
  }
  auto server = Subprocess::start([&] {
    const auto status = run_bare_server(std::move(at->socket), handshakes.tls);
    return status ? EXIT_SUCCESS : complain(Error{"the bare OpenSSL server: " + status.error().what});
  });
  if (!server) return std::unexpected(server.error());
  at->socket.reset();
  handshakes.measured = {{server->pid(), "OpenSSL"}};
  auto ran = run_handshakes(handshakes);
  if (!ran) return std::unexpected(ran.error());
  return FloorResult::Handshakes{std::move(handshakes), std::move(*ran)};
}

}  // namespace

Result<FloorResult> run_floor(FloorOptions options) {
  FloorResult result;
  TlsSettings& tls = options.load.tls;
  std::optional<TemporaryCertificate> made;
  if (options.certificate.empty()) {
    using Type = TemporaryCertificate::KeyType;
    auto certificate = TemporaryCertificate::make(options.key_type == "rsa" ? Type::kRsa2048 : Type::kEcdsaP256);
    if (!certificate) return std::unexpected(certificate.error());
    made.emplace(std::move(*certificate));
    options.certificate = made->certificate();
    options.key = made->key();
    tls.ca = options.certificate;
    tls.verify_name = TemporaryCertificate::kName;
  }
  tls.answer_certificate = options.certificate;
  tls.answer_key = options.key;

  if (options.load.duration.count() != 0) {
    if (auto status = forward(options, result); !status) return std::unexpected(status.error());
  }
  if (options.handshakes.duration.count() == 0) return result;
  if (!options.load.quiet) fmt::print(stderr, "handshakes, full\n");
  auto full = shake(options, Resume::kNo);
  if (!full) return std::unexpected(full.error());
  result.full = std::move(*full);
  if (!options.load.quiet) fmt::print(stderr, "handshakes, resumed\n");
  auto resumed = shake(options, Resume::kYes);
  if (!resumed) return std::unexpected(resumed.error());
  result.resumed = std::move(*resumed);
  return result;
}

}  // namespace ktrunk::bench
