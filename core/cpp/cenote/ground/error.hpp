// What can go wrong, one type a kind, and the one channel for failures that cannot be thrown.
//
// | type               | means                                                  | Python                        |
// |--------------------|--------------------------------------------------------|-------------------------------|
// | out_of_memory      | a resource had no memory to give; carries the numbers  | cenote.OutOfMemoryError       |
// | cuda_error         | a driver call failed; carries the call and its code    | cenote.CudaError              |
// | driver_unavailable | no driver, too old a driver, no device, a forked child | cenote.DriverUnavailableError |
// | std::logic_error and its children | the caller's mistake                    | ValueError, IndexError, …     |
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "cenote/ground/export.hpp"
#include "cenote/ground/text_part.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

/// A resource's figures, in bytes; what a resource does not know is left empty.
struct memory_state {
  std::optional<std::size_t> in_use;        ///< handed out and not yet freed
  std::optional<std::size_t> held;          ///< taken from the upstream
  std::optional<std::size_t> limit;         ///< never holds more
  std::optional<std::size_t> largest_free;  ///< the largest block that it could hand out without growing
  std::optional<std::size_t> device_free;   ///< what the device itself has left
  std::optional<std::size_t> device_total;
};

/// Bytes that one client, one tag or one call site holds.
struct memory_holder {
  enum class kind { client, tag, site };
  kind of = kind::client;
  std::string name;  ///< empty: what has no tag, or was not sampled
  std::size_t bytes = 0;
  std::size_t blocks = 0;
};

/// What was tried before memory ran out.
struct relief_step {
  std::string name;
  std::optional<std::size_t> freed_bytes;  ///< as far as whoever freed them says
  std::string why_not;                     ///< why the step was skipped, or how it failed; empty if it was taken
};

/// What is known of an allocation that failed, beside its resource's figures.
struct shortage {
  std::size_t rounded = 0;              ///< what a resource takes for it, at the least
  std::size_t alignment = 0;            ///< that was asked for; 0 where it is the one of every block
  std::optional<int> device;            ///< whose memory was asked for
  std::optional<std::uint64_t> stream;  ///< the handle
  std::string resource;                 ///< the specification of the stack
  std::string limited_by;               ///< what the limit is, and who has set it, where it is not a resource's own
  bool knows_holders = false;           ///< whether `holders` are all there are
  std::vector<memory_holder> holders;   ///< on that device: clients, tags, sites, each the largest first
  std::vector<relief_step> steps;
};

/// Memory ran out. Thrown once, at the public edge; inside the core it is a null pointer.
class out_of_memory : public std::bad_alloc {
 public:
  out_of_memory(const std::string& resource, std::size_t requested, const memory_state& state);
  out_of_memory(std::size_t requested, const memory_state& state, shortage known);
  const char* what() const noexcept override { return text_.c_str(); }
  std::size_t requested() const noexcept { return requested_; }
  const memory_state& state() const noexcept { return state_; }
  const shortage& known() const noexcept { return known_; }

 private:
  std::size_t requested_;
  memory_state state_;
  shortage known_;
  std::string text_;
};

/// A driver call failed for another reason than memory. Never retried, never turned into out_of_memory.
class cuda_error : public std::runtime_error {
 public:
  cuda_error(const std::string& call, int code, const std::string& name, const std::string& description);
  const std::string& call() const noexcept { return call_; }
  const std::string& name() const noexcept { return name_; }
  int code() const noexcept { return code_; }

 private:
  std::string call_;
  std::string name_;
  int code_;
};

/// There is no driver to call; the text says why and what to do.
class driver_unavailable : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The channel for what cannot be thrown (frees, destructors): one line of the log (log.hpp; stderr unless somebody
/// listens), each distinct text once per process, silent while the process exits. All are counted (reports.hpp). The
/// parts make one text:
///
///     report_once("a block is leaked, as freeing it failed: ", error.what());
///
/// It needs no memory of the host: the texts that were reported are remembered by a hash in a table of fixed size,
/// which forgets an earlier one where a few thousand others have come between.
CENOTE_EXPORT void report_text_once(std::initializer_list<text_part> parts) noexcept;

template <class... Parts>
void report_once(const Parts&... parts) noexcept {
  report_text_once({text_part(parts)...});
}

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
