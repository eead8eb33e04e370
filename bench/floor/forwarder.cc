#include "bench/floor/forwarder.h"

#include <cstring>
#include <utility>

namespace ktrunk::bench {
namespace {

constexpr auto kLook = std::chrono::seconds(1);

}  // namespace

Status Forwarder::run(const Options& options, Fd listening) { return Forwarder(options).serve(std::move(listening)); }

Status Forwarder::serve(Fd listening) {
  support_ = ktls::probe_support();
  auto reactor = Reactor::create();
  if (!reactor) return std::unexpected(reactor.error());
  reactor_ = std::move(*reactor);
  opener_ = std::make_unique<Opener>(*reactor_, options_.tls.wanted_record_layer(), support_);
  if (options_.next_hop.transport == config::Transport::kTls) {
    auto accepting = options_.tls.answering();
    if (!accepting) return std::unexpected(accepting.error());
    accepting_ = std::move(*accepting);
    auto connecting = options_.tls.connecting();
    if (!connecting) return std::unexpected(connecting.error());
    connecting_ = std::move(*connecting);
  }
  const auto on_accepted = [this](Result<std::unique_ptr<Stream>> stream) {
    if (stream) return accepted(std::move(*stream));
    failure_ = std::unexpected(stream.error());
  };
  opener_->listen(std::move(listening), accepting_ ? &*accepting_ : nullptr, on_accepted);
  while (failure_ && (pairs_.empty() || ended_ < pairs_.size())) {
    if (auto status = reactor_->turn(Clock::now() + kLook); !status) return status;
  }
  return failure_;
}

void Forwarder::accepted(std::unique_ptr<Stream> stream) {
  const std::size_t number = pairs_.size();
  pairs_.emplace_back().ends[0] = std::move(stream);
  opener_->connect(options_.next_hop, connecting_ ? &*connecting_ : nullptr,
                   [this, number](Result<std::unique_ptr<Stream>> next) {
                     if (!next) {
                       failure_ = std::unexpected(next.error());
                       return;
                     }
                     Pair& pair = pairs_[number];
                     pair.ends[1] = std::move(*next);
                     pair.ends[1]->start(*this, 2 * number + 1);
                     pair.ends[0]->start(*this, 2 * number);
                   });
}

void Forwarder::on_octets(Stream& stream, std::string_view octets) {
  Stream& other = *pairs_[stream.number() / 2].ends[1 - stream.number() % 2];
  char* place = other.reserve(octets.size());
  // The load has a bounded number of messages in progress; more than the queue takes is no measurement.
  if (place == nullptr) return void(failure_ = fail("a connection's queue is full: use less --concurrency"));
  std::memcpy(place, octets.data(), octets.size());
  other.commit(octets.size());
}

void Forwarder::on_end(Stream& stream, const std::string&) {
  Pair& pair = pairs_[stream.number() / 2];
  Stream& other = *pair.ends[1 - stream.number() % 2];
  if (other.ended()) return;
  other.finish();
  ++ended_;
}

}  // namespace ktrunk::bench
