#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "support/sip_peer.h"

namespace ktrunk::test {
namespace {

using testing::ElementsAre;

TEST(SipMessageTest, ARequestAndItsResponse) {
  const SipMessage request =
      make_request({.method = "INVITE", .branch = "z9hG4bKx", .call_id = "c1", .body = "v=0\r\n"});
  EXPECT_EQ(request.text(),
            "INVITE sip:bob@example.com SIP/2.0\r\n"
            "Via: SIP/2.0/TLS 127.0.0.1:5061;branch=z9hG4bKx;rport\r\n"
            "Max-Forwards: 70\r\n"
            "From: <sip:alice@example.com>;tag=a1\r\n"
            "To: <sip:bob@example.com>\r\n"
            "Call-ID: c1\r\n"
            "CSeq: 1 INVITE\r\n"
            "Contact: <sip:alice@127.0.0.1:5061>\r\n"
            "Content-Type: application/sdp\r\n"
            "Content-Length: 5\r\n\r\nv=0\r\n");
  const SipMessage response = make_response(request, 180, "Ringing");
  EXPECT_FALSE(response.is_request());
  EXPECT_EQ(response.status(), 180);
  EXPECT_EQ(response.method(), "INVITE");
  EXPECT_EQ(response.header("to"), "<sip:bob@example.com>;tag=b1");
  EXPECT_EQ(response.header("v"), request.header("Via"));
}

TEST(SipMessageTest, ParsesWhatItWrites) {
  const SipMessage request = make_request({.method = "MESSAGE", .body = "hello"});
  const auto parsed = SipMessage::parse(request.text());
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->text(), request.text());
  EXPECT_EQ(parsed->method(), "MESSAGE");
  EXPECT_EQ(parsed->request_uri(), "sip:bob@example.com");
}

TEST(SipMessageTest, FoldedAndCompactHeaders) {
  const auto parsed = SipMessage::parse("SIP/2.0 200 OK\r\nv: one\r\nVIA :\ttwo\r\n  more\r\nl: 0\r\n\r\n");
  ASSERT_TRUE(parsed);
  EXPECT_THAT(parsed->all("Via"), ElementsAre("one", "two more"));
  EXPECT_EQ(parsed->header("Content-Length"), "0");
  EXPECT_FALSE(SipMessage::parse("SIP/2.0 200 OK\r\nno colon\r\n\r\n"));
  EXPECT_FALSE(SipMessage::parse("SIP/2.0 200 OK\r\n"));
}

class StreamPair : public testing::Test {
 protected:
  void SetUp() override {
    const auto listener = TcpListener::bind(free_address());
    ASSERT_TRUE(listener);
    auto near = TcpStream::connect(listener->address());
    ASSERT_TRUE(near);
    auto far = listener->accept();
    ASSERT_TRUE(far);
    near_ = std::make_unique<SipStream>(std::move(*near));
    far_ = std::make_unique<SipStream>(std::make_unique<TcpStream>(std::move(*far)));
  }
  void TearDown() override {
    near_.reset();
    far_.reset();
  }
  std::unique_ptr<SipStream> near_;
  std::unique_ptr<SipStream> far_;
};

TEST_F(StreamPair, MessagesAreFramedWhateverThePieces) {
  const std::string text =
      "\r\n\r\n" + make_request({.call_id = "1", .body = "abc"}).text() + make_request({.call_id = "2"}).text();
  for (const char c : text) ASSERT_TRUE(near_->send_bytes({&c, 1}));
  auto first = far_->receive();
  ASSERT_TRUE(first) << first.error().what;
  EXPECT_EQ(first->header("Call-ID"), "1");
  EXPECT_EQ(first->body, "abc");
  EXPECT_EQ(far_->receive()->header("Call-ID"), "2");
  EXPECT_EQ(far_->crlfs_seen(), 2);
}

TEST_F(StreamPair, ExchangeSkipsProvisionalResponses) {
  const SipMessage request = make_request({.method = "INVITE"});
  ASSERT_TRUE(far_->send(make_response(request, 100, "Trying")));
  ASSERT_TRUE(far_->send(make_response(request, 486, "Busy Here")));
  const auto final = near_->exchange(request);
  ASSERT_TRUE(final) << final.error().what;
  EXPECT_EQ(final->status(), 486);
  EXPECT_EQ(far_->receive()->method(), "INVITE");
}

TEST_F(StreamPair, TheEndIsSeen) {
  ASSERT_TRUE(near_->stream().finish());
  const auto end = far_->receive_or_end();
  ASSERT_TRUE(end);
  EXPECT_FALSE(*end);
  ASSERT_TRUE(far_->send_bytes("SIP/2.0 200"));
  ASSERT_TRUE(far_->stream().finish());
  EXPECT_FALSE(near_->receive_or_end()) << "it ended inside a message";
}

TEST(SipDatagramsTest, ThereAndBack) {
  const auto a = SipDatagrams::bind(free_address());
  const auto b = SipDatagrams::bind(free_address());
  ASSERT_TRUE(a && b);
  const SipMessage request = make_request({.transport = "UDP", .sent_by = a->address().text()});
  ASSERT_TRUE(a->send(request, b->address()));
  const auto received = b->receive();
  ASSERT_TRUE(received) << received.error().what;
  EXPECT_EQ(received->second, a->address());
  ASSERT_TRUE(b->send(make_response(received->first, 200, "OK"), received->second));
  EXPECT_EQ(a->receive()->first.status(), 200);
  EXPECT_EQ(a->receive(milliseconds(20)).error().code, ETIMEDOUT);
}

}  // namespace
}  // namespace ktrunk::test
