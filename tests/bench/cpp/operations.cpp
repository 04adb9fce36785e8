#include "operations.hpp"

#include <cmath>

namespace bench {
namespace {

constexpr std::size_t granule = 256;
constexpr std::size_t mib = std::size_t{1} << 20;
constexpr std::size_t list_length = std::size_t{1} << 17;

/// The mean of a log-uniform distribution.
double mean_of(double smallest, double largest) {
  return smallest == largest ? smallest : (largest - smallest) / std::log(largest / smallest);
}

std::vector<replacement> random_slots(std::size_t slots, random_numbers& random, auto&& size) {
  std::vector<replacement> list(list_length);
  for (auto& each : list) each = {static_cast<std::uint32_t>(random.below(slots)), size()};
  return list;
}

}  // namespace

std::uint64_t random_numbers::next() {
  std::uint64_t z = (state_ += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

replacements log_uniform(std::size_t slots, std::size_t smallest, std::size_t largest, std::size_t capacity,
                         std::uint64_t seed) {
  while (largest > 2 * smallest &&
         mean_of(static_cast<double>(smallest), static_cast<double>(largest)) * static_cast<double>(slots) >
             static_cast<double>(capacity))
    largest /= 2;
  random_numbers random(seed);
  const double span = std::log(static_cast<double>(largest) / static_cast<double>(smallest));
  const auto size = [&] {
    return static_cast<std::size_t>(std::exp(random.unit() * span) * static_cast<double>(smallest));
  };
  replacements result;
  for (std::size_t slot = 0; slot < slots; ++slot) result.first.push_back(size());
  result.then = random_slots(slots, random, size);
  return result;
}

replacements lumpy(std::size_t slots, std::uint64_t seed) {
  random_numbers random(seed);
  const auto size = [&] {
    const std::size_t power = granule << random.below(8);
    return power + granule * random.below(64);
  };
  replacements result;
  for (std::size_t slot = 0; slot < slots; ++slot) result.first.push_back(size());
  result.then = random_slots(slots, random, size);
  return result;
}

std::vector<step> random_allocations(std::size_t count, std::size_t largest_mib, std::uint64_t seed) {
  constexpr std::size_t most_in_use = 16000 * mib;
  constexpr std::size_t allocating_percent = 73;
  random_numbers random(seed);
  std::vector<std::size_t> live;
  std::vector<step> steps;
  std::size_t made = 0, in_use = 0;
  for (std::size_t i = 0; i < 2 * count; ++i) {
    const std::size_t bytes = (1 + random.below(largest_mib)) * mib;
    const bool chosen = live.empty() || random.below(100) < allocating_percent;
    if (chosen && made < count && in_use + bytes <= most_in_use) {
      steps.push_back({true, 0, bytes});
      live.push_back(bytes);
      ++made;
      in_use += bytes;
    } else if (!live.empty()) {
      const std::size_t which = random.below(live.size());
      steps.push_back({false, static_cast<std::uint32_t>(which), live[which]});
      in_use -= live[which];
      live[which] = live.back();
      live.pop_back();
    }
  }
  return steps;
}

}  // namespace bench
