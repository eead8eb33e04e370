#include "handshake/contexts.h"

#include <fmt/format.h>

#include <algorithm>

namespace ktrunk::handshake {
namespace {

// "listen.certificates.key" for "listen[0].certificates[1].key": as messages call it.
std::string without_places(std::string_view key) {
  std::string text;
  bool inside = false;
  for (const char c : key) {
    inside = inside ? c != ']' : c == '[';
    if (!inside && c != ']') text += c;
  }
  return text;
}

// The line of the configuration that `what` is about, among those of the table `prefix` that name files: the one of its
// file and key, else of its file, else the table's first.
unsigned line_of(const config::Config& config, std::string_view prefix, std::string_view what) {
  unsigned of_file = 0;
  unsigned first = 0;
  for (const config::FileReference& reference : config.files) {
    if (!reference.key.starts_with(prefix)) continue;
    if (first == 0) first = reference.line;
    if (what.find(reference.file) == std::string_view::npos) continue;
    if (what.find(fmt::format("'{}'", without_places(reference.key))) != std::string_view::npos) return reference.line;
    if (of_file == 0) of_file = reference.line;
  }
  return of_file != 0 ? of_file : first;
}

bool has_tls_target(const config::Trunk& trunk) {
  return std::ranges::any_of(trunk.targets,
                             [](const config::Target& target) { return target.transport == config::Transport::kTls; });
}

}  // namespace

std::string TlsContexts::Problem::text(const config::Config& config) const {
  return line != 0 ? fmt::format("{}:{}: {}", config.path, line, what) : fmt::format("{}: {}", config.path, what);
}

TlsContexts::Loaded TlsContexts::load(const config::Config& config, TicketKeys* tickets) {
  Loaded loaded;
  const auto take = [&](Result<TlsContext> context, const std::string& prefix) -> std::shared_ptr<const TlsContext> {
    const auto problem = [&](const std::string& what) { return Problem{line_of(config, prefix, what), what}; };
    if (!context) {
      loaded.errors.push_back(problem(context.error().what));
      return nullptr;
    }
    for (const std::string& warning : context->warnings()) loaded.warnings.push_back(problem(warning));
    return std::make_shared<const TlsContext>(std::move(*context));
  };
  for (std::size_t i = 0; i < config.listeners.size(); ++i) {
    const config::Listener& listener = config.listeners[i];
    loaded.contexts.listeners_.push_back(
        listener.transport == config::Transport::kTls
            ? take(TlsContext::for_listener(listener, tickets), fmt::format("listen[{}].", i))
            : nullptr);
  }
  for (std::size_t i = 0; i < config.trunks.size(); ++i) {
    const config::Trunk& trunk = config.trunks[i];
    loaded.contexts.trunks_.push_back(
        has_tls_target(trunk) ? take(TlsContext::for_trunk(trunk), fmt::format("trunk[{}].", i)) : nullptr);
  }
  return loaded;
}

}  // namespace ktrunk::handshake
