// CLI11's App by its name: only the files that add options to one need compile the library.
#pragma once

namespace CLI {
class App;
}
