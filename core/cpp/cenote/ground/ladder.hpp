// The ladder: what an allocation of this thread has tried before it found no memory, for the error that says so.
//
// The resources note their steps while they take them: a pool that it used what other streams had freed, that it
// brought pages together, that it waited. Whoever makes the error takes them. Where memory was found after all, they
// are forgotten.
//
// Threads: the notes are each thread's own. Cost: nothing before a pool has to ask for memory.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "cenote/ground/error.hpp"

namespace cenote::inline v1::ladder {

/// Notes a step, in the words of the error. Both texts are the program's; `why_not` says why it was skipped. A step
/// that was taken before, which has the same `name` to the address, is noted once.
void note(const char* name, std::optional<std::size_t> freed_bytes = std::nullopt, const char* why_not = "") noexcept;

void forget() noexcept;

/// Returns the steps that were noted, and forgets them.
std::vector<relief_step> take();

/// While it lives, the thread is on the ladder. The outermost one begins with no steps.
class climb {
 public:
  climb() noexcept;
  ~climb();
  climb(const climb&) = delete;
  climb& operator=(const climb&) = delete;
};

}  // namespace cenote::inline v1::ladder
