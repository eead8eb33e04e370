#include "worker/control_records.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "ktls/control_record.h"

namespace ktrunk::worker {
namespace {

constexpr Clock::duration kInterval = std::chrono::nanoseconds(std::chrono::seconds(1)) / ControlRecords::kRate;

// RFC 8446 5.4 and RFC 5246 6.2.1: no empty alerts and no empty handshake records.
StreamFault unexpected(ktls::RecordType type) { return {ipc::FaultReason::kUnexpectedRecord, static_cast<int>(type)}; }

StreamFault end_by(ktls::AlertDescription description) {
  if (description == ktls::AlertDescription::kCloseNotify) return {ipc::FaultReason::kCloseNotify};
  return {ipc::FaultReason::kAlert, static_cast<int>(description)};
}

}  // namespace

std::optional<StreamFault> ControlRecords::empty_data() {
  if (++run_ > kMaxRun) return StreamFault{ipc::FaultReason::kControlFlood};
  return std::nullopt;
}

std::optional<StreamFault> ControlRecords::count(Clock::time_point now) {
  allowed_ = std::max(allowed_, now) + kInterval;
  if (++run_ > kMaxRun || allowed_ - now > kBurst * kInterval) return StreamFault{ipc::FaultReason::kControlFlood};
  return std::nullopt;
}

std::optional<StreamFault> ControlRecords::alert(std::string_view octets, Place place, ipc::TlsVersion version,
                                                 Clock::time_point now) {
  if (octets.empty()) return unexpected(ktls::RecordType::kAlert);
  if (version != ipc::TlsVersion::kTls12) {
    // RFC 8446 5.1: neither in pieces nor with others in one record. 6: the level says nothing; whatever is not one of
    // the two closure alerts, known or not, is an error, and only close_notify (6.1) ends the stream in order.
    if (auto fault = count(now); fault) return fault;
    if (octets.size() != 2 || place != Place::kEndOfRecord) return StreamFault{ipc::FaultReason::kBadAlert};
    const auto description = static_cast<ktls::AlertDescription>(octets[1]);
    if (description == ktls::AlertDescription::kUserCanceled) return std::nullopt;
    return end_by(description);
  }
  // RFC 5246 6.2.1: messages of one type may share a record and may be cut at any place, with other types in between.
  for (const char octet : octets) {
    const auto value = static_cast<std::uint8_t>(octet);
    if (alert_level_ == 0) {
      if (auto fault = count(now); fault) return fault;
      if (value != static_cast<std::uint8_t>(ktls::AlertLevel::kWarning) &&
          value != static_cast<std::uint8_t>(ktls::AlertLevel::kFatal))
        return StreamFault{ipc::FaultReason::kBadAlert};
      alert_level_ = value;
    } else if (auto fault = alert12(std::exchange(alert_level_, std::uint8_t{0}), value); fault) {
      return fault;
    }
  }
  return std::nullopt;
}

// RFC 5246 7.2.2: a warning leaves it to the receiver whether to go on; ktrunk does (no_renegotiation, say).
std::optional<StreamFault> ControlRecords::alert12(std::uint8_t level, std::uint8_t description) {
  const auto named = static_cast<ktls::AlertDescription>(description);
  if (level == static_cast<std::uint8_t>(ktls::AlertLevel::kFatal) || named == ktls::AlertDescription::kCloseNotify)
    return end_by(named);
  warned_ = true;
  return std::nullopt;
}

std::optional<StreamFault> ControlRecords::handshake(std::string_view octets, Place place, Clock::time_point now) {
  if (octets.empty() && !handshake_begun_) return unexpected(ktls::RecordType::kHandshake);
  handshake_begun_ = place == Place::kMore;
  if (handshake_begun_) return std::nullopt;
  if (auto fault = count(now); fault) return fault;
  if (unanswered_++ == 0) since_ = now;
  return std::nullopt;
}

std::optional<StreamFault> ControlRecords::answered(Clock::time_point now) {
  if (unanswered_ == 0) return std::nullopt;
  --unanswered_;
  since_ = now;
  just_answered_ = true;
  if (unanswered_ == 0 && withheld_ != 0) return StreamFault{ipc::FaultReason::kBadRecord, std::exchange(withheld_, 0)};
  return std::nullopt;
}

std::optional<StreamFault> ControlRecords::failed(int error) {
  switch (error) {
    case EKEYEXPIRED:
      // Behind a KeyUpdate. It may also be seen just after its answer, from before the keys came in; not twice.
      if (unanswered() || !std::exchange(expired_, true)) return std::nullopt;
      return StreamFault{ipc::FaultReason::kKeysFailed, error};
    case EBADMSG:
      // An answer may overtake an error from before it.
      if (!unanswered() && !std::exchange(just_answered_, false)) break;
      retry_ = true;
      return std::nullopt;
    case EMSGSIZE:
      if (!unanswered()) break;
      withheld_ = error;
      return std::nullopt;
    case EINVAL:  // the version in a record's header
      break;
    case ENOBUFS:
    case ECANCELED:
    case EAGAIN:
    case EINTR:
      return std::nullopt;
    default:
      return StreamFault{ipc::FaultReason::kReset, error};
  }
  return StreamFault{ipc::FaultReason::kBadRecord, error};
}

}  // namespace ktrunk::worker
