// Handshake records after the handshake: what one reader takes, a line of successors takes too, each of which has only
// the place in the stream that the vault keeps. Input: one octet for version and role, then records, each behind one
// octet of length.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "handshake/post_handshake.h"

namespace {

using namespace ktrunk;
using handshake::PostHandshakeKind;
using handshake::PostHandshakeStream;

struct Run {
  std::vector<PostHandshakeKind> kinds;
  bool refused = false;
};

void require(bool holds) {
  if (!holds) std::abort();
}

// False when the record is refused.
bool take(PostHandshakeStream& stream, std::span<const std::byte> record, Run& run) {
  if (!stream.append(record)) return false;
  for (;;) {
    const auto message = stream.next();
    if (!message) return false;
    if (!*message) break;
    run.kinds.push_back((*message)->kind);
  }
  stream.end_record();
  require(stream.size() <= PostHandshakeStream::kMostMessage);
  require(stream.between_messages() == !stream.begun().has_value());
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  auto input = std::as_bytes(std::span(data, size));
  if (input.empty()) return 0;
  const auto setting = std::to_integer<unsigned>(input.front());
  input = input.subspan(1);
  const auto version = (setting & 1) != 0 ? ktls::Version::kTls13 : ktls::Version::kTls12;
  const auto self = (setting & 2) != 0 ? ktls::Endpoint::kClient : ktls::Endpoint::kServer;
  PostHandshakeStream one(version, self);
  PostHandshakeStream line(version, self);
  Run by_one;
  Run by_line;
  while (!input.empty()) {
    const std::size_t length = std::min<std::size_t>(std::to_integer<std::size_t>(input.front()), input.size() - 1);
    const auto record = input.subspan(1, length);
    input = input.subspan(1 + length);
    if (!by_line.refused) {
      by_line.refused = !take(line, record, by_line);
      const auto begun = line.begun();
      line = PostHandshakeStream(version, self);
      if (begun) line.restore(*begun);
    }
    if (!take(one, record, by_one)) return 0;
    // A successor does not judge a ticket of which it has a part, and is no stricter otherwise.
    require(!by_line.refused && by_line.kinds == by_one.kinds);
  }
  return 0;
}
