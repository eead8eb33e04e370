// TLS statistics of the kernel, /proc/net/tls_stat (Documentation/networking/tls.rst). Counters are of the network
// namespace, since boot. The supervisor reads them for `ktrunk status`.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ktrunk::ktls {

// By the kernel's own names: TlsCurrTxSw, TlsDecryptError, TlsTxRekeyOk, ... Which ones exist depends on the kernel.
class TlsStat {
 public:
  // Lines of "NAME VALUE"; lines of another form are an error that names the line.
  [[nodiscard]] static Result<TlsStat> parse(std::string_view text);

  // 0 for a counter that this kernel has not.
  [[nodiscard]] std::uint64_t get(std::string_view name) const;
  [[nodiscard]] const std::map<std::string, std::uint64_t, std::less<>>& all() const { return counters_; }

  // Connections whose records the processor (Sw) or the network card (Device) protects now.
  [[nodiscard]] std::uint64_t transmit_software() const { return get("TlsCurrTxSw"); }
  [[nodiscard]] std::uint64_t receive_software() const { return get("TlsCurrRxSw"); }
  [[nodiscard]] std::uint64_t transmit_device() const { return get("TlsCurrTxDevice"); }
  [[nodiscard]] std::uint64_t receive_device() const { return get("TlsCurrRxDevice"); }
  [[nodiscard]] std::uint64_t decrypt_errors() const { return get("TlsDecryptError"); }

 private:
  std::map<std::string, std::uint64_t, std::less<>> counters_;
};

// A kernel without TLS has no such file: error with code ENOENT.
[[nodiscard]] Result<TlsStat> read_tls_stat(const std::string& path = "/proc/net/tls_stat");

}  // namespace ktrunk::ktls
