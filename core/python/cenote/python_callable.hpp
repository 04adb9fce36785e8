// Python functions that the core can call, and what they raise on its way back to Python.
//
//   1. A class of Cython keeps what its resource calls in `self._calls` (DeviceMemoryResource), a python_object: one
//      callable, or a tuple of them.
//   2. `python_function(self._calls, body)` makes the std::function that the C++ resource takes. `body` is a cdef
//      function that gets the object, then the arguments; it runs with the GIL and may raise:
//
//          cdef bool ask(object callback, size_t bytes, lib.stream_ref stream, size_t tries) except *: …
//
//   3. What `body` raises is thrown, after the GIL was given back, as python_exception, or as python_out_of_memory if
//      it is a MemoryError. raise_python_error raises a RuntimeError from the first, and the second as it was.
//   4. `collect_cycles(TheClass)` (_memory_resource.pxd), once per class, lets Python's collector see `_calls` while
//      nobody but the Python object holds the C++ resource. So a callable that refers to its own resource is freed with
//      it, and one that C++ may still call is never taken apart. A cycle through C++ owners only (the callable refers
//      to an adaptor that stands on the resource) is not seen: it is kept until the process ends.
//
// Threads: any, with or without the GIL, which is taken here: call under no lock that a holder of the GIL may wait for.
// After Python has started to end nothing of it is called or released any more: a function that frees does nothing
// then, and any other throws std::runtime_error.
// A thread that has or wants the GIL at that moment is unwound by Python up to 3.13 (pthread_exit). The core's frames
// cannot be: some throw nothing, and Cython takes what passes for an error. Such a thread stays where it is until the
// process ends, as Python itself has it from 3.14 on.
#pragma once

#include <Python.h>
#include <cxxabi.h>
#include <unistd.h>

#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "cenote/ground/error.hpp"

namespace cenote {

inline bool python_is_alive() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsInitialized() != 0 && Py_IsFinalizing() == 0;
#else
  return Py_IsInitialized() != 0 && _Py_IsFinalizing() == 0;
#endif
}

/// Runs `body`, which Python may end the thread in: then it does not return.
template <class Body>
auto stay_if_ended(const Body& body) {
  try {
    return body();
  } catch (const abi::__forced_unwind&) {
    for (;;) pause();
  }
}

/// Holds the GIL while it lives. Python must be alive.
class gil_scope {
 public:
  gil_scope() noexcept : state_(stay_if_ended(PyGILState_Ensure)) {}
  ~gil_scope() { PyGILState_Release(state_); }
  gil_scope(const gil_scope&) = delete;
  gil_scope& operator=(const gil_scope&) = delete;

 private:
  PyGILState_STATE state_;
};

/// A reference to a Python object that C++ owns.
class python_object {
 public:
  /// Needs the GIL.
  explicit python_object(PyObject* object) noexcept : object_(Py_XNewRef(object)) {}

  ~python_object() {
    if (object_ == nullptr || !python_is_alive()) return;
    const gil_scope gil;
    stay_if_ended([this] { Py_DECREF(object_); });
  }
  python_object(const python_object&) = delete;
  python_object& operator=(const python_object&) = delete;

  /// Borrowed; null after clear().
  PyObject* get() const noexcept { return object_; }

  /// For tp_traverse and tp_clear.
  int visit(visitproc visit, void* argument) const { return object_ != nullptr ? visit(object_, argument) : 0; }
  void clear() noexcept { Py_CLEAR(object_); }

 private:
  PyObject* object_;
};

/// The text of an exception, or the name of its type if it has none. Needs the GIL.
inline std::string text_of_exception(PyObject* raised) {
  PyObject* const text = PyObject_Str(raised);
  const char* const utf8 = text != nullptr ? PyUnicode_AsUTF8(text) : nullptr;
  std::string result = utf8 != nullptr && *utf8 != '\0' ? utf8 : Py_TYPE(raised)->tp_name;
  Py_XDECREF(text);
  PyErr_Clear();
  return result;
}

/// What a Python function raised.
class python_exception : public std::runtime_error {
 public:
  python_exception(const std::string& text, std::shared_ptr<python_object> raised)
      : std::runtime_error(text), raised_(std::move(raised)) {}
  PyObject* raised() const noexcept { return raised_->get(); }

 private:
  std::shared_ptr<python_object> raised_;
};

/// The MemoryError that a Python function raised.
class python_out_of_memory : public out_of_memory {
 public:
  python_out_of_memory(const std::string& text, std::shared_ptr<python_object> raised)
      : out_of_memory("a Python function", 0, {}), raised_(std::move(raised)), text_(text) {}
  const char* what() const noexcept override { return text_.c_str(); }
  PyObject* raised() const noexcept { return raised_->get(); }

 private:
  std::shared_ptr<python_object> raised_;
  std::string text_;
};

/// Takes the Python exception that is set, as a C++ one; null if none is. Needs the GIL.
inline std::exception_ptr take_python_exception() {
  if (PyErr_Occurred() == nullptr) return nullptr;
#if PY_VERSION_HEX >= 0x030C0000
  PyObject* const value = PyErr_GetRaisedException();
#else
  PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != nullptr) PyException_SetTraceback(value, traceback);
  Py_XDECREF(type);
  Py_XDECREF(traceback);
#endif
  auto raised = std::make_shared<python_object>(value);
  Py_DECREF(value);
  const std::string text = text_of_exception(value);
  if (PyErr_GivenExceptionMatches(value, PyExc_MemoryError)) {
    return std::make_exception_ptr(python_out_of_memory(text, std::move(raised)));
  }
  return std::make_exception_ptr(python_exception(text, std::move(raised)));
}

/// The Python exception that is being raised while memory is freed, kept for after the call. Needs the GIL.
class pending_exception {
 public:
  pending_exception() noexcept { PyErr_Fetch(&type_, &value_, &traceback_); }
  ~pending_exception() { PyErr_Restore(type_, value_, traceback_); }
  pending_exception(const pending_exception&) = delete;
  pending_exception& operator=(const pending_exception&) = delete;

 private:
  PyObject *type_ = nullptr, *value_ = nullptr, *traceback_ = nullptr;
};

/// A function of the core that calls `body` with the object and the GIL. See the top of this file.
template <class Result, class... Arguments>
std::function<Result(Arguments...)> python_function(std::shared_ptr<python_object> object,
                                                    Result (*body)(PyObject*, Arguments...)) {
  return [object = std::move(object), body](Arguments... arguments) -> Result {
    if (!python_is_alive()) {
      if constexpr (std::is_void_v<Result>) return;  // memory that is freed: the process gives it back
      throw std::runtime_error("a Python function cannot be called after Python has ended");
    }
    std::exception_ptr raised;
    if constexpr (std::is_void_v<Result>) {
      {
        const gil_scope gil;
        const pending_exception pending;
        const python_object called(object->get() != nullptr ? object->get() : Py_None);  // clear() may come meanwhile
        raised = stay_if_ended([&] {
          body(called.get(), arguments...);
          return take_python_exception();
        });
      }
      if (raised) std::rethrow_exception(raised);
    } else {
      Result result{};
      {
        const gil_scope gil;
        const pending_exception pending;
        const python_object called(object->get() != nullptr ? object->get() : Py_None);
        raised = stay_if_ended([&] {
          result = body(called.get(), arguments...);
          return take_python_exception();
        });
      }
      if (raised) std::rethrow_exception(raised);
      return result;
    }
  };
}

/// Raises again what python_out_of_memory carries. Needs the GIL.
inline void raise_again(const python_out_of_memory& error) {
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.raised())), error.raised());
}

/// Raises a RuntimeError of the same text, with what was raised as its cause. Needs the GIL.
inline void raise_from(const python_exception& error) {
  PyObject* const runtime_error = PyObject_CallFunction(PyExc_RuntimeError, "s", error.what());
  if (runtime_error == nullptr) return;
  PyException_SetCause(runtime_error, Py_NewRef(error.raised()));
  PyErr_SetObject(PyExc_RuntimeError, runtime_error);
  Py_DECREF(runtime_error);
}

}  // namespace cenote
