#include "bench/io/stream.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <optional>
#include <span>
#include <utility>

#include "ipc/limits.h"
#include "ktls/control_record.h"

namespace ktrunk::bench {

Json stream_kind_json(const StreamKind& kind) {
  const char* records = kind.records == StreamKind::Records::kNone     ? "none"
                        : kind.records == StreamKind::Records::kKernel ? "kernel"
                                                                       : "user";
  return {{"records", records}, {"version", kind.version}, {"cipher", kind.cipher}};
}

BlockPool& Stream::pool() {
  static BlockPool blocks;
  return blocks;
}

void Stream::start(StreamUser& user, std::size_t number, Receiving receiving) {
  user_ = &user;
  number_ = number;
  if (receiving == Receiving::kAlways) receive();
}

char* Stream::reserve(std::size_t bytes) {
  if (queued_bytes_ + bytes > kMaxQueuedBytes) return nullptr;
  const bool taken = in_flight_ && queue_.size() == 1;
  if (queue_.empty() || taken || queue_.back()->room() < bytes) queue_.push_back(pool().take(bytes));
  Block& block = *queue_.back();
  return block.data.get() + block.bytes;
}

void Stream::commit(std::size_t bytes) {
  queue_.back()->bytes += bytes;
  queued_bytes_ += bytes;
  if (!in_flight_) reactor_.at_turn_end(*this);
}

void Stream::turn_ended() {
  if (in_flight_ || ended_ || queue_.empty() || queue_.front()->bytes == 0) return;
  in_flight_ = true;
  send(*queue_.front());
}

void Stream::sent() {
  in_flight_ = false;
  BlockPtr gone = std::move(queue_.front());
  queue_.pop_front();
  queued_bytes_ -= gone->bytes;
  pool().give_back(std::move(gone));
  if (!queue_.empty()) reactor_.at_turn_end(*this);
}

void Stream::end(const std::string& reason) {
  if (std::exchange(ended_, true)) return;
  if (user_ != nullptr) user_->on_end(*this, reason);
}

namespace {

enum What : unsigned { kReceive, kSend, kReadable, kReadOn, kWritable };

// What a record that is no data says about the end of the stream; none: it is passed over.
std::optional<std::string> end_by_record(ktls::RecordType type, std::string_view octets) {
  const auto payload = std::as_bytes(std::span(octets));
  if (type == ktls::RecordType::kAlert) {
    const auto alert = ktls::parse_alert(payload);
    return alert ? std::string(ktls::alert_name(alert->description)) : "an alert that cannot be read";
  }
  if (type == ktls::RecordType::kHandshake) {
    const auto message = ktls::handshake_type(payload);
    if (message == ktls::HandshakeType::kNewSessionTicket) return std::nullopt;
    return "a KeyUpdate, which this program does not follow in the kernel; --record-layer user does";
  }
  return "a record of an unexpected type";
}

class KernelStream final : public Stream {
 public:
  KernelStream(Reactor& reactor, Fd socket, StreamKind kind)
      : Stream(reactor, std::move(kind)), socket_(std::move(socket)) {}
  [[nodiscard]] int fd() const override { return socket_.get(); }

  void finish() override {
    if (this->kind().records != StreamKind::Records::kKernel) {
      ::shutdown(socket_.get(), SHUT_WR);
      return;
    }
    const ktls::AlertMessage close_notify(ktls::kCloseNotify);
    (void)::sendmsg(socket_.get(), close_notify.header(), MSG_NOSIGNAL | MSG_DONTWAIT);
    ::shutdown(socket_.get(), SHUT_WR);
  }

  void completed(unsigned what, int result, unsigned flags) override {
    if (what == kReceive) return on_received(result, flags);
    if (ended()) return;
    if (result == -EINTR || result == -EAGAIN) return submit();
    if (result <= 0) return end(fmt::format("sending: {}", errno_text(-result)));
    sent_ += static_cast<std::size_t>(result);
    if (sent_ < block_->bytes) return submit();
    sent();
  }

 protected:
  void receive() override { reactor_.prepare_receive(*this, kReceive, socket_.get()); }

  void send(Block& block) override {
    block_ = &block;
    sent_ = 0;
    submit();
  }

 private:
  void submit() {
    io_uring_sqe* sqe = reactor_.prepare(*this, kSend);
    io_uring_prep_send(sqe, socket_.get(), block_->data.get() + sent_, block_->bytes - sent_, MSG_NOSIGNAL);
  }

  void on_received(int result, unsigned flags) {
    if (!ended()) {
      if (const auto got = reactor_.received(result, flags); got) {
        take(*got);
      } else if (result != -ENOBUFS && result != -EAGAIN && result != -EINTR) {
        end(fmt::format("receiving: {}", errno_text(result < 0 ? -result : EBADMSG)));
      }
    }
    reactor_.recycle(flags);
    if ((flags & IORING_CQE_F_MORE) == 0 && !ended()) receive();
  }

  void take(const Received& got) {
    if (this->kind().records == StreamKind::Records::kKernel) {
      const auto type = ktls::record_type(got.control, got.flags);
      if (!type) return end(type.error().what);
      if (*type != ktls::RecordType::kApplicationData) {
        if (const auto reason = end_by_record(*type, got.octets); reason) end(*reason);
        return;
      }
      if (got.octets.empty() && !got.control.empty()) return;  // an empty record of data
    }
    if (got.octets.empty()) return end("closed by the peer");
    user_->on_octets(*this, got.octets);
  }

  Fd socket_;
  Block* block_ = nullptr;  // in flight
  std::size_t sent_ = 0;    // of it
};

class UserStream final : public Stream {
 public:
  UserStream(Reactor& reactor, handshake::TlsSession session, StreamKind kind)
      : Stream(reactor, std::move(kind)), session_(std::move(session)), fd_(session_.fd()) {}
  [[nodiscard]] int fd() const override { return fd_; }
  void finish() override {
    (void)session_.shutdown();
    ::shutdown(fd_, SHUT_WR);
  }

  void completed(unsigned what, int, unsigned flags) override {
    if (ended()) return;
    if (what == kReadable) {
      if ((flags & IORING_CQE_F_MORE) == 0) poll_readable();
      return read();
    }
    if (what == kReadOn) return read();
    if (what == kWritable && in_flight_) write();
  }

 protected:
  void receive() override {
    poll_readable();
    read();
  }
  void send(Block& block) override {
    block_ = &block;
    write();
  }

 private:
  using Io = handshake::TlsSession::Io;
  static constexpr unsigned kReadsAtOnce = 64;

  void poll_readable() { io_uring_prep_poll_multishot(reactor_.prepare(*this, kReadable), fd_, POLLIN); }
  void poll_writable() { io_uring_prep_poll_add(reactor_.prepare(*this, kWritable), fd_, POLLOUT); }

  void read() {
    for (unsigned count = 0; count < kReadsAtOnce; ++count) {
      const auto got = session_.read(std::as_writable_bytes(std::span(buffer_)));
      if (got.outcome == Io::kWantRead) return;
      if (got.outcome == Io::kWantWrite) return poll_writable();
      if (got.outcome != Io::kBytes) return end(reason(got.outcome));
      user_->on_octets(*this, {buffer_.data(), got.bytes});
      if (ended()) return;
    }
    // Others first; the poll that is armed says only what is new.
    io_uring_prep_nop(reactor_.prepare(*this, kReadOn));
  }

  void write() {
    const auto gone = session_.write(std::as_bytes(std::span(block_->data.get(), block_->bytes)));
    if (gone.outcome == Io::kBytes) return sent();
    if (gone.outcome == Io::kWantWrite || gone.outcome == Io::kWantRead) return poll_writable();
    end(reason(gone.outcome));
  }

  [[nodiscard]] std::string reason(Io outcome) const {
    if (outcome == Io::kClosed) return "close_notify";
    return outcome == Io::kEof ? "closed by the peer" : session_.io_error().what;
  }

  handshake::TlsSession session_;
  int fd_;
  Block* block_ = nullptr;  // not wholly written yet
  std::array<char, ipc::kRecordBytes> buffer_;
};

}  // namespace

std::unique_ptr<Stream> make_kernel_stream(Reactor& reactor, Fd socket, StreamKind kind) {
  return std::make_unique<KernelStream>(reactor, std::move(socket), std::move(kind));
}

std::unique_ptr<Stream> make_user_stream(Reactor& reactor, handshake::TlsSession session, StreamKind kind) {
  return std::make_unique<UserStream>(reactor, std::move(session), std::move(kind));
}

}  // namespace ktrunk::bench
