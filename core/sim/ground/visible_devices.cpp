#include "sim/ground/visible_devices.hpp"

#include <strings.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include "sim/ground/failure.hpp"
#include "sim/ground/settings.hpp"

namespace cenote::sim {
namespace {

constexpr std::string_view gpu_prefix = "GPU-";
constexpr std::string_view mig_prefix = "MIG-";
constexpr std::size_t prefix_length = gpu_prefix.size();

/// The number's bits, well mixed (splitmix64), so that UUIDs differ from their first digits on.
std::uint64_t mixed(std::uint64_t number) {
  number += 0x9e3779b97f4a7c15;
  number = (number ^ number >> 30) * 0xbf58476d1ce4e5b9;
  number = (number ^ number >> 27) * 0x94d049bb133111eb;
  return number ^ number >> 31;
}

std::string uuid_of(std::string_view prefix, int gpu, int instance) {
  const auto seed = static_cast<std::uint64_t>(gpu * 1000 + instance);
  const std::uint64_t high = mixed(2 * seed);
  const std::uint64_t low = mixed(2 * seed + 1);
  char text[40];
  std::snprintf(text, sizeof text, "%08x-%04x-%04x-%04x-%012llx", static_cast<unsigned>(high >> 32),
                static_cast<unsigned>(high >> 16 & 0xffff), static_cast<unsigned>(high & 0xffff),
                static_cast<unsigned>(low >> 48), static_cast<unsigned long long>(low & 0xffffffffffff));
  return std::string(prefix) + text;
}

/// The entries that the commas part, one after the other.
class listed_entries {
 public:
  explicit listed_entries(std::string_view text) : rest_(text) {}

  std::optional<std::string> next() {
    if (!more_) {
      return std::nullopt;
    }
    const auto comma = rest_.find(',');
    std::string entry(rest_.substr(0, comma));
    more_ = comma != std::string_view::npos;
    rest_ = more_ ? rest_.substr(comma + 1) : std::string_view{};
    return entry;
  }

 private:
  std::string_view rest_;
  bool more_ = true;
};

bool is_uuid(std::string_view entry) { return entry.starts_with(gpu_prefix) || entry.starts_with(mig_prefix); }

/// As strtol reads it: blanks and a sign before the digits, and whatever behind them.
std::optional<std::size_t> card_by_number(const std::string& entry, std::size_t count) {
  char* end = nullptr;
  const int number = static_cast<int>(std::strtol(entry.c_str(), &end, 10));
  if (end == entry.c_str() || number < 0 || static_cast<std::size_t>(number) >= count) {
    return std::nullopt;
  }
  return static_cast<std::size_t>(number);
}

bool begins_with(const std::string& uuid, const std::string& entry) {
  const std::size_t compared = std::min(uuid.size(), entry.size()) - prefix_length;
  return strncasecmp(uuid.c_str() + prefix_length, entry.c_str() + prefix_length, compared) == 0;
}

/// The one card whose UUID begins so. The two prefixes are taken for each other.
std::optional<std::size_t> card_by_uuid(const std::string& entry, const std::vector<card_description>& cards) {
  std::optional<std::size_t> found;
  for (std::size_t i = 0; is_uuid(entry) && i < cards.size(); ++i) {
    if (begins_with(cards[i].uuid, entry)) {
      if (found) {
        return std::nullopt;
      }
      found = i;
    }
  }
  return found;
}

/// A GPU's name or number stands for its first instance.
std::optional<std::size_t> instance_named(const std::string& entry, const std::vector<card_description>& cards) {
  if (entry.starts_with(mig_prefix)) {
    return card_by_uuid(entry, cards);
  }
  std::vector<card_description> gpus;
  std::vector<std::size_t> first_instances;
  for (std::size_t i = 0; i < cards.size(); ++i) {
    if (gpus.empty() || gpus.back().gpu != cards[i].gpu) {
      gpus.push_back(cards[i]);
      gpus.back().uuid = gpus.back().gpu_uuid;
      first_instances.push_back(i);
    }
  }
  const auto gpu = is_uuid(entry) ? card_by_uuid(entry, gpus) : card_by_number(entry, gpus.size());
  return gpu ? std::optional(first_instances[*gpu]) : std::nullopt;
}

bool are_instances(const std::vector<card_description>& cards) {
  return !cards.empty() && cards.front().uuid.starts_with(mig_prefix);
}

}  // namespace

std::vector<card_description> cards_of(const machine_settings& settings) {
  std::vector<card_description> cards;
  for (int gpu = 0; gpu < settings.devices; ++gpu) {
    const std::string gpu_uuid = uuid_of(gpu_prefix, gpu, 0);
    if (settings.mig == 0) {
      cards.push_back({gpu, settings.name, settings.memory_bytes, gpu_uuid, gpu_uuid});
    }
    for (int instance = 1; instance <= settings.mig; ++instance) {
      cards.push_back({gpu, settings.name + " MIG 1/" + std::to_string(settings.mig),
                       settings.memory_bytes / static_cast<std::size_t>(settings.mig),
                       uuid_of(mig_prefix, gpu, instance), gpu_uuid});
    }
  }
  return cards;
}

std::vector<std::size_t> seen_by(std::string_view text, const std::vector<card_description>& cards) {
  std::vector<std::size_t> seen;
  listed_entries entries(text);
  if (are_instances(cards)) {
    const auto instance = instance_named(*entries.next(), cards);
    return instance ? std::vector{*instance} : std::vector<std::size_t>{};
  }
  const bool by_uuid = is_uuid(text);
  while (const auto entry = entries.next()) {
    const auto card = by_uuid ? card_by_uuid(*entry, cards) : card_by_number(*entry, cards.size());
    if (!card) {
      break;
    }
    require(std::find(seen.begin(), seen.end(), *card) == seen.end(), CUDA_ERROR_INVALID_DEVICE);
    seen.push_back(*card);
  }
  return seen;
}

std::vector<card_description> visible_cards(const machine_settings& settings) {
  std::vector<card_description> cards = cards_of(settings);
  const char* const text = std::getenv("CUDA_VISIBLE_DEVICES");
  if (text == nullptr) {
    if (are_instances(cards)) {
      cards.resize(1);
    }
    return cards;
  }
  std::vector<card_description> visible;
  for (const std::size_t index : seen_by(text, cards)) {
    visible.push_back(cards[index]);
  }
  return visible;
}

}  // namespace cenote::sim
