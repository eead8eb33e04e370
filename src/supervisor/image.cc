#include "supervisor/image.h"

#include <fcntl.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "base/programs.h"

namespace ktrunk::supervisor {

Result<Program> Program::open(std::string path) {
  if (::access(path.c_str(), X_OK) != 0) return fail_errno(errno, fmt::format("execute {}", path));
  Fd file(::open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!file.valid()) return fail_errno(errno, fmt::format("open {}", path));
  return Program{.path = std::move(path), .file = std::move(file)};
}

Result<Image> Image::of_self() {
  std::error_code ignored;
  const Programs programs = find_programs();
  Program daemon{.path = std::filesystem::read_symlink("/proc/self/exe", ignored),
                 .file = Fd(::open("/proc/self/exe", O_PATH | O_CLOEXEC))};
  if (!daemon.file.valid()) return fail_errno(errno, "open /proc/self/exe");
  auto handshake = Program::open(programs.handshake);
  if (!handshake) return std::unexpected(handshake.error());
  auto worker = Program::open(programs.worker);
  if (!worker) return std::unexpected(worker.error());
  return Image{.daemon = std::move(daemon), .handshake = std::move(*handshake), .worker = std::move(*worker)};
}

void Image::save(StateWriter& state) const {
  for (const Program* program : {&daemon, &handshake, &worker}) {
    state.put(program->path);
    state.put(program->file);
  }
}

Image Image::restore(StateReader& state) {
  Image image;
  for (Program* program : {&image.daemon, &image.handshake, &image.worker}) {
    program->path = state.text();
    program->file = state.descriptor();
  }
  return image;
}

std::string started_as() {
  const auto* name = reinterpret_cast<const char*>(::getauxval(AT_EXECFN));
  std::error_code ignored;
  return name == nullptr ? "/proc/self/exe" : std::filesystem::absolute(name, ignored).string();
}

void execute(int file, const char* path, char* const* arguments) {
  ::execveat(file, "", arguments, ::environ, AT_EMPTY_PATH);
  // A script cannot be run by a descriptor that its interpreter does not get.
  if (errno == ENOENT) ::execv(path, arguments);
}

}  // namespace ktrunk::supervisor
