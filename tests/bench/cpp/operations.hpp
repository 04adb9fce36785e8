// What every peer is asked to do: the sizes, and which block goes next. Made from a seed, so that each peer and each
// run gets the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bench {

/// Uniform numbers from a seed (splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
/// 2014): the same on every standard library.
class random_numbers {
 public:
  explicit random_numbers(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next();
  std::size_t below(std::size_t bound) { return static_cast<std::size_t>((__uint128_t{next()} * bound) >> 64); }
  double unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }

 private:
  std::uint64_t state_;
};

/// One block is freed and one of another size allocated in its place.
struct replacement {
  std::uint32_t slot;
  std::size_t bytes;
};

struct replacements {
  std::vector<std::size_t> first;  ///< the size of each slot's first block
  std::vector<replacement> then;   ///< played again from the start when it ends
};

/// Sizes from `smallest` on, log-uniform. The largest is `largest`, or what keeps the expected sum below `capacity`.
replacements log_uniform(std::size_t slots, std::size_t smallest, std::size_t largest, std::size_t capacity,
                         std::uint64_t seed);

/// Sizes of 256 · 2^(0…7) + 256 · (0…63) bytes.
replacements lumpy(std::size_t slots, std::uint64_t seed);

/// One step of RMM's random-allocations benchmark.
struct step {
  bool allocates;
  std::uint32_t which;  ///< frees: the index among the live blocks; the last takes its place
  std::size_t bytes;
};

/// RMM's RANDOM_ALLOCATIONS_BENCH: 2 · `count` steps, sizes of 1 to `largest_mib` MiB, an allocation with a probability
/// of 73 % while fewer than `count` were made and at most 16 000 MiB are in use.
std::vector<step> random_allocations(std::size_t count, std::size_t largest_mib, std::uint64_t seed);

}  // namespace bench
