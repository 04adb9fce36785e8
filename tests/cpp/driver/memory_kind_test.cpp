#include "cenote/resources/cuda_async_memory_resource.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/managed_memory_resource.hpp"
#include "cenote/resources/pinned_host_memory_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

class memory : public simulated_device {};

TEST_F(memory, is_of_the_kind_that_its_resource_takes) {
  const std::vector<std::pair<std::shared_ptr<memory_resource>, memory_kind>> table{
      {std::make_shared<cuda_memory_resource>(1), memory_kind::device},
      {std::make_shared<cuda_async_memory_resource>(1, cuda_async_memory_resource::options{}), memory_kind::device},
      {std::make_shared<managed_memory_resource>(1), memory_kind::managed},
      {std::make_shared<pinned_host_memory_resource>(1), memory_kind::pinned}};
  for (const auto& [resource, kind] : table) {
    auto* const pointer = static_cast<char*>(resource->allocate({}, 1000));
    EXPECT_EQ(kind_of(pointer, 1), kind) << resource->kind();
    EXPECT_EQ(kind_of(pointer + 999, 0), kind) << "from another device, and inside of it";
    resource->deallocate({}, pointer, 1000);
  }
  const int local = 0;
  EXPECT_EQ(kind_of(&local, 0), memory_kind::pageable);
}

}  // namespace
}  // namespace cenote::test
