// The one dial for checks that cost more than O(1).
//
// CENOTE_CHECK = 0  preconditions that are O(1) only (the default)
//              = 1  invariants of what an operation touched
//              = 2  check() of the whole structure after every operation
#pragma once

#ifndef CENOTE_CHECK
#define CENOTE_CHECK 0
#endif

namespace cenote::inline v1 {

constexpr int check_level = CENOTE_CHECK;
static_assert(check_level >= 0 && check_level <= 2, "CENOTE_CHECK is 0, 1 or 2");

}  // namespace cenote::inline v1
