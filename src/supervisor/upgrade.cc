#include "supervisor/upgrade.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <memory>
#include <string_view>
#include <utility>

namespace ktrunk::supervisor {
namespace {

constexpr unsigned kTakeOverSeconds = 20;

int number_of(std::string_view text) {
  int number = -1;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

// What a signal handler needs: the descriptors, and the arguments for each way in which it may end.
struct Way {
  int former = -1;
  std::unique_ptr<TakeOverArguments> crashed;
  std::unique_ptr<TakeOverArguments> slow;
};
Way way;

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGALRM};

void on_signal(int signal) {
  char* const* arguments = (signal == SIGALRM ? way.slow : way.crashed)->get();
  ::execveat(way.former, "", arguments, ::environ, AT_EMPTY_PATH);
  ::_exit(128 + signal);
}

}  // namespace

std::optional<TakeOver> TakeOver::from(int argc, char** argv) {
  if (argc < 6 || std::string_view(argv[1]) != "--take-over") return std::nullopt;
  TakeOver how;
  how.state = Fd(number_of(argv[2]));
  how.former = number_of(argv[3]);
  how.report = Fd(number_of(argv[4]));
  how.why_back = argv[5];
  if (argc >= 8) how.config = argv[7];
  return how;
}

TakeOverArguments::TakeOverArguments(const std::string& program, int state, int former, int report,
                                     const std::string& why, const std::string& config)
    : texts_{program,    "--take-over", std::to_string(state), std::to_string(former), std::to_string(report), why,
             "--config", config} {
  for (std::size_t i = 0; i < texts_.size(); ++i) pointers_[i] = texts_[i].data();
}

WayBack::WayBack(const TakeOver& how) {
  if (how.former < 0 || how.rehearsal()) return;
  way.former = how.former;
  const auto arguments = [&](const char* why) {
    return std::make_unique<TakeOverArguments>("ktrunkd", how.state.get(), -1, -1, why, how.config);
  };
  way.crashed = arguments("the new program crashed while it took over");
  way.slow = arguments("the new program did not take over in time");
  struct sigaction action{};
  action.sa_handler = on_signal;
  action.sa_flags = SA_NODEFER;
  for (const int signal : kSignals) ::sigaction(signal, &action, nullptr);
  // A handler that becomes another program leaves its signal blocked there.
  ::alarm(kTakeOverSeconds);
}

void go_back(const TakeOver& how, const std::string& why) {
  if (how.former < 0) return;
  TakeOverArguments arguments("ktrunkd", how.state.get(), -1, -1, why, how.config);
  ::execveat(how.former, "", arguments.get(), ::environ, AT_EMPTY_PATH);
}

void WayBack::commit() {
  ::alarm(0);
  for (const int signal : kSignals) ::signal(signal, SIG_DFL);
  way.former = -1;  // it is the image's
}

}  // namespace ktrunk::supervisor
