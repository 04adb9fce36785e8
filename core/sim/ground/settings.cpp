#include "sim/ground/settings.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <set>

namespace cenote::sim {
namespace {

constexpr std::size_t max_memory_bytes = std::size_t{4} << 40;
constexpr int oldest_driver = 11000;
constexpr int newest_driver = 13000;
constexpr int most_instances = 7;
constexpr std::size_t longest_name = 255;  // programs give cuDeviceGetName room for 256

struct byte_unit {
  std::string_view name;
  double bytes;
};
constexpr std::array<byte_unit, 9> units{{{"B", 1},
                                          {"KB", 1e3},
                                          {"MB", 1e6},
                                          {"GB", 1e9},
                                          {"TB", 1e12},
                                          {"KiB", 0x1p10},
                                          {"MiB", 0x1p20},
                                          {"GiB", 0x1p30},
                                          {"TiB", 0x1p40}}};

[[noreturn]] void reject(std::string_view key, std::string_view value, std::string_view wanted) {
  throw std::invalid_argument(std::string(key) + "=" + std::string(value) + ": " + std::string(wanted));
}

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(' ');
  if (first == std::string_view::npos) {
    return {};
  }
  return text.substr(first, text.find_last_not_of(' ') - first + 1);
}

int parse_integer(std::string_view key, std::string_view value, int least, int most) {
  int number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc{} || end != value.data() + value.size() || number < least || number > most) {
    reject(key, value, "an integer from " + std::to_string(least) + " to " + std::to_string(most) + " is expected");
  }
  return number;
}

std::size_t parse_bytes(std::string_view key, std::string_view value) {
  constexpr std::string_view wanted =
      "a size such as 80GiB is expected, from 1B to 4TiB, with a unit of B, KB, MB, "
      "GB, TB, KiB, MiB, GiB or TiB";
  double number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc{}) {
    reject(key, value, wanted);
  }
  const auto suffix = trimmed({end, static_cast<std::size_t>(value.data() + value.size() - end)});
  for (const byte_unit& unit : units) {
    const double bytes = number * unit.bytes;
    if (suffix == unit.name && bytes >= 1 && bytes <= static_cast<double>(max_memory_bytes)) {
      return static_cast<std::size_t>(std::llround(bytes));
    }
  }
  reject(key, value, wanted);
}

}  // namespace

machine_settings parse_settings(std::string_view text) {
  machine_settings settings;
  std::set<std::string_view> keys;
  while (!trimmed(text).empty()) {
    const auto comma = text.find(',');
    const auto part = trimmed(text.substr(0, comma));
    text = comma == std::string_view::npos ? std::string_view{} : text.substr(comma + 1);
    const auto equals = part.find('=');
    const auto key = trimmed(part.substr(0, equals));
    const auto value = equals == std::string_view::npos ? std::string_view{} : trimmed(part.substr(equals + 1));
    if (!keys.insert(key).second) {
      throw std::invalid_argument("'" + std::string(key) + "' is given twice");
    }
    if (key == "devices") {
      settings.devices = parse_integer(key, value, 0, max_devices);
    } else if (key == "memory") {
      settings.memory_bytes = parse_bytes(key, value);
    } else if (key == "driver") {
      settings.driver_version = parse_integer(key, value, oldest_driver, newest_driver);
    } else if (key == "name") {
      if (value.empty() || value.size() > longest_name) {
        reject(key, value.substr(0, 60), "a text of 1 to " + std::to_string(longest_name) + " bytes is expected");
      }
      settings.name = value;
    } else if (key == "pageable") {
      settings.pageable = parse_integer(key, value, 0, 1) != 0;
    } else if (key == "peers") {
      settings.peers = parse_integer(key, value, 0, 1) != 0;
    } else if (key == "virtual_memory") {
      settings.virtual_memory = parse_integer(key, value, 0, 1) != 0;
    } else if (key == "mig") {
      settings.mig = parse_integer(key, value, 0, most_instances);
    } else if (key == "poison") {
      settings.poison = parse_integer(key, value, 0, 1) != 0;
    } else {
      throw std::invalid_argument(
          "'" + std::string(part) +
          "' is not known; known are devices=N, memory=SIZE, driver=VERSION, name=TEXT, "
          "pageable=0 or 1, peers=0 or 1, virtual_memory=0 or 1, mig=N, poison=0 or 1, separated by "
          "commas");
    }
  }
  return settings;
}

machine_settings settings_from_environment() {
  const char* const text = std::getenv("CENOTE_SIM");
  try {
    return parse_settings(text == nullptr ? "" : text);
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(std::string("CENOTE_SIM: ") + error.what());
  }
}

}  // namespace cenote::sim
