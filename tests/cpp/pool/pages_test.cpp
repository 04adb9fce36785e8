// A pool over virtual memory: what it holds, when it moves pages, and for whose work it waits.
#include <array>
#include <optional>
#include <random>
#include <vector>

#include "cenote/driver/capture.hpp"
#include "cenote/driver/memory.hpp"
#include "cenote/ground/check.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/resources/virtual_memory_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

constexpr std::size_t page_bytes = 2 * MiB;

class pool_over_pages : public simulated_device {
 protected:
  static std::shared_ptr<pool_memory_resource> make_pool(std::optional<std::size_t> maximum = {},
                                                         std::optional<std::size_t> initial = {}) {
    return std::make_shared<pool_memory_resource>(std::make_shared<virtual_memory_resource>(0), initial, maximum);
  }

  /// Work that uses the block, and is pending until somebody waits for it.
  static void use(void* block, std::size_t bytes, stream_ref stream) { fill_async(block, 1, bytes, stream, 0); }
};

TEST_F(pool_over_pages, holds_nothing_before_it_is_used_and_little_more_than_it_needs_afterwards) {
  const auto pool = make_pool();
  EXPECT_EQ(pool->pool_size(), 0u);
  void* const block = pool->allocate({}, 5 * MiB);
  EXPECT_EQ(pool->pool_size(), 6 * MiB);
  pool->deallocate({}, block, 5 * MiB);
}

TEST_F(pool_over_pages, holds_its_initial_size_from_the_start) {
  const auto pool = make_pool(64 * MiB, 16 * MiB);
  EXPECT_EQ(pool->pool_size(), 16 * MiB);
  void* const block = pool->allocate({}, 16 * MiB);
  EXPECT_EQ(pool->pool_size(), 16 * MiB);
  pool->deallocate({}, block, 16 * MiB);
}

TEST_F(pool_over_pages, holds_the_whole_pages_of_its_initial_size) {
  EXPECT_EQ(make_pool(5 * MiB, 5 * MiB)->pool_size(), 4 * MiB);
  EXPECT_EQ(make_pool(1 * MiB, 1 * MiB)->pool_size(), 0u);
}

TEST_F(pool_over_pages, serves_a_large_request_from_free_pages_that_lie_apart) {
  const auto pool = make_pool(16 * page_bytes);
  std::vector<void*> blocks;
  for (int i = 0; i < 16; ++i) blocks.push_back(pool->allocate({}, page_bytes));
  for (int i = 0; i < 16; i += 2) pool->deallocate({}, blocks[i], page_bytes);
  void* const large = pool->try_allocate({}, 8 * page_bytes);
  EXPECT_NE(large, nullptr);
  EXPECT_EQ(pool->pool_size(), 16 * page_bytes);
  EXPECT_EQ(pool->counters().pages_moved, 8u);
  EXPECT_EQ(pool->try_allocate({}, 256), nullptr) << "all of it is in use";
  pool->deallocate({}, large, 8 * page_bytes);
  for (int i = 1; i < 16; i += 2) pool->deallocate({}, blocks[i], page_bytes);
  pool->check();
}

TEST_F(pool_over_pages, breaks_no_whole_page_for_a_small_block_while_another_stream_has_a_piece_of_one) {
  const auto pool = make_pool(4 * page_bytes, 4 * page_bytes);
  const stream_of_ours a;
  const stream_of_ours b;
  void* const piece = pool->allocate(a.view(), MiB);
  void* const beside = pool->allocate(a.view(), MiB);
  void* whole = pool->allocate(b.view(), 3 * page_bytes);
  use(piece, MiB, a.view());
  pool->deallocate(a.view(), piece, MiB);
  pool->deallocate(b.view(), whole, 3 * page_bytes);
  void* const small = pool->allocate(b.view(), MiB);
  EXPECT_EQ(small, piece);
  use(small, MiB, b.view());
  EXPECT_NE(whole = pool->try_allocate(b.view(), 3 * page_bytes), nullptr);
  finish_all_work();
  EXPECT_TRUE(violations().empty()) << "B has waited for A";
  pool->deallocate(b.view(), whole, 3 * page_bytes);
  pool->deallocate(b.view(), small, MiB);
  pool->deallocate(a.view(), beside, MiB);
}

TEST_F(pool_over_pages, keeps_the_order_of_work_on_pages_that_move) {
  const auto pool = make_pool(8 * page_bytes);
  const stream_of_ours a;
  const stream_of_ours b;
  std::vector<void*> blocks;
  for (int i = 0; i < 8; ++i) blocks.push_back(pool->allocate(a.view(), page_bytes));
  for (int i = 0; i < 8; i += 2) {
    use(blocks[i], page_bytes, a.view());
    pool->deallocate(a.view(), blocks[i], page_bytes);
  }
  void* const large = pool->allocate(b.view(), 4 * page_bytes);  // pages that A may still write to
  use(large, 4 * page_bytes, b.view());
  finish_all_work();
  EXPECT_TRUE(violations().empty()) << "B has waited for A, and nothing was unmapped under work";
  pool->deallocate(b.view(), large, 4 * page_bytes);
  for (int i = 1; i < 8; i += 2) pool->deallocate(a.view(), blocks[i], page_bytes);
}

TEST_F(pool_over_pages, waits_for_no_other_stream_while_there_is_memory_to_spare) {
  const auto pool = make_pool();
  const stream_of_ours a;
  const stream_of_ours b;
  for (int i = 0; i < 50; ++i) {
    void* const first = pool->allocate(a.view(), 10 * MiB);
    void* const second = pool->allocate(b.view(), 10 * MiB);
    use(first, 10 * MiB, a.view());
    use(second, 10 * MiB, b.view());
    pool->deallocate(a.view(), first, 10 * MiB);
    pool->deallocate(b.view(), second, 10 * MiB);
  }
  EXPECT_EQ(pool->counters().waits, 0u);
  EXPECT_LE(pool->pool_size(), 20 * MiB);
}

TEST_F(pool_over_pages, a_steady_loop_makes_no_map_call) {
  const auto pool = make_pool();
  const stream_of_ours a;
  std::mt19937 random(7);
  std::vector<std::size_t> sizes;
  for (int i = 0; i < 60; ++i) sizes.push_back(1 + random() % (random() % 4 == 0 ? 40 * MiB : 300 * KiB));
  const auto loop = [&] {
    std::vector<void*> blocks;
    for (const std::size_t bytes : sizes) blocks.push_back(pool->allocate(a.view(), bytes));
    for (std::size_t i = 0; i < sizes.size(); ++i) pool->deallocate(a.view(), blocks[i], sizes[i]);
  };
  loop();
  loop();
  const call_count maps("cuMemMap");
  const call_count unmaps("cuMemUnmap");
  for (int i = 0; i < 10; ++i) loop();
  EXPECT_EQ(maps.value(), 0);
  EXPECT_EQ(unmaps.value(), 0);
}

TEST_F(pool_over_pages, trim_gives_back_all_that_is_free_beside_a_block_in_each_stretch) {
  const auto pool = make_pool();
  std::vector<void*> blocks;
  for (int i = 0; i < 80; ++i) blocks.push_back(pool->allocate({}, 64 * MiB));
  for (int i = 0; i < 80; ++i) {
    if (i % 16 != 0) pool->deallocate({}, blocks[i], 64 * MiB);
  }
  EXPECT_EQ(pool->trim(), std::size_t{75} * 64 * MiB);
  EXPECT_EQ(pool->pool_size(), std::size_t{5} * 64 * MiB);
  for (int i = 0; i < 80; i += 16) pool->deallocate({}, blocks[i], 64 * MiB);
  pool->trim();
  EXPECT_EQ(pool->pool_size(), 0u);
}

class trim_of_pages : public pool_over_pages {
 protected:
  static constexpr std::size_t bytes = 16 * MiB;

  void SetUp() override {
    simulated_device::SetUp();
    pool_ = make_pool();
    streams_.emplace();
    a_ = streams_->at(0).view();
    b_ = streams_->at(1).view();
  }

  void TearDown() override {
    pool_.reset();
    streams_.reset();
    simulated_device::TearDown();
  }

  /// Takes and uses a block of the stream, and frees it.
  void use_up(stream_ref stream) {
    void* const block = pool_->allocate(stream, bytes);
    use(block, bytes, stream);
    pool_->deallocate(stream, block, bytes);
  }

  /// Work that is pending still after somebody has asked a few times: each question moves a queue on by one piece.
  static void use_long(void* block, stream_ref stream) {
    for (int i = 0; i < 100; ++i) use(block, bytes, stream);
  }

  /// A call that the caches do not serve.
  void call(stream_ref stream) {
    void* const block = pool_->allocate(stream, 256);
    pool_->deallocate(stream, block, 256);
  }

  long long waits() const { return of_device_.value() + of_streams_.value() + of_events_.value(); }

  std::shared_ptr<pool_memory_resource> pool_;
  stream_ref a_;
  stream_ref b_;

 private:
  std::optional<std::array<stream_of_ours, 2>> streams_;
  const call_count of_device_{"cuCtxSynchronize"};
  const call_count of_streams_{"cuStreamSynchronize"};
  const call_count of_events_{"cuEventSynchronize"};
};

TEST_F(trim_of_pages, gives_back_what_is_done_and_the_rest_at_the_next_call) {
  void* const of_a = pool_->allocate(a_, bytes);
  use_long(of_a, a_);
  pool_->deallocate(a_, of_a, bytes);
  use_up(b_);
  synchronize(b_, 0);
  const long long before = waits();
  EXPECT_EQ(pool_->trim(), bytes) << "what was freed on B";
  call(b_);
  EXPECT_GE(pool_->pool_size(), bytes) << "A's work is pending";
  EXPECT_EQ(waits(), before);
  finish_all_work();
  call(b_);
  EXPECT_LE(pool_->pool_size(), page_bytes);
}

TEST_F(trim_of_pages, gives_all_back_if_it_waits) {
  use_up(a_);
  use_up(b_);
  EXPECT_EQ(pool_->trim(0, true), 2 * bytes);
  EXPECT_EQ(pool_->pool_size(), 0u);
}

TEST_F(trim_of_pages, knows_of_the_legacy_stream_beside_pending_work_of_others) {
  use_up({});
  synchronize({}, 0);
  void* const other = device_allocate(0, bytes);
  use_long(other, a_);
  const long long before = waits();
  EXPECT_EQ(pool_->trim(), bytes);
  EXPECT_EQ(waits(), before);
  synchronize(a_, 0);
  device_free(0, other);
}

TEST_F(trim_of_pages, gives_back_what_an_earlier_one_could_not_beside_work_of_others) {
  use_up(a_);
  EXPECT_EQ(pool_->trim(), 0u) << "its work is pending";
  synchronize(a_, 0);
  void* const other = device_allocate(0, bytes);
  use_long(other, b_);
  EXPECT_EQ(pool_->trim(), bytes);
  synchronize(b_, 0);
  device_free(0, other);
}

TEST_F(trim_of_pages, gives_back_what_was_freed_on_the_stream_of_the_next_call) {
  use_up(a_);
  synchronize(a_, 0);
  void* const of_b = pool_->allocate(b_, bytes);
  use_long(of_b, b_);
  EXPECT_EQ(pool_->trim(), 0u) << "nobody can say which work is done";
  call(a_);
  EXPECT_LE(pool_->pool_size(), bytes + page_bytes);
  pool_->deallocate(b_, of_b, bytes);
}

TEST_F(trim_of_pages, keeps_as_much_as_it_was_told) {
  void* const block = pool_->allocate({}, 4 * bytes);
  pool_->deallocate({}, block, 4 * bytes);
  EXPECT_EQ(pool_->trim(bytes + 256), 3 * bytes - page_bytes);
  EXPECT_EQ(pool_->pool_size(), bytes + page_bytes);
  use_up(a_);
  pool_->trim(bytes);
  finish_all_work();
  call(a_);
  EXPECT_EQ(pool_->pool_size(), bytes) << "the rest of it too";
}

TEST_F(trim_of_pages, waits_for_nothing_beside_a_capture_and_gives_back_later) {
  use_up(a_);
  capture_begins(0);
  const long long before = waits();
  EXPECT_EQ(pool_->trim(0, true), 0u);
  EXPECT_EQ(waits(), before);
  finish_all_work();
  call(b_);
  EXPECT_GE(pool_->pool_size(), bytes);
  capture_ended(0);
  call(b_);
  EXPECT_LE(pool_->pool_size(), page_bytes);
}

/// Phases that repeat: nothing lives in between, so that what fitted once fits again. Which sequences fit at all is no
/// promise where up to three quarters of 32 pages are in use; but these do.
constexpr unsigned seeds_that_fit = 100;

class repeated_phases : public pool_over_pages, public testing::WithParamInterface<unsigned> {};

TEST_P(repeated_phases, fit_again_if_they_fitted_once) {
  std::mt19937 random(GetParam());
  const std::size_t limit = 64 * MiB;
  const double fill = std::array{0.5, 0.6, 0.75}[GetParam() % 3];
  const auto pool = make_pool(limit);
  std::vector<stream_of_ours> streams(2 + GetParam() % 7);
  struct step {
    bool allocates;
    std::size_t index;
    std::size_t bytes;
    std::size_t stream;
  };
  std::vector<step> steps;
  std::vector<std::pair<std::size_t, std::size_t>> live;
  std::size_t count = 0;
  std::size_t in_use = 0;
  for (int i = 0; i < 300; ++i) {
    const std::size_t bytes = 256 + random() % (random() % 3 == 0 ? 12 * MiB : 512 * KiB);
    const std::size_t stream = random() % streams.size();
    if (static_cast<double>(in_use + bytes) < fill * static_cast<double>(limit)) {
      live.emplace_back(count, bytes);
      in_use += bytes;
      steps.push_back({true, count++, bytes, stream});
    } else {
      std::swap(live[random() % live.size()], live.back());
      steps.push_back({false, live.back().first, live.back().second, stream});
      in_use -= live.back().second;
      live.pop_back();
    }
  }
  for (const auto& [index, bytes] : live) steps.push_back({false, index, bytes, random() % streams.size()});
  const auto run = [&] {
    std::map<std::size_t, std::pair<void*, std::size_t>> blocks;
    bool fits = true;
    for (const step& each : steps) {
      const stream_ref stream = streams[each.stream].view();
      if (each.allocates) {
        void* const block = pool->try_allocate(stream, each.bytes);
        fits = fits && block != nullptr;
        if (block != nullptr) {
          use(block, each.bytes, stream);
          blocks[each.index] = {block, each.bytes};
        }
      } else if (blocks.contains(each.index)) {
        const auto [block, bytes] = blocks[each.index];
        for (const auto& other : streams) order_after(stream, other.view(), 0);
        pool->deallocate(stream, block, bytes);
        blocks.erase(each.index);
      }
    }
    return fits;
  };
  const bool has_fitted = run();
  EXPECT_TRUE(has_fitted || GetParam() >= seeds_that_fit) << "at most three quarters are in use";
  for (int again = 0; again < 5; ++again) EXPECT_TRUE(run() || !has_fitted) << "run " << again + 2;
  pool->check();
  finish_all_work();
}

INSTANTIATE_TEST_SUITE_P(seeds, repeated_phases, testing::Range(0u, check_level >= 1 ? 24u : 200u));
// What did not fit again while a small block broke a whole page rather than wait for a piece of one.
INSTANTIATE_TEST_SUITE_P(that_failed, repeated_phases, testing::Values(821u, 1259u, 1298u, 1553u));

}  // namespace
}  // namespace cenote::test
