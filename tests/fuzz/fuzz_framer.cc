// Framer: a stream gives the same outcomes whole and cut, whatever is in it; the parser agrees where each message ends;
// and what the framer found in a message is what the parser finds by itself. Input: one octet, how many of the
// following octets say the lengths of the pieces, those, and then the stream.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "sip/framer.h"
#include "sip/message.h"

namespace {

using ktrunk::sip::Carrier;
using ktrunk::sip::Framer;
using ktrunk::sip::HeaderIndex;
using ktrunk::sip::Message;

constexpr std::size_t kLimit = 20000;

struct Event {
  Framer::Outcome outcome;
  std::size_t length;
  int status;
  bool operator==(const Event&) const = default;
};

void require(bool holds) {
  if (!holds) std::abort();
}

bool same_header(const Message::Header& a, const Message::Header& b) {
  return a.id == b.id && a.name == b.name && a.value == b.value && a.line == b.line && a.line_end == b.line_end;
}

void check_message(std::string_view bytes, const HeaderIndex& index) {
  static Message message, of_framer;
  message.parse(bytes, Carrier::kStream);
  require(message.bytes().size() == bytes.size());
  require(message.header_section_size() + message.body().size() == bytes.size());
  for (std::size_t i = 0; i < message.header_count(); ++i) {
    const auto header = message.header(i);
    require(header.line < header.line_end && header.line_end <= message.header_section_size());
    require(!header.name.empty());
  }
  if (!index.complete()) return;
  of_framer.parse(bytes, Carrier::kStream, index);
  require(of_framer.header_count() == message.header_count() && of_framer.kind() == message.kind());
  require(of_framer.defect().status == message.defect().status);
  require(of_framer.header_section_size() == message.header_section_size());
  for (std::size_t i = 0; i < message.header_count(); ++i)
    require(same_header(message.header(i), of_framer.header(i)) && message.next_same(i) == of_framer.next_same(i));
}

std::vector<Event> frame(std::string_view stream, std::string_view steps) {
  Framer framer(kLimit);
  HeaderIndex index;
  std::vector<Event> events;
  std::string buffer;
  std::size_t fed = 0;
  for (std::size_t turn = 0; fed < stream.size(); ++turn) {
    const std::size_t step =
        turn < steps.size() ? std::size_t{static_cast<unsigned char>(steps[turn])} + 1 : stream.size();
    const std::string_view piece = stream.substr(fed, step);
    fed += piece.size();
    buffer += piece;
    for (;;) {
      const auto result = framer.next(buffer, &index);
      if (result.outcome == Framer::Outcome::kNeedMore) break;
      require(result.length <= buffer.size() && !framer.mid_message());
      events.push_back({result.outcome, result.length, result.status});
      if (result.outcome == Framer::Outcome::kMalformed) {
        require(result.status == 400 || result.status == 413);
        return events;
      }
      require(result.length > 0 && result.length <= kLimit);
      if (result.outcome == Framer::Outcome::kMessage)
        check_message(std::string_view(buffer).substr(0, result.length), index);
      buffer.erase(0, result.length);
    }
  }
  return events;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view input(reinterpret_cast<const char*>(data), size);
  if (input.empty()) return 0;
  const std::size_t steps = std::min<std::size_t>(static_cast<unsigned char>(input[0]), input.size() - 1);
  const std::string_view stream = input.substr(1 + steps);
  require(frame(stream, {}) == frame(stream, input.substr(1, steps)));
  return 0;
}
