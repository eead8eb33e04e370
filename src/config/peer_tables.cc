// The keys of a trunk that say how its peers are known: sources, known_by, accept_on.
#include <algorithm>

#include "config/tables.h"

namespace ktrunk::config {
namespace {

bool has_transport(const Trunk& trunk, Transport transport) {
  return std::ranges::find(trunk.targets, transport, &Target::transport) != trunk.targets.end();
}

bool comes_by(const Trunk& trunk, const std::vector<Listener>& listeners, const auto& fits) {
  for (std::uint16_t i = 0; i < listeners.size(); ++i) {
    const bool named =
        trunk.accept_on.empty() || std::ranges::find(trunk.accept_on, ListenerId{i}) != trunk.accept_on.end();
    if (named && fits(listeners[i])) return true;
  }
  return false;
}

}  // namespace

void read_peers(TableReader& reader, Trunk& trunk) {
  for (const TextItem& item : reader.texts("sources")) {
    auto network = IpNetwork::parse(item.text);
    if (!network) {
      reader.problem(item, network.error().what);
    } else {
      trunk.sources.push_back(std::move(*network));
    }
  }
  if (trunk.sources.size() > kMaxSources)
    reader.problem("sources", fmt::format("{} sources; expected {} at most", trunk.sources.size(), kMaxSources));
  if (reader.has("sources") && reader.texts("sources").empty())
    reader.problem("sources", "no source; expected one or more, or no such key");

  (void)reader.texts("accept_on");  // resolved by resolve_peers()
  const bool incoming = !reader.has("targets");
  const bool named = reader.has("verify_name") || has_transport(trunk, Transport::kTls);
  const bool unnamed_incoming = incoming && reader.has("sources");
  trunk.known_by = reader.choice("known_by", {{"certificate", KnownBy::kCertificate}, {"address", KnownBy::kAddress}},
                                 named || (incoming && !unnamed_incoming) ? KnownBy::kCertificate : KnownBy::kAddress);
  if (trunk.known_by == KnownBy::kCertificate) {
    if (incoming && !reader.has("verify_name"))
      reader.missing("verify_name",
                     "the name in the peer's certificate, or sources, since there are no targets and the peer is known "
                     "by these alone");
    if (!incoming && !named)
      reader.problem("known_by", "no target is a \"tls:\" one, so there is no certificate; expected \"address\"");
    return;
  }
  if (reader.has("known_by") && trunk.sources.empty() && !has_transport(trunk, Transport::kUdp))
    reader.missing("sources", "[\"IP/PREFIX\", ...], the addresses that the peer is known by");
  if (incoming && reader.has("verify_name"))
    reader.problem("verify_name", "known_by is \"address\", and we never connect to this peer; expected sources alone");
}

void resolve_peers(TableReader& reader, Trunk& trunk, const std::vector<Listener>& listeners) {
  for (const TextItem& item : reader.texts("accept_on")) {
    const auto found = std::ranges::find(listeners, item.text, &Listener::name);
    if (found == listeners.end()) {
      reader.problem(item, fmt::format("no listener is named '{}'", item.text));
    } else {
      trunk.accept_on.push_back({static_cast<std::uint16_t>(found - listeners.begin())});
    }
  }
  const bool incoming = !reader.has("targets");
  if (trunk.known_by == KnownBy::kAddress) {
    if (!trunk.accept_on.empty() && trunk.sources.empty() && !has_transport(trunk, Transport::kUdp))
      reader.problem("accept_on", "nothing says who comes there; expected sources, too");
    return;
  }
  const bool possible = comes_by(trunk, listeners, [](const Listener& listener) {
    return listener.transport == Transport::kTls && listener.verify_client != ClientVerification::kOff;
  });
  if (possible) return;
  if (incoming && !trunk.verify_name.empty())
    reader.problem("verify_name",
                   "no listener asks for client certificates, so this trunk's peer can never be known; "
                   "expected targets, sources with known_by = \"address\", or a tls listener with verify_client");
  for (const std::string_view key : {"sources", "accept_on"}) {
    if (!incoming && reader.has(key))
      reader.problem(key,
                     "no listener that its peers may come by asks for client certificates; expected known_by = "
                     "\"address\", or a tls listener with verify_client");
  }
}

}  // namespace ktrunk::config
