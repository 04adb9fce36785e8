// cuda.core's way into the current memory resource: what a CenoteMemoryResource has for `allocate` and `deallocate`.
//
// How it works
//   1. cuda.core calls allocate(size, stream=…) and deallocate(address, size, stream=…). With ints and a stream of its
//      own, these functions do it, without the frames of Python, which take longer than the allocation.
//   2. Anything else, and what failed, is passed to the methods in Python, which say what is wrong. What a function of
//      the program has raised on the way is raised at once.
//
// cuda.core calls with the GIL held, which cenote releases only where it has to wait.
#include <Python.h>
#include <cxxabi.h>
#include <unistd.h>

#include <cstddef>
#include <exception>

#include "cenote/cenote.h"
#include "cenote/ground/foreign_exception.hpp"

namespace {

void* release_gil() { return PyEval_SaveThread(); }

/// Python up to 3.13 ends a thread that comes back after it has begun to end itself, by unwinding it. The frames of the
/// core that call this throw nothing, so that the thread stays here until the process ends, as from 3.14 on.
void acquire_gil(void* state) {
  try {
    PyEval_RestoreThread(static_cast<PyThreadState*>(state));
  } catch (const abi::__forced_unwind&) {
    for (;;) pause();
  }
}

// The module is not imported beside a library that has no such version, or is older and has not all of these functions.
const cenote_api* const api = cenote_get_api(CENOTE_ABI_VERSION);

int client() {
  static const int index = api->register_client("cuda.core");
  return index;
}

/// What cuda.core has that we need, and names; never let go.
struct cuda_core_parts {
  PyTypeObject* stream = nullptr;
  PyObject* buffer_from_handle = nullptr;
  PyObject* stream_protocol = nullptr;  // "__cuda_stream__"
  PyObject* stream_keyword = nullptr;   // ("stream",)
};
cuda_core_parts cuda_core;

/// What a function knows of its resource: a tuple, which the garbage collector looks into.
struct bound {
  explicit bound(PyObject* self)
      : resource(PyTuple_GET_ITEM(self, 0)), method(PyTuple_GET_ITEM(self, 1)), device(PyTuple_GET_ITEM(self, 2)) {}
  PyObject* resource;
  PyObject* method;  // in Python
  PyObject* device;
};

/// Whether a call has so many positional arguments, and `stream`.
bool has_stream(Py_ssize_t positional, Py_ssize_t given, PyObject* keywords) {
  if (given != positional || keywords == nullptr || PyTuple_GET_SIZE(keywords) != 1) return false;
  return PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, 0), "stream") == 0;
}

/// False where it is no stream of cuda.core's.
bool handle_of(PyObject* stream, void*& handle) {
  if (Py_TYPE(stream) != cuda_core.stream) return false;
  PyObject* const said = PyObject_VectorcallMethod(cuda_core.stream_protocol, &stream, 1, nullptr);  // (0, handle)
  const bool is_pair = said != nullptr && PyTuple_CheckExact(said) && PyTuple_GET_SIZE(said) == 2;
  if (is_pair) handle = PyLong_AsVoidPtr(PyTuple_GET_ITEM(said, 1));
  Py_XDECREF(said);
  if (PyErr_Occurred() == nullptr) return is_pair;
  PyErr_Clear();
  return false;
}

/// False where it is no int, or too large.
bool number_of(PyObject* object, std::size_t& number) {
  if (!PyLong_CheckExact(object)) return false;
  number = PyLong_AsSize_t(object);
  if (number != static_cast<std::size_t>(-1)) return true;
  PyErr_Clear();
  return false;
}

/// Raises what a function of the program has raised, for the exception in flight; false where it is another one.
bool raise_of_program() {
  try {
    if (const auto interrupt = cenote::interrupt_scope::take()) std::rethrow_exception(interrupt);
    throw;
  } catch (const cenote::foreign_exception& error) {
    error.raise_again();
    return true;
  } catch (...) {
    return false;
  }
}

/// Null, without a Python error, where the method in Python is to say what is wrong.
void* allocate_block(int device, std::size_t bytes, void* stream) {
  cenote::interrupt_scope interrupts;
  try {
    void* const pointer = api->allocate_holding_or_throw(client(), device, bytes, stream, release_gil, acquire_gil);
    if (interrupts.has_interrupt()) api->deallocate_holding(pointer, stream, release_gil, acquire_gil);
    interrupts.end();
    return pointer;
  } catch (...) {
    raise_of_program();
    return nullptr;
  }
}

PyObject* call_method(const bound& of, PyObject* const* arguments, Py_ssize_t given, PyObject* keywords) {
  const Py_ssize_t all = given + (keywords != nullptr ? PyTuple_GET_SIZE(keywords) : 0);
  PyObject* const passed = PyTuple_New(given);
  PyObject* const named = passed != nullptr ? PyDict_New() : nullptr;
  PyObject* result = nullptr;
  bool is_complete = named != nullptr;
  for (Py_ssize_t i = 0; is_complete && i < given; ++i) PyTuple_SET_ITEM(passed, i, Py_NewRef(arguments[i]));
  for (Py_ssize_t i = given; is_complete && i < all; ++i) {
    is_complete = PyDict_SetItem(named, PyTuple_GET_ITEM(keywords, i - given), arguments[i]) == 0;
  }
  if (is_complete) result = PyObject_Call(of.method, passed, named);
  Py_XDECREF(named);
  Py_XDECREF(passed);
  return result;
}

PyObject* allocate(PyObject* self, PyObject* const* arguments, Py_ssize_t given, PyObject* keywords) {
  const bound of(self);
  std::size_t bytes = 0;
  void* stream = nullptr;
  if (has_stream(1, given, keywords) && number_of(arguments[0], bytes) && handle_of(arguments[1], stream)) {
    void* const pointer = allocate_block(static_cast<int>(PyLong_AsLong(of.device)), bytes, stream);
    if (pointer == nullptr && PyErr_Occurred() != nullptr) return nullptr;
    if (pointer != nullptr) {
      PyObject* const address = PyLong_FromVoidPtr(pointer);
      if (address == nullptr) return nullptr;
      PyObject* const passed[] = {address, arguments[0], of.resource, arguments[1]};
      PyObject* const buffer = PyObject_Vectorcall(cuda_core.buffer_from_handle, passed, 3, cuda_core.stream_keyword);
      Py_DECREF(address);
      return buffer;
    }
  }
  return call_method(of, arguments, given, keywords);
}

PyObject* deallocate(PyObject* self, PyObject* const* arguments, Py_ssize_t given, PyObject* keywords) {
  std::size_t address = 0;
  void* stream = nullptr;
  if (!has_stream(2, given, keywords) || !number_of(arguments[0], address) || !handle_of(arguments[2], stream))
    return call_method(bound(self), arguments, given, keywords);
  cenote::interrupt_scope interrupts;
  try {
    api->deallocate_holding(reinterpret_cast<void*>(address), stream, release_gil, acquire_gil);
    interrupts.end();
  } catch (...) {
    if (raise_of_program()) return nullptr;
  }
  Py_RETURN_NONE;
}

template <auto Function>
PyCFunction as_c_function() {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(Function));
}

PyMethodDef allocate_definition = {"allocate", as_c_function<&allocate>(), METH_FASTCALL | METH_KEYWORDS, nullptr};
PyMethodDef deallocate_definition = {"deallocate", as_c_function<&deallocate>(), METH_FASTCALL | METH_KEYWORDS,
                                     nullptr};

PyObject* bind(PyMethodDef& definition, PyObject* resource, PyObject* method, PyObject* device) {
  PyObject* const self = PyTuple_Pack(3, resource, method, device);
  if (self == nullptr) return nullptr;
  PyObject* const function = PyCFunction_New(&definition, self);
  Py_DECREF(self);
  return function;
}

/// False with a Python error set.
bool know(PyObject* stream, PyObject* from_handle) {
  if (cuda_core.stream != nullptr) return true;
  cuda_core.stream_protocol = PyUnicode_InternFromString("__cuda_stream__");
  cuda_core.stream_keyword = Py_BuildValue("(s)", "stream");
  if (cuda_core.stream_protocol == nullptr || cuda_core.stream_keyword == nullptr) return false;
  cuda_core.buffer_from_handle = Py_NewRef(from_handle);
  cuda_core.stream = reinterpret_cast<PyTypeObject*>(Py_NewRef(stream));
  return true;
}

/// make_functions(resource, its methods allocate and deallocate, its device, cuda.core's class Stream,
/// Buffer.from_handle): the two functions that do the same as the methods.
PyObject* make_functions(PyObject*, PyObject* arguments) {
  PyObject *resource = nullptr, *allocates = nullptr, *deallocates = nullptr, *device = nullptr;
  PyObject *stream = nullptr, *from_handle = nullptr;
  if (PyArg_ParseTuple(arguments, "OOOO!O!O", &resource, &allocates, &deallocates, &PyLong_Type, &device, &PyType_Type,
                       &stream, &from_handle) == 0 ||
      !know(stream, from_handle))
    return nullptr;
  return Py_BuildValue("NN", bind(allocate_definition, resource, allocates, device),
                       bind(deallocate_definition, resource, deallocates, device));
}

PyMethodDef functions[] = {
    {"make_functions", make_functions, METH_VARARGS, "What a resource has for allocate and deallocate."},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "_buffers",
                          "allocate and deallocate for cuda.core.",
                          -1,
                          functions,
                          nullptr,
                          nullptr,
                          nullptr,
                          nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__buffers() {
  if (api == nullptr) {
    PyErr_SetString(PyExc_ImportError, cenote_last_error());
    return nullptr;
  }
  if (api->struct_size < sizeof(cenote_api)) {
    PyErr_SetString(PyExc_ImportError, "the libcenote.so that was loaded is older than this module");
    return nullptr;
  }
  return PyModule_Create(&definition);
}
