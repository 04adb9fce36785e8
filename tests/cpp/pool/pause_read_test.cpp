// Contents of paused memory that the host reads, while the memory stays paused.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#include "support/paused_pool.hpp"

namespace cenote::test {
namespace {

TEST_P(pauses_in, are_read_without_an_end_to_them) {
  hold_some();
  for (int i = 0; i < 5; ++i) hold(11 * MiB + 300);
  std::vector<std::uint32_t> numbers(70 * MiB / sizeof(std::uint32_t));
  std::iota(numbers.begin(), numbers.end(), 1U);
  auto* const block = static_cast<std::byte*>(pool_->allocate({}, 70 * MiB));
  copy_async(block, numbers.data(), 70 * MiB, {}, 0);
  unsigned char unread = 7;
  EXPECT_FALSE(pool_->read_paused(&unread, block, 1)) << "before a pause";
  for (int time = 0; time < 2; ++time) {
    pool_->pause(GetParam());
    expect_kept();
    const auto* const bytes = reinterpret_cast<const unsigned char*>(numbers.data());
    for (const std::size_t from : {0UL, 1UL, 2 * MiB - 1, 31 * MiB + 5, 69 * MiB}) {
      std::vector<unsigned char> kept(std::min(33 * MiB + 3, 70 * MiB - from));
      EXPECT_TRUE(pool_->read_paused(kept.data(), block + from, kept.size()));
      EXPECT_EQ(std::memcmp(kept.data(), bytes + from, kept.size()), 0) << from;
    }
    std::vector<unsigned char> too_much(71 * MiB);
    EXPECT_FALSE(pool_->read_paused(too_much.data(), block, too_much.size())) << "beyond what is in use";
    EXPECT_FALSE(pool_->read_paused(&unread, block + GiB, 1)) << "an address that holds nothing";
    EXPECT_FALSE(pool_->read_paused(&unread, &unread, 1)) << "memory of the host";
    EXPECT_TRUE(pool_->is_paused());
    pool_->resume();
    expect_contents();
  }
  EXPECT_FALSE(pool_->read_paused(&unread, block, 1)) << "after it";
  EXPECT_EQ(unread, 7);
  pool_->deallocate({}, block, 70 * MiB);
}

TEST_F(pauses, that_keep_nothing_are_not_read_and_those_that_fill_are) {
  hold(3 * MiB);
  std::vector<unsigned char> kept(3 * MiB);
  pool_->pause("nothing");
  EXPECT_FALSE(pool_->read_paused(kept.data(), held_[0].at, kept.size()));
  pool_->resume();
  pool_->pause("fill:9");
  EXPECT_TRUE(pool_->read_paused(kept.data(), held_[0].at, kept.size()));
  EXPECT_TRUE(all_are(kept, 9));
  pool_->resume();
}

}  // namespace
}  // namespace cenote::test
