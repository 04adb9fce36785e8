// How the core keeps a Python object alive that may be gone by then: it calls a Python function, which returns what
// keeps the object, or None.
//
// Threads: any without the GIL, which is taken here; what was returned takes it again when it ends.
#pragma once

#include <Python.h>

#include <functional>
#include <memory>
#include <utility>

#include "python_callable.hpp"

namespace cenote {

/// Needs the GIL. The function may raise nothing: what it raises is reported, and counts as None.
inline std::function<std::shared_ptr<void>()> python_hold(PyObject* function) {
  return [kept = std::make_shared<python_object>(function)]() -> std::shared_ptr<void> {
    if (!python_is_alive()) return nullptr;
    const gil_scope gil;
    return stay_if_ended([&]() -> std::shared_ptr<void> {
      PyObject* const held = PyObject_CallNoArgs(kept->get());
      if (held == nullptr) PyErr_WriteUnraisable(kept->get());
      if (held == nullptr || held == Py_None) {
        Py_XDECREF(held);
        return nullptr;
      }
      auto owned = std::make_shared<python_object>(held);
      Py_DECREF(held);
      return owned;
    });
  };
}

/// A reference more to an object that others may be about to end: null if they are. Needs the GIL.
inline PyObject* reference_if_alive(PyObject* object) {
  return object != nullptr && Py_REFCNT(object) > 0 ? Py_NewRef(object) : nullptr;
}

}  // namespace cenote
