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
//      it is a MemoryError. raise_python_error raises that again: a RuntimeError from an Exception, but a MemoryError,
//      and what is no Exception (an interrupt: KeyboardInterrupt, SystemExit, …), as it was.
//   4. A `body` that frees memory (void) cannot throw. An interrupt goes to the Python caller all the same, if one has
//      opened an interrupt_scope; in destructors it goes to sys.unraisablehook, as any Exception does.
//   5. `collect_calls(TheClass)` (memory_resource.pxd), once per class, lets Python's collector see `_calls`: a tuple,
//      which the collector cannot take apart, of what the Python object has as its own members too. So a callable that
//      refers to its own resource, or to what stands on that, is freed with it (python_lease.hpp).
//
// Threads: any, with or without the GIL, which is taken here: call under no lock that a holder of the GIL may wait for.
// After Python has started to end nothing of it is called or released any more: a function that frees does nothing
// then, and any other throws std::runtime_error. A thread that wants the GIL by then stays where it is (gil.hpp).
#pragma once

#include <Python.h>

#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "cenote/ground/error.hpp"
#include "cenote/ground/foreign_exception.hpp"
#include "gil.hpp"

namespace cenote {

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

/// Whether it is no Exception: `except Exception:` lets it pass, and so does all that is here. BaseException itself is
/// an error like any other, as RMM has it.
inline bool is_interrupt(PyObject* raised) {
  return PyErr_GivenExceptionMatches(raised, PyExc_Exception) == 0 &&
         reinterpret_cast<PyObject*>(Py_TYPE(raised)) != PyExc_BaseException;
}

/// Raises an exception that was taken, with the context that it had.
inline void raise_taken(PyObject* raised) {
  PyErr_Restore(Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(raised))), Py_NewRef(raised),
                PyException_GetTraceback(raised));
}

/// Raises a RuntimeError of this text, with what was raised as its cause.
inline void raise_from(const char* text, PyObject* raised) {
  PyObject* const runtime_error = PyObject_CallFunction(PyExc_RuntimeError, "s", text);
  if (runtime_error == nullptr) return;
  PyException_SetCause(runtime_error, Py_NewRef(raised));
  raise_taken(runtime_error);
  Py_DECREF(runtime_error);
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

/// To sys.unraisablehook.
inline void report_unraisable(const python_object& raised) noexcept {
  if (!python_is_alive()) return;
  const gil_scope gil;
  const pending_exception pending;
  stay_if_ended([&] {
    raise_taken(raised.get());
    PyErr_WriteUnraisable(nullptr);
  });
}

/// A class whose instance, asked for without arguments, is `raised`: the interpreter asks for one when it raises what
/// another thread, or code without it, has sent to a thread. Null with an error set.
inline PyObject* class_that_makes(PyObject* raised) {
  static PyMethodDef definition = {
      "__new__",
      reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(
          +[](PyObject* made, PyObject*, PyObject*) -> PyObject* { return Py_NewRef(made); })),
      METH_VARARGS | METH_KEYWORDS, nullptr};
  PyObject* const make = PyCFunction_New(&definition, raised);
  if (make == nullptr) return nullptr;
  return PyObject_CallFunction(reinterpret_cast<PyObject*>(&PyType_Type), "s(O){s:N}", Py_TYPE(raised)->tp_name,
                               PyExc_BaseException, "__new__", make);
}

/// The thread raises it as soon as it runs Python again; reported where it never does.
inline void raise_in_this_thread(const python_object& raised) noexcept {
  if (!python_is_alive()) return;
  if (PyGILState_GetThisThreadState() == nullptr) return report_unraisable(raised);
  const gil_scope gil;
  const pending_exception pending;
  PyObject* const sent = class_that_makes(raised.get());
  if (sent != nullptr) PyThreadState_SetAsyncExc(PyThread_get_thread_ident(), sent);
  Py_XDECREF(sent);
  PyErr_Clear();
}

/// What a Python function raised.
class python_exception : public std::runtime_error, public foreign_exception {
 public:
  python_exception(const std::string& text, std::shared_ptr<python_object> raised)
      : std::runtime_error(text), raised_(std::move(raised)) {}
  void raise_again() const override {
    if (is_interrupt(raised_->get())) return raise_taken(raised_->get());
    raise_from(what(), raised_->get());
  }
  void raise_later() const noexcept override {
    if (is_interrupt(raised_->get())) raise_in_this_thread(*raised_);
  }
  void report() const noexcept override { report_unraisable(*raised_); }

 private:
  std::shared_ptr<python_object> raised_;
};

/// The MemoryError that a Python function raised.
class python_out_of_memory : public out_of_memory, public foreign_exception {
 public:
  python_out_of_memory(const std::string& text, std::shared_ptr<python_object> raised)
      : out_of_memory("a Python function", 0, {}), raised_(std::move(raised)), text_(text) {}
  const char* what() const noexcept override { return text_.c_str(); }
  void raise_again() const override { raise_taken(raised_->get()); }
  void raise_later() const noexcept override {}
  void report() const noexcept override { report_unraisable(*raised_); }

 private:
  std::shared_ptr<python_object> raised_;
  std::string text_;
};

/// Takes the Python exception that is set; null if none is. Needs the GIL.
inline PyObject* take_raised() {
  if (PyErr_Occurred() == nullptr) return nullptr;
#if PY_VERSION_HEX >= 0x030C0000
  return PyErr_GetRaisedException();
#else
  PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != nullptr) PyException_SetTraceback(value, traceback);
  Py_XDECREF(type);
  Py_XDECREF(traceback);
  return value;
#endif
}

/// The text of an exception, or the name of its type if it has none. An interrupt may arrive while it is made: it is
/// set then. Needs the GIL.
inline std::string text_of_exception(PyObject* raised) {
  PyObject* const text = PyObject_Str(raised);
  const char* const utf8 = text != nullptr ? PyUnicode_AsUTF8(text) : nullptr;
  std::string result = utf8 != nullptr && *utf8 != '\0' ? utf8 : Py_TYPE(raised)->tp_name;
  Py_XDECREF(text);
  if (PyErr_Occurred() != nullptr && PyErr_ExceptionMatches(PyExc_Exception) != 0) PyErr_Clear();
  return result;
}

/// Returns the raised exception as one of C++. Needs the GIL.
inline std::exception_ptr cpp_exception(PyObject* raised) {
  std::string text = text_of_exception(raised);
  auto kept = std::make_shared<python_object>(raised);
  if (PyObject* const interrupt = take_raised()) {
    text = Py_TYPE(interrupt)->tp_name;
    kept = std::make_shared<python_object>(interrupt);
    Py_DECREF(interrupt);
  }
  if (PyErr_GivenExceptionMatches(kept->get(), PyExc_MemoryError) != 0) {
    return std::make_exception_ptr(python_out_of_memory(text, std::move(kept)));
  }
  return std::make_exception_ptr(python_exception(text, std::move(kept)));
}

/// Takes the Python exception that is set, as a C++ one; null if none is. Needs the GIL.
inline std::exception_ptr take_python_exception() {
  PyObject* const raised = take_raised();
  if (raised == nullptr) return nullptr;
  auto taken = cpp_exception(raised);
  Py_DECREF(raised);
  return taken;
}

/// A function that frees memory, `where`, has raised the exception that is set: an interrupt goes to the Python caller,
/// if there is one, anything else to sys.unraisablehook. Needs the GIL.
inline void carry_or_report(PyObject* where) {
  PyObject* const raised = take_raised();
  if (!is_interrupt(raised) || !interrupt_scope::carry(cpp_exception(raised))) {
    raise_taken(raised);
    PyErr_WriteUnraisable(where);
  }
  Py_DECREF(raised);
}

/// The object for one call of python_function, which keeps it also where clear() comes meanwhile.
inline PyObject* object_or_none(const python_object& object) {
  return object.get() != nullptr ? object.get() : Py_None;
}

/// A function of the core that calls `body` with the object and the GIL. See the top of this file.
template <class Result, class... Arguments>
std::function<Result(Arguments...)> python_function(std::shared_ptr<python_object> object,
                                                    Result (*body)(PyObject*, Arguments...)) {
  return [object = std::move(object), body](Arguments... arguments) -> Result {
    if (!python_is_alive()) throw std::runtime_error("a Python function cannot be called after Python has ended");
    Result result{};
    std::exception_ptr raised;
    {
      const gil_scope gil;
      const pending_exception pending;
      const closed_interrupt_scope closed;
      const python_object called(object_or_none(*object));
      raised = stay_if_ended([&] {
        result = body(called.get(), arguments...);
        return take_python_exception();
      });
    }
    if (raised) std::rethrow_exception(raised);
    return result;
  };
}

/// As python_function, of one that frees memory, for an object that is a tuple; reports name the second of it.
template <class... Arguments>
std::function<void(Arguments...)> python_free_function(std::shared_ptr<python_object> object,
                                                       void (*body)(PyObject*, Arguments...)) {
  return [object = std::move(object), body](Arguments... arguments) {
    if (!python_is_alive()) return;  // the process gives the memory back
    const gil_scope gil;
    const pending_exception pending;
    const python_object called(object_or_none(*object));
    stay_if_ended([&] {
      const closed_interrupt_scope closed;
      body(called.get(), arguments...);
    });
    if (PyErr_Occurred() == nullptr) return;
    stay_if_ended([&] { carry_or_report(PyTuple_Check(called.get()) ? PyTuple_GET_ITEM(called.get(), 1) : Py_None); });
  };
}

}  // namespace cenote
