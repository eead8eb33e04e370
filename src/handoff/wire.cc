#include "handoff/wire.h"

#include <algorithm>

namespace ktrunk::handoff {
namespace {

template <typename Enumeration>
bool within(Enumeration value, Enumeration low, Enumeration high) {
  return value >= low && value <= high;
}

template <std::size_t N>
bool ends(const Text<N>& text) {
  return std::ranges::find(text.bytes, '\0') != text.bytes.end();
}

bool all_zero(std::span<const std::uint8_t> octets) {
  return std::ranges::all_of(octets, [](std::uint8_t octet) { return octet == 0; });
}

bool valid(const AlertSeen& alert) { return within(alert.seen, AlertSeen::Seen::kNo, AlertSeen::Seen::kYes); }

}  // namespace

Status check_shape(const Header& header, std::size_t bytes, Kind kind, std::size_t body_bytes) {
  if (bytes < sizeof header) return fail("a packet of {} octets is no message", bytes);
  if (header.version != kWireVersion)
    return fail("handoff version {} where {} is spoken", header.version, kWireVersion);
  if (header.kind != kind) return fail("message kind {} is not expected here", static_cast<unsigned>(header.kind));
  if (header.body_bytes != body_bytes || bytes != sizeof header + body_bytes)
    return fail("message kind {} with a body of {} octets, not {}", static_cast<unsigned>(header.kind),
                bytes - sizeof header, body_bytes);
  return {};
}

Status check_values(const Request& request) {
  if (!within(request.role, Role::kAccept, Role::kConnect))
    return fail("role {} is unknown", static_cast<unsigned>(request.role));
  if (!within(request.relay, Relay::kRefused, Relay::kAllowed))
    return fail("relay {} is unknown", static_cast<unsigned>(request.relay));
  if (!within(request.keys, Keys::kForget, Keys::kKeep))
    return fail("keys {} is unknown", static_cast<unsigned>(request.keys));
  if (!all_zero(request.reserved)) return fail("reserved octets are not zero");
  if (!ends(request.context) || !ends(request.host)) return fail("a text without end");
  return {};
}

Status check_values(const Answer& answer) {
  if (!within(answer.outcome, Outcome::kDone, Outcome::kFailed) ||
      !within(answer.version, Version::kNone, Version::kTls13) ||
      !within(answer.record_layer, RecordLayer::kNone, RecordLayer::kRelay) ||
      !within(answer.session, Session::kFull, Session::kResumed) || !valid(answer.sent) || !valid(answer.received))
    return fail("an answer with unknown values");
  if (!all_zero(answer.reserved)) return fail("reserved octets are not zero");
  const bool names_end = std::ranges::all_of(answer.names, [](const auto& name) { return ends(name); });
  if (!ends(answer.cipher) || !ends(answer.alpn) || !names_end || !ends(answer.what)) return fail("a text without end");
  return {};
}

Status check_values(const Record& record) {
  if (record.bytes > record.octets.size()) return fail("a record of {} octets", record.bytes);
  if (!all_zero(record.reserved)) return fail("reserved octets are not zero");
  return {};
}

Status check_values(const Sent&) { return {}; }

Status check_values(const Renew& renew) {
  if (!within(renew.which, Renew::Which::kTransmit, Renew::Which::kReceive))
    return fail("direction {} is unknown", static_cast<unsigned>(renew.which));
  if (!all_zero(renew.reserved)) return fail("reserved octets are not zero");
  return {};
}

Status check_values(const Gone&) { return {}; }

Status check_values(const Instruction& instruction) {
  if (!within(instruction.what, Instruction::What::kReceive, Instruction::What::kClose))
    return fail("instruction {} is unknown", static_cast<unsigned>(instruction.what));
  if (instruction.bytes > instruction.octets.size()) return fail("an instruction of {} octets", instruction.bytes);
  if (!all_zero(instruction.reserved)) return fail("reserved octets are not zero");
  if (!ends(instruction.why)) return fail("a text without end");
  return {};
}

}  // namespace ktrunk::handoff
