// Control: the Unix socket that `ktrunk` talks to. A client sends one line of JSON, {"command":"status"}, and gets one
// JSON document, after which the connection ends; a command that is not known gets {"error":...}. An answer may take
// its time: other clients are served meanwhile.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <string>
#include <string_view>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "supervisor/state.h"

namespace ktrunk::supervisor {

class Control {
 public:
  // Takes the answer to one command, a JSON document; at once or later, but not after the Control has gone. The client
  // may have left by then, which is no error.
  class Reply {
   public:
    void operator()(std::string document) const { control_->reply(client_, std::move(document)); }

   private:
    friend class Control;
    Reply(Control& control, std::uint64_t client) : control_(&control), client_(client) {}
    Control* control_;
    std::uint64_t client_;
  };
  using Answer = std::function<void(std::string_view command, const Reply& reply)>;

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
  // Somebody else than that client is being served.
  [[nodiscard]] bool serves_others(const std::optional<Reply>& waiting) const;

 private:
  struct Client {
    std::uint64_t number;
    Fd fd;
    EventLoop::Watch watch;
    EventLoop::Timer limit;
    std::string request;
    std::string reply;
    std::size_t written = 0;
  };
  using ClientPosition = std::list<Client>::iterator;
  void accept();
  [[nodiscard]] Status listen();
  [[nodiscard]] Status take(Fd fd, Clock::duration limit);
  void read(ClientPosition client);
  void answer(ClientPosition client, const std::string& line);
  void reply(std::uint64_t number, std::string document);
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
