// The typed allocators: of a resource, and bound to a stream for standard containers.
#include <cstring>
#include <limits>
#include <list>
#include <map>
#include <string>
#include <vector>

#include "cenote/adaptors/statistics_resource_adaptor.hpp"
#include "cenote/allocators/polymorphic_allocator.hpp"
#include "cenote/allocators/stream_allocator_adaptor.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/surface/specification.hpp"
#include "support/program_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

template <class T>
using bound_allocator = stream_allocator_adaptor<polymorphic_allocator<T>>;
template <class T>
using bound_vector = std::vector<T, bound_allocator<T>>;

struct alignas(1024) widely_aligned {
  std::byte bytes[2048];
};

class allocators : public simulated_device {
 protected:
  static std::shared_ptr<memory_resource> cuda() { return std::make_shared<cuda_memory_resource>(0); }
};

TEST_F(allocators, polymorphic_counts_in_objects_aligned_for_them) {
  const auto program = std::make_shared<program_resource>(cuda());
  polymorphic_allocator<std::uint64_t> numbers(program);
  std::uint64_t* const block = numbers.allocate(100, {});
  EXPECT_EQ(program->last_bytes, 800u);
  program->last_bytes = 0;
  numbers.deallocate(block, 100, {});
  EXPECT_EQ(program->last_bytes, 800u);

  polymorphic_allocator<widely_aligned> wide(cuda());
  widely_aligned* const aligned = wide.allocate(3, {});
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(aligned) % alignof(widely_aligned), 0u);
  wide.deallocate(aligned, 3, {});
}

TEST_F(allocators, polymorphic_never_wraps) {
  const auto program = std::make_shared<program_resource>(cuda());
  polymorphic_allocator<std::uint64_t> allocator(program);
  const std::size_t most = std::numeric_limits<std::size_t>::max() / sizeof(std::uint64_t);
  EXPECT_THROW(allocator.allocate(most + 1, {}), std::bad_array_new_length);
  EXPECT_THROW(allocator.allocate(std::numeric_limits<std::size_t>::max(), {}), std::bad_array_new_length);
  EXPECT_THROW(allocator.allocate(most, {}), out_of_memory);
  EXPECT_EQ(program->allocations, 0);
  EXPECT_EQ(allocator.allocate(0, {}), nullptr);
}

TEST_F(allocators, polymorphic_takes_the_resource_that_is_current_when_it_is_made) {
  const auto mine = cuda();
  const auto previous = set_per_device_resource(0, mine);
  const polymorphic_allocator<int> allocator;
  reset_per_device_resource(0);
  if (previous) set_per_device_resource(0, previous);
  EXPECT_EQ(allocator.resource(), mine);
}

TEST_F(allocators, polymorphic_needs_a_resource) {
  EXPECT_THROW(polymorphic_allocator<int>{nullptr}, std::invalid_argument);
}

TEST_F(allocators, are_equal_where_one_may_free_what_the_other_gave) {
  const auto one = cuda();
  const auto two = cuda();
  EXPECT_EQ(polymorphic_allocator<int>(one), polymorphic_allocator<char>(one));
  EXPECT_NE(polymorphic_allocator<int>(one), polymorphic_allocator<int>(two));
  const cuda_stream stream(0);
  EXPECT_EQ(bound_allocator<int>(one, stream.view()), bound_allocator<char>(one, stream.view()));
  EXPECT_NE(bound_allocator<int>(one, stream.view()), bound_allocator<int>(two, stream.view()));
  EXPECT_NE(bound_allocator<int>(one, stream.view()), bound_allocator<int>(one, stream_ref()));
}

class containers_on : public allocators, public testing::WithParamInterface<const char*> {};

INSTANTIATE_TEST_SUITE_P(memory_of_the_host, containers_on,
                         testing::Values("pinned", "managed", "async_managed", "pool:initial=1MiB | pinned",
                                         "pool:initial=1MiB | managed"));

TEST_P(containers_on, hold_what_they_were_given_and_give_the_memory_back) {
  const auto counted = std::make_shared<statistics_resource_adaptor>(make_resource(GetParam(), 0));
  const cuda_stream stream(0, cuda_stream::kind::non_blocking);
  {
    bound_vector<int> vector({counted, stream.view()});
    for (int i = 0; i < 10000; ++i) vector.push_back(i);
    vector.shrink_to_fit();
    EXPECT_EQ(counted->counters().bytes.current, 40000);
    for (int i = 0; i < 10000; ++i) ASSERT_EQ(vector[i], i);

    std::list<std::string, bound_allocator<std::string>> list({"a", "b", "c"}, {counted, stream.view()});
    list.splice(list.begin(), list, std::next(list.begin(), 2));
    EXPECT_EQ(list.front(), "c");
    std::map<int, int, std::less<>, bound_allocator<std::pair<const int, int>>> map({counted, stream.view()});
    for (int i = 0; i < 100; ++i) map[i] = i * i;
    EXPECT_EQ(map.at(9), 81);
    synchronize(stream.view(), 0);
  }
  EXPECT_EQ(counted->counters().bytes.current, 0);
  EXPECT_GT(counted->counters().count.total, 100);
}

/// What was freed by a program, on which stream.
class stream_log final : public memory_resource {
 public:
  stream_log() : memory_resource(0) {}
  std::vector<stream_ref> allocated, freed;
  std::string kind() const override { return "stream_log"; }

 private:
  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override {
    allocated.push_back(stream);
    return ::operator new(bytes, std::align_val_t{alignment});
  }
  void do_deallocate(stream_ref stream, void* pointer, std::size_t, std::size_t alignment) noexcept override {
    freed.push_back(stream);
    ::operator delete(pointer, std::align_val_t{alignment});
  }
};

TEST_F(allocators, a_moved_or_swapped_container_takes_its_memory_and_its_stream_along) {
  const auto log = std::make_shared<stream_log>();
  const cuda_stream first(0), second(0);
  {
    bound_vector<int> one(100, {log, first.view()});
    bound_vector<int> two(200, {log, second.view()});
    const int* const memory = one.data();
    swap(one, two);
    EXPECT_EQ(two.data(), memory);
    EXPECT_EQ(two.get_allocator().stream(), first.view());
    one = std::move(two);
    EXPECT_EQ(one.data(), memory);
    EXPECT_EQ(log->freed, std::vector<stream_ref>{second.view()});
  }
  EXPECT_EQ(log->freed, (std::vector<stream_ref>{second.view(), first.view()}));
  EXPECT_EQ(log->allocated, (std::vector<stream_ref>{first.view(), second.view()}));
}

TEST_F(allocators, a_copy_assigned_container_keeps_its_own_stream) {
  const auto log = std::make_shared<stream_log>();
  const cuda_stream first(0), second(0);
  const bound_vector<int> source(100, 7, {log, first.view()});
  bound_vector<int> target({log, second.view()});
  target = source;
  EXPECT_EQ(target, source);
  EXPECT_EQ(log->allocated, (std::vector<stream_ref>{first.view(), second.view()}));
}

}  // namespace
}  // namespace cenote::test
