// Ending: what a connection's end means on the wire (RFC 8446 6), and in words for the log.
#pragma once

#include <string>

#include "base/log.h"
#include "config/config.h"
#include "ipc/messages.h"
#include "ktls/control_record.h"

namespace ktrunk::supervisor {

struct Ending {
  enum class Stream : std::uint8_t {
    kInOrder,  // what is queued goes out, then the alert
    kBroken,   // nothing can be said on it any more
  } stream = Stream::kInOrder;
  ktls::AlertDescription alert = ktls::AlertDescription::kCloseNotify;
  ipc::Gone::Again again = ipc::Gone::Again::kAfterWait;
};
[[nodiscard]] Ending ending_of(const ipc::Fault& fault);

// "trunk 'pbx', tls 192.0.2.1:5061", as every line about a connection begins.
[[nodiscard]] std::string connection_name(const config::Config& config, const ipc::ConnectionInfo& info);

// Why it ends, and what can be done about it.
[[nodiscard]] std::string reason_text(const ipc::Fault& fault);

[[nodiscard]] inline log::Level level_of(const ipc::Fault& fault) {
  return fault.reason == ipc::FaultReason::kCloseNotify ? log::Level::kInfo : log::Level::kWarn;
}

}  // namespace ktrunk::supervisor
