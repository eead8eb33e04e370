#include "sip/message.h"

#include <algorithm>
#include <cstring>

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
  if (is_word<"SIP/2.0">(text)) return true;
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
}

// The first defect stands: it is the one nearest to the cause.
void Message::set_defect(int status, const char* what) {
  if (defect_.status == 0) defect_ = {status, what};
}

void Message::parse_request_line(std::string_view line) {
  const std::size_t method_end = span_of(kTokenSet, line);
  if (method_end == 0 || method_end == line.size() || line[method_end] != ' ') return;
  constexpr std::size_t kUsual = sizeof " SIP/2.0" - 1;
  const bool usual = line.size() > method_end + kUsual && is_word<" SIP/2.0">(line.substr(line.size() - kUsual));
  const std::size_t version = usual ? line.size() - kUsual : line.rfind(' ');
  if (version == method_end) return;
  kind_ = Kind::kRequest;
  method_name_ = line.substr(0, method_end);
  method_ = method_of(method_name_);
  request_uri_ = line.substr(method_end + 1, version - method_end - 1);
  const std::string_view version_text = line.substr(version + 1);
  if (!read_uri(request_uri_, facts_.uri.emplace())) facts_.uri.reset();
  // No URI has white space in it.
  const bool is_split = !facts_.uri && std::ranges::any_of(request_uri_, [](char c) { return is_lws(c); });
  if (request_uri_.empty() || is_split || !is_sip_version(version_text)) {
    set_defect(400, "Malformed Request-Line");
  } else if (!is_word<"SIP/2.0">(version_text)) {
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

void Message::find_body(Carrier carrier) {
  const ContentLength& length = fields().content_length();
  const std::size_t available = bytes_.size() - header_section_;
  switch (length.state) {
    case ContentLength::State::kBad:
      return set_defect(400, "Bad Content-Length");
    case ContentLength::State::kAbsent:
      if (carrier == Carrier::kStream) set_defect(400, "Missing Content-Length");
      return;
    case ContentLength::State::kKnown:
      if (length.octets > available || (carrier == Carrier::kStream && length.octets != available))
        return set_defect(400, "Content-Length is not the length of the body");
      bytes_ = bytes_.substr(0, header_section_ + length.octets);
  }
}

void Message::parse(std::string_view bytes, Carrier carrier) {
  given_index_ = nullptr;
  own_index_.build(bytes, std::min(bytes.size(), kMaxHeaderSectionBytes));
  reset(bytes);
  take_apart(carrier);
}

void Message::parse(std::string_view bytes, Carrier carrier, const HeaderIndex& index) {
  if (!index.complete()) return parse(bytes, carrier);
  given_index_ = &index;
  reset(bytes);
  take_apart(carrier);
}

void Message::take_apart(Carrier carrier) {
  const HeaderIndex& found = fields();
  if (found.start_line_end() != 0 || found.complete()) parse_start_line(bytes_.substr(0, found.start_line_end()));
  if (found.defect().status != 0) set_defect(found.defect().status, found.defect().what);
  if (found.complete()) {
    header_section_ = found.size();
    find_body(carrier);
  } else {
    set_defect(400, "No end of the header section");
    if (bytes_.empty()) bytes_ = "";  // offsets are counted from it: not from a null pointer
  }
  if (kind_ != Kind::kNone) read_facts();
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

std::string_view take_value(std::string_view& rest, bool& open) {
  // As a rule there is one value.
  std::size_t end = find_octet(rest, ',') == rest.size() ? rest.size() : 0;
  bool in_angle = false;
  while (end < rest.size()) {
    const char c = rest[end];
    if (c == ',' && !in_angle) break;
    if (c == '"' && !in_angle) {
      end = skip_quoted(rest, end);
      if (end == std::string_view::npos) end = rest.size();  // never closed: the rest is one value
      continue;
    }
    if (c == '<') in_angle = true;
    if (c == '>') in_angle = false;
    ++end;
  }
  open = end < rest.size();
  const std::string_view value = trim(rest.substr(0, end));
  rest = open ? rest.substr(end + 1) : std::string_view{};
  return value;
}

std::optional<ValueCursor::Value> ValueCursor::next() {
  if (!open_) return std::nullopt;
  Value value{.text = take_value(rest_, open_), .header = header_, .last_on_line = !open_};
  if (!open_) {
    header_ = message_.next_same(header_);
    load();
  }
  return value;
}

}  // namespace ktrunk::sip
