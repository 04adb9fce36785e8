// Which block starts at an address: against std::map, and read by one thread while another changes it.
#include "cenote/structures/block_directory.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "support/addresses.hpp"

namespace cenote {
namespace {

using test::address;
std::byte* const base = address(0x7f00'0000'0000);

class directory_of_blocks : public testing::Test {
 protected:
  block_index create(std::byte* at) {
    block made;
    made.address = at;
    blocks_.reserve(1);
    return blocks_.create(made);
  }

  block_index enter(std::byte* at) {
    const block_index made = create(at);
    directory_.reserve_one();
    directory_.insert(made);
    return made;
  }

  block_table blocks_;
  block_directory directory_{blocks_};
};

TEST_F(directory_of_blocks, behaves_as_a_map_while_it_grows_and_shrinks) {
  for (unsigned seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    block_table blocks;
    block_directory directory(blocks);
    std::map<std::byte*, block_index> model;
    // Few addresses in long runs, as blocks of one size lie; in three places a tebibyte apart, whose tags are alike.
    const auto random_address = [&] {
      return base + (random() % 3 << 40) + block_granularity * (random() % 2'000) + (random() % 8 == 0 ? 1 : 0);
    };
    for (int step = 0; step < 20'000; ++step) {
      std::byte* const at = random_address();
      const bool is_block = reinterpret_cast<std::uintptr_t>(at) % block_granularity == 0;
      const auto known = model.find(at);
      if (known != model.end()) {
        directory.remove(known->second);
        blocks.destroy(known->second);
        model.erase(known);
      } else if (is_block) {
        block made;
        made.address = at;
        blocks.reserve(1);
        const block_index index = blocks.create(made);
        directory.reserve_one();
        directory.insert(index);
        model[at] = index;
      }
      if (directory.has_outgrown() && random() % 4 == 0) directory.release_outgrown();
      for (int look = 0; look < 4; ++look) {
        std::byte* const asked = random_address();
        const auto expected = model.find(asked);
        ASSERT_EQ(directory.find(asked), expected == model.end() ? no_block : expected->second) << "step " << step;
      }
      ASSERT_EQ(directory.size(), model.size());
      if (step % 64 == 0) {
        ASSERT_NO_THROW(directory.check());
      }
    }
  }
}

TEST_F(directory_of_blocks, tells_addresses_with_one_tag_apart) {
  std::byte* const far = base + (std::size_t{1} << 40);
  const block_index near_block = enter(base), far_block = enter(far);
  EXPECT_EQ(directory_.find(base), near_block);
  EXPECT_EQ(directory_.find(far), far_block);
  directory_.remove(near_block);
  EXPECT_EQ(directory_.find(base), no_block);
  EXPECT_EQ(directory_.find(far), far_block);
}

TEST_F(directory_of_blocks, keeps_its_old_table_until_it_is_released) {
  for (std::size_t i = 0; !directory_.has_outgrown(); ++i) {
    ASSERT_LT(i, 1'000u);
    enter(base + i * block_granularity);
  }
  directory_.release_outgrown();
  EXPECT_FALSE(directory_.has_outgrown());
  EXPECT_EQ(blocks_[directory_.find(base)].address, base);
}

TEST_F(directory_of_blocks, finds_nothing_at_any_address_outside) {
  enter(base);
  for (std::byte* const at :
       {address(0), address(1), base + 1, base + block_granularity, address(~std::uintptr_t{0})}) {
    EXPECT_EQ(directory_.find(at), no_block);
  }
}

/// What a front cache relies on: no wrong block, whatever moves meanwhile. One may be missed.
TEST_F(directory_of_blocks, never_finds_a_wrong_block_beside_changes) {
  constexpr std::size_t settled = 200, restless = 2'000;
  std::vector<block_index> known;
  for (std::size_t i = 0; i < settled; ++i) known.push_back(enter(base + 2 * i * block_granularity));
  std::vector<block_index> others;
  for (std::size_t i = 0; i < restless; ++i) others.push_back(create(base + (2 * i + 1) * block_granularity));

  std::atomic<bool> is_over{false};
  std::atomic<std::size_t> found{0}, missed{0};
  std::thread reader([&] {
    std::mt19937_64 random(1);
    while (!is_over) {
      const std::size_t i = random() % settled;
      const block_index seen = directory_.find(base + 2 * i * block_granularity);
      if (seen == known[i]) {
        ++found;
      } else {
        EXPECT_EQ(seen, no_block);
        ++missed;
      }
    }
  });
  std::mt19937_64 random(2);
  std::vector<bool> is_in(restless);
  for (int step = 0; step < 200'000; ++step) {
    const std::size_t i = random() % restless;
    if (is_in[i]) {
      directory_.remove(others[i]);
    } else {
      directory_.reserve_one();
      directory_.insert(others[i]);
    }
    is_in[i] = !is_in[i];
  }
  is_over = true;
  reader.join();
  EXPECT_GT(found, missed);
}

}  // namespace
}  // namespace cenote
