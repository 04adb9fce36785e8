#include "cenote/driver/stream_pool.hpp"

#include <atomic>
#include <limits>
#include <set>
#include <stdexcept>
#include <thread>

#include "support/simulated.hpp"

namespace cenote::test {
namespace {

class stream_pool : public simulated_device {};

TEST_F(stream_pool, hands_out_its_streams_in_turn) {
  cuda_stream_pool pool(1, 5, cuda_stream::kind::non_blocking);
  EXPECT_EQ(pool.size(), 5u);
  EXPECT_EQ(pool.device(), 1);
  std::set<CUstream_st*> seen;
  for (std::size_t i = 0; i < 10; ++i) {
    const auto stream = pool.get_stream();
    EXPECT_EQ(stream, pool.get_stream(i)) << "a number counts modulo the size";
    EXPECT_EQ(stream->device(), 1);
    seen.insert(stream->view().value());
  }
  EXPECT_EQ(seen.size(), 5u);
  constexpr auto last = std::numeric_limits<std::size_t>::max();
  EXPECT_EQ(pool.get_stream(last), pool.get_stream(last % 5));
}

TEST_F(stream_pool, is_made_on_the_current_device) {
  const device_scope scope(1);
  const cuda_stream_pool pool;
  EXPECT_EQ(pool.size(), cuda_stream_pool::default_size);
  EXPECT_EQ(pool.device(), 1);
  EXPECT_EQ(pool.get_stream(3)->device(), 1);
  EXPECT_EQ(cuda_stream_pool(2, cuda_stream::kind::non_blocking).size(), 2u);
  EXPECT_THROW(cuda_stream_pool(0), std::logic_error);
}

TEST_F(stream_pool, of_no_streams_is_refused) { EXPECT_THROW(cuda_stream_pool(0, 0), std::logic_error); }

TEST_F(stream_pool, of_too_many_streams_makes_none) {
  const call_count created("cuStreamCreate");
  EXPECT_ANY_THROW(cuda_stream_pool(0, std::numeric_limits<std::size_t>::max()));
  EXPECT_EQ(created.value(), 0);
}

TEST_F(stream_pool, leaves_no_stream_when_one_cannot_be_made) {
  cenote_sim_fail("cuStreamCreate", 3, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(cuda_stream_pool(0, 5), cuda_error);
}

TEST_F(stream_pool, may_die_before_a_stream_that_somebody_holds) {
  std::shared_ptr<cuda_stream> held;
  {
    cuda_stream_pool pool(0, 3);
    held = pool.get_stream();
  }
  synchronize(held->view(), 0);
}

TEST_F(stream_pool, serves_each_thread_its_share) {
  constexpr std::size_t size = 8;
  constexpr int threads = 4;
  constexpr int turns = 1000;
  cuda_stream_pool pool(0, size);
  std::vector<std::atomic<int>> served(size);
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t) {
    running.emplace_back([&] {
      for (int i = 0; i < turns; ++i) {
        const auto stream = pool.get_stream();
        for (std::size_t s = 0; s < size; ++s) served[s] += stream == pool.get_stream(s);
      }
    });
  }
  for (auto& thread : running) thread.join();
  for (const auto& count : served) EXPECT_EQ(count, threads * turns / static_cast<int>(size));
}

}  // namespace
}  // namespace cenote::test
