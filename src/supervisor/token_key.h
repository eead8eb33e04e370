// Token key: the key of flow tokens, in a file, so that dialogs outlive a restart of ktrunkd (ktrunk.token_key_file).
// What stands in a token are places in the configuration's lists, so the names of listeners and trunks are part of the
// key: after a restart with other ones no token is taken for what it is not.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "config/config.h"
#include "ipc/shared_region.h"

namespace ktrunk::supervisor {

// Without such a file in the configuration none. One that is not there is made, for its owner alone to read; one that
// others may read, or that is no such key, is an error.
[[nodiscard]] Result<std::optional<ipc::TokenSeed>> token_seed(const config::Config& config);

}  // namespace ktrunk::supervisor
