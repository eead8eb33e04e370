// Calls through ktrunkd in every mix of transports, as they look on the wire.
#include "system/daemon_fixture.h"

namespace ktrunk::test {
namespace {

using namespace std::string_view_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::MatchesRegex;
using testing::SizeIs;
using testing::StartsWith;

// What a body may hold, and a lax proxy would stumble over.
constexpr std::string_view kBody =
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\n\r\n\r\nBYE sip:a@b SIP/2.0\r\nContent-Length: 7\r\n\r\n\0\x01\x7f\x80\xff end"sv;

struct Mix {
  const char* name;
  const char* caller;
  const char* callee;
  int version = TLS1_3_VERSION;  // of the caller's TLS
};
void PrintTo(const Mix& mix, std::ostream* out) { *out << mix.name; }

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(c));
  return text;
}

class DaemonCalls : public DaemonTest, public testing::WithParamInterface<Mix> {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(start());
    caller_ = make_caller(GetParam().caller);
    callee_ = make_callee(GetParam().callee);
    ASSERT_TRUE(caller_ && callee_);
  }

  std::unique_ptr<Leg> make_caller(const std::string& transport) {
    if (transport == "UDP") {
      auto socket = SipDatagrams::bind(fresh_address());
      if (!socket) return nullptr;
      return std::make_unique<Leg>(std::move(*socket), edge_udp_);
    }
    if (transport == "TCP") {
      auto stream = call_in_tcp();
      return stream ? std::make_unique<Leg>(transport, std::move(stream)) : nullptr;
    }
    TlsOptions options = as_carrier();
    options.min_version = options.max_version = GetParam().version;
    auto stream = call_in(options);
    return stream ? std::make_unique<Leg>(transport, std::move(stream)) : nullptr;
  }

  std::unique_ptr<Leg> make_callee(const std::string& transport) {
    if (transport == "UDP") return std::make_unique<Leg>(std::move(*pbx_udp_), edge_udp_);
    auto& stream = transport == "TCP" ? pbx_tcp_ : pbx_tls_;
    // The SipStream has read nothing yet: its stream may be taken.
    struct Borrowed final : ByteStream {
      explicit Borrowed(ByteStream& it) : stream(it) {}
      Result<std::string> read_some(milliseconds timeout) override { return stream.read_some(timeout); }
      Status write_all(std::string_view bytes, milliseconds timeout) override {
        return stream.write_all(bytes, timeout);
      }
      Status finish() override { return stream.finish(); }
      int fd() const override { return stream.fd(); }
      ByteStream& stream;
    };
    return std::make_unique<Leg>(transport, std::make_unique<Borrowed>(stream->stream()));
  }

  std::string edge(const std::string& transport) const {
    return (transport == "UDP" ? edge_udp_ : transport == "TCP" ? edge_tcp_ : edge_tls_).text();
  }
  std::string callee_host() const { return lower(GetParam().callee) + ".test"; }

  SipMessage invite(const std::string& call) const {
    SipMessage message = make_request({.method = "INVITE",
                                       .uri = "sip:bob@" + callee_host(),
                                       .transport = caller_->transport(),
                                       .sent_by = caller_->sent_by(),
                                       .branch = "z9hG4bK-invite-" + call,
                                       .call_id = "call-" + call,
                                       .body = std::string(kBody)});
    message.add("X-Folded", "one,\r\n two");
    return message;
  }

  // A request inside the dialog, with the route set as its sender keeps it.
  SipMessage in_dialog(const Leg& sender, const std::string& method, const std::string& uri,
                       const std::vector<std::string>& route, const SipMessage& like, unsigned cseq) const {
    SipMessage message = make_request({.method = method,
                                       .uri = uri,
                                       .transport = sender.transport(),
                                       .sent_by = sender.sent_by(),
                                       .branch = "",
                                       .call_id = like.header("Call-ID"),
                                       .from = like.header("From"),
                                       .to = like.header("To"),
                                       .cseq = cseq,
                                       .body = ""});
    for (const std::string& entry : route) message.add("Route", entry);
    return message;
  }

  // Sends and gives what comes out on the other side.
  SipMessage pass(Leg& from, Leg& to, const SipMessage& message) {
    if (const Status sent = from.send(message); !sent) {
      ADD_FAILURE() << sent.error().what;
      return {};
    }
    auto received = to.receive();
    if (received) return std::move(*received);
    ADD_FAILURE() << message.start_line << ": " << received.error().what << "\n" << daemon_->log();
    return {};
  }

  // Answers a request that arrived at `from`; the answer that comes out has one Via, the sender's own.
  SipMessage answer(Leg& from, Leg& to, const SipMessage& request, int code, const std::string& reason) {
    SipMessage response = make_response(request, code, reason);
    if (request.method() == "INVITE")
      response.add("Contact", fmt::format("<sip:bob@{};transport={}>", from.sent_by(), lower(from.transport())));
    SipMessage received = pass(from, to, response);
    EXPECT_EQ(received.status(), code);
    EXPECT_THAT(received.all("Via"), ElementsAre(request.all("Via").back()));
    EXPECT_EQ(received.all("Record-Route"), response.all("Record-Route"));
    return received;
  }

  // What the proxy owes to a forwarded request.
  void check_forwarded(const SipMessage& sent, const SipMessage& got, const Leg& from, const Leg& to) const {
    EXPECT_EQ(got.start_line, sent.start_line);
    EXPECT_EQ(got.body, sent.body);
    EXPECT_EQ(got.header("Content-Length"), std::to_string(sent.body.size()));
    EXPECT_EQ(got.header("Max-Forwards"), "69");
    EXPECT_THAT(got.all("Route"), IsEmpty());
    const auto vias = got.all("Via");
    ASSERT_THAT(vias, SizeIs(2)) << got.text();
    EXPECT_THAT(vias[0], StartsWith(fmt::format("SIP/2.0/{} {};", to.transport(), edge(to.transport()))));
    EXPECT_THAT(vias[0], HasSubstr(";branch=z9hG4bK"));
    const std::string ip = from.sent_by().substr(0, from.sent_by().find(':'));
    const std::string port = from.sent_by().substr(from.sent_by().find(':') + 1);
    const std::string theirs = sent.header("Via");  // ends with ";rport"
    EXPECT_EQ(vias[1], theirs + "=" + port + ";received=" + ip);
  }

  void check_record_route(const SipMessage& got) const {
    const auto lines = got.all("Record-Route");
    const auto expected = [&](const Leg& side) {
      return fmt::format("<sip:[^@]+@{};transport={};lr>", edge(side.transport()), lower(side.transport()));
    };
    if (caller_->transport() == callee_->transport()) {
      EXPECT_THAT(lines, ElementsAre(MatchesRegex(expected(*callee_))));
    } else {
      EXPECT_THAT(lines, ElementsAre(MatchesRegex(expected(*callee_)), MatchesRegex(expected(*caller_))));
    }
  }

  struct Dialog {
    SipMessage at_callee;  // the INVITE
    SipMessage at_caller;  // its 200
  };
  Dialog set_up(const std::string& call) {
    const SipMessage sent = invite(call);
    Dialog dialog;
    dialog.at_callee = pass(*caller_, *callee_, sent);
    check_forwarded(sent, dialog.at_callee, *caller_, *callee_);
    check_record_route(dialog.at_callee);
    answer(*callee_, *caller_, dialog.at_callee, 100, "Trying");
    answer(*callee_, *caller_, dialog.at_callee, 180, "Ringing");
    dialog.at_caller = answer(*callee_, *caller_, dialog.at_callee, 200, "OK");

    const SipMessage ack = in_dialog(*caller_, "ACK", callee_uri(), caller_route(dialog), dialog.at_caller, 1);
    check_forwarded(ack, pass(*caller_, *callee_, ack), *caller_, *callee_);
    return dialog;
  }
  static std::vector<std::string> caller_route(const Dialog& dialog) {
    auto route = dialog.at_caller.all("Record-Route");
    std::ranges::reverse(route);
    return route;
  }
  std::string callee_uri() const {
    return fmt::format("sip:bob@{};transport={}", callee_->sent_by(), lower(callee_->transport()));
  }

  std::unique_ptr<Leg> caller_;
  std::unique_ptr<Leg> callee_;
};

TEST_P(DaemonCalls, TheCalleeEndsTheCall) {
  const Dialog dialog = set_up("callee");
  SipMessage seen = dialog.at_caller;
  seen.set("From", dialog.at_caller.header("To"));
  seen.set("To", dialog.at_caller.header("From"));
  const SipMessage bye =
      in_dialog(*callee_, "BYE", "sip:alice@" + caller_->sent_by(), dialog.at_callee.all("Record-Route"), seen, 7);
  const SipMessage at_caller = pass(*callee_, *caller_, bye);
  check_forwarded(bye, at_caller, *callee_, *caller_);
  EXPECT_THAT(at_caller.all("Record-Route"), IsEmpty());
  answer(*caller_, *callee_, at_caller, 200, "OK");
}

TEST_P(DaemonCalls, TheCallerEndsTheCall) {
  const Dialog dialog = set_up("caller");
  const SipMessage bye = in_dialog(*caller_, "BYE", callee_uri(), caller_route(dialog), dialog.at_caller, 2);
  const SipMessage at_callee = pass(*caller_, *callee_, bye);
  check_forwarded(bye, at_callee, *caller_, *callee_);
  answer(*callee_, *caller_, at_callee, 200, "OK");
}

TEST_P(DaemonCalls, TheCallIsCancelled) {
  const SipMessage sent = invite("cancelled");
  const SipMessage at_callee = pass(*caller_, *callee_, sent);
  answer(*callee_, *caller_, at_callee, 180, "Ringing");

  SipMessage cancel = sent;
  cancel.start_line = "CANCEL " + sent.request_uri() + " SIP/2.0";
  cancel.set("CSeq", "1 CANCEL");
  cancel.remove("Contact");
  cancel.remove("Content-Type");
  cancel.body.clear();
  const SipMessage cancel_at_callee = pass(*caller_, *callee_, cancel);
  // RFC 3261 9.1: it is matched to the INVITE by the top Via.
  EXPECT_EQ(cancel_at_callee.header("Via"), at_callee.header("Via"));
  answer(*callee_, *caller_, cancel_at_callee, 200, "OK");

  const SipMessage refused = answer(*callee_, *caller_, at_callee, 487, "Request Terminated");
  SipMessage ack = cancel;
  ack.start_line = "ACK " + sent.request_uri() + " SIP/2.0";
  ack.set("CSeq", "1 ACK");
  ack.set("To", refused.header("To"));
  const SipMessage ack_at_callee = pass(*caller_, *callee_, ack);
  EXPECT_EQ(ack_at_callee.method(), "ACK");
  EXPECT_EQ(ack_at_callee.header("Via"), at_callee.header("Via"));
}

INSTANTIATE_TEST_SUITE_P(Mixes, DaemonCalls,
                         testing::Values(Mix{"TlsToTls", "TLS", "TLS"}, Mix{"Tls12ToTls", "TLS", "TLS", TLS1_2_VERSION},
                                         Mix{"TlsToTcp", "TLS", "TCP"}, Mix{"TcpToTls", "TCP", "TLS"},
                                         Mix{"UdpToTls", "UDP", "TLS"}, Mix{"TlsToUdp", "TLS", "UDP"}),
                         [](const auto& mix) { return mix.param.name; });

}  // namespace
}  // namespace ktrunk::test
