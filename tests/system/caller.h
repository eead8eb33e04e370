// Caller: a peer that sends requests without a pause, and knows which of them came back.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "support/scale.h"
#include "support/sip_peer.h"

namespace ktrunk::test {

// Requests on one connection, as fast as they are answered and with several under way; which came back.
class Caller {
 public:
  Caller(std::unique_ptr<ByteStream> stream, unsigned number, std::string host = "tls.test", unsigned longest = 30'000)
      : stream_(std::move(stream)),
        number_(number),
        host_(std::move(host)),
        longest_(longest),
        thread_([this](const std::stop_token& stop) { run(stop); }) {}
  // No more requests; waits for answers to those under way.
  void finish() {
    thread_.request_stop();
    thread_.join();
  }
  std::set<std::string> missing;  // Call-IDs
  std::size_t answered = 0;
  std::size_t doubled = 0;  // answers to what has been answered
  std::string problem;

 private:
  static constexpr std::size_t kUnderWay = 8;
  static constexpr milliseconds kSilence{8000};        // then what is under way is not waited for any more
  static constexpr milliseconds kLastSilence{20'000};  // the same, in the end: successors may have to be started first
  void run(const std::stop_token& stop) {
    std::mt19937 random(number_);
    std::size_t next = 0;
    for (;;) {
      // What is lost is not waited for.
      while (!stop.stop_requested() && missing.size() < kUnderWay + lost_) {
        const std::string id = fmt::format("caller{}-{}", number_, next++);
        std::string body(random() % 4 == 0 ? random() % longest_ : random() % 700, 'x');
        SipMessage request =
            make_request({.method = "MESSAGE", .uri = fmt::format("sip:bob@{}", host_), .call_id = id, .body = body});
        if (!stream_.send(request)) return fail("it cannot be sent on");
        missing.insert(id);
        bodies_[id] = std::move(body);
      }
      if (missing.empty()) return;
      const bool last = stop.stop_requested();
      const auto response = stream_.receive_or_end(last ? kLastSilence : kSilence);
      if (!response) {
        if (response.error().code != ETIMEDOUT) return fail(response.error().what);
        if (last) return;
        lost_ = missing.size();
        continue;
      }
      if (!*response) return fail("it has ended");
      const std::string id = (*response)->header("Call-ID");
      if ((*response)->status() != 200) return fail((*response)->text());
      if ((*response)->body != bodies_[id]) return fail("another body: " + (*response)->text());
      ++(missing.erase(id) != 0 ? answered : doubled);
    }
  }
  void fail(std::string what) { problem = std::move(what); }

  SipStream stream_;
  unsigned number_;
  std::string host_;
  unsigned longest_;
  std::map<std::string, std::string> bodies_;
  std::size_t lost_ = 0;
  std::jthread thread_;
};

}  // namespace ktrunk::test
