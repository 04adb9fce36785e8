// Many threads that come and go, streams too, on pools that are nearly full, with upkeep going on beside: the bytes of
// every block are known at every moment. For the thread sanitizer above all.
//
// After mimalloc's test-stress.c: half of the blocks pass through a buffer that all threads share, and outlive the
// thread and the stream that made them.
#include <array>
#include <atomic>
#include <functional>
#include <mutex>
#include <thread>

#include "cenote/ground/check.hpp"
#include "cenote/surface/specification.hpp"
#include "support/clients.hpp"

namespace cenote::test {
namespace {

// Where checks or a sanitizer make each operation dear, fewer threads take as long.
constexpr unsigned thread_count = check_level >= 1 ? 8 : 32;
constexpr int rounds = 3;
constexpr int steps = 80;

struct parcel {
  void* block = nullptr;
  std::size_t bytes = 0;
  unsigned char token = 0;
  std::shared_ptr<event> written;  // everything that its last owner did with it
};

/// The slots through which threads pass blocks on.
class exchange_buffer {
 public:
  parcel swap(std::size_t slot, parcel given) {
    const std::lock_guard lock(mutex_);
    std::swap(slots_[slot % slots_.size()], given);
    return given;
  }
  std::size_t size() const { return slots_.size(); }

 private:
  std::mutex mutex_;  // guards `slots_`
  std::array<parcel, 32> slots_;
};

/// How blocks come and go, apart from their bytes.
struct allocator {
  std::function<void*(stream_ref, std::size_t)> try_allocate;
  std::function<void(stream_ref, void*, std::size_t)> deallocate;
};

class worker {
 public:
  worker(const allocator& of, exchange_buffer& exchange, stream_ref shared, unsigned seed)
      : of_(of), exchange_(exchange), shared_(shared), random_(seed) {}

  /// One life: a stream of its own, some steps, and all that it did not pass on is freed.
  int live() {
    const cuda_stream own(0, cuda_stream::kind::non_blocking);
    std::vector<parcel> kept;
    for (int i = 0; i < steps; ++i) {
      const stream_ref stream = random_() % 4 == 0 ? shared_ : own.view();
      if (random_() % 3 != 0 || kept.empty()) {
        parcel fresh = make(stream);
        if (fresh.block != nullptr) kept.push_back(std::move(fresh));
      } else {
        std::swap(kept[random_() % kept.size()], kept.back());
        finish(kept.back(), stream);
        kept.pop_back();
      }
      if (random_() % 4 == 0 && !kept.empty()) {
        std::swap(kept.back(), kept[random_() % kept.size()]);
        kept.back() = exchange_.swap(random_(), std::move(kept.back()));
        if (kept.back().block == nullptr) kept.pop_back();
      }
    }
    for (const parcel& p : kept) finish(p, own.view());
    return wrong_;
  }

  void finish(const parcel& p, stream_ref stream) {
    wait(stream, *p.written, 0);
    if (random_() % 2 == 0 && !all_are(read(p.block, p.bytes, stream), p.token)) ++wrong_;
    of_.deallocate(stream, p.block, p.bytes);
  }

  int wrong() const { return wrong_; }

 private:
  parcel make(stream_ref stream) {
    parcel fresh;
    const unsigned bits = random_() % 50 == 0 ? 20 : 8 + static_cast<unsigned>(random_() % 7);
    fresh.bytes = 1 + random_() % (std::size_t{1} << bits);
    fresh.token = static_cast<unsigned char>(random_());
    fresh.block = of_.try_allocate(stream, fresh.bytes);
    if (fresh.block == nullptr) return {};
    fill_async(fresh.block, fresh.token, fresh.bytes, stream, 0);
    fresh.written = event::record(stream, 0);
    return fresh;
  }

  const allocator& of_;
  exchange_buffer& exchange_;
  stream_ref shared_;
  std::mt19937_64 random_;
  int wrong_ = 0;
};

/// Runs the workers of a few rounds; `upkeep` again and again beside them. The number of blocks with wrong bytes.
int stress(const allocator& of, const std::function<void()>& upkeep, unsigned seed) {
  exchange_buffer exchange;
  const cuda_stream shared(0, cuda_stream::kind::non_blocking);
  std::atomic<int> wrong{0};
  for (int round = 0; round < rounds; ++round) {
    std::atomic<unsigned> running{thread_count};
    std::vector<std::jthread> threads;  // joined also where the upkeep throws
    for (unsigned t = 0; t < thread_count; ++t) {
      threads.emplace_back([&, t] {
        wrong += worker(of, exchange, shared.view(), seed * 1000 + static_cast<unsigned>(round) * 100 + t).live();
        --running;
      });
    }
    while (running != 0) upkeep();
  }
  worker last(of, exchange, shared.view(), seed);
  for (std::size_t slot = 0; slot < exchange.size(); ++slot) {
    const parcel left = exchange.swap(slot, {});
    if (left.block != nullptr) last.finish(left, shared.view());
  }
  return wrong + last.wrong();
}

class stressed : public clients, public testing::WithParamInterface<const char*> {};

TEST_P(stressed, pools_keep_every_blocks_bytes) {
  const auto resource = make_resource(GetParam(), 0);
  const allocator direct{
      [&](stream_ref stream, std::size_t bytes) { return resource->try_allocate(stream, bytes); },
      [&](stream_ref stream, void* block, std::size_t bytes) { resource->deallocate(stream, block, bytes); }};
  const auto upkeep = [&] {
    resource->check();
    resource->state();
    resource->trim(2 * MiB);
  };
  for (unsigned seed = 1; seed <= 2; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    EXPECT_EQ(stress(direct, upkeep, seed), 0);
  }
  resource->check();
  if (resource->kind() == "pool") {
    EXPECT_EQ(resource->state().in_use, 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(all, stressed,
                         testing::Values("pool:initial=0,max=6MiB | cuda", "pool:initial=1MiB,max=6MiB | async",
                                         "pool:initial=0,max=4MiB | pool:initial=1MiB,max=8MiB | cuda",
                                         "statistics | pool:initial=16MiB | managed"),
                         [](const auto& tested) { return "number_" + std::to_string(tested.index); });

TEST_F(stressed, the_ledger_keeps_every_blocks_bytes_while_the_current_resource_changes) {
  const allocator through_the_ledger{
      [&](stream_ref stream, std::size_t bytes) -> void* {
        try {
          return client_allocate(client_, 0, bytes, stream);
        } catch (const out_of_memory&) {
          return nullptr;
        }
      },
      [&](stream_ref stream, void* block, std::size_t) { client_deallocate(block, stream); }};
  int turn = 0;
  const auto upkeep = [&] {
    constexpr std::array specifications = {"pool:initial=0,max=6MiB", "async",
                                           "statistics | pool:initial=4MiB | async"};
    try {
      const char* const next = specifications[static_cast<std::size_t>(turn++) % specifications.size()];
      set_per_device_resource(0, make_resource(next, 0));
    } catch (const out_of_memory&) {  // the blocks of many threads keep the resources of many turns
    }
    std::this_thread::yield();
  };
  EXPECT_EQ(stress(through_the_ledger, upkeep, 1), 0);
  EXPECT_EQ(usage_of("tests").allocations, 0u);
}

}  // namespace
}  // namespace cenote::test
