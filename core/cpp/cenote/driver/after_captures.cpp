#include "cenote/driver/after_captures.hpp"

#include <array>
#include <list>
#include <mutex>

#include "cenote/driver/capture.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"

namespace cenote::inline v1 {
namespace {

struct put_off {
  object_mutex mutex;  // guards `all`
  std::list<std::function<bool()>> all;
};

put_off& put_off_on(int device) {
  static immortal<std::array<put_off, max_devices>> devices;
  return devices->at(static_cast<std::size_t>(device));
}

bool is_done(const std::function<bool()>& what) noexcept {
  try {
    return what();
  } catch (const std::exception& error) {
    report_once("what was put off until a capture ended has failed: ", error.what());
    return true;
  }
}

}  // namespace

void do_after_captures(int device, std::function<bool()> what) {
  std::list<std::function<bool()>> one;
  one.push_back(std::move(what));
  {
    put_off& waiting = put_off_on(device);
    const std::lock_guard lock(waiting.mutex);
    waiting.all.splice(waiting.all.end(), one);
  }
  do_what_was_put_off(device);
}

bool do_what_was_put_off(int device) noexcept {
  try {
    if (is_capture_underway(device)) return false;
    put_off& waiting = put_off_on(device);
    std::list<std::function<bool()>> due;
    {
      const std::lock_guard lock(waiting.mutex);
      due.swap(waiting.all);
    }
    const bool were_any = !due.empty();
    due.remove_if([](const auto& what) noexcept { return is_done(what); });
    const std::lock_guard lock(waiting.mutex);
    waiting.all.splice(waiting.all.end(), due);
    return were_any;
  } catch (const std::exception& error) {
    report_once(error.what());
    return false;
  }
}

}  // namespace cenote::inline v1
