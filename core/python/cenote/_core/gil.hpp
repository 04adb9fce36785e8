// The GIL, taken by threads that Python may have ended for.
//
// A thread that has or wants the GIL when Python ends is unwound by Python up to 3.13 (pthread_exit), or crashes in it
// if it asks later still. The core's frames cannot be unwound: some throw nothing, and Cython takes what passes for an
// error. So such a thread stays where it is until the process ends, as Python itself has it from 3.14 on.
//
// Threads: any. This file is included before all that Cython writes (core/CMakeLists.txt), which takes the GIL wherever
// C++ has thrown in a `nogil` block: that too goes through ensure_gil().
#pragma once

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>
#include <unistd.h>

#include <exception>
#include <type_traits>

namespace cenote {

inline bool python_is_alive() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsInitialized() != 0 && Py_IsFinalizing() == 0;
#else
  return Py_IsInitialized() != 0 && _Py_IsFinalizing() == 0;
#endif
}

[[noreturn]] inline void stay() noexcept {
  for (;;) pause();
}

/// Lets a thread that Python unwinds stay in the scope that has one. What C++ throws passes. (A catch block would not
/// do: inside of another one it ends the process, as C++ cannot catch what is not its own there.)
class stay_if_unwound {
 public:
  stay_if_unwound() noexcept : thrown_(std::uncaught_exceptions()) {}
  ~stay_if_unwound() {
    if (!is_over_ && std::uncaught_exceptions() == thrown_) stay();
  }
  stay_if_unwound(const stay_if_unwound&) = delete;
  stay_if_unwound& operator=(const stay_if_unwound&) = delete;

  /// Before the scope is left in another way.
  void end() noexcept { is_over_ = true; }

 private:
  const int thrown_;
  bool is_over_ = false;
};

/// Runs `body`, which Python may end the thread in: then it does not return.
template <class Body>
auto stay_if_ended(const Body& body) {
  stay_if_unwound scope;
  if constexpr (std::is_void_v<decltype(body())>) {
    body();
    scope.end();
  } else {
    auto result = body();
    scope.end();
    return result;
  }
}

/// As PyGILState_Ensure.
inline PyGILState_STATE ensure_gil() noexcept {
  if (!python_is_alive()) stay();
  return stay_if_ended(PyGILState_Ensure);
}

/// Holds the GIL while it lives.
class gil_scope {
 public:
  gil_scope() noexcept : state_(ensure_gil()) {}
  ~gil_scope() { PyGILState_Release(state_); }
  gil_scope(const gil_scope&) = delete;
  gil_scope& operator=(const gil_scope&) = delete;

 private:
  PyGILState_STATE state_;
};

}  // namespace cenote

#define PyGILState_Ensure cenote::ensure_gil
