// Handles of streams, events, pools, graphs and physical memory: values that a program may hold on to for too long.
//
// A handle is a slot number dressed up as a pointer. The slot that was freed last is used first, so that the next
// object made gets the handle value of the one destroyed last, as with the real driver: state that a program keys by
// handle goes wrong here as it would there.
//
// Threads: guarded by driver_mutex(). Cost: O(1).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "sim/ground/failure.hpp"
#include "sim/ground/violations.hpp"

namespace cenote::sim {

template <class Handle, class Object>
class handle_table {
 public:
  /// `kind` is the word for messages; `tag` sets the handles of one kind apart from those of another.
  handle_table(const char* kind, std::uintptr_t tag) : kind(kind), first_(tag << 32 | stride) {}

  Handle insert(std::shared_ptr<Object> object) {
    if (free_.empty()) {
      free_.push_back(slots_.size());
      slots_.emplace_back();
    }
    const std::size_t slot = free_.back();
    free_.pop_back();
    slots_[slot] = std::move(object);
    return handle_of(slot);
  }

  /// Null where the handle was never given out, or its object was removed.
  std::shared_ptr<Object> find(Handle handle) const {
    const std::size_t slot = slot_of(handle);
    return slot < slots_.size() ? slots_[slot] : nullptr;
  }

  void remove(Handle handle) {
    const std::size_t slot = slot_of(handle);
    slots_[slot] = nullptr;
    free_.push_back(slot);
  }

  /// Removes the object, and never gives its handle out again.
  void retire(Handle handle) {
    const std::size_t slot = slot_of(handle);
    slots_[slot] = nullptr;
    retired_.insert(slot);
  }
  bool is_retired(Handle handle) const { return retired_.contains(slot_of(handle)); }

  std::size_t size() const { return slots_.size() - free_.size() - retired_.size(); }

  /// `visit(handle, object)` for every object; it may remove the one that it is shown.
  template <class Visit>
  void for_each(Visit&& visit) const {
    for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
      if (slots_[slot]) {
        visit(handle_of(slot), slots_[slot]);
      }
    }
  }

  const char* const kind;

 private:
  static constexpr std::uintptr_t stride = 0x100;

  // A C cast: handles are pointers for most kinds and integers for physical memory.
  Handle handle_of(std::size_t slot) const { return (Handle)(first_ + slot * stride); }
  std::size_t slot_of(Handle handle) const {
    const auto distance = (std::uintptr_t)handle - first_;
    return distance % stride == 0 ? distance / stride : SIZE_MAX;
  }

  std::uintptr_t first_;
  std::vector<std::shared_ptr<Object>> slots_;
  std::vector<std::size_t> free_;
  std::set<std::size_t> retired_;
};

/// The object behind a handle. A dead one is written down, and the call fails with `otherwise`.
template <class Handle, class Object>
std::shared_ptr<Object> find_live(const handle_table<Handle, Object>& handles, Handle handle, CUresult otherwise) {
  auto object = handles.find(handle);
  if (!object) {
    violations().add(std::string(handles.kind) + " " + hex((std::uintptr_t)handle) +
                     " does not exist, or was destroyed");
    fail(otherwise);
  }
  return object;
}

}  // namespace cenote::sim
