#include "ipc/child.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <optional>
#include <string>

namespace ktrunk::ipc {
namespace {

Result<std::string> read_all(const Fd& file) {
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) return fail_errno(errno, "look at the configuration's memory");
  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t got = ::pread(file.get(), text.data() + done, text.size() - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return fail_errno(got == 0 ? EIO : errno, "read the configuration's memory");
    done += static_cast<std::size_t>(got);
  }
  return text;
}

// What has come so far.
struct Gathering {
  std::optional<config::Config> config;
  std::optional<SharedRegion> region;
  std::array<Fd, kMaxWorkers> doorbells;
  std::vector<std::pair<ListenerId, Fd>> listeners;
  Fd vault;
  Fd estate;
  Fd collector;

  Status take(const Setup& setup, Fd descriptor) {
    switch (setup.what) {
      case Setup::What::kConfig: {
        auto text = read_all(descriptor);
        if (!text) return std::unexpected(text.error());
        auto parsed = config::parse(*text, setup.path.view());
        if (!parsed) return std::unexpected(parsed.error());
        config = std::move(*parsed);
        return {};
      }
      case Setup::What::kRegion: {
        auto mapped = SharedRegion::map(std::move(descriptor));
        if (!mapped) return std::unexpected(mapped.error());
        region = std::move(*mapped);
        return {};
      }
      case Setup::What::kListener:
        listeners.emplace_back(setup.listener, std::move(descriptor));
        return {};
      case Setup::What::kDoorbell:
        if (setup.worker.value >= kMaxWorkers) return fail("a doorbell of worker {}", setup.worker.value);
        doorbells[setup.worker.value] = std::move(descriptor);
        return {};
      case Setup::What::kVault:
        vault = std::move(descriptor);
        return {};
      case Setup::What::kEstate:
        estate = std::move(descriptor);
        return {};
      case Setup::What::kCollector:
        collector = std::move(descriptor);
        return {};
    }
    return fail("an unknown kind of setup, {}", static_cast<unsigned>(setup.what));
  }
};

}  // namespace

void die_with_parent_and_stay_private() {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
#ifdef __SANITIZE_ADDRESS__
  ::prctl(PR_SET_DUMPABLE, 1);
#else
  ::prctl(PR_SET_DUMPABLE, 0);
#endif
}

Result<Child> Child::start(Role role, AcceptList accept) {
  die_with_parent_and_stay_private();
  // Started by a descriptor it would be called by the descriptor's number.
  ::prctl(PR_SET_NAME, role == Role::kWorker ? "ktrunkd-worker" : "ktrunkd-handsha");
  for (const int signal : {SIGPIPE, SIGINT, SIGTERM, SIGHUP}) ::signal(signal, SIG_IGN);
  if (::fcntl(kChannelDescriptor, F_SETFD, FD_CLOEXEC) != 0)
    return fail("this program is started by ktrunkd, with its channel as descriptor {}", kChannelDescriptor);
  Child child(Channel(Fd(kChannelDescriptor), accept));
  if (auto status = child.channel_.send(Hello{.role = role, .worker = {}, .pid = ::getpid()}); !status)
    return std::unexpected(status.error());
  return child;
}

Result<ChildSetup> Child::wait_for_setup() {
  Gathering gathering;
  for (;;) {
    Packet packet;
    auto outcome = channel_.receive(packet);
    if (!outcome) return std::unexpected(outcome.error());
    if (*outcome == Channel::Outcome::kClosed) return fail("the supervisor has gone");
    if (*outcome == Channel::Outcome::kWouldBlock) {
      pollfd wait{channel_.descriptor(), POLLIN, 0};
      (void)::poll(&wait, 1, -1);
      continue;
    }
    if (packet.kind() == Kind::kSetup) {
      if (auto status = gathering.take(packet.as<Setup>(), packet.take_descriptor()); !status)
        return std::unexpected(status.error());
    } else if (packet.kind() == Kind::kReady) {
      if (!gathering.config || !gathering.region) return fail("Ready before configuration and shared region");
      return ChildSetup{.config = std::move(*gathering.config),
                        .region = std::move(*gathering.region),
                        .worker = packet.as<Ready>().worker,
                        .handshake = packet.as<Ready>().handshake,
                        .vault = std::move(gathering.vault),
                        .estate = std::move(gathering.estate),
                        .collector = std::move(gathering.collector),
                        .doorbells = std::move(gathering.doorbells),
                        .listeners = std::move(gathering.listeners)};
    } else {
      return fail("message kind {} before Ready", static_cast<unsigned>(packet.kind()));
    }
  }
}

}  // namespace ktrunk::ipc
