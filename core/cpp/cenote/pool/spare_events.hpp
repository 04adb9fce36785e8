// Events that no mark needs any more. Making and destroying one costs more than recording it, so that some are kept for
// later marks; the surplus is handed out to be destroyed where no lock is held, as that is the driver's to do.
//
// Threads: none of its own; the pool locks.
#pragma once

#include <memory>
#include <vector>

#include "cenote/driver/event.hpp"

namespace cenote::inline v1::pool {

class spare_events {
 public:
  spare_events() { spare_.reserve(most); }

  /// Null if there is none.
  std::shared_ptr<event> take() noexcept;

  /// One that others hold, who are about to wait for it or to ask it, is left to them. They have copied it under the
  /// pool's lock from the marks of a timeline: of an event that is in none there can be no more of them.
  void keep(std::shared_ptr<event> unneeded) noexcept;

  bool has_surplus() const noexcept { return !surplus_.empty(); }
  std::vector<std::shared_ptr<event>> take_surplus() noexcept { return std::move(surplus_); }

 private:
  static constexpr std::size_t most = 16;

  std::vector<std::shared_ptr<event>> spare_;
  std::vector<std::shared_ptr<event>> surplus_;
};

}  // namespace cenote::inline v1::pool
