#include "bench/load/caller.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "handshake/tcp_socket.h"

namespace ktrunk::bench {
namespace {

constexpr auto kExpireEvery = std::chrono::milliseconds(50);
constexpr auto kRetryBlocked = std::chrono::milliseconds(1);  // when the connections' queues are full

int status_of(std::string_view message) {
  if (!message.starts_with("SIP/2.0 ") || message.size() < 12) return 0;
  int status = 0;
  const char* digits = message.data() + 8;
  if (std::from_chars(digits, digits + 3, status).ptr != digits + 3) return 0;
  return status >= 100 && status < 700 ? status : 0;
}

std::uint64_t nanoseconds(Clock::duration time) {
  return static_cast<std::uint64_t>(
      std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::nanoseconds>(time).count()));
}

}  // namespace

Caller::Caller(Reactor& reactor, CallerOptions options) : reactor_(reactor), options_(std::move(options)) {
  slots_.resize(options_.concurrency);
  ready_.reserve(slots_.size());
  // The lowest place is taken first.
  for (std::size_t i = slots_.size(); i-- > 0;) ready_.push_back(static_cast<std::uint32_t>(i));
}

void Caller::add(std::unique_ptr<Stream> stream) {
  const std::size_t number = connections_.size();
  if (number == 0) {
    if (options_.shape.sent_by.empty()) options_.shape.sent_by = handshake::local_address(stream->fd()).text();
    const Method method = options_.workload == Workload::kCalls ? Method::kInvite : options_.method;
    request_ = std::make_unique<RequestTemplate>(options_.shape, method);
    dialog_ = std::make_unique<DialogTemplate>(options_.shape);
  }
  alive_.push_back(static_cast<std::uint32_t>(number));
  connections_.push_back({std::move(stream), {}});
  connections_.back().stream->start(*this, number);
}

void Caller::begin(Clock::time_point now) {
  begin_ = expire_next_ = now;
  running_ = true;
  proceed(now);
}

void Caller::measure_from(Clock::time_point now) {
  measured_from_ = now;
  statuses_.fill(0);
}

void Caller::proceed(Clock::time_point now) {
  if (now >= expire_next_) expire(now);
  if (!running_ || alive_.empty()) return;
  if (options_.rate > 0) {
    const auto due_of = [this](std::uint64_t k) {
      const std::chrono::duration<double> after(static_cast<double>(k) / options_.rate);
      return begin_ + std::chrono::duration_cast<Clock::duration>(after);
    };
    while (!ready_.empty()) {
      const Clock::time_point due = due_of(scheduled_);
      if (due > now || !try_begin(ready_.back(), due, now)) return;
      ready_.pop_back();
      ++scheduled_;
    }
    return;
  }
  while (!ready_.empty() && try_begin(ready_.back(), now, now)) ready_.pop_back();
}

Clock::time_point Caller::next_due(Clock::time_point now) const {
  if (!running_ || alive_.empty() || ready_.empty()) return expire_next_;
  if (options_.rate <= 0) return std::min(expire_next_, now + kRetryBlocked);
  const std::chrono::duration<double> after(static_cast<double>(scheduled_) / options_.rate);
  const auto due = begin_ + std::chrono::duration_cast<Clock::duration>(after);
  return std::min(expire_next_, due <= now ? now + kRetryBlocked : due);
}

// A connection whose queue is full is passed over. False: all of them are.
bool Caller::try_begin(std::uint32_t index, Clock::time_point due, Clock::time_point now) {
  Slot& slot = slots_[index];
  for (std::size_t tries = 0; tries < alive_.size(); ++tries) {
    slot.connection = alive_[next_alive_ % alive_.size()];
    ++next_alive_;
    if (begin_on(slot, index, due, now)) return true;
  }
  return false;
}

bool Caller::begin_on(Slot& slot, std::uint32_t index, Clock::time_point due, Clock::time_point now) {
  Stream& stream = *connections_[slot.connection].stream;
  char* place = stream.reserve(request_->bytes());
  if (place == nullptr) return false;
  const bool call = options_.workload == Workload::kCalls;
  ++slot.generation;
  slot.state = call ? State::kInviting : State::kRequesting;
  slot.due = due;
  slot.begun = now;
  request_->write(place, {.slot = index, .generation = slot.generation, .method = Method::kInvite});
  stream.commit(request_->bytes());
  ++counts_.begun;
  ++counts_.messages_sent;
  ++in_progress_;
  return true;
}

void Caller::free(Slot& slot, std::uint32_t index) {
  slot.state = State::kFree;
  --in_progress_;
  ready_.push_back(index);
}

void Caller::expire(Clock::time_point now) {
  expire_next_ = now + kExpireEvery;
  if (in_progress_ == 0) return;
  for (std::uint32_t index = 0; index < slots_.size(); ++index) {
    Slot& slot = slots_[index];
    if (slot.state == State::kFree || now - slot.begun < options_.timeout) continue;
    ++counts_.timeouts;
    free(slot, index);
  }
}

void Caller::on_octets(Stream& stream, std::string_view octets) {
  Connection& connection = connections_[stream.number()];
  const Clock::time_point now = Clock::now();
  const bool framed =
      connection.splitter.feed(octets, [&](std::string_view message) { on_message(connection, message, now); });
  if (!framed) on_end(stream, "what it sent cannot be framed as SIP");
}

void Caller::on_message(Connection& connection, std::string_view message, Clock::time_point now) {
  ++counts_.messages_received;
  const int status = status_of(message);
  const auto tag = Tag::find(message);
  if (status == 0 || !tag || tag->slot >= slots_.size()) return void(++counts_.unexpected);
  Slot& slot = slots_[tag->slot];
  const State expected = tag->method == Method::kBye      ? State::kEnding
                         : tag->method == Method::kInvite ? State::kInviting
                                                          : State::kRequesting;
  if (slot.generation != tag->generation || slot.state != expected) return void(++counts_.unexpected);
  if (status >= 200) on_final(connection, slot, *tag, status, message, now);
}

void Caller::on_final(Connection& connection, Slot& slot, Tag tag, int status, std::string_view message,
                      Clock::time_point now) {
  const bool good = status < 300;
  if (slot.due >= measured_from_) {
    (slot.state == State::kEnding ? bye_latency_ : latency_).record(nanoseconds(now - slot.due));
  }
  interval_.record(nanoseconds(now - slot.due));
  if (slot.state == State::kInviting) {
    tag.method = Method::kAck;
    if (good && send_in_dialog(connection, message, tag)) {
      tag.method = Method::kBye;
      if (send_in_dialog(connection, message, tag)) {
        slot.state = State::kEnding;
        slot.due = slot.begun = now;
        return;
      }
    }
    if (!good) {
      if (char* place = connection.stream->reserve(DialogTemplate::kMaxBytes); place != nullptr) {
        connection.stream->commit(dialog_->write_refused_ack(place, message, tag));
        ++counts_.messages_sent;
      }
    }
    // No dialog: refused, or the 200 is not one that a dialog can be made from.
    ++statuses_[static_cast<std::size_t>(status)];
    ++counts_.failed;
    return free(slot, tag.slot);
  }
  if (!good) ++statuses_[static_cast<std::size_t>(status)];
  ++(good ? counts_.answered : counts_.failed);
  free(slot, tag.slot);
}

bool Caller::send_in_dialog(Connection& connection, std::string_view response, Tag tag) {
  char* place = connection.stream->reserve(DialogTemplate::kMaxBytes);
  if (place == nullptr) return false;
  const std::size_t bytes = dialog_->write(place, response, tag);
  if (bytes == 0) return false;
  connection.stream->commit(bytes);
  ++counts_.messages_sent;
  return true;
}

void Caller::on_end(Stream& stream, const std::string& reason) {
  const auto number = static_cast<std::uint32_t>(stream.number());
  if (std::erase(alive_, number) == 0) return;
  ++counts_.connections_ended;
  if (first_end_.empty()) first_end_ = reason;
  for (std::uint32_t index = 0; index < slots_.size(); ++index) {
    Slot& slot = slots_[index];
    if (slot.state == State::kFree || slot.connection != number) continue;
    ++counts_.lost;
    free(slot, index);
  }
}

void Caller::finish() {
  running_ = false;
  for (const std::uint32_t number : alive_) connections_[number].stream->finish();
}

Histogram Caller::take_interval() {
  Histogram taken = interval_;
  interval_.clear();
  return taken;
}

std::optional<StreamKind> Caller::stream_kind() const {
  if (connections_.empty()) return std::nullopt;
  return connections_.front().stream->kind();
}

std::string Caller::troubles() const {
  std::string text;
  for (std::size_t status = 0; status < statuses_.size(); ++status) {
    if (statuses_[status] != 0) text += fmt::format("{}{} x {}", text.empty() ? "" : ", ", status, statuses_[status]);
  }
  if (!first_end_.empty()) text += fmt::format("{}connection ended: {}", text.empty() ? "" : ", ", first_end_);
  return text;
}

}  // namespace ktrunk::bench
