// Which block starts at an address: against std::map, over chunks that come and go.
#include "cenote/structures/block_directory.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace cenote {
namespace {

constexpr std::size_t granule = block_granularity;

std::byte* address(std::uintptr_t value) { return reinterpret_cast<std::byte*>(value); }
std::byte* const base = address(0x7f00'0000'0000);

TEST(block_directory, behaves_as_a_map_over_chunks_that_come_and_go) {
  for (unsigned seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    block_directory directory;
    block_directory::hint last;
    std::map<std::byte*, std::size_t> chunks;  // base → bytes; they touch each other, and their places are used again
    std::map<std::byte*, block_index> model;
    const auto random_address = [&] { return base + granule * (random() % 1100) + (random() % 4 == 0 ? 1 : 0); };
    const auto holds = [&](std::byte* at) {
      const auto above = chunks.upper_bound(at);
      return above != chunks.begin() && at < std::prev(above)->first + std::prev(above)->second;
    };
    for (int step = 0; step < 4'000; ++step) {
      std::byte* const at = random_address();
      const bool is_on_a_granule = (at - base) % static_cast<std::ptrdiff_t>(granule) == 0;
      if (random() % 16 == 0) {
        std::byte* const chunk_base = base + granule * 100 * (random() % 11);
        if (chunks.contains(chunk_base)) {
          std::erase_if(
              model, [&](const auto& e) { return e.first >= chunk_base && e.first < chunk_base + chunks[chunk_base]; });
          for (std::size_t g = 0; g < 100; ++g) {
            if (directory.find(chunk_base + g * granule) != no_block) directory.clear(chunk_base + g * granule);
          }
          directory.remove_chunk(chunk_base);
          chunks.erase(chunk_base);
        } else {
          directory.add_chunk({chunk_base, granule * 100});
          chunks[chunk_base] = granule * 100;
        }
      } else if (is_on_a_granule && holds(at)) {
        if (model.erase(at) != 0) {
          directory.clear(at);
        } else {
          const auto index = static_cast<block_index>(random() % no_block);
          directory.set(at, index);
          model[at] = index;
        }
      }
      for (int look = 0; look < 4; ++look) {
        std::byte* const asked = random_address();
        const auto known = model.find(asked);
        const block_index expected = known == model.end() ? no_block : known->second;
        ASSERT_EQ(directory.find(asked), expected) << "step " << step;
        ASSERT_EQ(directory.find(asked, last), expected) << "step " << step;
      }
      ASSERT_EQ(directory.size(), model.size());
      ASSERT_NO_THROW(directory.check());
    }
  }
}

TEST(block_directory, does_not_believe_a_hint_to_a_chunk_that_has_gone) {
  block_directory directory;
  block_directory::hint last;
  directory.add_chunk({base, 4 * granule});
  directory.set(base, 7);
  EXPECT_EQ(directory.find(base, last), 7u);
  directory.clear(base);
  directory.remove_chunk(base);
  EXPECT_EQ(directory.find(base, last), no_block);
  directory.add_chunk({base, 2 * granule});
  directory.set(base, 8);
  EXPECT_EQ(directory.find(base, last), 8u);
  EXPECT_EQ(directory.find(base + 3 * granule, last), no_block);
}

TEST(block_directory, refuses_a_chunk_that_overlaps_another) {
  block_directory directory;
  directory.add_chunk({base + 4 * granule, 4 * granule});
  for (const int first : {1, 4, 5, 7}) {
    EXPECT_THROW(directory.add_chunk({base + static_cast<std::size_t>(first) * granule, 4 * granule}), std::logic_error)
        << first;
  }
  EXPECT_NO_THROW(directory.add_chunk({base, 4 * granule}));
  EXPECT_NO_THROW(directory.add_chunk({base + 8 * granule, 4 * granule}));
}

TEST(block_directory, finds_nothing_at_any_address_outside) {
  block_directory directory;
  block_directory::hint last;
  for (std::byte* const at : {address(0), address(1), base, address(~std::uintptr_t{0})}) {
    EXPECT_EQ(directory.find(at), no_block);
    EXPECT_EQ(directory.find(at, last), no_block);
  }
}

}  // namespace
}  // namespace cenote
