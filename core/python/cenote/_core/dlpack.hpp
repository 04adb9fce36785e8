// DLPack: a row of bytes, handed to any array library as a capsule, and kept alive by a Python object.
//
//     capsule ("dltensor", or "dltensor_versioned")  →  managed tensor  →  owner, a Python object
//
// 1. The consumer takes the tensor out of the capsule and renames it ("used_…"); it calls the tensor's deleter when it
//    is done, from any thread, with or without the GIL.
// 2. A capsule that nobody consumed deletes its tensor itself.
// 3. The deleter drops the reference to the owner. Once the interpreter is shutting down it leaves the owner alone:
//    taking the GIL would stop the thread, and the process gives everything back.
//
// The structs are DLPack's ABI, in its order and types; versions of one major number only add to them.
// Source: the DLPack specification, C API, 1.0 and later; strides are always given, as it asks from 1.2 on.
#pragma once

#include <Python.h>

#include <cstddef>
#include <cstdint>
#include <new>

#include "python_callable.hpp"

namespace cenote {

enum class dl_device_type : std::int32_t { cpu = 1, cuda = 2, cuda_host = 3, cuda_managed = 13 };

struct dl_device {
  dl_device_type type;
  std::int32_t id;
};

struct dl_data_type {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};

constexpr dl_data_type dl_uint8{1, 8, 1};

struct dl_tensor {
  void* data;
  dl_device device;
  std::int32_t dimensions;
  dl_data_type type;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements
  std::uint64_t byte_offset;
};

/// What capsules held before DLPack 1.0.
struct dl_managed_tensor {
  static constexpr const char* capsule_name = "dltensor";
  dl_tensor tensor;
  void* context;
  void (*deleter)(dl_managed_tensor*);
};

struct dl_managed_tensor_versioned {
  static constexpr const char* capsule_name = "dltensor_versioned";
  struct {
    std::uint32_t major;
    std::uint32_t minor;
  } version;
  void* context;
  void (*deleter)(dl_managed_tensor_versioned*);
  std::uint64_t flags;
  dl_tensor tensor;
};

constexpr std::uint64_t dl_is_copied = 1 << 1;

static_assert(sizeof(dl_tensor) == 48 && offsetof(dl_tensor, shape) == 24);
static_assert(sizeof(dl_managed_tensor) == 64 && offsetof(dl_managed_tensor, context) == 48);
static_assert(sizeof(dl_managed_tensor_versioned) == 80 && offsetof(dl_managed_tensor_versioned, tensor) == 32);

/// A managed tensor with what it points to.
template <class Managed>
struct owned_tensor {
  Managed managed{};
  std::int64_t shape;
  std::int64_t stride = 1;
  PyObject* owner;

  static void destroy(Managed* managed) {
    auto* const self = static_cast<owned_tensor*>(managed->context);
    if (python_is_alive()) {
      const gil_scope gil;
      stay_if_ended([self] { Py_DECREF(self->owner); });
    }
    delete self;
  }

  static void destroy_unconsumed(PyObject* capsule) {
    if (PyCapsule_IsValid(capsule, Managed::capsule_name) == 0) return;  // consumed: it is the consumer's
    destroy(static_cast<Managed*>(PyCapsule_GetPointer(capsule, Managed::capsule_name)));
  }
};

template <class Managed>
PyObject* make_dl_capsule(PyObject* owner, void* data, std::size_t bytes, dl_device device, Managed managed) {
  auto* const made = new (std::nothrow) owned_tensor<Managed>;
  if (made == nullptr) return PyErr_NoMemory();
  made->shape = static_cast<std::int64_t>(bytes);
  made->owner = Py_NewRef(owner);
  made->managed = managed;
  made->managed.tensor = {data, device, 1, dl_uint8, &made->shape, &made->stride, 0};
  made->managed.context = made;
  made->managed.deleter = owned_tensor<Managed>::destroy;
  PyObject* const capsule =
      PyCapsule_New(&made->managed, Managed::capsule_name, owned_tensor<Managed>::destroy_unconsumed);
  if (capsule == nullptr) made->managed.deleter(&made->managed);
  return capsule;
}

/// A new capsule over `bytes` bytes at `data`, which `owner` keeps there; null with a Python error set.
inline PyObject* make_dl_capsule(PyObject* owner, void* data, std::size_t bytes, dl_device_type type, int device,
                                 bool versioned, bool copied) {
  if (!versioned) return make_dl_capsule(owner, data, bytes, {type, device}, dl_managed_tensor{});
  dl_managed_tensor_versioned managed{};
  managed.version = {1, 0};
  managed.flags = copied ? dl_is_copied : 0;
  return make_dl_capsule(owner, data, bytes, {type, device}, managed);
}

}  // namespace cenote
