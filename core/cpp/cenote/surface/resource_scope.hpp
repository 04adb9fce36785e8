// A resource that is the current one of its device for one thread, as long as a scope lasts.
//
//     thread 1   ──[ pool A ──[ pool B ]── pool A ]── the process's      scopes nest
//     thread 2   ─────────── the process's ──────────
//
//   1. Whatever asks for the current resource of that device on this thread gets the innermost scope's: frameworks,
//      containers, C. Setting one there replaces it for the rest of the scope, and no other thread's.
//   2. A block is freed to the resource that made it, also after the scope and on other threads.
//
// Threads: a scope begins and ends on one thread, the last one first. Threads that this one starts do not inherit it.
// Cost: a load for each allocation of the process; while any scope lasts, one more of the thread's own.
#pragma once

#include <memory>

#include "cenote/ground/export.hpp"
#include "cenote/memory_resource.hpp"

namespace cenote::inline v1 {  // not for programs: what is first declared in an exported namespace is exported
class resource_place;
struct scope_place;
}  // namespace cenote::inline v1

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class CENOTE_EXPORT resource_scope {
 public:
  /// std::invalid_argument if `resource` is null.
  explicit resource_scope(std::shared_ptr<memory_resource> resource);
  ~resource_scope();
  resource_scope(const resource_scope&) = delete;
  resource_scope& operator=(const resource_scope&) = delete;

  /// Whether it is the calling thread's innermost scope, which is the only one that may end.
  bool is_innermost() const noexcept;

 private:
  friend resource_place* place_of_scope(int device) noexcept;

  const int device_;
  scope_place* const place_;
  resource_scope* const outer_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
