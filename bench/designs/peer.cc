#include "bench/designs/peer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "bench/designs/worker.h"
#include "handshake/tcp_socket.h"

namespace ktrunk::bench {

Result<std::unique_ptr<Peer>> Peer::create(const TlsSettings& tls, const ktls::Support& support,
                                           std::size_t message_bytes) {
  std::unique_ptr<Peer> peer(new Peer(message_bytes));
  auto reactor = Reactor::create();
  if (!reactor) return std::unexpected(reactor.error());
  peer->reactor_ = std::move(*reactor);
  auto context = tls.answering();
  if (!context) return std::unexpected(context.error());
  peer->context_ = std::move(*context);
  const auto loopback = Address::from_ip("127.0.0.1", 0);
  if (!loopback) return std::unexpected(loopback.error());
  auto socket = listening_socket(*loopback);
  if (!socket) return std::unexpected(socket.error());
  limit_socket_buffers(socket->get());  // what it accepts has the same
  peer->endpoint_ = {
      .transport = config::Transport::kTls, .host = "127.0.0.1", .address = handshake::local_address(socket->get())};
  peer->opener_ = std::make_unique<Opener>(*peer->reactor_, tls.wanted_record_layer(), support);
  peer->opener_->listen(std::move(*socket), &*peer->context_, [made = peer.get()](auto stream) {
    if (!stream) {
      if (made->failure_.empty()) made->failure_ = stream.error().what;
      return;
    }
    const std::size_t number = made->accepted_.size();
    made->accepted_.push_back({.stream = std::move(*stream), .partial = {}});
    ++made->connections_;
    made->accepted_.back().stream->start(*made, number);
  });
  return peer;
}

Peer::~Peer() = default;

Status Peer::receive(std::chrono::milliseconds time) {
  const Clock::time_point end = Clock::now() + time;
  while (Clock::now() < end) {
    if (auto status = reactor_->turn(end); !status) return status;
  }
  return {};
}

std::optional<StreamKind> Peer::kind() const {
  if (accepted_.empty()) return std::nullopt;
  return accepted_.front().stream->kind();
}

bool Peer::take(const char* message, std::uint64_t now) {
  MessageHead head;
  std::memcpy(&head, message, sizeof head);
  if (head.magic != MessageHead::kMagic || head.worker >= next_.size()) return false;
  if (head.number != next_[head.worker]) return false;
  ++next_[head.worker];
  ++messages_;
  latency_.record(now > head.due_ns ? now - head.due_ns : 0);
  return true;
}

void Peer::on_octets(Stream& stream, std::string_view octets) {
  Connection& connection = accepted_[stream.number()];
  if (connection.ended) return;
  const std::uint64_t now = monotonic_ns();
  std::vector<char>& partial = connection.partial;
  bool good = true;
  if (!partial.empty()) {
    const std::size_t missing = std::min(message_bytes_ - partial.size(), octets.size());
    partial.insert(partial.end(), octets.begin(), octets.begin() + static_cast<std::ptrdiff_t>(missing));
    octets.remove_prefix(missing);
    if (partial.size() < message_bytes_) return;
    good = take(partial.data(), now);
    partial.clear();
  }
  for (; good && octets.size() >= message_bytes_; octets.remove_prefix(message_bytes_)) good = take(octets.data(), now);
  if (good) return partial.assign(octets.begin(), octets.end());
  ++broken_;
  on_end(stream, "");
}

void Peer::on_end(Stream& stream, const std::string&) {
  if (!std::exchange(accepted_[stream.number()].ended, true)) --connections_;
}

}  // namespace ktrunk::bench
