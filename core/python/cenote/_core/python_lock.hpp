// The interpreter's lock, as the core is given it by a caller that holds it: it is let go only where the core has to
// wait.
#pragma once

#include <Python.h>

#include "cenote/surface/allocation_ledger.hpp"
#include "python_callable.hpp"

namespace cenote {

inline caller_lock interpreter_lock() noexcept {
  return {.release = []() -> void* { return PyEval_SaveThread(); },
          .acquire =
              [](void* released) {
                stay_if_ended([released] { PyEval_RestoreThread(static_cast<PyThreadState*>(released)); });
              }};
}

}  // namespace cenote
