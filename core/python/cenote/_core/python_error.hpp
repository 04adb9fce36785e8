// Turns the C++ exception in flight into the Python exception that means the same. Cython calls it (`except +`).
#pragma once

#include <Python.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <vector>

#include "cenote/driver/stream_id.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/surface/client.hpp"
#include "cenote/surface/shortage.hpp"
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

/// [(kind, name, bytes, blocks), …]
inline PyObject* list_of(const std::vector<memory_holder>& holders) {
  PyObject* const list = PyList_New(0);
  for (const memory_holder& each : holders) {
    PyObject* const item = Py_BuildValue("(iNNN)", static_cast<int>(each.of), text_of(each.name.c_str()),
                                         figure(each.bytes), figure(each.blocks));
    if (list == nullptr || item == nullptr || PyList_Append(list, item) != 0) PyErr_Clear();
    Py_XDECREF(item);
  }
  return list;
}

/// [(name, freed_bytes, why_not), …]
inline PyObject* list_of(const std::vector<relief_step>& steps) {
  PyObject* const list = PyList_New(0);
  for (const relief_step& each : steps) {
    PyObject* const item =
        Py_BuildValue("(NNN)", text_of(each.name.c_str()), figure(each.freed_bytes), text_of(each.why_not.c_str()));
    if (list == nullptr || item == nullptr || PyList_Append(list, item) != 0) PyErr_Clear();
    Py_XDECREF(item);
  }
  return list;
}

inline void set_out_of_memory(const out_of_memory& error) {
  const memory_state& s = error.state();
  const shortage& k = error.known();
  const auto number = [](const auto& known) {
    return figure(known ? std::optional<std::size_t>(static_cast<std::size_t>(*known)) : std::nullopt);
  };
  set_error("OutOfMemoryError",
            Py_BuildValue("(NNNNNNNNNNNNNN)", text_of(error.what()), figure(error.requested()), figure(s.in_use),
                          figure(s.held), figure(s.limit), figure(s.largest_free), figure(s.device_free),
                          figure(s.device_total), k.device ? figure(k.rounded) : figure(std::nullopt), number(k.device),
                          number(k.stream), text_of(k.resource.c_str()), list_of(k.holders), list_of(k.steps)));
}

/// The error of an allocation that no client made through the ledger: for the client "cenote".
inline out_of_memory explained_here(const out_of_memory& error) {
  static const client_index client = register_client("cenote");
  const std::uint64_t stream = error.known().stream.value_or(0);
  return explained(error, client, stream <= 1 ? legacy_default_id : stream_id{stream});
}

inline void raise_python_error() {
  try {
    if (const auto interrupt = interrupt_scope::take()) std::rethrow_exception(interrupt);
    throw;
  } catch (const foreign_exception& error) {
    error.raise_again();
  } catch (const out_of_memory& error) {
    try {
      set_out_of_memory(explained_here(error));
    } catch (const std::exception&) {  // the host has no memory for more
      set_out_of_memory(error);
    }
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
