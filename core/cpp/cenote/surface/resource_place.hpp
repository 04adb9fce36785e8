// Where the current resource of one device lies, and the holds that its blocks have on it.
//
//     place ──► tenure: the resource, and how many hold it        one hold is the place's own
//                 ▲ ▲ ▲
//                 └─┴─┴─ a hold for each block that was made in it: also when the place has another tenure by then
//
// How it works
//   1. exchange() and fill() put a resource there as a new tenure: a resource while it is current or held.
//   2. hold() counts one more for the tenure that lies there. Dropping counts one less; the last one ends the tenure,
//      and with it its reference to the resource.
//
// Invariants
//   I1  a tenure has a hold for each resource_hold that names it, one more while it lies in its place, and else is gone
//
// Threads: any. The count and the place are guarded by the place's lock, which is held for a few instructions: a
// resource never ends under it.
// Cost: an exchange to hold and one to drop. A shared_ptr's own count would be as dear, and need a lock besides:
// between reading the place and counting, the resource could go.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>

#include "cenote/ground/export.hpp"
#include "cenote/ground/spin_lock.hpp"
#include "cenote/memory_resource.hpp"

namespace cenote::inline v1 {

class resource_place;

struct resource_tenure {
  std::shared_ptr<memory_resource> resource;
  resource_place& place;
  std::size_t holds = 1;  // guarded by the place's lock
};

/// Keeps a resource that was current alive; empty if default-constructed or moved from.
class resource_hold {
 public:
  resource_hold() noexcept = default;
  resource_hold(resource_hold&& other) noexcept : tenure_(std::exchange(other.tenure_, nullptr)) {}
  resource_hold& operator=(resource_hold&& other) noexcept {
    resource_tenure* const taken = std::exchange(other.tenure_, nullptr);
    drop();
    tenure_ = taken;
    return *this;
  }
  ~resource_hold() { drop(); }

  bool is_empty() const noexcept { return tenure_ == nullptr; }
  memory_resource* operator->() const noexcept { return tenure_->resource.get(); }
  const std::shared_ptr<memory_resource>& resource() const noexcept { return tenure_->resource; }

  /// May end the resource, which may wait for its device: not under a lock that others need.
  void drop() noexcept {
    if (tenure_ != nullptr) drop_held();
  }

  /// False, and nothing has happened, if it is the last hold.
  bool drop_unless_last() noexcept { return is_empty() || drop_held_unless_last(); }

  void swap(resource_hold& other) noexcept { std::swap(tenure_, other.tenure_); }

 private:
  friend resource_place;
  explicit resource_hold(resource_tenure* tenure) noexcept : tenure_(tenure) {}
  CENOTE_EXPORT void drop_held() noexcept;
  CENOTE_EXPORT bool drop_held_unless_last() noexcept;

  resource_tenure* tenure_ = nullptr;
};

/// In static memory: its destructor would do nothing.
class alignas(64) resource_place {
 public:
  /// A hold on what lies there; empty if nothing does.
  resource_hold hold() noexcept {
    const std::lock_guard lock(lock_);
    if (tenure_ != nullptr) ++tenure_->holds;
    return resource_hold(tenure_);
  }

  /// What lies there, null if nothing does.
  std::shared_ptr<memory_resource> find() const noexcept {
    const std::lock_guard lock(lock_);
    return tenure_ != nullptr ? tenure_->resource : nullptr;
  }

  /// Whether that is what lies there.
  bool has(const std::weak_ptr<memory_resource>& resource) const noexcept {
    const std::lock_guard lock(lock_);
    return tenure_ != nullptr && !resource.owner_before(tenure_->resource) && !tenure_->resource.owner_before(resource);
  }

  /// Puts `resource`, which may be null, in the place of the one that is returned.
  std::shared_ptr<memory_resource> exchange(std::shared_ptr<memory_resource> resource);

  /// Puts `resource` there if nothing lies there.
  void fill(std::shared_ptr<memory_resource> resource);

 private:
  friend resource_hold;

  mutable spin_lock lock_;  // guards all below, and the holds of each tenure of this place
  resource_tenure* tenure_ = nullptr;
};

/// As find_per_device_resource and get_per_device_resource of the registry.
CENOTE_EXPORT resource_hold find_resource_hold(int device);
CENOTE_EXPORT resource_hold get_resource_hold(int device);

}  // namespace cenote::inline v1
