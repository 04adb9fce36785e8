#include "cenote/containers/device_buffer.hpp"

#include <numeric>
#include <type_traits>

#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/managed_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/surface/registry.hpp"
#include "support/containers.hpp"
#include "support/program_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

class buffer : public containers {
 protected:
  void SetUp() override {
    containers::SetUp();
    std::iota(bytes_.begin(), bytes_.end(), static_cast<unsigned char>(0));
  }

  device_buffer filled(stream_ref stream) { return {bytes_.data(), bytes_.size(), stream, resource_}; }

  std::vector<unsigned char> bytes_ = std::vector<unsigned char>(1000);
};

static_assert(!std::is_copy_constructible_v<device_buffer> && !std::is_copy_assignable_v<device_buffer>,
              "a copy names its stream");
static_assert(std::is_nothrow_move_constructible_v<device_buffer> && std::is_nothrow_move_assignable_v<device_buffer>);

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

TEST_F(buffer, copies_another_buffer_without_its_spare_capacity) {
  auto first = filled(a());
  first.reserve(4'000, a());
  const device_buffer second(first, a(), resource_);
  EXPECT_NE(second.data(), first.data());
  EXPECT_EQ(second.capacity(), bytes_.size());
  EXPECT_EQ(second.stream(), a());
  EXPECT_EQ(read(second.data(), second.size(), a()), bytes_);
  const device_buffer none(device_buffer(0, a(), resource_), a(), resource_);
  EXPECT_TRUE(none.is_empty());
}

TEST_F(buffer, takes_the_current_resource_if_it_is_given_none) {
  set_per_device_resource(0, resource_);
  const device_buffer sized(100, a());
  const device_buffer aligned(100, 512, a());
  const device_buffer copied(bytes_.data(), bytes_.size(), a());
  const device_buffer copied_and_aligned(bytes_.data(), bytes_.size(), 512, a());
  const device_buffer twin(copied, a());
  for (const auto* buffer : {&sized, &aligned, &copied, &copied_and_aligned, &twin}) {
    EXPECT_EQ(buffer->resource(), resource_);
  }
  reset_per_device_resource(0);
  EXPECT_NE(device_buffer(8, a()).resource(), resource_);
  reset_per_device_resource(0);
}

TEST_F(buffer, keeps_its_alignment_wherever_its_contents_go) {
  for (const std::size_t alignment : {1, 16, 256, 4096, 65536}) {
    device_buffer first(bytes_.data(), bytes_.size(), alignment, a(), resource_);
    const device_buffer between(1, a(), resource_);
    device_buffer buffer(first, a(), resource_);
    buffer.resize(10'000, a());
    buffer.shrink_to_fit(a());
    auto moved = std::move(buffer);
    for (const auto* one : {&first, &moved}) {
      EXPECT_EQ(one->alignment(), alignment);
      EXPECT_TRUE(is_aligned(one->data(), std::max(alignment, default_alignment)));
      EXPECT_EQ(read(one->data(), bytes_.size(), a()), bytes_);
    }
    first = device_buffer(1, a(), resource_);
    EXPECT_EQ(first.alignment(), default_alignment);
  }
}

TEST_F(buffer, is_freed_with_the_alignment_that_it_was_allocated_with) {
  const auto program = std::make_shared<program_resource>(resource_);
  {
    device_buffer buffer(1000, 4096, a(), program);
    EXPECT_EQ(program->last_alignment, 4096u);
    program->last_alignment = 0;
    buffer.resize(2000, a());
    EXPECT_EQ(program->last_alignment, 4096u);
    buffer = device_buffer(100, 512, a(), program);
    EXPECT_EQ(program->last_alignment, 4096u);
    EXPECT_EQ(program->last_bytes, 2000u);
  }
  EXPECT_EQ(program->last_alignment, 512u);
  EXPECT_EQ(program->last_bytes, 100u);
}

TEST_F(buffer, refuses_an_alignment_that_is_no_power_of_two) {
  for (const std::size_t alignment : {0, 3, 255, 768}) {
    EXPECT_THROW(device_buffer(8, alignment, a(), resource_), std::invalid_argument);
    EXPECT_THROW(device_buffer(std::size_t{0}, alignment, a(), resource_), std::invalid_argument);
    EXPECT_THROW(device_buffer(bytes_.data(), 8, alignment, a(), resource_), std::invalid_argument);
  }
}

TEST_F(buffer, counts_its_bytes_with_and_without_a_sign) {
  auto buffer = filled(a());
  EXPECT_EQ(buffer.ssize(), 1000);
  EXPECT_FALSE(buffer.is_empty());
  buffer.resize(0, a());
  EXPECT_EQ(buffer.ssize(), 0);
  EXPECT_TRUE(buffer.is_empty());
  EXPECT_EQ(buffer.capacity(), 1000u);
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

TEST_F(buffer, is_opened_and_closed_at_once_where_its_resource_can) {
  const auto pool = std::make_shared<pool_memory_resource>(std::make_shared<cuda_memory_resource>(0), 1 * MiB);
  device_buffer made(0, a(), pool);
  EXPECT_FALSE(made.open_at_once(1000)) << "the pool has none in front";
  EXPECT_EQ(made.size(), 0u);
  for (int i = 0; i < 4; ++i) device_buffer(1000, a(), pool).close();
  ASSERT_TRUE(made.open_at_once(1000));
  EXPECT_EQ(made.size(), 1000u);
  EXPECT_EQ(made.capacity(), 1000u);
  EXPECT_EQ(pool->state().in_use, 1024u);
  EXPECT_FALSE(made.open_at_once(1000)) << "it has memory";
  EXPECT_TRUE(made.close_at_once());
  EXPECT_EQ(pool->state().in_use, 0u);
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
