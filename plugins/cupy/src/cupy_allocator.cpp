// CuPy's way into the current memory resource: the function that cupy.cuda.set_allocator is given.
//
// How it works
//   1. CuPy calls it with a number of bytes and wants a cupy.cuda.MemoryPointer to a cupy.cuda.memory.BaseMemory.
//   2. Ours is derived from that class and adds what it frees by. That spares what CuPy's own CFunctionAllocator would
//      spend on calling two C functions: a quarter of 165 ns (CuPy 14.2, Python 3.11, both without the allocation).
//   3. The three members that CuPy reads of a memory are C's own numbers. Where they lie in it is found once, as they
//      are set through Python; from then on they are written there, without a Python int for each.
//   4. CuPy passes no stream and no device. Its current ones are asked of its own C functions.
//   5. Where the program has set memory hooks of CuPy's, which its C function tells, a Python function calls them
//      around the allocation, and around the free. That function looks a thread's hooks up by name, in 500
//      instructions, and is asked only once a hook was set, or may have been (hooks_are_used). When memory is out, the
//      error is CuPy's own.
//
// CuPy calls with the GIL held, which those functions need and which cenote releases only where it has to wait.
#include <Python.h>
#include <cxxabi.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <stdexcept>

#include "cenote/cenote.h"
#include "cenote/ground/foreign_exception.hpp"

namespace {

using get_stream_ptr = std::intptr_t (*)(int device);
using get_device_id = int (*)(int);
using has_memory_hooks = int (*)(int);

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

/// What CuPy has that we need; borrowed from modules that are never unloaded.
struct cupy_parts {
  get_stream_ptr stream_of = nullptr;
  get_device_id current_device = nullptr;
  has_memory_hooks has_hooks = nullptr;
  PyObject* set_device = nullptr;
  PyObject* call_with_hooks = nullptr;  // (malloc, size): what malloc(size) returns
  PyObject* call_free_hooks = nullptr;  // (name of the hook, device, size, address, id of the memory)
  PyObject* out_of_memory = nullptr;    // (size, text): an exception
  PyTypeObject* base_memory = nullptr;
  PyObject* memory_pointer = nullptr;
  std::size_t pointer_offset = 0;  // of members of base_memory
  std::size_t size_offset = 0;
  std::size_t device_offset = 0;
};
cupy_parts cupy;
bool may_have_hooks = false;

/// Whether the calling thread has memory hooks set.
bool is_hooked() { return may_have_hooks && cupy.has_hooks(0) > 0; }

PyTypeObject* memory_type = nullptr;  // derived from base_memory
PyObject* no_arguments = nullptr;
PyObject* no_offset = nullptr;
PyObject* malloc_without_hooks = nullptr;

/// What an object of memory_type has behind what base_memory has.
struct block {
  void* pointer;
  std::size_t bytes;
  int device;
};

block& block_of(PyObject* memory) {
  return *reinterpret_cast<block*>(reinterpret_cast<char*>(memory) + memory_type->tp_basicsize - sizeof(block));
}

void set_out_of_memory(std::size_t bytes, const char* text) {
  PyObject* const said = PyUnicode_DecodeUTF8(text, static_cast<Py_ssize_t>(std::strlen(text)), "replace");
  if (said == nullptr) return;
  PyObject* const error = PyObject_CallFunction(cupy.out_of_memory, "KN", static_cast<unsigned long long>(bytes), said);
  if (error == nullptr) return;
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error)), error);
  Py_DECREF(error);
}

void set_error(std::size_t bytes) {
  try {
    if (const auto interrupt = cenote::interrupt_scope::take()) std::rethrow_exception(interrupt);
    throw;
  } catch (const cenote::foreign_exception& error) {  // what a Python function under the resource has raised
    error.raise_again();
  } catch (const std::bad_alloc& error) {
    set_out_of_memory(bytes, error.what());
  } catch (const std::out_of_range& error) {
    PyErr_SetString(PyExc_IndexError, error.what());
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  } catch (...) {
    PyErr_SetString(PyExc_RuntimeError, "an unknown C++ error");
  }
}

/// Makes the device's context the thread's, as the cudaMalloc of CuPy's own pool does: without one, each of CuPy's
/// questions for the device takes 2.6 µs (H100, driver 580). False with a Python error set.
bool enter_context(int device) {
  thread_local bool has_entered = false;
  if (has_entered) return true;
  PyObject* const done = PyObject_CallFunction(cupy.set_device, "i", device);
  Py_XDECREF(done);
  return has_entered = done != nullptr;
}

/// False with a Python error set.
bool allocate(std::size_t bytes, block& made) {
  made.bytes = bytes;
  made.device = cupy.current_device(0);
  if (made.device == -1 && PyErr_Occurred() != nullptr) return false;
  if (!enter_context(made.device)) return false;
  if (bytes == 0) return true;
  const std::intptr_t stream = cupy.stream_of(made.device);
  if (stream == -1 && PyErr_Occurred() != nullptr) return false;
  cenote::interrupt_scope interrupts;
  try {
    made.pointer = api->allocate_holding_or_throw(client(), made.device, bytes, reinterpret_cast<void*>(stream),
                                                  release_gil, acquire_gil);
    interrupts.end();  // the object frees what it has then
    return true;
  } catch (...) {
    set_error(bytes);
    return false;
  }
}

/// Calls the hooks of one name; a hook that raises is reported. May be called while an exception is under way.
void call_free_hooks(const char* name, const block& freed, PyObject* memory) {
  PyObject* const done = PyObject_CallFunction(
      cupy.call_free_hooks, "siKKK", name, freed.device, static_cast<unsigned long long>(freed.bytes),
      static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(freed.pointer)),
      static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(memory)));
  if (done == nullptr) PyErr_WriteUnraisable(cupy.call_free_hooks);
  Py_XDECREF(done);
}

// The array's own stream may be gone, so that the block is freed on the current one: cenote orders the rest. At the end
// of the interpreter CuPy's thread-local state is gone too, and it may fail; the legacy default stream (null) is always
// there.
void deallocate(const block& freed, PyObject* memory) noexcept {
  if (freed.pointer == nullptr) return;
  if (interpreter_is_finalizing()) {
    api->deallocate(freed.pointer, nullptr);
    return;
  }
  PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);  // an object may die while an exception is under way
  const bool has_hooks = is_hooked();
  if (has_hooks) call_free_hooks("free_preprocess", freed, memory);
  std::intptr_t stream = cupy.stream_of(freed.device);
  if (PyErr_Occurred() != nullptr) {
    PyErr_WriteUnraisable(nullptr);
    stream = 0;
  }
  api->deallocate_holding(freed.pointer, reinterpret_cast<void*>(stream), release_gil, acquire_gil);
  if (has_hooks) call_free_hooks("free_postprocess", freed, memory);
  PyErr_Restore(type, value, traceback);
}

void memory_dealloc(PyObject* self) {
  deallocate(block_of(self), self);
  PyTypeObject* const type = Py_TYPE(self);
  cupy.base_memory->tp_dealloc(self);
  Py_DECREF(type);
}

template <class Number>
void write_member(PyObject* memory, std::size_t offset, Number number) {
  std::memcpy(reinterpret_cast<char*>(memory) + offset, &number, sizeof(number));
}

/// A new object of memory_type; null with an error set.
PyObject* make_memory(std::size_t bytes) {
  PyObject* const memory = cupy.base_memory->tp_new(memory_type, no_arguments, nullptr);
  if (memory == nullptr) return nullptr;
  block& made = block_of(memory);
  made = {};
  if (!allocate(bytes, made)) {
    Py_DECREF(memory);
    return nullptr;
  }
  write_member(memory, cupy.pointer_offset, reinterpret_cast<std::intptr_t>(made.pointer));
  write_member(memory, cupy.size_offset, bytes);
  write_member(memory, cupy.device_offset, made.device);
  return memory;
}

PyObject* malloc_memory(PyObject* without_hooks, PyObject* size) {
  PyObject* const number = PyNumber_Index(size);
  if (number == nullptr) return nullptr;
  const std::size_t bytes = PyLong_AsSize_t(number);
  Py_DECREF(number);
  if (bytes == static_cast<std::size_t>(-1) && PyErr_Occurred() != nullptr) return nullptr;
  if (without_hooks == nullptr && bytes != 0 && is_hooked())
    return PyObject_CallFunction(cupy.call_with_hooks, "OK", malloc_without_hooks,
                                 static_cast<unsigned long long>(bytes));
  PyObject* const memory = make_memory(bytes);
  if (memory == nullptr) return nullptr;
  PyObject* const arguments[] = {memory, no_offset};
  PyObject* const pointer = PyObject_Vectorcall(cupy.memory_pointer, arguments, 2, nullptr);
  Py_DECREF(memory);
  return pointer;
}

PyMethodDef malloc_definition = {"malloc", malloc_memory, METH_O,
                                 "A cupy.cuda.MemoryPointer to memory of the current resource."};

/// Where a member lies in an object of C++'s: the one place that has what the member was set to, twice. 0 with an
/// ImportError set if there is none.
template <class Number>
std::size_t offset_of_member(PyTypeObject* type, const char* name) {
  PyObject* const probe = type->tp_new(type, no_arguments, nullptr);
  if (probe == nullptr) return 0;
  const auto has_at = [probe](std::size_t offset, Number number) {
    return std::memcmp(reinterpret_cast<const char*>(probe) + offset, &number, sizeof(number)) == 0;
  };
  std::size_t found = 0, places = 0;
  const auto size = static_cast<std::size_t>(type->tp_basicsize);
  for (std::size_t offset = sizeof(PyObject); offset + sizeof(Number) <= size; offset += alignof(Number)) {
    bool has_all = true;
    for (const Number number : {Number{0x51ce4072}, Number{0x2e31bf8d}, Number{0}}) {
      PyObject* const value = PyLong_FromLongLong(static_cast<long long>(number));
      has_all =
          has_all && value != nullptr && PyObject_SetAttrString(probe, name, value) == 0 && has_at(offset, number);
      Py_XDECREF(value);
    }
    if (!has_all) continue;
    found = offset;
    ++places;
  }
  Py_DECREF(probe);
  if (places == 1) return found;
  PyErr_Format(PyExc_ImportError, "CuPy's memory has a member '%s' that is no number of C's", name);
  return 0;
}

/// make_allocator(BaseMemory, MemoryPointer, setDevice, call_with_hooks, call_free_hooks, out_of_memory, and the
/// addresses of get_stream_ptr, get_device_id and _has_memory_hooks); called once.
PyObject* make_allocator(PyObject*, PyObject* arguments) {
  PyObject *base = nullptr, *pointer = nullptr;
  unsigned long long stream_of = 0, current_device = 0, has_hooks = 0;
  if (PyArg_ParseTuple(arguments, "O!O!OOOOKKK", &PyType_Type, &base, &PyType_Type, &pointer, &cupy.set_device,
                       &cupy.call_with_hooks, &cupy.call_free_hooks, &cupy.out_of_memory, &stream_of, &current_device,
                       &has_hooks) == 0)
    return nullptr;
  for (PyObject* const kept : {cupy.set_device, cupy.call_with_hooks, cupy.call_free_hooks, cupy.out_of_memory})
    Py_INCREF(kept);
  cupy.stream_of = reinterpret_cast<get_stream_ptr>(static_cast<std::uintptr_t>(stream_of));
  cupy.current_device = reinterpret_cast<get_device_id>(static_cast<std::uintptr_t>(current_device));
  cupy.has_hooks = reinterpret_cast<has_memory_hooks>(static_cast<std::uintptr_t>(has_hooks));
  cupy.base_memory = reinterpret_cast<PyTypeObject*>(base);
  cupy.memory_pointer = pointer;
  Py_INCREF(base);
  Py_INCREF(pointer);
  no_arguments = PyTuple_New(0);
  no_offset = PyLong_FromLong(0);
  if (no_arguments == nullptr || no_offset == nullptr) return nullptr;
  if ((cupy.pointer_offset = offset_of_member<std::intptr_t>(cupy.base_memory, "ptr")) == 0 ||
      (cupy.size_offset = offset_of_member<std::size_t>(cupy.base_memory, "size")) == 0 ||
      (cupy.device_offset = offset_of_member<int>(cupy.base_memory, "device_id")) == 0)
    return nullptr;

  const auto align = static_cast<Py_ssize_t>(alignof(block));
  const Py_ssize_t begin = (cupy.base_memory->tp_basicsize + align - 1) / align * align;
  PyType_Slot slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(&memory_dealloc)}, {0, nullptr}};
  PyType_Spec spec = {"cenote.allocators.cupy.Memory", static_cast<int>(begin + sizeof(block)), 0, Py_TPFLAGS_DEFAULT,
                      slots};
  memory_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpecWithBases(&spec, base));
  if (memory_type == nullptr) return nullptr;
  malloc_without_hooks = PyCFunction_New(&malloc_definition, Py_None);
  if (malloc_without_hooks == nullptr) return nullptr;
  return PyCFunction_New(&malloc_definition, nullptr);
}

PyObject* hooks_are_used(PyObject*, PyObject*) {
  may_have_hooks = true;
  Py_RETURN_NONE;
}

PyMethodDef functions[] = {
    {"hooks_are_used", hooks_are_used, METH_NOARGS, "From now on each thread is asked whether it has hooks set."},
    {"make_allocator", make_allocator, METH_VARARGS, "The function for cupy.cuda.set_allocator."},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "_allocator",
                          "The function for cupy.cuda.set_allocator.",
                          -1,
                          functions,
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
  return PyModule_Create(&definition);
}
