#include "bench/load/message_templates.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "bench/load/header_lines.h"

namespace ktrunk::bench {
namespace {

constexpr std::size_t kMaxRoutes = 16;

// A body that makes a head of so many octets, to which Content-Length and the empty line come, a whole of `wanted`.
std::string with_body(std::string head, std::size_t wanted) {
  for (std::size_t digits = 1; digits <= 5; ++digits) {
    const std::size_t fixed = head.size() + std::string_view("Content-Length: \r\n\r\n").size() + digits;
    const std::size_t body = wanted > fixed ? wanted - fixed : 0;
    if (std::to_string(body).size() > digits) continue;
    // 09 is as good as 9 (RFC 3261 25.1), and there are lengths that cannot be had otherwise.
    return fmt::format("{}Content-Length: {:0{}}\r\n\r\n{}", head, body, digits, std::string(body, 'x'));
  }
  return head;
}

// Appends to a place of bounded size.
class Writer {
 public:
  Writer(char* to, std::size_t room) : begin_(to), to_(to), end_(to + room) {}
  Writer& operator<<(std::string_view text) {
    if (text.size() > static_cast<std::size_t>(end_ - to_)) {
      overrun_ = true;
    } else {
      to_ = std::ranges::copy(text, to_).out;  // also an empty text, which may be at no place
    }
    return *this;
  }
  [[nodiscard]] std::size_t written() const { return overrun_ ? 0 : static_cast<std::size_t>(to_ - begin_); }

 private:
  char* begin_;
  char* to_;
  char* end_;
  bool overrun_ = false;
};

}  // namespace

std::string_view method_name(Method method) {
  switch (method) {
    case Method::kInvite:
      return "INVITE";
    case Method::kAck:
      return "ACK";
    case Method::kBye:
      return "BYE";
    case Method::kMessage:
      return "MESSAGE";
    case Method::kOptions:
      return "OPTIONS";
  }
  return "";
}

void Tag::write(char* to) const {
  static constexpr std::string_view kHex = "0123456789abcdef";
  for (unsigned i = 0; i < 8; ++i) {
    to[i] = kHex[slot >> (28 - 4 * i) & 15];
    to[8 + i] = kHex[generation >> (28 - 4 * i) & 15];
  }
}

std::optional<Tag> Tag::find(std::string_view message) {
  const std::size_t place = message.find(kMark);
  if (place == std::string_view::npos || message.size() - place < kMark.size() + kDigits + 1) return std::nullopt;
  const char* digits = message.data() + place + kMark.size();
  Tag tag;
  if (std::from_chars(digits, digits + 8, tag.slot, 16).ptr != digits + 8) return std::nullopt;
  if (std::from_chars(digits + 8, digits + 16, tag.generation, 16).ptr != digits + 16) return std::nullopt;
  tag.method = static_cast<Method>(digits[16]);
  return tag;
}

RequestTemplate::RequestTemplate(const MessageShape& shape, Method method) {
  static constexpr std::string_view kBlank = "################";
  const std::string_view name = method_name(method);
  std::string head = fmt::format(
      "{} {} SIP/2.0\r\nVia: SIP/2.0/{} {};rport;branch={}{}{}\r\nMax-Forwards: 70\r\n"
      "From: <sip:caller@bench.invalid>;tag={}\r\nTo: <sip:callee@bench.invalid>\r\nCall-ID: {}@{}\r\nCSeq: 1 {}\r\n",
      name, shape.uri, shape.transport, shape.sent_by, Tag::kMark, kBlank, static_cast<char>(method), kBlank, kBlank,
      shape.run, name);
  if (method == Method::kInvite)
    head += fmt::format("Contact: <sip:caller@{}>\r\nContent-Type: application/x-padding\r\n", shape.sent_by);
  if (method == Method::kMessage) head += "Content-Type: text/plain\r\n";
  text_ = with_body(std::move(head), shape.message_bytes);
  std::size_t place = 0;
  for (std::size_t& tag : tags_) {
    tag = text_.find(kBlank, place);
    place = tag + kBlank.size();
  }
}

void RequestTemplate::write(char* to, Tag tag) const {
  std::memcpy(to, text_.data(), text_.size());
  tag.write(to + tags_[0]);
  std::memcpy(to + tags_[1], to + tags_[0], Tag::kDigits);
  std::memcpy(to + tags_[2], to + tags_[0], Tag::kDigits);
}

std::size_t DialogTemplate::write(char* to, std::string_view response, Tag tag) const {
  std::array<std::string_view, kMaxRoutes> routes;
  std::size_t count = 0;
  std::string_view target;
  std::string_view peer;
  bool fits = true;
  HeaderLines lines(response);
  while (const auto line = lines.next()) {
    if (line->is("Record-Route")) {
      if (count == routes.size()) fits = false;
      if (fits) routes[count++] = line->value;
    } else if (line->is("Contact")) {
      target = uri_in(line->value);
    } else if (line->is("To")) {
      peer = line->value;
    }
  }
  if (!fits || target.empty()) return 0;
  std::array<char, Tag::kDigits> digits;
  tag.write(digits.data());
  const std::string_view id(digits.data(), digits.size());
  const char letter = static_cast<char>(tag.method);
  Writer out(to, kMaxBytes);
  out << method_name(tag.method) << " " << target << " SIP/2.0\r\nVia: SIP/2.0/" << shape_.transport << " "
      << shape_.sent_by << ";rport;branch=" << Tag::kMark << id << std::string_view(&letter, 1)
      << "\r\nMax-Forwards: 70\r\n";
  // The route set is the record-route set in reverse order (RFC 3261 12.1.2), value by value.
  while (count-- > 0) {
    std::string_view values = routes[count];
    while (!values.empty()) {
      const std::size_t comma = values.rfind(",<") == std::string_view::npos ? values.rfind(", <") : values.rfind(",<");
      const std::string_view last = comma == std::string_view::npos ? values : values.substr(comma + 1);
      out << "Route: " << last.substr(last.find('<') == std::string_view::npos ? 0 : last.find('<')) << "\r\n";
      values = comma == std::string_view::npos ? std::string_view() : values.substr(0, comma);
    }
  }
  out << "From: <sip:caller@bench.invalid>;tag=" << id << "\r\nTo: " << peer << "\r\nCall-ID: " << id << "@"
      << shape_.run << "\r\nCSeq: " << (tag.method == Method::kAck ? "1 ACK" : "2 BYE")
      << "\r\nContent-Length: 0\r\n\r\n";
  return out.written();
}

std::size_t DialogTemplate::write_refused_ack(char* to, std::string_view response, Tag tag) const {
  std::string_view peer;
  HeaderLines lines(response);
  while (const auto line = lines.next()) {
    if (line->is("To")) peer = line->value;
  }
  std::array<char, Tag::kDigits> digits;
  tag.write(digits.data());
  const std::string_view id(digits.data(), digits.size());
  Writer out(to, kMaxBytes);
  out << "ACK " << shape_.uri << " SIP/2.0\r\nVia: SIP/2.0/" << shape_.transport << " " << shape_.sent_by
      << ";rport;branch=" << Tag::kMark << id << "I\r\nMax-Forwards: 70\r\nFrom: <sip:caller@bench.invalid>;tag=" << id
      << "\r\nTo: " << peer << "\r\nCall-ID: " << id << "@" << shape_.run
      << "\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n";
  return out.written();
}

}  // namespace ktrunk::bench
