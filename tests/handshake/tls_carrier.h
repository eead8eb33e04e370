// What carries records after a handover, so that the same tests run with the kernel and without: the kernel itself, or
// a small record layer here that seals and opens with the exported keys.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "handshake/tls_session.h"
#include "ktls/control_record.h"

namespace ktrunk::test {

struct Record {
  ktls::RecordType type = ktls::RecordType::kApplicationData;
  std::string payload;
};

class Carrier {
 public:
  virtual ~Carrier() = default;
  virtual bool send(ktls::RecordType type, const std::string& payload) = 0;
  // The next record; waits up to two seconds. Nothing: end of stream, a record that does not open, or nothing came.
  virtual std::optional<Record> receive() = 0;
  // Follows the peer's KeyUpdate. False when this kernel cannot.
  virtual bool update_receive_keys() = 0;
  // After a KeyUpdate that was sent. Likewise.
  virtual bool update_transmit_keys() = 0;
};

// The carrier of this program: the kernel, or user space. Null with a test failure when the handover fails.
std::unique_ptr<Carrier> hand_over(handshake::TlsSession& session);
std::unique_ptr<Carrier> hand_over_to_kernel(handshake::TlsSession& session);
std::unique_ptr<Carrier> hand_over_to_user_space(handshake::TlsSession& session);
// In user space, on a socket of its own.
std::unique_ptr<Carrier> carry_in_user_space(Fd socket, handshake::HandoverKeys keys);

}  // namespace ktrunk::test
