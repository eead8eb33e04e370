// Linked into a ktrunkd around ipc::layout() (ld --wrap): a new version that has another layout than the running one,
// or that fails when it takes over although its rehearsal was well. KTRUNK_MISBEHAVE says which.
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

std::string true_layout() asm("__real__ZN6ktrunk3ipc6layoutB5cxx11Ev");
std::string layout() asm("__wrap__ZN6ktrunk3ipc6layoutB5cxx11Ev");

std::string layout() {
  const char* how = std::getenv("KTRUNK_MISBEHAVE");
  const std::string name = how == nullptr ? "" : how;
  std::ifstream file("/proc/self/cmdline");
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  const bool rehearsal = words.size() > 4 && words[4] != "-1";
  if (name == "crash" && !rehearsal) std::abort();
  if (name == "hang" && !rehearsal) {
    for (;;) ::pause();
  }
  if (name == "refuse" && !rehearsal) return "none";
  return name == "layout" ? "messages of another kind" : true_layout();
}
