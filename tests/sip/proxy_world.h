// A proxy with three listeners and three trunks, and what the tests do with it over and over.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "sip/proxy.h"

namespace ktrunk::sip::testing {

// LF becomes CRLF, so that messages can be written as raw strings. A leading newline is taken away.
std::string crlf(std::string_view text);

// The header fields of that name, whole values, in order.
std::vector<std::string> headers(std::string_view message, std::string_view name);

// The same flow with other numbers.
Flow stream_flow(std::uint32_t slot, TrunkId trunk, ListenerId listener, std::string_view ip, std::uint16_t port);
Flow udp_flow(TrunkId trunk, ListenerId listener, std::string_view ip, std::uint16_t port);

config::Config make_config();
TokenKey make_key();

// Listeners: 0 TLS edge.example.net:5061, 1 UDP 192.0.2.10:5060, 2 TCP [2001:db8::10]:5060.
// Trunks: 0 carrier (TLS), 1 pbx (UDP), 2 six (TCP). Routes: from the carrier to the pbx; from listener 1 INVITE of
// +49 to the carrier; host six.example.net to six.
struct World {
  config::Config config = make_config();
  Proxy proxy{config, make_key()};
  Flow carrier = stream_flow(7, TrunkId{0}, ListenerId{0}, "203.0.113.5", 5061);
  Flow pbx = udp_flow(TrunkId{1}, ListenerId{1}, "192.0.2.77", 5060);
  Flow six = stream_flow(9, TrunkId{2}, ListenerId{2}, "2001:db8::99", 5070);
  Flow stranger = stream_flow(30, TrunkId{}, ListenerId{0}, "198.51.100.4", 40000);
  Edits edits;
  Message message;

  Decision decide(std::string_view bytes, const Flow& source);
  // Decides, checks that the request goes on, and gives the bytes as they are sent to destination.
  std::string forward(std::string_view bytes, const Flow& source, const Flow& destination);
  // Decides a response; gives the bytes as they are sent, and where to. Empty when it is dropped.
  std::string respond(std::string_view bytes, const Flow& source, Flow* to = nullptr);
  std::string reply_to(std::string_view bytes, const Flow& source, const Reply& reply);
  std::string written() const;  // the current message with the current edits, after checking both forms against size()
};

// The status that decide() replies with; 0 for Drop, 1 for ToTrunk, 2 for ToFlow.
int verdict(const Decision& decision);

inline constexpr int kDropped = 0;
inline constexpr int kSentToTrunk = 1;
inline constexpr int kSentToFlow = 2;

// A plain INVITE as the pbx sends it; extra: whole header lines.
std::string invite(std::string_view extra = "", std::string_view uri = "sip:+4930123@carrier.example.org");
// A response to a request as its receiver makes it: Via, Record-Route, From, To (with a tag), Call-ID, CSeq copied.
std::string response_to(std::string_view request, int status, std::string_view to_tag, std::string_view contact);

}  // namespace ktrunk::sip::testing
