// A trunk's peer for tests of trunk states: takes every connection to a TCP address, with TLS or without, or datagrams
// at a UDP one, and answers each request with 200, OPTIONS as it is told to; until it is killed.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "support/sip_peer.h"
#include "support/tls_peer.h"

namespace ktrunk::test {

class TrunkPeer {
 public:
  enum class Kind { kTcp, kTls, kUdp };
  // tls: as a server, for kTls.
  TrunkPeer(Kind kind, const Address& address, const TlsOptions& tls = {});
  ~TrunkPeer() = default;
  TrunkPeer(const TrunkPeer&) = delete;
  TrunkPeer& operator=(const TrunkPeer&) = delete;

  std::atomic<int> options_status{200};  // 0: no answer
  std::atomic<bool> answers_invites{true};
  std::atomic<int> requests{0};  // but OPTIONS and ACK
  std::atomic<int> options{0};
  std::atomic<int> connections{0};  // taken so far
  [[nodiscard]] std::string last_options() const;

 private:
  void serve_streams(const std::stop_token& stop);
  [[nodiscard]] std::unique_ptr<ByteStream> next_stream() const;
  void serve_udp(const std::stop_token& stop);
  [[nodiscard]] std::optional<SipMessage> answer(const SipMessage& request);

  std::optional<TcpListener> listener_;
  std::optional<TlsOptions> tls_;
  std::optional<SipDatagrams> datagrams_;
  mutable std::mutex mutex_;
  std::string last_options_;
  std::jthread thread_;  // the last member: it uses the others
};

// A connection from this IP address, from any port if it has none; null, and a failure noted, when there is none.
[[nodiscard]] std::unique_ptr<TcpStream> connect_from(const Address& from, const Address& to);

}  // namespace ktrunk::test
