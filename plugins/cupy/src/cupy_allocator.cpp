// The functions that cupy.cuda.CFunctionAllocator calls: CuPy's way into the current memory resource, without a Python
// object or call of ours for an allocation.
//
// CuPy passes no stream. Its current stream is asked of CuPy's own C function, whose address CuPy hands us back as
// `param` with every call: intptr_t get_stream_ptr(int device). CuPy calls with the GIL held, which that function needs
// and which cenote releases only where it has to wait. CuPy declares malloc as `except +`: what is thrown here
// becomes a Python exception (std::bad_alloc a MemoryError). free must not throw.
#include <Python.h>

#include <cstddef>
#include <cstdint>

#include "cenote/cenote.h"

namespace {

using get_stream_ptr = std::intptr_t (*)(int device);

void* release_gil() { return PyEval_SaveThread(); }
void acquire_gil(void* state) { PyEval_RestoreThread(static_cast<PyThreadState*>(state)); }

bool interpreter_is_finalizing() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing();
#else
  return _Py_IsFinalizing();
#endif
}

// The module is not imported beside a library that has no such version, or is older and has not all of these functions.
const cenote_api* const api = cenote_get_api(CENOTE_ABI_VERSION);

int client() {
  static const int index = api->register_client("cupy");
  return index;
}

void* current_stream(void* param, int device) {
  return reinterpret_cast<void*>(reinterpret_cast<get_stream_ptr>(param)(device));
}

void* allocate(void* param, std::size_t bytes, int device) {
  return api->allocate_holding_or_throw(client(), device, bytes, current_stream(param, device), release_gil,
                                        acquire_gil);
}

// The array's own stream may be gone, so that the block is freed on the current one: cenote orders the rest. At the end
// of the interpreter CuPy's thread-local state is gone too; the legacy default stream (null) is always there.
void deallocate(void* param, void* pointer, int device) noexcept {
  if (interpreter_is_finalizing()) {
    api->deallocate(pointer, nullptr);
    return;
  }
  api->deallocate_holding(pointer, current_stream(param, device), release_gil, acquire_gil);
}

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "_allocator",
                          "Addresses of the C functions for cupy.cuda.CFunctionAllocator.",
                          -1,
                          nullptr,
                          nullptr,
                          nullptr,
                          nullptr,
                          nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__allocator() {
  if (api == nullptr) {
    PyErr_SetString(PyExc_ImportError, cenote_last_error());
    return nullptr;
  }
  if (api->struct_size < sizeof(cenote_api)) {
    PyErr_SetString(PyExc_ImportError, "the libcenote.so that was loaded is older than this module");
    return nullptr;
  }
  PyObject* const module = PyModule_Create(&definition);
  if (module == nullptr) return nullptr;
  if (PyModule_AddObject(module, "allocate", PyLong_FromVoidPtr(reinterpret_cast<void*>(&allocate))) != 0 ||
      PyModule_AddObject(module, "deallocate", PyLong_FromVoidPtr(reinterpret_cast<void*>(&deallocate))) != 0) {
    Py_DECREF(module);
    return nullptr;
  }
  return module;
}
