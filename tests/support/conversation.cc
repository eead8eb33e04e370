#include "support/conversation.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <ranges>

#include "support/tls_peer.h"

namespace ktrunk::test {

std::string missing_program(const std::string& program, const std::string& package) {
  const char* path = std::getenv("PATH");
  for (const auto part : std::views::split(std::string_view(path == nullptr ? "" : path), ':')) {
    const std::string file = fmt::format("{}/{}", std::string_view(part.begin(), part.end()), program);
    if (::access(file.c_str(), X_OK) == 0) return {};
  }
  return fmt::format("there is no {}; install the package {}", program, package);
}

std::unique_ptr<Conversation> Conversation::start(const std::vector<std::string>& argv) {
  std::unique_ptr<Conversation> made(new Conversation);
  const std::string fifo = made->folder_.file("input");
  if (::mkfifo(fifo.c_str(), 0600) == 0) {
    // Reading and writing: opening neither end of it ever waits for the other.
    made->input_ = Fd(::open(fifo.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
    std::vector<std::string> command = {"sh", "-c", R"(exec "$@" <"$0")", fifo};
    command.insert(command.end(), argv.begin(), argv.end());
    auto process = Process::start({.argv = command, .env = {}, .output = made->folder_.file("output")});
    if (process) {
      made->process_ = std::move(*process);
      return made;
    }
  }
  ADD_FAILURE() << "cannot start " << argv.front() << ": " << errno_text(errno);
  return nullptr;
}

Status Conversation::say(std::string_view text) {
  const auto deadline = std::chrono::steady_clock::now() + kLong;
  while (!text.empty()) {  // ends with the deadline
    const ssize_t written = ::write(input_.get(), text.data(), text.size());
    if (written > 0) {
      text.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno == EAGAIN) {
      if (Status ready = wait_ready(input_.get(), POLLOUT, deadline); !ready) return ready;
    } else if (errno != EINTR) {
      return fail_errno(errno, "cannot write to the program");
    }
  }
  return {};
}

bool Conversation::heard(std::string_view text, milliseconds timeout) {
  const auto has = [&] { return output().find(text) != std::string::npos; };
  return eventually([&] { return has() || !process_->running(); }, timeout) && has();
}

Result<SipMessage> Conversation::message(std::string_view start, milliseconds timeout) {
  std::string found;
  const auto complete = [&] {
    const std::string all = output();
    const std::size_t begin = all.find(start);
    if (begin == std::string::npos) return false;
    const std::size_t end = all.find("\r\n\r\n", begin);
    if (end != std::string::npos) found = all.substr(begin, end + 4 - begin);
    return end != std::string::npos;
  };
  (void)eventually([&] { return complete() || !process_->running(); }, timeout);
  if (!complete()) return fail("no message '{}...' in the output:\n{}", start, output());
  return SipMessage::parse(found);
}

testing::AssertionResult Conversation::ends_with(int code, milliseconds timeout) {
  const auto exit = process_->wait(timeout);
  if (!exit) return testing::AssertionFailure() << "it does not end; its output:\n" << output();
  if (exit->code != code) return testing::AssertionFailure() << exit_text(*exit) << "; its output:\n" << output();
  return testing::AssertionSuccess();
}

}  // namespace ktrunk::test
