// Pins: what others know by its address stays where it is, and is used as ever.
#include <stdexcept>
#include <vector>

#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/resources/virtual_memory_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

constexpr std::size_t pinned_page_bytes = 2 * MiB;
constexpr pin_kind all_kinds[] = {pin_kind::captured, pin_kind::exported, pin_kind::registered, pin_kind::lent};

class pins : public simulated_device {
 protected:
  static std::shared_ptr<pool_memory_resource> make_pool(std::optional<std::size_t> maximum = {}) {
    return std::make_shared<pool_memory_resource>(std::make_shared<virtual_memory_resource>(0), std::nullopt, maximum);
  }

  static std::shared_ptr<pool_memory_resource> make_pool_of_chunks() {
    return std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), 0);
  }
};

TEST_F(pins, keep_the_pages_of_a_freed_block_from_trim_until_the_last_is_taken_back) {
  for (const pin_kind kind : all_kinds) {
    const auto pool = make_pool();
    void* const block = pool->allocate({}, 8 * pinned_page_bytes);
    void* const other = pool->allocate({}, 8 * pinned_page_bytes);
    pool->pin(block, kind);
    pool->pin(block, kind);
    pool->deallocate({}, block, 8 * pinned_page_bytes);
    pool->deallocate({}, other, 8 * pinned_page_bytes);
    pool->trim(0, true);
    EXPECT_EQ(pool->pool_size(), 8 * pinned_page_bytes) << spell_pin_kind(kind);
    pool->unpin(block, kind);
    pool->trim(0, true);
    EXPECT_EQ(pool->pool_size(), 8 * pinned_page_bytes) << "one is left";
    pool->unpin(block, kind);
    pool->check();
    pool->trim(0, true);
    EXPECT_EQ(pool->pool_size(), 0u);
  }
}

TEST_F(pins, hold_every_page_that_the_block_touches) {
  const auto pool = make_pool();
  void* const first = pool->allocate({}, 256);
  void* const block = pool->allocate({}, pinned_page_bytes + 512);  // begins in the first page
  pool->pin(block, pin_kind::registered);
  pool->deallocate({}, first, 256);
  pool->deallocate({}, block, pinned_page_bytes + 512);
  pool->trim(0, true);
  EXPECT_EQ(pool->pool_size(), 2 * pinned_page_bytes);
  pool->unpin(block, pin_kind::registered);
}

TEST_F(pins, keep_a_page_where_it_is_when_pages_are_brought_together) {
  const auto pool = make_pool(8 * pinned_page_bytes);
  std::vector<void*> blocks;
  for (int i = 0; i < 8; ++i) blocks.push_back(pool->allocate({}, pinned_page_bytes));
  pool->pin(blocks[2], pin_kind::exported);
  for (int i = 0; i < 8; i += 2) pool->deallocate({}, blocks[i], pinned_page_bytes);
  EXPECT_EQ(pool->try_allocate({}, 4 * pinned_page_bytes), nullptr) << "the fourth page is pinned";
  void* const large = pool->try_allocate({}, 3 * pinned_page_bytes);
  EXPECT_NE(large, nullptr);
  void* const again = pool->try_allocate({}, pinned_page_bytes);
  EXPECT_EQ(again, blocks[2]) << "its bytes are used as ever";
  pool->check();
  pool->unpin(blocks[2], pin_kind::exported);
  pool->deallocate({}, again, pinned_page_bytes);
  pool->deallocate({}, large, 3 * pinned_page_bytes);
  void* const all_four = pool->try_allocate({}, 4 * pinned_page_bytes);
  EXPECT_NE(all_four, nullptr);
  pool->deallocate({}, all_four, 4 * pinned_page_bytes);
  for (int i = 1; i < 8; i += 2) pool->deallocate({}, blocks[i], pinned_page_bytes);
  pool->check();
}

TEST_F(pins, leave_a_pool_usable_near_its_limit_while_nothing_is_in_use) {
  const auto pool = make_pool(8 * pinned_page_bytes);
  void* const low = pool->allocate({}, 4 * pinned_page_bytes);
  void* const high = pool->allocate({}, 4 * pinned_page_bytes);
  pool->pin(low, pin_kind::captured);
  pool->deallocate({}, low, 4 * pinned_page_bytes);
  pool->deallocate({}, high, 4 * pinned_page_bytes);
  for (int i = 0; i < 3; ++i) {
    void* const all = pool->try_allocate({}, 8 * pinned_page_bytes);
    EXPECT_NE(all, nullptr) << "the pinned pages lie beside the others";
    pool->deallocate({}, all, 8 * pinned_page_bytes);
  }
  pool->unpin(low, pin_kind::captured);
}

TEST_F(pins, of_two_blocks_that_begin_at_one_address_hold_the_larger) {
  const auto pool = make_pool();
  void* const small = pool->allocate({}, pinned_page_bytes);
  pool->pin(small, pin_kind::lent);
  pool->deallocate({}, small, pinned_page_bytes);
  void* const large = pool->allocate({}, 4 * pinned_page_bytes);
  ASSERT_EQ(large, small);
  pool->pin(large, pin_kind::lent);
  pool->deallocate({}, large, 4 * pinned_page_bytes);
  const auto all = pool->pins();
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].bytes, 4 * pinned_page_bytes);
  EXPECT_EQ(all[0].count, 2u);
  pool->unpin(small, pin_kind::lent);
  pool->trim(0, true);
  EXPECT_EQ(pool->pool_size(), 4 * pinned_page_bytes) << "which of the two is left nobody has said";
  pool->unpin(small, pin_kind::lent);
  pool->trim(0, true);
  EXPECT_EQ(pool->pool_size(), 0u);
}

TEST_F(pins, are_listed_by_address_and_kind_with_their_counts) {
  const auto pool = make_pool();
  void* const first = pool->allocate({}, 1000);
  void* const second = pool->allocate({}, 3 * pinned_page_bytes);
  EXPECT_TRUE(pool->pins().empty());
  pool->pin(second, pin_kind::exported);
  pool->pin(first, pin_kind::registered);
  pool->pin(first, pin_kind::captured);
  pool->pin(first, pin_kind::registered);
  const auto all = pool->pins();
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].address, first);
  EXPECT_EQ(all[0].bytes, 1024u);
  EXPECT_EQ(all[0].kind, pin_kind::captured);
  EXPECT_EQ(all[1].kind, pin_kind::registered);
  EXPECT_EQ(all[1].count, 2u);
  EXPECT_EQ(all[2].address, second);
  for (const pool_pin& each : all) {
    for (std::size_t i = 0; i < each.count; ++i) pool->unpin(each.address, each.kind);
  }
  EXPECT_TRUE(pool->pins().empty());
  pool->deallocate({}, first, 1000);
  pool->deallocate({}, second, 3 * pinned_page_bytes);
}

TEST_F(pins, are_refused_where_no_block_in_use_starts) {
  for (const auto& pool : {make_pool(), make_pool_of_chunks()}) {
    void* const block = pool->allocate({}, 4096);
    EXPECT_THROW(pool->pin(nullptr, pin_kind::lent), std::invalid_argument);
    EXPECT_THROW(pool->pin(static_cast<std::byte*>(block) + 256, pin_kind::lent), std::invalid_argument);
    for (int i = 0; i < 4; ++i) {
      pool->deallocate({}, block, 4096);  // at last to a cache
      try {
        pool->pin(block, pin_kind::lent);
        FAIL() << "it is free";
      } catch (const std::invalid_argument& error) {
        EXPECT_NE(std::string(error.what()).find(format_address(block)), std::string::npos) << error.what();
      }
      ASSERT_EQ(pool->allocate({}, 4096), block);
    }
    EXPECT_TRUE(pool->pins().empty());
    pool->deallocate({}, block, 4096);
    pool->trim(0, true);
    EXPECT_EQ(pool->pool_size(), 0u);
  }
}

TEST_F(pins, that_are_not_there_cannot_be_taken_back) {
  const auto pool = make_pool();
  void* const block = pool->allocate({}, 4096);
  EXPECT_THROW(pool->unpin(block, pin_kind::lent), std::invalid_argument);
  pool->pin(block, pin_kind::lent);
  try {
    pool->unpin(block, pin_kind::exported);
    FAIL() << "it is lent";
  } catch (const std::invalid_argument& error) {
    EXPECT_EQ(error.what(), "nothing is pinned as exported at " + format_address(block));
  }
  EXPECT_EQ(pool->pins().size(), 1u);
  pool->unpin(block, pin_kind::lent);
  EXPECT_THROW(pool->unpin(block, pin_kind::lent), std::invalid_argument);
  pool->deallocate({}, block, 4096);
}

TEST_F(pins, keep_a_chunk_in_its_pool) {
  const auto pool = make_pool_of_chunks();
  void* const first = pool->allocate({}, 64 * MiB);
  void* const second = pool->allocate({}, 64 * MiB);
  pool->pin(first, pin_kind::registered);
  pool->deallocate({}, first, 64 * MiB);
  pool->deallocate({}, second, 64 * MiB);
  const std::size_t held = pool->pool_size();
  pool->trim(0, true);
  EXPECT_GE(pool->pool_size(), 64 * MiB);
  EXPECT_LT(pool->pool_size(), held);
  pool->unpin(first, pin_kind::registered);
  pool->trim(0, true);
  EXPECT_EQ(pool->pool_size(), 0u);
}

TEST_F(pins, that_are_left_when_the_pool_ends_are_reported) {
  captured_stderr output;
  auto pool = make_pool();
  void* const block = pool->allocate({}, pinned_page_bytes);
  pool->pin(block, pin_kind::exported);
  pool->deallocate({}, block, pinned_page_bytes);
  pool.reset();
  EXPECT_NE(output.text().find("while blocks are pinned: 1"), std::string::npos);
}

TEST_F(pins, have_kinds_with_names) {
  for (const pin_kind kind : all_kinds) EXPECT_EQ(parse_pin_kind(spell_pin_kind(kind)), kind);
  EXPECT_THROW(parse_pin_kind("pinned"), std::invalid_argument);
}

}  // namespace
}  // namespace cenote::test
