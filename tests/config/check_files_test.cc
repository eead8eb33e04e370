// check_files() and read_file(): what the file system can have in store.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <string>

#include "config/config.h"

namespace ktrunk::config {
namespace {

using testing::HasSubstr;

constexpr std::string_view kText =
    "[[listen]]\ntransport = 'tls'\naddress = '127.0.0.1:5061'\ncertificate = 'c.pem'\nkey = 'c.key'\n"
    "verify_client = 'optional'\nca = 'ca.pem'\ncrl = 'crl.pem'\nocsp = 'c.ocsp'\n";

class CheckFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "ktrunk-config-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    write("c.pem", "text before\n-----BEGIN CERTIFICATE-----\n");
    write("c.key", "-----BEGIN EC PRIVATE KEY-----\n");
    write("ca.pem", "-----BEGIN CERTIFICATE-----\n");
    write("crl.pem", "-----BEGIN X509 CRL-----\n");
    write("c.ocsp", std::string_view("\x30\x03\x0a\x01\x06", 5));
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void write(const std::string& name, std::string_view text) const { std::ofstream(folder_ / name) << text; }
  [[nodiscard]] std::string file(const std::string& name) const { return (folder_ / name).string(); }
  [[nodiscard]] Status check() const {
    const auto config = parse(kText, file("k.toml"));
    if (!config) return std::unexpected(config.error());
    return check_files(*config);
  }

  std::filesystem::path folder_;
};

TEST_F(CheckFilesTest, GoodFiles) {
  const Status status = check();
  EXPECT_TRUE(status) << status.error().what;
}

TEST_F(CheckFilesTest, AMissingFileIsNamedWithItsKey) {
  std::filesystem::remove(folder_ / "c.key");
  const Status status = check();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().what, file("k.toml") + ":5: key 'listen[0].key': cannot read " + file("c.key") +
                                     ": ENOENT (No such file or directory); expected a PEM private key");
  EXPECT_EQ(status.error().code, ENOENT);
}

TEST_F(CheckFilesTest, FilesInPlaceOfOneAnother) {
  std::filesystem::copy_file(folder_ / "c.key", folder_ / "c.pem", std::filesystem::copy_options::overwrite_existing);
  const Status status = check();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().what, file("k.toml") + ":4: key 'listen[0].certificate': " + file("c.pem") +
                                     " holds none; expected a PEM certificate chain");
}

TEST_F(CheckFilesTest, EmptyAndBinaryFiles) {
  write("ca.pem", "");
  EXPECT_THAT(check().error().what, HasSubstr("holds none; expected PEM certificates of authorities"));
  write("ca.pem", std::string_view("\x30\x82\0\0", 4));
  EXPECT_THAT(check().error().what, HasSubstr("holds none"));
}

TEST_F(CheckFilesTest, RevocationListsAndResponses) {
  write("crl.pem", "-----BEGIN CERTIFICATE-----\n");
  EXPECT_EQ(check().error().what, file("k.toml") + ":8: key 'listen[0].crl': " + file("crl.pem") +
                                      " holds none; expected PEM certificate revocation lists");
  write("crl.pem", "-----BEGIN X509 CRL-----\n");
  for (const std::string_view text : {"", "-----BEGIN OCSP RESPONSE-----\n"}) {
    write("c.ocsp", text);
    EXPECT_EQ(check().error().what, file("k.toml") + ":9: key 'listen[0].ocsp': " + file("c.ocsp") +
                                        " holds none; expected an OCSP response (DER)");
  }
}

TEST_F(CheckFilesTest, NoRegularFile) {
  std::filesystem::remove(folder_ / "c.pem");
  std::filesystem::create_directory(folder_ / "c.pem");
  EXPECT_THAT(check().error().what, HasSubstr("is not a regular file"));
  std::filesystem::remove(folder_ / "c.pem");
  ASSERT_EQ(::mkfifo(file("c.pem").c_str(), 0600), 0);
  EXPECT_THAT(check().error().what, HasSubstr("is not a regular file"));  // and it does not block
  std::filesystem::remove(folder_ / "c.pem");
  std::filesystem::create_symlink("/dev/zero", folder_ / "c.pem");
  EXPECT_THAT(check().error().what, HasSubstr("is not a regular file"));
}

TEST_F(CheckFilesTest, AnEndlessFileIsRefused) {
  write("c.pem", "");
  std::filesystem::resize_file(folder_ / "c.pem", std::uintmax_t{1} << 32);
  EXPECT_THAT(check().error().what, HasSubstr("is longer than"));
}

TEST_F(CheckFilesTest, ReadFile) {
  write("k.toml", std::string(100'000, 'x'));
  EXPECT_EQ(read_file(file("k.toml")).value_or(""), std::string(100'000, 'x'));
  EXPECT_EQ(read_file(file("none")).error().what,
            "cannot read the configuration file " + file("none") + ": ENOENT (No such file or directory)");
  EXPECT_THAT(read_file(folder_.string()).error().what, HasSubstr("it is a folder"));
  EXPECT_THAT(read_file("/dev/zero").error().what, HasSubstr("too long"));
  EXPECT_EQ(read_file("/dev/null").value_or("?"), "");
}

}  // namespace
}  // namespace ktrunk::config
