// Control: the Unix socket that `ktrunk` talks to. A client sends one line of JSON, {"command":"status"}, and gets one
// JSON document, after which the connection ends; a command that is not known gets {"error":...}.
#pragma once

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
  // Answers a command's name with a JSON document.
  using Answer = std::function<std::string(std::string_view command)>;

  Control(EventLoop& loop, std::string path, Answer answer);
  ~Control();
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  // Binds the socket (mode 0600) and listens. A socket that a dead ktrunkd left is replaced; a living one is an error.
  [[nodiscard]] Status open();

 private:
  struct Client {
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
  void write(ClientPosition client);

  EventLoop& loop_;
  std::string path_;
  Answer answer_;
  Fd socket_;
  EventLoop::Watch watch_;
  std::list<Client> clients_;
};

}  // namespace ktrunk::supervisor
