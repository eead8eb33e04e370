#include "supervisor/ending.h"

#include <sys/utsname.h>

#include <cerrno>

namespace ktrunk::supervisor {
namespace {

using ipc::FaultReason;
using ktls::AlertDescription;

// The kernel's words for a record that is none of the connection's (net/tls/tls_sw.c), as RFC 8446 5 would have them.
AlertDescription alert_of_bad_record(int code) {
  switch (code) {
    case EMSGSIZE:
      return AlertDescription::kRecordOverflow;
    case EINVAL:
      return AlertDescription::kProtocolVersion;
    default:
      return AlertDescription::kBadRecordMac;
  }
}

std::string running_kernel() {
  utsname name{};
  return ::uname(&name) == 0 ? name.release : "unknown";
}

std::string detail_text(const ipc::Fault& fault) {
  switch (fault.reason) {
    case FaultReason::kAlert:
      return fmt::format(": {}", ktls::alert_name(static_cast<AlertDescription>(fault.detail)));
    case FaultReason::kReset:
    case FaultReason::kBadRecord:
    case FaultReason::kKeysFailed:
      return fault.detail != 0 ? ": " + errno_text(fault.detail) : "";
    case FaultReason::kUnexpectedRecord:
      return fmt::format(": {}", ktls::record_type_name(static_cast<ktls::RecordType>(fault.detail)));
    case FaultReason::kBadHandshake:
    case FaultReason::kUnexpectedHandshake:
      return fmt::format(": type {}", fault.detail);
    case FaultReason::kNoRekey:
      return fmt::format(" (this is Linux {}; from 6.14 on the connection would have carried on)", running_kernel());
    default:
      return "";
  }
}

const char* remedy(FaultReason reason) {
  switch (reason) {
    case FaultReason::kPartialMessage:
      return "; the time is limits.partial_message";
    case FaultReason::kStalled:
      return "; the time is limits.stalled_peer";
    case FaultReason::kAlert:
      return "; the peer's log says why";
    case FaultReason::kNoPong:
      return "; where it knows no CRLF keepalives, trunk.keepalive is to be left out";
    default:
      return "";
  }
}

}  // namespace

Ending ending_of(const ipc::Fault& fault) {
  constexpr auto kAtOnce = ipc::Gone::Again::kAtOnce;
  switch (fault.reason) {
    case FaultReason::kCloseNotify:
    case FaultReason::kTruncated:
    case FaultReason::kBadFraming:
    case FaultReason::kPartialMessage:
      return {};
    case FaultReason::kUnresponsive:
      return {.again = ipc::Gone::Again::kElsewhere};
    case FaultReason::kKeyLimit:
      return {.again = kAtOnce};
    case FaultReason::kBadRecord:
      return {.alert = alert_of_bad_record(fault.detail)};
    case FaultReason::kUnexpectedRecord:
    case FaultReason::kUnexpectedHandshake:
    case FaultReason::kControlFlood:
      return {.alert = AlertDescription::kUnexpectedMessage};
    case FaultReason::kBadAlert:
    case FaultReason::kBadHandshake:
      return {.alert = AlertDescription::kDecodeError};
    case FaultReason::kBadKeyUpdate:
      return {.alert = AlertDescription::kIllegalParameter};
    case FaultReason::kNoRekey:
    case FaultReason::kKeysFailed:
      return {.alert = AlertDescription::kInternalError, .again = kAtOnce};
    case FaultReason::kAlert:
    case FaultReason::kReset:
    case FaultReason::kStalled:
    case FaultReason::kNoPong:
      return {.stream = Ending::Stream::kBroken};
  }
  return {.stream = Ending::Stream::kBroken};
}

std::string connection_name(const config::Config& config, const ipc::ConnectionInfo& info) {
  std::string owner = "connection";
  if (info.trunk.valid() && info.trunk.value < config.trunks.size()) {
    owner = fmt::format("trunk '{}'", config.trunks[info.trunk.value].name);
  } else if (info.listener.valid() && info.listener.value < config.listeners.size()) {
    owner = fmt::format("listener '{}'", config.listeners[info.listener.value].name);
  }
  return fmt::format("{}, {} {}", owner, config::transport_name(info.transport), info.peer.text());
}

std::string reason_text(const ipc::Fault& fault) {
  return fmt::format("{}{}{}", ipc::fault_text(fault.reason), detail_text(fault), remedy(fault.reason));
}

}  // namespace ktrunk::supervisor
