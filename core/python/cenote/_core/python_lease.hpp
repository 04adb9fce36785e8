// How C++ holds a resource that calls Python functions: by the resource's Python object, so that the collector sees who
// holds what.
//
//     Python:   adaptor, buffer ──────────────────────────► resource's object ──► functions
//                  │ owns                                    ▲        │ owns
//     C++:      adaptor, buffer ──► lease (a shared_ptr) ────┘        └──► resource
//
//   1. Whatever takes such a resource from Python gets a lease (lease_of): a shared_ptr to the resource that keeps the
//      Python object too. So the object lives as long as anybody in C++ may call its functions.
//   2. A Python object whose C++ part has a lease (an adaptor, a buffer) tells the collector of the reference that the
//      lease has, beside its own (leases::visit): but only while that C++ part alone has it. A lease that anybody else
//      has a copy of, such as the table of current resources, counts as held from outside.
//   3. So a cycle through functions, resources, adaptors and buffers is garbage as soon as nobody else holds a part of
//      it. Python then finalizes before it clears. While the functions still work, what stands on the resource ends
//      (let_go_of_all), first what is outermost: buffers free their memory, then pools give back their chunks. Their
//      objects are as if they had never been initialised, if a finalizer of the program's still finds them.
//
// Threads: with the GIL, but for the copies and the end of a lease, which takes it.
// Cost: one host allocation a lease, only for resources that call Python.
#pragma once

#include <Python.h>

#include <atomic>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cenote/memory_resource.hpp"
#include "python_callable.hpp"

namespace cenote {

/// Ends the C++ part of a Python object and drops its leases, if nothing uses it; called while all that is garbage.
using let_go_function = void (*)(PyObject* holder);

/// The leases of one resource.
struct standing {
  std::unordered_map<PyObject*, let_go_function> holders;  // borrowed: each takes itself out before it dies
  std::atomic<long> leases{0};
};

/// The object that a lease keeps, and the very resource that it had, as a program may initialise the object anew.
class leased {
 public:
  leased(std::shared_ptr<memory_resource> resource, PyObject* object, std::shared_ptr<standing> others)
      : object_(object), resource_(std::move(resource)), others_(std::move(others)) {
    ++others_->leases;
  }
  ~leased() {
    resource_.reset();
    --others_->leases;
  }
  leased(const leased&) = delete;
  leased& operator=(const leased&) = delete;

 private:
  python_object object_;  // goes last: it may be the last reference
  std::shared_ptr<memory_resource> resource_;
  std::shared_ptr<standing> others_;
};

inline std::shared_ptr<memory_resource> lease_of(const std::shared_ptr<memory_resource>& resource, PyObject* object,
                                                 const std::shared_ptr<standing>& others) {
  return {std::make_shared<leased>(resource, object, others), resource.get()};
}

/// Whether nobody has the resource but one Python object and the leases. Never true by mistake: a lease is counted
/// after it has the resource, and no more before it lets it go.
inline bool is_owned_alone(const std::shared_ptr<memory_resource>& resource, const std::shared_ptr<standing>& others) {
  return resource.use_count() == 1 + (others ? others->leases.load() : 0);
}

/// The leases that the C++ part of a Python object has.
class leases {
 public:
  /// `of` is what the lease keeps, with what stands on it; `users` is how many copies the C++ part has.
  void hold(std::shared_ptr<memory_resource> lease, PyObject* of, std::shared_ptr<standing> others, long users,
            PyObject* holder, let_go_function let_go) {
    others->holders[holder] = let_go;
    held_.push_back({std::move(lease), of, std::move(others), users + 1});
  }

  /// The C++ part has another number of copies now of what was held first.
  void set_users(long users) noexcept {
    if (!held_.empty()) held_.front().copies = users + 1;
  }

  void drop(PyObject* holder) noexcept {
    if (held_.empty()) return;
    for (const held& each : held_) each.others->holders.erase(holder);
    std::vector<held>().swap(held_);
  }

  long users_of_first() const noexcept { return held_.empty() ? 0 : held_.front().lease.use_count() - 1; }

  /// Exchanges the leases of two holders of one kind.
  void swap(leases& other, PyObject* mine, PyObject* others, let_go_function let_go) {
    for (const held& each : held_) each.others->holders.erase(mine);
    for (const held& each : other.held_) each.others->holders.erase(others);
    std::swap(held_, other.held_);
    for (const held& each : held_) each.others->holders[mine] = let_go;
    for (const held& each : other.held_) each.others->holders[others] = let_go;
  }

  /// For tp_traverse, while nobody but the Python object has the C++ part.
  int visit(visitproc visit, void* argument) const {
    for (const held& each : held_) {
      if (each.lease.use_count() > each.copies) continue;
      if (const int result = visit(each.of, argument)) return result;
    }
    return 0;
  }

 private:
  struct held {
    std::shared_ptr<memory_resource> lease;
    PyObject* of;  // which the lease keeps
    std::shared_ptr<standing> others;
    long copies;  // this one included
  };
  std::vector<held> held_;
};

/// All that stands there lets go, as far as nothing uses it. Their objects stay alive meanwhile.
inline void let_go_of_all(const standing& there) {
  std::vector<std::pair<std::unique_ptr<python_object>, let_go_function>> holders;
  for (const auto& [holder, let_go] : there.holders)
    holders.emplace_back(std::make_unique<python_object>(holder), let_go);
  for (const auto& [holder, let_go] : holders) let_go(holder->get());
}

}  // namespace cenote
