#include "sip/edits.h"

#include <cassert>
#include <cstring>

namespace ktrunk::sip {

void Edits::add(const Edit& edit) {
  if (failed_ || count_ == kMaxEdits) {
    failed_ = true;
    return;
  }
  std::size_t place = count_;  // most edits come in order
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

void Edits::replace(std::size_t offset, std::size_t length, std::string_view text) {
  if (text.size() > kMaxEditText - text_used_) {
    failed_ = true;
    return;
  }
  if (!text.empty()) std::memcpy(text_.data() + text_used_, text.data(), text.size());
  add({.offset = offset, .erased = length, .text = text_used_, .text_length = text.size(), .from = From::kOwnText});
  text_used_ += text.size();
}

void Edits::replace_with_original(std::size_t offset, std::size_t length, std::size_t from, std::size_t from_length) {
  add({.offset = offset, .erased = length, .text = from, .text_length = from_length, .from = From::kOriginal});
}

std::string_view Edits::text_of(const Edit& edit, std::string_view original) const {
  return edit.from == From::kOriginal ? original.substr(edit.text, edit.text_length)
                                      : std::string_view(text_.data() + edit.text, edit.text_length);
}

template <typename Sink>
void Edits::for_each_piece(std::string_view original, Sink&& sink) const {
  std::size_t done = 0;
  for (std::size_t i = 0; i < count_; ++i) {
    const Edit& edit = edits_[i];
    assert(edit.offset + edit.erased <= original.size());
    if (edit.offset > done) sink(original.substr(done, edit.offset - done));
    if (edit.text_length != 0) sink(text_of(edit, original));
    done = edit.offset + edit.erased;
  }
  if (done < original.size()) sink(original.substr(done));
}

std::size_t Edits::size(std::string_view original) const {
  std::size_t size = original.size();
  for (std::size_t i = 0; i < count_; ++i) size = size - edits_[i].erased + edits_[i].text_length;
  return size;
}

void Edits::write(std::string_view original, char* out) const {
  for_each_piece(original, [&out](std::string_view piece) {
    std::memcpy(out, piece.data(), piece.size());
    out += piece.size();
  });
}

std::size_t Edits::gather(std::string_view original, std::span<iovec, kMaxPieces> pieces) const {
  std::size_t used = 0;
  for_each_piece(original, [&](std::string_view piece) {
    pieces[used++] = {.iov_base = const_cast<char*>(piece.data()), .iov_len = piece.size()};
  });
  return used;
}

}  // namespace ktrunk::sip
