// Which tag the Python code has that runs on a thread: that of its context (contextvars), so that each task of asyncio
// has its own, and what a task starts inherits it.
//
//   1. A context variable has it. It is read by `read`, a function of Cython that needs the GIL.
//   2. Each thread remembers what it read, until it runs another context (python_scopes.hpp). Whoever sets the variable
//      calls forget_tag().
//
// Threads: any. One that runs no Python has the tag that C++ gave it. Takes the GIL where it has to read.
// Cost: 5 ns where nothing has changed, and nothing before a program has used a tag.
#pragma once

#include <Python.h>

#include <cstdint>

#include "cenote/surface/tag.hpp"
#include "python_callable.hpp"

namespace cenote {

/// The tag of the running context; -1 with an error set.
using tag_reader = int (*)();

struct remembered_tag {
  std::uint64_t thread_state = 0;  // by its number: an address is given again
  std::uint64_t context = 0;
  tag_index tag = 0;
};

inline tag_reader read_tag = nullptr;

inline remembered_tag& this_threads_tag() noexcept {
  static constinit thread_local remembered_tag mine;
  return mine;
}

/// After the variable was set on this thread.
inline void forget_tag() noexcept { this_threads_tag().thread_state = 0; }

inline tag_index tag_of_context() noexcept {
  if (!python_is_alive()) return 0;
  const PyThreadState* const state = PyGILState_GetThisThreadState();
  if (state == nullptr) return 0;
  remembered_tag& mine = this_threads_tag();
  if (mine.thread_state == state->id && mine.context == state->context_ver) return mine.tag;
  const gil_scope gil;
  const pending_exception pending;
  const int found = stay_if_ended([] { return read_tag(); });
  if (found < 0) PyErr_Clear();
  mine = {found < 0 ? 0 : state->id, state->context_ver, static_cast<tag_index>(found < 0 ? 0 : found)};
  return mine.tag;
}

inline void find_python_tags(tag_reader read) noexcept {
  read_tag = read;
  find_tag_by(tag_of_context);
}

}  // namespace cenote
