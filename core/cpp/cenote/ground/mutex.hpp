// Mutexes that a forked child does not wait for: the thread that has one may not be there, and what it guards may be
// changed by half.
//
//   object_mutex    of an object. A child that locks one of its parent gets driver_unavailable, which says that the
//                   object is another process's. So its figures and reports give a plain error and no answer.
//   driver_mutex    of what the process knows of its driver. A child of a process that uses the driver gets the same
//                   error; in another one nobody has had it.
//   process_mutex   of what a whole process shares, also before it has used the driver: names, slots, files. All are
//                   taken before each fork and let go of after it, so that what they guard is whole in the child.
//
// A process_mutex lies in static memory or is never destroyed. Nothing is called under it that could fork, and no lock
// is taken but another process_mutex, always in one order.
//
// Threads: any. Cost: a load and a compare more than std::mutex.
#pragma once

#include <mutex>
#include <shared_mutex>

#include "cenote/ground/process.hpp"

namespace cenote::inline v1 {

template <class Mutex>
class of_one_process {
 public:
  void lock() {
    refuse_if_inherited();
    mutex_.lock();
  }
  bool try_lock() {
    refuse_if_inherited();
    return mutex_.try_lock();
  }
  void unlock() { mutex_.unlock(); }

  void lock_shared() {
    refuse_if_inherited();
    mutex_.lock_shared();
  }
  void unlock_shared() { mutex_.unlock_shared(); }

 private:
  void refuse_if_inherited() const {
    if (made_in_ != process_generation()) [[unlikely]]
      refuse_in_forked_child();
  }

  Mutex mutex_;
  const unsigned made_in_ = process_generation();
};

using object_mutex = of_one_process<std::mutex>;
using object_recursive_mutex = of_one_process<std::recursive_mutex>;
using object_shared_mutex = of_one_process<std::shared_mutex>;

class driver_mutex {
 public:
  void lock() {
    if (process_is_forked_child()) [[unlikely]]
      refuse_in_forked_child();
    mutex_.lock();
  }
  void unlock() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

class process_mutex {
 public:
  process_mutex() noexcept;
  process_mutex(const process_mutex&) = delete;
  process_mutex& operator=(const process_mutex&) = delete;

  void lock() { mutex_.lock(); }
  bool try_lock() { return mutex_.try_lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  friend struct all_process_mutexes;

  std::mutex mutex_;
  process_mutex* next_ = nullptr;  // in the list of all
};

}  // namespace cenote::inline v1
