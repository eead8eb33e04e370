#include "bench/io/opening.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "handshake/tcp_socket.h"

namespace ktrunk::bench {
namespace {

constexpr auto kStalledPeer = std::chrono::seconds(60);
constexpr int kBacklog = 4096;
constexpr unsigned kAcceptsAtOnce = 256;

enum What : unsigned { kConnected, kReady, kAcceptable };

}  // namespace

// One connection on its way to be a stream.
class Opener::Attempt final : public Source {
 public:
  Attempt(Opener& opener, Fd socket, handshake::Role role, std::string host, const handshake::TlsContext* context,
          Handler handler)
      : opener_(opener),
        socket_(std::move(socket)),
        fd_(socket_.get()),
        role_(role),
        host_(std::move(host)),
        context_(context),
        handler_(std::move(handler)) {}

  void start() {
    if (role_ == handshake::Role::kAccept) return secure();
    wait(kConnected, POLLOUT);
  }

  void completed(unsigned what, int, unsigned) override {
    if (done_) return;
    if (what == kReady) return step();
    if (const int error = handshake::connect_result(fd_); error != 0)
      return finish(fail_errno(error, fmt::format("connect to {}", host_)));
    secure();
  }

 private:
  void wait(unsigned what, unsigned events) {
    io_uring_prep_poll_add(opener_.reactor_.prepare(*this, what), fd_, events);
  }

  void secure() {
    if (context_ == nullptr) {
      auto stream = make_kernel_stream(opener_.reactor_, std::move(socket_), {});
      return finish(std::move(stream));
    }
    auto session = role_ == handshake::Role::kAccept
                       ? handshake::TlsSession::accept(*context_, std::move(socket_))
                       : handshake::TlsSession::connect(*context_, std::move(socket_), host_);
    if (!session) return finish(std::unexpected(session.error()));
    session_ = std::move(*session);
    step();
  }

  void step() {
    using Step = handshake::TlsSession::Step;
    switch (session_->step()) {
      case Step::kWantRead:
        return wait(kReady, POLLIN);
      case Step::kWantWrite:
        return wait(kReady, POLLOUT);
      case Step::kFailed:
        return finish(std::unexpected(session_->failure().error));
      case Step::kDone:
        return hand_over();
    }
  }

  void hand_over() {
    const handshake::Negotiated& agreed = session_->negotiated();
    StreamKind kind{.records = StreamKind::Records::kUser,
                    .version = std::string(ktls::version_name(agreed.version)),
                    .cipher = agreed.cipher};
    auto choice = handshake::choose_record_layer(opener_.policy_, *session_);
    if (!choice) return finish(std::unexpected(choice.error()));
    if (choice->kernel) {
      kind.records = StreamKind::Records::kKernel;
      finish(make_kernel_stream(opener_.reactor_, std::move(choice->kernel->socket).release(), std::move(kind)));
    } else {
      finish(make_user_stream(opener_.reactor_, std::move(*session_), std::move(kind)));
    }
  }

  // The last act: `this` belongs to the reactor afterwards.
  void finish(Result<std::unique_ptr<Stream>> outcome) {
    done_ = true;
    --opener_.in_progress_;
    const auto self = std::ranges::find_if(opener_.owned_, [this](const auto& source) { return source.get() == this; });
    std::unique_ptr<Source> owner = std::move(*self);
    opener_.owned_.erase(self);
    const Handler handler = std::move(handler_);
    opener_.reactor_.retire(std::move(owner), -1);
    handler(std::move(outcome));
  }

  Opener& opener_;
  Fd socket_;
  int fd_;
  handshake::Role role_;
  std::string host_;
  const handshake::TlsContext* context_;
  Handler handler_;
  std::optional<handshake::TlsSession> session_;
  bool done_ = false;
};

class Opener::Listening final : public Source {
 public:
  Listening(Opener& opener, Fd socket, const handshake::TlsContext* context, Handler handler)
      : opener_(opener), socket_(std::move(socket)), context_(context), handler_(std::move(handler)) {}

  void start() { io_uring_prep_poll_multishot(opener_.reactor_.prepare(*this, kAcceptable), socket_.get(), POLLIN); }

  void completed(unsigned, int, unsigned flags) override {
    if ((flags & IORING_CQE_F_MORE) == 0) start();
    for (unsigned count = 0; count < kAcceptsAtOnce; ++count) {
      Fd accepted(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!accepted.valid()) return;
      handshake::set_connection_options(accepted.get(), kStalledPeer);
      opener_.begin(
          std::make_unique<Attempt>(opener_, std::move(accepted), handshake::Role::kAccept, "", context_, handler_));
    }
    if ((flags & IORING_CQE_F_MORE) != 0) start();  // a poll of its own for those that are left
  }

 private:
  Opener& opener_;
  Fd socket_;
  const handshake::TlsContext* context_;
  Handler handler_;
};

void Opener::begin(std::unique_ptr<Attempt> attempt) {
  Attempt& begun = *attempt;
  ++in_progress_;
  owned_.push_back(std::move(attempt));
  begun.start();
}

void Opener::connect(const Endpoint& to, const handshake::TlsContext* context, Handler handler) {
  auto socket = handshake::start_connect(to.address, kStalledPeer);
  if (!socket) return handler(std::unexpected(socket.error()));
  begin(std::make_unique<Attempt>(*this, std::move(*socket), handshake::Role::kConnect, to.host, context,
                                  std::move(handler)));
}

void Opener::listen(Fd socket, const handshake::TlsContext* context, Handler handler) {
  auto listening = std::make_unique<Listening>(*this, std::move(socket), context, std::move(handler));
  Listening& begun = *listening;
  owned_.push_back(std::move(listening));
  begun.start();
}

Result<Fd> listening_socket(const Address& at) {
  Fd socket(::socket(at.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int yes = 1;
  if (!socket.valid() || ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
      ::bind(socket.get(), at.data(), at.size()) != 0 || ::listen(socket.get(), kBacklog) != 0)
    return fail_errno(errno, fmt::format("listen on {}", at.text()));
  return socket;
}

}  // namespace ktrunk::bench
