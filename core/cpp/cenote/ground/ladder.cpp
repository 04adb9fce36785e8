#include "cenote/ground/ladder.hpp"

#include <array>

namespace cenote::inline v1::ladder {
namespace {

struct step {
  const char* name;
  std::optional<std::size_t> freed_bytes;
  const char* why_not;
};

constexpr std::size_t most_steps = 16;

struct notes {
  std::array<step, most_steps> steps{};
  std::size_t count = 0;
  int depth = 0;
};

constinit thread_local notes mine;

}  // namespace

void note(const char* name, std::optional<std::size_t> freed_bytes, const char* why_not) noexcept {
  for (std::size_t i = 0; i < mine.count; ++i) {
    if (mine.steps[i].name != name) continue;  // taken again
    if (freed_bytes) freed_bytes = *freed_bytes + mine.steps[i].freed_bytes.value_or(0);
    mine.steps[i] = {name, freed_bytes, why_not};
    return;
  }
  if (mine.count < most_steps) mine.steps[mine.count++] = {name, freed_bytes, why_not};
}

void forget() noexcept { mine.count = 0; }

std::vector<relief_step> take() {
  std::vector<relief_step> taken;
  taken.reserve(mine.count);
  for (std::size_t i = 0; i < mine.count; ++i) {
    taken.push_back({mine.steps[i].name, mine.steps[i].freed_bytes, mine.steps[i].why_not});
  }
  mine.count = 0;
  return taken;
}

climb::climb() noexcept {
  if (mine.depth++ == 0) forget();
}

climb::~climb() { --mine.depth; }

}  // namespace cenote::inline v1::ladder
