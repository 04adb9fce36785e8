#include "cenote/structures/free_index.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <map>
#include <random>
#include <utility>

#include "support/addresses.hpp"

namespace cenote {
namespace {

using test::granule;

/// The width of the bins that sizes near `bytes` fall into: 16 bins to each power of two, none finer than a granule.
std::size_t bin_width(std::size_t bytes) { return std::max(std::bit_floor(bytes) / 16, granule); }

/// Whether the published guarantee says that `wanted` must be found among `sizes`.
bool must_be_found(const std::multimap<std::size_t, block_index>& sizes, std::size_t wanted) {
  const std::size_t width = bin_width(wanted);
  if (sizes.lower_bound((wanted + width - 1) / width * width) != sizes.end()) return true;  // step 3: any such block
  const std::size_t bin = wanted / width * width;                                           // step 4: one of a few
  const auto first = sizes.lower_bound(bin);
  const auto last = sizes.lower_bound(bin + width);
  return std::distance(first, last) <= 8 && sizes.lower_bound(wanted) != last;
}

std::size_t random_size(std::mt19937_64& random) {
  const unsigned bits = static_cast<unsigned>(random() % 24);
  return granule * (1 + random() % (std::size_t{1} << bits));
}

class free_index_history : public testing::TestWithParam<unsigned> {};

TEST_P(free_index_history, agrees_with_a_multiset_of_sizes) {
  SCOPED_TRACE(testing::Message() << "seed " << GetParam());
  std::mt19937_64 random(GetParam());
  block_table blocks;
  free_index index;
  std::multimap<std::size_t, block_index> model;
  std::size_t bytes = 0;
  const std::size_t clustered = GetParam() % 3 == 0 ? random_size(random) : 0;  // many of nearly one size
  for (int step = 0; step < 1'500; ++step) {
    if (model.empty() || (model.size() < 60 && random() % 5 < 3)) {
      block fresh;
      fresh.set_bytes(clustered == 0 ? random_size(random) : clustered + granule * (random() % 8));
      fresh.is_free = true;
      blocks.reserve(1);
      const block_index made = blocks.create(fresh);
      index.insert(blocks, made);
      model.emplace(fresh.bytes(), made);
      bytes += fresh.bytes();
    } else {
      const auto gone = std::next(model.begin(), static_cast<long>(random() % model.size()));
      index.remove(blocks, gone->second);
      blocks.destroy(gone->second);
      bytes -= gone->first;
      model.erase(gone);
    }
    ASSERT_NO_THROW(index.check(blocks)) << "step " << step;
    ASSERT_EQ(index.free_bytes(), bytes);
    ASSERT_EQ(index.empty(), model.empty());
    ASSERT_EQ(index.largest_bytes(blocks), model.empty() ? 0 : model.rbegin()->first);

    const std::size_t wanted = clustered == 0 ? random_size(random) : clustered + granule * (random() % 8);
    const block_index found = index.find(blocks, wanted);
    if (found == no_block) {
      ASSERT_FALSE(must_be_found(model, wanted)) << "step " << step << ": " << wanted << " bytes are there";
    } else {
      ASSERT_GE(blocks[found].bytes(), wanted) << "step " << step;
      const auto [first, last] = model.equal_range(blocks[found].bytes());
      ASSERT_TRUE(std::any_of(first, last, [=](const auto& entry) { return entry.second == found; }))
          << "step " << step;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(seeds, free_index_history, testing::Range(1u, 25u));

TEST(free_index, visits_each_block_once) {
  block_table blocks;
  free_index index;
  std::map<block_index, int> visits;
  for (std::size_t granules = 1; granules < 100; ++granules) {
    block fresh;
    fresh.set_bytes(granules * granule);
    fresh.is_free = true;
    blocks.reserve(1);
    const block_index made = blocks.create(fresh);
    index.insert(blocks, made);
    visits[made] = 0;
  }
  index.for_each(blocks, [&](block_index i) { ++visits.at(i); });
  for (const auto& [i, count] : visits) EXPECT_EQ(count, 1) << i;
}

TEST(free_index, finds_exactly_the_size_it_holds_at_every_power_of_two) {
  for (unsigned bit = 8; bit < 40; ++bit) {
    for (const std::size_t bytes : {std::size_t{1} << bit, (std::size_t{1} << bit) + granule}) {
      block_table blocks;
      free_index index;
      block only;
      only.set_bytes(bytes);
      only.is_free = true;
      blocks.reserve(1);
      const block_index made = blocks.create(only);
      index.insert(blocks, made);
      EXPECT_EQ(index.find(blocks, bytes), made) << bytes;
      EXPECT_EQ(index.find(blocks, bytes + granule), no_block) << bytes;
    }
  }
}

TEST(free_index, has_nothing_for_sizes_beyond_its_last_bin) {
  const block_table blocks;
  const free_index index;
  for (const std::size_t bytes : {std::size_t{1} << 53, std::size_t{1} << 63, ~std::size_t{255}}) {
    EXPECT_EQ(index.find(blocks, bytes), no_block) << bytes;
  }
}

}  // namespace
}  // namespace cenote
