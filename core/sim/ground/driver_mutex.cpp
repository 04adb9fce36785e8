#include "sim/ground/driver_mutex.hpp"

namespace cenote::sim {

std::mutex& driver_mutex() {
  static std::mutex* const mutex = new std::mutex;
  return *mutex;
}

std::condition_variable_any& progress() {
  static std::condition_variable_any* const condition = new std::condition_variable_any;
  return *condition;
}

}  // namespace cenote::sim
