/* What cenote's plugin needs of CuPy, without a GPU: the class that memory is derived from, and two C functions. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <structmember.h>

typedef struct {
  PyObject_HEAD Py_ssize_t ptr;
  Py_ssize_t size;
  int device_id;
} base_memory;

static PyMemberDef members[] = {{"ptr", T_PYSSIZET, offsetof(base_memory, ptr), 0, NULL},
                                {"size", T_PYSSIZET, offsetof(base_memory, size), 0, NULL},
                                {"device_id", T_INT, offsetof(base_memory, device_id), 0, NULL},
                                {NULL, 0, 0, 0, NULL}};

static void dealloc(PyObject* self) { Py_TYPE(self)->tp_free(self); }

static PyTypeObject base_memory_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "fake_cupy.BaseMemory",
    .tp_basicsize = sizeof(base_memory),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_members = members,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = dealloc,
};

static intptr_t stream = 0;

/* As CuPy's: it fails where an exception is under way already. And where the test says so, by a stream of -1. */
static intptr_t get_stream_ptr(int device) {
  (void)device;
  if (stream == -1) PyErr_SetString(PyExc_RuntimeError, "no stream");
  return PyErr_Occurred() != NULL ? -1 : stream;
}
static int get_device_id(int skip_dispatch) {
  (void)skip_dispatch;
  return 0;
}

static int hooks = 0;
static int has_memory_hooks(int skip_dispatch) {
  (void)skip_dispatch;
  return hooks;
}

static PyObject* set_hooks(PyObject* self, PyObject* count) {
  (void)self;
  hooks = (int)PyLong_AsLong(count);
  return PyErr_Occurred() != NULL ? NULL : Py_NewRef(Py_None);
}

static PyObject* set_stream(PyObject* self, PyObject* handle) {
  (void)self;
  stream = (intptr_t)PyLong_AsVoidPtr(handle);
  return PyErr_Occurred() != NULL ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef functions[] = {
    {"set_stream", set_stream, METH_O, NULL}, {"set_hooks", set_hooks, METH_O, NULL}, {NULL, NULL, 0, NULL}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "fake_cupy", NULL, -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_fake_cupy(void) {
  PyObject* const module = PyModule_Create(&definition);
  if (module == NULL || PyModule_AddType(module, &base_memory_type) != 0) return NULL;
  PyModule_AddObject(module, "get_stream_ptr", PyLong_FromVoidPtr((void*)&get_stream_ptr));
  PyModule_AddObject(module, "get_device_id", PyLong_FromVoidPtr((void*)&get_device_id));
  PyModule_AddObject(module, "has_memory_hooks", PyLong_FromVoidPtr((void*)&has_memory_hooks));
  return module;
}
