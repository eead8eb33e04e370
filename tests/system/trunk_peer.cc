#include "system/trunk_peer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cerrno>

namespace ktrunk::test {
namespace {

constexpr milliseconds kTurn{10};

}  // namespace

TrunkPeer::TrunkPeer(Kind kind, const Address& address, const TlsOptions& tls) {
  if (kind != Kind::kUdp) {
    if (kind == Kind::kTls) tls_ = tls;
    auto listener = TcpListener::bind(address);
    EXPECT_TRUE(listener) << listener.error().what;
    if (!listener) return;
    listener_ = std::move(*listener);
    thread_ = std::jthread([this](const std::stop_token& stop) { serve_streams(stop); });
  } else {
    auto datagrams = SipDatagrams::bind(address);
    EXPECT_TRUE(datagrams) << datagrams.error().what;
    if (!datagrams) return;
    datagrams_ = std::move(*datagrams);
    thread_ = std::jthread([this](const std::stop_token& stop) { serve_udp(stop); });
  }
}

std::string TrunkPeer::last_options() const {
  const std::lock_guard lock(mutex_);
  return last_options_;
}

std::optional<SipMessage> TrunkPeer::answer(const SipMessage& request) {
  if (!request.is_request() || request.method() == "ACK") return std::nullopt;
  if (request.method() == "OPTIONS") {
    {
      const std::lock_guard lock(mutex_);
      last_options_ = request.text();
    }
    ++options;
    const int status = options_status;
    if (status == 0) return std::nullopt;
    return make_response(request, status, "As Told");
  }
  ++requests;
  if (request.method() == "INVITE" && !answers_invites) return std::nullopt;
  return make_response(request, 200, "OK");
}

std::unique_ptr<ByteStream> TrunkPeer::next_stream() const {
  auto socket = listener_->accept(kTurn);
  if (!socket) return nullptr;
  if (!tls_) return std::make_unique<TcpStream>(std::move(*socket));
  auto stream = TlsStream::accept(std::move(*socket), *tls_);
  return stream ? std::move(*stream) : nullptr;
}

void TrunkPeer::serve_streams(const std::stop_token& stop) {
  std::vector<std::unique_ptr<SipStream>> streams;
  while (!stop.stop_requested()) {
    if (auto next = next_stream()) {
      streams.push_back(std::make_unique<SipStream>(std::move(next)));
      ++connections;
    }
    std::erase_if(streams, [&](const auto& stream) {
      for (int i = 0; i < 100; ++i) {
        const auto message = stream->receive_or_end(milliseconds(1));
        if (!message) return message.error().code != ETIMEDOUT;
        if (!*message) return true;
        if (const auto response = answer(**message); response && !stream->send(*response)) return true;
      }
      return false;
    });
  }
}

void TrunkPeer::serve_udp(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    const auto got = datagrams_->receive(kTurn);
    if (!got) continue;
    if (const auto response = answer(got->first)) (void)datagrams_->send(*response, got->second);
  }
}

std::unique_ptr<TcpStream> connect_from(const Address& from, const Address& to) {
  Fd socket(::socket(from.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  const bool connected = ::bind(socket.get(), from.data(), from.size()) == 0 &&
                         ::connect(socket.get(), to.data(), to.size()) == 0 &&
                         ::fcntl(socket.get(), F_SETFL, O_NONBLOCK) == 0;
  EXPECT_TRUE(connected) << errno_text(errno);
  return connected ? std::make_unique<TcpStream>(std::move(socket)) : nullptr;
}

}  // namespace ktrunk::test
