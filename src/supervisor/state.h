// State: what one ktrunkd writes down for the program that takes its place in the same process (an upgrade): plain
// octets in a memfd, behind a head that says which layout they are of, and descriptors by their number.
//
//   "ktrunk state\n" | layout text | fields in the order in which both sides know them
//
// Runs in the supervisor. A program of another layout reads no further than the head.
#pragma once

#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace ktrunk::supervisor {

// Of everything that an upgrade hands over, the state included.
[[nodiscard]] std::string state_layout();

class StateWriter {
 public:
  StateWriter();

  template <typename T>
    requires std::is_trivially_copyable_v<T>
  void put(const T& value) {
    const auto* octets = reinterpret_cast<const char*>(&value);
    octets_.append(octets, sizeof value);
  }
  void put(const std::string& text) {
    put(text.size());
    octets_ += text;
  }
  void put(const std::vector<std::byte>& octets) {
    put(octets.size());
    octets_.append(reinterpret_cast<const char*>(octets.data()), octets.size());
  }
  // A descriptor that stays open for the successor; one that is not valid is written as such. kOfPeer: a rehearsal
  // does without, as it would keep a connection open that ends meanwhile.
  enum class What : std::uint8_t { kOurs, kOfPeer };
  void put(const Fd& fd, What what = What::kOurs) { put_descriptor(fd.get(), what); }
  void put_descriptor(int fd, What what = What::kOurs);

  // The octets as a memfd, close-on-exec, to be read from its beginning.
  [[nodiscard]] Result<Fd> memory() const;
  [[nodiscard]] const std::vector<int>& ours() const { return ours_; }
  [[nodiscard]] const std::vector<int>& of_peers() const { return of_peers_; }

 private:
  std::string octets_;
  std::vector<int> ours_;
  std::vector<int> of_peers_;
};

class StateReader {
 public:
  // kRehearsal: descriptors of peers are not there, and are read as none.
  enum class Purpose : std::uint8_t { kTakeOver, kRehearsal };
  // An error: it cannot be read, or is of another layout.
  [[nodiscard]] static Result<StateReader> open(const Fd& memory, Purpose purpose);

  template <typename T>
    requires std::is_trivially_copyable_v<T>
  [[nodiscard]] T get() {
    T value{};
    if (const std::string_view octets = take(sizeof value); octets.size() == sizeof value)
      std::memcpy(&value, octets.data(), sizeof value);
    return value;
  }
  template <typename T>
    requires std::is_trivially_copyable_v<T>
  void get(T& value) {
    value = get<T>();
  }
  [[nodiscard]] std::string text() { return std::string(take(get<std::size_t>())); }
  [[nodiscard]] std::vector<std::byte> octets();
  // Not close-on-exec before keep(), so that the predecessor could still go on.
  [[nodiscard]] Fd descriptor(StateWriter::What what = StateWriter::What::kOurs);

  [[nodiscard]] Purpose purpose() const { return purpose_; }
  // Everything has been read, and nothing was missing.
  [[nodiscard]] bool complete() const { return good_ && at_ == octets_.size(); }
  [[nodiscard]] bool good() const { return good_; }
  // There is no way back: every descriptor is close-on-exec from now on.
  void keep() const;
  // Something that was read makes no sense.
  void reject() { good_ = false; }

 private:
  explicit StateReader(Purpose purpose) : purpose_(purpose) {}
  [[nodiscard]] std::string_view take(std::size_t bytes);

  Purpose purpose_;
  std::string octets_;
  std::size_t at_ = 0;
  std::vector<int> descriptors_;
  bool good_ = true;
};

}  // namespace ktrunk::supervisor
