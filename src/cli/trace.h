// `ktrunk trace`: the messages of one trunk, as ktrunkd's workers tell of them (ipc/trace.h), until the user has seen
// enough: to read, or as a pcap file for Wireshark.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"
#include "ipc/trace.h"

namespace ktrunk::cli {

struct TraceSource {
  Fd control;   // as long as it is open, the trace goes on
  Fd messages;  // SOCK_SEQPACKET
};
// Has ktrunkd begin a trace. Errors as ask()'s.
[[nodiscard]] Result<TraceSource> begin_trace(const std::string& socket_path, const std::string& trunk);

struct TraceEnded {
  enum class Why : std::uint8_t {
    kEnough,       // as many messages as were asked for
    kInterrupted,  // SIGINT, SIGTERM
    kDaemonEnded,  // ktrunkd is gone, or is becoming its next version
  } why = Why::kEnough;
  std::uint64_t messages = 0;
  std::uint64_t dropped = 0;  // that ktrunkd's workers could not tell of, as far as they have said
};
using TraceSink = std::function<Status(const ipc::TraceHead& head, std::string_view octets)>;
// Calls sink for each message, at most `most` times (0: no limit). An error is the sink's, or that a message is not of
// this version. Takes SIGINT and SIGTERM for the rest of the process's life.
[[nodiscard]] Result<TraceEnded> follow_trace(const TraceSource& source, const TraceSink& sink, std::uint64_t most);

// A line about the message, the message, an empty line. Control characters other than line ends are shown as '?'.
[[nodiscard]] std::string trace_text(const ipc::TraceHead& head, std::string_view octets, std::string_view trunk);

// A file of the classic pcap format (draft-ietf-opsawg-pcap), of link type 252, LINKTYPE_WIRESHARK_UPPER_PDU: each
// packet is a list of tags, which say that it is SIP and whence it came, and the message.
[[nodiscard]] std::string pcap_header();
[[nodiscard]] std::string pcap_record(const ipc::TraceHead& head, std::string_view octets);

}  // namespace ktrunk::cli
