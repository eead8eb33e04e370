// ConnectionsTest: Connections with two workers and two handshake processes, all played by the test.
#pragma once

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <string>
#include <utility>
#include <vector>

#include "supervisor/connections.h"

namespace ktrunk::supervisor {

// Writes down what the children are told.
class Notebook final : public ChildMail {
 public:
  void to_worker(WorkerIndex worker, const ipc::Offer& offer, Fd) override {
    offers.push_back({worker, offer.connection});
    notes.push_back(fmt::format("offer w{}", worker.value));
  }
  void to_worker(WorkerIndex worker, const ipc::Start& start) override {
    const bool answered = start.unanswered == 0;
    notes.push_back(
        fmt::format("start w{}{}", worker.value, answered ? "" : fmt::format(" unanswered {}", start.unanswered)));
  }
  void to_worker(WorkerIndex worker, const ipc::Serve&) override {
    notes.push_back(fmt::format("serve w{}", worker.value));
  }
  void to_worker(WorkerIndex worker, const ipc::Close& close) override {
    using How = ipc::Close::How;
    const char* how = close.how == How::kFlush ? "flush" : close.how == How::kFinish ? "finish" : "abort";
    notes.push_back(fmt::format("{} w{}{}{}", how, worker.value,
                                close.alert != 0 ? fmt::format(" alert {}", close.alert) : "",
                                close.unsent == ipc::Close::Unsent::kKeep ? " keep" : ""));
  }
  void to_worker(WorkerIndex worker, const ipc::SendControl& control) override {
    const bool hold = control.after == ipc::SendControl::After::kHoldSends;
    notes.push_back(fmt::format("control w{} {}{}", worker.value, control.record_type, hold ? " hold" : ""));
  }
  void to_worker(WorkerIndex worker, const ipc::Resume& resume) override {
    notes.push_back(fmt::format("resume w{} {}", worker.value, static_cast<int>(resume.what)));
  }
  void to_worker(WorkerIndex worker, const ipc::Move& move) override {
    moves.push_back(move.connection);
    notes.push_back(fmt::format("move w{}", worker.value));
  }
  void to_handshake(HandshakeIndex process, const ipc::Admitted& admitted) override {
    last = admitted.connection;
    note(process, "admitted");
  }
  void to_handshake(HandshakeIndex process, const ipc::Refused& refused) override {
    note(process, refused.why == ipc::Refused::Why::kTableFull ? "refused" : "refused, address");
  }
  void to_handshake(HandshakeIndex process, const ipc::Gone& gone) override {
    const bool at_once = gone.again == ipc::Gone::Again::kAtOnce;
    note(process, fmt::format("gone {}{}", gone.reference, at_once ? " again" : ""));
  }
  void to_handshake(HandshakeIndex process, const ipc::PostHandshake& message, Fd descriptor) override {
    EXPECT_TRUE(descriptor.valid());
    const auto* octets = reinterpret_cast<const char*>(message.record.octets.data());
    const bool more = message.record.place == ipc::HandshakeOctets::Place::kMore;
    note(process, fmt::format("octets {}{}", std::string_view(octets, message.record.bytes), more ? "..." : ""));
  }
  void to_handshake(HandshakeIndex process, const ipc::InstallTransmit&, Fd descriptor) override {
    EXPECT_TRUE(descriptor.valid());
    note(process, "install");
  }
  void to_handshake(HandshakeIndex process, const ipc::Renew& renew) override {
    const bool transmit = renew.which == ipc::Renew::Which::kTransmit;
    note(process, fmt::format("renew {} {}", renew.reference, transmit ? "tx" : "rx"));
  }
  void ring(ipc::WorkerMask workers) override { rung |= workers; }

  using Notes = std::vector<std::string>;
  Notes take() { return std::exchange(notes, {}); }

  struct Offered {
    WorkerIndex worker;
    ConnectionId connection;
  };
  std::vector<Offered> offers;
  std::vector<ConnectionId> moves;
  Notes notes;
  ConnectionId last;
  ipc::WorkerMask rung = 0;

 private:
  // Process 0 goes without saying.
  void note(HandshakeIndex process, std::string text) {
    if (process.value != 0) text += fmt::format(" h{}", process.value);
    notes.push_back(std::move(text));
  }
};
using Notes = Notebook::Notes;

inline constexpr WorkerIndex w0{0}, w1{1};
inline constexpr HandshakeIndex h0{0}, h1{1};
inline constexpr auto kEstate = Connections::Left::kEstate;
inline constexpr auto kNothing = Connections::Left::kNothing;

// A connection as a handshake process makes it.
struct Made {
  std::uint64_t reference = 1;
  TrunkId trunk = {};
  HandshakeIndex by = h0;
  ConnectionId replaces = {};
  ipc::RecordLayerKind layer = ipc::RecordLayerKind::kKernel;
  ipc::ConnectionInfo::Role role = ipc::ConnectionInfo::Role::kAccepted;
};

class ConnectionsTest : public testing::Test {
 protected:
  ConnectionsTest() {
    connections.worker_ready(w0);
    connections.worker_ready(w1);
    mail.take();
  }
  static config::Config two_trunks() {
    config::Config config;
    config.trunks.resize(2);
    config.trunks[0].name = "even";
    config.trunks[1].name = "odd";
    config.limits.key_records = 100;
    config.limits.connections_per_address = 8;
    return config;
  }
  ConnectionId establish(const Made& made = {}) {
    ipc::Established message{.reference = made.reference, .replaces = made.replaces, .info = {}};
    message.info.trunk = made.trunk;
    message.info.record_layer = made.layer;
    message.info.role = made.role;
    EXPECT_TRUE(connections.established(made.by, message, Fd(::eventfd(0, EFD_CLOEXEC))));
    return mail.last;
  }
  ConnectionId open(const Made& made = {}) {
    const ConnectionId id = establish(made);
    EXPECT_TRUE(connections.held(w0, id));
    EXPECT_TRUE(connections.held(w1, id));
    mail.take();
    return id;
  }
  void release(ConnectionId id) {
    EXPECT_TRUE(connections.released(WorkerIndex{static_cast<std::uint8_t>(1 - home(id).value)}, id));
    if (state(id) != ipc::SlotState::kFree) {
      EXPECT_TRUE(connections.released(home(id), id));
    }
  }
  [[nodiscard]] ipc::SlotState state(ConnectionId id) const { return region.slot(id.slot).state().state; }
  [[nodiscard]] WorkerIndex home(ConnectionId id) const { return region.slot(id.slot).state().home; }
  static ipc::Fault fault(ConnectionId id, ipc::FaultReason reason, int detail = 0) {
    return {.connection = id, .reason = reason, .detail = detail};
  }
  void sent(ConnectionId id, WorkerIndex worker, std::uint64_t records) {
    ipc::SentCounts& counts = region.sent(id.slot, worker);
    counts.records += records;
    counts.messages += records;
  }
  void received(ConnectionId id, std::uint64_t records) { region.slot(id.slot).records_received += records; }

  const config::Config config = two_trunks();
  ipc::SharedRegion region =
      std::move(*ipc::SharedRegion::create({.workers = 2, .handshakes = 2, .max_connections = 4, .trunks = 2}));
  Notebook mail;
  Connections connections{config, region, mail, 2};
};

}  // namespace ktrunk::supervisor
