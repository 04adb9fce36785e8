#include "cenote/driver/stream.hpp"

#include <optional>
#include <type_traits>

#include "simulated.hpp"

namespace cenote::test {
namespace {

static_assert(!std::is_copy_constructible_v<cuda_stream> && !std::is_copy_assignable_v<cuda_stream>);
static_assert(std::is_nothrow_move_constructible_v<cuda_stream> && std::is_nothrow_move_assignable_v<cuda_stream>);
static_assert(std::is_convertible_v<const cuda_stream&, stream_ref>);
static_assert(!std::is_convertible_v<int, cuda_stream>, "a device is no stream");

class stream : public simulated_device {
 protected:
  void SetUp() override {
    simulated_device::SetUp();
    memory_ = device_allocate(0, 1024);
  }

  void TearDown() override {
    device_free(0, memory_);
    simulated_device::TearDown();
  }

  /// Work that is queued until something waits for it.
  void queue_work(stream_ref stream) { fill_async(memory_, 1, 1024, stream, 0); }

  void* memory_ = nullptr;
};

TEST_F(stream, is_made_on_the_current_device) {
  for (const int device : {0, 1}) {
    const device_scope scope(device);
    const cuda_stream own;
    const cuda_stream apart(cuda_stream::kind::non_blocking);
    EXPECT_EQ(own.device(), device);
    EXPECT_EQ(apart.device(), device);
    require_stream_of_device(own, device);
    require_stream_of_device(apart, device);
  }
}

TEST_F(stream, is_the_same_however_it_is_asked_for) {
  const cuda_stream own(1);
  const stream_ref converted = own;
  EXPECT_TRUE(own.is_valid());
  EXPECT_EQ(own.view(), converted);
  EXPECT_EQ(own.value(), converted.value());
  EXPECT_FALSE(converted.is_legacy_default());
  EXPECT_FALSE(converted.is_per_thread_default());
}

TEST_F(stream, waits_for_its_work) {
  const cuda_stream own(0, cuda_stream::kind::non_blocking);
  queue_work(own);
  EXPECT_FALSE(is_done(own, 0));
  own.synchronize();
  EXPECT_TRUE(is_done(own, 0));
}

TEST_F(stream, of_another_device_than_the_current_one_waits_for_its_work) {
  const cuda_stream own(0, cuda_stream::kind::non_blocking);
  const device_scope elsewhere(1);
  queue_work(own);
  own.synchronize();
  EXPECT_TRUE(is_done(own, 0));
  queue_work(own);
  own.view().synchronize();
  EXPECT_TRUE(is_done(own, 0));
  EXPECT_EQ(current_device(), 1);
}

TEST_F(stream, that_is_a_default_one_waits_for_its_work) {
  for (const stream_ref one : {stream_ref{}, legacy_default_stream(), per_thread_default_stream()}) {
    queue_work(one);
    EXPECT_FALSE(is_done(one, 0));
    one.synchronize();
    EXPECT_TRUE(is_done(one, 0));
  }
}

TEST_F(stream, says_what_failed_while_it_waited) {
  const cuda_stream own(0);
  cenote_sim_fail("cuStreamSynchronize", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(own.synchronize(), cuda_error);
}

TEST_F(stream, lives_on_where_it_is_moved_to) {
  const call_count destroyed("cuStreamDestroy");
  {
    cuda_stream from(1);
    const stream_ref handle = from;
    cuda_stream to(std::move(from));
    EXPECT_FALSE(from.is_valid());  // NOLINT: what is left is promised
    EXPECT_EQ(to.view(), handle);
    EXPECT_EQ(to.device(), 1);
    to.synchronize();

    cuda_stream replaced(0);
    replaced = std::move(to);
    EXPECT_EQ(destroyed.value(), 1) << "its own stream is not needed any more";
    EXPECT_EQ(replaced.view(), handle);
    EXPECT_EQ(replaced.device(), 1);
    EXPECT_FALSE(to.is_valid());

    auto& same = replaced;
    replaced = std::move(same);
    EXPECT_EQ(replaced.view(), handle) << "moved into itself";
    EXPECT_EQ(destroyed.value(), 1);
  }
  EXPECT_EQ(destroyed.value(), 2);
}

TEST_F(stream, that_cannot_be_made_leaves_nothing) {
  cenote_sim_fail("cuStreamCreate", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(cuda_stream(), cuda_error);
  EXPECT_ANY_THROW(cuda_stream{device_count()});
}

TEST_F(stream, by_default_is_told_apart_from_any_other) {
  EXPECT_TRUE(stream_ref{}.is_legacy_default());
  EXPECT_TRUE(legacy_default_stream().is_legacy_default());
  EXPECT_FALSE(legacy_default_stream().is_per_thread_default());
  EXPECT_EQ(legacy_default_stream().value(), CU_STREAM_LEGACY);
  EXPECT_TRUE(per_thread_default_stream().is_per_thread_default());
  EXPECT_FALSE(per_thread_default_stream().is_legacy_default());
  EXPECT_EQ(per_thread_default_stream().value(), CU_STREAM_PER_THREAD);
}

}  // namespace
}  // namespace cenote::test
