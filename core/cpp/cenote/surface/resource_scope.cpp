#include "cenote/surface/resource_scope.hpp"

#include <atomic>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/surface/scope_place.hpp"

namespace cenote::inline v1 {
namespace {

[[gnu::tls_model("initial-exec")]] constinit thread_local resource_scope* last_of_thread = nullptr;

struct spare_places {
  process_mutex mutex;  // guards the rest
  scope_place* first = nullptr;
};

spare_places& spares() {
  static immortal<spare_places> all;
  return *all;
}

scope_place* take_place() {
  {
    const std::lock_guard lock(spares().mutex);
    if (scope_place* const spare = spares().first) {
      spares().first = spare->next;
      return spare;
    }
  }
  return new scope_place;
}

void put_place(scope_place* place) noexcept {
  const std::lock_guard lock(spares().mutex);
  place->next = spares().first;
  spares().first = place;
}

int device_of(const std::shared_ptr<memory_resource>& resource) {
  if (!resource) throw std::invalid_argument("the resource of a scope cannot be null");
  return resource->device();
}

scope_place* place_with(std::shared_ptr<memory_resource> resource) {
  scope_place* const place = take_place();
  try {
    place->exchange(std::move(resource));
  } catch (...) {
    put_place(place);
    throw;
  }
  return place;
}

}  // namespace

std::atomic<int> open_scopes{0};

resource_scope::resource_scope(std::shared_ptr<memory_resource> resource)
    : device_(device_of(resource)), place_(place_with(std::move(resource))), outer_(last_of_thread) {
  last_of_thread = this;
  open_scopes.fetch_add(1, std::memory_order_relaxed);
}

resource_scope::~resource_scope() {
  last_of_thread = outer_;
  open_scopes.fetch_sub(1, std::memory_order_relaxed);
  const std::shared_ptr<memory_resource> ended = place_->exchange(nullptr);
  put_place(place_);
}

bool resource_scope::is_innermost() const noexcept { return last_of_thread == this; }

resource_place* place_of_scope(int device) noexcept {
  for (const resource_scope* scope = last_of_thread; scope != nullptr; scope = scope->outer_) {
    if (scope->device_ == device) return scope->place_;
  }
  return nullptr;
}

}  // namespace cenote::inline v1
