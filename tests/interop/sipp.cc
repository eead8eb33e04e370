#include "interop/sipp.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>

#include "interop/interop_fixture.h"

namespace ktrunk::test {
namespace {

void replace_all(std::string& text, std::string_view what, std::string_view by) {
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size())
    text.replace(at, what.size(), by);
}

}  // namespace

Result<std::string> find_sipp() {
  if (const char* given = std::getenv("KTRUNK_SIPP"); given != nullptr) return given;
  const TempFolder folder;
  auto script = Process::start({.argv = {KTRUNK_SIPP_SCRIPT}, .env = {}, .output = folder.file("output")});
  if (!script) return std::unexpected(script.error());
  const auto exit = script->wait(milliseconds(300'000));
  std::string output = script->output();
  if (!exit || exit->code != 0) return fail("no SIPp with TLS, KTRUNK_SIPP may name one: {}", output);
  while (output.ends_with('\n')) output.pop_back();
  return output.substr(output.rfind('\n') + 1);
}

std::vector<std::string> sipp_command(const std::string& path, SippTransport transport, const CertificateFiles& files,
                                      const Address& at, const std::vector<std::string>& options) {
  std::vector<std::string> command = {path, "-i", at.ip(), "-p", std::to_string(at.port()), "-nostdin", "-t"};
  const auto add = [&](const std::vector<std::string>& more) { std::ranges::copy(more, std::back_inserter(command)); };
  switch (transport) {
    case SippTransport::kTls:
      add({"l1", "-tls_cert", files.certificate, "-tls_key", files.key, "-tls_ca", certificates().ca.file()});
      break;
    case SippTransport::kTcp:
      add({"t1"});
      break;
    case SippTransport::kUdp:
      add({"u1"});
      break;
  }
  add(options);
  return command;
}

std::unique_ptr<SippEnd> SippEnd::caller(const Options& options, const Address& to) {
  return start(options, "caller", {to.text(), "-r", std::to_string(kCalls)});
}

std::unique_ptr<SippEnd> SippEnd::callee(const Options& options) { return start(options, "callee", {}); }

std::unique_ptr<SippEnd> SippEnd::start(const Options& options, const std::string& side,
                                        std::vector<std::string> more) {
  const std::string name = fmt::format("{}_{}.xml", options.flow.name, side);
  std::stringstream file;
  file << std::ifstream(KTRUNK_SCENARIOS "/" + name).rdbuf();
  std::string scenario = file.str();
  EXPECT_FALSE(scenario.empty()) << name;
  replace_all(scenario, "STATUS", options.flow.status);
  replace_all(scenario, "HOPS", std::to_string(options.flow.hops));

  std::unique_ptr<SippEnd> made(new SippEnd);
  for (const std::string& option :
       {std::string("-sf"), made->folder_.write(name, scenario), std::string("-m"), std::to_string(kCalls),
        std::string("-timeout"), std::string("100s"), std::string("-timeout_error"), std::string("-trace_err"),
        std::string("-error_file"), made->folder_.file("errors")})
    more.push_back(option);
  made->program_ = Conversation::start(sipp_command(options.path, options.transport, options.files, options.at, more));
  if (made->program_ == nullptr) return nullptr;
  return made;
}

testing::AssertionResult SippEnd::succeeds() const {
  auto result = program_->ends_with(0);
  if (const std::ifstream errors(folder_.file("errors")); !result && errors) result << errors.rdbuf();
  return result;
}

}  // namespace ktrunk::test
