// The torture messages of RFC 4475 and RFC 5118, from a folder that INDEX.tsv describes, and what a proxy owes to each.
// The folder is KTRUNK_TORTURE_DIR, of the environment or else of the build; tests skip visibly where it is absent.
#pragma once

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace ktrunk::test {

struct TortureMessage {
  std::string name;     // "wsinv", "ipv6-good"
  std::string verdict;  // valid, invalid, semantic, extra
  std::string framing;  // exact, "450 trailing octets", "short by N", unframable, "-" (no empty line)
  std::string bytes;    // RFC 5118's with CRLF: as the RFC means them
  std::string bare_lf;  // RFC 5118's as the archive has them; empty for RFC 4475
};

inline std::string torture_folder() {
  const char* folder = std::getenv("KTRUNK_TORTURE_DIR");
  return folder != nullptr ? folder : KTRUNK_TORTURE_DIR;
}

// Empty where the folder is absent.
inline std::vector<TortureMessage> torture_messages() {
  const std::string folder = torture_folder() + "/";
  const auto read_all = [&](const std::string& path) {
    std::ifstream file(folder + path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  std::vector<TortureMessage> messages;
  std::ifstream index(folder + "INDEX.tsv");
  for (std::string line; std::getline(index, line);) {
    if (line.starts_with('#')) continue;
    std::vector<std::string> fields;
    std::istringstream split(line);
    for (std::string field; std::getline(split, field, '\t');) fields.push_back(field);
    if (fields.size() < 12) continue;
    const std::string name = fields[1].substr(fields[1].find('/') + 1);
    // The index measures the files as they are; the twins with CRLF are whole.
    const bool twin = fields[0] == "5118";
    messages.push_back({.name = name.substr(0, name.find('.')),
                        .verdict = fields[4],
                        .framing = twin ? "exact" : fields[11],
                        .bytes = read_all(twin ? "rfc5118-crlf/" + name + ".dat" : fields[1]),
                        .bare_lf = twin ? read_all(fields[1]) : ""});
  }
  return messages;
}

inline constexpr int kTortureDropped = 0;
inline constexpr int kTortureForwarded = 1;

// What the proxy makes of one whole message: forwarded, dropped, or answered with a status. The index's verdicts for
// proxies, the strict reading where it leaves a choice.
inline int torture_verdict(const std::string& name) {
  static const std::map<std::string, int> refused = {{"badinv01", 400},
                                                     {"clerr", 400},  // as a datagram
                                                     {"ncl", 400},
                                                     {"scalar02", 400},
                                                     {"quotbal", 400},
                                                     {"ltgtruri", 400},
                                                     {"lwsruri", 400},
                                                     {"lwsstart", 400},
                                                     {"trws", 400},
                                                     {"escruri", 400},
                                                     {"badaspec", 400},
                                                     {"baddn", 400},  // as a datagram
                                                     {"badvers", 505},
                                                     {"mismatch01", 400},
                                                     {"mismatch02", 400},
                                                     {"insuf", 400},
                                                     {"unkscm", 416},
                                                     {"novelsc", 416},
                                                     {"bext01", 420},
                                                     {"multi01", 400},
                                                     {"mcl01", 400},
                                                     {"zeromf", 483},
                                                     {"ipv6-bad", 400},
                                                     // Responses, none of them to a request of ours.
                                                     {"scalarlg", kTortureDropped},
                                                     {"bigcode", kTortureDropped},
                                                     {"unreason", kTortureDropped},
                                                     {"noreason", kTortureDropped},
                                                     {"test", kTortureDropped},
                                                     {"bcast", kTortureDropped}};
  const auto found = refused.find(name);
  return found == refused.end() ? kTortureForwarded : found->second;
}

}  // namespace ktrunk::test
