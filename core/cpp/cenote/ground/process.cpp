#include "cenote/ground/process.hpp"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>

namespace cenote {
namespace {

std::atomic<bool> exiting{false};
std::atomic<bool> forked_child{false};

}  // namespace

void watch_process() noexcept {
  std::atexit([] { exiting.store(true, std::memory_order_release); });
  pthread_atfork(nullptr, nullptr, [] { forked_child.store(true, std::memory_order_release); });
}

bool process_is_exiting() noexcept { return exiting.load(std::memory_order_acquire); }
bool process_is_forked_child() noexcept { return forked_child.load(std::memory_order_acquire); }

long thread_id() noexcept {
  thread_local const long id = syscall(SYS_gettid);
  return id;
}

}  // namespace cenote
