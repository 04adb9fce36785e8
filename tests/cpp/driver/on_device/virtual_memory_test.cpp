// Reservations, pages and mappings on any device: what the driver must do so that memory can be moved under work.
#include <cuda.h>

#include <array>

#include "cenote/driver/device.hpp"
#include "cenote/driver/page_mapping.hpp"
#include "cenote/ground/bytes.hpp"
#include "cenote/ground/error.hpp"
#include "support/any_device.hpp"

namespace cenote::test {
namespace {

/// A kernel that runs until the host has set a flag; or ten seconds, so that no mistake keeps the device.
constexpr const char* spinning_kernel = R"(
.version 7.0
.target sm_70
.address_size 64
.visible .entry spin(.param .u64 flag)
{
  .reg .pred %stop;
  .reg .u32 %value;
  .reg .u64 %address, %start, %now;
  ld.param.u64 %address, [flag];
  cvta.to.global.u64 %address, %address;
  mov.u64 %start, %globaltimer;
again:
  ld.volatile.global.u32 %value, [%address];
  setp.ne.u32 %stop, %value, 0;
  @%stop bra done;
  mov.u64 %now, %globaltimer;
  sub.u64 %now, %now, %start;
  setp.gt.u64 %stop, %now, 10000000000;
  @%stop bra done;
  bra again;
done:
  ret;
}
)";

/// A stream with work that goes on until it is told to end.
class busy_stream {
 public:
  busy_stream() : flag_(static_cast<volatile unsigned*>(pinned_allocate(0, sizeof(unsigned)))) {
    *flag_ = 0;
    const device_scope scope(0);
    if (simulator() == nullptr) {
      start_kernel();
    } else {  // simulated work goes on until somebody waits for it
      fill_async(const_cast<unsigned*>(flag_), 0, sizeof(unsigned), view(), 0);
    }
  }

  ~busy_stream() {
    *flag_ = 1;
    synchronize(view(), 0);
    if (module_ != nullptr) {
      const device_scope scope(0);
      EXPECT_EQ(driver_function<decltype(cuModuleUnload)>("cuModuleUnload")(module_), CUDA_SUCCESS);
    }
    pinned_free(0, const_cast<unsigned*>(flag_));
  }
  busy_stream(const busy_stream&) = delete;
  busy_stream& operator=(const busy_stream&) = delete;

  bool is_busy() const {
    if (simulator() != nullptr) return driver_function<decltype(cenote_sim_pending)>("cenote_sim_pending")() > 0;
    return driver_function<decltype(cuStreamQuery)>("cuStreamQuery")(view().value()) == CUDA_ERROR_NOT_READY;
  }

 private:
  stream_ref view() const { return stream_.view(); }

  void start_kernel() {
    EXPECT_EQ(driver_function<decltype(cuModuleLoadData)>("cuModuleLoadData")(&module_, spinning_kernel), CUDA_SUCCESS);
    CUfunction spin = nullptr;
    EXPECT_EQ(driver_function<decltype(cuModuleGetFunction)>("cuModuleGetFunction")(&spin, module_, "spin"),
              CUDA_SUCCESS);
    auto flag = reinterpret_cast<CUdeviceptr>(flag_);
    std::array<void*, 1> arguments{&flag};
    EXPECT_EQ(driver_function<decltype(cuLaunchKernel)>("cuLaunchKernel")(spin, 1, 1, 1, 1, 1, 1, 0, view().value(),
                                                                          arguments.data(), nullptr),
              CUDA_SUCCESS);
  }

  const cuda_stream stream_{0, cuda_stream::kind::non_blocking};
  volatile unsigned* flag_;
  CUmodule module_ = nullptr;
};

class virtual_memory_on_device : public any_device {
 protected:
  void SetUp() override {
    any_device::SetUp();
    if (!has_virtual_memory(0)) GTEST_SKIP() << "the device has no virtual memory";
    step_ = virtual_memory_granularity(0);
    addresses_ = address_reservation::reserve(0, 64 * step_);
    ASSERT_NE(addresses_, nullptr);
  }

  void TearDown() override {
    addresses_ = nullptr;
    any_device::TearDown();
  }

  page_mapping map_new(std::byte* at, std::size_t bytes) const { return map(make_page(bytes), at); }
  page_mapping map(const std::shared_ptr<const physical_page>& page, std::byte* at,
                   std::span<const int> peers = {}) const {
    auto mapping = page_mapping::map(page, addresses_, at, peers);
    EXPECT_TRUE(mapping);
    return mapping;
  }

  static std::shared_ptr<const physical_page> make_page(std::size_t bytes) {
    return physical_page::create({.device = 0}, bytes);
  }

  std::byte* base() const { return addresses_->base(); }

  std::size_t step_ = 0;
  std::shared_ptr<const address_reservation> addresses_;
};

TEST_F(virtual_memory_on_device, what_was_written_at_one_address_is_read_at_another_after_an_event) {
  const cuda_stream writing(0, cuda_stream::kind::non_blocking);
  const cuda_stream reading(0, cuda_stream::kind::non_blocking);
  for (const std::size_t steps : {1, 16}) {
    const std::size_t bytes = steps * step_;
    const auto page = make_page(bytes);
    const auto one = map(page, base());
    const auto other = map(page, base() + 32 * step_);
    for (unsigned char value = 1; value <= 20; ++value) {
      fill_async(one.address(), value, bytes, writing.view(), 0);
      order_after(reading.view(), writing.view(), 0);
      EXPECT_TRUE(all_are(read(other.address(), bytes, reading.view()), value)) << "round " << int{value};
    }
  }
}

TEST_F(virtual_memory_on_device, page_keeps_its_bytes_when_it_moves) {
  auto mapping = map_new(base(), step_);
  fill_async(mapping.address(), 7, step_, {}, 0);
  auto moved = map(mapping.page(), base() + step_);
  synchronize(stream_ref{}, 0);
  mapping.unmap();
  EXPECT_TRUE(all_are(read(moved.address(), step_, {}), 7));
}

TEST_F(virtual_memory_on_device, nothing_waits_for_a_kernel_that_runs_elsewhere) {
  auto idle = map_new(base(), step_);
  auto page = make_page(step_);
  {
    const busy_stream busy;
    const auto expect_busy = [&](const char* after) { EXPECT_TRUE(busy.is_busy()) << after; };
    expect_busy("the start");
    auto more = address_reservation::reserve(0, 64 * step_);
    expect_busy("reserving");
    auto fresh = map_new(base() + step_, 16 * step_);
    expect_busy("creating and mapping");
    auto alias = map(idle.page(), base() + 32 * step_);
    expect_busy("mapping a second time");
    idle.unmap();
    expect_busy("unmapping one of two");
    fresh.unmap();
    expect_busy("unmapping and releasing");
    page = nullptr;
    expect_busy("releasing what was never mapped");
    more = nullptr;
    expect_busy("freeing addresses");
  }
}

TEST_F(virtual_memory_on_device, all_of_it_is_legal_in_a_capture) {
  const cuda_stream stream(0, cuda_stream::kind::non_blocking);
  const auto begin = driver_function<decltype(cuStreamBeginCapture)>("cuStreamBeginCapture_v2");
  const auto end = driver_function<decltype(cuStreamEndCapture)>("cuStreamEndCapture");
  for (const auto mode :
       {CU_STREAM_CAPTURE_MODE_GLOBAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, CU_STREAM_CAPTURE_MODE_RELAXED}) {
    ASSERT_EQ(begin(stream.view().value(), mode), CUDA_SUCCESS);
    page_mapping::map(make_page(step_), address_reservation::reserve(0, step_), base(), {}, stream.view());
    CUgraph graph = nullptr;
    EXPECT_EQ(end(stream.view().value(), &graph), CUDA_SUCCESS) << "mode " << mode;
    EXPECT_EQ(driver_function<decltype(cuGraphDestroy)>("cuGraphDestroy")(graph), CUDA_SUCCESS);
  }
}

TEST_F(virtual_memory_on_device, graph_keeps_addresses_and_no_pages) {
  const device_scope scope(0);
  const cuda_stream stream(0, cuda_stream::kind::non_blocking);
  auto mapping = map_new(base(), step_);
  CUgraph graph = nullptr;
  CUgraphExec executable = nullptr;
  ASSERT_EQ(driver_function<decltype(cuStreamBeginCapture)>("cuStreamBeginCapture_v2")(
                stream.view().value(), CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
            CUDA_SUCCESS);
  fill_async(mapping.address(), 7, step_, stream.view(), 0);
  ASSERT_EQ(driver_function<decltype(cuStreamEndCapture)>("cuStreamEndCapture")(stream.view().value(), &graph),
            CUDA_SUCCESS);
  ASSERT_EQ(
      driver_function<decltype(cuGraphInstantiateWithFlags)>("cuGraphInstantiateWithFlags")(&executable, graph, 0),
      CUDA_SUCCESS);
  for (int round = 0; round < 5; ++round) {
    mapping.unmap();
    mapping = map_new(base(), step_);
    fill_async(mapping.address(), 1, step_, stream.view(), 0);
    EXPECT_EQ(driver_function<decltype(cuGraphLaunch)>("cuGraphLaunch")(executable, stream.view().value()),
              CUDA_SUCCESS);
    EXPECT_TRUE(all_are(read(mapping.address(), step_, stream.view()), 7)) << "round " << round;
  }
  EXPECT_EQ(driver_function<decltype(cuGraphExecDestroy)>("cuGraphExecDestroy")(executable), CUDA_SUCCESS);
  EXPECT_EQ(driver_function<decltype(cuGraphDestroy)>("cuGraphDestroy")(graph), CUDA_SUCCESS);
}

TEST_F(virtual_memory_on_device, mapped_memory_has_no_handle_of_the_old_kind_and_a_range_is_one_page) {
  const auto first = map_new(base(), step_);
  const auto second = map_new(base() + step_, 2 * step_);
  const address_range range = find_address_range(second.address() + step_ + 5, 0);
  EXPECT_EQ(range.base, second.address());
  EXPECT_EQ(range.bytes, 2 * step_);
  EXPECT_EQ(kind_of(first.address() + 5, 0), memory_kind::device);
  EXPECT_EQ(device_of(first.address() + 5, 0), 0);
  CUipcMemHandle handle{};
  const device_scope scope(0);
  EXPECT_EQ(driver_function<decltype(cuIpcGetMemHandle)>("cuIpcGetMemHandle")(
                &handle, reinterpret_cast<CUdeviceptr>(first.address())),
            CUDA_ERROR_INVALID_VALUE);
}

TEST_F(virtual_memory_on_device, page_can_be_for_other_processes_and_for_a_network_card) {
  const page_properties wanted{.device = 0, .handles = {.posix_file_descriptor = true}, .for_rdma = true};
  const auto page = physical_page::create(wanted, step_);
  ASSERT_NE(page, nullptr);
  const auto mapping = map(page, base());
  fill_async(mapping.address(), 7, step_, {}, 0);
  EXPECT_TRUE(all_are(read(mapping.address(), step_, {}), 7));
}

TEST_F(virtual_memory_on_device, full_device_is_null_and_all_of_it_comes_back) {
  const std::size_t most = align_down(device_memory_info(0).free_bytes / 10 * 9, step_);
  for (int round = 0; round < 2; ++round) {
    std::vector<std::shared_ptr<const physical_page>> pages{make_page(most)};
    ASSERT_NE(pages.back(), nullptr) << "round " << round;
    for (const std::size_t bytes : {64 * step_, step_}) {
      while (auto page = make_page(bytes)) pages.push_back(std::move(page));
    }
    const auto mapping = page_mapping::map(pages.back(), addresses_, base());  // the page tables may not have room
    if (!mapping) continue;
    fill_async(mapping.address(), 7, step_, {}, 0);
    EXPECT_TRUE(all_are(read(mapping.address(), step_, {}), 7));
  }
}

TEST_F(virtual_memory_on_device, wrong_sizes_and_places_are_errors) {
  EXPECT_THROW(make_page(step_ / 2), cuda_error);
  EXPECT_EQ(make_page(std::size_t{1} << 50), nullptr);
  const auto mapping = map_new(base(), step_);
  EXPECT_THROW(page_mapping::map(make_page(step_), addresses_, base()), cuda_error) << "where another one is";
  EXPECT_THROW(page_mapping::map(make_page(step_), addresses_, base() + 1), cuda_error);
}

TEST_F(virtual_memory_on_device, other_device_reads_and_writes_what_is_open_to_it) {
  if (tested_device_count() < 2) GTEST_SKIP() << "needs two devices";
  const cuda_stream other(1, cuda_stream::kind::non_blocking);
  const std::array peers{1};
  const auto open = map(make_page(step_), base(), peers);
  const auto later = map_new(base() + step_, step_);
  later.open_to(1);
  for (const page_mapping* mapping : {&open, &later}) {
    fill_async(mapping->address(), 7, step_, other.view(), 1);
    EXPECT_TRUE(all_are(read(mapping->address(), step_, other.view(), 1), 7));
  }
}

}  // namespace
}  // namespace cenote::test
