#include "handshake/post_handshake.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace ktrunk::handshake {
namespace {

using ipc::FaultReason;
using ktls::Endpoint;
using ktls::Version;
using Bytes = std::vector<std::byte>;

Bytes bytes(std::initializer_list<int> values) {
  Bytes made;
  for (const int value : values) made.push_back(static_cast<std::byte>(value));
  return made;
}
Bytes operator+(Bytes left, const Bytes& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}
Bytes message(int type, const Bytes& body) {
  return bytes({type, static_cast<int>(body.size() >> 16), static_cast<int>(body.size() >> 8 & 0xff),
                static_cast<int>(body.size() & 0xff)}) +
         body;
}
Bytes key_update(int request) { return message(24, bytes({request})); }
Bytes ticket_body(std::size_t ticket = 32, const Bytes& extensions = {}) {
  return bytes({0, 0, 28, 32, 1, 2, 3, 4, 2, 0, 1, static_cast<int>(ticket >> 8), static_cast<int>(ticket & 0xff)}) +
         Bytes(ticket, std::byte{0x77}) +
         bytes({static_cast<int>(extensions.size() >> 8), static_cast<int>(extensions.size() & 0xff)}) + extensions;
}
Bytes ticket(std::size_t size = 32) { return message(4, ticket_body(size)); }

// What a stream makes of records: one word per message or refusal.
std::string run(PostHandshakeStream& stream, const std::vector<Bytes>& records) {
  std::string told;
  for (const Bytes& record : records) {
    if (const auto appended = stream.append(record); !appended)
      return told + "refused " + std::to_string(static_cast<int>(appended.error().reason));
    for (;;) {
      const auto found = stream.next();
      if (!found) {
        return told + "refused " + std::to_string(static_cast<int>(found.error().reason)) + "/" +
               std::to_string(found.error().type);
      }
      if (!*found) break;
      switch ((*found)->kind) {
        case PostHandshakeKind::kNewSessionTicket:
          told += "ticket" + std::to_string((*found)->octets.size()) + " ";
          break;
        case PostHandshakeKind::kKeyUpdate:
          told += (*found)->request == KeyUpdateRequest::kRequested ? "update! " : "update ";
          break;
        case PostHandshakeKind::kRenegotiation:
          told += "renegotiation ";
          break;
      }
    }
    stream.end_record();
  }
  return told + (stream.between_messages() ? "." : "...");
}
std::string run(const std::vector<Bytes>& records, Version version = Version::kTls13,
                Endpoint self = Endpoint::kClient) {
  PostHandshakeStream stream(version, self);
  return run(stream, records);
}
std::string refusal(FaultReason reason, int type) {
  return "refused " + std::to_string(static_cast<int>(reason)) + "/" + std::to_string(type);
}

TEST(PostHandshake, TellsMessagesApart) {
  EXPECT_EQ(run({ticket()}), "ticket51 .");
  EXPECT_EQ(run({key_update(0)}), "update .");
  EXPECT_EQ(run({key_update(1)}), "update! .");
  EXPECT_EQ(run({key_update(1)}, Version::kTls13, Endpoint::kServer), "update! .");
  EXPECT_EQ(run({ticket() + ticket(8), ticket(1) + key_update(0)}), "ticket51 ticket27 ticket20 update .");
}

TEST(PostHandshake, PutsTogetherWhatIsCutAnywhere) {
  const Bytes all = ticket(300) + ticket(1) + key_update(1);
  const std::string whole = run({all});
  ASSERT_EQ(whole, "ticket319 ticket20 update! .");
  for (std::size_t cut = 1; cut < all.size(); ++cut) {
    const auto at = all.begin() + static_cast<std::ptrdiff_t>(cut);
    EXPECT_EQ(run({Bytes(all.begin(), at), Bytes(at, all.end())}), whole) << cut;
  }
  std::vector<Bytes> singly;
  for (const std::byte octet : all) singly.push_back({octet});
  EXPECT_EQ(run(singly), whole);
}

TEST(PostHandshake, GoesOnForAPredecessorAtEveryCut) {
  const Bytes all = ticket(40) + ticket(3) + key_update(1);
  for (std::size_t cut = 1; cut < all.size(); ++cut) {
    PostHandshakeStream first(Version::kTls13, Endpoint::kClient);
    const auto at = all.begin() + static_cast<std::ptrdiff_t>(cut);
    ASSERT_TRUE(first.append(Bytes(all.begin(), at)).has_value());
    for (auto found = first.next(); found && *found; found = first.next()) {
    }
    const auto begun = first.begun();
    PostHandshakeStream second(Version::kTls13, Endpoint::kClient);
    if (begun) second.restore(*begun);
    // A ticket of which octets are lost is passed over; a KeyUpdate never is.
    const std::string told = run(second, {Bytes(at, all.end())});
    EXPECT_TRUE(told.ends_with("update! .")) << cut << ": " << told;
  }
}

TEST(PostHandshake, RefusesWhatHasNoPlace) {
  for (int type = 0; type < 256; ++type) {
    const Bytes empty = message(type, {});
    const std::string unexpected = refusal(FaultReason::kUnexpectedHandshake, type);
    if (type != 4 && type != 24) {
      EXPECT_EQ(run({empty}), unexpected);
      EXPECT_EQ(run({bytes({type})}), unexpected) << "known by its first octet";
    }
    if (type != 24) {
      EXPECT_EQ(run({empty}, Version::kTls13, Endpoint::kServer), unexpected);
    }
    if (type != 0) {
      EXPECT_EQ(run({empty}, Version::kTls12, Endpoint::kClient), unexpected);
    }
    if (type != 1) {
      EXPECT_EQ(run({empty}, Version::kTls12, Endpoint::kServer), unexpected);
    }
  }
  EXPECT_EQ(run({{}}), refusal(FaultReason::kUnexpectedHandshake, 0)) << "an empty record";
  EXPECT_EQ(run({bytes({4}), {}}), refusal(FaultReason::kUnexpectedHandshake, 0));
}

TEST(PostHandshake, WantsAKeyUpdateOfOneOctetAtTheEndOfItsRecord) {
  for (int request = 2; request < 256; ++request)
    EXPECT_EQ(run({key_update(request)}), refusal(FaultReason::kBadKeyUpdate, 24));
  EXPECT_EQ(run({message(24, {})}), refusal(FaultReason::kBadHandshake, 24));
  EXPECT_EQ(run({message(24, bytes({0, 0}))}), refusal(FaultReason::kBadHandshake, 24));
  EXPECT_EQ(run({bytes({24, 255, 255, 255})}), refusal(FaultReason::kBadHandshake, 24));
  EXPECT_EQ(run({key_update(0) + ticket()}), refusal(FaultReason::kUnexpectedHandshake, 24));
  EXPECT_EQ(run({key_update(0) + bytes({24})}), refusal(FaultReason::kUnexpectedHandshake, 24));
  EXPECT_EQ(run({bytes({24, 0, 0}), bytes({1, 0, 4})}), refusal(FaultReason::kUnexpectedHandshake, 24));
}

TEST(PostHandshake, RefusesRenegotiation) {
  EXPECT_EQ(run({message(0, {})}, Version::kTls12, Endpoint::kClient), "renegotiation .");
  EXPECT_EQ(run({message(0, {}) + message(0, {})}, Version::kTls12, Endpoint::kClient),
            "renegotiation renegotiation .");
  EXPECT_EQ(run({message(0, bytes({1}))}, Version::kTls12, Endpoint::kClient), refusal(FaultReason::kBadHandshake, 0));
  EXPECT_EQ(run({message(1, Bytes(200))}, Version::kTls12, Endpoint::kServer), "renegotiation .");
  EXPECT_EQ(run({message(1, Bytes(500))}, Version::kTls12, Endpoint::kServer), "renegotiation .");
}

TEST(PostHandshake, ChecksEveryLengthInATicket) {
  const Bytes good = ticket_body(32, bytes({0, 42, 0, 4, 0, 0, 0, 1, 0xfa, 0xfa, 0, 0}));
  EXPECT_EQ(run({message(4, good)}), "ticket63 .");
  const std::string bad = refusal(FaultReason::kBadHandshake, 4);
  for (std::size_t size = 0; size < good.size(); ++size)
    EXPECT_EQ(run({message(4, Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)))}), bad) << size;
  EXPECT_EQ(run({message(4, good + bytes({0}))}), bad);
  EXPECT_EQ(run({message(4, ticket_body(0))}), bad) << "a ticket has at least one octet";
  for (const std::size_t at : {8u, 11u, 12u, 45u, 46u, 49u, 50u, 57u, 58u}) {
    for (const int change : {1, 0x40, 0xff}) {
      Bytes broken = good;
      broken[at] ^= static_cast<std::byte>(change);
      EXPECT_EQ(run({message(4, broken)}), bad) << at << " ^ " << change;
    }
  }
}

TEST(PostHandshake, IsBounded) {
  PostHandshakeStream stream(Version::kTls13, Endpoint::kClient);
  EXPECT_TRUE(stream.append(Bytes(16384)).has_value());
  EXPECT_FALSE(stream.append(Bytes(1)).has_value());
  EXPECT_EQ(run({bytes({4, 0, 0xff, 0xfd})}), refusal(FaultReason::kBadHandshake, 4));
  EXPECT_EQ(run({bytes({4, 0, 0xff, 0xfc})}), "...");
  const Bytes longest = message(4, ticket_body(65536 - 4 - 15));
  ASSERT_EQ(longest.size(), PostHandshakeStream::kMostMessage);
  std::vector<Bytes> records;
  for (std::size_t at = 0; at < longest.size(); at += 16384)
    records.emplace_back(longest.begin() + static_cast<std::ptrdiff_t>(at),
                         longest.begin() + static_cast<std::ptrdiff_t>(std::min(longest.size(), at + 16384)));
  EXPECT_EQ(run(records), "ticket65536 .");
}

// Whatever comes, in whatever pieces: an answer, and no memory beyond the bounds.
TEST(PostHandshake, SurvivesAnything) {
  std::mt19937 random(20);
  const std::vector<Bytes> seeds = {ticket(), key_update(1), message(1, Bytes(70)), message(0, {})};
  for (int round = 0; round < 20000; ++round) {
    PostHandshakeStream stream(round % 2 != 0 ? Version::kTls13 : Version::kTls12,
                               round % 4 < 2 ? Endpoint::kClient : Endpoint::kServer);
    if (round % 5 == 0)
      stream.restore({.header = {static_cast<std::byte>(random() % 30)},
                      .have = static_cast<std::uint32_t>(random() % (round % 3 == 0 ? 5 : 1u << 31)),
                      .last_record = 0});
    std::vector<Bytes> records;
    for (unsigned i = 0; i < 1 + random() % 4; ++i) {
      Bytes record = seeds[random() % seeds.size()];
      for (unsigned change = 0; change < random() % 3; ++change)
        record[random() % record.size()] = static_cast<std::byte>(random() % 256);
      record.resize(random() % (record.size() + 3));
      records.push_back(std::move(record));
    }
    (void)run(stream, records);
    EXPECT_LE(stream.size(), PostHandshakeStream::kMostMessage + ktls::kMaxRecordBytes);
  }
}

}  // namespace
}  // namespace ktrunk::handshake
