// Random histories of a private pool against a simple model: no two live blocks overlap, an earlier state comes back
// at its addresses, idle segments go back, and the invariants hold after each step.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <vector>

#include "private_pool.hpp"
#include "sizes.hpp"

namespace {

using cenote::torch::pool_segment;
using cenote::torch::private_pool;
using cenote::torch::round_up;

struct live {
  std::size_t bytes;
  int stream;
};

void require(bool holds, const char* what, unsigned seed, int step) {
  if (holds) return;
  std::printf("seed %u, step %d: %s\n", seed, step, what);
  std::exit(1);
}

void run(unsigned seed) {
  std::mt19937 random(seed);
  private_pool pool;
  if (seed % 5 == 0) pool.set_no_split();
  std::map<char*, live> model;
  std::map<char*, std::size_t> segments;
  char* next = reinterpret_cast<char*>(std::uintptr_t{1} << 40);
  bool is_refused = false;
  const auto take = [&](std::size_t bytes) -> char* {
    if (is_refused) return nullptr;
    char* const segment = next;
    next += bytes + (random() % 3) * (std::size_t{2} << 20);  // some follow one another
    segments[segment] = bytes;
    return segment;
  };
  const auto give = [&](char* segment, const pool_segment& given) {
    require(segments.at(segment) == given.bytes, "a segment goes back with its size", seed, -1);
    segments.erase(segment);
  };
  std::map<char*, live> kept;
  std::size_t kept_segments = 0;
  for (int step = 0; step < 3000; ++step) {
    const auto dice = random() % 100;
    if (dice < 55) {
      const std::size_t requested = random() % 4 == 0 ? 1 + random() % (30u << 20) : 1 + random() % (2u << 20);
      const std::size_t bytes = round_up(requested, 512);
      const int stream = static_cast<int>(random() % 3);
      is_refused = random() % 20 == 0;
      char* const block = pool.allocate(bytes, requested, reinterpret_cast<void*>(std::intptr_t{stream}), take);
      require(block != nullptr || is_refused, "memory is there", seed, step);
      if (block != nullptr) {
        const std::size_t made = pool.blocks().at(block).bytes;
        require(made >= bytes, "a block is as large as the request", seed, step);
        const auto behind = model.lower_bound(block);
        require(behind == model.end() || block + made <= behind->first, "no overlap behind", seed, step);
        require(behind == model.begin() || std::prev(behind)->first + std::prev(behind)->second.bytes <= block,
                "no overlap before", seed, step);
        model[block] = {made, stream};
      }
    } else if (dice < 95 && !model.empty()) {
      auto block = model.begin();
      std::advance(block, random() % model.size());
      pool.free(block->first);
      model.erase(block);
    } else if (dice == 95) {
      kept = model;
      kept_segments = segments.size();
    } else if (dice == 96 && kept_segments != 0) {
      for (const auto& [block, its] : model) pool.free(block);
      for (const auto& [block, its] : kept)
        require(pool.take_at(block, its.bytes, its.bytes), "comes back", seed, step);
      model = kept;
    } else if (dice == 97) {
      pool.release_idle(give);
      kept_segments = 0;  // that state may be gone
    }
    pool.check();
    require(pool.live_blocks() == model.size(), "live blocks", seed, step);
    require(pool.segments().size() == segments.size(), "segments", seed, step);
  }
  for (const auto& [block, its] : model) pool.free(block);
  pool.release_idle(give);
  require(pool.is_empty() && segments.empty(), "all goes back", seed, -1);
}

}  // namespace

int main() {
  for (unsigned seed = 1; seed <= 40; ++seed) run(seed);
}
