// ktrunk: the command line. It talks to ktrunkd by the control socket alone.
#include <fcntl.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <string>

#include "base/programs.h"
#include "cli/config_report.h"
#include "cli/control_client.h"
#include "cli/reload_report.h"
#include "cli/route_report.h"
#include "cli/status_report.h"
#include "cli/table.h"
#include "cli/trace.h"
#include "cli/upgrade_report.h"
#include "config/config.h"

namespace {

constexpr int kDone = 0;
constexpr int kFailed = 1;
constexpr int kWrongUse = 2;

using ktrunk::Error;
using ktrunk::Result;
using ktrunk::Status;

int complain(const Error& error) {
  fmt::print(stderr, "ktrunk: {}\n", ktrunk::cli::printable(error.what));
  return kFailed;
}

// Writes to standard output; a reader that has gone away (a pipe to head, say) is an error too.
int print(const std::string& text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  return written ? kDone : kFailed;
}

Result<ktrunk::config::Config> load(const std::string& path) {
  const Result<std::string> text = ktrunk::config::read_file(path);
  if (!text) return std::unexpected(text.error());
  return ktrunk::config::parse(*text, path);
}

int check(const std::string& path) {
  const Result<ktrunk::config::Config> config = load(path);
  if (!config) return complain(config.error());
  if (const Status status = ktrunk::config::check_files(*config); !status) return complain(status.error());
  // Whether keys, certificates and ciphers work is for the one program with OpenSSL to say.
  if (const Status status = ktrunk::run_check(ktrunk::find_programs().handshake, path); !status)
    return complain(status.error());
  return print(ktrunk::cli::config_report(*config));
}

struct RouteOptions {
  std::string config;
  std::string trunk;
  std::string listener;
  std::string peer = "192.0.2.1:5060";
};

int route(const RouteOptions& options) {
  const Result<ktrunk::config::Config> config = load(options.config);
  if (!config) return complain(config.error());
  const auto peer = ktrunk::Address::parse(options.peer);
  if (!peer) return complain(peer.error());
  std::string message(ktrunk::config::kMaxMessageBytes + 1, '\0');
  message.resize(std::fread(message.data(), 1, message.size(), stdin));
  if (message.size() > config->limits.max_message_bytes)
    return complain({.what = "the message is longer than limits.max_message_bytes"});
  const auto report = ktrunk::cli::route_report(*config, message,
                                                {.trunk = options.trunk, .listener = options.listener, .peer = *peer});
  if (!report) return complain(report.error());
  const int printed = print(report->summary + "\n" + report->octets);
  return report->what == ktrunk::cli::RouteReport::What::kForwarded ? printed : kFailed;
}

enum class StatusFormat { kTables, kJson };

// Where ktrunkd is to be found.
struct SocketOptions {
  std::string socket = ktrunk::config::Config{}.control_socket;
  std::string config;  // when set, says where the socket is

  void add_to(CLI::App& command) {
    CLI::Option* option = command.add_option("--socket", socket, "the control socket's path");
    option->capture_default_str();
    command.add_option("--config", config, "take the control socket's path from this configuration")->excludes(option);
  }
  [[nodiscard]] Result<std::string> path() const {
    if (config.empty()) return socket;
    const Result<ktrunk::config::Config> loaded = load(config);
    if (!loaded) return std::unexpected(loaded.error());
    return loaded->control_socket;
  }
};

int status(const SocketOptions& where, StatusFormat format) {
  const Result<std::string> socket = where.path();
  if (!socket) return complain(socket.error());
  const auto answer = ktrunk::cli::ask(*socket, "status");
  if (!answer) return complain(answer.error());
  if (format == StatusFormat::kTables) return print(ktrunk::cli::status_report(*answer));
  return print(answer->dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

int reload(const SocketOptions& where) {
  const Result<std::string> socket = where.path();
  if (!socket) return complain(socket.error());
  const auto answer = ktrunk::cli::ask(*socket, "reload", ktrunk::cli::kReloadTimeout);
  if (!answer) return complain(answer.error());
  const ktrunk::cli::ReloadReport report = ktrunk::cli::reload_report(*answer);
  if (report.done) return print(report.text);
  fmt::print(stderr, "{}", report.text);
  return kFailed;
}

enum class Wait { kNo, kYes };

int drain(const SocketOptions& where, Wait wait) {
  const Result<std::string> socket = where.path();
  if (!socket) return complain(socket.error());
  const auto answer = ktrunk::cli::ask(*socket, "drain");
  if (!answer) return complain(answer.error());
  if (!answer->is_object() || !answer->contains("pid") || !(*answer)["pid"].is_number_integer())
    return complain({.what = "ktrunkd's answer to 'drain' does not name its process"});
  const pid_t pid = (*answer)["pid"].get<pid_t>();
  if (const int printed = print(fmt::format("draining: ktrunkd (pid {}) takes nothing new, and ends\n", pid));
      wait == Wait::kNo || printed != kDone)
    return printed;
  if (const Status status = ktrunk::cli::wait_for_end(pid); !status) return complain(status.error());
  return print("ktrunkd has ended\n");
}

int upgrade(const SocketOptions& where) {
  const Result<std::string> socket = where.path();
  if (!socket) return complain(socket.error());
  const auto answer = ktrunk::cli::ask(*socket, "upgrade", ktrunk::cli::kUpgradeTimeout);
  if (!answer) return complain(answer.error());
  const ktrunk::cli::UpgradeReport report = ktrunk::cli::upgrade_report(*answer);
  if (report.done) return print(report.text);
  fmt::print(stderr, "{}", report.text);
  return kFailed;
}

struct TraceOptions {
  std::string trunk;
  std::string pcap;  // a file, or "-"; empty: text
  std::uint64_t count = 0;
};

// Each message is there for the reader when it has come.
Status write_to(std::FILE* file, const std::string& octets) {
  if (std::fwrite(octets.data(), 1, octets.size(), file) == octets.size() && std::fflush(file) == 0) return {};
  return ktrunk::fail_errno(errno, "cannot write what is traced");
}

int trace(const SocketOptions& where, const TraceOptions& options) {
  const Result<std::string> socket = where.path();
  if (!socket) return complain(socket.error());
  const auto source = ktrunk::cli::begin_trace(*socket, options.trunk);
  if (!source) return complain(source.error());
  const bool as_text = options.pcap.empty();
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(nullptr, std::fclose);
  std::FILE* out = stdout;
  if (!as_text && options.pcap != "-") {
    // Not for everybody to read.
    const int fd = ::open(options.pcap.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd >= 0) file.reset(::fdopen(fd, "wb"));
    if (file == nullptr) return complain({.what = fmt::format("{}: {}", options.pcap, ktrunk::errno_text(errno))});
    out = file.get();
  }
  if (!as_text) {
    if (const Status status = write_to(out, ktrunk::cli::pcap_header()); !status) return complain(status.error());
  }
  const auto ended = ktrunk::cli::follow_trace(
      *source,
      [&](const ktrunk::ipc::TraceHead& head, std::string_view octets) {
        return write_to(out, as_text ? ktrunk::cli::trace_text(head, octets, options.trunk)
                                     : ktrunk::cli::pcap_record(head, octets));
      },
      options.count);
  if (!ended) return complain(ended.error());
  fmt::print(stderr, "{} messages; {} left out, as they came faster than they could be written\n", ended->messages,
             ended->dropped);
  if (ended->why != ktrunk::cli::TraceEnded::Why::kDaemonEnded) return kDone;
  return complain({.what = "ktrunkd has ended the trace: it ends, or becomes its next version"});
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("ktrunk: look after ktrunkd, the SIP trunk edge proxy");
  app.require_subcommand(1);
  app.set_version_flag("--version", KTRUNK_VERSION);
  int result = kDone;

  std::string path;
  CLI::App* check_command = app.add_subcommand("check", "Check a configuration file and say in words what it does");
  check_command->add_option("FILE", path, "the configuration, TOML")->required();
  check_command->callback([&] { result = check(path); });

  RouteOptions route_options;
  CLI::App* route_command = app.add_subcommand(
      "route", "Read a SIP request from standard input; say which route it takes and print it as it would go on");
  route_command->add_option("FILE", route_options.config, "the configuration, TOML")->required();
  route_command->add_option("--from", route_options.trunk,
                            "the trunk that it comes from; without: as the address says, or a stranger");
  route_command->add_option("--listener", route_options.listener, "the listener that it comes by");
  route_command->add_option("--peer", route_options.peer, "IP:PORT that it comes from")->capture_default_str();
  route_command->callback([&] { result = route(route_options); });

  SocketOptions where;
  StatusFormat format = StatusFormat::kTables;
  CLI::App* status_command = app.add_subcommand("status", "Show the processes, trunks and connections of ktrunkd");
  where.add_to(*status_command);
  status_command->add_flag_callback("--json", [&] { format = StatusFormat::kJson; }, "print ktrunkd's answer as JSON");
  status_command->callback([&] { result = status(where, format); });

  CLI::App* reload_command =
      app.add_subcommand("reload", "Have ktrunkd read its certificates, keys, CAs and CRLs again; all of them or none");
  where.add_to(*reload_command);
  reload_command->callback([&] { result = reload(where); });

  CLI::App* upgrade_command = app.add_subcommand(
      "upgrade", "Have ktrunkd become the version that lies at its path now, while connections and calls go on");
  where.add_to(*upgrade_command);
  upgrade_command->callback([&] { result = upgrade(where); });

  Wait wait = Wait::kNo;
  CLI::App* drain_command = app.add_subcommand(
      "drain", "Have ktrunkd take nothing new, finish what is under way, close every connection in order, and end");
  where.add_to(*drain_command);
  drain_command->add_flag_callback("--wait", [&] { wait = Wait::kYes; }, "return when ktrunkd has ended");
  drain_command->callback([&] { result = drain(where, wait); });

  TraceOptions trace_options;
  CLI::App* trace_command = app.add_subcommand(
      "trace", "Print the messages of a trunk as they pass, decrypted; or write them for Wireshark (--pcap)");
  trace_command->add_option("TRUNK", trace_options.trunk, "the trunk's name")->required();
  trace_command->add_option("--pcap", trace_options.pcap, "write a pcap file instead; - for standard output");
  trace_command->add_option("--count", trace_options.count, "end after so many messages");
  where.add_to(*trace_command);
  trace_command->callback([&] { result = trace(where, trace_options); });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kDone : kWrongUse;
  }
  return result;
}
