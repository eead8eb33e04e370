// Control records: what a peer sends beside data, in any order, cut anywhere. Alerts of TLS 1.2 mean the same however
// they are cut; in TLS 1.3 each has exactly one verdict; records wait for as many answers as there are; and the type of
// a record is what the kernel wrote or an error.
// Input: one octet with the version, then steps of one octet each (what, and how long), with the octets that they take.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "ktls/control_record.h"
#include "worker/control_records.h"

namespace {

using namespace ktrunk;
using worker::ControlRecords;
using worker::StreamFault;
using Place = ControlRecords::Place;

void require(bool holds) {
  if (!holds) std::abort();
}

// What RFC 8446 5.1 and 6 say of one alert record.
std::optional<StreamFault> verdict13(std::string_view octets, Place place) {
  if (octets.empty())
    return StreamFault{ipc::FaultReason::kUnexpectedRecord, static_cast<int>(ktls::RecordType::kAlert)};
  if (octets.size() != 2 || place != Place::kEndOfRecord) return StreamFault{ipc::FaultReason::kBadAlert};
  const auto description = static_cast<std::uint8_t>(octets[1]);
  if (description == static_cast<std::uint8_t>(ktls::AlertDescription::kUserCanceled)) return std::nullopt;
  if (description == 0) return StreamFault{ipc::FaultReason::kCloseNotify};
  return StreamFault{ipc::FaultReason::kAlert, description};
}

// A stream of TLS 1.2 alerts, whole, and in pieces with data between.
void alerts_in_pieces(std::string_view octets, Clock::time_point now) {
  if (octets.empty()) return;
  ControlRecords whole;
  ControlRecords pieces;
  const auto of_whole = whole.alert(octets, Place::kEndOfRecord, ipc::TlsVersion::kTls12, now);
  std::optional<StreamFault> of_pieces;
  for (std::size_t at = 0, step = 1; at < octets.size() && !of_pieces; at += step, step = step % 3 + 1)
    of_pieces = pieces.alert(octets.substr(at, step), Place::kMore, ipc::TlsVersion::kTls12, now);
  require(of_whole == of_pieces);
  require(whole.warned() == pieces.warned());
}

void type_of_record(std::string_view octets, int flags) {
  alignas(cmsghdr) std::array<std::byte, 256> control{};
  const std::size_t size = std::min(octets.size(), control.size());
  if (size != 0) std::memcpy(control.data(), octets.data(), size);
  const auto type = ktls::record_type({control.data(), size}, flags);
  if (!type) return;
  require((flags & MSG_CTRUNC) == 0);
  require(size != 0 || *type == ktls::RecordType::kApplicationData);
  const auto bytes = std::as_bytes(std::span(octets));
  if (const auto alert = ktls::parse_alert(bytes))
    require(octets.size() == 2 &&
            static_cast<std::uint8_t>(octets[1]) == static_cast<std::uint8_t>(alert->description));
  require(ktls::handshake_type(bytes).has_value() == !octets.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto version = (data[0] & 1) != 0 ? ipc::TlsVersion::kTls13 : ipc::TlsVersion::kTls12;
  std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  Clock::time_point now{std::chrono::hours(1)};
  type_of_record(rest, (data[0] & 2) != 0 ? MSG_CTRUNC : 0);
  alerts_in_pieces(rest.substr(0, 64), now);

  ControlRecords records;
  unsigned unanswered = 0;
  while (!rest.empty()) {
    const auto step = static_cast<std::uint8_t>(rest.front());
    rest.remove_prefix(1);
    const std::string_view octets = rest.substr(0, step >> 4);
    std::optional<StreamFault> fault;
    switch (step & 0x07) {
      case 0:
        records.data();
        break;
      case 1:
        fault = records.empty_data();
        break;
      case 2:
      case 3: {
        const Place place = (step & 1) != 0 ? Place::kMore : Place::kEndOfRecord;
        rest.remove_prefix(octets.size());
        fault = records.alert(octets, place, version, now);
        const bool flood = fault && fault->reason == ipc::FaultReason::kControlFlood;
        if (version == ipc::TlsVersion::kTls13 && !flood) require(fault == verdict13(octets, place));
        break;
      }
      case 4:
      case 5: {
        const Place place = (step & 1) != 0 ? Place::kMore : Place::kEndOfRecord;
        rest.remove_prefix(octets.size());
        fault = records.handshake(octets, place, now);
        if (!fault && place == Place::kEndOfRecord) ++unanswered;
        break;
      }
      case 6:
        if (unanswered == 0) break;  // the supervisor answers what was asked
        --unanswered;
        fault = records.answered(now);
        break;
      case 7:
        now += std::chrono::milliseconds(step >> 3);
        fault = records.failed((step & 0x08) != 0 ? EBADMSG : EKEYEXPIRED);
        break;
    }
    if (fault) return 0;
    require(records.unanswered() == (unanswered != 0));
    require(unanswered != 0 || !records.overdue(now + std::chrono::hours(1)));
    (void)records.take_retry();
  }
  return 0;
}
