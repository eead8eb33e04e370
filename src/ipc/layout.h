// Layout: what two versions of ktrunk must have in common for one to go on where the other stopped: the messages
// between processes, the shared region, the estates and the vault. An upgrade from one layout to another is refused.
#pragma once

#include <string>

namespace ktrunk::ipc {

// In words, with every version and size that there is; equal texts, equal layouts. One that changes the meaning of
// something without its size must change a version: kProtocolVersion, or a magic number.
[[nodiscard]] std::string layout();

}  // namespace ktrunk::ipc
