// Floor: the least that a forwarded message and a handshake can cost on this machine, as yardsticks for ktrunkd.
//
// A message's floor is the CPU time of a process that copies octets between pairs of kernel TLS connections
// (forwarder.h). In it, and in ktrunkd's figure alike: a multishot recvmsg of at most a record's octets with its
// control message; decryption; one copy into a block; one io_uring SEND of at most 16384 octets per connection and turn
// of the loop; encryption; TCP's sending, and what loopback makes a sender do: its peer's TCP receives in its context,
// up to waking the peer. (The load generator does that for what it sends, and is not measured.) At saturation both have
// 21 messages of 600 octets in a record, and spend the same in the kernel, to 2 %.
//
// Not in it: framing, parsing, deciding, edits, and the octets of our Via, which a request carries on its way out only.
// Requests and responses are a message each, and pass in the same way.
//
// Where one instruction is counted as a nanosecond, every octet that "rep movsb" or "rep stosb" moves is counted as an
// instruction: the kernel's clearing of pages, and copies of more than 2 KiB, weigh more than they do on a processor.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "bench/handshakes/handshakes.h"
#include "bench/load/load.h"

namespace ktrunk::bench {

struct FloorOptions {
  LoadOptions load;             // but for its endpoints; duration 0: not measured
  HandshakeOptions handshakes;  // likewise
  // Empty: thrown away after the run. certificate: also its own authority, unless load.tls.ca says another.
  std::string certificate;
  std::string key;
  std::string key_type = "ecdsa";  // of one made for the run: ecdsa, rsa
  bool mutual = false;             // client certificates in the handshakes
};

struct FloorResult {
  std::string how;  // who made the records of the forwarder, in a sentence
  bool plain_tcp = false;
  std::optional<LoadResult> forwarding;  // its CPU time is the forwarder's
  struct Handshakes {
    HandshakeOptions options;
    HandshakeResult result;
  };
  std::optional<Handshakes> full;
  std::optional<Handshakes> resumed;
};

[[nodiscard]] Result<FloorResult> run_floor(FloorOptions options);

}  // namespace ktrunk::bench
