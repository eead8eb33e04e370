#include "sip/edits.h"

#include <cassert>

#include "sip/octets.h"

namespace ktrunk::sip {

// One that comes before others, or does not fit.
void Edits::put_between(const Edit& edit) {
  if (failed_ || count_ == kMaxEdits) {
    failed_ = true;
    return;
  }
  std::size_t place = count_;
  while (place > 0 && edits_[place - 1].offset > edit.offset) --place;
  const bool inside_previous = place > 0 && edits_[place - 1].offset + edits_[place - 1].erased > edit.offset;
  const bool over_next = place < count_ && edit.offset + edit.erased > edits_[place].offset;
  if (inside_previous || over_next) {
    failed_ = true;
    return;
  }
  for (std::size_t i = count_; i > place; --i) edits_[i] = edits_[i - 1];
  edits_[place] = edit;
  ++count_;
}

// Most come in order.
void Edits::add(const Edit& edit) {
  growth_ += static_cast<std::ptrdiff_t>(edit.text_length) - static_cast<std::ptrdiff_t>(edit.erased);
  const bool in_order = count_ == 0 || edits_[count_ - 1].offset + edits_[count_ - 1].erased <= edit.offset;
  if (!in_order || count_ == kMaxEdits) return put_between(edit);
  edits_[count_++] = edit;
}

void Edits::replace(std::size_t offset, std::size_t length, std::string_view text) {
  if (text.size() > kMaxEditText - text_used_) {
    failed_ = true;
    return;
  }
  copy_octets(text_.data() + text_used_, text.data(), text.size());
  add({.offset = static_cast<std::uint32_t>(offset),
       .erased = static_cast<std::uint32_t>(length),
       .text = static_cast<std::uint32_t>(text_used_),
       .text_length = static_cast<std::uint32_t>(text.size()),
       .from = From::kOwnText});
  text_used_ += text.size();
}

void Edits::replace_with_original(std::size_t offset, std::size_t length, std::size_t from, std::size_t from_length) {
  add({.offset = static_cast<std::uint32_t>(offset),
       .erased = static_cast<std::uint32_t>(length),
       .text = static_cast<std::uint32_t>(from),
       .text_length = static_cast<std::uint32_t>(from_length),
       .from = From::kOriginal});
}

template <typename Sink>
void Edits::for_each_piece(std::string_view original, Sink&& sink) const {
  const char* const octets = original.data();
  std::size_t done = 0;
  for (std::size_t i = 0; i < count_; ++i) {
    const Edit& edit = edits_[i];
    assert(std::size_t{edit.offset} + edit.erased <= original.size());
    if (edit.offset > done) sink(octets + done, edit.offset - done);
    const char* const source = edit.from == From::kOriginal ? octets : text_.data();
    if (edit.text_length != 0) sink(source + edit.text, std::size_t{edit.text_length});
    done = std::size_t{edit.offset} + edit.erased;
  }
  if (done < original.size()) sink(octets + done, original.size() - done);
}

void Edits::write(std::string_view original, char* out) const {
  for_each_piece(original, [&out](const char* octets, std::size_t size) {
    copy_octets(out, octets, size);
    out += size;
  });
}

std::size_t Edits::gather(std::string_view original, std::span<iovec, kMaxPieces> pieces) const {
  std::size_t used = 0;
  for_each_piece(original, [&](const char* octets, std::size_t size) {
    pieces[used++] = {.iov_base = const_cast<char*>(octets), .iov_len = size};
  });
  return used;
}

}  // namespace ktrunk::sip
