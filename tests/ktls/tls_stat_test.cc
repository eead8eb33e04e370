#include "ktls/tls_stat.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace ktrunk::ktls {
namespace {

constexpr std::string_view kText =
    "TlsCurrTxSw                     \t3\n"
    "TlsCurrRxSw                     \t4\n"
    "TlsDecryptError                 \t18446744073709551615\n"
    "TlsTxRekeyOk                    \t0\n";

TEST(TlsStat, ReadsNamesAndValues) {
  const auto stat = TlsStat::parse(kText);
  ASSERT_TRUE(stat.has_value());
  EXPECT_EQ(stat->transmit_software(), 3u);
  EXPECT_EQ(stat->receive_software(), 4u);
  EXPECT_EQ(stat->transmit_device(), 0u);
  EXPECT_EQ(stat->decrypt_errors(), UINT64_MAX);
  EXPECT_EQ(stat->all().size(), 4u);
  EXPECT_TRUE(stat->all().contains("TlsTxRekeyOk"));
}

TEST(TlsStat, EmptyTextAndNoLastNewline) {
  EXPECT_TRUE(TlsStat::parse("").value().all().empty());
  EXPECT_EQ(TlsStat::parse("TlsCurrTxSw 9").value().transmit_software(), 9u);
  EXPECT_TRUE(TlsStat::parse("\n\n").value().all().empty());
}

TEST(TlsStat, LinesOfAnotherFormAreErrors) {
  for (const std::string_view bad : {"TlsCurrTxSw", "TlsCurrTxSw ", "TlsCurrTxSw x", "TlsCurrTxSw 1 2", "A -1",
                                     "A 18446744073709551616", " 1", "A 1\nB"})
    EXPECT_FALSE(TlsStat::parse(bad).has_value()) << bad;
}

TEST(TlsStat, EveryCutIsReadOrRefused) {
  for (std::size_t size = 0; size <= kText.size(); ++size) (void)TlsStat::parse(kText.substr(0, size));
}

TEST(TlsStat, NoSuchFileIsEnoent) {
  const auto stat = read_tls_stat("/proc/net/no_such_file");
  ASSERT_FALSE(stat.has_value());
  EXPECT_EQ(stat.error().code, ENOENT);
}

TEST(TlsStat, EndlessFileIsRefused) { EXPECT_FALSE(read_tls_stat("/dev/zero").has_value()); }

}  // namespace
}  // namespace ktrunk::ktls
