// Thrust sorts in memory of a pool: its vector, and what the algorithm needs beside it, come from the pool, on a
// stream.
#include <thrust/sequence.h>
#include <thrust/sort.h>

#include <cstdio>
#include <memory>

#include "cenote/cenote.hpp"
#include "cenote/thrust.hpp"

int main() {
  auto pool = std::make_shared<cenote::pool_memory_resource>(std::make_shared<cenote::virtual_memory_resource>());
  auto statistics = std::make_shared<cenote::statistics_resource_adaptor>(pool);
  cenote::set_current_device_resource(statistics);

  cenote::cuda_stream stream;
  bool is_right = true;
  for (int run = 0; run < 10; ++run) {
    cenote::device_vector<int> numbers(1'000'000, 0, cenote::thrust_allocator<int>(stream));
    const auto policy = cenote::exec_policy_nosync(stream);
    thrust::sequence(policy, numbers.rbegin(), numbers.rend());  // 999999 … 0
    thrust::sort(policy, numbers.begin(), numbers.end());
    stream.synchronize();
    is_right = is_right && numbers.front() == 0 && numbers.back() == 999'999;
  }
  const cenote::allocation_counters counted = statistics->counters();
  std::printf("10 sorts of 1000000 numbers: %s\n", is_right ? "right" : "WRONG");
  std::printf("%lld allocations, %s at the peak; the pool took %llu pages from the driver\n",
              static_cast<long long>(counted.count.total),
              cenote::format_bytes(static_cast<std::size_t>(counted.bytes.peak)).c_str(),
              static_cast<unsigned long long>(pool->counters().upstream_allocations));
  return is_right ? 0 : 1;
}
