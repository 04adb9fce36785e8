// The flight recorder: what was last allocated and freed on each device, and what failed, for whoever asks afterwards
// why memory ran out. Always on, unless CENOTE_RECORDER says "off".
//
//     region of a device    header │ names │ segment 0 │ segment 1 │ segment 2 │ …
//                                               ▲           ▲
//                                            thread A    thread B        each writes a segment of its own, and then
//                                                                        takes the oldest that nobody writes
//
// How it works
//   1. An event is four words: the time, the address, the bytes, and last what it was and whose, whose writing
//   publishes the event. With that stands how often the segment was used: an event of a former use ends those of the
//   present one.
//   2. A thread writes its segment without a lock. When that is full it draws a ticket and takes the segment of that
//      number, unless another thread is still writing it: then the next. So the region is a ring of segments, whatever
//      the number of threads, and is never larger than CENOTE_RECORDER (bytes for each device, 16 MiB).
//   3. A reader copies a segment, and drops the copy if the segment was taken anew meanwhile.
//   4. The region is private memory; where CENOTE_RECORDER_FILE names a file (%p is the number of the process), it is
//      that file with ".dev0" before its ending, mapped and preallocated. It is then there after the process was
//      killed.
//   5. A forked child has none of its parent's regions. It makes its own, in private memory unless %p is in the name.
//
// The layout is what `cenote.recorder` of the Python package reads. All numbers are little-endian.
//
// Time is the system's coarse clock, which moves every few milliseconds: a look at the exact one costs as much as all
// else together. Between two of its steps the nanoseconds count events: each is later than the last of its thread, and
// than the last of its shard of the ledger, which `note` is told of. So the events of one address have one order, that
// in which they happened, whatever threads made them; and as all threads meet in the shards, their other events are
// never far from their places.
//
// Invariants
//   I1  in a segment, the events of its present use come first, each of them is whole, and times rise
//   I2  no two threads write one segment
//   I3  the times of the events of one address rise
//
// Threads: any. Where more threads write than there are segments, the events of the others are counted as lost.
// Cost: 4 stores and 4 ns for the clock an event; a drawn ticket for 510 of them.
// Source of the order: S. Kulkarni and others, Logical physical clocks, OPODIS 2014.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "cenote/ground/export.hpp"

namespace cenote::inline v1::recorder {

/// A hold is memory that others than the program keep from the pool: a pin of a block, of 1 byte when it is put and of
/// none when it is taken back; or a graph's, of no address: when the graph is gone, or, with a stream_number for bytes,
/// when a later capture goes on with its memory.
enum class event : std::uint8_t { none, allocate, free, failure, growth, trim, relief, hold };

/// What is named in a region: the text of a number.
enum class names : std::uint8_t { clients, tags };

constexpr std::size_t most_clients = 32;
constexpr std::size_t most_tags = 1024;
constexpr std::size_t longest_name = 63;  // bytes; longer ones are cut

/// A stream as it is written down: the streams of a capture are told apart from those of their ids.
constexpr std::uint64_t stream_number(std::uint64_t id, bool is_capturing) noexcept {
  return is_capturing ? id | 0x80000000 : id;
}

/// Whose event it is.
struct whose {
  std::uint64_t stream = 0;  ///< its stream_number; the low 32 bits are written down
  std::uint16_t tag = 0;     ///< less than most_tags
  std::uint8_t client = 0;   ///< less than most_clients
};

/// The time of an event of the calling thread that happens now: later than all that it has noted. 0 while the recorder
/// is off.
CENOTE_EXPORT std::uint64_t now() noexcept;

/// Writes an event down, unless the recorder is off. `at` is what now() has said since the thread's last one, or later.
CENOTE_EXPORT void note(event what, int device, const void* address, std::size_t bytes, whose by,
                        std::uint64_t at = now()) noexcept;

/// Says what a number means, in the regions that there are and will be. What lies beyond the most there can be is left
/// out.
void name(names kind, std::size_t number, std::string_view text) noexcept;

/// Writes all names: those of the clients and then those of the tags, each in longest_name + 1 bytes.
void copy_names(char* to) noexcept;

/// A copy of a device's region with the segments that have been written; empty if there is none.
CENOTE_EXPORT std::string copy(int device);

/// The file in which a device's region lies; empty where it is private memory or there is none.
CENOTE_EXPORT std::string file_of(int device);

/// Bytes of a region; 0 if the recorder is off.
CENOTE_EXPORT std::size_t bytes_of_a_region() noexcept;

/// Switches all recording of the process off or on again: what was recorded stays.
CENOTE_EXPORT void set_recording(bool on) noexcept;

}  // namespace cenote::inline v1::recorder
