// What every resource and every adaptor promises to many threads at once, over the table of all of them (stacks.hpp),
// on the simulated device and on a real one. For the thread sanitizer above all.
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "cenote/adaptors/limiting_resource_adaptor.hpp"
#include "cenote/containers/device_scalar.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/surface/registry.hpp"
#include "support/stacks.hpp"

namespace cenote::test {
namespace {

/// Runs `work(0)`, `work(1)` … on a thread each. What one throws is a failure of the test.
template <class Work>
void on_threads(unsigned count, const Work& work) {
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < count; ++t) threads.emplace_back([&work, t] { EXPECT_NO_THROW(work(t)); });
  for (std::thread& t : threads) t.join();
}

class threads : public conformance {
 protected:
  static constexpr unsigned thread_count = 4;

  /// A block with the bytes that are to be in it.
  struct parcel {
    void* block;
    std::size_t bytes;
    unsigned char token;
    std::shared_ptr<event> written;
  };

  parcel make(stream_ref on, std::size_t bytes, unsigned char token) {
    void* const block = resource_->allocate(on, bytes);
    fill_async(block, token, bytes, on, 0);
    return {block, bytes, token, event::record(on, 0)};
  }

  void check_and_free(const parcel& p, stream_ref on) {
    wait(on, *p.written, 0);
    if (!all_are(read(p.block, p.bytes, on), p.token)) ++wrong_;
    resource_->deallocate(on, p.block, p.bytes);
  }

  std::atomic<int> wrong_{0};
};

TEST_P(threads, allocate_write_pass_on_and_free_each_on_streams_of_its_own_and_shared_ones) {
  constexpr int steps = 50;
  std::mutex mutex;  // guards `parcels`
  std::vector<parcel> parcels;
  const cuda_stream shared(0, cuda_stream::kind::non_blocking);
  on_threads(thread_count, [&](unsigned thread) {
    std::mt19937_64 random(100 + thread);
    const cuda_stream own(0, cuda_stream::kind::non_blocking);
    const auto some_stream = [&]() -> stream_ref {
      switch (random() % 8) {
        case 0:
          return default_stream();
        case 1:
        case 2:
          return shared;
        default:
          return own;
      }
    };
    for (int i = 0; i < steps; ++i) {
      const std::size_t bytes = 1 + random() % (std::size_t{1} << (random() % 15));
      parcel mine = make(some_stream(), bytes, static_cast<unsigned char>(random()));
      std::optional<parcel> theirs;
      {
        const std::lock_guard lock(mutex);
        parcels.push_back(std::move(mine));
        if (parcels.size() > 16 || random() % 2 == 0) {
          std::swap(parcels[random() % parcels.size()], parcels.back());
          theirs = std::move(parcels.back());
          parcels.pop_back();
        }
      }
      if (theirs) check_and_free(*theirs, some_stream());
    }
  });
  for (const parcel& p : parcels) check_and_free(p, stream());
  EXPECT_EQ(wrong_, 0) << "blocks with another's bytes";
}

TEST_P(threads, free_what_others_allocated_in_the_order_of_an_event) {
  constexpr int count = 40;
  std::mutex mutex;  // guards `queue`
  std::condition_variable is_filled;
  std::deque<parcel> queue;
  on_threads(2, [&](unsigned thread) {
    const cuda_stream own(0, cuda_stream::kind::non_blocking);
    for (int i = 0; i < count; ++i) {
      if (thread == 0) {
        parcel made = make(own, 50'000 + static_cast<std::size_t>(i), static_cast<unsigned char>(i));
        const std::lock_guard lock(mutex);
        queue.push_back(std::move(made));
        is_filled.notify_one();
      } else {
        std::unique_lock lock(mutex);
        is_filled.wait(lock, [&] { return !queue.empty(); });
        const parcel taken = std::move(queue.front());
        queue.pop_front();
        lock.unlock();
        check_and_free(taken, own);
      }
    }
  });
  EXPECT_EQ(wrong_, 0) << "blocks with another's bytes";
}

TEST_P(threads, may_all_use_the_default_stream) {
  on_threads(thread_count, [&](unsigned thread) {
    for (std::size_t i = 1; i <= 20; ++i) {
      const auto token = static_cast<unsigned char>(16 * thread + i);
      check_and_free(make(default_stream(), i * 1000, token), default_stream());
    }
  });
  EXPECT_EQ(wrong_, 0) << "blocks with another's bytes";
}

TEST_P(threads, run_out_of_memory_together_and_lose_nothing) {
  const auto limited = GetParam().make(0, [](std::shared_ptr<memory_resource> base) {
    return std::make_shared<limiting_resource_adaptor>(std::move(base), exhaustible);
  });
  std::atomic<int> served{0};
  on_threads(thread_count, [&](unsigned) {
    const cuda_stream own(0, cuda_stream::kind::non_blocking);
    for (int i = 0; i < 8; ++i) {
      std::vector<void*> blocks;
      for (int wanted = 0; wanted < 3; ++wanted) {
        void* const block = limited->try_allocate(own, largest);
        if (block != nullptr) blocks.push_back(block);
      }
      served += static_cast<int>(blocks.size());
      for (void* const block : blocks) limited->deallocate(own, block, largest);
    }
  });
  EXPECT_GT(served, 0);
  limited->check();
  EXPECT_EQ(in_use_when_trimmed(*limited), 0u);
}

TEST_P(threads, use_what_is_current_while_it_changes_and_give_back_to_where_it_came_from) {
  const auto plain = std::make_shared<cuda_memory_resource>(0);
  set_per_device_resource(0, plain);
  std::atomic<unsigned> running{thread_count};
  on_threads(thread_count + 1, [&](unsigned thread) {
    if (thread == thread_count) {
      for (int turn = 0; running != 0; ++turn) {
        set_per_device_resource(0, turn % 2 == 0 ? resource_ : plain);
        std::this_thread::yield();
      }
      return;
    }
    const cuda_stream own(0, cuda_stream::kind::non_blocking);
    for (int i = 0; i < 20; ++i) {
      const device_scalar<int> scalar(i, own);
      if (scalar.value(own) != i) ++wrong_;
    }
    --running;
  });
  EXPECT_EQ(wrong_, 0);
  reset_per_device_resource(0);
}

TEST_P(threads, may_ask_check_and_trim_beside_those_that_allocate) {
  std::atomic<unsigned> running{2};
  on_threads(3, [&](unsigned thread) {
    const cuda_stream own(0, cuda_stream::kind::non_blocking);
    if (thread == 2) {
      while (running != 0) {
        resource_->check();
        resource_->state();
        describe(*resource_);
        resource_->trim(1 * MiB);
      }
      return;
    }
    for (std::size_t i = 1; i <= 30; ++i) check_and_free(make(own, i * 10'000, static_cast<unsigned char>(i)), own);
    --running;
  });
  EXPECT_EQ(wrong_, 0) << "blocks with another's bytes";
}

INSTANTIATE_TEST_SUITE_P(of, threads, testing::ValuesIn(every_stack()), stack_name);

}  // namespace
}  // namespace cenote::test
