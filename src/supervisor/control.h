// Control: the Unix socket that `ktrunk` talks to. A client sends one line of JSON, {"command":"status"}, and gets one
// JSON document, after which the connection ends; a command that is not known gets {"error":...}. An answer may take
// its time: other clients are served meanwhile.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <string>
#include <string_view>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"

namespace ktrunk::supervisor {

class Control {
 public:
  // Takes the answer to one command, a JSON document; at once or later, but not after the Control has gone. The client
  // may have left by then, which is no error.
  using Reply = std::function<void(std::string document)>;
  using Answer = std::function<void(std::string_view command, Reply reply)>;

  Control(EventLoop& loop, std::string path, Answer answer);
  ~Control();
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  // Binds the socket (mode 0600) and listens. A socket that a dead ktrunkd left is replaced; a living one is an error.
  [[nodiscard]] Status open();

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
