// Times an operation that is repeated, within a budget of time.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <stdexcept>

namespace bench {

using steady = std::chrono::steady_clock;

inline double nanoseconds(steady::duration taken) { return std::chrono::duration<double, std::nano>(taken).count(); }

struct measured {
  double nanoseconds_each = 0;
  std::size_t done = 0;
};

/// Calls run(first, count) for consecutive parts of `wanted` operations, until all are done or `budget` has passed.
/// The parts grow, so that looking at the clock costs nothing beside them.
template <class Run>
measured repeat(std::size_t wanted, steady::duration budget, Run&& run) {
  std::size_t done = 0, part = 16;
  const auto begin = steady::now();
  auto now = begin;
  while (done < wanted && (done == 0 || now - begin < budget)) {
    const std::size_t count = std::min(part, wanted - done);
    run(done, count);
    done += count;
    now = steady::now();
    if (now - begin < budget / 64) part *= 2;
  }
  return {nanoseconds(now - begin) / static_cast<double>(std::max<std::size_t>(done, 1)), done};
}

/// Half as often as `wanted`, but at most for an eighth of the time.
template <class Run>
void warm_up(std::size_t wanted, steady::duration budget, Run&& run) {
  repeat(std::max<std::size_t>(wanted / 2, 1), budget / 8, run);
}

/// For what is not timed: ends a preparation that takes too long.
class patience {
 public:
  explicit patience(steady::duration longest) : end_(steady::now() + longest) {}

  void check() {
    if (++calls_ % 64 == 0 && steady::now() > end_) throw std::runtime_error("too slow: its preparation was given up");
  }

 private:
  steady::time_point end_;
  std::size_t calls_ = 0;
};

/// The compiler may not leave out what made `pointer`.
inline void keep(void* pointer) { asm volatile("" : : "r"(pointer) : "memory"); }

}  // namespace bench
