// A resource of one's own, under the adaptors and containers of cenote: memory that is handed out front to back, and
// taken back all at once, as std::pmr::monotonic_buffer_resource does. For what lives as long as one step of a program.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <memory>

#include "cenote/cenote.hpp"

class step_memory_resource final : public cenote::memory_resource {
 public:
  step_memory_resource(std::shared_ptr<cenote::memory_resource> upstream, std::size_t bytes)
      : memory_resource(upstream, "step"),
        upstream_(upstream),
        slab_(bytes, cenote::default_stream(), std::move(upstream)) {
    cenote::default_stream().synchronize();  // the slab is used on any stream from here on
  }

  /// The step is over: its memory may be handed out again. The caller has waited for the work that used it.
  void begin_step() noexcept { used_ = 0; }

  std::string kind() const override { return "step"; }
  std::string specification() const override {
    return cenote::spell_specification(kind(), {"bytes=" + cenote::spell_bytes(slab_.size())});
  }
  std::shared_ptr<cenote::memory_resource> upstream() const override { return upstream_; }

  /// What out_of_memory says of this resource.
  cenote::memory_state state() const override {
    cenote::memory_state state = upstream_->state();
    state.in_use = used_;
    state.held = state.limit = slab_.size();
    state.largest_free = slab_.size() - used_;
    return state;
  }

 private:
  // Null says that memory ran out. `alignment` is 256 at least.
  void* do_allocate(cenote::stream_ref, std::size_t bytes, std::size_t alignment) override {
    const auto slab = reinterpret_cast<std::uintptr_t>(slab_.data());
    std::size_t used = used_, begin = 0;
    do {
      begin = cenote::align_up(slab + used, alignment) - slab;
      if (begin > slab_.size() || bytes > slab_.size() - begin) return nullptr;
    } while (!used_.compare_exchange_weak(used, begin + bytes));
    return static_cast<std::byte*>(slab_.data()) + begin;
  }

  // One block is never freed alone.
  void do_deallocate(cenote::stream_ref, void*, std::size_t, std::size_t) noexcept override {}

  std::shared_ptr<cenote::memory_resource> upstream_;
  cenote::device_buffer slab_;
  std::atomic<std::size_t> used_{0};
};

int main() {
  auto steps =
      std::make_shared<step_memory_resource>(std::make_shared<cenote::cuda_memory_resource>(), 1 * cenote::MiB);
  auto counted = std::make_shared<cenote::statistics_resource_adaptor>(steps);
  std::printf("resource: %s\n", cenote::describe(*counted).c_str());

  cenote::cuda_stream stream;
  for (int step = 1; step <= 3; ++step) {
    cenote::device_uvector<float> weights(100'000, stream, counted);
    cenote::device_uvector<float> gradients(100'000, stream, counted);
    std::printf("step %d: %s in use\n", step, cenote::format_bytes(*steps->state().in_use).c_str());
    stream.synchronize();
    steps->begin_step();
  }
  std::printf("%lld allocations, and none of them asked the driver\n",
              static_cast<long long>(counted->counters().count.total));

  try {
    cenote::device_buffer too_large(2 * cenote::MiB, stream, counted);
  } catch (const cenote::out_of_memory& error) {  // a std::bad_alloc
    std::printf("%s\n", error.what());
  }
}
