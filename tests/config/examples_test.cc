// The examples are configurations: each parses, and between them they show every key.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "config/config.h"

namespace ktrunk::config {
namespace {

TEST(ExamplesTest, EveryExampleParses) {
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(KTRUNK_EXAMPLES)) {
    if (entry.path().extension() != ".toml") continue;
    ++found;
    const auto text = read_file(entry.path().string());
    ASSERT_TRUE(text) << text.error().what;
    const auto config = parse(*text, entry.path().string());
    ASSERT_TRUE(config) << config.error().what;
    EXPECT_FALSE(config->trunks.empty()) << entry.path();
    EXPECT_FALSE(config->routes.empty()) << entry.path();
  }
  EXPECT_GE(found, 8);
}

TEST(ExamplesTest, EveryKeyIsShown) {
  std::string all;
  for (const auto& entry : std::filesystem::directory_iterator(KTRUNK_EXAMPLES)) {
    if (entry.path().extension() == ".toml") all += read_file(entry.path().string()).value_or("");
  }
  for (const std::string key : {"workers",
                                "record_layer",
                                "control",
                                "log_format",
                                "log_level",
                                "max_connections",
                                "max_message_bytes",
                                "max_header_bytes",
                                "max_headers",
                                "max_vias",
                                "max_queue_bytes",
                                "stalled_peer",
                                "partial_message",
                                "handshake",
                                "drain",
                                "handshake_processes",
                                "user",
                                "ticket_rotation",
                                "handshakes",
                                "handshakes_per_address",
                                "token_key_file",
                                "sources",
                                "known_by",
                                "accept_on",
                                "handshake_rate",
                                "connections_per_address",
                                "key_records",
                                "crl",
                                "ocsp",
                                "groups",
                                "alpn",
                                "client_purpose",
                                "names",
                                "name",
                                "transport",
                                "address",
                                "advertise",
                                "certificate",
                                "key",
                                "ca",
                                "verify_client",
                                "min_version",
                                "max_version",
                                "ciphers",
                                "ciphersuites",
                                "tickets",
                                "targets",
                                "verify_name",
                                "connections",
                                "listen",
                                "from_trunk",
                                "from_listener",
                                "methods",
                                "user_prefix",
                                "user_match",
                                "host",
                                "has_headers",
                                "to",
                                "rewrite_user_prefix",
                                "rewrite_host",
                                "remove_headers",
                                "add_headers",
                                "reject",
                                "reason"})
    EXPECT_NE(all.find(key + " = "), std::string::npos) << key;
}

}  // namespace
}  // namespace ktrunk::config
