#include "support/sip_peer.h"

#include <poll.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>

namespace ktrunk::test {
namespace {

using Clock = std::chrono::steady_clock;

bool same(std::string_view a, std::string_view b) {
  return a.size() == b.size() && ::strncasecmp(a.data(), b.data(), a.size()) == 0;
}

// RFC 3261 7.3.3: the compact forms that matter here.
std::string_view long_name(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 8> kForms = {{{"v", "Via"},
                                                                                    {"f", "From"},
                                                                                    {"t", "To"},
                                                                                    {"i", "Call-ID"},
                                                                                    {"m", "Contact"},
                                                                                    {"l", "Content-Length"},
                                                                                    {"c", "Content-Type"},
                                                                                    {"k", "Supported"}}};
  for (const auto& [compact, full] : kForms)
    if (same(name, compact)) return full;
  return name;
}

bool same_name(std::string_view a, std::string_view b) { return same(long_name(a), long_name(b)); }

std::string_view trim(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::string_view word(std::string_view text, int place) {
  for (int i = 0; i < place; ++i) text.remove_prefix(std::min(text.size(), text.find(' ') + 1));
  return text.substr(0, text.find(' '));
}

Result<std::size_t> number(std::string_view text) {
  std::size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return fail("'{}' is no number", text);
  return value;
}

std::string unique(std::string_view prefix) {
  static std::atomic<unsigned> next = 0;
  return fmt::format("{}{}-{}", prefix, ::getpid(), next.fetch_add(1));
}

}  // namespace

Result<SipMessage> SipMessage::parse(std::string_view text) {
  SipMessage message;
  const std::size_t end = text.find("\r\n\r\n");
  if (end == std::string_view::npos) return fail("the header section does not end");
  std::string_view rest = text.substr(0, end);
  message.body = text.substr(end + 4);
  const auto next_line = [&] {
    const std::size_t crlf = rest.find("\r\n");
    const std::string_view line = rest.substr(0, crlf);
    rest.remove_prefix(crlf == std::string_view::npos ? rest.size() : crlf + 2);
    return line;
  };
  message.start_line = next_line();
  while (!rest.empty()) {
    const std::string_view line = next_line();
    if ((line.starts_with(' ') || line.starts_with('\t')) && !message.headers.empty()) {
      message.headers.back().second += fmt::format(" {}", trim(line));
      continue;
    }
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) return fail("'{}' is no header", line);
    message.add(std::string(trim(line.substr(0, colon))), std::string(trim(line.substr(colon + 1))));
  }
  return message;
}

int SipMessage::status() const {
  if (is_request()) return 0;
  const auto code = number(word(start_line, 1));
  return code ? static_cast<int>(*code) : 0;
}

std::string SipMessage::method() const {
  if (is_request()) return std::string(word(start_line, 0));
  return std::string(word(header("CSeq"), 1));
}

std::string SipMessage::request_uri() const { return is_request() ? std::string(word(start_line, 1)) : ""; }

std::string SipMessage::header(std::string_view name) const {
  for (const auto& [key, value] : headers)
    if (same_name(key, name)) return value;
  return {};
}

std::vector<std::string> SipMessage::all(std::string_view name) const {
  std::vector<std::string> values;
  for (const auto& [key, value] : headers)
    if (same_name(key, name)) values.push_back(value);
  return values;
}

void SipMessage::set(std::string_view name, std::string value) {
  for (auto& [key, old] : headers) {
    if (!same_name(key, name)) continue;
    old = std::move(value);
    return;
  }
  add(std::string(name), std::move(value));
}

void SipMessage::remove(std::string_view name) {
  std::erase_if(headers, [&](const auto& entry) { return same_name(entry.first, name); });
}

std::string SipMessage::text() const {
  std::string text = start_line + "\r\n";
  bool length_given = false;
  for (const auto& [name, value] : headers) {
    text += fmt::format("{}: {}\r\n", name, value);
    length_given = length_given || same_name(name, "Content-Length");
  }
  if (!length_given) text += fmt::format("Content-Length: {}\r\n", body.size());
  return text + "\r\n" + body;
}

SipMessage make_request(const RequestOptions& options) {
  SipMessage message;
  message.start_line = fmt::format("{} {} SIP/2.0", options.method, options.uri);
  message.add("Via", fmt::format("SIP/2.0/{} {};branch={};rport", options.transport, options.sent_by,
                                 options.branch.empty() ? unique("z9hG4bK") : options.branch));
  message.add("Max-Forwards", "70");
  message.add("From", options.from);
  message.add("To", options.to);
  message.add("Call-ID", options.call_id.empty() ? unique("call-") : options.call_id);
  message.add("CSeq", fmt::format("{} {}", options.cseq, options.method));
  if (options.method == "INVITE" || options.method == "SUBSCRIBE")
    message.add("Contact", fmt::format("<sip:alice@{}>", options.sent_by));
  if (!options.body.empty()) message.add("Content-Type", "application/sdp");
  message.body = options.body;
  return message;
}

SipMessage make_response(const SipMessage& request, int status, std::string_view reason) {
  SipMessage message;
  message.start_line = fmt::format("SIP/2.0 {} {}", status, reason);
  for (const std::string_view name : {"Via", "Record-Route", "From", "To", "Call-ID", "CSeq"}) {
    for (const std::string& value : request.all(name)) {
      const bool needs_tag = name == "To" && status > 100 && value.find(";tag=") == std::string::npos;
      message.add(std::string(name), needs_tag ? value + ";tag=b1" : value);
    }
  }
  return message;
}

Result<std::optional<SipMessage>> SipStream::receive_or_end(milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  for (;;) {  // ends with the deadline: every round reads bytes, ends or fails
    while (pending_.starts_with("\r\n")) {
      pending_.erase(0, 2);
      ++crlfs_;
    }
    if (const std::size_t end = pending_.find("\r\n\r\n"); end != std::string::npos) {
      const auto head = SipMessage::parse(std::string_view(pending_).substr(0, end + 4));
      if (!head) return std::unexpected(head.error());
      const std::string length_text = head->header("Content-Length");
      const auto length = number(length_text);
      if (!length) return fail("Content-Length '{}' in {}", length_text, head->start_line);
      if (pending_.size() - (end + 4) >= *length) {
        auto message = SipMessage::parse(std::string_view(pending_).substr(0, end + 4 + *length));
        pending_.erase(0, end + 4 + *length);
        if (!message) return std::unexpected(message.error());
        return std::optional(std::move(*message));
      }
    }
    const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now());
    Result<std::string> bytes = stream_->read_some(std::max(left, milliseconds(0)));
    if (!bytes) return std::unexpected(bytes.error());
    if (bytes->empty()) {
      if (!pending_.empty()) return fail("the stream ends inside a message: {}", pending_);
      return std::optional<SipMessage>();
    }
    pending_ += *bytes;
  }
}

Result<SipMessage> SipStream::receive(milliseconds timeout) {
  auto message = receive_or_end(timeout);
  if (!message) return std::unexpected(message.error());
  if (!*message) return fail("the peer has closed the stream");
  return std::move(**message);
}

Result<SipMessage> SipStream::exchange(const SipMessage& request, milliseconds timeout) {
  if (Status status = send(request); !status) return std::unexpected(status.error());
  const auto deadline = Clock::now() + timeout;
  for (;;) {  // ends with the deadline
    auto message = receive(std::chrono::ceil<milliseconds>(deadline - Clock::now()));
    if (!message || message->status() >= 200) return message;
  }
}

Result<SipDatagrams> SipDatagrams::bind(const Address& address) {
  Fd socket(::socket(address.family(), SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return fail_errno(errno, "socket");
  if (::bind(socket.get(), address.data(), address.size()) != 0) return fail_errno(errno, "bind " + address.text());
  sockaddr_storage storage = {};
  socklen_t length = sizeof storage;
  ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&storage), &length);
  return SipDatagrams(std::move(socket), Address::from_sockaddr(reinterpret_cast<sockaddr*>(&storage), length));
}

Status SipDatagrams::send_bytes(std::string_view bytes, const Address& to) const {
  if (::sendto(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL, to.data(), to.size()) < 0)
    return fail_errno(errno, "sendto " + to.text());
  return {};
}

Result<std::pair<SipMessage, Address>> SipDatagrams::receive(milliseconds timeout) const {
  const auto deadline = Clock::now() + timeout;
  std::string bytes(65536, '\0');
  for (;;) {  // ends with the deadline
    sockaddr_storage storage = {};
    socklen_t length = sizeof storage;
    const ssize_t got =
        ::recvfrom(socket_.get(), bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&storage), &length);
    if (got >= 0) {
      auto message = SipMessage::parse(std::string_view(bytes).substr(0, static_cast<std::size_t>(got)));
      if (!message) return std::unexpected(message.error());
      return std::pair(std::move(*message), Address::from_sockaddr(reinterpret_cast<sockaddr*>(&storage), length));
    }
    if (errno != EAGAIN && errno != EINTR) return fail_errno(errno, "recvfrom");
    if (Status status = wait_ready(socket_.get(), POLLIN, deadline); !status) return std::unexpected(status.error());
  }
}

}  // namespace ktrunk::test
