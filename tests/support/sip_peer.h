// SIP for tests, simple and independent of ktrunk's own parser: build messages, take them apart, exchange them.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/address.h"
#include "base/fd.h"
#include "base/result.h"
#include "support/tls_peer.h"

namespace ktrunk::test {

// One message, taken apart by lines. Header names are kept as written; look-ups ignore case and know the compact forms.
struct SipMessage {
  std::string start_line;
  std::vector<std::pair<std::string, std::string>> headers;  // unfolded, one entry a line
  std::string body;

  [[nodiscard]] static Result<SipMessage> parse(std::string_view text);
  [[nodiscard]] bool is_request() const { return !start_line.starts_with("SIP/"); }
  [[nodiscard]] int status() const;          // of a response, else 0
  [[nodiscard]] std::string method() const;  // of a request, or a response's CSeq
  [[nodiscard]] std::string request_uri() const;
  [[nodiscard]] std::string header(std::string_view name) const;  // the first, "" when there is none
  [[nodiscard]] std::vector<std::string> all(std::string_view name) const;
  void add(std::string name, std::string value) { headers.emplace_back(std::move(name), std::move(value)); }
  void set(std::string_view name, std::string value);  // replaces the first, or adds
  void remove(std::string_view name);
  // The bytes for the wire; Content-Length is put at the end unless a header of the name is there.
  [[nodiscard]] std::string text() const;
};

struct RequestOptions {
  std::string method = "OPTIONS";
  std::string uri = "sip:bob@example.com";
  std::string transport = "TLS";           // in Via
  std::string sent_by = "127.0.0.1:5061";  // in Via
  std::string branch;                      // without: a new one
  std::string call_id;                     // without: a new one
  std::string from = "<sip:alice@example.com>;tag=a1";
  std::string to = "<sip:bob@example.com>";
  unsigned cseq = 1;
  std::string body;
};
// A request with the mandatory headers (RFC 3261 8.1.1), "rport" in its Via (RFC 3581), and a Contact if it is an
// INVITE or SUBSCRIBE.
[[nodiscard]] SipMessage make_request(const RequestOptions& options);
// A response as a server makes it: Via, From, To (with a tag), Call-ID, CSeq and Record-Route of the request.
[[nodiscard]] SipMessage make_response(const SipMessage& request, int status, std::string_view reason);

// Messages over a stream.
class SipStream {
 public:
  explicit SipStream(std::unique_ptr<ByteStream> stream) : stream_(std::move(stream)) {}

  Status send(const SipMessage& message) { return stream_->write_all(message.text()); }
  Status send_bytes(std::string_view bytes) { return stream_->write_all(bytes); }
  // The next message, framed by Content-Length; CRLFs before it are counted and skipped. nullopt: the peer has closed.
  [[nodiscard]] Result<std::optional<SipMessage>> receive_or_end(milliseconds timeout = kPatience);
  // As above, but the end of the stream is an error.
  [[nodiscard]] Result<SipMessage> receive(milliseconds timeout = kPatience);
  // Sends a request and gives the first final response (200 or above).
  [[nodiscard]] Result<SipMessage> exchange(const SipMessage& request, milliseconds timeout = kPatience);
  [[nodiscard]] int crlfs_seen() const { return crlfs_; }
  [[nodiscard]] ByteStream& stream() { return *stream_; }
  [[nodiscard]] std::unique_ptr<ByteStream> release() { return std::move(stream_); }  // octets not taken yet are lost

 private:
  std::unique_ptr<ByteStream> stream_;
  std::string pending_;
  int crlfs_ = 0;
};

// Messages over UDP.
class SipDatagrams {
 public:
  [[nodiscard]] static Result<SipDatagrams> bind(const Address& address);
  [[nodiscard]] const Address& address() const { return address_; }
  Status send(const SipMessage& message, const Address& to) const { return send_bytes(message.text(), to); }
  Status send_bytes(std::string_view bytes, const Address& to) const;
  [[nodiscard]] Result<std::pair<SipMessage, Address>> receive(milliseconds timeout = kPatience) const;

 private:
  SipDatagrams(Fd socket, const Address& address) : socket_(std::move(socket)), address_(address) {}
  Fd socket_;
  Address address_;
};

}  // namespace ktrunk::test
