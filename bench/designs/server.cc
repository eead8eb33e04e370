#include "bench/designs/server.h"

#include <poll.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "bench/common/report.h"
#include "bench/designs/worker.h"
#include "ipc/limits.h"

namespace ktrunk::bench {
namespace {

using handshake::TlsSession;

// An OpenSSL connection that one process uses.
class SessionOutlet final : public Outlet {
 public:
  explicit SessionOutlet(TlsSession session) : session_(std::move(session)) {}
  Outcome offer(std::span<const std::byte> messages) override {
    switch (session_.write(messages).outcome) {
      case TlsSession::Io::kBytes:
        return Outcome::kTaken;
      case TlsSession::Io::kWantRead:
      case TlsSession::Io::kWantWrite:
        return Outcome::kFull;
      default:
        return Outcome::kBroken;
    }
  }
  [[nodiscard]] int fd() const override { return session_.fd(); }

 private:
  TlsSession session_;
};

// A descriptor that takes a send whole or not at all: the kernel's TLS, or the way to the owner.
class DescriptorOutlet final : public Outlet {
 public:
  explicit DescriptorOutlet(int fd) : fd_(fd) {}
  Outcome offer(std::span<const std::byte> messages) override {
    if (::send(fd_, messages.data(), messages.size(), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return Outcome::kTaken;
    return errno == EAGAIN || errno == EINTR || errno == ENOBUFS ? Outcome::kFull : Outcome::kBroken;
  }
  [[nodiscard]] int fd() const override { return fd_; }

 private:
  int fd_;
};

// An OpenSSL connection behind a lock, for the threads of one process.
class LockedOutlet final : public Outlet {
 public:
  LockedOutlet(SessionOutlet& connection, pthread_mutex_t& lock) : connection_(connection), lock_(lock) {}
  Outcome offer(std::span<const std::byte> messages) override {
    ::pthread_mutex_lock(&lock_);
    Outcome outcome = connection_.offer(messages);
    // OpenSSL wants the same octets again: nobody else may write before that.
    while (outcome == Outcome::kFull) {
      pollfd wait{connection_.fd(), POLLOUT, 0};
      ::poll(&wait, 1, -1);
      outcome = connection_.offer(messages);
    }
    ::pthread_mutex_unlock(&lock_);
    return outcome;
  }
  [[nodiscard]] int fd() const override { return connection_.fd(); }

 private:
  SessionOutlet& connection_;
  pthread_mutex_t& lock_;
};

// Makes a worker process, which dies with this one.
Status fork_worker(SharedState& shared, unsigned index, const std::function<Status()>& body) {
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "fork");
  if (pid > 0) {
    shared.workers[index].pid = pid;
    return {};
  }
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(EXIT_FAILURE);
  if (const Status status = body(); !status) {
    (void)complain(status.error());
    shared.failed = true;
  }
  ::_exit(EXIT_SUCCESS);
}

[[noreturn]] void stay() {
  for (;;) ::pause();
}

Status run_own(const ServerOptions& options, SharedState& shared) {
  for (unsigned index = 0; index < options.workers; ++index) {
    const Status forked = fork_worker(shared, index, [&]() -> Status {
      auto session = connect_to_peer(options);
      if (!session) return std::unexpected(session.error());
      SessionOutlet outlet(std::move(*session));
      run_worker(options, shared, index, outlet);
      return {};
    });
    if (!forked) return forked;
  }
  stay();
}

Status run_kernel(const ServerOptions& options, SharedState& shared) {
  auto session = connect_to_peer(options);
  if (!session) return std::unexpected(session.error());
  auto kernel = session->into_kernel();
  if (!kernel) return std::unexpected(kernel.error().error);
  for (unsigned index = 0; index < options.workers; ++index) {
    const Status forked = fork_worker(shared, index, [&]() -> Status {
      DescriptorOutlet outlet(kernel->socket.get());
      run_worker(options, shared, index, outlet);
      return {};
    });
    if (!forked) return forked;
  }
  stay();
}

Status run_lock(const ServerOptions& options, SharedState& shared) {
  auto session = connect_to_peer(options);
  if (!session) return std::unexpected(session.error());
  SessionOutlet connection(std::move(*session));
  pthread_mutexattr_t attributes;
  pthread_mutex_t lock;
  ::pthread_mutexattr_init(&attributes);
  ::pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);  // as a server of several processes has it
  ::pthread_mutex_init(&lock, &attributes);
  std::vector<std::jthread> threads;
  for (unsigned index = 0; index < options.workers; ++index) {
    shared.workers[index].pid = ::getpid();
    threads.emplace_back([&, index] {
      LockedOutlet outlet(connection, lock);
      run_worker(options, shared, index, outlet);
    });
  }
  threads.clear();
  return fail("the connection has ended");
}

// Takes what workers hand over, as much as goes into one record, and writes it; no more while the peer takes nothing.
Status own_connection(const std::vector<Fd>& workers, SessionOutlet& connection) {
  std::vector<std::byte> record(ipc::kRecordBytes);
  std::vector<std::byte> next(ipc::kRecordBytes);  // what did not fit any more
  std::size_t kept = 0;
  std::vector<pollfd> waits;
  for (const Fd& worker : workers) waits.push_back({worker.get(), POLLIN, 0});
  std::size_t first = 0;
  for (;;) {
    std::size_t bytes = std::exchange(kept, 0);
    std::copy_n(next.begin(), bytes, record.begin());
    // One packet of each in turn, as long as there are any and there is room.
    for (std::size_t silent = 0; silent < workers.size() && kept == 0; ++first) {
      const ssize_t got = ::recv(workers[first % workers.size()].get(), next.data(), next.size(), MSG_DONTWAIT);
      if (got <= 0) {
        ++silent;
        continue;
      }
      silent = 0;
      kept = static_cast<std::size_t>(got);
      if (bytes + kept > record.size()) break;
      std::copy_n(next.begin(), kept, record.begin() + static_cast<std::ptrdiff_t>(bytes));
      bytes += std::exchange(kept, 0);
    }
    if (bytes == 0) {
      ::poll(waits.data(), waits.size(), -1);
      // Workers that have died are no longer listened to.
      for (pollfd& wait : waits) {
        if ((wait.revents & (POLLIN | POLLHUP)) == POLLHUP) wait.fd = -1;
      }
      continue;
    }
    const auto messages = std::span<const std::byte>(record).first(bytes);
    Outlet::Outcome outcome = connection.offer(messages);
    while (outcome == Outlet::Outcome::kFull) {
      pollfd wait{connection.fd(), POLLOUT, 0};
      ::poll(&wait, 1, -1);
      outcome = connection.offer(messages);
    }
    if (outcome == Outlet::Outcome::kBroken) return fail("the connection has ended");
  }
}

Status run_owner(const ServerOptions& options, SharedState& shared) {
  std::vector<Fd> to_workers;
  for (unsigned index = 0; index < options.workers; ++index) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return fail_errno(errno, "socketpair");
    to_workers.emplace_back(ends[0]);
    const Fd worker_end(ends[1]);
    const Status forked = fork_worker(shared, index, [&]() -> Status {
      to_workers.clear();
      DescriptorOutlet outlet(worker_end.get());
      run_worker(options, shared, index, outlet);
      return {};
    });
    if (!forked) return forked;
  }
  auto session = connect_to_peer(options);
  if (!session) return std::unexpected(session.error());
  SessionOutlet connection(std::move(*session));
  return own_connection(to_workers, connection);
}

}  // namespace

std::string_view design_name(Design design) {
  static constexpr std::array<std::string_view, kDesigns.size()> kNames = {"own", "owner", "lock", "kernel"};
  return kNames[static_cast<std::size_t>(design)];
}

std::string_view design_text(Design design) {
  static constexpr std::array<std::string_view, kDesigns.size()> kTexts = {
      "N x M: each process its own OpenSSL connection", "one process owns the connection, the others send it jobs",
      "one OpenSSL connection behind a lock, threads", "ktrunk: one kernel TLS connection, every process sends"};
  return kTexts[static_cast<std::size_t>(design)];
}

Status run_server(const ServerOptions& options, SharedState& shared) {
  std::signal(SIGPIPE, SIG_IGN);
  switch (options.design) {
    case Design::kOwn:
      return run_own(options, shared);
    case Design::kOwner:
      return run_owner(options, shared);
    case Design::kLock:
      return run_lock(options, shared);
    case Design::kKernel:
      return run_kernel(options, shared);
  }
  return {};
}

}  // namespace ktrunk::bench
