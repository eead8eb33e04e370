// Message: one SIP message taken apart (RFC 3261 7 and 25): start-line and an index of the header fields, as views into
// the caller's octets. Workers keep one and parse into it again and again; nothing is allocated, nothing is copied.
//
// The octets handed to parse() must stay where they are, unchanged, for as long as the views are used.
// parse() always succeeds in taking apart what can be: what is wrong is in defect(), and Proxy::decide turns it into
// the reply. So a broken request can still be answered.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "sip/limits.h"
#include "sip/uri.h"
#include "sip/via.h"

namespace ktrunk::sip {

// How the octets came: a stream's framer has cut them at Content-Length; a datagram may lack that header, and octets
// behind its Content-Length are not part of the message (RFC 3261 18.3).
enum class Carrier : std::uint8_t { kStream, kDatagram };

enum class Method : std::uint8_t {
  kOther,
  kAck,
  kBye,
  kCancel,
  kInfo,
  kInvite,
  kMessage,
  kNotify,
  kOptions,
  kPrack,
  kPublish,
  kRefer,
  kRegister,
  kSubscribe,
  kUpdate,
};

// The header fields that something here looks for; all others are kOther. Compact forms (7.3.3) are the same header.
enum class HeaderId : std::uint8_t {
  kOther,
  kCallId,
  kContact,
  kContentLength,
  kContentType,
  kCSeq,
  kFrom,
  kMaxForwards,
  kProxyRequire,
  kRecordRoute,
  kRequire,
  kRoute,
  kSupported,
  kTimestamp,
  kTo,
  kUnsupported,
  kVia,
};
inline constexpr std::size_t kHeaderIds = 17;
[[nodiscard]] HeaderId header_id(std::string_view name);

// What the header fields say that decide how a message goes on, each read once. What is missing or cannot be read is
// empty, and check_request() and check_response() (validate.h) say so.
struct Facts {
  std::size_t vias = 0;  // how many Via values
  std::optional<Via> top_via;
  std::size_t top_via_place = 0, top_via_size = 0;  // what is taken out of the message to pop it
  std::optional<Uri> uri;                           // requests: the Request-URI
  std::optional<unsigned> max_forwards;
  bool from_is_sound = false, to_is_sound = false;
  bool to_has_tag = false;  // inside a dialog
  std::string_view from_tag;
  bool cseq_is_sound = false;
  std::string_view cseq_number, cseq_method;
};

class Message {
 public:
  enum class Kind : std::uint8_t { kNone, kRequest, kResponse };  // kNone: the start-line is neither

  // What makes the message unfit to be forwarded, found while it was taken apart.
  struct Defect {
    int status = 0;         // 0: none; else the reply's status: 400, 505, 513
    const char* what = "";  // static; fit for a reason phrase
  };
  // One header field. Views live as long as the octets.
  struct Header {
    HeaderId id;
    std::string_view name;
    std::string_view value;  // trimmed at both ends, folds inside kept
    std::size_t line;        // offsets into bytes(): from its first octet
    std::size_t line_end;    // to one past its last line end
  };
  static constexpr std::size_t kNoHeader = ~std::size_t{0};

  void parse(std::string_view bytes, Carrier carrier);

  // The message: what parse() was given, without octets behind the body. Edits count from its first octet.
  [[nodiscard]] std::string_view bytes() const { return bytes_; }
  [[nodiscard]] std::string_view body() const { return bytes_.substr(header_section_); }
  [[nodiscard]] std::size_t header_section_size() const { return header_section_; }  // with the empty line
  [[nodiscard]] Kind kind() const { return kind_; }
  [[nodiscard]] bool is_request() const { return kind_ == Kind::kRequest; }
  [[nodiscard]] bool is_response() const { return kind_ == Kind::kResponse; }
  [[nodiscard]] Defect defect() const { return defect_; }

  // Requests; views are empty in anything else.
  [[nodiscard]] Method method() const { return method_; }
  [[nodiscard]] std::string_view method_name() const { return method_name_; }
  [[nodiscard]] std::string_view request_uri() const { return request_uri_; }
  // Responses: 100 to 699, and the reason phrase; 0 and empty in anything else.
  [[nodiscard]] int status() const { return status_; }
  [[nodiscard]] std::string_view reason() const { return reason_; }

  [[nodiscard]] std::size_t header_count() const { return header_count_; }
  [[nodiscard]] Header header(std::size_t index) const;
  // The first header field of this name, and the next of the same name; kNoHeader when there is none. Not for kOther.
  [[nodiscard]] std::size_t first(HeaderId id) const { return widen(first_[static_cast<std::size_t>(id)]); }
  [[nodiscard]] std::size_t next_same(std::size_t index) const { return widen(headers_[index].next); }
  [[nodiscard]] bool has(HeaderId id) const { return first(id) != kNoHeader; }
  // The value of the first header field of this name; empty when there is none.
  [[nodiscard]] std::string_view value(HeaderId id) const;

  [[nodiscard]] const Facts& facts() const { return facts_; }

  // Where a view that points into bytes() begins, in octets from its first.
  [[nodiscard]] std::size_t offset_of(std::string_view part) const {
    return static_cast<std::size_t>(part.data() - bytes_.data());
  }

 private:
  static constexpr std::uint16_t kNone16 = 0xffff;
  struct Entry {  // offsets into bytes_; kMaxHeaderSectionBytes keeps them within 16 bits
    std::uint16_t line, line_end, name_size, value, value_size, next;
    HeaderId id;
  };
  static std::size_t widen(std::uint16_t index) { return index == kNone16 ? kNoHeader : index; }

  void reset(std::string_view bytes);
  void set_defect(int status, const char* what);
  void parse_start_line(std::string_view line);
  void parse_request_line(std::string_view line);
  void parse_status_line(std::string_view line);
  bool index_headers();
  void add_header(std::size_t begin, std::size_t end, std::size_t line_end);
  void find_body(Carrier carrier);
  void read_facts();
  void read_vias();

  std::string_view bytes_;
  std::size_t header_section_ = 0;
  Kind kind_ = Kind::kNone;
  Method method_ = Method::kOther;
  int status_ = 0;
  Defect defect_;
  Facts facts_;
  std::string_view method_name_;
  std::string_view request_uri_;
  std::string_view reason_;
  std::size_t header_count_ = 0;
  std::array<std::uint16_t, kHeaderIds> first_;
  std::array<std::uint16_t, kHeaderIds> last_;
  std::array<Entry, kMaxHeaders> headers_;  // the first header_count_ are set; the others are never cleared
};

// Walks the comma-separated values of all header fields of one name, in order (RFC 3261 7.3.1). Commas in quoted
// strings and in <> do not separate. A header field with an empty value has no values; an empty value between commas
// is one.
class ValueCursor {
 public:
  struct Value {
    std::string_view text;  // trimmed
    std::size_t header;     // index of its header field
    bool last_on_line;      // no other value follows it in its header field
  };
  ValueCursor(const Message& message, HeaderId id) : message_(message), header_(message.first(id)) { load(); }

  [[nodiscard]] std::optional<Value> next();

 private:
  void load();

  const Message& message_;
  std::size_t header_;
  std::string_view rest_;
  bool open_ = false;  // rest_ still holds a value, perhaps an empty one
};

}  // namespace ktrunk::sip
