// Configuration: any text is a configuration or an error that names file, line and key; the same text gives the same;
// what is accepted holds together, and a proxy can be made of it. Input: the text.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "config/config.h"
#include "sip/proxy.h"

namespace {

using namespace ktrunk;

void require(bool holds) {
  if (!holds) std::abort();
}

template <typename Id, typename Table>
bool names_one_or_none(Id id, const std::vector<Table>& tables) {
  return !id.valid() || id.value < tables.size();
}

void check(const config::Config& config) {
  require(config.workers >= 1 && config.workers <= config::kMaxWorkers);
  require(config.handshake_processes >= 1 && config.handshake_processes <= config::kMaxHandshakeProcesses);
  require(!config.listeners.empty() && config.listeners.size() <= config::kMaxListeners);
  require(config.trunks.size() <= config::kMaxTrunks);
  require(config.limits.max_queue_bytes >= config.limits.max_message_bytes);
  require(config.limits.max_header_bytes <= config::kMaxHeaderBytes);
  require(config.limits.max_headers <= config::kMaxHeaders && config.limits.max_vias <= config::kMaxVias);
  for (const config::Listener& listener : config.listeners) {
    require(!listener.address.empty() && listener.address.port() != 0);
    require(!listener.advertise_host.empty() && listener.advertise_port != 0);
    require((listener.transport == config::Transport::kTls) == !listener.tls.certificate.empty());
  }
  for (const config::Trunk& trunk : config.trunks) {
    require(!trunk.name.empty() && trunk.listener.valid() && names_one_or_none(trunk.listener, config.listeners));
    require(trunk.targets.size() <= config::kMaxTargets);
    require(!trunk.targets.empty() || !trunk.verify_name.empty() || !trunk.sources.empty());
    require(trunk.known_by == config::KnownBy::kAddress || !trunk.verify_name.empty() ||
            (!trunk.targets.empty() && !config::is_datagram(trunk)));
    for (const ListenerId listener : trunk.accept_on)
      require(listener.valid() && names_one_or_none(listener, config.listeners));
    std::uint16_t priority = 1;
    for (const config::Target& target : trunk.targets) {
      require((target.transport == config::Transport::kUdp) == config::is_datagram(trunk));
      require(target.weight >= 1 && target.priority >= priority);
      priority = target.priority;
    }
    require(config::connection_targets(trunk).empty() ==
            (trunk.targets.empty() || (config::is_datagram(trunk) && !config::is_large_by_tcp(trunk))));
    for (const config::Target& target : config::connection_targets(trunk))
      require(target.transport != config::Transport::kUdp);
    require(trunk.options_failures >= 1);
    require(trunk.connections >= 1 && trunk.connections <= config::kMaxTrunkConnections);
  }
  for (const config::Route& route : config.routes) {
    require(route.to.empty() == (route.reject != 0) && route.to.size() <= config::kMaxRouteTrunks);
    for (const TrunkId to : route.to) require(to.valid() && names_one_or_none(to, config.trunks));
    require(route.reject == 0 || (route.reject >= 400 && route.reject <= 699));
    require(route.add_headers.size() <= config::kMaxAddedHeaderBytes);
    require(route.add_headers.empty() || route.add_headers.ends_with("\r\n"));
    require(route.remove_headers.size() <= config::kMaxRouteHeaders);
    require(route.has_headers.size() <= config::kMaxRouteHeaders);
    require(route.rewrite_user_prefix.to.size() <= config::kMaxPrefixBytes);
    require(names_one_or_none(route.from_trunk, config.trunks));
    require(names_one_or_none(route.from_listener, config.listeners));
  }
  for (const config::FileReference& file : config.files) require(file.file.starts_with('/') && file.line > 0);
  const sip::Proxy proxy(config, sip::TokenKey{});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto first = config::parse(text, "/etc/k.toml");
  const auto second = config::parse(text, "/etc/k.toml");
  require(first.has_value() == second.has_value());
  if (!first) {
    require(first.error().what == second.error().what);
    require(first.error().what.find("/etc/k.toml") != std::string::npos);
    return 0;
  }
  check(*first);
  return 0;
}
