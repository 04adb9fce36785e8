// A pool that is full, so that what is freed is marked at once.
#pragma once

#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {

// Too large for a front cache, and not worth a mark but under pressure.
constexpr std::size_t block_bytes = 64 * KiB;

inline std::shared_ptr<pool_memory_resource> make_bounded_pool(std::size_t bytes) {
  return std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), bytes, bytes);
}

/// A pool that is full, and a stream that has just gone without: each free is marked from now on.
class pool_under_pressure : public simulated_device {
 public:
  static constexpr std::size_t pool_bytes = 64 * block_bytes;
  static constexpr std::size_t large_bytes = 2 * block_bytes;

  void SetUp() override {
    simulated_device::SetUp();
    pool_ = make_bounded_pool(pool_bytes);
    a_.emplace(0, cuda_stream::kind::non_blocking);
    b_.emplace(0, cuda_stream::kind::non_blocking);
    witness_ = device_allocate(0, large_bytes);
    large_ = pool_->allocate(a(), large_bytes);
    while (void* const block = pool_->try_allocate(a(), block_bytes)) blocks_.push_back(block);
    pool_->deallocate(a(), blocks_.back(), block_bytes);
    blocks_.back() = pool_->allocate(b(), block_bytes);
    before_ = pool_->counters();
    ASSERT_EQ(before_.from_reclaim, 1u);
  }

  void TearDown() override {
    pool_->check();
    const auto figures = pool_->counters();
    EXPECT_EQ(figures.allocations, figures.from_front_cache + figures.from_own_stream + figures.from_ready +
                                       figures.from_other_stream + figures.from_upstream + figures.from_reclaim);
    pool_->deallocate(a(), large_, large_bytes);
    for (void* const block : blocks_) pool_->deallocate(a(), block, block_bytes);
    EXPECT_EQ(in_use(), 0u);
    pool_->check();
    a_.reset();
    b_.reset();
    {
      captured_stderr said;
      pool_.reset();
      EXPECT_EQ(said.text(), "") << "what is free is not in use";
    }
    device_free(0, witness_);
    simulated_device::TearDown();
  }

  stream_ref a() const { return a_->view(); }
  stream_ref b() const { return b_->view(); }

  void* take_one_out() {
    void* const block = blocks_.front();
    blocks_.erase(blocks_.begin());
    return block;
  }

  /// More work than asking an event gets done.
  void keep_busy(stream_ref stream) const {
    for (int i = 0; i < 16; ++i) fill_async(witness_, 0, block_bytes, stream, 0);
  }

  /// The last that the stream does with the block is to copy it to the witness.
  void use_and_free(stream_ref stream, void* block, std::size_t bytes = block_bytes) {
    keep_busy(stream);
    fill_async(block, 0xAA, bytes, stream, 0);
    copy_async(witness_, block, bytes, stream, 0);
    pool_->deallocate(stream, block, bytes);
  }

  /// The new owner overwrites the block, and only it is waited for. Then all else runs.
  void expect_overwritten(stream_ref to, void* block, std::size_t bytes = block_bytes) const {
    fill_async(block, 0xBB, bytes, to, 0);
    synchronize(to, 0);
    cenote_sim_drain();
    EXPECT_TRUE(all_are(read(block, bytes, to), 0xBB)) << "the former owner's work came last";
  }

  /// After use_and_free of this very block, which was the last on the witness.
  void expect_handed_over(stream_ref to, void* block, std::size_t bytes = block_bytes) const {
    expect_overwritten(to, block, bytes);
    EXPECT_TRUE(all_are(read(witness_, bytes, to), 0xAA)) << "the former owner was not done";
  }

  std::size_t in_use() const { return *pool_->state().in_use; }

  /// The largest block that the heap has free.
  std::size_t free_in_heap() const {
    std::istringstream map(pool_->map());
    std::size_t largest = 0;
    for (std::string line; std::getline(map, line);) {
      if (line.ends_with(" free")) largest = std::max(largest, std::stoul(line.substr(line.find(' '))));
    }
    return largest;
  }

  std::uint64_t waits() const { return pool_->counters().waits - before_.waits; }
  std::uint64_t from_own_stream() const { return pool_->counters().from_own_stream - before_.from_own_stream; }
  std::uint64_t from_other_stream() const { return pool_->counters().from_other_stream - before_.from_other_stream; }
  std::uint64_t from_reclaim() const { return pool_->counters().from_reclaim - before_.from_reclaim; }

  std::shared_ptr<pool_memory_resource> pool_;
  std::optional<cuda_stream> a_;
  std::optional<cuda_stream> b_;
  void* witness_ = nullptr;
  void* large_ = nullptr;
  std::vector<void*> blocks_;  // in use; the first of them lie beside each other
  pool_counters before_;
};

}  // namespace cenote::test
