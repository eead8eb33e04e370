// Records carried by kernel TLS, read and written as a worker does it.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>

#include "handshake/tls_carrier.h"
#include "handshake/tls_test_peer.h"
#include "ktls/install.h"
#include "ktls/key_schedule.h"

namespace ktrunk::test {
namespace {

class KernelCarrier final : public Carrier {
 public:
  explicit KernelCarrier(handshake::TlsSession::Handover handover) : handover_(std::move(handover)) {}

  bool send(ktls::RecordType type, const std::string& payload) override {
    if (type == ktls::RecordType::kAlert && payload.size() == 2) {
      const ktls::AlertMessage alert(
          {static_cast<ktls::AlertLevel>(payload[0]), static_cast<ktls::AlertDescription>(payload[1])});
      return ::sendmsg(fd(), alert.header(), MSG_NOSIGNAL) == static_cast<ssize_t>(ktls::AlertMessage::kPayloadBytes);
    }
    return type == ktls::RecordType::kApplicationData &&
           ::send(fd(), payload.data(), payload.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(payload.size());
  }

  std::optional<Record> receive() override {
    std::array<char, 16384> buffer = {};
    alignas(cmsghdr) std::array<std::byte, ktls::kControlBytes> control = {};
    Record record;
    for (;;) {
      if (!wait_readable(fd())) return std::nullopt;
      iovec part = {buffer.data(), buffer.size()};
      msghdr message = {};
      message.msg_iov = &part;
      message.msg_iovlen = 1;
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      const ssize_t count = ::recvmsg(fd(), &message, MSG_DONTWAIT);
      if (count <= 0) {
        if (count < 0 && errno == EAGAIN) continue;
        ADD_FAILURE_AT(__FILE__, __LINE__) << "recvmsg: " << (count < 0 ? errno_text(errno) : "end of stream");
        return std::nullopt;
      }
      const auto type = ktls::record_type(std::span(control).first(message.msg_controllen), message.msg_flags);
      if (!type) {
        ADD_FAILURE() << type.error().what;
        return std::nullopt;
      }
      record.type = *type;
      record.payload.append(buffer.data(), static_cast<std::size_t>(count));
      if ((message.msg_flags & MSG_EOR) != 0) return record;
    }
  }

  bool update_receive_keys() override { return update<ktls::Direction::kReceive>(handover_.secrets.receive); }
  bool update_transmit_keys() override { return update<ktls::Direction::kTransmit>(handover_.secrets.transmit); }

 private:
  template <ktls::Direction D>
  bool update(ktls::TrafficSecret& secret) {
    auto next = ktls::next_secret(handover_.secrets.hash, secret);
    if (!next) return false;
    const auto keys = ktls::keys_from_secret<D>(handover_.socket.aead(), handover_.secrets.hash, *next, {0});
    secret = std::move(*next);
    return keys.has_value() && ktls::rekey(fd(), *keys).has_value();
  }
  [[nodiscard]] int fd() const { return handover_.socket.get(); }
  handshake::TlsSession::Handover handover_;
};

}  // namespace

std::unique_ptr<Carrier> hand_over_to_kernel(handshake::TlsSession& session) {
  auto handover = session.into_kernel();
  if (!handover) {
    ADD_FAILURE() << handover.error().error.what;
    return nullptr;
  }
  return std::make_unique<KernelCarrier>(std::move(*handover));
}

}  // namespace ktrunk::test
