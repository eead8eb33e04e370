// What only several tables together can tell: names, references, sockets that would clash.
#include <algorithm>
#include <optional>

#include "config/notation.h"
#include "config/tables.h"

namespace ktrunk::config {
namespace {

template <typename Named>
std::optional<std::size_t> place_of(const std::vector<Named>& tables, std::string_view name) {
  const auto found = std::ranges::find(tables, name, &Named::name);
  if (found == tables.end()) return std::nullopt;
  return static_cast<std::size_t>(found - tables.begin());
}

template <typename Named>
std::string names_of(const std::vector<Named>& tables, std::string_view what) {
  if (tables.empty()) return fmt::format("the name of a {}, but there is none", what);
  constexpr std::size_t kMostShown = 8;
  std::string names;
  for (const Named& table :
       tables.size() > kMostShown ? std::vector<Named>(tables.begin(), tables.begin() + kMostShown) : tables)
    names += fmt::format("{}'{}'", names.empty() ? "" : ", ", table.name);
  return fmt::format("the name of a {}: {}{}", what, names, tables.size() > kMostShown ? ", ..." : "");
}

// The id of the table that a key names; an invalid id, and a problem, when there is no such table.
template <typename Id, typename Named>
Id resolve(TableReader& reader, std::string_view key, const std::vector<Named>& tables, std::string_view what) {
  Id id;
  const std::string name = reader.text(key);
  if (name.empty()) return id;
  if (const auto place = place_of(tables, name)) {
    id.value = static_cast<decltype(id.value)>(*place);
  } else {
    reader.problem(key, fmt::format("no {} is named '{}'; expected {}", what, name, names_of(tables, what)));
  }
  return id;
}

// The trunks of a route, in the order of the text.
void resolve_to(TableReader& reader, Route& route, const std::vector<Trunk>& trunks) {
  for (const TextItem& item : reader.text_or_texts("to")) {
    const auto place = place_of(trunks, item.text);
    if (!place) {
      reader.problem(item, fmt::format("no trunk is named '{}'; expected {}", item.text, names_of(trunks, "trunk")));
      continue;
    }
    const TrunkId id{static_cast<std::uint16_t>(*place)};
    if (std::ranges::find(route.to, id) != route.to.end())
      reader.problem(item, fmt::format("'{}' is in the list already; expected each trunk once", item.text));
    route.to.push_back(id);
  }
}

template <typename Named>
void check_unique(const std::vector<Named>& tables, std::vector<TableReader>& readers) {
  for (std::size_t i = 1; i < tables.size(); ++i) {
    if (tables[i].name.empty()) continue;
    const auto first = place_of(tables, tables[i].name);
    if (first && *first < i)
      readers[i].problem("name", fmt::format("'{}' is taken by line {}; expected another name", tables[i].name,
                                             readers[*first].line("name")));
  }
}

// TLS and TCP listeners share TCP's ports.
void check_sockets(Draft& draft) {
  const auto datagram = [](const Listener& listener) { return listener.transport == Transport::kUdp; };
  const std::vector<Listener>& listeners = draft.config.listeners;
  for (std::size_t i = 1; i < listeners.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (listeners[i].address.empty() || listeners[i].address != listeners[j].address ||
          datagram(listeners[i]) != datagram(listeners[j]))
        continue;
      draft.listeners[i].problem("address",
                                 fmt::format("'{}' is taken by line {}; expected another address or port",
                                             listeners[i].address.text(), draft.listeners[j].line("address")));
      break;
    }
  }
}

ListenerId first_listener(const std::vector<Listener>& listeners, std::optional<Transport> transport) {
  const auto found = std::ranges::find_if(
      listeners, [&](const Listener& listener) { return !transport || listener.transport == *transport; });
  if (found == listeners.end()) return {};
  return {static_cast<std::uint16_t>(found - listeners.begin())};
}

void resolve_trunk(TableReader& reader, Trunk& trunk, const std::vector<Listener>& listeners) {
  std::optional<Transport> wanted;
  if (!trunk.targets.empty()) wanted = trunk.targets.front().transport;
  if (reader.has("listen")) {
    trunk.listener = resolve<ListenerId>(reader, "listen", listeners, "listener");
    if (wanted == Transport::kUdp && trunk.listener.valid() &&
        listeners[trunk.listener.value].transport != Transport::kUdp)
      reader.problem("listen", fmt::format("listener '{}' is not a udp one; expected one, for its socket sends to udp "
                                           "targets",
                                           listeners[trunk.listener.value].name));
    return;
  }
  trunk.listener = first_listener(listeners, wanted);
  if (trunk.listener.valid()) return;
  if (wanted == Transport::kUdp)
    return reader.problem("targets",
                          "a udp target, but no udp listener whose socket could send to it; expected a "
                          "[[listen]] with transport = \"udp\"");
  trunk.listener = first_listener(listeners, std::nullopt);
}

}  // namespace

void check_references(Draft& draft) {
  Config& config = draft.config;
  if (config.listeners.empty()) draft.problems.add(1, "listen", "missing; expected at least one [[listen]] table");
  check_unique(config.listeners, draft.listeners);
  check_unique(config.trunks, draft.trunks);
  check_sockets(draft);
  for (std::size_t i = 0; i < config.trunks.size(); ++i) {
    resolve_trunk(draft.trunks[i], config.trunks[i], config.listeners);
    resolve_peers(draft.trunks[i], config.trunks[i], config.listeners);
  }
  for (std::size_t i = 0; i < config.routes.size(); ++i) {
    Route& route = config.routes[i];
    TableReader& reader = draft.routes[i];
    route.from_trunk = resolve<TrunkId>(reader, "from_trunk", config.trunks, "trunk");
    route.from_listener = resolve<ListenerId>(reader, "from_listener", config.listeners, "listener");
    resolve_to(reader, route, config.trunks);
  }
  check_routes(draft);
}

}  // namespace ktrunk::config
