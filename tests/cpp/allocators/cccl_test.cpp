// CCCL: every resource serves where a cuda::mr resource is wanted, and every cuda::mr resource as an upstream.
//
// Skipped where CCCL's headers are not, or too old (cccl.hpp says which). No CUDA runtime is linked.
#include "support/simulated.hpp"

#if __has_include(<cuda/version>) && __has_include(<crt/host_defines.h>)
#include <cuda/version>
#endif

#if !defined(CCCL_VERSION) || CCCL_VERSION < 3002000

TEST(cccl, is_there) { GTEST_SKIP() << "needs CCCL 3.2: pip install 'nvidia-cuda-cccl>=13.2' nvidia-cuda-crt"; }

#else

#include <cstring>
#include <ostream>

#include "cenote/adaptors/aligned_resource_adaptor.hpp"
#include "cenote/adaptors/failure_callback_resource_adaptor.hpp"
#include "cenote/adaptors/guard_resource_adaptor.hpp"
#include "cenote/adaptors/limiting_resource_adaptor.hpp"
#include "cenote/adaptors/logging_resource_adaptor.hpp"
#include "cenote/adaptors/prefetch_resource_adaptor.hpp"
#include "cenote/adaptors/statistics_resource_adaptor.hpp"
#include "cenote/adaptors/thread_safe_resource_adaptor.hpp"
#include "cenote/adaptors/tracking_resource_adaptor.hpp"
#include "cenote/cccl.hpp"
#include "cenote/resources/arena_memory_resource.hpp"
#include "cenote/resources/binning_memory_resource.hpp"
#include "cenote/resources/callback_memory_resource.hpp"
#include "cenote/resources/cuda_async_managed_memory_resource.hpp"
#include "cenote/resources/cuda_async_memory_resource.hpp"
#include "cenote/resources/cuda_async_view_memory_resource.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/fixed_size_memory_resource.hpp"
#include "cenote/resources/managed_memory_resource.hpp"
#include "cenote/resources/pinned_host_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/resources/sam_headroom_memory_resource.hpp"
#include "cenote/resources/system_memory_resource.hpp"
#include "cenote/surface/specification.hpp"

// What cuda::cuda_error makes its text with; the runtime that has it is not linked.
const char* CUDARTAPI cudaGetErrorString(cudaError_t) { return "an error of the test's"; }

namespace cenote::test {
namespace {

using cuda::mr::device_accessible;
using cuda::mr::host_accessible;
using any_device_resource = cuda::mr::any_resource<device_accessible>;
using any_host_device_resource = cuda::mr::any_resource<device_accessible, host_accessible>;
using device_resource_ref = cuda::mr::resource_ref<device_accessible>;

static_assert(cuda::mr::resource_with<cccl_device_resource, device_accessible>);
static_assert(!cuda::mr::resource_with<cccl_device_resource, host_accessible>);
static_assert(cuda::mr::resource_with<cccl_host_device_resource, device_accessible, host_accessible>);
static_assert(std::is_constructible_v<any_device_resource, cccl_device_resource>);
static_assert(std::is_constructible_v<any_device_resource, cccl_host_device_resource>);
static_assert(std::is_constructible_v<any_host_device_resource, cccl_host_device_resource>);
static_assert(std::is_constructible_v<device_resource_ref, cccl_device_resource&>);
static_assert(std::is_convertible_v<cuda::stream_ref, stream_ref>);
static_assert(!std::is_convertible_v<std::unique_ptr<CUstream_st>, stream_ref>, "what has get() alone is no stream");

template <class Resource>
constexpr bool has_handles =
    std::conjunction_v<std::is_constructible<cccl_device_resource, std::shared_ptr<Resource> >,
                       std::is_constructible<cccl_host_device_resource, std::shared_ptr<Resource> > >;

template <class... Resources>
constexpr bool all_have_handles = (has_handles<Resources> && ...);

static_assert(all_have_handles<arena_memory_resource, binning_memory_resource, callback_memory_resource,
                               cuda_async_managed_memory_resource, cuda_async_memory_resource,
                               cuda_async_view_memory_resource, cuda_memory_resource, fixed_size_memory_resource,
                               managed_memory_resource, pinned_host_memory_resource, pool_memory_resource,
                               sam_headroom_memory_resource, system_memory_resource, cccl_memory_resource>);
static_assert(all_have_handles<aligned_resource_adaptor, failure_callback_resource_adaptor, guard_resource_adaptor,
                               limiting_resource_adaptor, logging_resource_adaptor, prefetch_resource_adaptor,
                               statistics_resource_adaptor, thread_safe_resource_adaptor, tracking_resource_adaptor>);

std::shared_ptr<memory_resource> device_memory() { return std::make_shared<cuda_memory_resource>(0); }

struct row {
  const char* name;
  const char* specification;
  bool is_host_accessible;
};

void PrintTo(const row& r, std::ostream* out) { *out << r.specification; }

const row table[] = {
    {"cuda", "cuda", false},
    {"managed", "managed", true},
    {"pinned", "pinned", true},
    {"system", "system", true},
    {"sam_headroom", "sam_headroom:headroom=1GiB", true},
    {"async", "async", false},
    {"async_managed", "async_managed", true},
    {"pool", "pool:initial=16MiB | cuda", false},
    {"pool_over_pinned", "pool:initial=16MiB | pinned", true},
    {"arena", "arena:size=64MiB | cuda", false},
    {"fixed_size", "fixed_size:block_size=32MiB,preallocate=2 | cuda", false},
    {"binning", "binning:min=8,max=18 | managed", true},
    {"statistics", "statistics | pool:initial=16MiB | cuda", false},
    {"limiting", "limiting:limit=1GiB | managed", true},
};

class cccl_handle : public simulated_device, public testing::WithParamInterface<row> {};

INSTANTIATE_TEST_SUITE_P(of, cccl_handle, testing::ValuesIn(table), [](const auto& i) { return i.param.name; });

TEST_P(cccl_handle, gives_usable_memory_through_any_resource_and_resource_ref) {
  const cuda_stream stream(0, cuda_stream::kind::non_blocking);
  const cuda::stream_ref cccl_stream = to_cccl(stream.view());
  any_device_resource any(cccl_device_resource(make_resource(GetParam().specification, 0)));
  device_resource_ref ref(any);
  const std::vector<unsigned char> written(1000, 0x5a);
  for (const std::size_t alignment : {1, 256, 4096}) {
    void* const one = any.allocate(cccl_stream, written.size(), alignment);
    void* const two = ref.allocate(cccl_stream, written.size(), alignment);
    EXPECT_NE(one, two);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(one) % alignment, 0u);
    copy_async(one, written.data(), written.size(), cccl_stream, 0);
    copy_async(two, one, written.size(), cccl_stream, 0);
    EXPECT_EQ(read(two, written.size(), cccl_stream), written);
    any.deallocate(cccl_stream, two, written.size(), alignment);
    ref.deallocate(cccl_stream, one, written.size(), alignment);
    void* const three = ref.allocate_sync(written.size(), alignment);
    EXPECT_NE(three, nullptr);
    any.deallocate_sync(three, written.size(), alignment);
  }
}

TEST_P(cccl_handle, is_host_accessible_where_the_resource_is) {
  const auto resource = make_resource(GetParam().specification, 0);
  if (!GetParam().is_host_accessible) {
    EXPECT_THROW(cccl_host_device_resource{resource}, std::invalid_argument);
    return;
  }
  any_host_device_resource any{cccl_host_device_resource(resource)};
  void* const block = any.allocate_sync(100, 16);
  std::memset(block, 1, 100);
  any.deallocate_sync(block, 100, 16);
}

class cccl : public simulated_device {
 protected:
  const cuda::stream_ref stream_ = to_cccl({});
};

TEST_F(cccl, handles_are_equal_for_one_resource) {
  const auto one = device_memory();
  const cccl_device_resource handle(one);
  EXPECT_EQ(handle, cccl_device_resource(one));
  EXPECT_NE(handle, cccl_device_resource(device_memory()));
  EXPECT_EQ(any_device_resource(handle), any_device_resource(cccl_device_resource(one)));
  EXPECT_NE(any_device_resource(handle), any_device_resource(cccl_device_resource(device_memory())));
}

TEST_F(cccl, a_handle_needs_a_resource) { EXPECT_THROW(cccl_device_resource{nullptr}, std::invalid_argument); }

TEST_F(cccl, any_resource_keeps_the_resource_alive) {
  auto resource = device_memory();
  const std::weak_ptr<memory_resource> watched = resource;
  {
    any_device_resource any(cccl_device_resource(std::move(resource)));
    any_device_resource copy = any;
    any = any_device_resource(cccl_device_resource(device_memory()));
    EXPECT_FALSE(watched.expired());
    copy.deallocate(stream_, copy.allocate(stream_, 100, 16), 100, 16);
  }
  EXPECT_TRUE(watched.expired());
}

TEST_F(cccl, failures_keep_their_types_through_any_resource) {
  any_device_resource any(cccl_device_resource(std::make_shared<limiting_resource_adaptor>(device_memory(), 1000)));
  try {
    any.allocate(stream_, 2000, 16);
    FAIL() << "the limit was passed";
  } catch (const std::bad_alloc& error) {
    const auto* const ours = dynamic_cast<const out_of_memory*>(&error);
    ASSERT_NE(ours, nullptr);
    EXPECT_EQ(ours->requested(), 2000u);
  }
  EXPECT_THROW(any.allocate(stream_, 100, 3), std::invalid_argument);
  cenote_sim_fail("cuMemAlloc", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(any.allocate(stream_, 100, 16), cenote::cuda_error);
  cenote_sim_fail("cuMemAlloc", 0, 0);
}

TEST_F(cccl, streams_keep_their_handles) {
  const cuda_stream own(0);
  const stream_ref there_and_back = to_cccl(own.view());
  EXPECT_EQ(there_and_back, own.view());
  EXPECT_EQ(stream_ref(stream_), stream_ref());
}

/// What a program's CCCL resource was asked, and how it answers.
struct asked {
  std::shared_ptr<memory_resource> memory = device_memory();
  std::function<void()> before_allocate = [] {};
  stream_ref stream;
  std::size_t bytes = 0;
  std::size_t alignment = 0;
  int live = 0;
};

/// A CCCL resource as a program may write one.
template <class... Properties>
struct program_cccl_resource {
  std::shared_ptr<asked> log = std::make_shared<asked>();

  void* allocate(cuda::stream_ref stream, std::size_t bytes, std::size_t alignment) {
    log->before_allocate();
    log->stream = stream;
    log->bytes = bytes;
    log->alignment = alignment;
    ++log->live;
    return log->memory->allocate(stream, bytes, alignment);
  }
  void deallocate(cuda::stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) noexcept {
    EXPECT_EQ(log->alignment, alignment);
    --log->live;
    log->memory->deallocate(stream, pointer, bytes, alignment);
  }
  void* allocate_sync(std::size_t bytes, std::size_t alignment) { return allocate(to_cccl({}), bytes, alignment); }
  void deallocate_sync(void* pointer, std::size_t bytes, std::size_t alignment) noexcept {
    deallocate(to_cccl({}), pointer, bytes, alignment);
  }
  friend bool operator==(const program_cccl_resource&, const program_cccl_resource&) = default;

  template <class Property>
    requires(std::same_as<Property, Properties> || ...)
  friend constexpr void get_property(const program_cccl_resource&, Property) noexcept {}
};

using program_resource_of_the_device = program_cccl_resource<device_accessible>;
using program_resource_of_both = program_cccl_resource<device_accessible, host_accessible>;

class cccl_upstream : public simulated_device {
 protected:
  const program_resource_of_the_device program_{};
  const std::shared_ptr<asked> log_ = program_.log;
  const cuda_stream stream_{0, cuda_stream::kind::non_blocking};
};

TEST_F(cccl_upstream, is_asked_for_bytes_on_the_stream_at_the_default_alignment) {
  cccl_memory_resource resource(program_);
  for (const std::size_t alignment : {1, 256, 4096}) {
    void* const block = resource.allocate(stream_.view(), 1000, alignment);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % alignment, 0u);
    EXPECT_EQ(log_->stream, stream_.view());
    EXPECT_GE(log_->bytes, 1000u);
    EXPECT_EQ(log_->alignment, default_alignment);
    EXPECT_EQ(log_->live, 1);
    resource.deallocate(stream_.view(), block, 1000, alignment);
    EXPECT_EQ(log_->live, 0);
  }
  EXPECT_EQ(resource.allocate(stream_.view(), 0), nullptr);
  EXPECT_EQ(describe(resource), "cccl");
  EXPECT_EQ(resource.source(), any_device_resource(program_));
}

TEST_F(cccl_upstream, serves_a_pool_and_is_given_everything_back) {
  {
    const auto pool =
        std::make_shared<pool_memory_resource>(std::make_shared<cccl_memory_resource>(program_), 1 * MiB, std::nullopt);
    void* const small = pool->allocate(stream_.view(), 1000);
    void* const large = pool->allocate(stream_.view(), 8 * MiB);
    EXPECT_EQ(log_->live, 2);
    pool->deallocate(stream_.view(), large, 8 * MiB);
    pool->deallocate(stream_.view(), small, 1000);
    EXPECT_EQ(describe(*pool), "pool:initial=1MiB | cccl");
    pool->check();
  }
  EXPECT_EQ(log_->live, 0);
}

TEST_F(cccl_upstream, may_be_a_resource_of_ours_behind_any_resource) {
  const auto counted = std::make_shared<statistics_resource_adaptor>(device_memory());
  cccl_memory_resource resource(any_device_resource{cccl_device_resource(counted)});
  void* const block = resource.allocate(stream_.view(), 1000);
  EXPECT_EQ(counted->counters().bytes.current, 1000);
  resource.deallocate(stream_.view(), block, 1000);
  EXPECT_EQ(counted->counters().bytes.current, 0);
}

TEST_F(cccl_upstream, is_kept_alive_by_value) {
  auto program = std::make_unique<program_resource_of_the_device>();
  const std::weak_ptr<asked> watched = program->log;
  auto resource = std::make_unique<cccl_memory_resource>(*program);
  program.reset();
  resource->deallocate({}, resource->allocate({}, 100), 100);
  EXPECT_FALSE(watched.expired());
  resource.reset();
  EXPECT_TRUE(watched.expired());
}

TEST_F(cccl_upstream, that_throws_bad_alloc_has_run_out_of_memory) {
  log_->before_allocate = [] { throw std::bad_alloc(); };
  cccl_memory_resource resource(program_);
  EXPECT_EQ(resource.try_allocate({}, 100), nullptr);
  EXPECT_THROW(resource.allocate({}, 100), out_of_memory);
}

TEST_F(cccl_upstream, that_throws_cuda_error_has_run_out_of_memory_only_if_it_says_so) {
  cccl_memory_resource resource(program_);
  log_->before_allocate = [] { throw cuda::cuda_error(cudaErrorMemoryAllocation, "no memory"); };
  EXPECT_EQ(resource.try_allocate({}, 100), nullptr);
  log_->before_allocate = [] { throw cuda::cuda_error(cudaErrorIllegalAddress, "another error"); };
  EXPECT_THROW(resource.try_allocate({}, 100), cuda::cuda_error);
}

TEST_F(cccl_upstream, lets_what_else_it_throws_reach_the_caller) {
  log_->before_allocate = [] { throw std::domain_error("my error"); };
  cccl_memory_resource resource(program_);
  EXPECT_THROW(resource.try_allocate({}, 100), std::domain_error);
}

TEST_F(cccl_upstream, is_asked_again_by_a_failure_callback) {
  log_->before_allocate = [] { throw std::bad_alloc(); };
  failure_callback_resource_adaptor adaptor(std::make_shared<cccl_memory_resource>(program_),
                                            [&](std::size_t, stream_ref, std::size_t) {
                                              log_->before_allocate = [] {};
                                              return true;
                                            });
  adaptor.deallocate({}, adaptor.allocate({}, 100), 100);
  EXPECT_EQ(log_->live, 0);
}

TEST_F(cccl_upstream, says_by_its_type_whether_the_host_reaches_its_memory) {
  EXPECT_FALSE(cccl_memory_resource(program_).is_host_accessible());
  EXPECT_TRUE(cccl_memory_resource(program_resource_of_both{}).is_host_accessible());
  EXPECT_TRUE(cccl_memory_resource(any_host_device_resource(program_resource_of_both{})).is_host_accessible());
}

TEST_F(cccl_upstream, is_on_a_device_that_there_is) {
  EXPECT_EQ(cccl_memory_resource(program_).device(), 0);
  EXPECT_EQ(cccl_memory_resource(program_, 1).device(), 1);
  EXPECT_THROW(cccl_memory_resource(program_, 2), std::out_of_range);
}

}  // namespace
}  // namespace cenote::test

#endif
