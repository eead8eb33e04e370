#include "config/header_names.h"

#include <algorithm>

namespace ktrunk::config {
namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

bool same(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](char x, char y) { return lower(x) == lower(y); });
}

// IANA's list of SIP header fields.
struct Compact {
  char letter;
  std::string_view name;
};
constexpr Compact kCompact[] = {
    {'a', "Accept-Contact"},
    {'b', "Referred-By"},
    {'c', "Content-Type"},
    {'d', "Request-Disposition"},
    {'e', "Content-Encoding"},
    {'f', "From"},
    {'i', "Call-ID"},
    {'j', "Reject-Contact"},
    {'k', "Supported"},
    {'l', "Content-Length"},
    {'m', "Contact"},
    {'n', "Identity-Info"},
    {'o', "Event"},
    {'r', "Refer-To"},
    {'s', "Subject"},
    {'t', "To"},
    {'u', "Allow-Events"},
    {'v', "Via"},
    {'x', "Session-Expires"},
    {'y', "Identity"},
};

struct Reason {
  std::string_view name;
  std::string_view why;
};
constexpr std::string_view kPath = "messages find their way by it";
constexpr std::string_view kTransaction = "transactions and dialogs are told apart by it";
constexpr std::string_view kFraming = "it says what the body is and where it ends";
constexpr Reason kUntouchable[] = {
    {"Via", kPath},
    {"Route", kPath},
    {"Record-Route", kPath},
    {"Path", kPath},
    {"Service-Route", kPath},
    {"Contact", kPath},
    {"Max-Forwards", "loops end by it"},
    {"Call-ID", kTransaction},
    {"CSeq", kTransaction},
    {"From", kTransaction},
    {"To", kTransaction},
    {"RAck", kTransaction},
    {"RSeq", kTransaction},
    {"Content-Length", kFraming},
    {"Content-Type", kFraming},
    {"Content-Encoding", kFraming},
    {"Proxy-Require", "what it demands is ktrunk's to answer"},
};

}  // namespace

bool HeaderName::is(std::string_view written) const {
  return same(written, name) || (compact != 0 && written.size() == 1 && lower(written[0]) == compact);
}

HeaderName header_name(std::string_view written) {
  const auto known = std::ranges::find_if(kCompact, [&](const Compact& entry) {
    return same(written, entry.name) || (written.size() == 1 && lower(written[0]) == entry.letter);
  });
  if (known == std::end(kCompact)) return {.name = std::string(written)};
  return {.name = std::string(written.size() == 1 ? known->name : written), .compact = known->letter};
}

std::string_view why_untouchable(const HeaderName& name) {
  const auto found =
      std::ranges::find_if(kUntouchable, [&](const Reason& entry) { return same(entry.name, name.name); });
  return found == std::end(kUntouchable) ? std::string_view{} : found->why;
}

}  // namespace ktrunk::config
