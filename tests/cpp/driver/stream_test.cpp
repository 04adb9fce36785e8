#include <memory>
#include <optional>
#include <thread>
#include <type_traits>

#include "cenote/driver/capture.hpp"
#include "cenote/driver/cuda_stream.hpp"
#include "cenote/driver/identified_scope.hpp"
#include "cenote/driver/stream_id.hpp"
#include "cenote/driver/stream_ref.hpp"
#include "support/simulated.hpp"

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

TEST_F(stream, of_our_own_has_the_id_that_the_driver_gave_it_and_is_not_asked_for_it) {
  const cuda_stream own(1);
  unsigned long long id = 0;
  ASSERT_EQ(cuStreamGetId(own.value(), &id), CUDA_SUCCESS);
  const call_count asked("cuStreamGetId");
  EXPECT_EQ(identify(own, 1), (stream_id{id}));
  EXPECT_EQ(asked.value(), 0);
}

TEST_F(stream, of_our_own_leaves_no_id_to_one_that_gets_its_handle) {
  std::optional<cuda_stream> own(std::in_place, 0, cuda_stream::kind::non_blocking);
  const stream_ref handle = own->view();
  const stream_id before = identify(handle, 0);
  own.reset();
  const foreign_stream next;
  ASSERT_EQ(next.view(), handle) << "the driver uses handle values again";
  EXPECT_NE(identify(handle, 0), before);
}

TEST_F(stream, of_our_own_is_asked_for_its_id_where_too_many_are_known) {
  std::vector<std::unique_ptr<cuda_stream>> many;
  for (int i = 0; i < 3'000; ++i) many.push_back(std::make_unique<cuda_stream>(0, cuda_stream::kind::non_blocking));
  const call_count asked("cuStreamGetId");
  for (const auto& each : many) {
    unsigned long long id = 0;
    ASSERT_EQ(cuStreamGetId(each->value(), &id), CUDA_SUCCESS);
    ASSERT_EQ(identify(*each, 0), (stream_id{id}));
  }
  EXPECT_GT(asked.value(), 3'000);
  EXPECT_LT(asked.value(), 6'000);
}

TEST_F(stream, of_our_own_whose_id_could_not_be_asked_at_first_is_asked_later) {
  cenote_sim_fail("cuStreamGetId", 1, CUDA_ERROR_UNKNOWN);
  const cuda_stream own(0, cuda_stream::kind::non_blocking);
  unsigned long long id = 0;
  ASSERT_EQ(cuStreamGetId(own.value(), &id), CUDA_SUCCESS);
  EXPECT_EQ(identify(own, 0), (stream_id{id}));
}

TEST_F(stream, that_a_scope_names_is_known_there_and_nowhere_else) {
  const foreign_stream first, second;
  const stream_id id = identify(first.view(), 0), other = identify(second.view(), 0);
  const call_count calls(nullptr);
  {
    const identified_scope outer(first.view(), 0, id);
    EXPECT_EQ(identify(first.view(), 0), id);
    EXPECT_FALSE(is_capturing(first.view(), 0));
    EXPECT_EQ(calls.value(), 0);
    EXPECT_EQ(identify(second.view(), 0), other);
    EXPECT_EQ(calls.value(), 2);
    {
      const identified_scope inner(second.view(), 0, other);
      EXPECT_EQ(identify(second.view(), 0), other);
      EXPECT_EQ(calls.value(), 2);
    }
    EXPECT_EQ(identify(first.view(), 0), id);
    EXPECT_EQ(calls.value(), 2);
    std::thread([&] { EXPECT_EQ(identify(first.view(), 0), id); }).join();
    EXPECT_EQ(calls.value(), 4) << "another thread has not been told";
    EXPECT_THROW(require_stream_of_device(first.view(), 1), std::invalid_argument);
  }
  const auto after = calls.value();
  EXPECT_EQ(identify(first.view(), 0), id);
  EXPECT_EQ(calls.value(), after + 2);
}

/// The per-thread default streams of two devices have one handle.
TEST_F(stream, that_a_scope_names_is_not_that_of_another_device) {
  const stream_ref per_thread = per_thread_default_stream();
  const stream_id here = identify(per_thread, 0), there = identify(per_thread, 1);
  ASSERT_NE(here, there);
  const identified_scope scope(per_thread, 0, here);
  EXPECT_EQ(identify(per_thread, 0), here);
  EXPECT_EQ(identify(per_thread, 1), there);
}

TEST_F(stream, is_asked_again_who_it_is_where_the_program_is_called) {
  const foreign_stream first;
  const identified_scope around(first.view(), 0, identify(first.view(), 0));
  ASSERT_EQ(cuStreamBeginCapture(first.view().value(), CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_SUCCESS);
  {
    const unidentified_scope program;
    EXPECT_TRUE(is_capturing(first.view(), 0));
    EXPECT_TRUE(identify(first.view(), 0).is_capturing());
  }
  EXPECT_FALSE(is_capturing(first.view(), 0));
  CUgraph graph = nullptr;
  ASSERT_EQ(cuStreamEndCapture(first.view().value(), &graph), CUDA_SUCCESS);
  cuGraphDestroy(graph);
}

/// The program has promised that it announces its captures.
class captures_that_are_announced : public stream {
 protected:
  void SetUp() override {
    stream::SetUp();
    promise_announced_captures(true);
  }
  void TearDown() override {
    promise_announced_captures(false);
    stream::TearDown();
  }
};

TEST_F(captures_that_are_announced, spare_the_question_while_there_is_none) {
  const cuda_stream own(0, cuda_stream::kind::non_blocking);
  const foreign_stream foreign;
  const call_count all(nullptr);
  const call_count captures("cuStreamIsCapturing");
  identify(own, 0);
  EXPECT_EQ(all.value(), 0);
  identify(foreign.view(), 0);
  EXPECT_EQ(all.value(), 1);
  capture_begins(0);
  identify(own, 0);
  identify(foreign.view(), 0);
  EXPECT_EQ(captures.value(), 2);
  identify(foreign.view(), 1);
  EXPECT_EQ(captures.value(), 2) << "it is another device's capture";
  capture_ended(0);
}

TEST_F(captures_that_are_announced, are_seen_on_the_streams_that_are_captured) {
  const cuda_stream own(0, cuda_stream::kind::non_blocking);
  capture_begins(0);
  ASSERT_EQ(cuStreamBeginCapture(own.value(), CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  EXPECT_TRUE(identify(own, 0).is_capturing());
  EXPECT_TRUE(is_capturing(own, 0));
  CUgraph graph = nullptr;
  ASSERT_EQ(cuStreamEndCapture(own.value(), &graph), CUDA_SUCCESS);
  capture_ended(0);
  cuGraphDestroy(graph);
}

TEST_F(captures_that_are_announced, but_were_not_are_an_error_that_says_what_to_do) {
  const foreign_stream foreign;
  ASSERT_EQ(cuStreamBeginCapture(foreign.view().value(), CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  try {
    identify(foreign.view(), 0);
    ADD_FAILURE() << "the broken promise went unseen";
  } catch (const cuda_error& error) {
    EXPECT_EQ(error.code(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    EXPECT_NE(std::string(error.what()).find("cenote_capture_begin"), std::string::npos) << error.what();
  }
  CUgraph graph = nullptr;
  EXPECT_EQ(cuStreamEndCapture(foreign.view().value(), &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  simulator()->clear_violations();
}

}  // namespace
}  // namespace cenote::test
