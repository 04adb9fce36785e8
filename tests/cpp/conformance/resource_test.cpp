// What every resource and every adaptor promises to one thread, over the table of all of them (stacks.hpp), on the
// simulated device and on a real one.
#include <cuda.h>

#include <array>
#include <map>

#include "cenote/adaptors/limiting_resource_adaptor.hpp"
#include "cenote/containers/device_buffer.hpp"
#include "cenote/surface/registry.hpp"
#include "cenote/surface/specification.hpp"
#include "support/stacks.hpp"

namespace cenote::test {
namespace {

/// The streams that there are of one device: its default streams by each of their names, and `own`.
std::array<stream_ref, 5> streams_beside(stream_ref own) {
  return {stream_ref{}, legacy_default_stream(), per_thread_default_stream(), default_stream(), own};
}

using resource = conformance;

TEST_P(resource, says_what_its_memory_is) {
  EXPECT_EQ(resource_->is_host_accessible(), GetParam().is_host_accessible());
  EXPECT_EQ(resource_->is_stream_ordered(), GetParam().is_stream_ordered());
  EXPECT_EQ(resource_->device(), 0);
  EXPECT_EQ(resource_->kind(), GetParam().parts.front()->kind);
  EXPECT_EQ(resource_->specification().find(resource_->kind()), 0u);
}

TEST_P(resource, stands_on_what_it_was_given) {
  std::shared_ptr<memory_resource> under = resource_;
  for (const part* p : GetParam().parts) {
    ASSERT_NE(under, nullptr);
    EXPECT_EQ(under->kind(), p->kind);
    under = under->upstream();
  }
  EXPECT_EQ(under, nullptr);
}

TEST_P(resource, says_itself_in_text_that_makes_it_again) {
  const std::string text = describe(*resource_);
  if (GetParam().has_specification()) {
    const auto again = make_resource(text, 0);
    EXPECT_EQ(describe(*again), text);
    void* const block = again->allocate(stream(), 1000);
    again->deallocate(stream(), block, 1000);
  } else {
    EXPECT_THROW(make_resource(text, 0), std::invalid_argument)
        << "functions, handles and bins that were added are no text";
  }
}

TEST_P(resource, gives_null_for_zero_bytes_and_takes_null_back) {
  if (simulator() != nullptr) simulator()->reset_calls();
  EXPECT_EQ(resource_->allocate(stream(), 0), nullptr);
  EXPECT_EQ(resource_->try_allocate(stream(), 0, 4096), nullptr);
  EXPECT_EQ(resource_->allocate_sync(0), nullptr);
  resource_->deallocate(stream(), nullptr, 0);
  resource_->deallocate(stream(), nullptr, 100);
  resource_->deallocate_sync(nullptr, 0);
  if (simulator() != nullptr) {
    EXPECT_EQ(simulator()->calls(nullptr), 0) << "nothing costs nothing";
  }
}

TEST_P(resource, gives_every_size_and_aligns_it_to_256_bytes_whatever_less_is_asked_for) {
  for (const stream_ref on : streams_beside(stream())) {
    std::vector<std::pair<void*, std::size_t>> blocks;
    for (const std::size_t bytes : {std::size_t{1}, std::size_t{4}, std::size_t{255}, std::size_t{256},
                                    std::size_t{257}, 1 * KiB, std::size_t{100'000}, 1 * MiB}) {
      for (const std::size_t alignment : {1u, 8u, 256u}) {
        void* const block = resource_->allocate(on, bytes, alignment);
        ASSERT_NE(block, nullptr);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % 256, 0u);
        blocks.emplace_back(block, bytes);
        if (bytes == 1 * MiB) break;
      }
    }
    for (const auto& [block, bytes] : blocks) resource_->deallocate(on, block, bytes);
  }
  void* const block = resource_->allocate(stream(), largest);
  fill_async(block, 1, largest, stream(), 0);
  EXPECT_TRUE(all_are(read(block, largest, stream()), 1));
  resource_->deallocate(stream(), block, largest);
}

TEST_P(resource, gives_any_larger_alignment) {
  std::vector<std::pair<void*, std::size_t>> blocks;
  for (int round = 0; round < 3; ++round) {
    for (std::size_t alignment = 512; alignment <= 64 * KiB; alignment *= 2) {
      void* const block = resource_->allocate(stream(), 1000, alignment);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % alignment, 0u);
      fill_async(block, 1, 1000, stream(), 0);
      blocks.emplace_back(block, alignment);
    }
  }
  for (const auto& [block, alignment] : blocks) resource_->deallocate(stream(), block, 1000, alignment);
  EXPECT_EQ(resource_->try_allocate(stream(), 1000, std::size_t{1} << 62), nullptr) << "more than there are addresses";
}

TEST_P(resource, refuses_an_alignment_that_is_no_power_of_two) {
  for (const std::size_t alignment : {0u, 3u, 257u, 768u}) {
    EXPECT_THROW(resource_->allocate(stream(), 1024, alignment), std::invalid_argument) << alignment;
    EXPECT_THROW(resource_->try_allocate(stream(), 1024, alignment), std::invalid_argument) << alignment;
    EXPECT_THROW(resource_->allocate_sync(1024, alignment), std::invalid_argument) << alignment;
  }
}

TEST_P(resource, live_allocations_are_disjoint_and_keep_their_bytes) {
  std::mt19937_64 random(7);
  std::map<std::uintptr_t, std::size_t> live;
  std::map<std::uintptr_t, unsigned char> tokens;
  const auto check_and_free = [&](std::uintptr_t base) {
    auto* const block = reinterpret_cast<void*>(base);
    ASSERT_TRUE(all_are(read(block, live[base], stream()), tokens[base]));
    resource_->deallocate(stream(), block, live[base]);
    live.erase(base);
  };
  for (int step = 0; step < 300; ++step) {
    if (live.size() < 40 && random() % 3 != 0) {
      const std::size_t bytes = 1 + random() % (std::size_t{1} << (random() % 17));
      void* const block = resource_->allocate(stream(), bytes);
      const auto base = reinterpret_cast<std::uintptr_t>(block);
      const auto above = live.lower_bound(base);
      ASSERT_TRUE(above == live.end() || base + bytes <= above->first);
      ASSERT_TRUE(above == live.begin() || std::prev(above)->first + std::prev(above)->second <= base);
      live[base] = bytes;
      tokens[base] = static_cast<unsigned char>(random());
      fill_async(block, tokens[base], bytes, stream(), 0);
    } else if (!live.empty()) {
      ASSERT_NO_FATAL_FAILURE(
          check_and_free(std::next(live.begin(), static_cast<long>(random() % live.size()))->first));
    }
  }
  while (!live.empty()) ASSERT_NO_FATAL_FAILURE(check_and_free(live.begin()->first));
}

TEST_P(resource, throws_out_of_memory_with_numbers_for_a_pebibyte) {
  constexpr std::size_t pebibyte = std::size_t{1} << 50;
  EXPECT_EQ(resource_->try_allocate(stream(), pebibyte), nullptr);
  try {
    resource_->allocate(stream(), pebibyte);
    FAIL() << "a pebibyte was allocated";
  } catch (const out_of_memory& error) {
    EXPECT_EQ(error.requested(), pebibyte);
    EXPECT_EQ(error.state().device_total, device_memory_info(0).total_bytes);
    const std::string text = error.what();
    EXPECT_NE(text.find("1.00 PiB (1125899906842624 bytes)"), std::string::npos) << text;
    EXPECT_NE(text.find(describe(*resource_)), std::string::npos) << text;
    EXPECT_NE(text.find("device total"), std::string::npos) << text;
  }
  EXPECT_THROW(resource_->allocate_sync(pebibyte), out_of_memory);
  void* const block = resource_->allocate(stream(), 256);  // still of use
  resource_->deallocate(stream(), block, 256);
}

TEST_P(resource, sizes_near_the_end_of_the_address_space_are_out_of_memory) {
  void* const held = resource_->allocate(stream(), 1000);
  for (const std::size_t bytes : {std::size_t{1} << 63, ~std::size_t{0} - 255, ~std::size_t{0} - 1, ~std::size_t{0}}) {
    for (const std::size_t alignment : {1u, 256u, 4096u}) {
      EXPECT_EQ(resource_->try_allocate(stream(), bytes, alignment), nullptr);
      EXPECT_THROW(resource_->allocate(stream(), bytes, alignment), out_of_memory) << bytes;
    }
    EXPECT_THROW(resource_->allocate_sync(bytes), std::bad_alloc);
  }
  void* const block = resource_->allocate(stream(), 1000);
  EXPECT_NE(block, held);
  resource_->deallocate(stream(), block, 1000);
  resource_->deallocate(stream(), held, 1000);
}

TEST_P(resource, runs_out_of_memory_and_serves_again_what_was_freed) {
  auto limited = GetParam().make(0, [](std::shared_ptr<memory_resource> base) {
    return std::make_shared<limiting_resource_adaptor>(std::move(base), exhaustible);
  });
  const auto exhaust = [&] {
    std::vector<void*> blocks;
    for (void* block = limited->try_allocate(stream(), largest); block != nullptr;
         block = limited->try_allocate(stream(), largest)) {
      blocks.push_back(block);
    }
    EXPECT_THROW(limited->allocate(stream(), largest), out_of_memory);
    for (void* const block : blocks) limited->deallocate(stream(), block, largest);
    return blocks.size();
  };
  const std::size_t count = exhaust();
  EXPECT_GE(count, 1u);
  EXPECT_LE(count, exhaustible / largest);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(exhaust(), count) << "nothing is lost";
  limited->check();
}

TEST_P(resource, uses_each_of_its_devices_streams) {
  for (const stream_ref on : streams_beside(stream())) {
    void* const block = resource_->allocate(on, 256 * KiB);
    fill_async(block, 3, 256 * KiB, on, 0);
    EXPECT_TRUE(all_are(read(block, 256 * KiB, on), 3));
    resource_->deallocate(on, block, 256 * KiB);
  }
}

TEST_P(resource, takes_back_on_one_stream_what_another_allocated_and_is_done_with) {
  const cuda_stream other(0, cuda_stream::kind::non_blocking);
  stream_ref one = stream();
  stream_ref two = other.view();
  for (unsigned char token = 1; token <= 8; ++token) {
    void* const block = resource_->allocate(one, 256 * KiB);
    fill_async(block, token, 256 * KiB, one, 0);
    order_after(two, one, 0);
    EXPECT_TRUE(all_are(read(block, 256 * KiB, two), token));
    resource_->deallocate(two, block, 256 * KiB);
    std::swap(one, two);
  }
}

TEST_P(resource, outlives_the_streams_that_its_memory_was_freed_on) {
  for (unsigned char token = 1; token <= 5; ++token) {
    const cuda_stream passing(0, cuda_stream::kind::non_blocking);
    void* const block = resource_->allocate(passing, 100'000);
    fill_async(block, token, 100'000, passing, 0);
    resource_->deallocate(passing, block, 100'000);
  }
  resource_->trim();
  resource_->check();
}

TEST_P(resource, memory_is_the_hosts_too_where_it_says_so) {
  if (!resource_->is_host_accessible()) {
    EXPECT_FALSE(GetParam().is_host_accessible());
    return;
  }
  auto* const block = static_cast<unsigned char*>(resource_->allocate_sync(4096));
  std::fill_n(block, 4096, static_cast<unsigned char>(5));
  EXPECT_TRUE(all_are(read(block, 4096, stream()), 5));
  fill_async(block, 6, 4096, stream(), 0);
  synchronize(stream(), 0);
  EXPECT_EQ(std::count(block, block + 4096, 6), 4096);
  resource_->deallocate_sync(block, 4096);
}

TEST_P(resource, memory_stays_whole_for_work_that_was_queued_before_it_was_freed) {
  void* const witness = device_allocate(0, 256 * KiB);
  for (int i = 0; i < 4; ++i) {
    void* const block = resource_->allocate(stream(), 256 * KiB);
    fill_async(block, 0xAA, 256 * KiB, stream(), 0);
    copy_async(witness, block, 256 * KiB, stream(), 0);
    resource_->deallocate(stream(), block, 256 * KiB);
  }
  EXPECT_TRUE(all_are(read(witness, 256 * KiB, stream()), 0xAA));
  device_free(0, witness);
}

TEST_P(resource, allocating_and_freeing_beside_the_capture_of_another_stream_leave_it_valid) {
  const auto begin = driver_function<CUresult(CUstream, CUstreamCaptureMode)>("cuStreamBeginCapture_v2");
  const auto end = driver_function<CUresult(CUstream, CUgraph*)>("cuStreamEndCapture");
  const auto destroy = driver_function<CUresult(CUgraph)>("cuGraphDestroy");
  void* const before = resource_->allocate(stream(), 64 * KiB);
  const cuda_stream captured(0, cuda_stream::kind::non_blocking);
  ASSERT_EQ(begin(captured.value(), CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  resource_->deallocate(stream(), before, 64 * KiB);
  void* const beside = resource_->allocate(stream(), largest);
  resource_->deallocate(stream(), beside, largest);
  CUgraph graph = nullptr;
  EXPECT_EQ(end(captured.value(), &graph), CUDA_SUCCESS) << "the capture was invalidated";
  if (graph != nullptr) destroy(graph);
}

TEST_P(resource, what_is_current_serves_whoever_names_no_resource) {
  set_per_device_resource(0, resource_);
  EXPECT_EQ(get_current_device_resource(), resource_);
  {
    std::optional<device_buffer> buffer(std::in_place, 1000, stream());
    EXPECT_EQ(buffer->resource(), resource_);
    EXPECT_EQ(reset_per_device_resource(0), resource_);
    EXPECT_NE(get_current_device_resource(), resource_) << "made anew";
    EXPECT_EQ(buffer->resource(), resource_) << "what was allocated goes back where it came from";
  }
  reset_per_device_resource(0);
}

TEST_P(resource, remembers_its_device_while_another_is_current) {
  if (device_count() < 2) GTEST_SKIP() << "there is one device";
  const device_scope elsewhere(1);
  // A real driver says of managed memory where it prefers to be, and on some machines knows the heap.
  const bool is_known = simulator() != nullptr || !GetParam().is_host_accessible();
  const auto expect_owner = [&](const void* block) {
    const auto owner = GetParam().is_heap() ? std::nullopt : std::optional(0);
    if (is_known) {
      EXPECT_EQ(device_of(block, 0), owner);
    }
  };
  void* const block = resource_->allocate(stream(), 1 * MiB);
  expect_owner(block);
  fill_async(block, 9, 1 * MiB, stream(), 0);
  EXPECT_TRUE(all_are(read(block, 1 * MiB, stream()), 9));
  resource_->deallocate(stream(), block, 1 * MiB);
  void* const synchronous = resource_->allocate_sync(1 * MiB);
  expect_owner(synchronous);
  resource_->deallocate_sync(synchronous, 1 * MiB);
  for (const stream_ref on : streams_beside(stream())) resource_->deallocate(on, resource_->allocate(on, 1000), 1000);
  resource_->state();
  resource_->trim();
  resource_->check();
  EXPECT_EQ(current_device(), 1) << "the caller's device is current again";
}

INSTANTIATE_TEST_SUITE_P(of, resource, testing::ValuesIn(every_stack()), stack_name);

}  // namespace
}  // namespace cenote::test
