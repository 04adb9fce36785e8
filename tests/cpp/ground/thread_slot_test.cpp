// The numbers of threads: each its own while it lives, the next one's afterwards, and none that could be waited for.
#include "cenote/ground/thread_slot.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <cstdlib>
#include <new>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "support/simulated.hpp"

namespace {

/// A request for host memory that is not served before it is told to.
struct stuck_request {
  std::atomic<bool> is_made{false}, may_go_on{false};
};
thread_local stuck_request* next_request = nullptr;

}  // namespace

// noinline: GCC warns of free() where it is inlined.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (stuck_request* const stuck = std::exchange(next_request, nullptr)) {
    stuck->is_made = true;
    stuck->may_go_on.wait(false);
  }
  if (void* const memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return std::malloc(bytes); }
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace cenote::test {
namespace {

class thread_slots : public simulated_device {};

TEST_F(thread_slots, are_each_threads_own_and_the_next_ones_once_it_has_ended) {
  constexpr int count = 100;
  std::set<std::size_t> first;
  for (int round = 0; round < 3; ++round) {
    std::vector<std::size_t> slots(count);
    std::barrier all_live(count);
    std::vector<std::jthread> threads;
    for (std::size_t& slot : slots) {
      threads.emplace_back([&] {
        slot = this_thread_slot();
        all_live.arrive_and_wait();
        EXPECT_EQ(this_thread_slot(), slot);
      });
    }
    threads.clear();
    const std::set<std::size_t> different(slots.begin(), slots.end());
    EXPECT_EQ(different.size(), slots.size());
    if (round == 0) first = different;
    EXPECT_EQ(different, first);
  }
}

TEST_F(thread_slots, are_no_thread_s_that_has_given_its_own_back) {
  static std::size_t slot_in_the_end = 0;
  struct asks_at_the_end {
    bool is_made = false;
    ~asks_at_the_end() { slot_in_the_end = this_thread_slot(); }
  };
  std::thread([] {
    thread_local asks_at_the_end late;  // made before the slot is asked for, and so gone after it
    late.is_made = this_thread_slot() != no_slot;
  }).join();
  EXPECT_EQ(slot_in_the_end, no_slot);
}

/// Ends a forked child whose thread has given its slot back.
struct end_of_child {
  bool is_child = false;
  ~end_of_child() {
    if (is_child) _exit(0);
  }
};

TEST_F(thread_slots, are_taken_and_given_back_in_a_forked_child_of_a_process_where_another_thread_is_at_it) {
  device_count();  // the driver is in use
  std::atomic<bool> has_slot{false}, may_fork{false};
  std::atomic<pid_t> child{-1};
  std::jthread forks([&] {
    thread_local end_of_child end;  // made before the slot is asked for, and so gone after it
    this_thread_slot();
    has_slot = true;
    may_fork.wait(false);
    child = fork();
    child.notify_all();
    end.is_child = child == 0;
    if (!end.is_child) return;
    alarm(10);
    std::thread(this_thread_slot).join();
  });
  while (!has_slot) std::this_thread::yield();
  stuck_request in_the_table;
  std::vector<std::jthread> threads;
  while (!in_the_table.is_made) {  // until the table of slots has to grow
    has_slot = false;
    threads.emplace_back([&] {
      next_request = &in_the_table;
      this_thread_slot();
      if (std::exchange(next_request, nullptr) == nullptr) return;
      has_slot = true;
      in_the_table.may_go_on.wait(false);
    });
    while (!has_slot && !in_the_table.is_made) std::this_thread::yield();
  }
  may_fork = true;
  may_fork.notify_all();
  in_the_table.may_go_on = true;  // a fork waits for those that are in the table
  in_the_table.may_go_on.notify_all();
  child.wait(-1);
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace cenote::test
