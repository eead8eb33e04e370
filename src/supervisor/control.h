// Control: the Unix socket that `ktrunk` talks to. A client sends one line of JSON, {"command":"status"}, and gets one
// JSON document, after which the connection ends; a command that is not known gets {"error":...}. An answer may take
// its time: other clients are served meanwhile. A client may also be left standing, with a descriptor, until it goes
// (Reply::stand): "trace" has its messages so.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "supervisor/state.h"

namespace ktrunk::supervisor {

class Control {
 public:
  struct Request {
    std::string command;
    std::string trunk;  // "trace"
  };
  // Takes the answer to one command, a JSON document; at once or later, but not after the Control has gone. The client
  // may have left by then, which is no error.
  class Reply {
   public:
    void operator()(std::string document) const { control_->reply(client_, std::move(document)); }
    // Sends the document with a copy of the descriptor, and keeps the connection. The guard is destroyed when the
    // client has gone, or says one thing more, or Control lets it go; at once if it cannot be told.
    void stand(const std::string& document, const Fd& descriptor, std::shared_ptr<void> guard) const {
      control_->stand(client_, document, descriptor, std::move(guard));
    }

   private:
    friend class Control;
    Reply(Control& control, std::uint64_t client) : control_(&control), client_(client) {}
    Control* control_;
    std::uint64_t client_;
  };
  using Answer = std::function<void(const Request& request, const Reply& reply)>;

  Control(EventLoop& loop, std::string path, Answer answer);
  ~Control();
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  // Binds the socket (mode 0600) and listens. A socket that a dead ktrunkd left is replaced; a living one is an error.
  [[nodiscard]] Status open();

  // The client may wait so long for its answer, from now on.
  void allow(const Reply& reply, Clock::duration limit);
  // For an upgrade: the socket, and a client that waits for its answer; others are let go. The socket's file stays.
  void save(StateWriter& state, const std::optional<Reply>& waiting) const;
  // Serves from now on. The client that waits, if it does.
  [[nodiscard]] Result<std::optional<Reply>> restore(StateReader& state);
  // Somebody else than that client is being served; those who stand do not count.
  [[nodiscard]] bool serves_others(const std::optional<Reply>& waiting) const;
  // Lets go of those who stand.
  void dismiss();

 private:
  struct Client {
    std::uint64_t number;
    Fd fd;
    EventLoop::Watch watch;
    EventLoop::Timer limit;
    std::string request;
    std::string reply;
    std::size_t written = 0;
    std::shared_ptr<void> guard;  // of one who stands
  };
  using ClientPosition = std::list<Client>::iterator;
  void accept();
  [[nodiscard]] Status listen();
  [[nodiscard]] Status take(Fd fd, Clock::duration limit);
  void read(ClientPosition client);
  void answer(ClientPosition client, const std::string& line);
  void reply(std::uint64_t number, std::string document);
  void stand(std::uint64_t number, const std::string& document, const Fd& descriptor, std::shared_ptr<void> guard);
  void write(ClientPosition client);

  EventLoop& loop_;
  std::string path_;
  Answer answer_;
  Fd socket_;
  EventLoop::Watch watch_;
  std::list<Client> clients_;
  std::uint64_t next_number_ = 1;
};

}  // namespace ktrunk::supervisor
