#include "sip/message.h"

#include <algorithm>
#include <cstring>

#include "sip/framer.h"
#include "sip/lines.h"
#include "sip/text.h"

namespace ktrunk::sip {

namespace {

Method method_of(std::string_view name) {  // methods are case-sensitive (RFC 3261 7.1)
  const auto if_equal = [name](std::string_view known, Method method) {
    return name == known ? method : Method::kOther;
  };
  switch (name.size()) {
    case 3:
      return name[0] == 'A' ? if_equal("ACK", Method::kAck) : if_equal("BYE", Method::kBye);
    case 4:
      return if_equal("INFO", Method::kInfo);
    case 5:
      return name[0] == 'P' ? if_equal("PRACK", Method::kPrack) : if_equal("REFER", Method::kRefer);
    case 6:
      if (name[0] == 'I') return if_equal("INVITE", Method::kInvite);
      if (name[0] == 'C') return if_equal("CANCEL", Method::kCancel);
      return name[0] == 'N' ? if_equal("NOTIFY", Method::kNotify) : if_equal("UPDATE", Method::kUpdate);
    case 7:
      if (name[0] == 'O') return if_equal("OPTIONS", Method::kOptions);
      return name[0] == 'M' ? if_equal("MESSAGE", Method::kMessage) : if_equal("PUBLISH", Method::kPublish);
    case 8:
      return if_equal("REGISTER", Method::kRegister);
    case 9:
      return if_equal("SUBSCRIBE", Method::kSubscribe);
    default:
      return Method::kOther;
  }
}

constexpr std::string_view kVersion = "SIP/2.0";

// "SIP/" 1*DIGIT "." 1*DIGIT
bool is_sip_version(std::string_view text) {
  if (text == kVersion) return true;
  if (text.size() < 4 || !iequals(text.substr(0, 4), "SIP/")) return false;
  text.remove_prefix(4);
  const std::size_t dot = text.find('.');
  if (dot == std::string_view::npos || dot == 0 || dot + 1 == text.size()) return false;
  return std::all_of(text.begin(), text.end(), [](char c) { return is_digit(c) || c == '.'; }) &&
         text.find('.', dot + 1) == std::string_view::npos;
}

}  // namespace

void Message::reset(std::string_view bytes) {
  bytes_ = bytes;
  header_section_ = bytes.size();
  kind_ = Kind::kNone;
  method_ = Method::kOther;
  status_ = 0;
  defect_ = {};
  facts_ = {};
  method_name_ = request_uri_ = reason_ = {};
  header_count_ = 0;
  first_.fill(kNone16);
}

// The first defect stands: it is the one nearest to the cause.
void Message::set_defect(int status, const char* what) {
  if (defect_.status == 0) defect_ = {status, what};
}

void Message::parse_request_line(std::string_view line) {
  const std::size_t method_end = span_of(kTokenClass, line);
  if (method_end == 0 || method_end == line.size() || line[method_end] != ' ') return;
  constexpr std::string_view kUsual = " SIP/2.0";
  const std::size_t version = line.ends_with(kUsual) ? line.size() - kUsual.size() : line.rfind(' ');
  if (version == method_end) return;
  kind_ = Kind::kRequest;
  method_name_ = line.substr(0, method_end);
  method_ = method_of(method_name_);
  request_uri_ = line.substr(method_end + 1, version - method_end - 1);
  const std::string_view version_text = line.substr(version + 1);
  facts_.uri = parse_uri(request_uri_);
  // No URI has white space in it.
  const bool is_split = !facts_.uri && std::ranges::any_of(request_uri_, [](char c) { return is_lws(c); });
  if (request_uri_.empty() || is_split || !is_sip_version(version_text)) {
    set_defect(400, "Malformed Request-Line");
  } else if (!iequals(version_text, kVersion)) {
    set_defect(505, "Version Not Supported");
  }
}

void Message::parse_status_line(std::string_view line) {
  line.remove_prefix(kVersion.size() + 1);
  if (line.size() < 3 || (line.size() > 3 && line[3] != ' ')) return;
  const auto status = parse_number(line.substr(0, 3), 699);
  if (!status || *status < 100) return;
  kind_ = Kind::kResponse;
  status_ = static_cast<int>(*status);
  if (line.size() > 3) reason_ = line.substr(4);
}

void Message::parse_start_line(std::string_view line) {
  if (line.size() > kVersion.size() && line[kVersion.size()] == ' ' &&
      is_word<"SIP/2.0">(line.substr(0, kVersion.size()))) {
    parse_status_line(line);
  } else {
    parse_request_line(line);
  }
  if (kind_ == Kind::kNone) set_defect(400, "Malformed start-line");
}

// One logical header field, [begin, end) without its last line end.
void Message::add_header(std::size_t begin, std::size_t end, std::size_t line_end) {
  const std::string_view field = bytes_.substr(begin, end - begin);
  // A name that is known is a token.
  std::size_t name_size = std::min(field.find(':'), field.size());
  HeaderId id = header_id(field.substr(0, name_size));
  if (id == HeaderId::kOther) {
    name_size = span_of(kTokenClass, field);
    id = header_id(field.substr(0, name_size));
  }
  std::size_t colon = name_size;
  while (colon < field.size() && is_lws(field[colon])) ++colon;
  if (name_size == 0 || colon == field.size() || field[colon] != ':') {
    set_defect(400, "Malformed header field");
    return;
  }
  if (header_count_ == kMaxHeaders) {
    set_defect(513, "Too many header fields");
    return;
  }
  const std::string_view value = trim(field.substr(colon + 1));
  const auto narrow = [](std::size_t offset) { return static_cast<std::uint16_t>(offset); };
  const std::uint16_t index = narrow(header_count_++);
  headers_[index] = {.line = narrow(begin),
                     .line_end = narrow(line_end),
                     .name_size = narrow(name_size),
                     .value = narrow(value.empty() ? begin + colon + 1 : offset_of(value)),
                     .value_size = narrow(value.size()),
                     .next = kNone16,
                     .id = id};
  const auto slot = static_cast<std::size_t>(id);
  if (id == HeaderId::kOther) return;
  if (first_[slot] == kNone16) {
    first_[slot] = index;
  } else {
    headers_[last_[slot]].next = index;
  }
  last_[slot] = index;
}

// Splits lines as Framer does. Returns whether the empty line was there.
bool Message::index_headers() {
  const std::size_t limit = std::min(bytes_.size(), kMaxHeaderSectionBytes);
  std::size_t line = 0;       // where the current line begins
  std::size_t field = 0;      // where the current logical field begins; 0: the start-line
  std::size_t field_end = 0;  // where its text ends
  bool bare_lf = false;
  LineFeeds feeds(bytes_, 0, limit);
  for (std::size_t feed = feeds.next(); feed != LineFeeds::kNone; feed = feeds.next()) {
    const bool this_bare = feed == line || bytes_[feed - 1] != '\r';
    if (line == 0) bare_lf = this_bare;
    if (bare_lf != this_bare) set_defect(400, "Mixed line ends");
    const std::size_t text_end = this_bare ? feed : feed - 1;

    const bool fold = line != 0 && text_end != line && is_blank(bytes_[line]);
    if (!fold && field != 0) add_header(field, field_end, line);
    if (line == 0) {
      parse_start_line(bytes_.substr(0, text_end));
    } else if (text_end == line) {
      header_section_ = feed + 1;
      // A peer that takes CRLF alone for a line end would not see where this message ends.
      if (bare_lf) set_defect(400, "Bare LF line ends");
      return true;
    } else if (fold && field == 0) {
      set_defect(400, "White space before the first header field");
    } else if (!fold) {
      field = line;
    }
    if (feeds.stray_return_before(feed)) set_defect(400, "CR without LF");
    field_end = text_end;
    line = feed + 1;
  }
  return false;
}

void Message::find_body(Carrier carrier) {
  std::size_t length = 0;
  bool known = false;
  for (std::size_t i = first(HeaderId::kContentLength); i != kNoHeader; i = next_same(i)) {
    std::size_t one = 0;
    if (parse_content_length(header(i).value, ~std::size_t{0} >> 1, one) != ContentLengthFault::kNone ||
        (known && one != length)) {
      set_defect(400, "Bad Content-Length");
      return;
    }
    known = true;
    length = one;
  }
  const std::size_t available = bytes_.size() - header_section_;
  if (!known) {
    if (carrier == Carrier::kStream) set_defect(400, "Missing Content-Length");
  } else if (length > available || (carrier == Carrier::kStream && length != available)) {
    set_defect(400, "Content-Length is not the length of the body");
  } else {
    bytes_ = bytes_.substr(0, header_section_ + length);
  }
}

void Message::parse(std::string_view bytes, Carrier carrier) {
  reset(bytes);
  if (index_headers()) {
    find_body(carrier);
  } else {
    set_defect(400, "No end of the header section");
    if (bytes.empty()) bytes_ = "";  // offsets are counted from it: not from a null pointer
  }
  if (kind_ != Kind::kNone) read_facts();
}

Message::Header Message::header(std::size_t index) const {
  const Entry& entry = headers_[index];
  return {.id = entry.id,
          .name = bytes_.substr(entry.line, entry.name_size),
          .value = bytes_.substr(entry.value, entry.value_size),
          .line = entry.line,
          .line_end = entry.line_end};
}

std::string_view Message::value(HeaderId id) const {
  const std::size_t index = first(id);
  return index == kNoHeader ? std::string_view{} : header(index).value;
}

void ValueCursor::load() {
  while (header_ != Message::kNoHeader) {
    rest_ = message_.header(header_).value;
    if (!rest_.empty()) {
      open_ = true;
      return;
    }
    header_ = message_.next_same(header_);
  }
}

std::optional<ValueCursor::Value> ValueCursor::next() {
  if (!open_) return std::nullopt;
  // As a rule there is one value.
  std::size_t end = rest_.find(',') == std::string_view::npos ? rest_.size() : 0;
  bool in_angle = false;
  while (end < rest_.size()) {
    const char c = rest_[end];
    if (c == ',' && !in_angle) break;
    if (c == '"' && !in_angle) {
      end = skip_quoted(rest_, end);
      if (end == std::string_view::npos) end = rest_.size();  // never closed: the rest is one value
      continue;
    }
    if (c == '<') in_angle = true;
    if (c == '>') in_angle = false;
    ++end;
  }
  Value value{.text = trim(rest_.substr(0, end)), .header = header_, .last_on_line = end >= rest_.size()};
  if (value.last_on_line) {
    open_ = false;
    header_ = message_.next_same(header_);
    load();
  } else {
    rest_ = rest_.substr(end + 1);
  }
  return value;
}

}  // namespace ktrunk::sip
