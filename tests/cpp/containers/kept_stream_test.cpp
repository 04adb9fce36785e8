// Streams that an owner keeps: on the thread that used them and on another, and those of another device.
#include "cenote/driver/kept_stream.hpp"

#include <functional>
#include <list>
#include <thread>

#include "cenote/allocators/polymorphic_allocator.hpp"
#include "cenote/allocators/stream_allocator_adaptor.hpp"
#include "cenote/cenote.h"
#include "cenote/containers/device_scalar.hpp"
#include "cenote/driver/aside_stream.hpp"
#include "cenote/driver/stream_id.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pinned_host_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/surface/reclaimer.hpp"
#include "cenote/surface/specification.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

constexpr std::size_t size = 4096;

void on_another_thread(const std::function<void()>& work) {
  std::thread([&] {
    set_current_device(0);
    work();
  }).join();
}

class kept_streams : public simulated_device {
 protected:
  void SetUp() override {
    for (int device = 0; device < 2; ++device) aside_stream(device);  // kept for the process
    simulated_device::SetUp();
    set_current_device(0);
    pool_ = std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), 1 * MiB, 1 * MiB);
    source_.emplace(size, stream_ref{}, std::make_shared<pinned_host_memory_resource>(0));
    std::memset(source_->data(), 'A', size);
  }

  void TearDown() override {
    finish_all_work();
    source_.reset();
    EXPECT_EQ(reclaimer::of(0).held_back(), 0u);
    EXPECT_EQ(pool_->state().in_use, 0u);
    pool_->check();
    pool_.reset();
    simulated_device::TearDown();
  }

  static stream_ref own() { return per_thread_default_stream(); }

  /// Written on the per-thread default stream of a thread that has ended; the copy has not run yet.
  device_buffer written_by_another_thread() {
    std::optional<device_buffer> buffer;
    on_another_thread([&] {
      buffer.emplace(size, own(), pool_);
      buffer->copy_from(source_->data(), size, own());
    });
    return *std::move(buffer);
  }

  /// Whether memory of the same sizes that is written now keeps what it was given, whatever older work still has to
  /// run.
  bool keeps_new_contents() {
    std::list<device_buffer> fresh;
    for (const std::size_t bytes : {std::size_t{1}, size}) {
      fresh.emplace_back(bytes, own(), pool_);
      fill_async(fresh.back().data(), 'B', bytes, own(), 0);
    }
    synchronize(own(), 0);
    cenote_sim_drain();
    return std::all_of(fresh.begin(), fresh.end(),
                       [](const device_buffer& each) { return all_are(read(each.data(), each.size(), own()), 'B'); });
  }

  std::shared_ptr<pool_memory_resource> pool_;
  std::optional<device_buffer> source_;
};

TEST_F(kept_streams, per_thread_default_one_is_known_on_its_thread_alone) {
  const kept_stream mine = own();
  const kept_stream everybodys = legacy_default_stream();
  const cuda_stream made;
  const kept_stream of_ours = made.view();
  EXPECT_TRUE(mine.is_known_here());
  on_another_thread([&] {
    EXPECT_FALSE(mine.is_known_here());
    EXPECT_FALSE(mine == kept_stream(own()));
    EXPECT_TRUE(everybodys.is_known_here());
    EXPECT_TRUE(of_ours.is_known_here());
  });
}

TEST_F(kept_streams, threads_that_have_ended_are_not_taken_for_later_ones) {
  std::list<kept_stream> kept;
  for (int i = 0; i < 20; ++i) on_another_thread([&] { kept.emplace_back(own()); });
  on_another_thread([&] {
    for (const kept_stream& each : kept) EXPECT_FALSE(each.is_known_here());
  });
}

TEST_F(kept_streams, buffer_dropped_by_another_thread_is_not_reused_before_its_work) {
  written_by_another_thread().close();
  EXPECT_TRUE(keeps_new_contents());
}

TEST_F(kept_streams, buffer_whose_memory_is_replaced_by_another_thread_is_not_reused_before_its_work) {
  auto buffer = written_by_another_thread();
  buffer = device_buffer(0, own(), pool_);
  EXPECT_TRUE(keeps_new_contents());
}

TEST_F(kept_streams, uvector_and_scalar_dropped_by_another_thread_are_not_reused_before_their_work) {
  std::optional<device_uvector<char>> row;
  std::optional<device_scalar<char>> scalar;
  on_another_thread([&] {
    row.emplace(size, own(), pool_);
    scalar.emplace(own(), pool_);
    copy_async(row->data(), source_->data(), size, own(), 0);
    copy_async(scalar->data(), source_->data(), 1, own(), 0);
  });
  row.reset();
  scalar.reset();
  EXPECT_TRUE(keeps_new_contents());
}

TEST_F(kept_streams, vector_of_the_standard_library_dropped_by_another_thread_is_not_reused_before_its_work) {
  using numbers = std::vector<char, stream_allocator_adaptor<polymorphic_allocator<char>>>;
  std::optional<numbers> vector;
  on_another_thread([&] {
    vector.emplace(stream_allocator_adaptor<polymorphic_allocator<char>>(pool_, own()));
    vector->reserve(size);
    copy_async(vector->data(), source_->data(), size, own(), 0);
  });
  vector.reset();
  EXPECT_TRUE(keeps_new_contents());
}

TEST_F(kept_streams, memory_of_a_stricter_alignment_goes_back_with_it) {
  std::optional<device_buffer> buffer;
  on_another_thread([&] { buffer.emplace(size, 1024, own(), std::make_shared<cuda_memory_resource>(0)); });
  const captured_stderr written;
  buffer.reset();
}

TEST_F(kept_streams, every_function_comes_after_what_was_written_on_another_stream_or_thread) {
  const cuda_stream writer(0, cuda_stream::kind::non_blocking);
  const cuda_stream other(0, cuda_stream::kind::non_blocking);
  using look = std::function<std::vector<unsigned char>(device_buffer&)>;
  const auto seen_after = [](const std::function<void(device_buffer&)>& change) {
    return [change](device_buffer& buffer) {
      change(buffer);
      return read(buffer.data(), size, buffer.stream());
    };
  };
  const std::vector<look> looks = {
      [](device_buffer& buffer) {
        std::vector<unsigned char> host(size);
        buffer.copy_to(host.data(), size, own());
        synchronize(own(), 0);
        return host;
      },
      [&](device_buffer& buffer) {
        const device_buffer copied(buffer, other, pool_);
        return read(copied.data(), size, other);
      },
      [](device_buffer& buffer) {
        buffer.synchronize();
        return read(buffer.data(), size, own());
      },
      [](device_buffer& buffer) {
        buffer.begin_use(own());
        return read(buffer.data(), size, own());
      },
      seen_after([](device_buffer& buffer) { buffer.resize(2 * size, own()); }),
      seen_after([&](device_buffer& buffer) { buffer.reserve(2 * size, other); }),
      seen_after([](device_buffer& buffer) { buffer.resize(size, own()); }),
      seen_after([](device_buffer& buffer) { buffer.shrink_to_fit(own()); }),
  };
  for (std::size_t i = 0; i < looks.size(); ++i) {
    device_buffer of_a_thread = written_by_another_thread();
    EXPECT_TRUE(all_are(looks[i](of_a_thread), 'A')) << "look " << i << " from another thread";
    device_buffer of_a_stream(size, writer, pool_);
    of_a_stream.copy_from(source_->data(), size, writer);
    EXPECT_TRUE(all_are(looks[i](of_a_stream), 'A')) << "look " << i << " on another stream";
  }
}

TEST_F(kept_streams, memory_is_not_freed_before_what_another_stream_does_with_it) {
  const cuda_stream writer(0, cuda_stream::kind::non_blocking);
  const cuda_stream reader(0, cuda_stream::kind::non_blocking);
  device_buffer seen(size, stream_ref{}, std::make_shared<cuda_memory_resource>(0));
  {
    device_buffer buffer(size, writer, pool_);
    buffer.copy_from(source_->data(), size, writer);
    buffer.copy_to(seen.data(), size, reader);
  }
  const device_buffer fresh(size, writer, pool_);
  fill_async(fresh.data(), 'B', size, writer, 0);
  synchronize(writer.view(), 0);
  cenote_sim_drain();
  EXPECT_TRUE(all_are(read(seen.data(), size, reader), 'A'));
}

TEST_F(kept_streams, another_threads_elements_are_read_and_set_in_order) {
  std::optional<device_uvector<char>> row;
  on_another_thread([&] {
    row.emplace(size, own(), pool_);
    copy_async(row->data(), source_->data(), size, own(), 0);
  });
  EXPECT_EQ(row->element(7, own()), 'A');
  const char b = 'B';
  row->set_element(8, b, own());
  row->set_element_to_zero_async(9, own());
  cenote_sim_drain();
  EXPECT_EQ(row->element(8, own()), 'B');
  EXPECT_EQ(row->element(9, own()), 0);
}

TEST_F(kept_streams, end_on_another_thread_is_held_back_while_a_capture_is_underway) {
  auto buffer = written_by_another_thread();
  cenote_capture_begin(0);
  const call_count context_events("cuCtxRecordEvent");
  buffer.close();
  EXPECT_EQ(context_events.value(), 0);
  EXPECT_EQ(reclaimer::of(0).held_back(), 1u);
  cenote_capture_end(0);
  EXPECT_EQ(pool_->state().in_use, 0u);
}

TEST_F(kept_streams, use_on_another_thread_is_refused_while_a_capture_is_underway) {
  auto buffer = written_by_another_thread();
  cenote_capture_begin(0);
  EXPECT_THROW(buffer.resize(2 * size, own()), std::runtime_error);
  EXPECT_THROW(buffer.synchronize(), std::runtime_error);
  EXPECT_EQ(buffer.size(), size) << "nothing has changed";
  cenote_capture_end(0);
}

TEST_F(kept_streams, capture_goes_on_where_its_stream_uses_what_others_wrote_before) {
  const cuda_stream captured(0, cuda_stream::kind::non_blocking);
  device_buffer here(size, own(), pool_);
  device_buffer elsewhere = written_by_another_thread();
  ASSERT_EQ(cuStreamBeginCapture(captured.value(), CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_SUCCESS);
  here.copy_from(source_->data(), size, captured);
  elsewhere.copy_to(source_->data(), size, captured);
  CUgraph graph = nullptr;
  EXPECT_EQ(cuStreamEndCapture(captured.value(), &graph), CUDA_SUCCESS) << "the capture was invalidated";
  cuGraphDestroy(graph);
}

TEST_F(kept_streams, stream_outside_does_not_join_the_capture_in_which_memory_is_used) {
  const cuda_stream captured(0, cuda_stream::kind::non_blocking);
  const cuda_stream outside(0, cuda_stream::kind::non_blocking);
  device_buffer buffer(size, captured, pool_);
  ASSERT_EQ(cuStreamBeginCapture(captured.value(), CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_SUCCESS);
  buffer.copy_from(source_->data(), size, captured);
  buffer.copy_to(source_->data(), size, outside);
  EXPECT_FALSE(is_capturing(outside, 0));
  CUgraph graph = nullptr;
  EXPECT_EQ(cuStreamEndCapture(captured.value(), &graph), CUDA_SUCCESS) << "the capture was invalidated";
  cuGraphDestroy(graph);
}

TEST_F(kept_streams, branches_of_one_capture_are_ordered_within_it) {
  const cuda_stream first(0, cuda_stream::kind::non_blocking);
  const cuda_stream second(0, cuda_stream::kind::non_blocking);
  device_buffer buffer(size, first, pool_);
  ASSERT_EQ(cuStreamBeginCapture(first.value(), CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_SUCCESS);
  order_after(second.view(), first.view(), 0);
  buffer.copy_from(source_->data(), size, first);
  const call_count waits("cuStreamWaitEvent");
  buffer.copy_to(source_->data(), size, second);
  EXPECT_EQ(waits.value(), 2) << "before the copy and after it";
  order_after(first.view(), second.view(), 0);
  CUgraph graph = nullptr;
  EXPECT_EQ(cuStreamEndCapture(first.value(), &graph), CUDA_SUCCESS) << "the capture was invalidated";
  cuGraphDestroy(graph);
}

TEST_F(kept_streams, capture_tells_the_per_thread_streams_of_two_threads_apart) {
  ASSERT_EQ(cuStreamBeginCapture(own().value(), CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_SUCCESS);
  const auto here = event::record(own(), 0);
  const stream_id mine = identify(own(), 0);
  stream_id theirs;
  std::shared_ptr<event> there;
  on_another_thread([&] {
    wait(own(), *here, 0);
    theirs = identify(own(), 0);
    there = event::record(own(), 0);
  });
  wait(own(), *there, 0);
  EXPECT_EQ(theirs.value, mine.value) << "one capture";
  EXPECT_NE(theirs, mine) << "two branches of it";
  CUgraph graph = nullptr;
  EXPECT_EQ(cuStreamEndCapture(own().value(), &graph), CUDA_SUCCESS);
  cuGraphDestroy(graph);
}

TEST_F(kept_streams, empty_buffer_does_not_touch_the_stream_that_it_had) {
  std::optional<cuda_stream> gone(std::in_place, 0, cuda_stream::kind::non_blocking);
  device_buffer buffer(size, gone->view(), pool_);
  buffer.close();
  gone.reset();
  buffer.resize(size, own());
  buffer.synchronize();
}

TEST_F(kept_streams, nothing_is_asked_of_the_driver_where_the_stream_stays) {
  const cuda_stream stream(0, cuda_stream::kind::non_blocking);
  for (const stream_ref one : {stream.view(), legacy_default_stream(), own()}) {
    device_buffer buffer(2 * size, one, pool_);
    const call_count records("cuEventRecord");
    const call_count questions("cuStreamIsCapturing");
    buffer.resize(size, one);
    buffer.copy_from(source_->data(), size, one);
    buffer.copy_to(source_->data(), size, one);
    EXPECT_EQ(records.value() + questions.value(), 0);
  }
}

TEST_F(kept_streams, handles_of_the_legacy_stream_are_one_stream) {
  device_buffer buffer(size, stream_ref{}, pool_);
  const call_count records("cuEventRecord");
  buffer.copy_to(source_->data(), size, legacy_default_stream());
  EXPECT_EQ(records.value(), 0);
}

TEST_F(kept_streams, default_streams_of_two_devices_are_two_streams) {
  const auto far = std::make_shared<cuda_memory_resource>(1);
  for (const stream_ref one : {stream_ref{}, own()}) {
    device_buffer there(size, one, far);
    there.copy_from(source_->data(), size, one);
    const device_buffer here(there, one, pool_);
    EXPECT_TRUE(all_are(read(here.data(), size, one, 0), 'A'));
  }
}

TEST_F(kept_streams, streams_of_two_devices_are_ordered) {
  const cuda_stream far(1, cuda_stream::kind::non_blocking);
  const cuda_stream near(0, cuda_stream::kind::non_blocking);
  device_buffer there(size, far, std::make_shared<cuda_memory_resource>(1));
  there.copy_from(source_->data(), size, far);
  order_after(near, far, 0);
  EXPECT_TRUE(all_are(read(there.data(), size, near, 0), 'A'));
  const device_buffer here(there, near, pool_);
  EXPECT_TRUE(all_are(read(here.data(), size, near, 0), 'A'));
}

/// Memory of device 0 that is used, and freed, on a stream of device 1.
class on_a_stream_of_another_device : public kept_streams, public testing::WithParamInterface<const char*> {};

TEST_P(on_a_stream_of_another_device, memory_is_freed_after_its_work_and_not_lost) {
  const auto resource = make_resource(GetParam(), 0);
  const cuda_stream near(0, cuda_stream::kind::non_blocking);
  const cuda_stream far(1, cuda_stream::kind::non_blocking);
  const captured_stderr written;
  for (int round = 0; round < 20; ++round) {
    void* const block = resource->allocate(near, size);
    order_after(far, near, 0);
    copy_async(block, source_->data(), size, far, 1);
    resource->deallocate(far, block, size);
    void* const again = resource->allocate(near, size);
    fill_async(again, 'B', size, near, 0);
    synchronize(near, 0);
    cenote_sim_drain();
    EXPECT_TRUE(all_are(read(again, size, near), 'B')) << "round " << round;
    resource->deallocate(near, again, size);
  }
  finish_all_work();
  resource->trim();
  EXPECT_EQ(resource->state().in_use.value_or(0), 0u);
}

INSTANTIATE_TEST_SUITE_P(of, on_a_stream_of_another_device,
                         testing::Values("pool:initial=1MiB,max=1MiB | cuda", "pool:initial=8KiB,max=8KiB | cuda",
                                         "pool:max=2MiB | virtual", "virtual", "arena:size=1MiB",
                                         "binning:min=10,max=13 | pool", "fixed_size:preallocate=1", "cuda", "managed",
                                         "pinned", "system", "async", "statistics | pool", "pool:initial=1MiB | async",
                                         "guard | pool"));

TEST_F(kept_streams, capture_of_another_devices_stream_that_frees_goes_on) {
  const cuda_stream far(1, cuda_stream::kind::non_blocking);
  void* const block = pool_->allocate({}, size);
  ASSERT_EQ(cuStreamBeginCapture(far.value(), CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_SUCCESS);
  pool_->deallocate(far, block, size);
  CUgraph graph = nullptr;
  EXPECT_EQ(cuStreamEndCapture(far.value(), &graph), CUDA_SUCCESS) << "the capture was invalidated";
  cuGraphDestroy(graph);
}

}  // namespace
}  // namespace cenote::test
