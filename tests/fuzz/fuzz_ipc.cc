// What one process takes from another: the channel between supervisor and children (ipc/channel.h) and the packets of
// the handshake service (handoff/wire.h). Whatever a packet holds and however many descriptors come with it, it is a
// message that keeps the contract, or an error, and no descriptor is left open.
// Input: one octet of flags, one with the number of descriptors, one that picks a kind, then the packet's octets.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "handoff/wire.h"
#include "ipc/channel.h"

namespace {

using namespace ktrunk;

constexpr std::uint8_t kFitting = 1;  // the packet gets the header and the length that its kind should have
constexpr std::uint8_t kHandoff = 2;

void require(bool holds) {
  if (!holds) std::abort();
}

int lowest_free_descriptor() {
  const Fd copy(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0));
  return copy.get();
}

void send_raw(int socket, std::span<const std::uint8_t> octets, unsigned descriptors) {
  iovec part{.iov_base = const_cast<std::uint8_t*>(octets.data()), .iov_len = octets.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(8 * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (descriptors != 0) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(descriptors * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(descriptors * sizeof(int));
    for (unsigned i = 0; i < descriptors; ++i) {
      const int descriptor = STDIN_FILENO;
      std::memcpy(CMSG_DATA(header) + i * sizeof descriptor, &descriptor, sizeof descriptor);
    }
  }
  (void)::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void fuzz_channel(std::vector<std::uint8_t> octets, unsigned descriptors, std::uint8_t pick, bool fitting) {
  const int free_before = lowest_free_descriptor();
  {
    auto pair = ipc::Channel::pair();
    require(pair.has_value());
    // Half of the kinds are for this process.
    const auto kind = static_cast<ipc::Kind>(pick & 0x3f);
    ipc::Channel channel(std::move(pair->second), {kind, ipc::Kind::kHello, ipc::Kind::kFault, ipc::Kind::kOffer});
    if (const ipc::Shape* shape = ipc::shape_of(kind); fitting && shape != nullptr) {
      const ipc::Header header{.kind = kind, .body_bytes = static_cast<std::uint32_t>(shape->body_bytes)};
      octets.resize(sizeof header + shape->body_bytes);
      std::memcpy(octets.data(), &header, sizeof header);
      if (pick >= 0x40) descriptors = shape->descriptors;
    }
    send_raw(pair->first.get(), octets, descriptors);
    static ipc::Packet packet;
    const auto outcome = channel.receive(packet);
    if (outcome && *outcome == ipc::Channel::Outcome::kMessage) {
      const ipc::Shape* shape = ipc::shape_of(packet.kind());
      require(shape != nullptr && octets.size() == sizeof(ipc::Header) + shape->body_bytes);
      require(shape->descriptors == descriptors);
      if (packet.kind() == ipc::Kind::kSendControl) {
        const auto body = packet.as<ipc::SendControl>();
        require(std::memcmp(&body, octets.data() + sizeof(ipc::Header), sizeof body) == 0);
      }
      const Fd descriptor = packet.take_descriptor();
      require(descriptor.valid() == (shape->descriptors == 1));
    }
    (void)packet.take_descriptor();  // of a packet that was refused
  }
  require(lowest_free_descriptor() == free_before);
}

template <typename T>
void parse_as(std::vector<std::uint8_t>& octets, bool fitting) {
  handoff::Header header;
  if (fitting) {
    octets.resize(sizeof header + sizeof(T));
    header = {.kind = T::kKind, .body_bytes = sizeof(T)};
    std::memcpy(octets.data(), &header, sizeof header);
  }
  static std::array<std::byte, handoff::kMaxBodyBytes> body;
  body.fill(std::byte{0xff});
  if (octets.size() > sizeof header + body.size()) octets.resize(sizeof header + body.size());
  std::memcpy(&header, octets.data(), std::min(octets.size(), sizeof header));
  if (octets.size() > sizeof header)
    std::memcpy(body.data(), octets.data() + sizeof header, octets.size() - sizeof header);
  const auto value = handoff::parse<T>(header, body, octets.size());
  if (!value) return;
  require(header.kind == T::kKind && octets.size() == sizeof header + sizeof(T));
  require(std::memcmp(&*value, octets.data() + sizeof header, sizeof(T)) == 0);
  if constexpr (requires { value->bytes; }) require(value->bytes <= value->octets.size());
  if constexpr (requires { value->context; }) {
    require(value->context.view().size() < value->context.bytes.size());
    require(value->host.view().size() < value->host.bytes.size());
  }
  if constexpr (requires { value->why; }) require(value->why.view().size() < value->why.bytes.size());
  if constexpr (requires { value->names; })
    for (const auto& name : value->names) require(name.view().size() < name.bytes.size());
}

void fuzz_handoff(std::vector<std::uint8_t> octets, std::uint8_t pick, bool fitting) {
  switch (pick % 7) {
    case 0:
      return parse_as<handoff::Request>(octets, fitting);
    case 1:
      return parse_as<handoff::Answer>(octets, fitting);
    case 2:
      return parse_as<handoff::Record>(octets, fitting);
    case 3:
      return parse_as<handoff::Sent>(octets, fitting);
    case 4:
      return parse_as<handoff::Renew>(octets, fitting);
    case 5:
      return parse_as<handoff::Gone>(octets, fitting);
    default:
      return parse_as<handoff::Instruction>(octets, fitting);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 4) return 0;
  std::vector<std::uint8_t> octets(data + 3, data + size);
  const bool fitting = (data[0] & kFitting) != 0;
  if ((data[0] & kHandoff) != 0) {
    fuzz_handoff(std::move(octets), data[2], fitting);
  } else {
    fuzz_channel(std::move(octets), data[1] % 8, data[2], fitting);
  }
  return 0;
}
