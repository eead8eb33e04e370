#include "sip/own_addresses.h"

namespace ktrunk::sip {

namespace {

std::string without_brackets(const std::string& host) {
  return host.starts_with('[') && host.ends_with(']') ? host.substr(1, host.size() - 2) : host;
}

}  // namespace

OwnAddresses::OwnAddresses(const config::Config& config) {
  for (const config::Listener& listener : config.listeners) {
    const std::string host =
        without_brackets(listener.advertise_host.empty() ? listener.address.ip() : listener.advertise_host);
    const std::uint16_t port = listener.advertise_port != 0 ? listener.advertise_port : listener.address.port();
    const bool is_ipv6 = host.find(':') != std::string::npos;
    sent_by_.push_back(fmt::format("{}:{}", is_ipv6 ? "[" + host + "]" : host, port));
    names_.push_back({host, port});
    if (!listener.address.empty()) names_.push_back({listener.address.ip(), listener.address.port()});
  }
  if (sent_by_.empty()) sent_by_.emplace_back("localhost:5060");
}

std::string_view OwnAddresses::sent_by(ListenerId listener) const {
  return sent_by_[listener.value < sent_by_.size() ? listener.value : 0];
}

bool OwnAddresses::is_us(const Uri& uri) const {
  for (const Name& name : names_)
    if ((uri.port == 0 || uri.port == name.port) && same_host(uri.host, name.host)) return true;
  return false;
}

}  // namespace ktrunk::sip
