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

template <Word kWord>
HeaderId if_word(std::string_view name, HeaderId id) {
  return is_word<kWord>(name) ? id : HeaderId::kOther;
}

}  // namespace

HeaderId header_id(std::string_view name) {
  if (name.empty()) return HeaderId::kOther;
  const char first = to_lower(name[0]);
  switch (name.size()) {
    case 1:
      return compact_form(name[0]);
    case 2:
      return if_word<"To">(name, HeaderId::kTo);
    case 3:
      return if_word<"Via">(name, HeaderId::kVia);
    case 4:
      return first == 'f' ? if_word<"From">(name, HeaderId::kFrom) : if_word<"CSeq">(name, HeaderId::kCSeq);
    case 5:
      return if_word<"Route">(name, HeaderId::kRoute);
    case 7:
      if (to_lower(name[1]) == 'a') return if_word<"Call-ID">(name, HeaderId::kCallId);
      return first == 'c' ? if_word<"Contact">(name, HeaderId::kContact) : if_word<"Require">(name, HeaderId::kRequire);
    case 9:
      return first == 's' ? if_word<"Supported">(name, HeaderId::kSupported)
                          : if_word<"Timestamp">(name, HeaderId::kTimestamp);
    case 11:
      return if_word<"Unsupported">(name, HeaderId::kUnsupported);
    case 12:
      if (first == 'r') return if_word<"Record-Route">(name, HeaderId::kRecordRoute);
      return first == 'm' ? if_word<"Max-Forwards">(name, HeaderId::kMaxForwards)
                          : if_word<"Content-Type">(name, HeaderId::kContentType);
    case 13:
      return if_word<"Proxy-Require">(name, HeaderId::kProxyRequire);
    case 14:
      return if_word<"Content-Length">(name, HeaderId::kContentLength);
    default:
      return HeaderId::kOther;
  }
}

}  // namespace ktrunk::sip
