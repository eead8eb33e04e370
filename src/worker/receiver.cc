#include "worker/receiver.h"

#include <cerrno>
#include <utility>

#include "base/log.h"

namespace ktrunk::worker {
namespace {

constexpr std::uint16_t kStreamBuffers = 1;  // buffer group
constexpr unsigned kBufferCount = 128;
// One record's data, behind what io_uring puts before it.
constexpr std::size_t kBufferBytes = sizeof(io_uring_recvmsg_out) + ktls::kControlBytes + ipc::kRecordBytes;
// No control record that may come is longer (a NewSessionTicket with a certificate chain in it is the longest).
constexpr std::size_t kMaxControlBytes = 65536;
// What a connection keeps for partial messages when it is done with a long one.
constexpr std::size_t kPartialKept = ipc::kRecordBytes;

}  // namespace

Result<std::unique_ptr<Receiver>> Receiver::create(Ring& ring, ipc::WorkerStats& stats, StreamEvents& events) {
  auto receiver = std::unique_ptr<Receiver>(new Receiver(ring, stats, events));
  auto buffers = BufferRing::create(ring, kStreamBuffers, kBufferCount, kBufferBytes);
  if (!buffers) return std::unexpected(buffers.error());
  receiver->buffers_ = std::move(*buffers);
  return receiver;
}

Receiver::Receiver(Ring& ring, ipc::WorkerStats& stats, StreamEvents& events)
    : ring_(ring), stats_(stats), events_(events) {
  shape_.msg_controllen = ktls::kControlBytes;
}

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

std::optional<StreamFault> Receiver::completed(Connection& connection, int result, unsigned flags,
                                               Clock::time_point now) {
  if ((flags & IORING_CQE_F_MORE) == 0) {
    connection.receiving = false;
    --connection.operations;
  }
  std::optional<StreamFault> fault;
  if (result >= 0) {
    const unsigned buffer = flags >> IORING_CQE_BUFFER_SHIFT;
    if (connection.phase < Connection::Phase::kReleasing && !connection.faulted)
      fault = take_record(connection, {buffers_->data(buffer), static_cast<std::size_t>(result)}, now);
    buffers_->recycle(buffer);
  } else if (result == -EBADMSG || result == -EMSGSIZE) {
    fault = StreamFault{ipc::FaultReason::kBadRecord, -result};
  } else if (result != -ENOBUFS && result != -ECANCELED && result != -EAGAIN && result != -EINTR) {
    fault = StreamFault{ipc::FaultReason::kReset, -result};
  }
  const bool go_on = !fault && !connection.faulted && connection.phase == Connection::Phase::kServing;
  // Out of buffers, or ended for no fault of the connection: by now the buffers of this turn are on their way back.
  if (!connection.receiving && go_on && result != -ECANCELED) start(connection);
  return connection.faulted ? std::nullopt : fault;
}

std::optional<StreamFault> Receiver::take_record(Connection& connection, std::span<char> buffer,
                                                 Clock::time_point now) {
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
  if (type == ktls::RecordType::kApplicationData) return take_data(connection, payload, now);
  return take_control(connection, type, payload, (out->flags & MSG_EOR) != 0);
}

std::optional<StreamFault> Receiver::take_control(Connection& connection, ktls::RecordType type,
                                                  std::string_view octets, bool end_of_record) {
  std::vector<char>& record = connection.control;
  if (record.size() + octets.size() > kMaxControlBytes)
    return StreamFault{ipc::FaultReason::kUnexpectedRecord, static_cast<int>(type)};
  record.insert(record.end(), octets.begin(), octets.end());
  if (!end_of_record) return std::nullopt;
  stats_.control_records.add();
  const std::vector<char> whole = std::exchange(record, {});
  const std::span<const std::byte> payload = std::as_bytes(std::span(whole));
  if (type == ktls::RecordType::kAlert) {
    const auto alert = ktls::parse_alert(payload);
    if (!alert) return StreamFault{ipc::FaultReason::kUnexpectedRecord, static_cast<int>(type)};
    if (alert->description == ktls::AlertDescription::kCloseNotify) return StreamFault{ipc::FaultReason::kCloseNotify};
    return StreamFault{ipc::FaultReason::kAlert, static_cast<int>(alert->description)};
  }
  // A ticket is for resuming sessions, which connections in the kernel's hands do not need; everything else (KeyUpdate,
  // a renegotiation) asks for keys that this process does not have.
  if (type == ktls::RecordType::kHandshake && ktls::handshake_type(payload) == ktls::HandshakeType::kNewSessionTicket)
    return std::nullopt;
  return StreamFault{ipc::FaultReason::kUnexpectedRecord, static_cast<int>(type)};
}

std::optional<StreamFault> Receiver::take_data(Connection& connection, std::string_view octets, Clock::time_point now) {
  std::optional<StreamFault> fault;
  std::vector<char>& partial = connection.partial;
  if (partial.empty()) {
    const std::size_t consumed = take_messages(connection, octets, fault);
    if (fault) return fault;
    if (consumed < octets.size()) {
      partial.assign(octets.begin() + static_cast<std::ptrdiff_t>(consumed), octets.end());
      connection.partial_since = now;
    }
    return std::nullopt;
  }
  partial.insert(partial.end(), octets.begin(), octets.end());
  const std::size_t consumed = take_messages(connection, {partial.data(), partial.size()}, fault);
  if (fault || consumed == 0) return fault;
  partial.erase(partial.begin(), partial.begin() + static_cast<std::ptrdiff_t>(consumed));
  connection.partial_since = now;
  if (partial.empty() && partial.capacity() > kPartialKept) std::vector<char>().swap(partial);
  return std::nullopt;
}

std::size_t Receiver::take_messages(Connection& connection, std::string_view octets,
                                    std::optional<StreamFault>& fault) {
  std::size_t consumed = 0;
  for (;;) {
    const std::string_view rest = octets.substr(consumed);
    const sip::Framer::Result frame = connection.framer.next(rest);
    switch (frame.outcome) {
      case sip::Framer::Outcome::kNeedMore:
        return consumed;
      case sip::Framer::Outcome::kMessage:
        events_.on_message(connection, rest.substr(0, frame.length));
        break;
      case sip::Framer::Outcome::kPing:
        events_.on_ping(connection);
        break;
      case sip::Framer::Outcome::kSkip:
        break;
      case sip::Framer::Outcome::kMalformed:
        events_.on_malformed(connection, rest.substr(0, frame.length), frame.status, frame.reason);
        fault = StreamFault{ipc::FaultReason::kBadFraming};
        return consumed;
    }
    consumed += frame.length;
  }
}

}  // namespace ktrunk::worker
