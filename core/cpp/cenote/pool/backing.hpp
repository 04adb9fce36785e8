// Where a pool's memory comes from and goes back to, and the policy of its growth: the steps of an allocation after
// those that the heap alone can serve.
//
//     engine ──▶ backing ◁── page_backing    pages of virtual memory under one range of addresses
//                        ◁── chunk_backing   chunks of any upstream
//
// Invariant
//   I1  held() is at least what the heap has memory for, and at most the maximum
//
// Threads: any. `growth()` lets one thread at a time bring memory, so that a burst does not grow the pool twice; it is
// taken before the heap's lock. What an upstream calls of the program's may allocate from this very pool: to the outer
// growth that is as if another thread had grown the pool, so that the lock is recursive.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>

#include "cenote/ground/flight_recorder.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/memory_resource.hpp"
#include "cenote/pool/request.hpp"
#include "cenote/pool/shared_heap.hpp"

namespace cenote::inline v1::pool {

class backing {
 public:
  backing(shared_heap& heap, std::shared_ptr<memory_resource> upstream, std::optional<std::size_t> maximum)
      : heap_(heap), upstream_(std::move(upstream)), maximum_(maximum) {}
  virtual ~backing() { count(0); }
  backing(const backing&) = delete;
  backing& operator=(const backing&) = delete;

  const std::shared_ptr<memory_resource>& upstream() const noexcept { return upstream_; }
  std::optional<std::size_t> maximum() const noexcept { return maximum_; }

  /// Bytes that the pool holds.
  virtual std::size_t held() const = 0;

  /// The first memory, for everybody: all of it or, with what the upstream throws, nothing.
  virtual void begin(std::size_t bytes) = 0;

  /// Gets a request ready, where pages are scarce, before anything is taken for it.
  virtual void prepare(request&) const {}

  /// Brings together what is free in a pool that is scattered.
  virtual void make_whole(const request&) {}

  /// Brings memory for the request, or makes what others have freed its stream's; null where there is none.
  virtual void* bring(request& wanted) = 0;

  /// Gives back what is everybody's, until `keep_bytes` are held. Returns how many bytes it gave.
  virtual std::size_t give_back(std::size_t keep_bytes) = 0;

  /// Gives all memory back once all work of the device is done. Nothing else is called afterwards.
  virtual void end() = 0;

  /// Throws std::logic_error naming the invariant that does not hold. Under growth().
  virtual void check() const = 0;

  object_recursive_mutex& growth() const noexcept { return growth_; }

  int device() const { return heap_.device(); }

 protected:
  /// Logs, records and counts that so many bytes came or went; nothing for none.
  void say_grown(std::size_t bytes) const noexcept;
  void say_given_back(std::size_t bytes) const noexcept;

  bool is_known_to_be_without_captures() const noexcept;

  /// Throws std::logic_error unless `held` is at least that much, and at most the maximum.
  void require_bounds(std::size_t held, std::size_t at_least) const;

  shared_heap& heap_;

 private:
  void say(recorder::event event, const char* what, std::size_t bytes) const noexcept;

  /// Tells the process's counters what is held now.
  void count(std::size_t now) const noexcept;

  const std::shared_ptr<memory_resource> upstream_;
  const std::optional<std::size_t> maximum_;
  mutable object_recursive_mutex growth_;
  mutable std::atomic<std::size_t> counted_{0};  // what the process's counters have been told
};

}  // namespace cenote::inline v1::pool
