#include "bench/load/callee.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "bench/load/header_lines.h"
#include "ipc/limits.h"

namespace ktrunk::bench {
namespace {

constexpr std::size_t kMaxCopied = 48;  // header lines of a request that its response repeats
constexpr std::string_view kToTag = ";tag=ktrunk-bench";
constexpr std::string_view kContact = "Contact: <sip:callee@bench.invalid>\r\n";

std::string_view status_line(int status) {
  switch (status) {
    case 100:
      return "SIP/2.0 100 Trying\r\n";
    case 180:
      return "SIP/2.0 180 Ringing\r\n";
    default:
      return "SIP/2.0 200 OK\r\n";
  }
}

}  // namespace

std::size_t write_response(char* to, std::size_t room, std::string_view request, int status, std::size_t padded) {
  std::array<std::string_view, kMaxCopied> copied;
  std::size_t count = 0;
  std::size_t to_line = kMaxCopied;
  std::size_t bytes = status_line(status).size();
  HeaderLines lines(request);
  while (const auto line = lines.next()) {
    const bool wanted = line->is("Via") || line->is("From") || line->is("To") || line->is("Call-ID") ||
                        line->is("CSeq") || (status > 100 && line->is("Record-Route"));
    if (!wanted) continue;
    if (count == kMaxCopied) return 0;
    if (line->is("To") && status > 100 && line->value.find(";tag=") == std::string_view::npos) to_line = count;
    copied[count++] = line->whole;
    bytes += line->whole.size();
  }
  if (count < 5) return 0;
  if (to_line != kMaxCopied) bytes += kToTag.size();
  const bool dialog = status > 100;
  if (dialog) bytes += kContact.size();
  static constexpr std::string_view kLength = "Content-Length: 00000\r\n\r\n";
  bytes += kLength.size();
  const std::size_t body = padded > bytes ? padded - bytes : 0;
  if (bytes + body > room) return 0;

  char* place = to;
  const auto put = [&place](std::string_view text) {
    std::memcpy(place, text.data(), text.size());
    place += text.size();
  };
  put(status_line(status));
  for (std::size_t i = 0; i < count; ++i) {
    if (i != to_line) {
      put(copied[i]);
      continue;
    }
    const std::size_t end = copied[i].find_last_not_of("\r\n \t") + 1;
    put(copied[i].substr(0, end));
    put(kToTag);
    put(copied[i].substr(end));
  }
  if (dialog) put(kContact);
  put(kLength);
  std::size_t rest = body;
  for (char* digit = place - 5; rest != 0; rest /= 10) *digit-- = static_cast<char>('0' + rest % 10);
  std::memset(place, 'x', body);
  return bytes + body;
}

void Callee::add(std::unique_ptr<Stream> stream) {
  // The place of one that has ended is used again.
  auto place = std::ranges::find_if(connections_, [](const Connection& connection) { return connection.ended; });
  if (place == connections_.end()) place = connections_.emplace(place);
  if (place->stream != nullptr) {
    const int fd = place->stream->fd();
    reactor_.retire(std::move(place->stream), fd);
  }
  *place = {std::move(stream), {}, false};
  ++alive_;
  ++counts_.connections;
  place->stream->start(*this, static_cast<std::size_t>(place - connections_.begin()));
}

void Callee::on_octets(Stream& stream, std::string_view octets) {
  Connection& connection = connections_[stream.number()];
  const bool framed = connection.splitter.feed(octets, [&](std::string_view message) { on_message(stream, message); });
  if (!framed) on_end(stream, "");
}

void Callee::on_message(Stream& stream, std::string_view message) {
  if (message.starts_with("SIP/2.0 ")) return void(++counts_.unexpected);
  if (message.starts_with("ACK ")) return void(++counts_.requests);
  const bool invite = message.starts_with("INVITE ");
  static constexpr std::array kAll = {100, 180, 200};
  for (const int status : kAll) {
    if (!invite && status != 200) continue;
    const bool padded = status == 200 && !message.starts_with("BYE ");
    const std::size_t room = std::min(ipc::kRecordBytes, std::max(message.size() + 512, message_bytes_));
    char* place = stream.reserve(room);
    if (place == nullptr) {
      ++counts_.dropped;
      continue;
    }
    const std::size_t bytes = write_response(place, room, message, status, padded ? message_bytes_ : 0);
    if (bytes == 0) return void(++counts_.unexpected);
    stream.commit(bytes);
    ++counts_.responses;
  }
  ++counts_.requests;
}

void Callee::on_end(Stream& stream, const std::string&) {
  Connection& connection = connections_[stream.number()];
  if (std::exchange(connection.ended, true)) return;
  --alive_;
}

void Callee::finish() {
  for (Connection& connection : connections_) {
    if (!connection.ended) connection.stream->finish();
  }
}

}  // namespace ktrunk::bench
