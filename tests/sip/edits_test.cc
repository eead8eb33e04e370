// Edits: order, overlaps, limits, and that untouched octets are untouched.
#include "sip/edits.h"

#include <gtest/gtest.h>

#include <array>
#include <string>

namespace ktrunk::sip {
namespace {

std::string applied(const Edits& edits, std::string_view original) {
  std::string out(edits.size(original), '\0');
  edits.write(original, out.data());
  std::array<iovec, Edits::kMaxPieces> pieces;
  std::string gathered;
  for (std::size_t i = 0, count = edits.gather(original, pieces); i < count; ++i)
    gathered.append(static_cast<char*>(pieces[i].iov_base), pieces[i].iov_len);
  EXPECT_EQ(out, gathered);
  return out;
}

TEST(EditsTest, AnyOrderOfCallsGivesTheSameText) {
  const std::string original = "0123456789";
  Edits edits;
  edits.insert(10, "END");
  edits.replace(4, 2, "four-five");
  edits.insert(0, "A");
  edits.insert(0, "B");
  edits.erase(8, 1);
  edits.replace_with_original(6, 1, 0, 2);
  EXPECT_FALSE(edits.failed());
  EXPECT_EQ(applied(edits, original), "AB0123four-five0179END");
  edits.clear();
  EXPECT_TRUE(edits.empty());
  EXPECT_EQ(applied(edits, original), original);
}

TEST(EditsTest, EverythingGoneAndEmptyOriginal) {
  Edits edits;
  edits.erase(0, 3);
  EXPECT_EQ(applied(edits, "abc"), "");
  edits.clear();
  edits.insert(0, "x");
  EXPECT_EQ(applied(edits, ""), "x");
}

TEST(EditsTest, TheOriginalMayMove) {
  Edits edits;
  edits.replace_with_original(1, 1, 3, 2);
  const std::string first = "abcde";
  const std::string second(first);
  EXPECT_EQ(applied(edits, first), applied(edits, second));
}

TEST(EditsTest, NeighboursTouchButOverlapsFail) {
  Edits edits;
  edits.erase(2, 3);
  edits.erase(5, 1);
  edits.insert(2 + 3 + 1, "x");
  EXPECT_FALSE(edits.failed());
  EXPECT_EQ(applied(edits, "0123456"), "01x6");
  edits.erase(1, 2);
  EXPECT_TRUE(edits.failed());
  edits.clear();
  edits.erase(2, 3);
  edits.insert(3, "inside");
  EXPECT_TRUE(edits.failed());
  edits.insert(0, "later");  // stays failed
  EXPECT_TRUE(edits.failed());
}

TEST(EditsTest, LimitsFailAndClearHeals) {
  Edits edits;
  for (std::size_t i = 0; i < kMaxEdits; ++i) edits.insert(i, "x");
  EXPECT_FALSE(edits.failed());
  edits.insert(0, "y");
  EXPECT_TRUE(edits.failed());
  edits.clear();
  edits.insert(0, std::string(kMaxEditText, 'z'));
  EXPECT_FALSE(edits.failed());
  edits.insert(0, "y");
  EXPECT_TRUE(edits.failed());
  edits.clear();
  edits.insert(0, "fine");
  EXPECT_FALSE(edits.failed());
}

}  // namespace
}  // namespace ktrunk::sip
