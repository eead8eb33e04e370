// ktrunkd-worker: started by ktrunkd, never by hand.
#include <unistd.h>

#include <cstdlib>
#include <string_view>

#include "base/log.h"
#include "ipc/child.h"
#include "ipc/layout.h"
#include "worker/process.h"

namespace ktrunk::worker {
namespace {

// Takes what the supervisor gives until it says Ready.
Result<Endowment> take_endowment(ipc::Child& child) {
  auto setup = child.wait_for_setup();
  if (!setup) return std::unexpected(setup.error());
  auto estate = ipc::Estate::map(std::move(setup->estate));
  if (!estate) return std::unexpected(estate.error());
  Endowment endowment{.config = std::move(setup->config),
                      .region = std::move(setup->region),
                      .estate = std::move(*estate),
                      .ring = Fd(ipc::kRingDescriptor),
                      .self = setup->worker,
                      .doorbells = std::move(setup->doorbells),
                      .udp_sockets = std::move(setup->listeners),
                      .collector = std::move(setup->collector)};
  if (!endowment.self.valid() || endowment.self.value >= endowment.region.sizes().workers)
    return fail("the supervisor names worker {} of {}", endowment.self.value, endowment.region.sizes().workers);
  for (unsigned worker = 0; worker < endowment.region.sizes().workers; ++worker) {
    if (!endowment.doorbells[worker].valid()) return fail("the supervisor sent no doorbell of worker {}", worker);
  }
  return endowment;
}

Status run() {
  auto child = ipc::Child::start(
      ipc::Role::kWorker,
      {ipc::Kind::kSetup, ipc::Kind::kReady, ipc::Kind::kStop, ipc::Kind::kOffer, ipc::Kind::kStart, ipc::Kind::kServe,
       ipc::Kind::kClose, ipc::Kind::kSendControl, ipc::Kind::kResume, ipc::Kind::kYield, ipc::Kind::kDrain,
       ipc::Kind::kMove, ipc::Kind::kTrace, ipc::Kind::kTraceEnd});
  if (!child) return std::unexpected(child.error());
  auto endowment = take_endowment(*child);
  if (!endowment) return std::unexpected(endowment.error());
  log::init(fmt::format("worker/{}", endowment->self.value), endowment->config.log_format, endowment->config.log_level);
  auto process = Process::create(std::move(*endowment), std::move(*child).release_channel());
  if (!process) return std::unexpected(process.error());
  if (auto status = (*process)->confine(); !status) return status;
  if (auto status = (*process)->announce(); !status) return status;
  const Status status = (*process)->run();
  // What it has stays in its estate, for its successor: nothing may be torn down.
  if (status && (*process)->yields()) ::_exit(EXIT_SUCCESS);
  return status;
}

}  // namespace
}  // namespace ktrunk::worker

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--layout") {
    fmt::print("{}\n", ktrunk::ipc::layout());
    return EXIT_SUCCESS;
  }
  if (const auto status = ktrunk::worker::run(); !status) {
    ktrunk::log::critical("{}", status.error().what);
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
