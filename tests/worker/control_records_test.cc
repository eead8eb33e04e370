// What follows from alerts, handshake records and receive errors, in every cut and order that a peer may choose.
#include "worker/control_records.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "ktls/control_record.h"

namespace ktrunk::worker {
namespace {

using ipc::FaultReason;
using ipc::TlsVersion;
using Place = ControlRecords::Place;
using Fault = std::optional<StreamFault>;
using namespace std::chrono_literals;

constexpr Clock::time_point kStart{1h};
constexpr int kAlertType = static_cast<int>(ktls::RecordType::kAlert);
constexpr int kHandshakeType = static_cast<int>(ktls::RecordType::kHandshake);
const Fault kGoOn = std::nullopt;

std::string alert_octets(int level, ktls::AlertDescription description) {
  return {static_cast<char>(level), static_cast<char>(description)};
}
Fault feed(ControlRecords& records, std::string_view octets, TlsVersion version, Place place = Place::kEndOfRecord) {
  return records.alert(octets, place, version, kStart);
}
Fault feed_new(std::string_view octets, TlsVersion version, Place place = Place::kEndOfRecord) {
  ControlRecords records;
  return feed(records, octets, version, place);
}
Fault fault(FaultReason reason, int detail = 0) { return StreamFault{reason, detail}; }

TEST(Alert13, IsTwoOctetsInOneRecord) {
  for (std::size_t bytes : {1u, 3u, 4u, 200u})
    EXPECT_EQ(feed_new(std::string(bytes, '\1'), TlsVersion::kTls13), fault(FaultReason::kBadAlert)) << bytes;
  EXPECT_EQ(feed_new(alert_octets(1, ktls::AlertDescription::kCloseNotify), TlsVersion::kTls13, Place::kMore),
            fault(FaultReason::kBadAlert));
  EXPECT_EQ(feed_new("", TlsVersion::kTls13), fault(FaultReason::kUnexpectedRecord, kAlertType));
}

TEST(Alert13, EveryDescriptionAtEveryLevel) {
  for (int level = 0; level < 256; ++level) {
    for (int description = 0; description < 256; ++description) {
      const Fault got =
          feed_new(alert_octets(level, static_cast<ktls::AlertDescription>(description)), TlsVersion::kTls13);
      if (description == 0) {
        EXPECT_EQ(got, fault(FaultReason::kCloseNotify));
      } else if (description == 90) {
        EXPECT_EQ(got, kGoOn);
      } else {
        EXPECT_EQ(got, fault(FaultReason::kAlert, description)) << level;
      }
    }
  }
}

TEST(Alert12, EveryDescriptionAtEveryLevel) {
  for (int level = 0; level < 256; ++level) {
    for (int description = 0; description < 256; ++description) {
      const Fault got =
          feed_new(alert_octets(level, static_cast<ktls::AlertDescription>(description)), TlsVersion::kTls12);
      if (level != 1 && level != 2) {
        EXPECT_EQ(got, fault(FaultReason::kBadAlert));
      } else if (description == 0) {
        EXPECT_EQ(got, fault(FaultReason::kCloseNotify));
      } else if (level == 2) {
        EXPECT_EQ(got, fault(FaultReason::kAlert, description));
      } else {
        EXPECT_EQ(got, kGoOn);
      }
    }
  }
}

TEST(Alert12, InPiecesAndTogether) {
  const std::string warning = alert_octets(1, ktls::AlertDescription::kNoRenegotiation);
  const std::string close = alert_octets(1, ktls::AlertDescription::kCloseNotify);
  ControlRecords pieces;
  EXPECT_EQ(feed(pieces, warning.substr(0, 1), TlsVersion::kTls12), kGoOn);
  EXPECT_FALSE(pieces.warned());
  pieces.data();  // other types may come in between
  EXPECT_EQ(feed(pieces, warning.substr(1) + close.substr(0, 1), TlsVersion::kTls12), kGoOn);
  EXPECT_TRUE(pieces.warned());
  EXPECT_EQ(feed(pieces, close.substr(1), TlsVersion::kTls12), fault(FaultReason::kCloseNotify));

  EXPECT_EQ(
      feed_new(warning + warning + alert_octets(2, ktls::AlertDescription::kInternalError) + close, TlsVersion::kTls12),
      fault(FaultReason::kAlert, static_cast<int>(ktls::AlertDescription::kInternalError)));
  EXPECT_EQ(feed_new("", TlsVersion::kTls12), fault(FaultReason::kUnexpectedRecord, kAlertType));
}

TEST(Flood, RecordsInARow) {
  for (const TlsVersion version : {TlsVersion::kTls12, TlsVersion::kTls13}) {
    ControlRecords records;
    const std::string passed_over = alert_octets(1, ktls::AlertDescription::kUserCanceled);
    for (int turn = 0; turn < 3; ++turn) {
      for (unsigned i = 0; i < ControlRecords::kMaxRun; ++i) ASSERT_EQ(feed(records, passed_over, version), kGoOn);
      records.data();
    }
    for (unsigned i = 0; i < ControlRecords::kMaxRun; ++i) ASSERT_EQ(feed(records, passed_over, version), kGoOn);
    EXPECT_EQ(feed(records, passed_over, version), fault(FaultReason::kControlFlood));
  }
  // Many in one record are many.
  std::string many;
  for (unsigned i = 0; i <= ControlRecords::kMaxRun; ++i)
    many += alert_octets(1, ktls::AlertDescription::kUserCanceled);
  EXPECT_EQ(feed_new(many, TlsVersion::kTls12), fault(FaultReason::kControlFlood));
}

TEST(Flood, EmptyRecordsCountToo) {
  ControlRecords records;
  for (unsigned i = 0; i < ControlRecords::kMaxRun / 2; ++i) {
    ASSERT_EQ(records.empty_data(), kGoOn);
    ASSERT_EQ(records.handshake("x", Place::kEndOfRecord, kStart), kGoOn);
    ASSERT_EQ(records.answered(kStart), kGoOn);
  }
  EXPECT_EQ(records.empty_data(), fault(FaultReason::kControlFlood));
}

// A thousand KeyUpdates in ten seconds with data between them are served; a burst of them, or more for ever, is not.
TEST(Flood, OverTime) {
  const auto send = [](int count, Clock::duration interval) -> int {
    ControlRecords records;
    for (int i = 0; i < count; ++i) {
      const Clock::time_point now = kStart + i * interval;
      if (records.handshake("x", Place::kEndOfRecord, now)) return i;
      if (records.answered(now)) return -1;
      records.data();
    }
    return count;
  };
  EXPECT_EQ(send(1000, 10ms), 1000);
  EXPECT_EQ(send(100'000, 8ms), 100'000);
  EXPECT_EQ(send(ControlRecords::kBurst, 0ms), ControlRecords::kBurst);
  EXPECT_EQ(send(10'000, 0ms), ControlRecords::kBurst);
  EXPECT_LT(send(10'000, 5ms), 2000);
}

TEST(Handshake, EmptyOnesAreNone) {
  ControlRecords records;
  EXPECT_EQ(records.handshake("", Place::kEndOfRecord, kStart), fault(FaultReason::kUnexpectedRecord, kHandshakeType));
  // The empty rest of a begun one is none either, but no fault.
  EXPECT_EQ(records.handshake("x", Place::kMore, kStart), kGoOn);
  EXPECT_FALSE(records.unanswered());
  EXPECT_EQ(records.handshake("", Place::kEndOfRecord, kStart), kGoOn);
  EXPECT_TRUE(records.unanswered());
}

TEST(Handshake, EachIsAnsweredForItself) {
  ControlRecords records;
  EXPECT_EQ(records.handshake("a", Place::kEndOfRecord, kStart), kGoOn);
  EXPECT_EQ(records.handshake("b", Place::kEndOfRecord, kStart), kGoOn);
  EXPECT_EQ(records.answered(kStart), kGoOn);
  EXPECT_TRUE(records.unanswered());
  EXPECT_EQ(records.answered(kStart), kGoOn);
  EXPECT_FALSE(records.unanswered());
  EXPECT_EQ(records.answered(kStart), kGoOn);  // one too many changes nothing
  EXPECT_FALSE(records.unanswered());
}

TEST(Handshake, AnswersMustComeInTime) {
  ControlRecords records;
  EXPECT_FALSE(records.overdue(kStart + 1h));
  EXPECT_EQ(records.handshake("a", Place::kEndOfRecord, kStart), kGoOn);
  EXPECT_EQ(records.handshake("b", Place::kEndOfRecord, kStart + 5s), kGoOn);
  EXPECT_FALSE(records.overdue(kStart + ControlRecords::kAnswerLimit));
  EXPECT_TRUE(records.overdue(kStart + ControlRecords::kAnswerLimit + 1ms));
  EXPECT_EQ(records.answered(kStart + 10s), kGoOn);
  EXPECT_FALSE(records.overdue(kStart + 19s));
  EXPECT_TRUE(records.overdue(kStart + 21s));
}

TEST(ReceiveError, IsWithheldUntilTheAnswer) {
  ControlRecords fresh;
  EXPECT_EQ(fresh.failed(EMSGSIZE), fault(FaultReason::kBadRecord, EMSGSIZE));
  ControlRecords waiting;
  EXPECT_EQ(waiting.handshake("a", Place::kEndOfRecord, kStart), kGoOn);
  EXPECT_EQ(waiting.handshake("b", Place::kEndOfRecord, kStart), kGoOn);
  EXPECT_EQ(waiting.failed(EMSGSIZE), kGoOn);
  EXPECT_FALSE(waiting.take_retry());
  EXPECT_EQ(waiting.answered(kStart), kGoOn);
  EXPECT_EQ(waiting.answered(kStart), fault(FaultReason::kBadRecord, EMSGSIZE));
}

// A record that does not decrypt is tried once more under the keys that the answer may have brought.
TEST(ReceiveError, ARecordThatDoesNotDecryptIsTriedAgainAfterTheAnswer) {
  const Fault bad = fault(FaultReason::kBadRecord, EBADMSG);
  ControlRecords fresh;
  EXPECT_EQ(fresh.failed(EBADMSG), bad);
  EXPECT_FALSE(fresh.take_retry());

  ControlRecords waiting;
  EXPECT_EQ(waiting.handshake("a", Place::kEndOfRecord, kStart), kGoOn);
  EXPECT_EQ(waiting.handshake("b", Place::kEndOfRecord, kStart), kGoOn);
  EXPECT_EQ(waiting.failed(EBADMSG), kGoOn);
  EXPECT_EQ(waiting.answered(kStart), kGoOn);
  EXPECT_EQ(waiting.answered(kStart), kGoOn);
  EXPECT_TRUE(waiting.take_retry());
  EXPECT_FALSE(waiting.take_retry()) << "once";
  // The error may come behind the answer although it is from before it; then it was no answer to it.
  EXPECT_EQ(waiting.failed(EBADMSG), kGoOn);
  EXPECT_TRUE(waiting.take_retry());
  EXPECT_EQ(waiting.failed(EBADMSG), bad);

  ControlRecords served;
  EXPECT_EQ(served.handshake("a", Place::kEndOfRecord, kStart), kGoOn);
  EXPECT_EQ(served.answered(kStart), kGoOn);
  EXPECT_FALSE(served.take_retry());
  served.data();
  EXPECT_EQ(served.failed(EBADMSG), bad) << "what decrypts shows that the keys are right";
}

TEST(ReceiveError, OthersAreNot) {
  for (const bool waiting : {false, true}) {
    const auto failed = [&](int error) {
      ControlRecords records;
      if (waiting) (void)records.handshake("a", Place::kEndOfRecord, kStart);
      return records.failed(error);
    };
    EXPECT_EQ(failed(EINVAL), fault(FaultReason::kBadRecord, EINVAL));
    EXPECT_EQ(failed(ECONNRESET), fault(FaultReason::kReset, ECONNRESET));
    EXPECT_EQ(failed(EIO), fault(FaultReason::kReset, EIO));
    for (const int passing : {ENOBUFS, ECANCELED, EAGAIN, EINTR}) EXPECT_EQ(failed(passing), kGoOn);
  }
}

TEST(ReceiveError, ExpiredKeysBehindAKeyUpdate) {
  ControlRecords records;
  EXPECT_EQ(records.handshake("a", Place::kEndOfRecord, kStart), kGoOn);
  EXPECT_EQ(records.failed(EKEYEXPIRED), kGoOn);
  EXPECT_EQ(records.failed(EKEYEXPIRED), kGoOn);
  EXPECT_EQ(records.answered(kStart), kGoOn);
  // It may have been on its way when the answer came; when it comes again no new keys are in.
  EXPECT_EQ(records.failed(EKEYEXPIRED), kGoOn);
  EXPECT_EQ(records.failed(EKEYEXPIRED), fault(FaultReason::kKeysFailed, EKEYEXPIRED));
  ControlRecords served;
  for (int turn = 0; turn < 5; ++turn) {
    EXPECT_EQ(served.failed(EKEYEXPIRED), kGoOn);
    served.data();
  }
}

}  // namespace
}  // namespace ktrunk::worker
