#include "examples_fixture.h"

#include <cstdlib>

#include "support/daemon.h"

namespace ktrunk::test {

std::string ExamplesTest::example(const std::string& name) {
  const char* prefix = std::getenv("KTRUNK_EXAMPLES_PREFIX");
  return prefix != nullptr ? fmt::format("{}/examples/{}", prefix, name) : built_program(name);
}

std::string ExamplesTest::handshake_program() {
  const char* prefix = std::getenv("KTRUNK_EXAMPLES_PREFIX");
  return prefix != nullptr ? fmt::format("{}/libexec/ktrunk/ktrunkd-handshake", prefix)
                           : built_program("ktrunkd-handshake");
}

void ExamplesTest::launch(std::optional<Process>& process, const std::vector<std::string>& argv,
                          const std::string& ready) {
  auto started = Process::start({.argv = argv, .env = {}, .output = folder_.file(fmt::format("output{}", outputs_++))});
  ASSERT_TRUE(started) << started.error().what;
  process.emplace(std::move(*started));
  const auto has = [&] { return process->output().find(ready) != std::string::npos; };
  EXPECT_TRUE(eventually([&] { return has() || !process->running(); }, kLong));
  ASSERT_TRUE(has()) << argv.front() << ": " << process->output();
}

std::vector<std::string> ExamplesTest::openssl_client(const Address& server) const {
  return {"openssl",          "s_client",   "-connect", server.text(),     "-servername",          "edge.test",
          "-verify_hostname", "edge.test",  "-CAfile",  authority_.file(), "-verify_return_error", "-quiet",
          "-no_ign_eof",      "-nocommands"};
}

std::vector<std::string> ExamplesTest::gnutls_client(const Address& server) const {
  return {"gnutls-cli",     "--x509cafile", authority_.file(),
          "--sni-hostname", "edge.test",    "--verify-hostname",
          "edge.test",      "--port",       std::to_string(server.port()),
          server.ip()};
}

}  // namespace ktrunk::test
