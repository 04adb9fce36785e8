// Scopes: whose current resource they change, and for how long.
#include "cenote/surface/resource_scope.hpp"

#include <thread>

#include "cenote/resources/pool_memory_resource.hpp"
#include "support/clients.hpp"

namespace cenote::test {
namespace {

class resource_scopes : public clients {
 protected:
  static std::shared_ptr<memory_resource> make(int device = 0) {
    return std::make_shared<cuda_memory_resource>(device);
  }
};

TEST_F(resource_scopes, nest_and_end_with_what_was_before) {
  const auto before = get_per_device_resource(0);
  const auto outer = make();
  const auto inner = make();
  {
    const resource_scope first(outer);
    EXPECT_EQ(get_per_device_resource(0), outer);
    {
      const resource_scope second(inner);
      EXPECT_EQ(find_per_device_resource(0), inner);
      EXPECT_TRUE(second.is_innermost());
      EXPECT_FALSE(first.is_innermost());
    }
    EXPECT_EQ(get_current_device_resource(), outer);
  }
  EXPECT_EQ(get_per_device_resource(0), before);
}

TEST_F(resource_scopes, hold_for_their_device_alone) {
  const auto before = get_per_device_resource(1);
  const auto ours = make();
  const resource_scope scope(ours);
  EXPECT_EQ(get_per_device_resource(1), before);
  const auto others = make(1);
  const resource_scope second(others);
  EXPECT_EQ(get_per_device_resource(0), ours);
  EXPECT_EQ(get_per_device_resource(1), others);
}

TEST_F(resource_scopes, hold_for_their_thread_alone) {
  const auto before = get_per_device_resource(0);
  const resource_scope scope(make());
  std::thread([&] {
    EXPECT_EQ(get_per_device_resource(0), before);
    EXPECT_FALSE(scope.is_innermost());
  }).join();
}

TEST_F(resource_scopes, a_block_goes_back_to_the_resource_of_its_scope) {
  auto pool = std::make_shared<pool_memory_resource>(make(), 1 * MiB, 1 * MiB);
  const std::weak_ptr<memory_resource> seen = pool;
  void* block = nullptr;
  {
    const resource_scope scope(pool);
    block = client_allocate(client_, 0, 1000, {});
    EXPECT_EQ(pool->state().in_use, 1024U);
  }
  pool.reset();
  EXPECT_FALSE(seen.expired()) << "the block keeps it";
  void* const after = client_allocate(client_, 0, 1000, {});
  const resource_scope another(make());  // in the place that the first one had
  std::thread([&] { client_deallocate(block, {}); }).join();
  client_deallocate(after, {});
  EXPECT_TRUE(seen.expired());
}

TEST_F(resource_scopes, setting_a_resource_there_is_for_the_scope) {
  const auto before = get_per_device_resource(0);
  const auto set = make();
  {
    const auto first = make();
    const resource_scope scope(first);
    EXPECT_EQ(set_per_device_resource(0, set), first);
    EXPECT_EQ(get_per_device_resource(0), set);
  }
  EXPECT_EQ(get_per_device_resource(0), before);
}

TEST_F(resource_scopes, refuse_no_resource) { EXPECT_THROW(resource_scope(nullptr), std::invalid_argument); }

}  // namespace
}  // namespace cenote::test
