// The pool on one stream: what it hands out, how it grows, what it gives back, what it refuses.
#include <limits>
#include <set>

#include "cenote/resources/cuda_async_memory_resource.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/managed_memory_resource.hpp"
#include "cenote/resources/pinned_host_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/structures/block.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

using optional_bytes = std::optional<std::size_t>;

std::shared_ptr<pool_memory_resource> make_pool(optional_bytes initial, optional_bytes maximum = {}) {
  return std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), initial, maximum);
}

class pool : public simulated_device {};

TEST_F(pool, reuses_a_freed_block_on_its_own_stream_without_work_for_the_driver) {
  const auto resource = make_pool(64 * MiB);
  void* const first = resource->allocate({}, 1 * MiB);
  resource->deallocate({}, first, 1 * MiB);
  const call_count all_calls(nullptr);
  for (int i = 0; i < 1'000; ++i) {
    void* const again = resource->allocate({}, 1 * MiB);
    ASSERT_EQ(again, first);
    resource->deallocate({}, again, 1 * MiB);
  }
  EXPECT_EQ(all_calls.value(), 0) << "the legacy default stream needs no call at all";
}

TEST_F(pool, asks_only_who_a_stream_is_when_there_is_only_one) {
  const auto resource = make_pool(64 * MiB);
  const foreign_stream stream;
  resource->deallocate(stream.view(), resource->allocate(stream.view(), 4 * MiB), 4 * MiB);  // they meet
  const call_count all_calls(nullptr);
  const call_count id_calls("cuStreamGetId");
  const call_count capture_calls("cuStreamIsCapturing");
  for (int i = 0; i < 100; ++i) {
    void* const block = resource->allocate(stream.view(), 4 * MiB);
    resource->deallocate(stream.view(), block, 4 * MiB);
  }
  EXPECT_EQ(id_calls.value(), 100) << "a free of what was allocated last asks nobody";
  EXPECT_EQ(all_calls.value(), id_calls.value() + capture_calls.value());
}

TEST_F(pool, asks_once_a_pair_who_a_stream_is_whose_blocks_are_cached) {
  const auto resource = make_pool(64 * MiB);
  const foreign_stream stream;
  for (int i = 0; i < 3; ++i) resource->deallocate(stream.view(), resource->allocate(stream.view(), 4 * KiB), 4 * KiB);
  const call_count all_calls(nullptr);
  const call_count id_calls("cuStreamGetId");
  const call_count capture_calls("cuStreamIsCapturing");
  for (int i = 0; i < 100; ++i) {
    void* const block = resource->allocate(stream.view(), 4 * KiB);
    resource->deallocate(stream.view(), block, 4 * KiB);
  }
  EXPECT_EQ(id_calls.value(), 100);
  EXPECT_EQ(capture_calls.value(), 200);
  EXPECT_EQ(all_calls.value(), 300);
}

TEST_F(pool, rounds_sizes_to_256_bytes_and_counts_them_so) {
  const auto resource = make_pool(1 * MiB);
  void* const block = resource->allocate({}, 1);
  EXPECT_EQ(resource->state().in_use, 256u);
  resource->deallocate({}, block, 1);
  EXPECT_EQ(resource->state().in_use, 0u);
  EXPECT_EQ(resource->state().held, 1 * MiB);
}

TEST_F(pool, honours_alignment_up_to_64_kib) {
  const auto resource = make_pool(64 * MiB);
  void* const offset = resource->allocate({}, 256);  // from now on nothing is aligned by luck
  for (std::size_t alignment = 1; alignment <= 64 * KiB; alignment *= 2) {
    void* const block = resource->allocate({}, 768, alignment);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % std::max(alignment, default_alignment), 0u) << alignment;
    void* const spacer = resource->allocate({}, 256);
    resource->deallocate({}, block, 768, alignment);
    resource->deallocate({}, spacer, 256);
    resource->check();
  }
  resource->deallocate({}, offset, 256);
}

TEST_F(pool, grows_for_a_size_and_an_alignment_that_no_chunk_holds) {
  const auto resource = make_pool(0);
  void* const block = resource->allocate({}, 2 * MiB, 1 * MiB);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % (1 * MiB), 0u);
  resource->deallocate({}, block, 2 * MiB, 1 * MiB);
}

TEST_F(pool, starts_with_half_of_the_free_memory_unless_told) {
  const auto free_before = device_memory_info(0).free_bytes;
  const auto resource = make_pool({});
  EXPECT_EQ(resource->pool_size(), align_down(free_before / 2, 256));
  EXPECT_EQ(resource->specification(), "pool");
}

TEST_F(pool, starts_with_nothing_over_memory_that_the_host_can_use) {
  for (const std::shared_ptr<memory_resource>& upstream : std::initializer_list<std::shared_ptr<memory_resource>>{
           std::make_shared<pinned_host_memory_resource>(), std::make_shared<managed_memory_resource>()}) {
    pool_memory_resource resource(upstream);
    EXPECT_EQ(resource.pool_size(), 0u) << upstream->specification();
    void* const block = resource.allocate({}, 1);
    EXPECT_EQ(resource.pool_size(), 2 * MiB);
    resource.deallocate({}, block, 1);
  }
}

TEST_F(pool, starts_with_its_maximum_where_half_of_the_free_memory_is_more) {
  EXPECT_EQ(make_pool({}, 16 * MiB)->pool_size(), 16 * MiB);
}

TEST_F(pool, holds_nothing_until_it_is_used_when_the_initial_size_is_zero) {
  const auto resource = make_pool(0);
  EXPECT_EQ(resource->pool_size(), 0u);
  void* const block = resource->allocate({}, 1);
  EXPECT_EQ(resource->pool_size(), 2 * MiB);
  resource->deallocate({}, block, 1);
}

TEST_F(pool, doubles_while_it_is_small) {
  const auto resource = make_pool(8 * MiB);
  void* const first = resource->allocate({}, 8 * MiB);
  void* const second = resource->allocate({}, 1);
  EXPECT_EQ(resource->pool_size(), 16 * MiB);
  resource->deallocate({}, first, 8 * MiB);
  resource->deallocate({}, second, 1);
}

TEST_F(pool, halves_a_chunk_until_the_device_has_it) {
  const auto resource = make_pool(64 * MiB);
  void* const all = resource->allocate({}, 64 * MiB);
  const std::size_t rest = device_memory_info(0).free_bytes;
  void* const occupied = device_allocate(0, rest - 40 * MiB);
  const call_count allocations("cuMemAlloc");
  void* const block = resource->allocate({}, 1 * MiB);
  EXPECT_EQ(resource->pool_size(), (64 + 32) * MiB);
  EXPECT_EQ(allocations.value(), 2);
  resource->deallocate({}, block, 1 * MiB);
  resource->deallocate({}, all, 64 * MiB);
  device_free(0, occupied);
}

TEST_F(pool, never_passes_its_maximum) {
  const auto resource = make_pool(0, 5 * MiB);
  std::vector<void*> blocks;
  while (void* const block = resource->try_allocate({}, 256 * KiB)) {
    blocks.push_back(block);
    ASSERT_LE(resource->pool_size(), 5 * MiB);
  }
  EXPECT_EQ(blocks.size(), 20u) << "all of the maximum is of use";
  EXPECT_EQ(resource->pool_size(), 5 * MiB);
  for (void* const block : blocks) resource->deallocate({}, block, 256 * KiB);
  resource->check();
}

TEST_F(pool, never_joins_blocks_of_two_chunks) {
  const auto resource = make_pool(0);
  void* const low = resource->allocate({}, 8 * MiB);
  void* const high = resource->allocate({}, 8 * MiB);
  resource->deallocate({}, low, 8 * MiB);
  resource->deallocate({}, high, 8 * MiB);
  ASSERT_EQ(resource->counters().upstream_allocations, 2u);
  void* const both = resource->allocate({}, 16 * MiB);
  EXPECT_EQ(resource->counters().upstream_allocations, 3u);
  resource->deallocate({}, both, 16 * MiB);
}

TEST_F(pool, gives_free_chunks_back_to_make_room_for_a_larger_one) {
  const auto resource = make_pool(0, 32 * MiB);
  std::vector<void*> blocks;
  for (int i = 0; i < 3; ++i) blocks.push_back(resource->allocate({}, 8 * MiB));
  for (void* const block : blocks) resource->deallocate({}, block, 8 * MiB);
  ASSERT_GT(resource->counters().upstream_allocations, 1u);
  void* const all = resource->allocate({}, 32 * MiB);
  EXPECT_EQ(resource->pool_size(), 32 * MiB);
  EXPECT_EQ(resource->counters().upstream_frees, resource->counters().upstream_allocations - 1);
  resource->deallocate({}, all, 32 * MiB);
  resource->check();
}

TEST_F(pool, has_its_bytes_again_after_running_out) {
  const auto resource = make_pool(4 * MiB, 4 * MiB);
  void* const half = resource->allocate({}, 2 * MiB);
  EXPECT_EQ(resource->try_allocate({}, 3 * MiB), nullptr);
  resource->check();
  resource->deallocate({}, half, 2 * MiB);
  void* const all = resource->allocate({}, 4 * MiB);
  resource->deallocate({}, all, 4 * MiB);
}

TEST_F(pool, answers_sizes_near_2_to_the_64_with_out_of_memory_and_the_numbers) {
  const auto resource = make_pool(1 * MiB, 4 * MiB);
  constexpr std::size_t top = std::numeric_limits<std::size_t>::max();
  for (const std::size_t bytes : {top, top - 255, top / 2 + 1, top / 2, top / 2 - 255, std::size_t{1} << 62}) {
    EXPECT_EQ(resource->try_allocate({}, bytes), nullptr) << bytes;
    EXPECT_EQ(resource->try_allocate({}, bytes, 64 * KiB), nullptr) << bytes;
  }
  EXPECT_EQ(resource->try_allocate({}, 256, std::size_t{1} << 62), nullptr);
  EXPECT_EQ(resource->try_allocate({}, 256, std::size_t{1} << 63), nullptr);
  try {
    resource->allocate({}, top);
    FAIL() << "2^64 - 1 bytes were allocated";
  } catch (const out_of_memory& error) {
    EXPECT_EQ(error.requested(), top);
    EXPECT_EQ(error.state().in_use, 0u);
    EXPECT_EQ(error.state().held, 1 * MiB);
    EXPECT_EQ(error.state().limit, 4 * MiB);
    EXPECT_EQ(error.state().largest_free, 1 * MiB);
    EXPECT_NE(std::string(error.what()).find("18446744073709551615"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("pool:initial=1MiB,max=4MiB | cuda"), std::string::npos) << error.what();
  }
  resource->check();
}

TEST_F(pool, keeps_its_chunks_where_a_request_is_larger_than_any_block_may_be) {
  const auto resource = make_pool(4 * MiB);
  EXPECT_EQ(resource->try_allocate({}, max_block_bytes + 1), nullptr);
  EXPECT_EQ(resource->pool_size(), 4 * MiB);
}

/// An upstream that has addresses for sale: nobody touches the memory.
class boundless final : public memory_resource {
 public:
  boundless() : memory_resource(0) {}
  std::string kind() const override { return "boundless"; }
  std::size_t given = 0;

 private:
  void* do_allocate(stream_ref, std::size_t bytes, std::size_t) override {
    given += bytes;
    next_ += 4 * std::size_t{1} << 40;
    return reinterpret_cast<void*>(next_);
  }
  void do_deallocate(stream_ref, void*, std::size_t bytes, std::size_t) noexcept override { given -= bytes; }
  std::uintptr_t next_ = std::uintptr_t{1} << 44;
};

TEST_F(pool, takes_blocks_up_to_the_largest_there_may_be_and_none_above) {
  const auto upstream = std::make_shared<boundless>();
  pool_memory_resource resource(upstream, 0);
  for (const std::size_t less : {std::size_t{0}, std::size_t{256}, 1 * MiB, 2 * MiB, 3 * MiB}) {
    void* const block = resource.try_allocate({}, max_block_bytes - less);
    EXPECT_NE(block, nullptr) << less;
    resource.check();
    resource.deallocate({}, block, max_block_bytes - less);
    synchronize_device(0);
    resource.trim();
    EXPECT_EQ(upstream->given, 0u) << less;
  }
  EXPECT_EQ(resource.try_allocate({}, max_block_bytes + 1), nullptr);
  EXPECT_EQ(resource.try_allocate({}, max_block_bytes, 512), nullptr);
  EXPECT_EQ(upstream->given, 0u);
}

TEST_F(pool, reports_and_ignores_pointers_that_it_did_not_give_out) {
  const auto resource = make_pool(1 * MiB);
  void* const block = resource->allocate({}, 512);
  captured_stderr output;
  int local = 0;
  resource->deallocate({}, &local, 512);
  resource->deallocate({}, static_cast<std::byte*>(block) + 256, 256);
  EXPECT_EQ(resource->state().in_use, 512u);
  resource->deallocate({}, block, 512);
  resource->deallocate({}, block, 512);  // a double free
  EXPECT_EQ(resource->state().in_use, 0u);
  resource->check();
  EXPECT_NE(output.text().find("the pool did not give out"), std::string::npos);
}

TEST_F(pool, trims_chunks_that_are_free_and_ready_and_no_others) {
  const auto resource = make_pool(8 * MiB);
  void* const first = resource->allocate({}, 8 * MiB);
  void* const second = resource->allocate({}, 8 * MiB);
  EXPECT_EQ(resource->trim(), 0u) << "all is in use";
  resource->deallocate({}, second, 8 * MiB);
  synchronize_device(0);
  EXPECT_EQ(resource->trim(), 8 * MiB);
  EXPECT_EQ(resource->pool_size(), 8 * MiB);
  EXPECT_EQ(live_objects().allocations, 1u);
  resource->deallocate({}, first, 8 * MiB);
  synchronize_device(0);
  EXPECT_EQ(resource->trim(8 * MiB), 0u) << "the pool is no larger than what it shall keep";
  EXPECT_EQ(resource->trim(), 8 * MiB);
  EXPECT_EQ(resource->pool_size(), 0u);
  resource->check();
}

TEST_F(pool, gives_nothing_back_when_told_to_keep_everything) {
  const auto resource = make_pool(8 * MiB);
  EXPECT_EQ(resource->trim(std::numeric_limits<std::size_t>::max()), 0u);
  EXPECT_EQ(resource->trim(8 * MiB + 1), 0u);
  EXPECT_EQ(resource->pool_size(), 8 * MiB);
}

TEST_F(pool, refuses_an_initial_size_above_the_maximum) {
  try {
    make_pool(2 * MiB, 1 * MiB);
    FAIL() << "the pool was made";
  } catch (const std::logic_error& error) {
    EXPECT_STREQ(error.what(), "Initial pool size exceeds the maximum pool size! (2.00 MiB > 1.00 MiB)");
  }
}

TEST_F(pool, refuses_sizes_that_are_no_multiples_of_256) {
  EXPECT_THROW(make_pool(1000), std::logic_error);
  EXPECT_THROW(make_pool(1024, 10'001), std::logic_error);
  EXPECT_NO_THROW(make_pool(1024, 10'240));
}

TEST_F(pool, refuses_a_null_upstream) { EXPECT_THROW(pool_memory_resource(nullptr, 0), std::invalid_argument); }

TEST_F(pool, throws_out_of_memory_when_its_initial_size_is_not_to_be_had) {
  EXPECT_THROW(make_pool(1024 * GiB), out_of_memory);
}

/// Memory that is not there: addresses, as many as are asked for, up to a limit.
class addresses final : public memory_resource {
 public:
  explicit addresses(std::size_t limit) : memory_resource(0), limit_(limit) {}
  std::string kind() const override { return "addresses"; }
  bool is_stream_ordered() const noexcept override { return false; }
  std::size_t given = 0;
  std::vector<std::size_t> asked;

 private:
  void* do_allocate(stream_ref, std::size_t bytes, std::size_t) override {
    asked.push_back(bytes);
    if (bytes > limit_ - given) return nullptr;
    given += bytes;
    return reinterpret_cast<void*>(std::exchange(next_, next_ + align_up(bytes, 1 * MiB) + 1 * MiB));
  }
  void do_deallocate(stream_ref, void*, std::size_t bytes, std::size_t) noexcept override { given -= bytes; }

  std::size_t limit_;
  std::uintptr_t next_ = std::uintptr_t{1} << 46;
};

constexpr std::size_t TiB = 1024 * GiB;

TEST_F(pool, takes_a_first_size_of_tebibytes_in_several_chunks) {
  const auto upstream = std::make_shared<addresses>(8 * TiB);
  {
    pool_memory_resource large(upstream, 3 * TiB);
    EXPECT_EQ(upstream->asked.size(), 4u) << "a chunk has less than a tebibyte";
    EXPECT_EQ(upstream->given, 3 * TiB);
    void* const block = large.allocate({}, TiB - 256);
    EXPECT_EQ(large.try_allocate({}, TiB), nullptr) << "and so has a block";
    EXPECT_EQ(large.pool_size(), 3 * TiB);
    large.deallocate({}, block, TiB - 256);
    EXPECT_THROW(large.grow_in_steps_of(TiB), std::logic_error);
    large.check();
  }
  EXPECT_EQ(upstream->given, 0u);
}

TEST_F(pool, gives_back_the_chunks_of_a_first_size_that_is_not_to_be_had) {
  const auto upstream = std::make_shared<addresses>(2 * TiB);
  try {
    pool_memory_resource(upstream, 3 * TiB);
    ADD_FAILURE() << "there is no such memory";
  } catch (const out_of_memory& error) {
    EXPECT_EQ(error.requested(), 3 * TiB) << "what was asked for, not a part of it";
  }
  EXPECT_EQ(upstream->given, 0u);
}

TEST_F(pool, stands_over_a_pool) {
  const auto outer = std::make_shared<pool_memory_resource>(make_pool(64 * MiB), 0, 32 * MiB);
  std::set<void*> blocks;
  for (int i = 0; i < 31; ++i) blocks.insert(outer->allocate({}, 1 * MiB));
  EXPECT_EQ(blocks.size(), 31u);
  EXPECT_EQ(describe(*outer), "pool:initial=0,max=32MiB | pool:initial=64MiB | cuda");
  for (void* const block : blocks) outer->deallocate({}, block, 1 * MiB);
  outer->check();
}

TEST_F(pool, stands_over_a_pool_of_the_driver) {
  const auto async = std::make_shared<cuda_async_memory_resource>(0, cuda_async_memory_resource::options{});
  const auto resource = std::make_shared<pool_memory_resource>(async, 4 * MiB, 16 * MiB);
  const cuda_stream stream(0);
  void* const small = resource->allocate(stream.view(), 1 * MiB);
  void* const large = resource->allocate(stream.view(), 8 * MiB);
  fill_async(large, 7, 8 * MiB, stream.view(), 0);
  EXPECT_TRUE(all_are(read(large, 8 * MiB, stream.view()), 7));
  resource->deallocate(stream.view(), small, 1 * MiB);
  resource->deallocate(stream.view(), large, 8 * MiB);
  resource->check();
}

TEST_F(pool, reports_blocks_that_are_in_use_when_it_is_destroyed) {
  captured_stderr output;
  {
    const auto resource = make_pool(1 * MiB);
    resource->allocate({}, 512);
  }
  EXPECT_NE(output.text().find("blocks still in use: 1, together 512 B"), std::string::npos);
}

}  // namespace
}  // namespace cenote::test
