#include "cenote/ground/process.hpp"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>

namespace cenote {

constinit std::atomic<unsigned> process_fate{0};

void watch_process() noexcept {
  std::atexit([] { process_fate.fetch_or(process_exits, std::memory_order_release); });
  pthread_atfork(nullptr, nullptr, [] { process_fate.fetch_or(process_was_forked, std::memory_order_release); });
}

long thread_id() noexcept {
  thread_local const long id = syscall(SYS_gettid);
  return id;
}

}  // namespace cenote
