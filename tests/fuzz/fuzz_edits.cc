// Edits against a list of the obvious kind: whatever is inserted, deleted and replaced, in any order, the octets are
// those that a std::string would give, in both forms, and a list that says failed() is one that broke a rule or a
// limit. Input: one octet with the original's length, the original, then operations of four octets: what, where, how
// much, how much of what.
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "sip/edits.h"

namespace {

using ktrunk::sip::Edits;

void require(bool holds) {
  if (!holds) std::abort();
}

// The same edits, kept by offset, in the order in which they were made.
struct Model {
  struct Step {
    std::size_t offset, erased;
    std::string text;
  };
  std::vector<Step> steps;
  std::size_t own_text = 0;
  bool failed = false;

  void add(std::size_t offset, std::size_t erased, std::string text, std::size_t own) {
    if (failed) return;
    failed = own > ktrunk::sip::kMaxEditText - own_text || steps.size() == ktrunk::sip::kMaxEdits;
    for (const Step& step : steps) {
      const bool starts_inside = step.offset <= offset && offset < step.offset + step.erased;
      const bool covers_start = offset < step.offset && step.offset < offset + erased;
      failed = failed || starts_inside || covers_start;
    }
    if (failed) return;
    own_text += own;
    auto place = steps.end();
    while (place != steps.begin() && std::prev(place)->offset > offset) --place;
    steps.insert(place, {offset, erased, std::move(text)});
  }
  [[nodiscard]] std::string apply(std::string_view original) const {
    std::string out;
    std::size_t done = 0;
    for (const Step& step : steps) {
      out += original.substr(done, step.offset - done);
      out += step.text;
      done = step.offset + step.erased;
    }
    return out.append(original.substr(done));
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Edits edits;
  static const std::string kText(4096, '+');
  if (size == 0) return 0;
  const std::size_t length = std::min<std::size_t>(data[0], size - 1);
  const std::string original(reinterpret_cast<const char*>(data) + 1, length);
  edits.clear();
  Model model;
  for (std::size_t at = 1 + length; at + 4 <= size; at += 4) {
    const std::size_t offset = data[at + 1] % (length + 1);
    const std::size_t erased = data[at + 2] % (length - offset + 1);
    const std::size_t amount = data[at + 3];
    switch (data[at] % 4) {
      case 0:
        edits.insert(offset, std::string_view(kText).substr(0, amount));
        model.add(offset, 0, kText.substr(0, amount), amount);
        break;
      case 1:
        edits.erase(offset, erased);
        model.add(offset, erased, "", 0);
        break;
      case 2:
        edits.replace(offset, erased, std::string_view(kText).substr(0, amount * 16));
        model.add(offset, erased, kText.substr(0, amount * 16), amount * 16);
        break;
      case 3: {
        const std::size_t from = amount % (length + 1);
        const std::size_t taken = data[at] / 4 % (length - from + 1);
        edits.replace_with_original(offset, erased, from, taken);
        model.add(offset, erased, original.substr(from, taken), 0);
        break;
      }
    }
    require(edits.failed() == model.failed);
  }
  if (edits.failed()) return 0;
  const std::string expected = model.apply(original);
  require(edits.size(original) == expected.size());
  require(edits.empty() == model.steps.empty());
  std::string written(expected.size(), '\0');
  edits.write(original, written.data());
  require(written == expected);
  std::array<iovec, Edits::kMaxPieces> pieces;
  std::string gathered;
  for (std::size_t i = 0, count = edits.gather(original, pieces); i < count; ++i)
    gathered.append(static_cast<const char*>(pieces[i].iov_base), pieces[i].iov_len);
  require(gathered == expected);
  return 0;
}
