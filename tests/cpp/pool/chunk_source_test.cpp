// Where a pool's chunks come from: their sizes, the maximum, and what is booked when the upstream says no.
#include "cenote/pool/chunk_source.hpp"

#include <atomic>
#include <thread>

#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/surface/specification.hpp"
#include "support/program_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

using pool::chunk_source;

class chunks : public simulated_device {
 protected:
  std::optional<chunk> take(chunk_source& from, std::size_t minimum) { return from.take({}, true, minimum, refusal_); }

  std::shared_ptr<memory_resource> cuda_ = std::make_shared<cuda_memory_resource>(0);
  std::exception_ptr refusal_;
};

TEST_F(chunks, are_as_large_as_all_that_is_held_from_2_mib_to_1_gib) {
  chunk_source source(cuda_, {});
  std::vector<chunk> taken;
  for (const std::size_t expected : {2 * MiB, 2 * MiB, 4 * MiB, 8 * MiB, 16 * MiB}) {
    taken.push_back(take(source, 256).value());
    EXPECT_EQ(taken.back().bytes, expected);
  }
  taken.push_back(take(source, 2 * GiB + 256).value());
  EXPECT_EQ(taken.back().bytes, 2 * GiB + 2 * MiB) << "what is needed, in whole 2 MiB";
  taken.push_back(take(source, 256).value());
  EXPECT_EQ(taken.back().bytes, 1 * GiB);
  std::size_t bytes = 0;
  for (const chunk& c : taken) bytes += c.bytes;
  EXPECT_EQ(source.held(), bytes);
  for (const chunk& c : taken) source.give({}, c);
  EXPECT_EQ(source.held(), 0u);
}

TEST_F(chunks, are_of_the_step_that_was_set_or_of_what_is_needed) {
  chunk_source source(cuda_, {});
  source.set_step(512 * KiB);
  const chunk first = take(source, 256).value();
  const chunk second = take(source, 3 * MiB).value();
  EXPECT_EQ(first.bytes, 512 * KiB);
  EXPECT_EQ(second.bytes, 4 * MiB);
  source.give({}, first);
  source.give({}, second);
}

TEST_F(chunks, are_halved_until_the_upstream_has_one) {
  const auto upstream = std::make_shared<program_resource>(cuda_);
  int asked = 0;
  upstream->has_memory = [&] { return ++asked == 3; };
  chunk_source source(upstream, {});
  const chunk taken = take(source, 300 * KiB).value();
  EXPECT_EQ(taken.bytes, 512 * KiB);
  EXPECT_EQ(source.held(), 512 * KiB);
  source.give({}, taken);
}

TEST_F(chunks, never_pass_the_maximum_together) {
  chunk_source source(cuda_, 64 * MiB);
  std::vector<std::thread> threads;
  std::atomic<std::size_t> most{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        std::exception_ptr refusal;
        const auto taken = source.take({}, true, 1 * MiB, refusal);
        const std::size_t held = source.held();
        std::size_t before = most.load();
        while (before < held && !most.compare_exchange_weak(before, held)) {
        }
        if (taken) source.give({}, *taken);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(most.load(), 64 * MiB);
  EXPECT_EQ(source.held(), 0u);
  EXPECT_FALSE(take(source, 64 * MiB + 256).has_value());
  const chunk all = take(source, 64 * MiB).value();
  EXPECT_FALSE(take(source, 256).has_value());
  source.give({}, all);
}

TEST_F(chunks, that_were_refused_are_not_booked) {
  const auto upstream = std::make_shared<program_resource>(cuda_);
  upstream->has_memory = [] { return false; };
  chunk_source source(upstream, {});
  EXPECT_FALSE(take(source, 256).has_value());
  EXPECT_EQ(refusal_, nullptr);
  upstream->has_memory = []() -> bool { throw out_of_memory("mine", 1, {}); };
  EXPECT_FALSE(take(source, 256).has_value());
  EXPECT_NE(refusal_, nullptr) << "it is kept, for it knows more";
  upstream->has_memory = []() -> bool { throw std::runtime_error("something else"); };
  EXPECT_THROW(take(source, 256), std::runtime_error);
  EXPECT_EQ(source.held(), 0u);
}

TEST_F(chunks, go_back_where_waiting_for_them_fails) {
  const auto async = make_resource("async", 0);
  chunk_source source(async, {});
  cenote_sim_fail("cuStreamSynchronize", 1, CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_THROW(source.take({}, /*may_use_stream=*/false, 1 * MiB, refusal_), cuda_error);
  EXPECT_EQ(source.held(), 0u);
  EXPECT_EQ(async->state().in_use, 0u);
  cenote_sim_fail("cuStreamSynchronize", 1, CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_THROW(source.take_exactly(1 * MiB), cuda_error);
  EXPECT_EQ(source.held(), 0u);
  EXPECT_EQ(async->state().in_use, 0u);
}

}  // namespace
}  // namespace cenote::test
