// The adaptors that say no, ask for help, or change a request: limiting, failure callback, aligned, prefetch,
// thread-safe.
#include <atomic>
#include <barrier>
#include <thread>
#include <utility>

#include "cenote/adaptors/aligned_resource_adaptor.hpp"
#include "cenote/adaptors/failure_callback_resource_adaptor.hpp"
#include "cenote/adaptors/limiting_resource_adaptor.hpp"
#include "cenote/adaptors/prefetch_resource_adaptor.hpp"
#include "cenote/adaptors/statistics_resource_adaptor.hpp"
#include "cenote/adaptors/thread_safe_resource_adaptor.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/managed_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "support/program_resource.hpp"
#include "support/simulated.hpp"
#include "support/upstream.hpp"

namespace cenote::test {
namespace {

std::shared_ptr<memory_resource> pool() { return std::make_shared<pool_memory_resource>(cuda(), 0, std::nullopt); }
std::shared_ptr<program_resource> program() { return std::make_shared<program_resource>(cuda()); }

class limiting : public simulated_device, public testing::WithParamInterface<bool> {
 protected:
  static std::shared_ptr<memory_resource> source() { return GetParam() ? pool() : cuda(); }
};

INSTANTIATE_TEST_SUITE_P(over, limiting, testing::Bool(),
                         [](const auto& tested) { return tested.param ? "pool" : "cuda"; });

TEST_P(limiting, counts_each_allocation_rounded_up) {
  limiting_resource_adaptor adaptor(source(), 1024);
  void* const one = adaptor.allocate({}, 1);
  EXPECT_EQ(adaptor.allocated_bytes(), 256u);
  void* const two = adaptor.allocate({}, 257);
  EXPECT_EQ(adaptor.allocated_bytes(), 768u);
  adaptor.deallocate({}, one, 1);
  EXPECT_EQ(adaptor.allocated_bytes(), 512u);
  adaptor.deallocate({}, two, 257);
  EXPECT_EQ(adaptor.allocated_bytes(), 0u);
}

TEST_P(limiting, hands_out_up_to_the_limit_and_says_what_it_is) {
  limiting_resource_adaptor adaptor(source(), 1 * MiB);
  void* const all = adaptor.allocate({}, 1 * MiB);
  EXPECT_EQ(adaptor.try_allocate({}, 1), nullptr);
  try {
    adaptor.allocate({}, 1);
    FAIL() << "the limit was passed";
  } catch (const out_of_memory& error) {
    EXPECT_EQ(error.state().limit, 1 * MiB);
    EXPECT_EQ(error.state().in_use, 1 * MiB);
  }
  adaptor.deallocate({}, all, 1 * MiB);
  adaptor.deallocate({}, adaptor.allocate({}, 1), 1);
}

TEST_P(limiting, shows_its_figures_through_other_adaptors) {
  statistics_resource_adaptor adaptor(std::make_shared<limiting_resource_adaptor>(source(), 1000));
  void* const block = adaptor.allocate({}, 300);
  EXPECT_EQ(adaptor.state().limit, 1000u);
  EXPECT_EQ(adaptor.state().in_use, 512u);
  adaptor.deallocate({}, block, 300);
}

TEST_P(limiting, never_wraps) {
  for (const std::size_t alignment : {std::size_t{1}, std::size_t{256}, std::size_t{1} << 63}) {
    limiting_resource_adaptor adaptor(source(), max_allocation, alignment);
    EXPECT_EQ(adaptor.try_allocate({}, ~std::size_t{0}), nullptr);
    EXPECT_EQ(adaptor.try_allocate({}, max_allocation), nullptr);
    EXPECT_EQ(adaptor.try_allocate({}, 1024 * GiB), nullptr);
    EXPECT_EQ(adaptor.allocated_bytes(), 0u);
  }
  limiting_resource_adaptor without_limit(source(), ~std::size_t{0});
  void* const block = without_limit.allocate({}, 100);
  without_limit.deallocate({}, block, 2000);  // a wrong size, larger than all that is counted
  EXPECT_EQ(without_limit.allocated_bytes(), 0u);
}

TEST_P(limiting, counts_nothing_that_failed) {
  limiting_resource_adaptor adaptor(source(), 1024 * GiB);
  EXPECT_EQ(adaptor.try_allocate({}, 512 * GiB), nullptr);
  cenote_sim_fail("cuMemAlloc", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(adaptor.allocate({}, 100), cuda_error);
  cenote_sim_fail("cuMemAlloc", 0, 0);
  EXPECT_EQ(adaptor.allocated_bytes(), 0u);
}

TEST(limits, are_held_while_another_thread_is_inside_the_upstream) {
  const auto upstream = program();
  limiting_resource_adaptor adaptor(upstream, 1000);
  void* other = &adaptor;
  upstream->has_memory = [&] {
    if (upstream->allocations == 1) std::thread([&] { other = adaptor.try_allocate({}, 512); }).join();
    return true;
  };
  void* const block = adaptor.allocate({}, 512);
  EXPECT_EQ(other, nullptr) << "both threads passed the limit";
  EXPECT_EQ(adaptor.allocated_bytes(), 512u);
  adaptor.deallocate({}, block, 512);
}

TEST(limits, are_never_passed_by_many_threads) {
  const auto counted = std::make_shared<statistics_resource_adaptor>(cuda());
  limiting_resource_adaptor adaptor(counted, 8 * 256);
  std::barrier all_want_more_than_there_is(4);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&] {
      std::vector<void*> held;
      const auto take = [&] {
        if (void* const block = adaptor.try_allocate({}, 256)) held.push_back(block);
      };
      const auto give = [&] {
        adaptor.deallocate({}, held.back(), 256);
        held.pop_back();
      };
      for (int i = 0; i < 4; ++i) take();
      all_want_more_than_there_is.arrive_and_wait();
      for (int i = 0; i < 500; ++i) {
        take();
        if (held.size() > 3 || (i % 3 == 0 && !held.empty())) give();
      }
      while (!held.empty()) give();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(adaptor.allocated_bytes(), 0u);
  EXPECT_EQ(counted->counters().bytes.peak, 8 * 256);
}

TEST(limits, refuse_nothing_that_fits_whatever_other_threads_have_used) {
  limiting_resource_adaptor adaptor(cuda(), 16 * 256);
  std::barrier step(2);
  std::jthread other([&] {
    for (int i = 0; i < 8; ++i) adaptor.deallocate({}, adaptor.allocate({}, 2 * 256), 2 * 256);
    step.arrive_and_wait();  // alive, and with a part of the limit in its hand
    step.arrive_and_wait();
    EXPECT_EQ(adaptor.try_allocate({}, 1), nullptr);
    EXPECT_EQ(adaptor.state().in_use, 16u * 256);
    step.arrive_and_wait();
    step.arrive_and_wait();
    adaptor.deallocate({}, adaptor.allocate({}, 16 * 256), 16 * 256);
  });
  step.arrive_and_wait();
  void* const all = adaptor.allocate({}, 16 * 256);
  step.arrive_and_wait();
  step.arrive_and_wait();
  adaptor.deallocate({}, all, 16 * 256);
  step.arrive_and_wait();
  other.join();
  EXPECT_EQ(adaptor.allocated_bytes(), 0u);
}

TEST(limits, refuse_an_alignment_that_is_no_power_of_two) {
  EXPECT_THROW(limiting_resource_adaptor(cuda(), 1000, 100), std::invalid_argument);
  EXPECT_THROW(limiting_resource_adaptor(cuda(), 1000, 0), std::invalid_argument);
  EXPECT_THROW(aligned_resource_adaptor(cuda(), 100), std::invalid_argument);
  EXPECT_THROW(aligned_resource_adaptor(cuda(), 0), std::invalid_argument);
}

class failure_callback : public simulated_device {
 protected:
  struct asked {
    std::size_t bytes;
    stream_ref stream;
    std::size_t tries;
    friend bool operator==(const asked&, const asked&) = default;
  };

  const std::shared_ptr<program_resource> upstream_ = program();
  std::vector<asked> asked_;
};

TEST_F(failure_callback, is_told_bytes_stream_and_try_until_it_gives_up) {
  upstream_->has_memory = [] { return false; };
  failure_callback_resource_adaptor adaptor(upstream_, [&](std::size_t bytes, stream_ref stream, std::size_t tries) {
    asked_.push_back({bytes, stream, tries});
    return tries < 3;
  });
  const cuda_stream stream(0);
  EXPECT_THROW(adaptor.allocate(stream.view(), 100), out_of_memory);
  const std::vector<asked> expected = {{100, stream.view(), 1}, {100, stream.view(), 2}, {100, stream.view(), 3}};
  EXPECT_EQ(asked_, expected);
  EXPECT_EQ(upstream_->allocations, 3);
}

TEST_F(failure_callback, may_free_memory_through_the_adaptor_itself) {
  std::shared_ptr<memory_resource> adaptor;
  void* held = nullptr;
  adaptor = std::make_shared<failure_callback_resource_adaptor>(
      std::make_shared<limiting_resource_adaptor>(pool(), 1000), [&](std::size_t, stream_ref, std::size_t) {
        adaptor->deallocate({}, std::exchange(held, nullptr), 700);
        return true;
      });
  held = adaptor->allocate({}, 700);
  void* const block = adaptor->allocate({}, 500);
  EXPECT_NE(block, nullptr);
  EXPECT_EQ(held, nullptr);
  adaptor->deallocate({}, block, 500);
}

TEST_F(failure_callback, is_not_called_where_a_trim_helps) {
  bool trimmed = false;
  upstream_->has_memory = [&] { return trimmed; };
  upstream_->give_back = [&] {
    trimmed = true;
    return 1;
  };
  failure_callback_resource_adaptor adaptor(upstream_, [&](std::size_t, stream_ref, std::size_t) {
    ADD_FAILURE() << "the callback was called";
    return false;
  });
  adaptor.deallocate({}, adaptor.allocate({}, 100), 100);
  EXPECT_EQ(upstream_->allocations, 2);
}

TEST_F(failure_callback, is_called_a_bounded_number_of_times) {
  upstream_->has_memory = [] { return false; };
  std::size_t calls = 0;
  const auto always = [&](std::size_t, stream_ref, std::size_t) { return ++calls, true; };
  EXPECT_EQ(failure_callback_resource_adaptor(upstream_, always).try_allocate({}, 100), nullptr);
  EXPECT_EQ(calls, failure_callback_resource_adaptor::default_max_tries);
  calls = 0;
  EXPECT_EQ(failure_callback_resource_adaptor(upstream_, always, 3).try_allocate({}, 100), nullptr);
  EXPECT_EQ(calls, 3u);
  calls = 0;
  EXPECT_EQ(failure_callback_resource_adaptor(upstream_, always, 0).try_allocate({}, 100), nullptr);
  EXPECT_EQ(calls, 0u);
}

TEST_F(failure_callback, is_not_called_for_a_failure_of_another_kind) {
  failure_callback_resource_adaptor adaptor(cuda(), [&](std::size_t, stream_ref, std::size_t) {
    ADD_FAILURE() << "the callback was called";
    return false;
  });
  cenote_sim_fail("cuMemAlloc", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(adaptor.allocate({}, 100), cuda_error);
  cenote_sim_fail("cuMemAlloc", 0, 0);
}

TEST_F(failure_callback, is_called_for_an_upstream_that_throws_out_of_memory_whose_text_is_kept) {
  upstream_->has_memory = []() -> bool { throw out_of_memory("the program's own", 100, {}); };
  int calls = 0;
  failure_callback_resource_adaptor adaptor(upstream_,
                                            [&](std::size_t, stream_ref, std::size_t) { return ++calls < 2; });
  try {
    adaptor.allocate({}, 100);
    FAIL() << "memory was there";
  } catch (const out_of_memory& error) {
    EXPECT_NE(std::string(error.what()).find("the program's own"), std::string::npos) << error.what();
  }
  EXPECT_EQ(calls, 2);
}

TEST_F(failure_callback, lets_what_it_throws_reach_the_caller) {
  upstream_->has_memory = [] { return false; };
  failure_callback_resource_adaptor adaptor(
      upstream_, [](std::size_t, stream_ref, std::size_t) -> bool { throw std::domain_error("my error"); });
  EXPECT_THROW(adaptor.allocate({}, 100), std::domain_error);
}

TEST_F(failure_callback, must_be_there) {
  EXPECT_THROW(failure_callback_resource_adaptor(cuda(), nullptr), std::invalid_argument);
}

class aligned : public simulated_device {
 protected:
  const std::shared_ptr<program_resource> upstream_ = program();
};

TEST_F(aligned, raises_the_alignment_at_the_threshold_for_the_allocation_and_its_free) {
  aligned_resource_adaptor adaptor(upstream_, 4096, 1000);
  struct request {
    std::size_t bytes, alignment, expected;
  };
  for (const request& r : {request{999, 256, 256}, {1000, 256, 4096}, {1000, 8192, 8192}, {999, 512, 512}}) {
    SCOPED_TRACE(testing::Message() << r.bytes << " bytes at " << r.alignment);
    void* const block = adaptor.allocate({}, r.bytes, r.alignment);
    EXPECT_EQ(upstream_->last_alignment, r.expected);
    upstream_->last_alignment = 0;
    adaptor.deallocate({}, block, r.bytes, r.alignment);
    EXPECT_EQ(upstream_->last_alignment, r.expected);
    EXPECT_EQ(upstream_->last_bytes, r.bytes);
  }
}

TEST_F(aligned, has_no_memory_at_an_alignment_beyond_all_memory) {
  aligned_resource_adaptor adaptor(upstream_, std::size_t{1} << 63);
  EXPECT_EQ(adaptor.try_allocate({}, 1), nullptr);
  EXPECT_EQ(upstream_->allocations, 0);
}

class prefetch : public simulated_device {};

TEST_F(prefetch, moves_managed_memory_to_its_device_by_one_call) {
  prefetch_resource_adaptor adaptor(std::make_shared<managed_memory_resource>(1));
  const cuda_stream stream(1, cuda_stream::kind::non_blocking);
  const call_count prefetches("cuMemPrefetchAsync");
  void* const block = adaptor.allocate(stream.view(), 1 * MiB);
  EXPECT_EQ(prefetches.value(), 1);
  adaptor.deallocate(stream.view(), block, 1 * MiB);
  EXPECT_EQ(prefetches.value(), 1);
}

TEST_F(prefetch, leaves_memory_alone_that_does_not_move) {
  prefetch_resource_adaptor adaptor(cuda());
  adaptor.deallocate({}, adaptor.allocate({}, 1 * MiB), 1 * MiB);
}

TEST_F(prefetch, gives_the_block_back_when_the_prefetch_fails) {
  prefetch_resource_adaptor adaptor(std::make_shared<managed_memory_resource>(0));
  cenote_sim_fail("cuMemPrefetchAsync", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(adaptor.allocate({}, 1 * MiB), cuda_error);  // TearDown finds a leak
  cenote_sim_fail("cuMemPrefetchAsync", 0, 0);
}

TEST(thread_safe, lets_one_thread_at_a_time_into_its_upstream) {
  const auto upstream = program();
  std::atomic<int> inside{0};
  std::atomic<bool> overlapped{false};
  const auto pass = [&] {
    if (inside.fetch_add(1) != 0) overlapped = true;
    std::this_thread::yield();
    inside.fetch_sub(1);
    return true;
  };
  upstream->has_memory = pass;
  upstream->before_free = [&] { pass(); };
  upstream->give_back = [&] { return pass() ? 1 : 0; };
  thread_safe_resource_adaptor adaptor(upstream);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&] {
      for (int i = 0; i < 300; ++i) {
        adaptor.deallocate({}, adaptor.allocate({}, 256), 256);
        adaptor.trim();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(overlapped);
  EXPECT_EQ(upstream->allocations, 4 * 300);
}

TEST(thread_safe, lets_the_thread_that_is_inside_come_in_again) {
  const auto upstream = program();
  thread_safe_resource_adaptor adaptor(upstream);
  void* kept = adaptor.allocate({}, 256);
  const auto come_again = [&] {
    if (void* const block = std::exchange(kept, nullptr)) {
      adaptor.deallocate({}, block, 256);
      adaptor.state();
      adaptor.check();
    }
    return true;
  };
  upstream->has_memory = come_again;
  void* const second = adaptor.allocate({}, 256);
  EXPECT_EQ(kept, nullptr);

  kept = adaptor.allocate({}, 256);
  upstream->before_free = [&] { come_again(); };
  adaptor.deallocate({}, second, 256);
  EXPECT_EQ(kept, nullptr);
}

}  // namespace
}  // namespace cenote::test
