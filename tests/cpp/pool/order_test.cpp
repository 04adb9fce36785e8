// Random histories of a pool that is too small, against the one rule of order: what a block's owner did with it is not
// touched by the next one's work, whatever streams come and go, and whichever call of the driver fails. Work runs only
// when something waits for it, here for streams at random: so an order that is missing shows as wrong bytes.
#include <array>
#include <memory>
#include <thread>

#include "cenote/ground/check.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

constexpr std::size_t small_pool_bytes = 1 * MiB;
constexpr int operations = check_level >= 1 ? 4'000 : 40'000;
constexpr std::array injected_calls = {"cuEventCreate",    "cuEventRecord", "cuEventQuery",       "cuStreamWaitEvent",
                                       "cuCtxRecordEvent", "cuStreamGetId", "cuStreamIsCapturing"};

/// One thread's part of the history.
class tenant {
 public:
  /// `shared` is a stream that all use.
  tenant(pool_memory_resource& pool, stream_ref shared, unsigned seed) : pool_(pool), shared_(shared), random_(seed) {
    for (auto& stream : streams_) stream = std::make_unique<foreign_stream>();
    for (auto& stream : own_streams_) stream.emplace(0, cuda_stream::kind::non_blocking);
    witnesses_ = static_cast<std::byte*>(device_allocate(0, witness_bytes * most_witnessed));
  }
  ~tenant() { device_free(0, witnesses_); }
  tenant(const tenant&) = delete;
  tenant& operator=(const tenant&) = delete;

  void live(bool fails) {
    for (int i = 0; i < operations; ++i) {
      if (fails && random_() % 32 == 0) {
        cenote_sim_fail(injected_calls[random_() % injected_calls.size()], 1, CUDA_ERROR_UNKNOWN);
      }
      const auto dice = random_() % 64;
      if (dice < 30) {
        move_in();
      } else if (dice < 60) {
        move_out();
      } else if (dice < 62) {
        run_some();
      } else if (random_() % 8 == 0) {
        replace_a_stream();
      }
      if (random_() % 1024 == 0) trim();
    }
    while (!held_.empty()) move_out();
  }

  /// After all work is done.
  int wrong() const {
    const std::vector<unsigned char> seen = read(witnesses_, witness_bytes * witnessed_.size(), {});
    int wrong = 0;
    for (std::size_t i = 0; i < witnessed_.size(); ++i) {
      const auto begin = seen.begin() + static_cast<std::ptrdiff_t>(i * witness_bytes);
      wrong += std::all_of(begin, begin + witness_bytes, [&](unsigned char c) { return c == witnessed_[i]; }) ? 0 : 1;
    }
    return wrong;
  }
  std::size_t witnessed() const { return witnessed_.size(); }

 private:
  static constexpr std::ptrdiff_t witness_bytes = 64;  // half of them from each end of a block
  static constexpr std::size_t most_witnessed = operations;

  struct tenancy {
    std::byte* memory;
    std::size_t bytes;
    unsigned char token;
    stream_ref stream;
  };

  stream_ref stream_number(std::size_t number) const {
    return number % 2 == 0 ? streams_[number / 2]->view() : own_streams_[number / 2]->view();
  }

  stream_ref any_stream() {
    const auto number = random_() % 11;
    if (number == 8) return {};
    if (number == 9) return CU_STREAM_PER_THREAD;
    if (number == 10) return shared_;
    return stream_number(number);
  }

  void move_in() {
    // Few sizes, so that what one has freed is what another one asks for.
    constexpr std::array<std::size_t, 8> sizes = {1 * KiB,  2 * KiB,   16 * KiB,  32 * KiB,
                                                  64 * KiB, 128 * KiB, 256 * KiB, 700 * KiB};
    const std::size_t bytes = sizes[std::min(random_() % 8, random_() % 8)];
    const std::size_t alignment = random_() % 16 == 0 ? 4096 : 256;
    const stream_ref stream = any_stream();
    void* memory = nullptr;
    try {
      memory = pool_.try_allocate(stream, bytes, alignment);
    } catch (const cuda_error&) {  // the one that was asked for
    }
    if (memory == nullptr) return move_out();
    const auto token = static_cast<unsigned char>(random_());
    fill_async(memory, token, bytes, stream, 0);
    held_.push_back({static_cast<std::byte*>(memory), bytes, token, stream});
  }

  void move_out() {
    if (held_.empty()) return;
    std::swap(held_[random_() % held_.size()], held_.back());
    const tenancy left = held_.back();
    held_.pop_back();
    stream_ref stream = left.stream;
    if (random_() % 4 == 0) {
      try {
        const stream_ref other = any_stream();
        order_after(other, stream, 0);
        stream = other;
      } catch (const cuda_error&) {
      }
    }
    std::byte* const witness = witnesses_ + witness_bytes * static_cast<std::ptrdiff_t>(witnessed_.size());
    copy_async(witness, left.memory, witness_bytes / 2, stream, 0);
    copy_async(witness + witness_bytes / 2, left.memory + left.bytes - witness_bytes / 2, witness_bytes / 2, stream, 0);
    witnessed_.push_back(left.token);
    pool_.deallocate(stream, left.memory, left.bytes);
  }

  void run_some() { synchronize(any_stream(), 0); }

  /// Its work may go on; what it holds is another stream's, which has waited for it.
  void replace_a_stream() {
    const stream_ref heir{};
    const std::size_t number = random_() % 8;
    const stream_ref gone = stream_number(number);
    try {
      order_after(heir, gone, 0);
    } catch (const cuda_error&) {
      return;
    }
    for (tenancy& each : held_) {
      if (each.stream == gone) each.stream = heir;
    }
    if (number % 2 == 0) {
      streams_[number / 2].reset();
      streams_[number / 2] = std::make_unique<foreign_stream>();
    } else {
      own_streams_[number / 2].reset();
      own_streams_[number / 2].emplace(0, cuda_stream::kind::non_blocking);
    }
  }

  void trim() {
    try {
      pool_.trim(random_() % small_pool_bytes);
    } catch (const cuda_error&) {
    }
  }

  pool_memory_resource& pool_;
  stream_ref shared_;
  std::mt19937_64 random_;
  std::array<std::unique_ptr<foreign_stream>, 4> streams_;
  std::array<std::optional<cuda_stream>, 4> own_streams_;
  std::vector<tenancy> held_;
  std::vector<unsigned char> witnessed_;
  std::byte* witnesses_ = nullptr;
};

class order_in_a_pool : public simulated_device, public testing::WithParamInterface<unsigned> {
 protected:
  void run(unsigned thread_count, bool fails) {
    captured_stderr reports;  // frees that failed say so
    pool_memory_resource pool(std::make_shared<cuda_memory_resource>(0), 0, small_pool_bytes);
    const foreign_stream shared;
    std::vector<std::unique_ptr<tenant>> tenants;
    for (unsigned t = 0; t < thread_count; ++t) {
      tenants.push_back(std::make_unique<tenant>(pool, shared.view(), 100 * GetParam() + t));
    }
    {
      std::vector<std::jthread> threads;
      for (const auto& each : tenants) threads.emplace_back([&] { each->live(fails); });
    }
    for (const char* const call : injected_calls) cenote_sim_fail(call, 0, 0);
    cenote_sim_drain();
    for (const auto& each : tenants) {
      EXPECT_EQ(each->wrong(), 0) << "seed " << GetParam();
      EXPECT_GT(each->witnessed(), std::size_t{operations} / 8);
    }
    EXPECT_GT(pool.counters().from_other_stream, 100u);
    EXPECT_EQ(pool.state().in_use, 0u);
    pool.check();
  }
};

TEST_P(order_in_a_pool, is_kept) { run(1, false); }
TEST_P(order_in_a_pool, is_kept_between_threads) { run(3, false); }
TEST_P(order_in_a_pool, is_kept_while_calls_of_the_driver_fail) { run(1, true); }
TEST_P(order_in_a_pool, is_kept_between_threads_while_calls_of_the_driver_fail) { run(3, true); }

INSTANTIATE_TEST_SUITE_P(seeds, order_in_a_pool, testing::Range(1u, 5u));

}  // namespace
}  // namespace cenote::test
