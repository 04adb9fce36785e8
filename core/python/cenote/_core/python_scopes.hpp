// Which scopes of statistics the Python code is in that runs on a thread: those of its context (contextvars), so that
// each task of asyncio has its own, and what a task starts inherits them.
//
//   1. A context variable has them as a tuple. It is read by `read`, a function of Cython that needs the GIL.
//   2. Each thread remembers what it read, until it runs another context, which it knows without the GIL: the thread's
//      state has a number that changes then. Whoever sets the variable calls forget_scopes().
//
// Threads: any. One that runs no Python is in no scopes. Takes the GIL where it has to read; call under no lock.
#pragma once

#include <Python.h>

#include <new>

#include "cenote/adaptors/counting_scope.hpp"
#include "python_callable.hpp"

namespace cenote {

/// Puts the scopes of the running context into the list; may raise.
using scope_reader = int (*)(counting_scopes* into);

struct remembered_scopes {
  std::uint64_t thread_state = 0;  // by its number: an address is given again
  std::uint64_t context = 0;
  counting_scopes scopes;
};

inline scope_reader read_scopes = nullptr;

/// Never destroyed: frees at the end of a thread ask for it. Null where the host has no memory.
inline remembered_scopes* this_threads_scopes() noexcept {
  static thread_local remembered_scopes* const mine = new (std::nothrow) remembered_scopes;
  return mine;
}

/// After the variable was set on this thread.
inline void forget_scopes() noexcept {
  if (remembered_scopes* const mine = this_threads_scopes()) mine->thread_state = 0;
}

inline const counting_scopes* scopes_of_context() noexcept {
  if (!python_is_alive()) return nullptr;
  const PyThreadState* const state = PyGILState_GetThisThreadState();
  if (state == nullptr) return nullptr;
  remembered_scopes* const mine = this_threads_scopes();
  if (mine == nullptr) return nullptr;
  if (mine->thread_state == state->id && mine->context == state->context_ver) return &mine->scopes;
  const gil_scope gil;
  const pending_exception pending;
  mine->scopes.clear();
  const bool is_read = stay_if_ended([&] { return read_scopes(&mine->scopes) == 0; });
  if (!is_read) PyErr_Clear();
  mine->thread_state = is_read ? state->id : 0;
  mine->context = state->context_ver;
  return &mine->scopes;
}

inline void find_python_scopes(scope_reader read) noexcept {
  read_scopes = read;
  find_scopes_by(scopes_of_context);
}

}  // namespace cenote
