// Tracing: `ktrunk trace` gets one end of a socket pair, every worker the other; and the socket to the HEP collector.
#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/log.h"
#include "ipc/trace.h"
#include "supervisor/process.h"
#include "supervisor/sockets.h"

namespace ktrunk::supervisor {
namespace {

struct TracePair {
  Fd reading;
  Fd writing;
};

Result<TracePair> make_trace_pair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0)
    return fail_errno(errno, "socketpair for a trace");
  TracePair pair{.reading = Fd(ends[0]), .writing = Fd(ends[1])};
  // One way: what the command would write nobody would read.
  if (::shutdown(pair.writing.get(), SHUT_RD) != 0) return fail_errno(errno, "shut a trace's way back");
  // The kernel counts what is under way by its sender. Without the right to more than net.core.wmem_max, that must do.
  const int bytes = ipc::kTraceBufferBytes;
  if (::setsockopt(pair.writing.get(), SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) != 0)
    (void)::setsockopt(pair.writing.get(), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  return pair;
}

std::string error_json(const std::string& what) {
  return nlohmann::json{{"error", what}}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

void Process::begin_trace(const std::string& trunk, const Control::Reply& reply) {
  const auto named = std::ranges::find(config_.trunks, trunk, &config::Trunk::name);
  if (named == config_.trunks.end()) return reply(error_json(fmt::format("there is no trunk '{}'", trunk)));
  const auto free = std::ranges::find_if(traces_, [](const Trace& trace) { return !trace.socket.valid(); });
  if (free == traces_.end()) return reply(error_json(fmt::format("{} traces are running already", traces_.size())));
  auto pair = make_trace_pair();
  if (!pair) return reply(error_json(pair.error().what));
  free->trunk = {static_cast<std::uint16_t>(named - config_.trunks.begin())};
  free->socket = std::move(pair->writing);
  const auto place = static_cast<std::uint16_t>(free - traces_.begin());
  for (std::size_t index = 0; index < places(); ++index) {
    if (worker_of(index).valid()) tell_of_trace(index, place);
  }
  log::info("tracing trunk '{}'", trunk);  // what comes after this line is traced
  reply.stand(nlohmann::json{{"trace", trunk}}.dump(), pair->reading,
              {static_cast<void*>(this), [this, place](void*) { end_trace(place); }});
}

void Process::tell_of_trace(std::size_t index, std::uint16_t place) {
  if (!traces_[place].socket.valid() || !children_[index].ready()) return;
  Fd copy(::fcntl(traces_[place].socket.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return log::warn("{} cannot be told of a trace: {}", children_[index].name(), errno_text(errno));
  tell(index, ipc::Trace{.trunk = traces_[place].trunk, .place = place}, std::move(copy));
}

void Process::end_trace(std::uint16_t place) {
  log::info("trunk '{}' is not traced any more", config_.trunks[traces_[place].trunk.value].name);
  traces_[place].socket.reset();
  for (std::size_t index = 0; index < places(); ++index) {
    if (worker_of(index).valid()) tell(index, ipc::TraceEnd{.place = place});
  }
}

// Where something was lost, the machine's addresses or its ways may have changed.
void Process::look_at_collector() {
  if (!collector_.valid()) return;
  std::uint64_t dropped = 0;
  for (std::uint8_t worker = 0; worker < config_.workers; ++worker)
    dropped += region_.worker(WorkerIndex{worker}).hep_dropped.read();
  if (std::exchange(hep_dropped_, dropped) == dropped) return;
  if (auto status = connect_collector(collector_, config_); !status) log::debug("{}", status.error().what);
}

}  // namespace ktrunk::supervisor
