// Edits: how one message differs from its original octets, as an ordered list of insertions and deletions. Octets that
// no edit names go out as they came in. Workers keep one and use it again and again; nothing is allocated.
//
// Text that is not in the original is copied into the list's own room, so it may be a temporary. The list refers to the
// original by offsets alone: the octets may move, as long as they are the same.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "sip/limits.h"

namespace ktrunk::sip {

class Edits {
 public:
  // The most pieces that gather() makes.
  static constexpr std::size_t kMaxPieces = 2 * kMaxEdits + 1;

  void clear() {
    count_ = 0;
    text_used_ = 0;
    growth_ = 0;
    failed_ = false;
  }

  // All offsets and lengths count octets of the original. Insertions at one offset come out in the order they were
  // made. Deleted ranges must not overlap, nor may anything be inserted inside one (nor, once it is deleted, at its
  // first octet); breaking that, or more than kMaxEdits or kMaxEditText, makes the list failed() until clear(), and it
  // must not be sent.
  void insert(std::size_t offset, std::string_view text) { replace(offset, 0, text); }
  void erase(std::size_t offset, std::size_t length) { replace(offset, length, {}); }
  void replace(std::size_t offset, std::size_t length, std::string_view text);
  // Puts octets [from, from + from_length) of the original in the place of others.
  void replace_with_original(std::size_t offset, std::size_t length, std::size_t from, std::size_t from_length);

  void fail() { failed_ = true; }
  [[nodiscard]] bool failed() const { return failed_; }
  [[nodiscard]] bool empty() const { return count_ == 0; }

  // The octets to send. original: Message::bytes() of the message that the edits were made for.
  [[nodiscard]] std::size_t size(std::string_view original) const {
    return static_cast<std::size_t>(static_cast<std::ptrdiff_t>(original.size()) + growth_);
  }
  void write(std::string_view original, char* out) const;  // out has room for size(original) octets
  // The same as pieces for a vectored send; they point into original and into this list. Returns how many of `pieces`
  // are used. kMaxPieces always suffice.
  [[nodiscard]] std::size_t gather(std::string_view original, std::span<iovec, kMaxPieces> pieces) const;

 private:
  enum class From : std::uint8_t { kOwnText, kOriginal };
  struct Edit {
    std::uint32_t offset;  // in the original
    std::uint32_t erased;  // octets deleted there
    std::uint32_t text;    // what comes instead: offset in text_ or in the original
    std::uint32_t text_length;
    From from;
  };
  void add(const Edit& edit);
  void put_between(const Edit& edit);
  template <typename Sink>
  void for_each_piece(std::string_view original, Sink&& sink) const;

  std::size_t count_ = 0;
  std::size_t text_used_ = 0;
  std::ptrdiff_t growth_ = 0;  // octets that come, less those that go
  bool failed_ = false;
  std::array<Edit, kMaxEdits> edits_;  // ordered by offset; the first count_ are set
  std::array<char, kMaxEditText> text_;
};

}  // namespace ktrunk::sip
