// A million random steps on pools, against the obvious model: no two blocks in use ever share a byte, nothing is
// lost, whatever streams come and go, whichever call of the driver fails, from one thread and from several.
#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <thread>

#include "cenote/ground/check.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/resources/virtual_memory_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

constexpr std::size_t large_pool_bytes = 16 * MiB;
// An eighth of the million, as there are eight tests; fewer where checks or a sanitizer make each of them dear.
constexpr int steps = check_level >= 2 ? 8'000 : check_level == 1 ? 40'000 : 125'000;

/// What is in use, by address.
class model {
 public:
  /// False if a byte of it is in use already.
  bool insert(void* block, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    auto* const begin = static_cast<std::byte*>(block);
    const auto above = in_use_.lower_bound(begin);
    if (above != in_use_.end() && begin + bytes > above->first) return false;
    if (above != in_use_.begin() && std::prev(above)->first + std::prev(above)->second > begin) return false;
    in_use_.emplace_hint(above, begin, bytes);
    return true;
  }

  void erase(void* block) {
    const std::lock_guard lock(mutex_);
    in_use_.erase(static_cast<std::byte*>(block));
  }

 private:
  std::mutex mutex_;  // guards `in_use_`
  std::map<std::byte*, std::size_t> in_use_;
};

constexpr std::array calls = {"cuMemAlloc",        "cuEventCreate",    "cuEventRecord",  "cuEventQuery",
                              "cuStreamWaitEvent", "cuCtxRecordEvent", "cuStreamGetId",  "cuStreamIsCapturing",
                              "cuMemCreate",       "cuMemMap",         "cuMemSetAccess", "cuMemUnmap"};

/// One thread's part of the history.
class walker {
 public:
  walker(pool_memory_resource& pool, model& known, unsigned seed) : pool_(pool), model_(known), random_(seed) {
    for (auto& stream : streams_) stream.emplace(0, cuda_stream::kind::non_blocking);
  }

  void walk(int steps, bool fails) {
    for (int i = 0; i < steps && !testing::Test::HasFatalFailure(); ++i) {
      if (fails && random_() % 64 == 0) cenote_sim_fail(calls[random_() % calls.size()], 1, CUDA_ERROR_UNKNOWN);
      if (random_() % 2 == 0 && held_.size() < 300) {
        allocate();
      } else if (!held_.empty()) {
        free_one();
      }
      if (random_() % 512 == 0) streams_[random_() % streams_.size()].emplace(0, cuda_stream::kind::non_blocking);
      if (random_() % 4096 == 0) trim();
      if (random_() % 256 == 0) pin_or_unpin();
      if (random_() % 1024 == 0) pool_.check();
    }
  }

  void free_all() {
    while (!held_.empty()) free_one();
    while (!pinned_.empty()) unpin();
  }

 private:
  struct block {
    void* memory;
    std::size_t bytes;
  };

  stream_ref any_stream() { return random_() % 8 == 0 ? stream_ref() : streams_[random_() % streams_.size()]->view(); }

  void allocate() {
    const std::size_t bytes = 1 + random_() % (std::size_t{256} << (random_() % 10));
    const std::size_t alignment = random_() % 16 == 0 ? std::size_t{256} << (random_() % 8) : 256;
    void* memory = nullptr;
    try {
      memory = pool_.try_allocate(any_stream(), bytes, alignment);
    } catch (const cuda_error&) {  // the one that was asked for
    }
    if (memory == nullptr) return;
    ASSERT_EQ(reinterpret_cast<std::uintptr_t>(memory) % alignment, 0u);
    ASSERT_TRUE(model_.insert(memory, align_up(bytes, 256))) << memory << ", " << bytes << " bytes, is in use already";
    held_.push_back({memory, bytes});
  }

  void trim() {
    try {
      pool_.trim(random_() % large_pool_bytes);
    } catch (const cuda_error&) {
    }
  }

  /// A pinned block may be freed before it is unpinned.
  void pin_or_unpin() {
    if (random_() % 2 == 0 && !pinned_.empty()) return unpin();
    if (held_.empty()) return;
    pinned_.push_back(held_[random_() % held_.size()].memory);
    pool_.pin(pinned_.back(), pin_kind::registered);
  }

  void unpin() {
    std::swap(pinned_[random_() % pinned_.size()], pinned_.back());
    pool_.unpin(pinned_.back(), pin_kind::registered);
    pinned_.pop_back();
  }

  void free_one() {
    std::swap(held_[random_() % held_.size()], held_.back());
    model_.erase(held_.back().memory);
    pool_.deallocate(any_stream(), held_.back().memory, held_.back().bytes);
    held_.pop_back();
  }

  pool_memory_resource& pool_;
  model& model_;
  std::mt19937_64 random_;
  std::array<std::optional<cuda_stream>, 4> streams_;
  std::vector<block> held_;
  std::vector<void*> pinned_;
};

struct setting {
  unsigned threads;
  bool is_paged;
};

std::ostream& operator<<(std::ostream& out, const setting& s) {
  return out << s.threads << (s.is_paged ? " threads over pages" : " threads");
}

class random_pool : public simulated_device, public testing::WithParamInterface<setting> {
 protected:
  static std::shared_ptr<memory_resource> upstream() {
    if (GetParam().is_paged) return std::make_shared<virtual_memory_resource>(0);
    return std::make_shared<cuda_memory_resource>(0);
  }

  /// As many threads as the parameter says. All is there again at the end.
  void run(bool fails) {
    captured_stderr reports;  // frees that failed say so
    pool_memory_resource pool(upstream(), 0, large_pool_bytes);
    model known;
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < GetParam().threads; ++t) {
      threads.emplace_back([&, t] {
        walker one(pool, known, 1 + t);
        one.walk(steps / static_cast<int>(GetParam().threads), fails);
        one.free_all();
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const char* call : calls) cenote_sim_fail(call, 0, 0);
    EXPECT_EQ(pool.state().in_use, 0u);
    pool.check();
    cenote_sim_drain();
    void* const all = pool.try_allocate({}, large_pool_bytes);
    EXPECT_NE(all, nullptr) << "what was freed is one block again";
    pool.deallocate({}, all, large_pool_bytes);
  }
};

TEST_P(random_pool, hands_no_byte_out_twice_and_loses_none) { run(false); }
TEST_P(random_pool, hands_no_byte_out_twice_and_loses_none_while_calls_of_the_driver_fail) { run(true); }

INSTANTIATE_TEST_SUITE_P(threads, random_pool,
                         testing::Values(setting{1, false}, setting{4, false}, setting{1, true}, setting{4, true}),
                         [](const auto& info) {
                           return std::to_string(info.param.threads) + (info.param.is_paged ? "_over_pages" : "");
                         });

}  // namespace
}  // namespace cenote::test
