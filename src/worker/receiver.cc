#include "worker/receiver.h"

#include <cerrno>
#include <utility>

#include "base/log.h"

namespace ktrunk::worker {
namespace {

constexpr std::uint16_t kStreamBuffers = 1;  // buffer group
// One record's data, behind what io_uring puts before it.
static_assert(sizeof(io_uring_recvmsg_out) + ktls::kControlBytes + ipc::kRecordBytes <=
              ipc::Estate::kStreamBufferBytes);
// recvmsg gives the data of several short records at once, and does not say of how many. They are counted as records of
// so many octets: SIP messages are longer as a rule, and 2^23, the usual limit, leaves room for 2.8 times as many (RFC
// 8446 5.5).
constexpr std::size_t kMergedRecordBytes = 512;

// A predecessor has told the supervisor of all of these octets of a handshake record.
bool has_passed_on(const Connection& connection, std::string_view octets, std::uint32_t number) {
  return connection.slot->octets_number.load(std::memory_order_acquire) >=
         ipc::HandshakeOctets::last_piece(number, octets.size());
}

}  // namespace

void read_error(const Connection& connection) {
  int error = 0;
  socklen_t size = sizeof error;
  (void)::getsockopt(connection.fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
}

Result<std::unique_ptr<Receiver>> Receiver::create(Ring& ring, const ipc::Estate& estate, ChunkStore& chunks,
                                                   ipc::WorkerStats& stats, FanOut& fan_out, StreamEvents& events,
                                                   const std::function<bool(unsigned)>& in_use) {
  auto receiver = std::unique_ptr<Receiver>(new Receiver(ring, estate, chunks, stats, fan_out, events));
  auto buffers = ring.add_buffers(kStreamBuffers, ipc::Estate::kStreamBuffers, ipc::Estate::kStreamBufferBytes,
                                  estate.stream_buffers(), in_use);
  if (!buffers) return std::unexpected(buffers.error());
  receiver->buffers_ = *buffers;
  return receiver;
}

Receiver::Receiver(Ring& ring, const ipc::Estate& estate, ChunkStore& chunks, ipc::WorkerStats& stats, FanOut& fan_out,
                   StreamEvents& events)
    : estate_(estate), partials_(chunks), ring_(ring), stats_(stats), fan_out_(fan_out), events_(events) {
  shape_.msg_controllen = ktls::kControlBytes;
}

// A multishot receive tries to receive before it waits, at first and after each record. It must: Linux 7.3 does not
// show poll(2) a KeyUpdate that it has decrypted in search of more data.
void Receiver::start(Connection& connection) {
  io_uring_sqe* sqe = ring_.prepare(Operation::on(OperationKind::kReceive, connection.id));
  io_uring_prep_recvmsg_multishot(sqe, connection.fd.get(), &shape_, 0);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = buffers_->group();
  connection.receiving = true;
  ++connection.operations;
}

void Receiver::stop(Connection& connection) {
  if (!connection.receiving) return;
  io_uring_sqe* sqe = ring_.prepare({OperationKind::kCancel});
  io_uring_prep_cancel64(sqe, Operation::on(OperationKind::kReceive, connection.id).pack(), 0);
}

void Receiver::discard(int, unsigned flags) {
  if ((flags & IORING_CQE_F_BUFFER) != 0) buffers_->recycle(flags >> IORING_CQE_BUFFER_SHIFT);
}

std::optional<StreamFault> Receiver::completed(Connection& connection, int result, unsigned flags, std::uint32_t number,
                                               Clock::time_point now) {
  if ((flags & IORING_CQE_F_MORE) == 0) {
    connection.receiving = false;
    --connection.operations;
  }
  std::optional<StreamFault> fault;
  if (result >= 0) {
    const unsigned buffer = flags >> IORING_CQE_BUFFER_SHIFT;
    if (connection.phase < Connection::Phase::kReleasing && !connection.faulted && !connection.at_end())
      fault = take_record(connection, {buffers_->data(buffer), static_cast<std::size_t>(result)},
                          {.number = number, .skip = 0, .now = now});
    buffers_->recycle(buffer);
  } else if (connection.info().record_layer == ipc::RecordLayerKind::kKernel) {
    fault = connection.control.failed(-result);
  } else if (result != -ENOBUFS && result != -ECANCELED && result != -EAGAIN && result != -EINTR) {
    fault = StreamFault{ipc::FaultReason::kReset, -result};
  }
  // Ended for no fault of the connection: out of buffers (those of this turn are on their way back by now), an empty
  // record, or a handshake record that has been answered before the kernel could tell that it had stopped.
  if (!fault) start_if_idle(connection);
  return connection.faulted ? std::nullopt : fault;
}

std::optional<StreamFault> Receiver::inherited(Connection& connection, const ipc::Inherited& completion,
                                               Clock::time_point now) {
  const unsigned buffer = completion.flags >> IORING_CQE_BUFFER_SHIFT;
  std::optional<StreamFault> fault;
  if (!connection.faulted && !connection.at_end())
    fault = take_record(connection, {buffers_->data(buffer), static_cast<std::size_t>(completion.result)},
                        {.number = completion.number, .skip = completion.skip, .now = now});
  return fault;
}

std::optional<StreamFault> Receiver::inherited_partial(Connection& connection, Clock::time_point now) {
  if (!connection.partial.valid() || connection.faulted) return std::nullopt;
  return take_partial(connection, now);
}

std::optional<StreamFault> Receiver::release(Connection& connection, Clock::time_point now) {
  connection.partial_since = now;
  if (auto fault = inherited_partial(connection, now); fault) return fault;
  start_if_idle(connection);
  return std::nullopt;
}

void Receiver::start_if_idle(Connection& connection) {
  const bool serving = !connection.faulted && connection.phase == Connection::Phase::kServing;
  if (!serving || connection.receiving || connection.control.unanswered()) return;
  if (connection.held() || connection.at_end() || connection.moving()) return;
  if (connection.control.take_retry()) read_error(connection);
  start(connection);
}

std::optional<StreamFault> Receiver::answered(Connection& connection, Clock::time_point now) {
  if (auto fault = connection.control.answered(now); fault) return fault;
  start_if_idle(connection);
  return std::nullopt;
}

std::optional<StreamFault> Receiver::take_record(Connection& connection, std::span<char> buffer,
                                                 const Arrival& arrival) {
  io_uring_recvmsg_out* out = io_uring_recvmsg_validate(buffer.data(), static_cast<int>(buffer.size()), &shape_);
  if (out == nullptr) return StreamFault{ipc::FaultReason::kBadRecord};
  const std::string_view payload(static_cast<const char*>(io_uring_recvmsg_payload(out, &shape_)),
                                 io_uring_recvmsg_payload_length(out, static_cast<int>(buffer.size()), &shape_));
  const bool kernel = connection.info().record_layer == ipc::RecordLayerKind::kKernel;
  const auto* control = static_cast<const std::byte*>(io_uring_recvmsg_name(out));
  ktls::RecordType type = ktls::RecordType::kApplicationData;
  if (kernel) {
    const auto told = ktls::record_type({control, out->controllen}, static_cast<int>(out->flags));
    if (!told) return StreamFault{ipc::FaultReason::kBadRecord};
    type = *told;
  }
  if (payload.empty() && (!kernel || out->controllen == 0)) {
    // The end of the stream. On TLS, only close_notify may end it; a relay shows a close_notify as its own end.
    return StreamFault{kernel ? ipc::FaultReason::kTruncated : ipc::FaultReason::kCloseNotify};
  }
  ipc::ConnectionSlot& slot = *connection.slot;  // this worker is the only one to write here
  const std::uint64_t records = 1 + payload.size() / kMergedRecordBytes;
  slot.records_received.store(slot.records_received.load(std::memory_order_relaxed) + records,
                              std::memory_order_relaxed);
  if (type != ktls::RecordType::kApplicationData) {
    const bool whole = (out->flags & MSG_EOR) != 0;
    return take_control(connection, type, payload,
                        whole ? ControlRecords::Place::kEndOfRecord : ControlRecords::Place::kMore, arrival);
  }
  if (payload.empty()) return connection.control.empty_data();
  connection.control.data();
  return take_data(connection, payload, arrival);
}

std::optional<StreamFault> Receiver::take_control(Connection& connection, ktls::RecordType type,
                                                  std::string_view octets, ControlRecords::Place place,
                                                  const Arrival& arrival) {
  ControlRecords& control = connection.control;
  if (place == ControlRecords::Place::kEndOfRecord) stats_.control_records.add();
  if (type == ktls::RecordType::kAlert) {
    const bool warned = control.warned();
    auto fault = control.alert(octets, place, connection.info().tls_version, arrival.now);
    if (!warned && control.warned())
      log::debug("{}: a warning alert, passed over like those that may follow", connection.info().peer.text());
    return fault;
  }
  if (type != ktls::RecordType::kHandshake)
    return StreamFault{ipc::FaultReason::kUnexpectedRecord, static_cast<int>(type)};
  if (connection.inheriting && has_passed_on(connection, octets, arrival.number)) return std::nullopt;
  if (auto fault = control.handshake(octets, place, arrival.now); fault) return fault;
  events_.on_handshake(connection, octets, place, arrival.number);
  if (control.unanswered()) stop(connection);
  return std::nullopt;
}

std::optional<StreamFault> Receiver::take_data(Connection& connection, std::string_view octets,
                                               const Arrival& arrival) {
  ipc::Hand& hand = estate_.hand();
  const bool appended = Partials::has_those_of(connection, arrival.number);
  if (!appended && !connection.held() && Partials::octets(connection).empty()) {
    // Where they lie.
    partials_.drop(connection);
    hand.partial.store(0, std::memory_order_release);
    hand.place.store(estate_.place_of(octets.data()), std::memory_order_release);
    const std::uint64_t number = std::uint64_t{arrival.number} << 32;
    hand.progress.store(number | arrival.skip, std::memory_order_release);
    std::uint32_t consumed = arrival.skip;
    const auto fault = take_messages(connection, octets, arrival.skip, [&](std::uint32_t end) {
      hand.progress.store(number | end, std::memory_order_release);
      consumed = end;
    });
    if (fault || consumed == octets.size()) return fault;
    connection.partial_since = arrival.now;
    if (!partials_.append(connection, octets.substr(consumed), arrival.number))
      return StreamFault{ipc::FaultReason::kPartialMessage};
    return std::nullopt;
  }
  if (!appended && !partials_.append(connection, octets.substr(arrival.skip), arrival.number))
    return StreamFault{ipc::FaultReason::kPartialMessage};
  return take_partial(connection, arrival.now);
}

std::optional<StreamFault> Receiver::take_partial(Connection& connection, Clock::time_point now) {
  if (connection.held()) return std::nullopt;
  ipc::Hand& hand = estate_.hand();
  const std::uint32_t begin = Partials::dealt_with(connection);
  const std::string_view all(connection.partial.octets, connection.partial.head->extent().octets);
  hand.partial.store(connection.partial.number + 1, std::memory_order_release);
  hand.place.store(estate_.place_of(all.data()), std::memory_order_release);
  return take_messages(connection, all, begin, [&](std::uint32_t end) {
    connection.partial_since = now;
    partials_.deal_with(connection, end);
  });
}

template <typename Done>
std::optional<StreamFault> Receiver::take_messages(Connection& connection, std::string_view octets, std::uint32_t begin,
                                                   Done&& done) {
  ipc::Hand& hand = estate_.hand();
  hand.connection.store(ipc::Chunk::pack(connection.id), std::memory_order_release);
  for (;;) {
    const std::string_view rest = octets.substr(begin);
    if (connection.pong_awaited && !connection.framer.mid_message() && rest.starts_with("\r\n")) {
      // Before the framer sees it, which would wait for what follows: two pongs look like a ping.
      connection.pong_awaited = false;
      begin += 2;
      done(begin);
      continue;
    }
    const sip::Framer::Result frame = connection.framer.next(rest, &index_);
    if (frame.outcome == sip::Framer::Outcome::kNeedMore) return std::nullopt;
    const auto end = begin + static_cast<std::uint32_t>(frame.length);
    FanOut::Way way;
    if (frame.outcome == sip::Framer::Outcome::kMessage) {
      way = fan_out_.way_of(connection, rest.substr(0, frame.length), index_);
      if (way.kind == FanOut::Way::Kind::kNoRoom) {
        fan_out_.hold(connection);
        stop(connection);
        return std::nullopt;
      }
      fan_out_.count(connection);
      if (way.kind == FanOut::Way::Kind::kGive) hand.handing.store(way.handing(), std::memory_order_release);
    }
    hand.message.store(std::uint64_t{end} << 32 | frame.length, std::memory_order_release);
    switch (frame.outcome) {
      case sip::Framer::Outcome::kMessage:
        if (way.kind == FanOut::Way::Kind::kGive) {
          fan_out_.give(way, connection, rest.substr(0, frame.length));
        } else {
          events_.on_message(connection, rest.substr(0, frame.length), index_);
        }
        break;
      case sip::Framer::Outcome::kPing:
        events_.on_ping(connection);
        break;
      case sip::Framer::Outcome::kMalformed:
        events_.on_malformed(connection, rest.substr(0, frame.length), frame.status, frame.reason);
        hand.message.store(0, std::memory_order_release);
        return StreamFault{ipc::FaultReason::kBadFraming};
      case sip::Framer::Outcome::kSkip:
      case sip::Framer::Outcome::kNeedMore:
        break;
    }
    done(end);
    hand.message.store(0, std::memory_order_release);
    if (way.kind == FanOut::Way::Kind::kGive) hand.handing.store(0, std::memory_order_release);
    begin = end;
  }
}

}  // namespace ktrunk::worker
