#include "cenote/pool/idle_trimmer.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "cenote/ground/process.hpp"

namespace cenote::inline v1::pool {

idle_trimmer::idle_trimmer(std::chrono::nanoseconds idle, pool_calls calls)
    : quarter_(idle / 4), calls_(std::move(calls)), made_in_(process_generation()), thread_([this] { run(); }) {}

bool idle_trimmer::is_of_this_process() const noexcept { return process_generation() == made_in_; }

idle_trimmer::~idle_trimmer() {
  {
    const std::lock_guard lock(mutex_);
    is_ending_ = true;
  }
  ends_.notify_one();
  thread_.join();
}

void idle_trimmer::run() {
  std::array<std::size_t, 4> most{};
  std::size_t quarters = 0;
  std::pair<std::size_t, std::size_t> left{};  // by the last trim: bytes held, of how many that were to be kept
  std::unique_lock lock(mutex_);
  while (!ends_.wait_for(lock, quarter_, [this] { return is_ending_; }) && !driver_is_gone()) {
    lock.unlock();
    calls_.finish_trim();
    most[quarters++ % most.size()] = calls_.most_in_use_since();
    const std::size_t keep = *std::max_element(most.begin(), most.end());
    if (quarters >= most.size() && calls_.held() > keep && std::pair(calls_.held(), keep) != left) {
      calls_.trim(keep);
      left = {calls_.held(), keep};  // what is beyond lies on pages that are partly in use
    }
    lock.lock();
  }
}

}  // namespace cenote::inline v1::pool
