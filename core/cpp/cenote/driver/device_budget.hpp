// What a process may hold of a device, in all its resources together: its budget.
//
//     page, cuda ──► take_from_budget ──► no room ──► as if the driver had no memory: trimmed, reclaimed, else out of
//     memory async      ──► has_room_in_budget ──► the same
//
// How it works
//   1. An amount is bytes or a share of the device's memory. It is what set_budget says of the device, else of all
//      devices, else what the environment variable CENOTE_BUDGET says; else there is none. Others may bound a device,
//      too (set_budget_by): the smallest holds.
//   2. The pages of cenote and the blocks of `cuda` are counted when they are taken and when they go back. What the
//      driver's pools that cenote made hold is asked of the driver, and only where there is a budget.
//   3. A budget may be one of several processes together (shared_account.hpp). One that finds no room asks the others,
//      as a pressure handler, waits for what they give back, and tries again.
//   4. Contexts, memory that moves (`managed`), memory of the host and what other libraries take are not in it.
//
// Invariants
//   I1  what is counted never passes the budget, but where the budget was lowered or a driver's pool has grown by more
//       than it was asked for
//
// Threads: any. Two that take the last of a budget at a time may both be refused.
// Cost: an addition for each page or block of the driver's; where there is a budget, a question for each driver's pool.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "cenote/ground/export.hpp"

struct CUmemPoolHandle_st;

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// For all devices that have no budget of their own: bytes ("20GiB"), or a share of each device's memory ("60%"); empty
/// for none. std::invalid_argument for anything else. What is held already stays.
CENOTE_EXPORT void set_budget(std::string_view amount);

/// For one device; empty for that of all devices. std::out_of_range if there is no device of that number.
CENOTE_EXPORT void set_budget(int device, std::string_view amount);

/// One more bound on the device, of somebody who is named in the error where it is the smallest, such as a library's
/// own setting; empty for none. Throws as the others do; std::invalid_argument for an empty name.
CENOTE_EXPORT void set_budget_by(std::string_view set_by, int device, std::string_view amount);

/// Has the device's budget hold for all processes together that have joined the same file, which is kept: an open
/// descriptor of a file of this user's, and closed where that fails. What other processes hold counts from now on. -1:
/// for this process alone again. std::runtime_error for a file that is none.
CENOTE_EXPORT void share_budget(int device, int file);

/// How often a process has asked those that share the device's budget to give back what they do not use.
CENOTE_EXPORT std::uint32_t requests_of_budget(int device);

struct budget_figures {
  std::optional<std::size_t> limit;  ///< in bytes; nothing where there is no budget
  std::size_t held;                  ///< what counts for it of this process
  std::size_t shared;                ///< what counts for it of all processes that share it
  std::string set_by;                ///< who has set it, for people: empty where there is none
};

CENOTE_EXPORT budget_figures budget_of(int device);

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote

namespace cenote::inline v1 {

/// Whether there is one. Asks the driver nothing, once the device has been used.
bool has_budget(int device);

/// The device's free bytes, as far as the budget leaves them.
std::size_t free_within_budget(int device);

/// Counts the bytes; false, and they are not counted, where they would pass the budget.
bool take_from_budget(int device, std::size_t bytes);
void give_back_to_budget(int device, std::size_t bytes) noexcept;

/// Whether a driver's pool may be asked for so many bytes.
bool has_room_in_budget(int device, CUmemPoolHandle_st* pool, std::size_t bytes);

}  // namespace cenote::inline v1
