// The table of current resources, and what is allocated through it on behalf of clients.
#include "cenote/surface/registry.hpp"

#include <array>
#include <thread>
#include <vector>

#include "cenote/ground/log.hpp"
#include "cenote/resources/callback_memory_resource.hpp"
#include "cenote/surface/specification.hpp"
#include "support/clients.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

class registry : public clients {};

TEST_F(registry, gives_what_was_set_and_returns_what_was_there) {
  const auto first = std::make_shared<cuda_memory_resource>(0);
  const auto second = std::make_shared<cuda_memory_resource>(0);
  set_per_device_resource(0, first);
  EXPECT_EQ(get_per_device_resource(0), first);
  EXPECT_EQ(set_per_device_resource(0, second), first);
  EXPECT_EQ(get_per_device_resource(0), second);
}

TEST_F(registry, holds_one_resource_for_each_device) {
  const auto before = get_per_device_resource(1);
  set_per_device_resource(0, std::make_shared<cuda_memory_resource>(0));
  EXPECT_EQ(get_per_device_resource(1), before);
}

TEST_F(registry, means_the_threads_current_device_by_the_current_one) {
  EXPECT_EQ(get_current_device_resource(), get_per_device_resource(0));
  const device_scope elsewhere(1);
  EXPECT_EQ(get_current_device_resource(), get_per_device_resource(1));
  const auto fresh = std::make_shared<cuda_memory_resource>(1);
  set_current_device_resource(fresh);
  EXPECT_EQ(get_per_device_resource(1), fresh);
}

TEST_F(registry, refuses_a_resource_of_another_device) {
  const auto before = get_per_device_resource(0);
  EXPECT_THROW(set_per_device_resource(0, std::make_shared<cuda_memory_resource>(1)), std::invalid_argument);
  EXPECT_THROW(set_per_device_resource(0, nullptr), std::invalid_argument);
  EXPECT_EQ(get_per_device_resource(0), before);
}

TEST_F(registry, refuses_a_device_that_is_not_there) {
  for (const int device : {-1, 2, 63, 64, 1'000'000}) {
    EXPECT_THROW(get_per_device_resource(device), std::out_of_range) << device;
    EXPECT_THROW(set_per_device_resource(device, std::make_shared<cuda_memory_resource>(0)), std::out_of_range)
        << device;
  }
  EXPECT_THROW(cuda_memory_resource(2), std::out_of_range);
}

TEST_F(registry, keeps_to_a_device_by_taking_the_resources_of_the_others_away) {
  set_per_device_resource(1, std::make_shared<cuda_memory_resource>(1));
  const auto kept = get_per_device_resource(0);
  keep_to_device(0);
  EXPECT_EQ(devices_with_resource(), std::vector<int>{0});
  EXPECT_EQ(get_per_device_resource(0), kept);
  EXPECT_THROW(keep_to_device(2), std::out_of_range);
  reset_all_device_resources();
}

TEST_F(registry, warns_once_of_the_first_use_of_a_device_that_the_process_does_not_keep_to) {
  start_listening();
  keep_to_device(1);
  get_per_device_resource(1);
  EXPECT_TRUE(take_log_records().empty());
  get_per_device_resource(0);
  reset_per_device_resource(0);
  get_per_device_resource(0);
  const std::vector<log_record> told = take_log_records();
  stop_listening();
  ASSERT_EQ(told.size(), 1U);
  EXPECT_EQ(told[0].level, log_level::warn);
  EXPECT_NE(told[0].text.find("a thread uses device 0, and this process was put onto device 1"), std::string::npos);
}

TEST_F(registry, makes_no_resource_only_to_return_it) {
  reset_all_device_resources();
  EXPECT_TRUE(devices_with_resource().empty());
  EXPECT_EQ(set_per_device_resource(0, std::make_shared<cuda_memory_resource>(0)), nullptr);
  EXPECT_EQ(devices_with_resource(), std::vector<int>{0});
}

TEST_F(registry, gives_a_fresh_resource_after_a_reset) {
  const auto mine = use_pool(1 * MiB);
  EXPECT_EQ(reset_per_device_resource(0), mine);
  EXPECT_EQ(reset_current_device_resource(), nullptr);
  EXPECT_EQ(get_per_device_resource(0)->kind(), "cuda");
  EXPECT_THROW(reset_per_device_resource(2), std::out_of_range);
}

TEST_F(registry, installs_a_specification_on_every_device_and_keeps_what_was_made_from_it) {
  install_resource("statistics | cuda");
  const std::array made{get_per_device_resource(0), get_per_device_resource(1)};
  for (const auto& resource : made) EXPECT_EQ(describe(*resource), "statistics | cuda");
  const auto other = std::make_shared<cuda_memory_resource>(1);
  set_per_device_resource(1, other);
  install_resource("statistics | cuda");
  EXPECT_EQ(get_per_device_resource(0), made[0]);
  EXPECT_EQ(describe(*get_per_device_resource(1)), "statistics | cuda");
  install_resource("managed");
  EXPECT_EQ(get_per_device_resource(0)->kind(), "managed");
  reset_all_device_resources();
  EXPECT_EQ(get_per_device_resource(0)->kind(), "cuda");
}

TEST_F(registry, changes_nothing_for_a_specification_that_is_wrong_or_cannot_be_had) {
  const auto before = get_per_device_resource(0);
  EXPECT_THROW(install_resource("lake"), std::invalid_argument);
  EXPECT_THROW(install_resource(1, "pool:initial=1TiB"), out_of_memory);
  {
    const device_scope chosen(0);
    EXPECT_THROW(install_resource("pool:initial=1TiB"), out_of_memory);
  }
  EXPECT_EQ(get_per_device_resource(0), before);
  EXPECT_EQ(default_specification(), "cuda");
}

TEST_F(registry, does_not_put_in_what_was_the_default_when_another_has_been_installed_meanwhile) {
  reset_all_device_resources();
  install_resource("pool:initial=1MiB | cuda");
  const before_call during("cuMemAlloc", [] { std::thread([] { install_resource("managed"); }).join(); });
  EXPECT_EQ(get_per_device_resource(1)->kind(), "managed");
  reset_all_device_resources();
}

TEST_F(registry, a_resource_that_was_set_while_the_default_was_made_stays) {
  reset_all_device_resources();
  install_resource("pool:initial=1MiB | cuda");
  const auto mine = std::make_shared<cuda_memory_resource>(1);
  const before_call during("cuMemAlloc", [&] { std::thread([&] { set_per_device_resource(1, mine); }).join(); });
  EXPECT_EQ(get_per_device_resource(1), mine);
  reset_all_device_resources();
}

TEST_F(registry, lies_at_one_address) { EXPECT_EQ(registry_address(), registry_address()); }

TEST_F(registry, a_block_is_freed_to_the_resource_that_made_it_whatever_is_current_by_then) {
  const auto first = use_pool(1 * MiB);
  void* const block = client_allocate(client_, 0, 1000, {});
  EXPECT_EQ(first->state().in_use, 1024u);
  const auto second = use_pool(1 * MiB);
  client_deallocate(block, {});
  EXPECT_EQ(first->state().in_use, 0u);
  EXPECT_EQ(second->state().in_use, 0u);
}

TEST_F(registry, a_replaced_resource_lives_until_its_last_block_is_freed) {
  std::weak_ptr<memory_resource> replaced = use_pool(1 * MiB);
  void* const first = client_allocate(client_, 0, 1000, {});
  void* const second = client_allocate(client_, 0, 1000, {});
  reset_resources();
  client_deallocate(first, {});
  EXPECT_FALSE(replaced.expired());
  client_deallocate(second, {});
  EXPECT_TRUE(replaced.expired());
}

TEST_F(registry, an_unknown_pointer_is_reported_and_ignored) {
  captured_stderr output;
  int local = 0;
  client_deallocate(&local, {});
  client_deallocate(nullptr, {});
  void* const block = client_allocate(client_, 0, 1000, {});
  client_deallocate(block, {});
  client_deallocate(block, {});  // a double free
  client_record_stream(&local, {});
  client_share(&local);
  EXPECT_NE(output.text().find("cenote did not give"), std::string::npos);
}

TEST_F(registry, a_client_is_known_by_its_name) {
  EXPECT_EQ(register_client("tests"), client_);
  EXPECT_NE(register_client("somebody else"), client_);
  EXPECT_EQ(register_client("somebody else"), register_client("somebody else"));
}

TEST_F(registry, a_client_is_counted_what_it_asked_for) {
  const auto before = usage_of("tests");
  void* const first = client_allocate(client_, 0, 1000, {});
  void* const second = client_allocate(client_, 1, 500, {});
  EXPECT_EQ(usage_of("tests").bytes, before.bytes + 1500);
  EXPECT_EQ(usage_of("tests").allocations, before.allocations + 2);
  EXPECT_EQ(client_allocate(client_, 0, 0, {}), nullptr);
  client_deallocate(first, {});
  client_deallocate(second, {});
  const auto after = usage_of("tests");
  EXPECT_EQ(after.bytes, before.bytes);
  EXPECT_EQ(after.allocations, before.allocations);
  EXPECT_EQ(after.total_allocations, before.total_allocations + 2);
  EXPECT_GE(after.peak_bytes, before.bytes + 1500);
}

/// A resource that is wrong: the block before is nobody's any more.
TEST_F(registry, a_block_that_a_resource_hands_out_twice_is_counted_once) {
  alignas(default_alignment) int here = 0;
  set_per_device_resource(
      0, std::make_shared<callback_memory_resource>(
             0, [&](stream_ref, std::size_t) -> void* { return &here; }, [](stream_ref, void*, std::size_t) {}));
  const auto before = usage_of("tests");
  for (int i = 0; i < 3; ++i) EXPECT_EQ(client_allocate(client_, 0, 1000, {}), &here);
  EXPECT_EQ(usage_of("tests").bytes, before.bytes + 1000);
  EXPECT_TRUE(client_deallocate(&here, {}));
  EXPECT_EQ(usage_of("tests").bytes, before.bytes);
  EXPECT_EQ(usage_of("tests").allocations, before.allocations);
}

TEST_F(registry, a_client_that_was_never_registered_is_refused) {
  EXPECT_THROW(client_allocate(-1, 0, 256, {}), std::out_of_range);
  EXPECT_THROW(client_allocate(1'000'000, 0, 256, {}), std::out_of_range);
}

TEST_F(registry, there_is_room_for_32_clients_and_no_more) {
  EXPECT_THROW(
      {
        for (int i = 0; i < 40; ++i) register_client("client " + std::to_string(i));
      },
      std::length_error);
  EXPECT_EQ(usage().size(), 32u);
}

TEST_F(registry, a_resource_that_is_set_again_lives_as_long_as_either_time_has_blocks) {
  std::weak_ptr<memory_resource> again = use_pool(1 * MiB);
  void* const first = client_allocate(client_, 0, 1000, {});
  reset_resources();
  set_per_device_resource(0, again.lock());
  void* const second = client_allocate(client_, 0, 1000, {});
  reset_resources();
  client_deallocate(second, {});
  EXPECT_FALSE(again.expired());
  client_deallocate(first, {});
  EXPECT_TRUE(again.expired());
}

TEST_F(registry, many_blocks_are_each_remembered) {
  const auto pool = use_pool(64 * MiB);
  std::vector<void*> blocks;
  for (std::size_t i = 0; i < 3'000; ++i) blocks.push_back(client_allocate(client_, 0, 256 * (1 + i % 7), {}));
  for (std::size_t i = 0; i < blocks.size(); i += 2) client_deallocate(blocks[i], {});
  for (std::size_t i = 1; i < blocks.size(); i += 2) client_deallocate(blocks[i], {});
  EXPECT_EQ(pool->state().in_use, 0u);
}

TEST_F(registry, a_resource_replaced_while_threads_allocate_ends_with_its_last_block) {
  std::vector<std::weak_ptr<memory_resource>> replaced;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this] {
      std::array<void*, 8> blocks{};
      for (std::size_t i = 0; i < 400; ++i) {
        void*& block = blocks[i % blocks.size()];
        client_deallocate(block, {});
        block = client_allocate(client_, 0, 256, {});
      }
      for (void* const block : blocks) client_deallocate(block, {});
    });
  }
  for (int i = 0; i < 100; ++i) replaced.emplace_back(use_pool(1 * MiB));
  for (std::thread& t : threads) t.join();
  reset_resources();
  for (const auto& each : replaced) EXPECT_TRUE(each.expired());
}

TEST_F(registry, may_be_changed_while_threads_allocate) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      const cuda_stream stream(0, cuda_stream::kind::non_blocking);
      for (int i = 0; i < 100; ++i) {
        void* const block = client_allocate(client_, 0, 4096, stream.view());
        fill_async(block, static_cast<unsigned char>(t), 4096, stream.view(), 0);
        if (i % 8 == 0) client_share(block);
        EXPECT_TRUE(all_are(read(block, 4096, stream.view()), static_cast<unsigned char>(t)));
        client_deallocate(block, stream.view());
      }
    });
  }
  for (int i = 0; i < 50; ++i) set_per_device_resource(0, make_resource(i % 2 == 0 ? "pool:initial=1MiB" : "async", 0));
  for (std::thread& t : threads) t.join();
  synchronize_device(0);
}

}  // namespace
}  // namespace cenote::test
