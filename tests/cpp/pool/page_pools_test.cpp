// Pools of one device: where it has no memory left, one pool takes what lies idle in another.
#include <array>
#include <optional>
#include <thread>
#include <utility>

#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/memory.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/resources/virtual_memory_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

constexpr std::size_t room = 256 * MiB;

/// A device on which both pools together have so much.
class two_pools : public simulated_device {
 protected:
  void SetUp() override {
    simulated_device::SetUp();
    one_ = make_pool();
    other_ = make_pool();
    others_bytes_ = align_down(device_memory_info(0).free_bytes, 2 * MiB) - room;
    others_ = device_allocate(0, others_bytes_);
    streams_.emplace();
  }

  void TearDown() override {
    streams_.reset();
    one_.reset();
    other_.reset();
    device_free(0, others_);
    simulated_device::TearDown();
  }

  static std::shared_ptr<pool_memory_resource> make_pool(std::optional<std::size_t> maximum = {}) {
    return std::make_shared<pool_memory_resource>(std::make_shared<virtual_memory_resource>(0), std::nullopt, maximum);
  }

  static void use(void* block, stream_ref stream) {
    for (int i = 0; i < 100; ++i) fill_async(block, 1, 2 * MiB, stream, 0);
  }

  static void allocate_and_free(memory_resource& pool, stream_ref stream, std::size_t bytes) {
    void* const block = pool.allocate(stream, bytes);
    use(block, stream);
    pool.deallocate(stream, block, bytes);
  }

  stream_ref a() const { return streams_->at(0).view(); }
  stream_ref b() const { return streams_->at(1).view(); }

  std::shared_ptr<pool_memory_resource> one_;
  std::shared_ptr<pool_memory_resource> other_;

 private:
  std::size_t others_bytes_ = 0;
  void* others_ = nullptr;
  std::optional<std::array<stream_of_ours, 2>> streams_;
};

TEST_F(two_pools, share_the_device_one_after_the_other) {
  for (const auto& [pool, stream] : {std::pair{one_, a()}, {other_, b()}, {one_, b()}, {other_, a()}}) {
    allocate_and_free(*pool, stream, room);
    finish_all_work();
  }
}

TEST_F(two_pools, wait_for_work_that_is_pending_on_what_is_idle) {
  allocate_and_free(*one_, a(), room);
  void* const block = other_->allocate(b(), room);
  use(block, b());
  other_->deallocate(b(), block, room);
}

TEST_F(two_pools, leave_each_other_what_is_in_use_and_what_is_not_needed) {
  void* const in_use = one_->allocate(a(), 64 * MiB);
  allocate_and_free(*one_, a(), 128 * MiB);
  finish_all_work();
  void* const block = other_->allocate(b(), 96 * MiB);
  EXPECT_EQ(one_->pool_size(), 192 * MiB - 96 * MiB) << "as much went as was asked for";
  EXPECT_EQ(other_->try_allocate(b(), 160 * MiB), nullptr);
  use(in_use, a());
  other_->deallocate(b(), block, 96 * MiB);
  one_->deallocate(a(), in_use, 64 * MiB);
}

TEST_F(two_pools, take_nothing_for_one_that_has_reached_its_maximum) {
  allocate_and_free(*one_, a(), 64 * MiB);
  finish_all_work();
  const auto small = make_pool(32 * MiB);
  void* const block = small->allocate(b(), 32 * MiB);
  EXPECT_EQ(small->try_allocate(b(), 2 * MiB), nullptr);
  EXPECT_EQ(one_->pool_size(), 64 * MiB);
  small->deallocate(b(), block, 32 * MiB);
}

TEST_F(two_pools, ask_no_pool_that_is_gone) {
  allocate_and_free(*one_, a(), room);
  one_.reset();
  allocate_and_free(*other_, b(), room);
}

TEST_F(two_pools, take_beside_a_capture_what_is_known_to_be_done) {
  void* const block = one_->allocate(a(), room);
  one_->deallocate(a(), block, room);
  one_->trim(room);  // asks whether the work is done
  capture_begins(0);
  const call_count waits("cuCtxSynchronize");
  void* const taken = other_->try_allocate(b(), 8 * MiB);
  EXPECT_NE(taken, nullptr);
  EXPECT_EQ(other_->try_allocate(b(), room), nullptr);
  EXPECT_EQ(waits.value(), 0);
  capture_ended(0);
  other_->deallocate(b(), taken, 8 * MiB);
}

TEST_F(two_pools, ask_each_other_at_the_same_time) {
  const auto use_pool = [](memory_resource& pool, stream_ref stream) {
    for (int i = 0; i < 50; ++i) {
      if (void* const block = pool.try_allocate(stream, room)) pool.deallocate(stream, block, room);
    }
  };
  std::thread beside([&] { use_pool(*one_, a()); });
  use_pool(*other_, b());
  beside.join();
  one_->check();
  other_->check();
  EXPECT_LE(one_->pool_size() + other_->pool_size(), room);
}

TEST_F(two_pools, lose_nothing_where_the_driver_fails_meanwhile) {
  for (const char* const call : {"cuMemUnmap", "cuMemRelease", "cuMemCreate", "cuMemMap", "cuMemSetAccess"}) {
    allocate_and_free(*one_, a(), room);
    finish_all_work();
    ASSERT_EQ(cenote_sim_fail(call, 1, CUDA_ERROR_UNKNOWN), 0) << call;
    try {
      if (void* const block = other_->try_allocate(b(), room)) other_->deallocate(b(), block, room);
    } catch (const cuda_error&) {  // what the driver said
    }
    cenote_sim_fail(call, 0, 0);
    one_->check();
    other_->check();
    allocate_and_free(*other_, b(), room);
    finish_all_work();
  }
}

}  // namespace
}  // namespace cenote::test
