#include "cenote/pool/parking.hpp"

#include <charconv>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string_view>

#include "cenote/driver/device.hpp"
#include "cenote/driver/paused_addresses.hpp"
#include "cenote/ground/quoted.hpp"
#include "cenote/pool/file_parking.hpp"
#include "cenote/pool/host_parking.hpp"
#include "cenote/pool/peer_parking.hpp"

namespace cenote::inline v1::pool {
namespace {

class no_parking final : public parking {
 public:
  no_parking(std::optional<unsigned char> fill, int device) noexcept : fill_(fill), device_(device) {}

  void save(std::size_t, const std::byte*, std::size_t, stream_ref) override {}
  bool read(std::size_t, std::byte* to, std::size_t bytes) override {
    if (fill_) std::memset(to, *fill_, bytes);
    return fill_.has_value();
  }
  void load(std::size_t, std::byte* to, std::size_t bytes, stream_ref stream) override {
    if (fill_) fill_pages_async(to, *fill_, bytes, stream, device_);
  }

 private:
  const std::optional<unsigned char> fill_;
  const int device_;
};

[[noreturn]] void refuse(const std::string& keep) {
  throw std::invalid_argument(
      "contents are kept in 'host', 'file:FOLDER', 'peer:DEVICE', 'nothing' or 'fill:BYTE' (0 to 255), not in " +
      quoted(keep, ""));
}

int parse_number(std::string_view text, int most, const std::string& keep) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || number < 0 || number > most) refuse(keep);
  return number;
}

}  // namespace

std::unique_ptr<parking> make_parking(const std::string& keep, int device) {
  if (keep == "host") return std::make_unique<host_parking>(device);
  if (keep == "nothing") return std::make_unique<no_parking>(std::nullopt, device);
  const std::size_t colon = keep.find(':');
  const std::string kind = keep.substr(0, colon);
  const std::string value = colon == std::string::npos ? "" : keep.substr(colon + 1);
  if (value.empty()) refuse(keep);
  if (kind == "file") return std::make_unique<file_parking>(device, value);
  if (kind == "peer") return std::make_unique<peer_parking>(device, parse_number(value, max_devices - 1, keep));
  if (kind != "fill") refuse(keep);
  return std::make_unique<no_parking>(static_cast<unsigned char>(parse_number(value, 255, keep)), device);
}

}  // namespace cenote::inline v1::pool
