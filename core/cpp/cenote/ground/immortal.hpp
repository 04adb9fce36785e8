// An object of the process that is never destroyed: threads and the destructors of other static objects use it to the
// end. It lies in static memory, so that making it asks the host for no more than its constructor does.
//
//     static immortal<table> the_one;      *the_one, the_one->find(…)
//
// Threads: as the object; a static one in a function is made once.
#pragma once

#include <cstddef>
#include <new>

namespace cenote::inline v1 {

template <class Object>
class immortal {
 public:
  immortal() noexcept(noexcept(Object())) : object_(*new (memory_) Object) {}
  immortal(const immortal&) = delete;
  immortal& operator=(const immortal&) = delete;

  Object& operator*() const noexcept { return object_; }
  Object* operator->() const noexcept { return &object_; }

 private:
  alignas(Object) std::byte memory_[sizeof(Object)];
  Object& object_;
};

}  // namespace cenote::inline v1
