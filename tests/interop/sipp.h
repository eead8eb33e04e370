// SIPp as a test's caller and callee.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/address.h"
#include "base/result.h"
#include "support/certificates.h"
#include "support/conversation.h"

namespace ktrunk::test {

// The path of a SIPp that speaks TLS, or why there is none.
[[nodiscard]] Result<std::string> find_sipp();

enum class SippTransport { kTls, kTcp, kUdp };

// SIPp on this address, with a certificate if it speaks TLS.
[[nodiscard]] std::vector<std::string> sipp_command(const std::string& path, SippTransport transport,
                                                    const CertificateFiles& files, const Address& at,
                                                    const std::vector<std::string>& options);

// A call flow of scenarios/, of which each end is one SIPp.
struct CallFlow {
  std::string name;         // NAME_caller.xml and NAME_callee.xml
  std::string status = "";  // in the place of STATUS: how the callee of "failure" answers
  int hops = 69;            // in the place of HOPS: the Max-Forwards that the callee gets
};

// One end of it, which takes a few calls and ends with 0 when all that was to come has come, in order.
class SippEnd {
 public:
  static constexpr int kCalls = 4;

  // A caller is told whom to call.
  struct Options {
    std::string path;  // of SIPp
    CallFlow flow;
    SippTransport transport = SippTransport::kTls;
    CertificateFiles files;
    Address at;
  };
  // Fatal failure of the test, and null, if it cannot be started.
  [[nodiscard]] static std::unique_ptr<SippEnd> caller(const Options& options, const Address& to);
  [[nodiscard]] static std::unique_ptr<SippEnd> callee(const Options& options);
  [[nodiscard]] testing::AssertionResult succeeds() const;

 private:
  [[nodiscard]] static std::unique_ptr<SippEnd> start(const Options& options, const std::string& side,
                                                      std::vector<std::string> more);
  SippEnd() = default;
  TempFolder folder_;
  std::unique_ptr<Conversation> program_;
};

}  // namespace ktrunk::test
