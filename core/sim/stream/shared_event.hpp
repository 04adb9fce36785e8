// An event that other processes wait for.
//
//     owner    record ─► recorded = 3        a thread: 3 is wanted ─► runs the stream up to there ─► reached = 3
//     another  wait   ─► wanted = 3, and its stream goes no further until reached = 3
//
// 1. The owner and those that opened the event share a page of memory: how often it was recorded, which of the records
//    somebody waits for, and which has been reached. The handle says where the owner has that page.
// 2. Work is as lazy here as in one process: the owner's stream advances only when some process waits for it. As the
//    owner may do nothing meanwhile, a thread of it looks every millisecond, once it has shared an event.
// 3. A wait in another process is a host function of that stream. It ends as well when the owner has ended, as a device
//    does no more work of a process that has.
// 4. The page goes with the last process that has it. Others than the owner cannot record.
//
// Threads: guarded by driver_mutex(), but for the page and what waits for it.
#pragma once

#include <cstdint>
#include <memory>

#include "sim/ground/cuda_driver.hpp"

namespace cenote::sim {

struct primary_context;
struct simulated_event;

struct shared_event_page;

/// The page, and whose it is.
class event_page {
 public:
  static std::shared_ptr<event_page> make();

  /// Another process's. Throws failure: CUDA_ERROR_INVALID_VALUE for what is no handle, or one of a process that has
  /// ended; CUDA_ERROR_INVALID_CONTEXT for one of this process.
  static std::shared_ptr<event_page> open(const CUipcEventHandle& handle);

  ~event_page();
  event_page(const event_page&) = delete;

  CUipcEventHandle handle() const;
  shared_event_page& operator*() const { return *page_; }
  bool is_own() const { return owner_ < 0; }

  /// Waits until the record has been reached, or the owner has ended. Without the driver's mutex.
  void wait_for(std::uint64_t record) const;

  bool has_reached(std::uint64_t record) const;

 private:
  event_page(int file, int owner);

  int file_;
  int owner_;  ///< a descriptor of the process; -1: this one
  shared_event_page* page_;
};

CUipcEventHandle share_event(const std::shared_ptr<simulated_event>& event);
std::shared_ptr<simulated_event> open_event(primary_context& context, const CUipcEventHandle& handle);

/// The number of the last record of the event; 0: none.
std::uint64_t last_record(const event_page& page);

/// The event, which others know, was recorded once more.
void count_record(const event_page& page);

}  // namespace cenote::sim
