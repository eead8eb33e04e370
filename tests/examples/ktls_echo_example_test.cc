// examples/ktls-echo: several processes write to one kTLS connection; every line comes back whole, from the child whose
// turn it is.
#include <algorithm>
#include <map>
#include <sstream>

#include "examples_fixture.h"

namespace ktrunk::test {
namespace {

constexpr int kChildren = 4;
constexpr int kLines = 400;
constexpr int kPortion = 40;  // at most 60 KB

class KtlsEchoExampleTest : public ExamplesTest {
 protected:
  static std::string line(int number) {
    return fmt::format("line {} {} end {}", number, std::string(static_cast<std::size_t>(number * 37 % 1500), 'x'),
                       number);
  }

  // The echoes in the output, by their line.
  static std::map<std::string, int> echoes(const std::string& output) {
    std::map<std::string, int> found;
    std::istringstream lines(output);
    for (std::string text; std::getline(lines, text);) {
      if (text.size() > 4 && text[0] == '[' && text[2] == ']') found.emplace(text.substr(4), text[1] - '0');
    }
    return found;
  }

  void converse(const std::vector<std::string>& client_command) {
    const auto client = Conversation::start(client_command);
    ASSERT_NE(client, nullptr);
    for (int i = 0; i < 2 * kChildren; ++i) {
      ASSERT_TRUE(client->say(fmt::format("one by one {}\n", i)));
      ASSERT_TRUE(client->heard(fmt::format("[{}] one by one {}\n", i % kChildren, i)))
          << client->output() << server_->output();
    }
    // In portions: these programs do not read while they write, and an echo needs both.
    for (int sent = 0; sent < kLines;) {
      std::string portion;
      for (const int end = sent + kPortion; sent < end; ++sent) portion += line(sent) + "\n";
      ASSERT_TRUE(client->say(portion));
      const auto expected = static_cast<std::size_t>(sent + 2 * kChildren);
      ASSERT_TRUE(eventually([&] { return echoes(client->output()).size() == expected; }, kLong)) << sent;
    }
    const auto found = echoes(client->output());
    for (int i = 0; i < kLines; ++i) {
      const auto echo = found.find(line(i));
      ASSERT_NE(echo, found.end()) << "torn or lost: line " << i;
      EXPECT_EQ(echo->second, i % kChildren);
    }
    client->hang_up();
    EXPECT_TRUE(client->ends_with(0));
  }

  std::optional<Process> server_;
};

TEST_F(KtlsEchoExampleTest, EveryLineWholeWithOpensslAndGnutls) {
  const Address address = *Address::from_ip(ip_, free_address().port());
  ASSERT_NO_FATAL_FAILURE(
      launch(server_, {example("ktls-echo"), edge_.certificate, edge_.key, address.text(), std::to_string(kChildren)},
             "listening"));
  for (const auto& client : {openssl_client(address), gnutls_client(address)}) {
    KTRUNK_REQUIRE(missing(client));
    ASSERT_NO_FATAL_FAILURE(converse(client));
  }
  // Connections are over: of all its processes the first alone is left.
  EXPECT_TRUE(eventually([&] { return server_->others_in_group().empty(); }, kLong));
  EXPECT_THAT(server_->output(), testing::HasSubstr("in the kernel"));
  EXPECT_THAT(server_->output(), testing::HasSubstr("close_notify"));
}

}  // namespace
}  // namespace ktrunk::test
