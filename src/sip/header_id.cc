// Header names (RFC 3261 20, 7.3.3) to ids.
#include "sip/message.h"
#include "sip/text.h"

namespace ktrunk::sip {

namespace {

HeaderId compact_form(char letter) {
  switch (to_lower(letter)) {
    case 'c':
      return HeaderId::kContentType;
    case 'f':
      return HeaderId::kFrom;
    case 'i':
      return HeaderId::kCallId;
    case 'k':
      return HeaderId::kSupported;
    case 'l':
      return HeaderId::kContentLength;
    case 'm':
      return HeaderId::kContact;
    case 't':
      return HeaderId::kTo;
    case 'v':
      return HeaderId::kVia;
    default:
      return HeaderId::kOther;
  }
}

HeaderId if_equal(std::string_view name, std::string_view known, HeaderId id) {
  return iequals(name, known) ? id : HeaderId::kOther;
}

}  // namespace

HeaderId header_id(std::string_view name) {
  if (name.empty()) return HeaderId::kOther;
  const char first = to_lower(name[0]);
  switch (name.size()) {
    case 1:
      return compact_form(name[0]);
    case 2:
      return if_equal(name, "To", HeaderId::kTo);
    case 3:
      return if_equal(name, "Via", HeaderId::kVia);
    case 4:
      return first == 'f' ? if_equal(name, "From", HeaderId::kFrom) : if_equal(name, "CSeq", HeaderId::kCSeq);
    case 5:
      return if_equal(name, "Route", HeaderId::kRoute);
    case 7:
      if (to_lower(name[1]) == 'a') return if_equal(name, "Call-ID", HeaderId::kCallId);
      return first == 'c' ? if_equal(name, "Contact", HeaderId::kContact)
                          : if_equal(name, "Require", HeaderId::kRequire);
    case 9:
      return first == 's' ? if_equal(name, "Supported", HeaderId::kSupported)
                          : if_equal(name, "Timestamp", HeaderId::kTimestamp);
    case 11:
      return if_equal(name, "Unsupported", HeaderId::kUnsupported);
    case 12:
      if (first == 'r') return if_equal(name, "Record-Route", HeaderId::kRecordRoute);
      return first == 'm' ? if_equal(name, "Max-Forwards", HeaderId::kMaxForwards)
                          : if_equal(name, "Content-Type", HeaderId::kContentType);
    case 13:
      return if_equal(name, "Proxy-Require", HeaderId::kProxyRequire);
    case 14:
      return if_equal(name, "Content-Length", HeaderId::kContentLength);
    default:
      return HeaderId::kOther;
  }
}

}  // namespace ktrunk::sip
