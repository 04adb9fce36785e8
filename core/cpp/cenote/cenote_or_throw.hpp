// The functions of the C interface that throw: for callers in C++, such as a plugin of a framework that expects it.
//
//     cenote_allocate                null, and cenote_last_error()
//     cenote_allocate_or_throw       cenote::out_of_memory, a std::bad_alloc, with figures
//
// Errors: those of memory_resource::allocate; std::out_of_range for a device or client of no such number.
#pragma once

#include "cenote/cenote.h"

extern "C" {

/// cenote_allocate, but that it throws.
CENOTE_API void* cenote_allocate_or_throw(int client, int device, size_t bytes, void* stream);

/// The same for who holds a lock that others wait for, as cenote_deallocate_holding is: `acquire` is called before an
/// exception leaves, too.
CENOTE_API void* cenote_allocate_holding_or_throw(int client, int device, size_t bytes, void* stream,
                                                  void* (*release)(void), void (*acquire)(void* released));

}  // extern "C"
