// ControlRecords: what one connection has received beside data, and what follows from it: alerts (RFC 8446 6, RFC 5246
// 7.2), handshake records, which the handshake process answers (ipc/messages.h), and a peer that sends nothing else.
// A home worker keeps one per connection. It makes no system call.
//
// The kernel stops receiving behind a KeyUpdate (EKEYEXPIRED) until the new keys are in, if the first octet of a record
// shows one. Behind any other, such as the rest of a KeyUpdate whose beginning came in the record before, or any at all
// before Linux 6.14, it goes on and fails to decrypt (EBADMSG). So while a handshake record is unanswered, an error
// says nothing yet. A record that does not decrypt stays where it is, and is tried again under the keys that the answer
// has brought; any other error is withheld, and raised when the answer is that receiving goes on.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include "base/event_loop.h"
#include "ipc/messages.h"

namespace ktrunk::worker {

// How a receive ended the connection.
struct StreamFault {
  ipc::FaultReason reason = ipc::FaultReason::kReset;
  int detail = 0;
  friend bool operator==(const StreamFault&, const StreamFault&) = default;
};

class ControlRecords {
 public:
  using Place = ipc::HandshakeOctets::Place;

  // A peer may send so many records without data in a row.
  static constexpr unsigned kMaxRun = 32;
  // Control records per second over a long time, and how many more may come at once. A peer that renews its keys a
  // hundred times a second is strange, but is served.
  static constexpr int kRate = 128;
  static constexpr int kBurst = 512;
  // How long the answer to a handshake record may take: a handshake process may have to be started again meanwhile.
  static constexpr std::chrono::seconds kAnswerLimit{10};

  // A record with data has come.
  void data() {
    run_ = 0;
    expired_ = false;
    just_answered_ = false;
  }
  // An empty one (RFC 8446 5.1 and RFC 5246 6.2.1 allow them).
  [[nodiscard]] std::optional<StreamFault> empty_data();

  // Octets of an alert record. No value: go on.
  [[nodiscard]] std::optional<StreamFault> alert(std::string_view octets, Place place, ipc::TlsVersion version,
                                                 Clock::time_point now);
  // Octets of a handshake record, to be passed on unless there is a fault. With its last ones receiving pauses.
  [[nodiscard]] std::optional<StreamFault> handshake(std::string_view octets, Place place, Clock::time_point now);
  // A handshake record has been answered; receive again unless others are unanswered() or there is a fault.
  [[nodiscard]] std::optional<StreamFault> answered(Clock::time_point now);
  [[nodiscard]] bool unanswered() const { return unanswered_ != 0; }
  // So many of a predecessor's are.
  void take_over(std::uint16_t unanswered, Clock::time_point now) {
    unanswered_ = unanswered;
    since_ = now;
  }
  // The answer does not come.
  [[nodiscard]] bool overdue(Clock::time_point now) const { return unanswered() && now - since_ > kAnswerLimit; }

  // A receive on a kTLS socket has failed. No value: receive again unless a record is unanswered().
  [[nodiscard]] std::optional<StreamFault> failed(int error);
  // A record that did not decrypt is to be tried again: its error must be read off the socket before. True once.
  [[nodiscard]] bool take_retry() { return std::exchange(retry_, false); }

  // A warning alert has been passed over (TLS 1.2).
  [[nodiscard]] bool warned() const { return warned_; }

 private:
  [[nodiscard]] std::optional<StreamFault> count(Clock::time_point now);
  [[nodiscard]] std::optional<StreamFault> alert12(std::uint8_t level, std::uint8_t description);

  Clock::time_point allowed_{};  // when the records so far would have come at kRate
  Clock::time_point since_{};    // a handshake record is unanswered, or the last one was answered
  int withheld_ = 0;             // errno
  std::uint16_t unanswered_ = 0;
  std::uint8_t run_ = 0;          // records in a row without data
  std::uint8_t alert_level_ = 0;  // TLS 1.2: the first octet of an alert whose second has not come; 0: none
  bool handshake_begun_ = false;  // the octets so far did not end their record
  bool warned_ = false;
  bool expired_ = false;        // EKEYEXPIRED with nothing unanswered, once
  bool just_answered_ = false;  // and no data since: an error may be from before the answer
  bool retry_ = false;
};

}  // namespace ktrunk::worker
