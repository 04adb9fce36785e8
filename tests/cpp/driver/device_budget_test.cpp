// A process's budget: what counts for it, who is refused, and what happens then.
#include "cenote/driver/device_budget.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cenote/driver/memory.hpp"
#include "cenote/driver/shared_account.hpp"
#include "cenote/resources/arena_memory_resource.hpp"
#include "cenote/resources/cuda_async_memory_resource.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/managed_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/resources/virtual_memory_resource.hpp"
#include "support/simulated.hpp"

namespace cenote::test {
namespace {

constexpr stream_ref on{};

class device_budget : public simulated_device {
 protected:
  ~device_budget() override {
    set_budget("");
    set_budget(0, "");
  }
  std::size_t held_before_ = budget_of(0).held;
  std::size_t held() const { return budget_of(0).held - held_before_; }
};

TEST_F(device_budget, counts_what_is_taken_of_the_device_and_what_goes_back) {
  cuda_memory_resource cuda(0);
  virtual_memory_resource pages(0);
  void* const block = cuda.allocate(on, MiB);
  EXPECT_EQ(held(), MiB);
  void* const page = pages.allocate(on, MiB);
  EXPECT_EQ(held(), 3 * MiB);  // a page is 2 MiB
  cuda.deallocate(on, block, MiB);
  pages.deallocate(on, page, MiB);
  EXPECT_EQ(held(), 0U);
}

TEST_F(device_budget, does_not_drift_where_blocks_are_freed_with_wrong_sizes_or_twice) {
  cuda_memory_resource cuda(0);
  void* const kept = cuda.allocate(on, 4 * MiB);
  for (const std::size_t said : {std::size_t{1}, MiB, 64 * MiB}) {
    void* const block = cuda.allocate(on, MiB);
    cuda.deallocate(on, block, said);
    EXPECT_EQ(held(), 4 * MiB) << said;
  }
  void* const gone = cuda.allocate(on, MiB);
  cuda.deallocate(on, gone, MiB);
  cuda.deallocate(on, gone, MiB);
  EXPECT_EQ(held(), 4 * MiB);
  cenote_sim_clear_violations();  // of the second free
  cuda.deallocate(on, kept, 4 * MiB);
}

TEST_F(device_budget, is_the_smallest_of_those_that_are_set_and_names_who_has_set_it) {
  set_budget(0, "4GiB");
  set_budget_by("a library", 0, "1GiB");
  EXPECT_EQ(budget_of(0).limit, 1024 * MiB);
  EXPECT_EQ(budget_of(0).set_by, "a library");
  set_budget(0, "512MiB");
  EXPECT_EQ(budget_of(0).limit, 512 * MiB);
  EXPECT_EQ(budget_of(0).set_by, "cenote.budget");
  set_budget(0, "");
  EXPECT_EQ(budget_of(0).limit, 1024 * MiB);
  set_budget_by("a library", 0, "");
  EXPECT_FALSE(budget_of(0).limit.has_value());
  EXPECT_THROW(set_budget_by("a library", 0, "much"), std::invalid_argument);
  EXPECT_THROW(set_budget_by("", 0, "1GiB"), std::invalid_argument);
}

TEST_F(device_budget, bounds_all_resources_together) {
  set_budget(0, spell_bytes(held_before_ + 8 * MiB));
  auto pages = std::make_shared<virtual_memory_resource>(0);
  pool_memory_resource first(pages, 0), second(pages, 0);
  cuda_memory_resource cuda(0);
  void* const one = first.allocate(on, 4 * MiB);
  void* const two = second.allocate(on, 2 * MiB);
  EXPECT_EQ(cuda.try_allocate(on, 3 * MiB), nullptr);
  void* const three = cuda.allocate(on, 2 * MiB);
  EXPECT_EQ(second.try_allocate(on, 2 * MiB), nullptr);
  EXPECT_EQ(held(), 8 * MiB);
  cuda.deallocate(on, three, 2 * MiB);
  second.deallocate(on, two, 2 * MiB);
  first.deallocate(on, one, 4 * MiB);
}

TEST_F(device_budget, leaves_room_for_what_resources_take_at_first) {
  set_budget(0, spell_bytes(held_before_ + 8 * MiB));
  auto cuda = std::make_shared<cuda_memory_resource>(0);
  const pool_memory_resource pool(cuda);
  EXPECT_EQ(held(), 4 * MiB);
  const arena_memory_resource arena(cuda);
  EXPECT_EQ(held(), 6 * MiB);
  set_budget(0, spell_bytes(held_before_ + 1 * MiB));  // less than what is held already
  EXPECT_EQ(free_within_budget(0), 0u);
}

TEST_F(device_budget, is_refused_as_memory_that_ran_out_with_who_has_set_it) {
  set_budget(spell_bytes(held_before_ + 4 * MiB));
  pool_memory_resource pool(std::make_shared<virtual_memory_resource>(0), 0, 64 * MiB);
  try {
    pool.allocate(on, 6 * MiB);
    FAIL();
  } catch (const out_of_memory& error) {
    EXPECT_EQ(error.state().limit, held_before_ + 4 * MiB);
    EXPECT_NE(std::string(error.what()).find("the limit is the budget of the process on the device, of which"),
              std::string::npos);
    EXPECT_NE(std::string(error.what()).find("(set by cenote.budget)"), std::string::npos);
  }
  set_budget("90%");
  try {
    pool.allocate(on, 65 * MiB);  // the smallest limit holds, and is the pool's own
    FAIL();
  } catch (const out_of_memory& error) {
    EXPECT_EQ(error.state().limit, 64 * MiB);
    EXPECT_EQ(std::string(error.what()).find("budget"), std::string::npos);
  }
}

TEST_F(device_budget, counts_what_the_drivers_pools_hold) {
  cuda_async_memory_resource async;
  void* const block = async.allocate(on, MiB);
  EXPECT_GE(held(), MiB);
  set_budget(0, spell_bytes(held_before_ + held()));
  EXPECT_EQ(async.try_allocate(on, 64 * MiB), nullptr);
  cuda_memory_resource cuda(0);
  EXPECT_EQ(cuda.try_allocate(on, 64 * MiB), nullptr);
  async.deallocate(on, block, MiB);
  void* const again = async.allocate(on, MiB);
  EXPECT_NE(again, nullptr);
  async.deallocate(on, again, MiB);
}

TEST_F(device_budget, leaves_other_memory_and_other_devices_alone) {
  set_budget(0, "0");
  managed_memory_resource managed(0);
  cuda_memory_resource elsewhere(1);
  void* const moves = managed.allocate(on, MiB);
  void* const other = elsewhere.allocate(on, MiB);
  EXPECT_EQ(held(), 0U);
  managed.deallocate(on, moves, MiB);
  elsewhere.deallocate(on, other, MiB);
  EXPECT_THROW(cuda_memory_resource(0).allocate(on, 1), out_of_memory);
}

TEST_F(device_budget, may_be_a_share_of_the_device) {
  set_budget("50%");
  EXPECT_EQ(budget_of(0).limit, device_memory_info(0).total_bytes / 2);
  set_budget(0, "1GiB");
  EXPECT_EQ(budget_of(0).limit, GiB);
  EXPECT_EQ(budget_of(1).limit, device_memory_info(1).total_bytes / 2);
  set_budget(0, "");
  EXPECT_EQ(budget_of(0).limit, device_memory_info(0).total_bytes / 2);
  set_budget("");
  EXPECT_FALSE(budget_of(0).limit);
}

TEST_F(device_budget, refuses_what_is_no_amount_and_changes_nothing) {
  set_budget("1GiB");
  for (const char* const text : {"text", "101%", "-1%", "%", "nan%", "-1", "1 GiX", "5% 5%"}) {
    EXPECT_THROW(set_budget(text), std::invalid_argument) << text;
    EXPECT_THROW(set_budget(0, text), std::invalid_argument) << text;
  }
  EXPECT_THROW(set_budget(2, "1GiB"), std::out_of_range);
  EXPECT_EQ(budget_of(0).limit, GiB);
}

/// A file that has no name any more: each descriptor stands for another process.
class account_file {
 public:
  account_file() { EXPECT_GE(file_, 0); }
  ~account_file() { unlink(name_.data()); }
  int open_again() const { return open(name_.data(), O_RDWR | O_CLOEXEC); }

 private:
  std::string name_ = "/tmp/cenote_accountXXXXXX";
  int file_ = mkstemp(name_.data());
};

TEST_F(device_budget, of_several_processes_counts_what_all_of_them_hold) {
  const account_file file;
  share_budget(0, file.open_again());
  shared_account& another = shared_account::join(file.open_again());
  another.add(6 * MiB);
  set_budget(0, spell_bytes(held_before_ + 8 * MiB));
  EXPECT_EQ(budget_of(0).shared, held_before_ + 6 * MiB);
  cuda_memory_resource cuda(0);
  EXPECT_EQ(cuda.try_allocate(on, 3 * MiB), nullptr);
  another.subtract(2 * MiB);
  void* const block = cuda.try_allocate(on, 3 * MiB);
  ASSERT_NE(block, nullptr);
  EXPECT_EQ(another.total(), held_before_ + 7 * MiB);
  cuda.deallocate(on, block, 3 * MiB);
  another.leave();
  EXPECT_EQ(budget_of(0).shared, held_before_);
  share_budget(0, -1);
}

TEST_F(device_budget, of_several_processes_is_asked_for_before_memory_has_run_out) {
  const account_file file;
  share_budget(0, file.open_again());
  shared_account& another = shared_account::join(file.open_again());
  another.add(8 * MiB);
  set_budget(0, spell_bytes(held_before_ + 8 * MiB));
  std::thread gives_back([&] {
    while (another.asked() == 0) std::this_thread::yield();
    another.subtract(8 * MiB);
  });
  cuda_memory_resource cuda(0);
  void* const block = cuda.allocate(on, 4 * MiB);
  gives_back.join();
  EXPECT_EQ(requests_of_budget(0), 1U);
  cuda.deallocate(on, block, 4 * MiB);
  another.leave();
  share_budget(0, -1);
}

TEST_F(device_budget, refuses_a_file_that_is_no_account) {
  const account_file file;
  const int other = file.open_again();
  ASSERT_EQ(write(other, "other", 5), 5);
  EXPECT_THROW(share_budget(0, other), std::runtime_error);
  EXPECT_THROW(share_budget(0, open("/dev/null", O_RDWR)), std::runtime_error);
  EXPECT_THROW(share_budget(2, open("/dev/null", O_RDWR)), std::out_of_range);
  EXPECT_EQ(requests_of_budget(0), 0U);
}

TEST_F(device_budget, is_never_passed_by_threads_that_allocate_at_a_time) {
  set_budget(0, spell_bytes(held_before_ + 64 * KiB));
  cuda_memory_resource cuda(0);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 500; ++round) {
        void* const block = cuda.try_allocate(on, 24 * KiB);
        EXPECT_LE(held(), 64 * KiB + 4 * 24 * KiB);  // those that are being refused are counted for a moment
        if (block != nullptr) cuda.deallocate(on, block, 24 * KiB);
      }
    });
  }
  for (std::thread& each : threads) each.join();
  EXPECT_EQ(held(), 0U);
}

}  // namespace
}  // namespace cenote::test
