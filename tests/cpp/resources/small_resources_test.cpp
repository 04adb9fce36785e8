// What is particular to each of the resources that stand on the pool's engine or on functions of the user's.
#include <filesystem>
#include <fstream>
#include <sstream>

#include "cenote/adaptors/statistics_resource_adaptor.hpp"
#include "cenote/resources/arena_memory_resource.hpp"
#include "cenote/resources/binning_memory_resource.hpp"
#include "cenote/resources/callback_memory_resource.hpp"
#include "cenote/resources/cuda_async_memory_resource.hpp"
#include "cenote/resources/cuda_async_view_memory_resource.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/fixed_size_memory_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

std::shared_ptr<memory_resource> cuda(int device = 0) { return std::make_shared<cuda_memory_resource>(device); }

class arena : public simulated_device {};

TEST_F(arena, takes_all_at_once_and_never_more) {
  const call_count allocations("cuMemAlloc");
  arena_memory_resource resource(cuda(), 4 * MiB + 100);
  EXPECT_EQ(resource.arena_size(), 4 * MiB) << "rounded down to 256";
  EXPECT_EQ(resource.state().limit, 4 * MiB);
  void* const all = resource.allocate({}, 4 * MiB);
  EXPECT_EQ(resource.try_allocate({}, 1), nullptr);
  resource.deallocate({}, all, 4 * MiB);
  EXPECT_EQ(resource.trim(), 0u);
  resource.deallocate({}, resource.allocate({}, 4 * MiB), 4 * MiB);
  EXPECT_EQ(allocations.value(), 1);
}

TEST_F(arena, starts_with_half_of_the_free_memory) {
  const std::size_t available = device_memory_info(0).free_bytes;
  EXPECT_EQ(arena_memory_resource(cuda()).arena_size(), align_down(available / 2, 256));
}

TEST_F(arena, refuses_less_than_a_mebibyte) {
  EXPECT_THROW(arena_memory_resource(cuda(), 1 * MiB - 1), std::logic_error);
  EXPECT_THROW(arena_memory_resource(nullptr, 1 * MiB), std::invalid_argument);
}

TEST_F(arena, leaves_a_map_of_its_blocks_when_an_allocation_fails) {
  const auto before = std::filesystem::current_path();
  const auto folder = std::filesystem::temp_directory_path() / ("arena-" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  std::filesystem::current_path(folder);
  arena_memory_resource resource(cuda(), 1 * MiB, true);
  void* const block = resource.allocate({}, 256);
  EXPECT_EQ(resource.try_allocate({}, 1 * MiB), nullptr);
  resource.deallocate({}, block, 256);
  std::stringstream map;
  map << std::ifstream(arena_memory_resource::dump_file_name).rdbuf();
  std::filesystem::current_path(before);
  std::filesystem::remove_all(folder);
  EXPECT_NE(map.str().find("1048576 bytes could not be allocated"), std::string::npos) << map.str();
  EXPECT_NE(map.str().find(" 256 in use\n"), std::string::npos) << map.str();
  EXPECT_NE(map.str().find(" 1048320 free\n"), std::string::npos) << map.str();
}

class fixed_size : public simulated_device {};

TEST_F(fixed_size, takes_its_blocks_at_once_and_as_many_again_when_they_are_all_in_use) {
  const call_count allocations("cuMemAlloc");
  fixed_size_memory_resource resource(cuda(), 100'000, 4);
  EXPECT_EQ(resource.block_size(), 100'096u);
  EXPECT_EQ(resource.state().held, 4 * 100'096u);
  std::vector<void*> blocks;
  for (int i = 0; i < 8; ++i) blocks.push_back(resource.allocate({}, 1 + 10'000 * static_cast<std::size_t>(i)));
  EXPECT_EQ(allocations.value(), 2);
  EXPECT_EQ(resource.state().held, 8 * 100'096u);
  EXPECT_EQ(resource.state().in_use, 8 * 100'096u);
  for (void* const block : blocks) resource.deallocate({}, block, 1);
}

TEST_F(fixed_size, takes_nothing_before_it_is_used_if_nothing_is_preallocated) {
  fixed_size_memory_resource resource(cuda(), 1 * MiB, 0);
  EXPECT_EQ(resource.state().held, 0u);
  resource.deallocate({}, resource.allocate({}, 5), 5);
  EXPECT_GE(resource.state().held, 1 * MiB);
}

TEST_F(fixed_size, is_out_of_memory_for_more_than_a_block) {
  fixed_size_memory_resource resource(cuda(), 1 * MiB, 1);
  EXPECT_EQ(resource.try_allocate({}, 1 * MiB + 1), nullptr);
  EXPECT_EQ(resource.state().largest_free, 1 * MiB);
}

TEST_F(fixed_size, refuses_blocks_of_no_bytes_and_more_blocks_than_there_are_addresses) {
  EXPECT_THROW(fixed_size_memory_resource(cuda(), 0, 1), std::invalid_argument);
  EXPECT_THROW(fixed_size_memory_resource(cuda(), ~std::size_t{0}, 1), std::invalid_argument);
  EXPECT_THROW(fixed_size_memory_resource(cuda(), 1 * GiB, ~std::size_t{0} / GiB), std::invalid_argument);
}

TEST_F(fixed_size, cannot_fragment) {
  fixed_size_memory_resource resource(cuda(), 64 * KiB, 64);
  std::vector<void*> blocks;
  for (int i = 0; i < 64; ++i) blocks.push_back(resource.allocate({}, 1));
  for (std::size_t i = 0; i < blocks.size(); i += 2) resource.deallocate({}, blocks[i], 1);
  for (std::size_t i = 0; i < blocks.size(); i += 2) blocks[i] = resource.allocate({}, 64 * KiB);
  EXPECT_EQ(resource.state().held, 4 * MiB) << "every hole was of use";
  for (void* const block : blocks) resource.deallocate({}, block, 1);
}

class binning : public simulated_device {
 protected:
  using statistics_ptr = std::shared_ptr<statistics_resource_adaptor>;
  static statistics_ptr counted(int device = 0) { return std::make_shared<statistics_resource_adaptor>(cuda(device)); }
  static std::int64_t served(const statistics_ptr& bin) { return bin->counters().count.total; }
};

TEST_F(binning, serves_each_size_from_the_smallest_bin_that_it_fits) {
  const auto upstream = counted(), small = counted(), large = counted();
  binning_memory_resource resource(upstream);
  resource.add_bin(64 * KiB, large);
  resource.add_bin(1 * KiB, small);
  for (const std::size_t bytes : {1u, 1024u, 1025u, 65'536u, 65'537u}) {
    resource.deallocate({}, resource.allocate({}, bytes), bytes);
  }
  EXPECT_EQ(served(small), 2);
  EXPECT_EQ(served(large), 2);
  EXPECT_EQ(served(upstream), 1);
  for (const auto& bin : {small, large, upstream}) EXPECT_EQ(bin->counters().count.current, 0);
}

TEST_F(binning, bins_of_its_own_take_no_memory_before_they_are_used) {
  const auto upstream = counted();
  binning_memory_resource resource(upstream, 10, 22);
  EXPECT_EQ(resource.bin_count(), 13u);
  EXPECT_EQ(served(upstream), 0);
  resource.deallocate({}, resource.allocate({}, 2048), 2048);
  EXPECT_EQ(served(upstream), 1);
}

TEST_F(binning, a_bin_that_exists_is_kept) {
  const auto first = counted(), second = counted();
  binning_memory_resource resource(cuda());
  resource.add_bin(1024, first);
  resource.add_bin(1000, second);  // rounds up to the same
  resource.deallocate({}, resource.allocate({}, 1024), 1024);
  EXPECT_EQ(served(first), 1);
  EXPECT_EQ(served(second), 0);
}

TEST_F(binning, a_late_bin_is_refused_while_blocks_of_its_sizes_are_in_use) {
  const auto upstream = counted(), late = counted();
  binning_memory_resource resource(upstream);
  void* const block = resource.allocate({}, 500);
  EXPECT_THROW(resource.add_bin(1024, late), std::logic_error);
  resource.deallocate({}, block, 500);
  EXPECT_EQ(upstream->counters().count.current, 0) << "it went back to where it came from";
  resource.add_bin(1024, late);
  resource.deallocate({}, resource.allocate({}, 500), 500);
  EXPECT_EQ(served(late), 1);
}

TEST_F(binning, an_allocation_that_failed_does_not_stand_in_the_way_of_a_bin) {
  binning_memory_resource resource(cuda());
  EXPECT_EQ(resource.try_allocate({}, 1024 * GiB), nullptr);
  EXPECT_NO_THROW(resource.add_bin(1024));
}

TEST_F(binning, refuses_bins_that_cannot_be) {
  binning_memory_resource resource(cuda());
  EXPECT_THROW(resource.add_bin(0), std::invalid_argument);
  EXPECT_THROW(resource.add_bin(~std::size_t{0}), std::invalid_argument);
  EXPECT_THROW(resource.add_bin(1024, counted(1)), std::invalid_argument);
  for (const auto& [least, most] : {std::pair{-1, 5}, {5, 4}, {5, 63}, {100, 200}}) {
    EXPECT_THROW(binning_memory_resource(cuda(), least, most), std::invalid_argument) << least << ' ' << most;
  }
  EXPECT_NO_THROW(binning_memory_resource(cuda(), 0, 62)) << "2^62 is a size";
}

class callback : public simulated_device {};

TEST_F(callback, calls_the_functions_with_what_was_asked_for) {
  const auto base = cuda();
  std::vector<std::pair<stream_ref, std::size_t>> asked;
  callback_memory_resource resource(
      [&](stream_ref stream, std::size_t bytes) {
        asked.emplace_back(stream, bytes);
        return base->allocate(stream, bytes);
      },
      [&](stream_ref stream, void* pointer, std::size_t bytes) {
        asked.emplace_back(stream, bytes);
        base->deallocate(stream, pointer, bytes);
      });
  const cuda_stream stream(0);
  resource.deallocate(stream.view(), resource.allocate(stream.view(), 257), 257);
  EXPECT_EQ(asked, (std::vector<std::pair<stream_ref, std::size_t>>{{stream.view(), 257}, {stream.view(), 257}}));
}

TEST_F(callback, null_is_out_of_memory_and_what_is_thrown_passes_through) {
  callback_memory_resource nothing([](stream_ref, std::size_t) { return nullptr; },
                                   [](stream_ref, void*, std::size_t) {});
  EXPECT_THROW(nothing.allocate({}, 1), out_of_memory);
  callback_memory_resource broken([](stream_ref, std::size_t) -> void* { throw std::runtime_error("broken"); },
                                  [](stream_ref, void*, std::size_t) {});
  EXPECT_THROW(broken.try_allocate({}, 1), std::runtime_error);
}

TEST_F(callback, what_the_free_function_throws_is_reported) {
  callback_memory_resource resource([](stream_ref, std::size_t) { return reinterpret_cast<void*>(0x1000); },
                                    [](stream_ref, void*, std::size_t) { throw std::runtime_error("free is broken"); });
  testing::internal::CaptureStderr();
  resource.deallocate({}, resource.allocate({}, 1), 1);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("free is broken"), std::string::npos);
}

TEST_F(callback, needs_both_functions) {
  EXPECT_THROW(callback_memory_resource(nullptr, [](stream_ref, void*, std::size_t) {}), std::invalid_argument);
  EXPECT_THROW(callback_memory_resource([](stream_ref, std::size_t) { return nullptr; }, nullptr),
               std::invalid_argument);
}

class async_pool : public simulated_device {
 protected:
  std::size_t free_bytes() const { return device_memory_info(0).free_bytes; }
};

TEST_F(async_pool, is_used_again_and_holds_nothing_meanwhile) {
  cuda_async_memory_resource{};  // so that there is one to be used again
  const std::size_t before = free_bytes();
  const call_count made("cuMemPoolCreate");
  for (int i = 0; i < 3; ++i) {
    {
      const cuda_async_memory_resource resource({.initial_pool_size = 64 * MiB});
      synchronize_device(0);
      EXPECT_LE(free_bytes(), before - 64 * MiB);
    }
    EXPECT_EQ(free_bytes(), before);
  }
  EXPECT_EQ(made.value(), 0);
}

TEST_F(async_pool, gives_back_what_is_still_being_freed_at_the_next_synchronisation) {
  const std::size_t before = free_bytes();
  const cuda_stream busy(0, cuda_stream::kind::non_blocking);
  {
    cuda_async_memory_resource resource;
    void* const block = resource.allocate(busy.view(), 64 * MiB);
    fill_async(block, 1, 64 * MiB, busy.view(), 0);
    resource.deallocate(busy.view(), block, 64 * MiB);
  }
  synchronize_device(0);
  EXPECT_EQ(free_bytes(), before);
}

TEST_F(async_pool, keeps_as_much_as_the_next_one_wants) {
  cuda_async_memory_resource({.release_threshold = 0});
  cuda_async_memory_resource keeps;
  keeps.deallocate({}, keeps.allocate({}, 64 * MiB), 64 * MiB);
  synchronize_device(0);
  EXPECT_GE(keeps.state().held, 64 * MiB);
}

TEST_F(async_pool, of_which_others_know_is_not_used_again) {
  cuda_async_memory_resource{};
  const call_count made("cuMemPoolCreate");
  const call_count destroyed("cuMemPoolDestroy");
  cuda_async_memory_resource({.handles = {.posix_file_descriptor = true}});
  EXPECT_EQ(made.value(), 1) << "and cannot be one that was made without handles";
  cuda_async_memory_resource().pool_handle();
  EXPECT_EQ(made.value(), 1);
  EXPECT_EQ(destroyed.value(), 2);
}

TEST_F(async_pool, that_cannot_be_emptied_is_kept_all_the_same) {
  for (const char* const fails : {"cuMemPoolSetAttribute", "cuMemPoolTrimTo"}) {
    SCOPED_TRACE(fails);
    const call_count destroyed("cuMemPoolDestroy");
    {
      const cuda_async_memory_resource resource;
      cenote_sim_fail(fails, 1, CUDA_ERROR_UNKNOWN);
    }
    EXPECT_EQ(destroyed.value(), 0);
  }
}

class async_view : public simulated_device {};

TEST_F(async_view, takes_from_the_pool_and_leaves_it_alone) {
  cuda_async_memory_resource owner;
  {
    cuda_async_view_memory_resource view(owner.pool_handle());
    EXPECT_EQ(view.pool_handle(), owner.pool_handle());
    void* const block = view.allocate({}, 1 * MiB);
    EXPECT_EQ(owner.state().in_use, view.state().in_use);
    view.deallocate({}, block, 1 * MiB);
  }
  owner.deallocate({}, owner.allocate({}, 100), 100);
}

TEST_F(async_view, says_that_its_pool_is_gone) {
  auto owner = std::make_unique<cuda_async_memory_resource>();
  cuda_async_view_memory_resource view(owner->pool_handle());
  void* const block = view.allocate({}, 1 * MiB);
  owner.reset();
  try {
    view.allocate({}, 1 * MiB);
    FAIL() << "a pool that is gone gave memory";
  } catch (const std::bad_alloc& error) {
    EXPECT_NE(std::string(error.what()).find("has been destroyed"), std::string::npos) << error.what();
  }
  EXPECT_FALSE(view.state().in_use.has_value());
  view.deallocate({}, block, 1 * MiB);
  cenote_sim_clear_violations();  // the simulated driver noticed the dead handle too
}

TEST_F(async_view, refuses_null) { EXPECT_THROW(cuda_async_view_memory_resource(nullptr), std::logic_error); }

class driver_memory : public simulated_device {};

TEST_F(driver_memory, of_a_large_alignment_that_is_freed_twice_is_reported_and_left_alone) {
  cuda_memory_resource resource(0);
  void* const block = resource.allocate({}, 100, 4096);
  resource.deallocate({}, block, 100, 4096);
  testing::internal::CaptureStderr();
  resource.deallocate({}, block, 100, 4096);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("alignment of 4096"), std::string::npos);
}

}  // namespace
}  // namespace cenote::test
