// The supervisor's own state, as it goes from one program to the next in the same process.
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/log.h"
#include "supervisor/process.h"
#include "supervisor/sockets.h"

namespace ktrunk::supervisor {
namespace {

Result<std::string> text_of(const Fd& memory) {
  struct stat file{};
  if (::fstat(memory.get(), &file) != 0) return fail_errno(errno, "look at the configuration's memory");
  std::string text(static_cast<std::size_t>(file.st_size), '\0');
  if (::pread(memory.get(), text.data(), text.size(), 0) != file.st_size)
    return fail_errno(errno, "read the configuration's memory");
  return text;
}

}  // namespace

void Process::save(StateWriter& state) const {
  using Of = ChildProcess::Of;
  const bool back = upgrade_.former.has_value();
  state.put(version_);
  state.put(started_as_);
  (back ? *upgrade_.former : image_).save(state);
  state.put(config_.path);
  state.put(config_memory_);
  state.put_descriptor(region_.descriptor());
  state.put(vault_);
  for (const Fd& listener : listeners_) state.put(listener);
  for (const Fd& bell : doorbells_) state.put(bell);
  for (const WorkerPlace& place : places_) place.save(state);
  for (const ChildProcess& child : children_)
    child.save(state, back == child.foreign() ? Of::kOldImage : Of::kNewImage);
  connections_.save(state);
  control_.save(state, upgrade_.reply);
  state.put(started_);
}

Result<std::unique_ptr<Process>> Process::take_over(StateReader& state, const TakeOver& how, std::string version) {
  Upgrade upgrade;
  upgrade.under_way = true;
  upgrade.why_back = how.why_back;
  upgrade.version_before = state.text();
  std::string started_as = state.text();
  Image image = Image::restore(state);
  if (!how.back()) {
    auto own = Image::of_self();
    if (!own) return std::unexpected(own.error());
    upgrade.former = std::exchange(image, std::move(*own));
  }
  const std::string path = state.text();
  Fd memory = state.descriptor();
  Fd shared = state.descriptor();
  if (!state.good()) return fail("the state is damaged");
  auto text = text_of(memory);
  if (!text) return std::unexpected(text.error());
  auto config = config::parse(*text, path);
  if (!config) return std::unexpected(config.error());
  auto region = ipc::SharedRegion::map(std::move(shared));
  if (!region) return std::unexpected(region.error());
  // What depends on the machine stays as it was decided at the first start.
  config->workers = region->sizes().workers;
  if (config->handshake_processes != region->sizes().handshakes || config->trunks.size() > region->sizes().trunks ||
      config->limits.max_connections != region->sizes().max_connections)
    return fail("it reads the configuration in force otherwise than the running one");
  log::init("supervisor", config->log_format, config->log_level);
  auto loop = EventLoop::create();
  if (!loop) return std::unexpected(loop.error());
  auto* process =
      new Process(std::move(*config), std::move(*region), std::move(*loop), std::move(image), std::move(version));
  process->origin_ = Origin::kTakenOver;
  process->started_as_ = std::move(started_as);
  process->config_memory_ = std::move(memory);
  process->upgrade_ = std::move(upgrade);
  // One that is not complete must not go the way of others, whose children end with them.
  if (auto status = process->restore(state, how); !status) return std::unexpected(status.error());
  return std::unique_ptr<Process>(process);
}

Status Process::restore(StateReader& state, const TakeOver& how) {
  vault_ = state.descriptor();
  for (std::size_t i = 0; i < config_.listeners.size(); ++i) listeners_.push_back(state.descriptor());
  auto collector = open_collector(config_);
  if (!collector) return std::unexpected(collector.error());
  collector_ = std::move(*collector);
  for (unsigned worker = 0; worker < config_.workers; ++worker) doorbells_.push_back(state.descriptor());
  for (unsigned worker = 0; worker < config_.workers; ++worker) {
    auto place = WorkerPlace::restore(state);
    if (!place) return std::unexpected(place.error());
    places_.push_back(std::move(*place));
  }
  for (ChildProcess& child : children_)
    child.restore(state, how.back() ? ChildProcess::Of::kOldImage : ChildProcess::Of::kNewImage);
  connections_.restore(state);
  auto waiting = control_.restore(state);
  if (!waiting) return std::unexpected(waiting.error());
  upgrade_.reply = *waiting;
  if (upgrade_.reply) control_.allow(*upgrade_.reply, kUpgradeLimit);
  state.get(started_);
  if (!state.complete()) return fail("the state is damaged");
  if (how.rehearsal()) return {};
  for (std::size_t index = 0; index < children_.size(); ++index) {
    if (children_[index].channel() == nullptr) continue;
    if (auto status = listen_to(index); !status) return status;
  }
  return take_signals();
}

}  // namespace ktrunk::supervisor
