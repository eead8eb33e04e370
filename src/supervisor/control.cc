#include "supervisor/control.h"

#include <malloc.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "base/log.h"
#include "base/packet.h"

namespace ktrunk::supervisor {
namespace {

constexpr std::size_t kMaxRequestBytes = 4096;
constexpr std::size_t kMaxClients = 16;
// For the whole exchange; longer than the longest command (kReloadLimit).
constexpr auto kClientLimit = std::chrono::seconds(20);

}  // namespace

Control::Control(EventLoop& loop, std::string path, Answer answer)
    : loop_(loop), path_(std::move(path)), answer_(std::move(answer)) {}

Control::~Control() {
  if (socket_.valid()) ::unlink(path_.c_str());
}

Status Control::open() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path_.size() >= sizeof address.sun_path)
    return fail("control socket {}: the path has more than {} octets; set ktrunk.control to a shorter one", path_,
                sizeof address.sun_path - 1);
  std::memcpy(address.sun_path, path_.data(), path_.size());
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), ignored);

  // What is there and is no socket belongs to somebody, and connect() would say ECONNREFUSED to a file too.
  struct stat there{};
  if (::lstat(path_.c_str(), &there) == 0 && !S_ISSOCK(there.st_mode))
    return fail(
        "control socket {}: there is something that is no socket, and it is left alone; set ktrunk.control to another "
        "path, or take it away",
        path_);

  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return fail_errno(errno, "control socket");
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  if (::connect(fd.get(), generic, sizeof address) == 0)
    return fail("control socket {}: another ktrunkd is running; stop it, or set ktrunk.control to another path", path_);
  if (errno == ECONNREFUSED) ::unlink(path_.c_str());
  const mode_t before = ::umask(0177);
  const int bound = ::bind(fd.get(), generic, sizeof address);
  const int code = errno;
  ::umask(before);
  if (bound != 0)
    return fail("control socket {}: {}; set ktrunk.control to a path where ktrunkd may make one", path_,
                errno_text(code));
  if (::listen(fd.get(), 16) != 0) return fail_errno(errno, fmt::format("control socket {}", path_));
  socket_ = std::move(fd);
  return listen();
}

Status Control::listen() {
  auto watch = loop_.watch(socket_.get(), Interest::kRead, [this](Ready) { accept(); });
  if (!watch) return std::unexpected(watch.error());
  watch_ = std::move(*watch);
  return {};
}

void Control::accept() {
  Fd fd(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd.valid() || clients_.size() >= kMaxClients) return;
  if (auto status = take(std::move(fd), kClientLimit); !status) log::warn("control client: {}", status.error().what);
}

Status Control::take(Fd fd, Clock::duration limit) {
  const auto client = clients_.emplace(clients_.end());
  client->number = next_number_++;
  client->fd = std::move(fd);
  auto watch = loop_.watch(client->fd.get(), Interest::kRead,
                           [this, client](Ready) { client->reply.empty() ? read(client) : write(client); });
  if (!watch) {
    clients_.erase(client);
    return std::unexpected(watch.error());
  }
  client->watch = std::move(*watch);
  client->limit = loop_.after(limit, [this, client] { clients_.erase(client); });
  return {};
}

void Control::allow(const Reply& reply, Clock::duration limit) {
  const auto client = std::ranges::find(clients_, reply.client_, &Client::number);
  if (client != clients_.end()) client->limit = loop_.after(limit, [this, client] { clients_.erase(client); });
}

bool Control::serves_others(const std::optional<Reply>& waiting) const {
  return std::ranges::any_of(clients_, [&](const Client& client) {
    return client.guard == nullptr && (!waiting || client.number != waiting->client_);
  });
}

void Control::dismiss() {
  clients_.remove_if([](const Client& client) { return client.guard != nullptr; });
}

void Control::save(StateWriter& state, const std::optional<Reply>& waiting) const {
  state.put(socket_);
  const auto client =
      std::ranges::find_if(clients_, [&](const Client& each) { return waiting && each.number == waiting->client_; });
  state.put_descriptor(client == clients_.end() ? -1 : client->fd.get());
}

Result<std::optional<Control::Reply>> Control::restore(StateReader& state) {
  Fd socket = state.descriptor();
  Fd client = state.descriptor();
  if (state.purpose() == StateReader::Purpose::kRehearsal) return std::nullopt;  // the file is not ours to unlink
  socket_ = std::move(socket);
  if (auto status = listen(); !status) return std::unexpected(status.error());
  if (!client.valid()) return std::nullopt;
  if (auto status = take(std::move(client), kClientLimit); !status) return std::unexpected(status.error());
  clients_.back().watch.set(Interest::kNothing);
  return Reply(*this, clients_.back().number);
}

void Control::read(ClientPosition client) {
  if (client->guard != nullptr) {  // it has gone, or has no more to say
    clients_.erase(client);
    return;
  }
  std::array<char, 1024> buffer;
  const ssize_t got = ::read(client->fd.get(), buffer.data(), buffer.size());
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    clients_.erase(client);
    return;
  }
  client->request.append(buffer.data(), static_cast<std::size_t>(got));
  const std::size_t end = client->request.find('\n');
  if (end == std::string::npos && client->request.size() <= kMaxRequestBytes) return;
  client->watch.set(Interest::kNothing);
  answer(client, client->request.substr(0, end));
}

void Control::answer(ClientPosition client, const std::string& line) {
  const std::uint64_t number = client->number;
  const auto request = nlohmann::json::parse(line, nullptr, false);
  if (!request.is_object() || !request.contains("command") || !request["command"].is_string())
    return reply(number, R"({"error":"expected one line such as {\"command\":\"status\"}"})");
  Request told{.command = request["command"].get<std::string>(), .trunk = {}};
  if (request.contains("trunk") && request["trunk"].is_string()) told.trunk = request["trunk"].get<std::string>();
  answer_(told, Reply(*this, number));
}

void Control::stand(std::uint64_t number, const std::string& document, const Fd& descriptor,
                    std::shared_ptr<void> guard) {
  const auto client = std::ranges::find(clients_, number, &Client::number);
  if (client == clients_.end()) return;
  const std::string line = document + "\n";
  // Nothing has been sent to it yet, so that so little always fits.
  const auto sent = send_packet(client->fd.get(), std::as_bytes(std::span(line)), {}, descriptor);
  if (!sent || *sent != PacketSent::kSent) {
    clients_.erase(client);
    return;
  }
  client->guard = std::move(guard);
  client->limit.reset();
  client->watch.set(Interest::kRead);
}

void Control::reply(std::uint64_t number, std::string document) {
  const auto client = std::ranges::find(clients_, number, &Client::number);
  if (client == clients_.end()) return;
  client->reply = std::move(document) + "\n";
  client->watch.set(Interest::kWrite);
}

void Control::write(ClientPosition client) {
  const ssize_t sent = ::send(client->fd.get(), client->reply.data() + client->written,
                              client->reply.size() - client->written, MSG_NOSIGNAL);
  if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (sent > 0) client->written += static_cast<std::size_t>(sent);
  if (sent > 0 && client->written < client->reply.size()) return;
  clients_.erase(client);
  // A status of ten thousand connections is a document of megabytes, made of small pieces; nothing else here needs so
  // much.
  ::malloc_trim(0);
}

}  // namespace ktrunk::supervisor
