// What looks at many octets together says the same as what looks at one after the other.
#include "sip/octets.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <array>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "sip/base64url.h"
#include "sip/header_index.h"
#include "sip/party.h"
#include "sip/text.h"

namespace ktrunk::sip {
namespace {

std::string random_octets(std::mt19937_64& random, std::size_t size) {
  std::string octets(size, '\0');
  for (char& octet : octets) octet = static_cast<char>(random());
  return octets;
}

TEST(Octets, SetsHoldWhatTheyAreMadeOf) {
  for (unsigned i = 0; i < 256; ++i) {
    const char c = static_cast<char>(i);
    EXPECT_EQ(kTokenSet.has(c), is_alnum(c) || (c != '\0' && std::string_view("-.!%*_+`'~").contains(c))) << i;
    EXPECT_EQ(kHostSet.has(c), is_alnum(c) || c == '.' || c == '-' || c == '_') << i;
    const std::string text(1, c);
    EXPECT_EQ(span_of(kTokenSet, text), kTokenSet.has(c) ? 1u : 0u) << i;
    EXPECT_EQ(span_of(kUriSet, text), kUriSet.has(c) ? 1u : 0u) << i;
  }
}

TEST(Octets, SpansAndPlacesAtEveryLength) {
  for (std::size_t size = 0; size < 140; ++size) {
    const std::string text(size, 'a');
    EXPECT_EQ(span_of(kTokenSet, text), size);
    EXPECT_EQ(find_octet(text, ':'), size);
    for (std::size_t place = 0; place < size; ++place) {
      std::string marked = text;
      marked[place] = ':';
      EXPECT_EQ(find_octet(marked, ':'), place);
      EXPECT_EQ(find_octet(marked, ':', place + 1), size);
      EXPECT_EQ(span_of(kTokenSet, marked), place);
    }
  }
}

// The last octets before a page that must not be read.
TEST(Octets, NothingIsReadBeyondThePage) {
  constexpr std::size_t kPage = 4096;
  void* const pages = ::mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(pages, MAP_FAILED);
  ASSERT_EQ(::mprotect(static_cast<char*>(pages) + kPage, kPage, PROT_NONE), 0);
  char* const end = static_cast<char*>(pages) + kPage;
  for (std::size_t size = 1; size < 100; ++size) {
    std::memset(end - size, 'a', size);
    const std::string_view text(end - size, size);
    EXPECT_EQ(span_of(kTokenSet, text), size);
    EXPECT_EQ(find_octet(text, '\n'), size);
    EXPECT_EQ(Block64(text.data(), size).outside(kTokenSet), 0u);
    EXPECT_FALSE(HeaderIndex().build(text, size));
  }
  ::munmap(pages, 2 * kPage);
}

TEST(Octets, CopiesOfEveryLength) {
  std::mt19937_64 random(5);
  for (std::size_t size = 0; size < 700; ++size) {
    const std::string from = random_octets(random, size);
    std::string to(size + 2, '#');
    copy_octets(to.data() + 1, from.data(), size);
    EXPECT_EQ(to, '#' + from + '#');
  }
}

TEST(Base64Url, RoundTripsAndOneSpelling) {
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  std::mt19937_64 random(6);
  std::array<char, base64url::char_room(100)> chars;
  std::array<unsigned char, base64url::octet_room(100)> octets;
  for (std::size_t size = 1; size <= 100; ++size) {
    const std::string from = random_octets(random, size);
    std::string expected;
    for (std::size_t bit = 0; bit < 8 * size; bit += 6) {
      unsigned digit = 0;
      for (std::size_t i = bit; i < bit + 6; ++i)
        digit = digit << 1 | (i < 8 * size ? static_cast<unsigned char>(from[i / 8]) >> (7 - i % 8) & 1u : 0u);
      expected += kAlphabet[digit];
    }
    const std::size_t written =
        base64url::encode(reinterpret_cast<const unsigned char*>(from.data()), size, chars.data());
    ASSERT_EQ(std::string_view(chars.data(), written), expected);
    ASSERT_EQ(base64url::decode(expected, octets.data()), size);
    EXPECT_EQ(std::memcmp(octets.data(), from.data(), size), 0);
    for (const char wrong : {'+', '/', '=', ' ', '\0', '@', '[', '`', '{', '\x80', '\xff'}) {
      std::string broken = expected;
      broken[random() % broken.size()] = wrong;
      EXPECT_EQ(base64url::decode(broken, octets.data()), 0u) << broken;
    }
    if (size % 3 == 0) continue;
    std::string other = expected;  // a bit set that stands for no octet
    other.back() = kAlphabet[kAlphabet.find(other.back()) + 1];
    EXPECT_EQ(base64url::decode(other, octets.data()), 0u) << other;
  }
  EXPECT_EQ(base64url::decode("", octets.data()), 0u);
  EXPECT_EQ(base64url::decode("A", octets.data()), 0u);
  EXPECT_EQ(base64url::decode("AAAAA", octets.data()), 0u);
}

// One text in another's neighbourhood: octets changed, taken out and put in.
std::string mutated(std::string text, std::mt19937_64& random, std::string_view from) {
  for (auto times = random() % 4; times-- > 0 && !text.empty();) {
    const std::size_t place = random() % text.size();
    const char octet = random() % 8 == 0 ? static_cast<char>(random()) : from[random() % from.size()];
    switch (random() % 3) {
      case 0:
        text[place] = octet;
        break;
      case 1:
        text.erase(place, 1);
        break;
      default:
        text.insert(place, 1, octet);
    }
  }
  return text;
}

TEST(Party, AtOneGlanceAsStepByStep) {
  std::mt19937_64 random(7);
  std::size_t sound = 0;
  for (int i = 0; i < 200'000; ++i) {
    constexpr std::string_view kSome[] = {
        "<sip:caller@bench.invalid>;tag=0000001700000042",
        "<sip:a@b>",
        "\"Alice Example\" <sip:alice@pbx.example.org>;tag=9fxced76sl",
        "\"Al\\\"ice\" <sips:alice@pbx.example.org:5061>;tag=9fx",
        "Alice <sip:alice:word@pbx>;tag=1;x=y",
        "sip:alice@pbx;tag=1",
        "<tel:+4930123;phone-context=x>",
        "\"\"<sip:%41@h>;tag=x",
    };
    const std::string text =
        mutated(std::string(kSome[random() % std::size(kSome)]), random, "<>\";:@ =tag%\\sip,\t\r\n.?&");
    const std::string_view value = trim(text);
    const Party quick = read_party(value), close = read_party_closely(value);
    ASSERT_EQ(quick.sound, close.sound) << value;
    sound += close.sound ? 1 : 0;
    if (!close.sound) continue;
    ASSERT_EQ(quick.has_tag, close.has_tag) << value;
    ASSERT_EQ(quick.tag, close.tag) << value;
  }
  EXPECT_GT(sound, 1000u);
}

TEST(HeaderIndex, InOneGoAsLineByLine) {
  constexpr std::string_view kMessage =
      "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TLS h;branch=z9hG4bK1,\r\n  SIP/2.0/TCP i\r\nv : x\r\nX-Long: "
      "0123456789012345678901234567890123456789\r\nFrom:\r\nl: 4\r\n\r\n\r\n\rb";
  std::mt19937_64 random(8);
  std::size_t in_one_go = 0;
  for (int i = 0; i < 100'000; ++i) {
    const std::string message = mutated(std::string(kMessage), random, "\r\n\r\n :\t");
    HeaderIndex quick;
    const bool usual = quick.build_usual(message, message.size());
    in_one_go += usual ? 1 : 0;
    std::vector<std::string> lines;
    HeaderScan scan;
    const bool ended = scan.run(message, message.size(), [&](auto begin, auto end, auto line_end) {
      if (!split_field(std::string_view(message).substr(begin, end - begin)).name.empty())
        lines.push_back(message.substr(begin, line_end - begin));
    });
    if (!usual) continue;
    ASSERT_TRUE(ended && !scan.has_stray_return() && !scan.has_bare_line_feeds() && !scan.has_mixed_line_ends() &&
                !scan.begins_with_fold())
        << message;
    ASSERT_EQ(quick.size(), scan.size()) << message;
    ASSERT_EQ(quick.start_line_end(), scan.start_line_end()) << message;
    ASSERT_EQ(quick.count(), lines.size()) << message;
    for (std::size_t field = 0; field < lines.size(); ++field)
      ASSERT_EQ(message.substr(quick.field(field).line, quick.field(field).line_end - quick.field(field).line),
                lines[field]);
  }
  EXPECT_GT(in_one_go, 10'000u);
}

}  // namespace
}  // namespace ktrunk::sip
