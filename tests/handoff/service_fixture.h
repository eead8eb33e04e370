// What the tests of the handshake service share: a service in a thread, its configuration, clients, and TLS peers.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "config/config.h"
#include "handoff/client.h"
#include "handshake/handoff_service.h"
#include "support/certificates.h"
#include "support/process.h"
#include "support/tls_peer.h"

namespace ktrunk::test {

class HandoffServiceTest : public testing::Test {
 protected:
  HandoffServiceTest();
  void TearDown() override { stop(); }

  // Change config_ and limits_ before. Fatal failure if the service does not come up.
  void start();
  // In order, as SIGTERM does it; then it is gone.
  void stop();
  // Runs in between two turns of the service's loop.
  template <typename Function>
  auto ask(Function function) {
    const std::lock_guard lock(mutex_);
    return function(*service_);
  }

  [[nodiscard]] handoff::Client client() const;
  // A TCP connection: what is handed over, and the peer's end.
  [[nodiscard]] static std::pair<Fd, Fd> tcp_pair();
  // The next answer; fatal when none comes.
  [[nodiscard]] static handoff::Reply reply(handoff::Client& client);
  [[nodiscard]] static handoff::Instruction instruction(handoff::Client& client);
  static handoff::Wish accept_wish(std::uint64_t number = 1) {
    return {.number = number, .role = handoff::Role::kAccept, .relay = handoff::Relay::kAllowed, .context = "edge"};
  }
  static handoff::Wish connect_wish(std::uint64_t number = 1) {
    return {.number = number,
            .role = handoff::Role::kConnect,
            .relay = handoff::Relay::kAllowed,
            .context = "carrier",
            .host = "carrier.test"};
  }
  static void send(handoff::Client& client, const handoff::Wish& wish, Fd socket);
  [[nodiscard]] TlsOptions as_client() const;   // trusts the authority, asks for edge.test
  [[nodiscard]] TlsOptions as_carrier() const;  // the carrier's certificate
  // A peer's handshake as the client of "edge"; null, with a failure, when it fails.
  [[nodiscard]] std::unique_ptr<TlsStream> peer(Fd socket) const;
  // The next record's data, past session tickets; else a word on what came instead.
  [[nodiscard]] static std::string receive_data(const Fd& connection);
  // The connection carries data both ways.
  static void expect_good(const handoff::Reply& reply, TlsStream& peer);

  TempFolder folder_;
  std::string path_ = folder_.file("handshake.sock");
  CertificateAuthority authority_{folder_.path(), "ca"};
  CertificateFiles edge_ = authority_.issue({.name = "edge", .common_name = "", .dns = {"edge.test"}});
  CertificateFiles carrier_ = authority_.issue(
      {.name = "carrier", .common_name = "", .dns = {"carrier.test", "b.test"}, .uris = {"sip:carrier.test"}});
  config::Config config_;
  handshake::HandoffService::Limits limits_;

 private:
  std::mutex mutex_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<handshake::HandoffService> service_;
  std::jthread thread_;
};

}  // namespace ktrunk::test
