// What it costs to give a message to someone else: to a connection's queue, to another worker, and a connection to
// another process.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "ipc/channel.h"
#include "ipc/estate.h"
#include "ipc/handover.h"
#include "ipc/shared_region.h"
#include "worker/block.h"
#include "worker/chunk_store.h"
#include "worker/connection.h"
#include "worker/ring.h"
#include "worker/sender.h"

namespace {

using namespace ktrunk;

constexpr std::size_t kMessage = 600;
constexpr std::size_t kRecord = ipc::kRecordBytes / kMessage;  // messages

template <typename T>
T need(Result<T> result) {
  if (result) return std::move(*result);
  std::fprintf(stderr, "bench_worker: %s\n", result.error().what.c_str());
  std::exit(EXIT_FAILURE);
}

// A message into a connection's queue, and a record's worth of them out again.
void queue_message(benchmark::State& state) {
  const ipc::SharedRegion region = need(ipc::SharedRegion::create({.workers = 1, .max_connections = 4, .trunks = 1}));
  const ipc::Estate estate = need(ipc::Estate::map(need(ipc::Estate::create())));
  const auto ring = need(worker::Ring::create(64));
  worker::ChunkStore chunks(estate);
  worker::BlockPool pool(chunks, 16);
  worker::Sender sender(*ring, region, pool, WorkerIndex{0}, 1u << 20);
  worker::Connection connection({SlotIndex{1}, Generation{1}}, Fd(), region.slot(SlotIndex{1}), 65535);
  const std::string message(kMessage, 'x');
  std::size_t queued = 0;
  for (auto _ : state) {
    std::memcpy(sender.reserve(connection, kMessage), message.data(), kMessage);
    sender.commit(connection, kMessage);
    if (++queued % kRecord == 0) sender.abandon(connection);
  }
  sender.abandon(connection);
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(queue_message);

// A message to another worker by their ring, and taken from it.
void handoff_message(benchmark::State& state) {
  const auto handover = std::make_unique<ipc::Handover>();
  const std::string octets(kMessage, 'x');
  ipc::HandoverSource source;
  std::uint32_t seen = 0;
  for (auto _ : state) {
    handover->put(*handover->plan(octets.size(), seen), source, octets);
    ipc::Handover::Message message;
    benchmark::DoNotOptimize(handover->look(message));
    handover->move_head(message.next);
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(handoff_message);

// A connection's descriptor over a channel between two processes, and the word that it has come.
void handoff_connection(benchmark::State& state) {
  auto ends = need(ipc::Channel::pair());
  ipc::Channel supervisor(std::move(ends.first), {ipc::Kind::kHeld});
  ipc::Channel worker(std::move(ends.second), {ipc::Kind::kOffer});
  const Fd socket(::dup(STDERR_FILENO));
  const ConnectionId connection{SlotIndex{1}, Generation{1}};
  ipc::Packet packet;
  for (auto _ : state) {
    const bool sent = supervisor.send(ipc::Offer{connection}, Fd(::dup(socket.get()))).has_value();
    const auto came = worker.receive(packet);
    if (!sent || !came || *came != ipc::Channel::Outcome::kMessage) return state.SkipWithError("no offer came");
    const Fd held = packet.take_descriptor();
    benchmark::DoNotOptimize(worker.send(ipc::Held{connection}));
    benchmark::DoNotOptimize(supervisor.receive(packet));
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(handoff_connection);

}  // namespace

BENCHMARK_MAIN();
