// A resource is made current, and containers take their memory from it, in the order of a stream.
#include <cstdio>
#include <memory>
#include <numeric>
#include <optional>
#include <vector>

#include "cenote/cenote.hpp"

int main() {
  // A pool that maps pages as they are needed, 1 GiB at the most.
  auto pool = std::make_shared<cenote::pool_memory_resource>(std::make_shared<cenote::virtual_memory_resource>(),
                                                             std::nullopt, 1 * cenote::GiB);
  cenote::set_current_device_resource(pool);
  std::printf("device 0 is %s\n", cenote::device_name(0).c_str());
  std::printf("current resource: %s\n", cenote::describe(*cenote::get_current_device_resource()).c_str());

  cenote::cuda_stream stream;
  {
    // Untyped memory, for a kernel: kernel<<<grid, block, 0, stream.value()>>>(scratch.data()).
    cenote::device_buffer scratch(4 * cenote::MiB, stream);

    // Typed memory. Copies are queued on the stream; one waits for it before the host reads what they wrote.
    std::vector<int> host(1'000'000);
    std::iota(host.begin(), host.end(), 0);
    cenote::device_uvector<int> numbers(host.size(), stream);
    cenote::copy_async(numbers.data(), host.data(), host.size() * sizeof(int), stream, numbers.device());
    std::printf("element 999999 of %zu: %d\n", numbers.size(), numbers.element(999'999, stream));

    numbers.set_element(0, 42, stream);
    std::printf("the first is now %d\n", numbers.front_element(stream));

    // One value, as kernels leave their results.
    cenote::device_scalar<double> sum(stream);
    sum.set_value_to_zero_async(stream);
    std::printf("the sum is %g\n", sum.value(stream));

    const cenote::memory_state state = pool->state();
    std::printf("in use: %s of the %s that the pool holds\n", cenote::format_bytes(*state.in_use).c_str(),
                cenote::format_bytes(*state.held).c_str());
  }
  std::printf("in use after the containers: %s\n", cenote::format_bytes(*pool->state().in_use).c_str());
}
