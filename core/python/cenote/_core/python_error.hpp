// Turns the C++ exception in flight into the Python exception that means the same. Cython calls it (`except +`).
#pragma once

#include <Python.h>

#include <cstring>
#include <stdexcept>

#include "cenote/ground/error.hpp"
#include "python_callable.hpp"

namespace cenote {

/// Makes an exception of cenote.errors from keyword arguments and sets it; steals `arguments`.
inline void set_error(const char* type_name, PyObject* arguments) {
  PyObject* const errors = PyImport_ImportModule("cenote.errors");
  PyObject* const type = errors != nullptr ? PyObject_GetAttrString(errors, type_name) : nullptr;
  PyObject* const error = type != nullptr && arguments != nullptr ? PyObject_CallObject(type, arguments) : nullptr;
  if (error != nullptr) PyErr_SetObject(type, error);
  Py_XDECREF(error);
  Py_XDECREF(type);
  Py_XDECREF(errors);
  Py_XDECREF(arguments);
}

/// A text of the core as a str; what is not UTF-8 in it, as in the name of a file, does not hide the rest.
inline PyObject* text_of(const char* text) {
  return PyUnicode_DecodeUTF8(text, static_cast<Py_ssize_t>(std::strlen(text)), "backslashreplace");
}

inline void set_text(PyObject* type, const char* text) {
  PyObject* const decoded = text_of(text);
  if (decoded != nullptr) PyErr_SetObject(type, decoded);
  Py_XDECREF(decoded);
}

/// An int, or None where the figure is unknown. For Py_BuildValue's "N".
inline PyObject* figure(const std::optional<std::size_t>& bytes) {
  if (bytes) return PyLong_FromSize_t(*bytes);
  Py_RETURN_NONE;
}

inline void raise_python_error() {
  try {
    if (const auto interrupt = interrupt_scope::take()) std::rethrow_exception(interrupt);
    throw;
  } catch (const foreign_exception& error) {
    error.raise_again();
  } catch (const out_of_memory& error) {
    const memory_state& s = error.state();
    set_error("OutOfMemoryError", Py_BuildValue("(NNNNNNNN)", text_of(error.what()), figure(error.requested()),
                                                figure(s.in_use), figure(s.held), figure(s.limit),
                                                figure(s.largest_free), figure(s.device_free), figure(s.device_total)));
  } catch (const cuda_error& error) {
    set_error("CudaError",
              Py_BuildValue("(Nsis)", text_of(error.what()), error.call().c_str(), error.code(), error.name().c_str()));
  } catch (const driver_unavailable& error) {
    set_error("DriverUnavailableError", Py_BuildValue("(N)", text_of(error.what())));
  } catch (const std::bad_alloc& error) {
    const bool says_why = std::strncmp(error.what(), "std::", 5) != 0;
    set_text(PyExc_MemoryError, says_why ? error.what() : "the host has no memory left for it");
  } catch (const std::out_of_range& error) {
    set_text(PyExc_IndexError, error.what());
  } catch (const std::invalid_argument& error) {
    set_text(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    set_text(PyExc_RuntimeError, error.what());
  } catch (...) {
    PyErr_SetString(PyExc_RuntimeError, "an unknown C++ error");
  }
}

}  // namespace cenote
