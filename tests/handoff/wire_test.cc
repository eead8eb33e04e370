// What is and what is not a message of the handoff contract.
#include "handoff/wire.h"

#include <gtest/gtest.h>

namespace ktrunk::handoff {
namespace {

using Buffer = std::array<std::byte, kMaxBodyBytes>;

template <Body T>
Buffer buffer_of(const T& body) {
  Buffer buffer{};
  std::memcpy(buffer.data(), &body, sizeof body);
  return buffer;
}

Request good_request() {
  Request request;
  request.number = 7;
  request.role = Role::kConnect;
  request.context = Text<128>("pbx");
  request.host = Text<256>("pbx.example");
  return request;
}

Answer good_answer() {
  Answer answer;
  answer.number = 7;
  answer.outcome = Outcome::kDone;
  answer.version = Version::kTls13;
  answer.record_layer = RecordLayer::kKernel;
  answer.names_total = 1;
  answer.names[0] = Text<264>("sip:pbx.example");
  return answer;
}

template <Body T>
bool parses(const T& body) {
  return parse<T>(header_of(body), buffer_of(body), sizeof(Header) + sizeof(T)).has_value();
}

TEST(HandoffWire, TakesWhatIsRight) {
  const auto request =
      parse<Request>(header_of(Request{}), buffer_of(good_request()), sizeof(Header) + sizeof(Request));
  ASSERT_TRUE(request);
  EXPECT_EQ(request->number, 7u);
  EXPECT_EQ(request->context.view(), "pbx");
  EXPECT_EQ(request->host.view(), "pbx.example");
  EXPECT_TRUE(parses(good_answer()));
}

TEST(HandoffWire, RefusesEveryOtherLength) {
  for (std::size_t bytes = 0; bytes < sizeof(Header) + kMaxBodyBytes; ++bytes) {
    const bool taken = parse<Request>(header_of(Request{}), buffer_of(good_request()), bytes).has_value();
    EXPECT_EQ(taken, bytes == sizeof(Header) + sizeof(Request)) << bytes;
  }
  Header header = header_of(Request{});
  header.body_bytes -= 1;
  EXPECT_FALSE(parse<Request>(header, buffer_of(good_request()), sizeof(Header) + sizeof(Request)));
  EXPECT_FALSE(parse<Request>(header, buffer_of(good_request()), sizeof(Header) + sizeof(Request) - 1));
}

TEST(HandoffWire, RefusesOtherVersionsAndKinds) {
  for (const unsigned version : {0u, 2u, 0xffffu}) {
    Header header = header_of(Request{});
    header.version = static_cast<std::uint16_t>(version);
    EXPECT_FALSE(parse<Request>(header, buffer_of(good_request()), sizeof(Header) + sizeof(Request))) << version;
  }
  for (const unsigned kind : {0u, 2u, 3u, 0xffffu}) {
    Header header = header_of(Request{});
    header.kind = static_cast<Kind>(kind);
    EXPECT_FALSE(parse<Request>(header, buffer_of(good_request()), sizeof(Header) + sizeof(Request))) << kind;
  }
}

TEST(HandoffWire, RefusesUnknownValues) {
  const auto broken_request = [](auto change) {
    Request request = good_request();
    change(request);
    return !parses(request);
  };
  EXPECT_TRUE(broken_request([](Request& r) { r.role = static_cast<Role>(0); }));
  EXPECT_TRUE(broken_request([](Request& r) { r.role = static_cast<Role>(3); }));
  EXPECT_TRUE(broken_request([](Request& r) { r.relay = static_cast<Relay>(2); }));
  EXPECT_TRUE(broken_request([](Request& r) { r.keys = static_cast<Keys>(2); }));
  EXPECT_TRUE(broken_request([](Request& r) { r.reserved.back() = 1; }));
  EXPECT_TRUE(broken_request([](Request& r) { r.context.bytes.fill('x'); }));
  EXPECT_TRUE(broken_request([](Request& r) { r.host.bytes.fill('x'); }));
  const auto broken_answer = [](auto change) {
    Answer answer = good_answer();
    change(answer);
    return !parses(answer);
  };
  EXPECT_TRUE(broken_answer([](Answer& a) { a.outcome = static_cast<Outcome>(0); }));
  EXPECT_TRUE(broken_answer([](Answer& a) { a.outcome = static_cast<Outcome>(3); }));
  EXPECT_TRUE(broken_answer([](Answer& a) { a.version = static_cast<Version>(3); }));
  EXPECT_TRUE(broken_answer([](Answer& a) { a.record_layer = static_cast<RecordLayer>(3); }));
  EXPECT_TRUE(broken_answer([](Answer& a) { a.session = static_cast<Session>(2); }));
  EXPECT_TRUE(broken_answer([](Answer& a) { a.sent.seen = static_cast<AlertSeen::Seen>(2); }));
  EXPECT_TRUE(broken_answer([](Answer& a) { a.received.seen = static_cast<AlertSeen::Seen>(2); }));
  EXPECT_TRUE(broken_answer([](Answer& a) { a.reserved[0] = 1; }));
  EXPECT_TRUE(broken_answer([](Answer& a) { a.cipher.bytes.fill('x'); }));
  EXPECT_TRUE(broken_answer([](Answer& a) { a.names[3].bytes.fill('x'); }));
  EXPECT_TRUE(broken_answer([](Answer& a) { a.what.bytes.fill('x'); }));
}

}  // namespace
}  // namespace ktrunk::handoff
