// The calling thread's Python frames as text, for the stacks that the tracking adaptor captures.
//
// Threads: any. A thread that runs no Python, or runs it after Python has started to end, has no frames. Takes the GIL.
// Cost: about 1 microsecond a frame.
#pragma once

#include <Python.h>

#include <string>
#include <vector>

#include "cenote/ground/call_stack.hpp"
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

inline interpreter python_interpreter() {
  return {"Python", describe_python_stack, reinterpret_cast<const void*>(&PyObject_Call)};
}

}  // namespace cenote
