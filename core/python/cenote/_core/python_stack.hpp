// The calling thread's Python frames as text, for the stacks that the tracking adaptor captures.
//
// Threads: any. A thread that runs no Python, or runs it after Python has started to end, has no frames. Takes the GIL.
// Cost: about 1 microsecond a frame.
#pragma once

#include <Python.h>

#include <cstring>
#include <string>
#include <vector>

#include "cenote/ground/call_stack.hpp"
#include "cenote/surface/call_site.hpp"
#include "python_callable.hpp"

namespace cenote {

/// "train.py:17 main.<locals>.step"
inline std::string describe_frame(PyFrameObject* frame) {
  PyCodeObject* const code = PyFrame_GetCode(frame);
  const char* const file = PyUnicode_AsUTF8(code->co_filename);
  const char* const function = PyUnicode_AsUTF8(code->co_qualname);
  std::string text = std::string(file != nullptr ? file : "?") + ":" + std::to_string(PyFrame_GetLineNumber(frame)) +
                     " " + (function != nullptr ? function : "?");
  PyErr_Clear();
  Py_DECREF(code);
  return text;
}

/// One line a frame, innermost last; those furthest out are left out beyond call_stack::max_frames. Needs the GIL.
inline std::string describe_frames() {
  std::vector<std::string> lines;
  PyFrameObject* frame = PyThreadState_GetFrame(PyThreadState_Get());
  while (frame != nullptr && lines.size() < call_stack::max_frames) {
    lines.push_back(describe_frame(frame));
    PyFrameObject* const outer = PyFrame_GetBack(frame);
    Py_DECREF(frame);
    frame = outer;
  }
  std::string text = frame != nullptr ? "…\n" : "";
  Py_XDECREF(frame);
  for (auto line = lines.rbegin(); line != lines.rend(); ++line) text += *line + "\n";
  return text;
}

inline std::string describe_python_stack() {
  if (!python_is_alive() || PyGILState_GetThisThreadState() == nullptr) return {};
  const gil_scope gil;
  return stay_if_ended(describe_frames);
}

/// Whether a frame is of a package that was installed, such as a framework or cenote, and not of the program.
inline bool is_of_a_package(PyFrameObject* frame) {
  PyCodeObject* const code = PyFrame_GetCode(frame);
  const char* const file = PyUnicode_AsUTF8(code->co_filename);
  const bool is_one = file != nullptr && (std::strstr(file, "/site-packages/") != nullptr ||
                                          std::strstr(file, "/dist-packages/") != nullptr || *file == '<');
  PyErr_Clear();
  Py_DECREF(code);
  return is_one;
}

/// "train.py:17 step", the innermost frame of the program itself; where it is inside a package, "… in linear.py:125
/// forward" follows. Needs the GIL.
inline std::string describe_site_here() {
  std::string innermost, of_program;
  PyFrameObject* frame = PyThreadState_GetFrame(PyThreadState_Get());
  while (frame != nullptr && of_program.empty()) {
    if (innermost.empty()) innermost = describe_frame(frame);
    if (!is_of_a_package(frame)) of_program = describe_frame(frame);
    PyFrameObject* const outer = PyFrame_GetBack(frame);
    Py_DECREF(frame);
    frame = outer;
  }
  Py_XDECREF(frame);
  if (of_program.empty() || of_program == innermost) return innermost;
  return of_program + " in " + innermost;
}

inline std::string describe_python_site() {
  if (!python_is_alive() || PyGILState_GetThisThreadState() == nullptr) return {};
  const gil_scope gil;
  const pending_exception pending;
  return stay_if_ended(describe_site_here);
}

inline void sample_python_sites(std::size_t every) { sample_call_sites(every, describe_python_site); }

inline interpreter python_interpreter() {
  return {"Python", describe_python_stack, reinterpret_cast<const void*>(&PyObject_Call)};
}

}  // namespace cenote
