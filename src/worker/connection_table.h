// The connections that a worker holds, by slot; empty places where there is none.
#pragma once

#include <memory>
#include <vector>

#include "worker/connection.h"

namespace ktrunk::worker {

using ConnectionTable = std::vector<std::unique_ptr<Connection>>;

}  // namespace ktrunk::worker
