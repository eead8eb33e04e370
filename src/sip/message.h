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

#include "sip/header_index.h"
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
  // The same for who may have an index of these octets: it is used if it is complete(), and must then live as long as
  // the message is looked at.
  void parse(std::string_view bytes, Carrier carrier, const HeaderIndex& index);

  // The message: what parse() was given, without octets behind the body. Edits count from its first octet.
  [[nodiscard]] std::string_view bytes() const { return bytes_; }
  [[nodiscard]] std::string_view body() const { return bytes_.substr(header_section_); }
  [[nodiscard]] std::size_t header_section_size() const { return header_section_; }  // with the empty line
  [[nodiscard]] Kind kind() const { return kind_; }
  [[nodiscard]] bool is_request() const { return kind_ == Kind::kRequest; }
  [[nodiscard]] bool is_response() const { return kind_ == Kind::kResponse; }
  // What was found wrong while the message was taken apart: 400, 505, 513.
  [[nodiscard]] Defect defect() const { return defect_; }

  // Requests; views are empty in anything else.
  [[nodiscard]] Method method() const { return method_; }
  [[nodiscard]] std::string_view method_name() const { return method_name_; }
  [[nodiscard]] std::string_view request_uri() const { return request_uri_; }
  // Responses: 100 to 699, and the reason phrase; 0 and empty in anything else.
  [[nodiscard]] int status() const { return status_; }
  [[nodiscard]] std::string_view reason() const { return reason_; }

  [[nodiscard]] std::size_t header_count() const { return fields().count(); }
  [[nodiscard]] Header header(std::size_t index) const {
    const HeaderIndex::Field& field = fields().field(index);
    return {.id = field.id,
            .name = {bytes_.data() + field.line, field.name_size},
            .value = {bytes_.data() + field.value, field.value_size},
            .line = field.line,
            .line_end = field.line_end};
  }
  // The first header field of this name, and the next of the same name; kNoHeader when there is none. Not for kOther.
  [[nodiscard]] std::size_t first(HeaderId id) const { return widen(fields().first(id)); }
  [[nodiscard]] std::size_t next_same(std::size_t index) const { return widen(fields().field(index).next); }
  [[nodiscard]] bool has(HeaderId id) const { return fields().first(id) != HeaderIndex::kNone; }
  // The value of the first header field of this name; empty when there is none.
  [[nodiscard]] std::string_view value(HeaderId id) const {
    return has(id) ? header(first(id)).value : std::string_view{};
  }

  [[nodiscard]] const Facts& facts() const { return facts_; }

  // Where a view that points into bytes() begins, in octets from its first.
  [[nodiscard]] std::size_t offset_of(std::string_view part) const {
    return static_cast<std::size_t>(part.data() - bytes_.data());
  }

 private:
  static std::size_t widen(std::uint16_t index) { return index == HeaderIndex::kNone ? kNoHeader : index; }

  void reset(std::string_view bytes);
  void set_defect(int status, const char* what);
  void parse_start_line(std::string_view line);
  void parse_request_line(std::string_view line);
  void parse_status_line(std::string_view line);
  void take_apart(Carrier carrier);
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
  [[nodiscard]] const HeaderIndex& fields() const { return given_index_ != nullptr ? *given_index_ : own_index_; }

  const HeaderIndex* given_index_ = nullptr;
  HeaderIndex own_index_;  // where none is given
};

// Takes the first of a header field's comma-separated values off, and the comma (RFC 3261 7.3.1). Commas in quoted
// strings and in <> do not separate. `open`: rest still holds a value, perhaps an empty one. The value is trimmed.
[[nodiscard]] std::string_view take_value(std::string_view& rest, bool& open);

// Walks the comma-separated values of all header fields of one name, in order. A header field with an empty value has
// no values; an empty value between commas is one.
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
