// Whole call flows, SIPp at both ends, over each pair of transports. The scenarios check what they receive (our Via on
// top, one hop fewer, the INVITE's branch on its CANCEL and ACK), and SIPp ends with 0 when all has come as written.
#include <tuple>

#include "interop/interop_fixture.h"
#include "interop/sipp.h"

namespace ktrunk::test {
namespace {

struct Pair {
  const char* name;
  SippTransport caller;
  SippTransport callee;
};
void PrintTo(const Pair& pair, std::ostream* out) { *out << pair.name; }

constexpr Pair kPairs[] = {{"TlsTls", SippTransport::kTls, SippTransport::kTls},
                           {"TlsUdp", SippTransport::kTls, SippTransport::kUdp},
                           {"TcpTls", SippTransport::kTcp, SippTransport::kTls}};

struct Flow {
  const char* name;
  const char* status = "";
};
void PrintTo(const Flow& flow, std::ostream* out) { *out << flow.name << flow.status; }

constexpr Flow kFlows[] = {{"call"},  {"cancel"},         {"prack"},          {"refer"},         {"register"},
                           {"forks"}, {"failure", "404"}, {"failure", "503"}, {"failure", "603"}};

class CallFlows : public InteropTest, public testing::WithParamInterface<std::tuple<Pair, Flow>> {
 protected:
  [[nodiscard]] static std::string trunk_to(SippTransport transport, const Address& callee) {
    if (transport != SippTransport::kUdp) return pbx_at(callee);
    return fmt::format(R"(
[[trunk]]
name = "pbx"
targets = ["udp:{}"]
listen = "edge-udp"

[[route]]
to = "pbx"
)",
                       callee.text());
  }
};

TEST_P(CallFlows, BothEndsGetWhatTheyExpect) {
  const auto path = find_sipp();
  KTRUNK_REQUIRE(path ? "" : path.error().what);
  const auto& [pair, named] = GetParam();
  const CallFlow flow{.name = named.name, .status = named.status};
  const Address callee_at = free_address();
  const auto callee = SippEnd::callee(
      {.path = *path, .flow = flow, .transport = pair.callee, .files = certificates().pbx, .at = callee_at});
  ASSERT_NE(callee, nullptr);
  ASSERT_NO_FATAL_FAILURE(
      start(trunk_to(pair.callee, callee_at), "", pair.callee == SippTransport::kUdp ? kInOrder : 2));
  const auto caller = SippEnd::caller(
      {.path = *path, .flow = flow, .transport = pair.caller, .files = certificates().carrier, .at = free_address()},
      pair.caller == SippTransport::kTls ? edge_tls_ : edge_tcp_);
  ASSERT_NE(caller, nullptr);
  EXPECT_TRUE(caller->succeeds());
  EXPECT_TRUE(callee->succeeds());
  // All on the same two flows, also what is sent inside the dialogs.
  const auto status = daemon_->status();
  ASSERT_TRUE(status) << status.error().what;
  EXPECT_EQ((*status)["handshakes"]["accepted"], 1);
  EXPECT_EQ((*status)["handshakes"]["connected"], pair.callee == SippTransport::kTls ? 1 : 0);
}

INSTANTIATE_TEST_SUITE_P(All, CallFlows, testing::Combine(testing::ValuesIn(kPairs), testing::ValuesIn(kFlows)),
                         [](const auto& test) {
                           const Flow& flow = std::get<Flow>(test.param);
                           return fmt::format("{}_{}{}", std::get<Pair>(test.param).name, flow.name, flow.status);
                         });

}  // namespace
}  // namespace ktrunk::test
