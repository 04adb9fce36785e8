// A program that was written for RMM 26.10: it includes every public header, compiles unchanged against RMM's and
// against those over cenote, and runs on a device that may be simulated. It calls nothing of the CUDA runtime itself.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cuda/memory_resource>
#include <cuda/std/span>
#include <cuda/stream>
#include <memory>
#include <numeric>
#include <rmm/aligned.hpp>
#include <rmm/cuda_device.hpp>
#include <rmm/cuda_stream.hpp>
#include <rmm/cuda_stream_pool.hpp>
#include <rmm/cuda_stream_view.hpp>
#include <rmm/device_buffer.hpp>
#include <rmm/device_scalar.hpp>
#include <rmm/device_uvector.hpp>
#include <rmm/device_vector.hpp>
#include <rmm/error.hpp>
#include <rmm/exec_policy.hpp>
#include <rmm/logger.hpp>
#include <rmm/logger_macros.hpp>
#include <rmm/mr/aligned_resource_adaptor.hpp>
#include <rmm/mr/arena_memory_resource.hpp>
#include <rmm/mr/binning_memory_resource.hpp>
#include <rmm/mr/callback_memory_resource.hpp>
#include <rmm/mr/cuda_async_managed_memory_resource.hpp>
#include <rmm/mr/cuda_async_memory_resource.hpp>
#include <rmm/mr/cuda_async_view_memory_resource.hpp>
#include <rmm/mr/cuda_memory_resource.hpp>
#include <rmm/mr/failure_callback_resource_adaptor.hpp>
#include <rmm/mr/failure_callback_t.hpp>
#include <rmm/mr/fixed_size_memory_resource.hpp>
#include <rmm/mr/limiting_resource_adaptor.hpp>
#include <rmm/mr/logging_resource_adaptor.hpp>
#include <rmm/mr/managed_memory_resource.hpp>
#include <rmm/mr/per_device_resource.hpp>
#include <rmm/mr/pinned_host_memory_resource.hpp>
#include <rmm/mr/polymorphic_allocator.hpp>
#include <rmm/mr/pool_memory_resource.hpp>
#include <rmm/mr/prefetch_resource_adaptor.hpp>
#include <rmm/mr/sam_headroom_memory_resource.hpp>
#include <rmm/mr/statistics_resource_adaptor.hpp>
#include <rmm/mr/system_memory_resource.hpp>
#include <rmm/mr/thread_safe_resource_adaptor.hpp>
#include <rmm/mr/thrust_allocator_adaptor.hpp>
#include <rmm/mr/tracking_resource_adaptor.hpp>
#include <rmm/prefetch.hpp>
#include <rmm/process_is_exiting.hpp>
#include <rmm/resource_ref.hpp>
#include <rmm/version_config.hpp>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

using any_resource = cuda::mr::any_resource<cuda::mr::device_accessible>;

static void expect(bool holds, const char* what, int line) {
  if (holds) return;
  std::fprintf(stderr, "line %d: %s\n", line, what);
  std::exit(1);
}
#define EXPECT(condition) expect((condition), #condition, __LINE__)

template <class Exception, class Call>
static bool throws(Call&& call) {
  try {
    call();
  } catch (const Exception&) {
    return true;
  }
  return false;
}

static void alignments() {
  EXPECT(rmm::is_pow2(256) && !rmm::is_pow2(24));
  EXPECT(rmm::is_supported_alignment(1024));
  EXPECT(rmm::is_supported_base_resource_alignment(256) && !rmm::is_supported_base_resource_alignment(512));
  EXPECT(rmm::align_up(1000, 256) == 1024 && rmm::align_down(1000, 256) == 768);
  EXPECT(rmm::is_aligned(1024, 256) && !rmm::is_aligned(1000, 256));
  alignas(256) static char block[256];
  EXPECT(rmm::is_pointer_aligned(block) && !rmm::is_pointer_aligned(block + 1));
  static_assert(rmm::CUDA_ALLOCATION_ALIGNMENT == 256);
}

static void versions() {
  static_assert(RMM_VERSION_MAJOR == 26 && RMM_VERSION_MINOR == 10);
  static_assert(RMM_VERSION_GT(26, 9, 9) && RMM_VERSION_LT(26, 11, 0) && !RMM_VERSION_GT(26, 10, 99));
  EXPECT(std::strncmp(RMM_VERSION, "26.10", 5) == 0);
}

static void devices() {
  EXPECT(rmm::get_num_cuda_devices() >= 1);
  const rmm::cuda_device_id current = rmm::get_current_cuda_device();
  EXPECT(current == rmm::cuda_device_id{} && current.value() == 0);
  const std::pair<std::size_t, std::size_t> memory = rmm::available_device_memory();
  EXPECT(memory.first <= memory.second && memory.second > 0);
  EXPECT(rmm::percent_of_free_device_memory(50) <= memory.first);
  EXPECT(rmm::is_aligned(rmm::percent_of_free_device_memory(50), 256));
  {
    rmm::cuda_set_device_raii same{current};
    EXPECT(rmm::get_current_cuda_device() == current);
  }
  if (rmm::get_num_cuda_devices() > 1) {
    rmm::cuda_set_device_raii other{rmm::cuda_device_id{1}};
    EXPECT(rmm::get_current_cuda_device().value() == 1);
  }
  EXPECT(rmm::get_current_cuda_device() == current);
  EXPECT(!rmm::process_is_exiting());
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
static void streams() {
  rmm::cuda_stream stream;
  EXPECT(stream.is_valid() && stream.value() != nullptr);
  rmm::cuda_stream_view view = stream.view();
  EXPECT(view.value() == stream.value() && !view.is_default() && !view.is_per_thread_default());
  EXPECT(rmm::cuda_stream_view{}.is_default());
  view.synchronize();
  view.synchronize_no_throw();
  stream.synchronize();
  const cuda::stream_ref ref = stream;
  EXPECT(ref == view && ref.get() == stream.value());
  rmm::cuda_stream moved = std::move(stream);
  EXPECT(moved.is_valid());
  rmm::cuda_stream non_blocking{rmm::cuda_stream::flags::non_blocking};
  EXPECT(non_blocking.value() != moved.value());

  rmm::cuda_stream_pool pool{4, rmm::cuda_stream::flags::non_blocking};
  EXPECT(pool.get_pool_size() == 4 && rmm::cuda_stream_pool::default_size == 16);
  EXPECT(pool.get_stream(1).get() == pool.get_stream(5).get());
  EXPECT(pool.get_stream().get() != pool.get_stream().get());
}
#pragma GCC diagnostic pop

static void errors() {
  EXPECT(throws<rmm::logic_error>([] { RMM_EXPECTS(1 == 2, "never"); }));
  EXPECT(throws<rmm::invalid_argument>([] { RMM_EXPECTS(1 == 2, "never", rmm::invalid_argument); }));
  EXPECT(throws<std::logic_error>([] { RMM_FAIL("always"); }));
  EXPECT(throws<std::bad_alloc>([] { throw rmm::out_of_memory{"none"}; }));
  EXPECT(throws<rmm::bad_alloc>([] { throw rmm::out_of_memory{std::string{"none"}}; }));
  EXPECT(throws<std::out_of_range>([] { throw rmm::out_of_range{"far"}; }));
  EXPECT(throws<std::runtime_error>([] { throw rmm::cuda_error{"driver"}; }));
}

/// One block, and one by the other pair.
template <class Resource>
static void exercise(Resource resource) {
  static_assert(cuda::mr::resource_with<Resource, cuda::mr::device_accessible>);
  rmm::cuda_stream stream;
  void* const block = resource.allocate(stream, 1000, 256);
  EXPECT(block != nullptr && rmm::is_pointer_aligned(block));
  resource.deallocate(stream, block, 1000, 256);
  void* const other = resource.allocate_sync(1000, 256);
  EXPECT(other != nullptr);
  resource.deallocate_sync(other, 1000, 256);
  Resource copy = resource;
  EXPECT(copy == resource);
  any_resource any{resource};
  rmm::device_async_resource_ref ref{any};
  void* const third = ref.allocate(stream, 64, 64);
  ref.deallocate(stream, third, 64, 64);
  stream.synchronize();
}

static void resources() {
  exercise(rmm::mr::cuda_memory_resource{});
  exercise(rmm::mr::managed_memory_resource{});
  exercise(rmm::mr::pinned_host_memory_resource{});
  exercise(rmm::mr::cuda_async_memory_resource{});
  EXPECT(rmm::mr::cuda_memory_resource{} == rmm::mr::cuda_memory_resource{});

  any_resource cuda{rmm::mr::cuda_memory_resource{}};
  rmm::mr::pool_memory_resource pool{cuda, 1 << 20, std::size_t{8} << 20};
  exercise(pool);
  EXPECT(pool.pool_size() >= std::size_t{1} << 20);
  EXPECT(throws<rmm::logic_error>([&] { rmm::mr::pool_memory_resource{cuda, 1000}; }));
  EXPECT(throws<rmm::out_of_memory>([&] { static_cast<void>(pool.allocate_sync(std::size_t{64} << 20, 256)); }));
  static_cast<void>(pool.get_upstream_resource());
  exercise(rmm::mr::arena_memory_resource{cuda, std::size_t{16} << 20});
  rmm::mr::fixed_size_memory_resource fixed{cuda, 4096, 4};
  EXPECT(fixed.get_block_size() == 4096 && rmm::mr::fixed_size_memory_resource::default_block_size == 1 << 20);
  exercise(fixed);
  rmm::mr::binning_memory_resource binning{pool, 10, 12};
  binning.add_bin(std::size_t{1} << 14);
  exercise(binning);

  rmm::mr::cuda_async_memory_resource async{1 << 20, std::nullopt,
                                            rmm::mr::cuda_async_memory_resource::allocation_handle_type::none};
  EXPECT(async.pool_handle() != nullptr);
  exercise(rmm::mr::cuda_async_view_memory_resource{async.pool_handle()});

  int calls = 0;
  rmm::mr::callback_memory_resource callback{[cuda](std::size_t bytes, cuda::stream_ref stream, void* count) mutable {
                                               ++*static_cast<int*>(count);
                                               return cuda.allocate(stream, bytes, 256);
                                             },
                                             [cuda](void* pointer, std::size_t bytes, cuda::stream_ref stream,
                                                    void*) mutable { cuda.deallocate(stream, pointer, bytes, 256); },
                                             &calls};
  exercise(callback);
  EXPECT(calls == 3);

  // What need not be there on a device is compiled alone.
  const auto compiled_alone = [] {
    exercise(rmm::mr::system_memory_resource{});
    exercise(rmm::mr::sam_headroom_memory_resource{std::size_t{1} << 20});
    exercise(rmm::mr::cuda_async_managed_memory_resource{});
  };
  static_cast<void>(compiled_alone);
}

static void adaptors() {
  rmm::cuda_stream stream;
  any_resource cuda{rmm::mr::cuda_memory_resource{}};
  rmm::mr::statistics_resource_adaptor statistics{cuda};
  void* const block = statistics.allocate(stream, 1000, 256);
  rmm::mr::statistics_resource_adaptor::counter bytes = statistics.get_bytes_counter();
  EXPECT(bytes.value == 1000 && bytes.peak == 1000 && bytes.total == 1000);
  EXPECT(statistics.get_allocations_counter().value == 1);
  const auto [bytes_before, allocations_before] = statistics.push_counters();
  EXPECT(bytes_before.value == 1000 && allocations_before.value == 1);
  EXPECT(statistics.get_bytes_counter().total == 0);
  EXPECT(statistics.pop_counters().first.total == 0);
  EXPECT(throws<std::out_of_range>([&] { statistics.pop_counters(); }));
  statistics.deallocate(stream, block, 1000, 256);
  EXPECT(statistics.get_bytes_counter().value == 0);
  exercise(statistics);

  rmm::mr::tracking_resource_adaptor tracking{cuda, true};
  void* const tracked = tracking.allocate(stream, 512, 256);
  EXPECT(tracking.get_allocated_bytes() == 512 && !tracking.get_outstanding_allocations_str().empty());
  tracking.log_outstanding_allocations();
  tracking.deallocate(stream, tracked, 512, 256);
  EXPECT(tracking.get_allocated_bytes() == 0);
  exercise(tracking);

  rmm::mr::limiting_resource_adaptor limiting{cuda, 4096};
  EXPECT(limiting.get_allocation_limit() == 4096 && limiting.get_allocated_bytes() == 0);
  EXPECT(throws<rmm::out_of_memory>([&] { static_cast<void>(limiting.allocate(stream, 8192, 256)); }));
  exercise(limiting);

  int asked = 0;
  rmm::mr::failure_callback_resource_adaptor<> asking{
      limiting, [](std::size_t, void* count) { return ++*static_cast<int*>(count) < 3; }, &asked};
  EXPECT(throws<std::bad_alloc>([&] { static_cast<void>(asking.allocate(stream, 8192, 256)); }));
  EXPECT(asked == 3);
  exercise(asking);
  const rmm::mr::failure_callback_t never = [](std::size_t, void*) { return false; };
  EXPECT(!never(1, nullptr));

  exercise(rmm::mr::thread_safe_resource_adaptor{cuda});
  exercise(rmm::mr::aligned_resource_adaptor{cuda, 4096, 1024});
  exercise(rmm::mr::prefetch_resource_adaptor{any_resource{rmm::mr::managed_memory_resource{}}});

  const std::string file = std::string(std::getenv("RMM_PROGRAM_FOLDER")) + "/log.csv";
  {
    rmm::mr::logging_resource_adaptor logging{cuda, file};
    exercise(logging);
    logging.flush();
    EXPECT(logging.header().rfind("Thread,Time,Action", 0) == 0);
    static_cast<void>(logging.get_upstream_resource());
  }
  std::ostringstream lines;
  {
    rmm::mr::logging_resource_adaptor to_stream{cuda, lines};
    rmm::mr::logging_resource_adaptor to_both{
        to_stream,
        {std::make_shared<rapids_logger::ostream_sink_mt>(lines), std::make_shared<rapids_logger::null_sink_mt>()}};
    exercise(to_both);
    to_both.flush();
  }
  EXPECT(lines.str().find(",allocate,0x") != std::string::npos && lines.str().find(",free,0x") != std::string::npos);
  std::FILE* const written = std::fopen(file.c_str(), "r");
  EXPECT(written != nullptr && std::fgetc(written) != EOF);
  std::fclose(written);
}

static void current_resource() {
  static_cast<void>(rmm::mr::get_current_device_resource_ref());
  rmm::mr::statistics_resource_adaptor counted{rmm::mr::get_current_device_resource_ref()};
  any_resource before = rmm::mr::set_current_device_resource(counted);
  {
    rmm::cuda_stream stream;
    rmm::device_buffer buffer{1000, stream};
    EXPECT(counted.get_bytes_counter().value == 1000);
    rmm::mr::statistics_resource_adaptor inner{rmm::mr::get_per_device_resource_ref(rmm::cuda_device_id{0})};
    any_resource outer = rmm::mr::set_per_device_resource(rmm::cuda_device_id{0}, inner);
    rmm::device_buffer second{24, stream};
    EXPECT(inner.get_bytes_counter().value == 24 && counted.get_bytes_counter().value == 1024);
    rmm::mr::set_current_device_resource(outer);
    rmm::device_buffer third{1000, stream};
    EXPECT(inner.get_bytes_counter().value == 24 && counted.get_bytes_counter().value == 2024);
  }
  EXPECT(counted.get_bytes_counter().value == 0);
  rmm::mr::set_current_device_resource(before);
  rmm::mr::reset_current_device_resource();
  rmm::mr::reset_per_device_resource(rmm::cuda_device_id{0});
  rmm::mr::cuda_memory_resource plain;
  static_cast<void>(rmm::to_device_async_resource_ref_checked(&plain));
  EXPECT(throws<rmm::logic_error>(
      [] { rmm::to_device_async_resource_ref_checked(static_cast<rmm::mr::cuda_memory_resource*>(nullptr)); }));
  static_assert(std::is_constructible_v<rmm::device_async_resource_ref, rmm::host_device_async_resource_ref>);
  static_assert(std::is_constructible_v<rmm::host_resource_ref, rmm::host_device_resource_ref>);
  static_assert(std::is_constructible_v<rmm::device_resource_ref, rmm::host_device_resource_ref>);
  static_assert(std::is_constructible_v<rmm::host_async_resource_ref, rmm::host_device_async_resource_ref>);
}

static void buffers() {
  rmm::cuda_stream owned, other;
  const cuda::stream_ref stream = owned;
  std::array<unsigned char, 200> bytes{};
  std::iota(bytes.begin(), bytes.end(), static_cast<unsigned char>(0));
  rmm::device_buffer buffer{bytes.data(), bytes.size(), stream};
  EXPECT(buffer.size() == 200 && buffer.ssize() == 200 && buffer.capacity() >= 200 && !buffer.is_empty());
  EXPECT(buffer.stream().get() == stream.get() && buffer.data() != nullptr);
  rmm::device_buffer copy{buffer, stream};
  EXPECT(copy.size() == 200 && copy.data() != buffer.data());
  buffer.reserve(1000, stream);
  EXPECT(buffer.capacity() >= 1000 && buffer.size() == 200);
  buffer.resize(300, stream);
  buffer.shrink_to_fit(stream);
  EXPECT(buffer.size() == 300 && buffer.capacity() == 300);
  rmm::device_buffer moved = std::move(buffer);
  EXPECT(moved.size() == 300);
  const rmm::device_buffer empty;
  EXPECT(empty.is_empty() && empty.size() == 0);
  rmm::device_buffer aligned{1000, std::size_t{1024}, stream};
  EXPECT(aligned.alignment() == 1024 && rmm::is_pointer_aligned(aligned.data(), 1024));
  static_cast<void>(moved.memory_resource());
  owned.synchronize();
  moved.set_stream(other);
  EXPECT(moved.stream().get() == other.value());
}

static void vectors() {
  rmm::cuda_stream owned;
  const cuda::stream_ref stream = owned;
  rmm::device_uvector<int> vector{100, stream};
  static_assert(!std::is_default_constructible_v<rmm::device_uvector<int>>);
  static_assert(!std::is_copy_constructible_v<rmm::device_uvector<int>>);
  const int seven = 7;
  vector.set_element(0, seven, stream);
  vector.set_element_async(99, seven, stream);
  vector.set_element_to_zero_async(1, stream);
  EXPECT(vector.front_element(stream) == 7 && vector.back_element(stream) == 7 && vector.element(1, stream) == 0);
  EXPECT(throws<rmm::out_of_range>([&] { static_cast<void>(vector.element(100, stream)); }));
  EXPECT(throws<rmm::invalid_argument>([&] { rmm::device_uvector<int>{std::size_t(-1), stream}; }));
  EXPECT(vector.size() == 100 && vector.ssize() == 100 && vector.end() - vector.begin() == 100);
  EXPECT(vector.element_ptr(3) == vector.data() + 3 && vector.cend() == vector.cbegin() + 100);
  const cuda::std::span<int> span = vector;
  EXPECT(span.size() == 100 && span.data() == vector.data());
  vector.resize(200, stream);
  EXPECT(vector.size() == 200 && vector.element(99, stream) == 7);
  vector.reserve(400, stream);
  EXPECT(vector.capacity() >= 400);
  vector.shrink_to_fit(stream);
  rmm::device_uvector<int> copy{vector, stream};
  EXPECT(copy.element(99, stream) == 7 && !copy.is_empty());
  rmm::device_buffer released = vector.release();
  EXPECT(released.size() == 200 * sizeof(int));

  const double value = 2.5;
  rmm::device_scalar<double> scalar{value, stream};
  EXPECT(scalar.value(stream) == 2.5 && scalar.size() == 1);
  scalar.set_value_to_zero_async(stream);
  EXPECT(scalar.value(stream) == 0);
  scalar.set_value_async(value, stream);
  rmm::device_scalar<double> same{scalar, stream};
  EXPECT(same.value(stream) == 2.5 && same.data() != scalar.data());
  static_assert(!std::is_constructible_v<rmm::device_scalar<int>, int, cuda::stream_ref>);

  rmm::device_uvector<int> managed{100, stream, rmm::mr::managed_memory_resource{}};
  rmm::prefetch(managed.data(), 100 * sizeof(int), rmm::get_current_cuda_device(), stream);
  rmm::prefetch(cuda::std::span<const int>{managed}, rmm::get_current_cuda_device(), stream);
  owned.synchronize();
}

static void allocators() {
  rmm::cuda_stream owned;
  const cuda::stream_ref stream = owned;
  const any_resource pinned{rmm::mr::pinned_host_memory_resource{}};
  rmm::mr::polymorphic_allocator<int> allocator{pinned};
  int* const numbers = allocator.allocate(10, stream);
  allocator.deallocate(numbers, 10, stream);
  static_cast<void>(rmm::mr::polymorphic_allocator<double>{allocator}.get_upstream_resource());
  using host_allocator = rmm::mr::stream_allocator_adaptor<rmm::mr::polymorphic_allocator<int>>;
  std::vector<int, host_allocator> staging(1000, 7, host_allocator{allocator, stream});
  EXPECT(std::accumulate(staging.begin(), staging.end(), 0) == 7000);

  rmm::mr::thrust_allocator<int> of_thrust{stream};
  const auto pointer = of_thrust.allocate(10);
  of_thrust.deallocate(pointer, 10);
  EXPECT(of_thrust.stream().get() == stream.get());
  static_assert(std::is_same_v<rmm::device_vector<int>::value_type, int>);
  const rmm::exec_policy policy{stream};
  const rmm::exec_policy_nosync nosync{stream, rmm::mr::get_current_device_resource_ref()};
  static_cast<void>(policy);
  static_cast<void>(nosync);
}

static void logs() {
  rmm::default_logger().set_level(rapids_logger::level_enum::warn);
  EXPECT(!rmm::default_logger().should_log(rapids_logger::level_enum::info));
  RMM_LOG_INFO("not %s", "seen");
  RMM_LOG_TRACE("compiled away");
  rmm::default_logger().flush();
  EXPECT(rmm::default_sink() != nullptr && !rmm::default_pattern().empty());
}

int main() {
  alignments();
  versions();
  devices();
  streams();
  errors();
  resources();
  adaptors();
  current_resource();
  buffers();
  vectors();
  allocators();
  logs();
  std::puts("done");
}
