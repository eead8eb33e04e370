#include "handshake/service_records.h"

#include <fmt/format.h>
#include <strings.h>

#include <algorithm>
#include <tuple>

namespace ktrunk::handshake {
namespace {

struct Service {
  const char* labels;  // of the SRV name
  const char* naptr;
};

Service service_of(config::Transport transport) {
  switch (transport) {
    case config::Transport::kTls:
      return {"_sips._tcp", "SIPS+D2T"};
    case config::Transport::kTcp:
      return {"_sip._tcp", "SIP+D2T"};
    case config::Transport::kUdp:
      return {"_sip._udp", "SIP+D2U"};
  }
  std::unreachable();
}

bool same_text(const std::string& a, const char* b) { return ::strcasecmp(a.c_str(), b) == 0; }

}  // namespace

std::string srv_name(config::Transport transport, std::string_view host) {
  return fmt::format("{}.{}", service_of(transport).labels, host);
}

std::optional<std::string> srv_name_of(const std::vector<NaptrRecord>& records, config::Transport transport) {
  const NaptrRecord* best = nullptr;
  for (const NaptrRecord& record : records) {
    if (!same_text(record.flags, "s") || !same_text(record.service, service_of(transport).naptr)) continue;
    if (record.replacement.empty() || record.replacement == ".") continue;
    if (best == nullptr || std::tie(record.order, record.preference) < std::tie(best->order, best->preference))
      best = &record;
  }
  if (best == nullptr) return std::nullopt;
  return best->replacement;
}

void order_servers(std::vector<SrvRecord>& records, std::size_t most, std::minstd_rand& random) {
  // Those of weight 0 first, so that they have a small chance where others have a weight.
  std::ranges::sort(records, [](const SrvRecord& a, const SrvRecord& b) {
    return std::tie(a.priority, a.weight) < std::tie(b.priority, b.weight);
  });
  for (std::size_t place = 0; place < records.size() && place < most; ++place) {
    std::size_t end = place;
    std::uint32_t sum = 0;
    for (; end < records.size() && records[end].priority == records[place].priority; ++end) sum += records[end].weight;
    std::uint32_t drawn = std::uniform_int_distribution<std::uint32_t>(0, sum)(random);
    std::size_t chosen = place;
    while (chosen + 1 < end && records[chosen].weight < drawn) drawn -= records[chosen++].weight;
    std::rotate(records.begin() + static_cast<std::ptrdiff_t>(place),
                records.begin() + static_cast<std::ptrdiff_t>(chosen),
                records.begin() + static_cast<std::ptrdiff_t>(chosen) + 1);
  }
  if (records.size() > most) records.resize(most);
}

}  // namespace ktrunk::handshake
