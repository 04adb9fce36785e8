// Tags: labels that a program gives to what it allocates, such as "kv cache". They change nothing but what is told.
//
//     const cenote::tag_scope serving("kv cache");      until the end of the scope, on this thread; scopes nest
//
// An allocation has the innermost tag that its thread is in, or none. A program's other language may keep the tags of
// its tasks itself and be asked for the present one (find_tag_by).
//
// Threads: all functions from any thread; a scope is one thread's.
// Cost: a thread-local read an allocation; a short lock to count where there is a tag.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "cenote/ground/export.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// 0 is no tag.
using tag_index = std::uint16_t;

/// The tag of that name, made if there is none; 0 for an empty one. Past 1022 of them all others are one,
/// "(other tags)".
CENOTE_EXPORT tag_index register_tag(const std::string& name);

/// The name of a tag; empty for 0 and for a number that register_tag has not given out.
CENOTE_EXPORT std::string name_of_tag(tag_index tag);

/// The tag of the calling thread.
CENOTE_EXPORT tag_index current_tag() noexcept;

/// The calling thread's allocations have that tag from now on, where find_tag_by knows none. Returns the one before.
CENOTE_EXPORT tag_index exchange_current_tag(tag_index tag) noexcept;

/// `find` is asked for the tag of each allocation: the thread's task's, 0 for that of exchange_current_tag.
CENOTE_EXPORT void find_tag_by(tag_index (*find)() noexcept) noexcept;

class tag_scope {
 public:
  explicit tag_scope(const std::string& name) : outer_(exchange_current_tag(register_tag(name))) {}
  ~tag_scope() { exchange_current_tag(outer_); }
  tag_scope(const tag_scope&) = delete;
  tag_scope& operator=(const tag_scope&) = delete;

 private:
  tag_index outer_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
