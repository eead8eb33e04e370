#include "handshake/handoff_keys.h"

#include <fcntl.h>

#include <algorithm>
#include <utility>

#include "ktls/control_record.h"

namespace ktrunk::handshake {
namespace {

using What = handoff::Instruction::What;

std::uint64_t name_of(ConnectionId id) { return std::uint64_t{id.generation.value} << 32 | id.slot.value; }
ConnectionId id_of(std::uint64_t name) {
  return {SlotIndex{static_cast<std::uint32_t>(name)}, Generation{static_cast<std::uint32_t>(name >> 32)}};
}

// How RFC 8446 6.2 calls what the peer did; what went wrong here is internal_error.
ktls::AlertDescription alert_for(ipc::FaultReason reason) {
  switch (reason) {
    case ipc::FaultReason::kBadHandshake:
      return ktls::AlertDescription::kDecodeError;
    case ipc::FaultReason::kUnexpectedHandshake:
    case ipc::FaultReason::kControlFlood:
      return ktls::AlertDescription::kUnexpectedMessage;
    case ipc::FaultReason::kBadKeyUpdate:
      return ktls::AlertDescription::kIllegalParameter;
    default:
      return ktls::AlertDescription::kInternalError;
  }
}

What what_of(ipc::Resume::What what) {
  switch (what) {
    case ipc::Resume::What::kReceiveRekeyed:
      return What::kReceiveRekeyed;
    case ipc::Resume::What::kSendRekeyed:
      return What::kSendRekeyed;
    case ipc::Resume::What::kReceive:
      break;
  }
  return What::kReceive;
}

Fd copy_of(const Fd& fd) { return Fd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0)); }

}  // namespace

Result<std::unique_ptr<HandoffKeys>> HandoffKeys::create(EventLoop& loop, const ktls::Support& support,
                                                         ktls::Kernel& kernel, std::uint32_t max_connections, Say say) {
  auto memory = ipc::Vault::create(max_connections);
  if (!memory) return std::unexpected(std::move(memory.error()));
  auto vault = ipc::Vault::map(std::move(*memory), max_connections);
  if (!vault) return std::unexpected(std::move(vault.error()));
  std::unique_ptr<HandoffKeys> made(new HandoffKeys(std::move(*vault)));
  HandoffKeys* self = made.get();
  self->say_ = std::move(say);
  self->lives_.resize(max_connections);
  for (std::uint32_t slot = max_connections; slot > 0; --slot) self->free_.push_back(slot - 1);
  KeyKeeper::Outlet outlet;
  outlet.send_control = [self](const ipc::SendControl& control) {
    handoff::Instruction instruction;
    instruction.what = control.after == ipc::SendControl::After::kHoldSends ? What::kSendAndHold : What::kSend;
    instruction.record_type = control.record_type;
    instruction.bytes = control.bytes;
    instruction.octets = control.octets;
    self->say(control.connection, instruction);
  };
  outlet.resume = [self](const ipc::Resume& resume) {
    handoff::Instruction instruction;
    instruction.what = what_of(resume.what);
    self->say(resume.connection, instruction);
  };
  outlet.fault = [self](const ipc::Fault& fault) {
    handoff::Instruction instruction;
    instruction.alert = static_cast<std::uint8_t>(alert_for(fault.reason));
    instruction.why = Text<sizeof instruction.why>(ipc::fault_text(fault.reason));
    self->say(fault.connection, instruction);
  };
  outlet.learnt = [](TrunkId, const std::string&, Resumption) {};
  self->keeper_ = std::make_unique<KeyKeeper>(self->vault_, HandshakeIndex{0}, support, kernel, self->stats_, loop,
                                              std::move(outlet));
  return made;
}

std::uint64_t HandoffKeys::admit(ClientKey client, KernelSecrets secrets) {
  if (free_.empty()) return 0;
  const std::uint32_t slot = free_.back();
  free_.pop_back();
  const ConnectionId id{SlotIndex{slot}, Generation{++lives_[slot]}};
  keeper_->admitted(id, {.secrets = std::move(secrets), .tickets = std::nullopt, .trunk = {}, .host = {}});
  owners_.emplace(name_of(id), client);
  return name_of(id);
}

bool HandoffKeys::owns(ClientKey client, std::uint64_t connection) const {
  const auto found = owners_.find(connection);
  return found != owners_.end() && found->second == client;
}

void HandoffKeys::refuse(ClientKey client, std::uint64_t connection) {
  handoff::Instruction instruction;
  instruction.connection = connection;
  instruction.alert = static_cast<std::uint8_t>(ktls::AlertDescription::kInternalError);
  instruction.why = Text<sizeof instruction.why>("the service keeps no keys of this connection");
  say_(client, instruction);
}

void HandoffKeys::record(ClientKey client, const handoff::Record& record, const Fd& socket) {
  if (!owns(client, record.connection)) return refuse(client, record.connection);
  std::span<const std::byte> octets = std::span(record.octets).first(record.bytes);
  // In parts, as between ktrunkd's processes; an empty record is one empty part.
  do {
    ipc::PostHandshake part;
    part.record.connection = id_of(record.connection);
    const auto here = octets.first(std::min(octets.size(), part.record.octets.size()));
    octets = octets.subspan(here.size());
    std::ranges::copy(here, part.record.octets.begin());
    part.record.bytes = static_cast<std::uint16_t>(here.size());
    part.record.place = octets.empty() ? ipc::HandshakeOctets::Place::kEndOfRecord : ipc::HandshakeOctets::Place::kMore;
    keeper_->post_handshake(part, copy_of(socket));
    // Its words may have ended the client, and the connection with it.
  } while (!octets.empty() && owns(client, record.connection));
}

void HandoffKeys::sent(ClientKey client, const handoff::Sent& sent, Fd socket) {
  if (!owns(client, sent.connection)) return refuse(client, sent.connection);
  keeper_->install_transmit({.connection = id_of(sent.connection)}, std::move(socket));
}

void HandoffKeys::renew(ClientKey client, const handoff::Renew& renew) {
  const auto which =
      renew.which == handoff::Renew::Which::kTransmit ? ipc::Renew::Which::kTransmit : ipc::Renew::Which::kReceive;
  if (owns(client, renew.connection) && keeper_->update(id_of(renew.connection), which) == KeyKeeper::Update::kBegun)
    return;
  handoff::Instruction instruction;
  instruction.connection = renew.connection;
  instruction.what = What::kCannotRenew;
  say_(client, instruction);
}

void HandoffKeys::gone(ClientKey client, std::uint64_t connection) {
  if (!owns(client, connection)) return;
  keeper_->gone(id_of(connection));
  owners_.erase(connection);
  free_.push_back(id_of(connection).slot.value);
}

void HandoffKeys::client_gone(ClientKey client) {
  std::vector<std::uint64_t> its;
  for (const auto& [connection, owner] : owners_) {
    if (owner == client) its.push_back(connection);
  }
  for (const std::uint64_t connection : its) gone(client, connection);
}

void HandoffKeys::say(ConnectionId connection, handoff::Instruction instruction) {
  instruction.connection = name_of(connection);
  const auto owner = owners_.find(instruction.connection);
  if (owner != owners_.end()) say_(owner->second, instruction);
}

}  // namespace ktrunk::handshake
