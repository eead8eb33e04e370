// Message templates: the SIP that the load generator sends, written once and patched in place for each message.
//
// Every request carries a Tag in its Via branch, so that a response finds its transaction: the responses' topmost Via
// is ours again (RFC 3261 18.1.2), whatever proxies were on the way.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ktrunk::bench {

enum class Method : char { kInvite = 'I', kAck = 'A', kBye = 'B', kMessage = 'M', kOptions = 'O' };
[[nodiscard]] std::string_view method_name(Method method);

// Names one transaction of a run: the place in the caller's table, how often that has been used, and the method.
struct Tag {
  std::uint32_t slot = 0;
  std::uint32_t generation = 0;
  Method method = Method::kOptions;

  static constexpr std::string_view kMark = "z9hG4bKktb";
  static constexpr std::size_t kDigits = 16;  // of slot and generation
  // Writes the digits without the method.
  void write(char* to) const;
  // The first one in a message; none when the message has none.
  [[nodiscard]] static std::optional<Tag> find(std::string_view message);
};

// What the messages of one run have in common.
struct MessageShape {
  std::string uri;      // Request-URI
  std::string sent_by;  // in Via and Contact
  std::string transport = "TLS";
  std::string run;                // part of every Call-ID
  std::size_t message_bytes = 0;  // requests are padded to it
};

// A request outside dialogs.
class RequestTemplate {
 public:
  RequestTemplate(const MessageShape& shape, Method method);
  [[nodiscard]] std::size_t bytes() const { return text_.size(); }
  // Writes bytes() octets.
  void write(char* to, Tag tag) const;

 private:
  std::string text_;
  std::array<std::size_t, 3> tags_{};  // where digits go: branch, From tag, Call-ID
};

// Requests within the dialog that a 200 to our INVITE has made: ACK and BYE.
class DialogTemplate {
 public:
  explicit DialogTemplate(const MessageShape& shape) : shape_(shape) {}
  static constexpr std::size_t kMaxBytes = 4096;
  // Writes at most kMaxBytes; 0: the response has no Contact or too long a route set. tag.method says which.
  [[nodiscard]] std::size_t write(char* to, std::string_view response, Tag tag) const;
  // The ACK to a final response that is not 2xx: hop by hop, of the INVITE's own transaction (RFC 3261 17.1.1.3).
  [[nodiscard]] std::size_t write_refused_ack(char* to, std::string_view response, Tag tag) const;

 private:
  MessageShape shape_;
};

}  // namespace ktrunk::bench
