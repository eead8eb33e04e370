// What the tests of the examples share: the programs, certificates, and an output to look into.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "support/certificates.h"
#include "support/conversation.h"
#include "support/ktls_available.h"
#include "support/process.h"
#include "support/tls_peer.h"

namespace ktrunk::test {

class ExamplesTest : public testing::Test {
 protected:
  // The record layer that this program's tests are about.
#ifdef KTRUNK_EXAMPLES_KERNEL
  static constexpr bool kKernel = true;
#else
  static constexpr bool kKernel = false;
#endif
  void SetUp() override {
    if (kKernel) KTRUNK_REQUIRE_KTLS();
  }

  // Of this build; or, where KTRUNK_EXAMPLES_PREFIX says, of an installation.
  [[nodiscard]] static std::string example(const std::string& name);
  [[nodiscard]] static std::string handshake_program();

  // Starts a program and waits until its output has the text. Fatal failure if that does not come.
  void launch(std::optional<Process>& process, const std::vector<std::string>& argv, const std::string& ready);

  // Empty when it is there, else what to install.
  [[nodiscard]] static std::string missing(const std::vector<std::string>& command) {
    return missing_program(command.front(), command.front() == "gnutls-cli" ? "gnutls-bin" : command.front());
  }
  // A client that trusts the authority and asks for edge.test.
  [[nodiscard]] std::vector<std::string> openssl_client(const Address& server) const;
  [[nodiscard]] std::vector<std::string> gnutls_client(const Address& server) const;

  TempFolder folder_;
  CertificateAuthority authority_{folder_.path(), "ca"};
  std::string ip_ = free_address().ip();
  CertificateFiles edge_ = authority_.issue({.name = "edge", .common_name = "", .dns = {"edge.test"}, .ips = {ip_}});

 private:
  int outputs_ = 0;
};

}  // namespace ktrunk::test
