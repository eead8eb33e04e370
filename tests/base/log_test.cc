#include "base/log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/fd.h"

namespace ktrunk::log {
namespace {

// What the function writes to standard error.
template <typename Function>
std::string captured(Function function) {
  testing::internal::CaptureStderr();
  function();
  return testing::internal::GetCapturedStderr();
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) {
      ADD_FAILURE() << "the last line has no end";
      break;
    }
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

TEST(LogTest, JsonLines) {
  const std::string text = captured([] {
    init("worker/3", Format::kJson, Level::kInfo);
    warn("connection {} lost", 7);
    debug("not this");
  });
  const auto lines = lines_of(text);
  ASSERT_EQ(lines.size(), 1u);
  const auto line = nlohmann::json::parse(lines[0]);
  EXPECT_EQ(line["level"], "warning");
  EXPECT_EQ(line["process"], "worker/3");
  EXPECT_EQ(line["pid"], ::getpid());
  EXPECT_EQ(line["message"], "connection 7 lost");
  EXPECT_TRUE(line["time"].is_string());
}

TEST(LogTest, EveryByteGivesOneValidJsonLine) {
  std::string hostile;
  for (int byte = 0; byte < 256; ++byte) hostile.push_back(static_cast<char>(byte));
  for (const std::string& payload :
       {hostile, std::string("\xc3"), std::string("\xed\xa0\x80"), std::string("\xf8\x88\x80\x80\x80"),
        std::string("a\r\nb\"c\\d"), std::string(1, '\0'), std::string("{}{0}%s%n")}) {
    const std::string text = captured([&] {
      init("x", Format::kJson, Level::kInfo);
      info("{}", payload);
    });
    const auto lines = lines_of(text);
    ASSERT_EQ(lines.size(), 1u);
    EXPECT_TRUE(nlohmann::json::accept(lines[0])) << lines[0];
  }
}

// A peer that sends line ends must not be able to write log lines of its own.
TEST(LogTest, TextIsOneLineWhateverTheMessage) {
  const std::string text = captured([] {
    init("x", Format::kText, Level::kInfo);
    info("from {}", "a\r\n2026-01-01 00:00:00.000 critical supervisor[1] forged\x1b[2J\x7f\xff");
  });
  EXPECT_EQ(lines_of(text).size(), 1u) << text;
  for (const char c : text.substr(0, text.size() - 1))
    EXPECT_TRUE(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f) << "a control character passes";
}

TEST(LogTest, TextNamesTheProcess) {
  const std::string text = captured([] {
    init("handshake", Format::kText, Level::kInfo);
    info("ready");
  });
  EXPECT_NE(text.find("handshake[" + std::to_string(::getpid()) + "] ready\n"), std::string::npos) << text;
}

TEST(LogTest, Levels) {
  EXPECT_EQ(parse_level("warn").value(), Level::kWarn);
  EXPECT_EQ(parse_level("off").value(), Level::kOff);
  EXPECT_FALSE(parse_level("WARN"));
  EXPECT_FALSE(parse_level(""));
}

}  // namespace
}  // namespace ktrunk::log
