#include "ipc/handover.h"

#include <cstring>

namespace ktrunk::ipc {

std::optional<std::uint32_t> Handover::plan(std::size_t octets, std::uint32_t& seen_head) const {
  if (octets > kMostOctets) return std::nullopt;
  const std::uint32_t tail = tail_.load(std::memory_order_relaxed);
  const std::uint32_t step = step_of(octets);
  const std::uint32_t left = kBytes - tail % kBytes;
  const std::uint32_t needed = step <= left ? step : left + step;
  if (kBytes - (tail - seen_head) < needed) {
    seen_head = head();
    if (kBytes - (tail - seen_head) < needed) return std::nullopt;
  }
  return tail + needed;
}

void Handover::put(std::uint32_t tail_after, const HandoverSource& source, std::string_view octets) {
  const std::uint32_t tail = tail_.load(std::memory_order_relaxed);
  const std::uint32_t step = step_of(octets.size());
  const std::uint32_t place = tail_after - step;
  if (place != tail) {
    const Entry filler{.step = place - tail, .octets = kFiller, .source = {}};
    std::memcpy(at(tail), &filler, sizeof filler);
  }
  const Entry entry{.step = step, .octets = static_cast<std::uint32_t>(octets.size()), .source = source};
  std::memcpy(at(place), &entry, sizeof entry);
  std::memcpy(at(place) + kUnit, octets.data(), octets.size());
  tail_.store(tail_after, std::memory_order_release);
}

Handover::Look Handover::look(Message& message) {
  const std::uint32_t tail = this->tail();
  for (std::uint32_t head = head_.load(std::memory_order_relaxed); head != tail;) {
    const std::uint32_t available = tail - head;
    const std::uint32_t left = kBytes - head % kBytes;
    // A copy: what is checked is what is used.
    Entry entry;
    if (available <= kBytes && head % kUnit == 0) std::memcpy(&entry, at(head), sizeof entry);
    if (entry.step == 0 || entry.step % kUnit != 0 || entry.step > available || entry.step > left) {
      head_.store(tail, std::memory_order_release);
      return Look::kNonsense;
    }
    if (entry.octets == kFiller) {
      head += entry.step;
      head_.store(head, std::memory_order_release);
      continue;
    }
    if (entry.octets > entry.step - kUnit) {
      head_.store(tail, std::memory_order_release);
      return Look::kNonsense;
    }
    message.source = entry.source;
    message.place = head % kBytes + kUnit;
    message.octets = {reinterpret_cast<const char*>(at(head) + kUnit), entry.octets};
    message.next = head + entry.step;
    return Look::kMessage;
  }
  return Look::kEmpty;
}

std::string_view Handover::octets(std::uint64_t place, std::uint64_t length) const {
  if (place > kBytes || length > kBytes - place) return {};
  return {reinterpret_cast<const char*>(data_.data()) + place, static_cast<std::size_t>(length)};
}

}  // namespace ktrunk::ipc
