#include "cenote/containers/device_buffer.hpp"

#include <numeric>

#include "cenote/adaptors/statistics_resource_adaptor.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/managed_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "simulated.hpp"

namespace cenote::test {
namespace {

class buffer : public simulated_device {
 protected:
  void SetUp() override {
    simulated_device::SetUp();
    std::iota(bytes_.begin(), bytes_.end(), static_cast<unsigned char>(0));
    const auto pool =
        std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), 32 * MiB, 32 * MiB);
    resource_ = std::make_shared<statistics_resource_adaptor>(pool);
    a_.emplace(0, cuda_stream::kind::non_blocking);
    b_.emplace(0, cuda_stream::kind::non_blocking);
  }

  void TearDown() override {
    EXPECT_EQ(resource_->counters().bytes.current, 0) << "freed once, with the bytes it was allocated with";
    EXPECT_EQ(resource_->counters().count.current, 0);
    resource_->check();
    a_.reset();
    b_.reset();
    resource_.reset();
    simulated_device::TearDown();
  }

  device_buffer filled(stream_ref stream) { return {bytes_.data(), bytes_.size(), stream, resource_}; }

  stream_ref a() const { return a_->view(); }
  stream_ref b() const { return b_->view(); }

  std::vector<unsigned char> bytes_ = std::vector<unsigned char>(1000);
  std::shared_ptr<statistics_resource_adaptor> resource_;
  std::optional<cuda_stream> a_;
  std::optional<cuda_stream> b_;
};

TEST_F(buffer, holds_what_it_was_copied_from) {
  auto buffer = filled(a());
  EXPECT_EQ(buffer.size(), bytes_.size());
  std::vector<unsigned char> out(bytes_.size());
  buffer.copy_to(out.data(), out.size(), a());
  synchronize(a(), 0);
  EXPECT_EQ(out, bytes_);
}

TEST_F(buffer, copies_from_another_buffer) {
  const auto first = filled(a());
  const device_buffer second(first.data(), first.size(), a(), resource_);
  EXPECT_NE(second.data(), first.data());
  EXPECT_EQ(read(second.data(), second.size(), a()), bytes_);
}

TEST_F(buffer, of_zero_bytes_has_no_memory) {
  device_buffer none(0, a(), resource_);
  EXPECT_EQ(none.data(), nullptr);
  EXPECT_EQ(none.size(), 0u);
  const device_buffer copied(nullptr, 0, a(), resource_);
  EXPECT_EQ(copied.data(), nullptr);
  none.resize(10, a());
  EXPECT_EQ(none.size(), 10u);
}

TEST_F(buffer, cannot_be_copied_from_null) {
  EXPECT_THROW(device_buffer(nullptr, 8, a(), resource_), std::logic_error);
}

TEST_F(buffer, needs_a_resource) { EXPECT_THROW(device_buffer(8, a(), nullptr), std::invalid_argument); }

TEST_F(buffer, moves_its_memory_and_leaves_an_empty_one) {
  auto from = filled(a());
  void* const memory = from.data();
  device_buffer to(std::move(from));
  EXPECT_EQ(to.data(), memory);
  EXPECT_EQ(to.stream(), a());
  EXPECT_EQ(from.data(), nullptr);  // NOLINT: what is left is promised
  EXPECT_EQ(from.size(), 0u);
  EXPECT_EQ(from.capacity(), 0u);
  from.resize(16, a());
  EXPECT_NE(from.data(), nullptr) << "it can be used again";
}

TEST_F(buffer, frees_its_own_memory_when_another_is_moved_into_it) {
  auto to = filled(a());
  auto from = filled(b());
  void* const memory = from.data();
  to = std::move(from);
  EXPECT_EQ(to.data(), memory);
  EXPECT_EQ(to.stream(), b());
  EXPECT_EQ(resource_->counters().count.current, 1);
}

TEST_F(buffer, keeps_its_memory_when_moved_into_itself) {
  auto buffer = filled(a());
  auto& same = buffer;
  buffer = std::move(same);
  EXPECT_EQ(buffer.size(), bytes_.size());
  EXPECT_EQ(read(buffer.data(), buffer.size(), a()), bytes_);
}

TEST_F(buffer, keeps_its_contents_when_it_grows) {
  auto buffer = filled(a());
  buffer.resize(100'000, a());
  EXPECT_EQ(buffer.size(), 100'000u);
  EXPECT_EQ(read(buffer.data(), bytes_.size(), a()), bytes_);
  EXPECT_EQ(resource_->counters().count.current, 1);
}

TEST_F(buffer, keeps_its_memory_when_it_shrinks) {
  auto buffer = filled(a());
  void* const memory = buffer.data();
  buffer.resize(10, a());
  EXPECT_EQ(buffer.data(), memory);
  EXPECT_EQ(buffer.capacity(), bytes_.size());
  buffer.resize(bytes_.size(), a());
  EXPECT_EQ(read(buffer.data(), bytes_.size(), a()), bytes_);
}

TEST_F(buffer, gives_memory_back_when_it_is_shrunk_to_fit) {
  auto buffer = filled(a());
  void* const memory = buffer.data();
  buffer.shrink_to_fit(b());
  EXPECT_EQ(buffer.data(), memory) << "it fits already";
  EXPECT_EQ(buffer.stream(), b());
  buffer.resize(10, a());
  buffer.shrink_to_fit(a());
  EXPECT_EQ(buffer.capacity(), 10u);
  EXPECT_EQ(resource_->counters().bytes.current, 10);
  EXPECT_EQ(read(buffer.data(), 10, a()), std::vector(bytes_.begin(), bytes_.begin() + 10));
  buffer.resize(0, a());
  buffer.shrink_to_fit(a());
  EXPECT_EQ(buffer.data(), nullptr);
  EXPECT_EQ(resource_->counters().count.current, 0);
}

TEST_F(buffer, is_empty_once_closed_and_can_be_used_again) {
  auto buffer = filled(a());
  buffer.close();
  buffer.close();
  EXPECT_EQ(buffer.data(), nullptr);
  EXPECT_EQ(buffer.size(), 0u);
  EXPECT_EQ(buffer.capacity(), 0u);
  EXPECT_EQ(resource_->counters().count.current, 0);
  buffer.resize(16, a());
  EXPECT_NE(buffer.data(), nullptr);
}

TEST_F(buffer, hands_its_memory_over) {
  auto buffer = filled(a());
  void* const memory = buffer.data();
  const std::size_t capacity = buffer.capacity();
  EXPECT_EQ(buffer.release(), memory);
  EXPECT_EQ(buffer.data(), nullptr);
  EXPECT_EQ(buffer.capacity(), 0u);
  EXPECT_EQ(buffer.release(), nullptr);
  EXPECT_EQ(resource_->counters().count.current, 1);
  resource_->deallocate(a(), memory, capacity);
}

TEST_F(buffer, is_prefetched_where_its_memory_can_move) {
  const device_buffer managed(1000, a(), std::make_shared<managed_memory_resource>(0));
  for (const int location : {host_location, 0, 1}) managed.prefetch(location, a());
  EXPECT_FALSE(is_done(a(), 0));
  synchronize(a(), 0);
  filled(a()).prefetch(0, a());
  device_buffer(0, a(), resource_).prefetch(0, a());
}

TEST_F(buffer, reserves_without_changing_its_size) {
  auto buffer = filled(a());
  buffer.reserve(5'000, a());
  EXPECT_EQ(buffer.size(), bytes_.size());
  EXPECT_EQ(buffer.capacity(), 5'000u);
  void* const memory = buffer.data();
  buffer.resize(5'000, a());
  EXPECT_EQ(buffer.data(), memory);
}

TEST_F(buffer, is_as_it_was_when_growing_fails) {
  auto buffer = filled(a());
  void* const memory = buffer.data();
  EXPECT_THROW(buffer.resize(1024 * GiB, b()), out_of_memory);
  EXPECT_EQ(buffer.data(), memory);
  EXPECT_EQ(buffer.size(), bytes_.size());
  EXPECT_EQ(buffer.stream(), a());
  cenote_sim_fail("cuMemcpyAsync", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(buffer.resize(5'000, b()), cuda_error);
  EXPECT_EQ(buffer.data(), memory);
  EXPECT_EQ(buffer.stream(), a());
}

TEST_F(buffer, leaks_nothing_when_its_copy_fails) {
  cenote_sim_fail("cuMemcpyAsync", 1, CUDA_ERROR_UNKNOWN);
  EXPECT_THROW(filled(a()), cuda_error);
  EXPECT_EQ(resource_->counters().count.current, 0);
}

TEST_F(buffer, is_freed_on_the_stream_that_it_used_last) {
  void* memory = nullptr;
  {
    device_buffer large(31 * MiB, a(), resource_);
    memory = large.data();
    large.set_stream(b());
  }
  const auto& pool = dynamic_cast<pool_memory_resource&>(*resource_->upstream());
  const auto own_before = pool.counters().from_own_stream;
  const device_buffer again(31 * MiB, b(), resource_);
  EXPECT_EQ(again.data(), memory);
  EXPECT_EQ(pool.counters().from_own_stream, own_before + 1) << "B owned the freed block: no wait is needed";
}

TEST_F(buffer, works_on_its_device_while_another_is_current) {
  const device_scope elsewhere(1);
  auto buffer = filled({});
  buffer.resize(10'000, {});
  EXPECT_EQ(buffer.device(), 0);
  EXPECT_EQ(device_of(buffer.data(), 0), 0);
  EXPECT_EQ(read(buffer.data(), bytes_.size(), {}), bytes_);
  EXPECT_EQ(current_device(), 1);
}

TEST_F(buffer, keeps_its_resource_alive) {
  std::weak_ptr<memory_resource> watched;
  {
    auto own = std::make_shared<cuda_memory_resource>(0);
    watched = own;
    const device_buffer buffer(64, {}, std::move(own));
    EXPECT_FALSE(watched.expired());
  }
  EXPECT_TRUE(watched.expired());
}

}  // namespace
}  // namespace cenote::test
