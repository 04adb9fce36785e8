// Each request of the core for host memory fails once while a pool is at work: the call that made it then fails or does
// without, and nothing is lost, counted twice or left half done.
#include <new>
#include <string>
#include <utility>

#include "cenote/ground/check.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/structures/front_cache.hpp"
#include "support/failing_host_memory.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

// Where each operation is checked, fewer take as long.
constexpr long request_stride = check_level >= 2 ? 7 : 1;

constexpr long never = -1;

/// While it lives the nth next request of the core fails; `remaining` is `never` afterwards if there were so many.
class failing_request {
 public:
  explicit failing_request(long& remaining)
      : remaining_(remaining), state_{.served_before = remaining, .failures = remaining == never ? 0 : 1} {
    current_shortage = &state_;
  }
  ~failing_request() {
    current_shortage = nullptr;
    remaining_ = state_.has_begun ? never : state_.served_before;
  }
  failing_request(const failing_request&) = delete;
  failing_request& operator=(const failing_request&) = delete;

 private:
  long& remaining_;
  host_memory_shortage state_;
};

class host_memory : public simulated_device {
 protected:
  static constexpr std::size_t unit = 128 * KiB;
  static constexpr std::size_t pool_bytes = 32 * unit;

  struct held {
    stream_ref stream;
    void* block;
    std::size_t bytes;
  };

  void SetUp() override {
    simulated_device::SetUp();
    make_pool();  // what the process asks for once is there
  }
  void TearDown() override {
    pool_.reset();
    simulated_device::TearDown();
  }

  void make_pool() {
    pool_ = std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), 0, pool_bytes);
    held_.clear();
    allocated_ = 0;
  }

  void allocate(stream_ref stream, std::size_t bytes) {
    void* block = nullptr;
    try {
      const failing_request armed(failing_allocation_);
      block = pool_->try_allocate(stream, bytes);
    } catch (const std::bad_alloc&) {
      check();
    }
    if (block == nullptr) return;
    ++allocated_;
    held_.push_back({stream, block, bytes});
  }

  void free(std::size_t i) {
    {
      const failing_request armed(failing_free_);
      pool_->deallocate(held_[i].stream, held_[i].block, held_[i].bytes);
    }
    held_[i] = held_.back();
    held_.pop_back();
  }

  void check() const { EXPECT_NO_THROW(pool_->check()); }

  std::size_t bytes_held() const {
    std::size_t sum = 0;
    for (const held& each : held_) sum += each.bytes;
    return sum;
  }

  /// Small and large blocks on streams that come and go, in a pool that grows, runs out and gives back.
  void work() {
    std::vector<std::unique_ptr<cuda_stream>> streams;
    for (int i = 0; i < 70; ++i) streams.push_back(std::make_unique<cuda_stream>(0, cuda_stream::kind::non_blocking));
    const auto on = [&](std::size_t i) { return streams[i % streams.size()]->view(); };
    for (std::size_t i = 0; i < 6; ++i) allocate(on(i), 4 * unit);
    while (!held_.empty()) free(0);
    allocate(on(7), 20 * unit);  // what several have freed
    allocate(on(8), 20 * unit);  // there is none
    while (!held_.empty()) free(0);
    for (std::size_t i = 0; i < 40; ++i) allocate(on(i % 3), i % 2 == 0 ? 512 : 1024);
    for (std::size_t i = 0; i < streams.size(); ++i) {
      allocate(on(i), unit / 4);
      if (i % 4 == 3) free(held_.size() / 2);
    }
    allocate(on(3), pool_bytes);
    while (!held_.empty()) {
      held_.back().stream = on(held_.size());  // freed on another stream, after nothing that was queued
      free(held_.size() - 1);
    }
    allocate(on(5), pool_bytes);
    bytes_leaked_ = pool_->state().in_use.value() - bytes_held();
    EXPECT_EQ(pool_->counters().allocations, allocated_);
    while (!held_.empty()) free(0);
    synchronize_device(0);
    pool_->trim();
    check();
  }

  std::shared_ptr<pool_memory_resource> pool_;
  std::vector<held> held_;
  std::uint64_t allocated_ = 0;
  std::size_t bytes_leaked_ = 0;
  long failing_allocation_ = never;
  long failing_free_ = never;
};

TEST_F(host_memory, that_an_allocation_cannot_have_costs_it_nothing_but_that_allocation) {
  long nth = 0;
  for (;; nth += request_stride) {
    failing_allocation_ = nth;
    SCOPED_TRACE(testing::Message() << "request " << nth);
    make_pool();
    work();
    if (failing_allocation_ != never) break;  // there were not so many
    EXPECT_EQ(bytes_leaked_, 0u);
    EXPECT_EQ(pool_->state().in_use, 0u);
    EXPECT_EQ(pool_->pool_size(), 0u);
    if (HasFailure()) return;
  }
  EXPECT_GT(nth, 100);
}

/// A stream is forgotten while blocks lie in its cache; it takes them, others free them, and then it is gone.
TEST_F(host_memory, of_a_front_cache_is_used_again_when_its_stream_has_been_forgotten) {
  pool_ = std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), pool_bytes, pool_bytes);
  const cuda_stream a(0), b(0), low(0), high(0);
  const auto make_the_pool_forget = [&] {
    std::vector<void*> halves{pool_->allocate(low, 10 * unit), pool_->allocate(high, 10 * unit)};
    pool_->deallocate(low, halves[0], 10 * unit);
    pool_->deallocate(high, halves[1], 10 * unit);
    synchronize_device(0);
    pool_->deallocate(a, pool_->allocate(a, 20 * unit), 20 * unit);  // of what has become everybody's
  };
  host_memory_shortage none{.counts_from = sizeof(front_cache)};
  current_shortage = &none;
  std::size_t settled = 0;
  for (int i = 0; i < 300; ++i) {
    if (i == 150) settled = none.counted_bytes;  // by then idle streams have been forgotten twice
    const cuda_stream passing(0, cuda_stream::kind::non_blocking);
    std::vector<void*> blocks;
    for (int k = 0; k < 5; ++k) blocks.push_back(pool_->allocate(passing, 512));
    make_the_pool_forget();
    while (void* const block = pool_->allocate_at_once(passing, 512)) blocks.push_back(block);  // till it is empty
    for (void* const block : blocks) pool_->deallocate(b, block, 512);
    synchronize_device(0);
    pool_->trim(pool_bytes);  // all is everybody's
  }
  current_shortage = nullptr;
  EXPECT_LE(none.counted_bytes - settled, 8 * sizeof(front_cache));
  pool_->check();
}

TEST_F(host_memory, that_a_free_cannot_have_costs_no_more_than_the_block) {
  long nth = 0;
  for (;; nth += request_stride) {
    failing_free_ = nth;
    SCOPED_TRACE(testing::Message() << "request " << nth);
    make_pool();
    const captured_stderr reports;
    work();
    if (failing_free_ != never) break;
    const std::string map = pool_->map();
    EXPECT_EQ(map.find("in use"), map.rfind("in use")) << map;
    pool_.reset();
    if (HasFailure()) return;
  }
  EXPECT_GT(nth, 20);
}

}  // namespace
}  // namespace cenote::test
