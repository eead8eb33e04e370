#include "config/config.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/fd.h"
#include "config/tables.h"
#include "config/toml_document.h"

namespace ktrunk::config {
namespace {

const Node kNoTable;  // stands for a table that is not there: everything has its default

void read_tables(Draft& draft, TableReader& root) {
  // Readers first: those of one kind must not move once a table refers to its reader.
  const auto open = [&](std::string_view key, std::size_t most, std::vector<TableReader>& readers) {
    const std::vector<const Node*> tables = root.tables(key);
    if (tables.size() > most) root.problem(key, fmt::format("{} tables; expected at most {}", tables.size(), most));
    for (std::size_t i = 0; i < tables.size() && i < most; ++i)
      readers.emplace_back(*tables[i], fmt::format("{}[{}]", key, i), draft.problems);
  };
  open("listen", kMaxListeners, draft.listeners);
  open("trunk", kMaxTrunks, draft.trunks);
  open("route", kMaxRoutes, draft.routes);
  for (TableReader& reader : draft.listeners) draft.config.listeners.push_back(read_listener(reader, draft.config));
  for (TableReader& reader : draft.trunks) draft.config.trunks.push_back(read_trunk(reader, draft.config));
  for (TableReader& reader : draft.routes) draft.config.routes.push_back(read_route(reader));
}

}  // namespace

bool is_datagram(const Trunk& trunk) {
  return !trunk.targets.empty() && trunk.targets.front().transport == Transport::kUdp;
}

bool is_large_by_tcp(const Trunk& trunk) { return is_datagram(trunk) && trunk.large_requests == LargeRequests::kTcp; }

std::vector<Target> connection_targets(const Trunk& trunk) {
  if (!is_datagram(trunk)) return trunk.targets;
  if (!is_large_by_tcp(trunk)) return {};
  std::vector<Target> targets = trunk.targets;
  for (Target& target : targets) target.transport = Transport::kTcp;
  return targets;
}

Result<Config> parse(std::string_view text, std::string_view path) {
  if (text.size() > kMaxTextBytes)
    return fail("{}: {} bytes long; expected at most {}", path, text.size(), kMaxTextBytes);
  const Result<Node> document = parse_toml(text, path);
  if (!document) return std::unexpected(document.error());

  Draft draft;
  draft.config.path = path;
  TableReader root(*document, "", draft.problems);
  const Node* ktrunk = root.table("ktrunk");
  const Node* limits = root.table("limits");
  TableReader ktrunk_reader(ktrunk != nullptr ? *ktrunk : kNoTable, "ktrunk", draft.problems);
  TableReader limits_reader(limits != nullptr ? *limits : kNoTable, "limits", draft.problems);
  read_ktrunk(ktrunk_reader, draft.config);
  read_limits(limits_reader, draft.config.limits);
  if (const Node* hep = root.table("hep"); hep != nullptr) {
    TableReader hep_reader(*hep, "hep", draft.problems);
    read_hep(hep_reader, draft.config.hep);
  }
  read_tables(draft, root);
  root.finish();
  check_references(draft);
  if (Status status = draft.problems.status(path); !status) return std::unexpected(std::move(status.error()));
  return std::move(draft.config);
}

Result<std::string> read_file(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) return fail_errno(errno, fmt::format("cannot read the configuration file {}", path));
  struct stat about = {};
  if (::fstat(file.get(), &about) != 0)
    return fail_errno(errno, fmt::format("cannot read the configuration file {}", path));
  if (S_ISDIR(about.st_mode)) return fail("cannot read the configuration file {}: it is a folder", path);

  std::string text;
  char buffer[16384];
  while (text.size() <= kMaxTextBytes) {  // every round reads a byte, ends or is interrupted
    const ssize_t got = ::read(file.get(), buffer, sizeof buffer);
    if (got == 0) return text;
    if (got > 0) {
      text.append(buffer, static_cast<std::size_t>(got));
    } else if (errno != EINTR) {
      return fail_errno(errno, fmt::format("cannot read the configuration file {}", path));
    }
  }
  return fail("the configuration file {} is too long; expected at most {} bytes", path, kMaxTextBytes);
}

}  // namespace ktrunk::config
