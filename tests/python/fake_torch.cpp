// A stand-in for PyTorch: calls the allocator without the GIL, and makes a RuntimeError of whatever it throws.
#include <Python.h>
#include <dlfcn.h>

#include <exception>

namespace {

using allocate_function = void* (*)(std::size_t, int, void*);
using deallocate_function = void (*)(void*, std::size_t, int, void*);

/// allocate(library, bytes): whether it has succeeded; the block is freed at once.
PyObject* allocate(PyObject*, PyObject* arguments) {
  const char* library = nullptr;
  unsigned long long bytes = 0;
  if (PyArg_ParseTuple(arguments, "sK", &library, &bytes) == 0) return nullptr;
  void* const loaded = dlopen(library, RTLD_NOW);
  const auto take = reinterpret_cast<allocate_function>(dlsym(loaded, "cenote_torch_allocate"));
  const auto give = reinterpret_cast<deallocate_function>(dlsym(loaded, "cenote_torch_deallocate"));
  PyThreadState* const state = PyEval_SaveThread();
  try {
    give(take(bytes, 0, nullptr), bytes, 0, nullptr);
    PyEval_RestoreThread(state);
    Py_RETURN_NONE;
  } catch (const std::exception& error) {
    PyEval_RestoreThread(state);
    PyErr_SetString(PyExc_RuntimeError, error.what());
    return nullptr;
  }
}

PyMethodDef functions[] = {{"allocate", allocate, METH_VARARGS, nullptr}, {nullptr, nullptr, 0, nullptr}};
PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "fake_torch", nullptr, -1, functions, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit_fake_torch() { return PyModule_Create(&definition); }
