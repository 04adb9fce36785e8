// A memory resource: the one interface that every pool, every kind of memory and every adaptor has.
//
//     outermost                              innermost
//     statistics  →  logging  →  pool  →  cuda  →  the driver
//     └─ adaptors: same interface, ─┘    └─ resources: own memory ─┘
//
// Contract
//   * Stream-ordered: memory is usable by work queued on `stream` after allocate returns, and may still be in use by
//     work queued on `stream` before deallocate.
//   * allocate and deallocate may be called from any thread, whatever device is current.
//   * A resource keeps its upstream alive. Freeing needs the same bytes and alignment as allocating did.
//   * Memory that ran out is a null pointer inside (try_allocate) and out_of_memory at the public edge (allocate). Any
//     other failure of the driver is cuda_error.
//   * Zero bytes are a null pointer and cost nothing; freeing null does nothing.
//   * An address is a multiple of the alignment, and its block ends within the address space. One that is not so, as a
//     program's resource may give it, goes back to who gave it, and std::runtime_error names the stack.
//   * At most max_depth resources stand on each other, as a call passes through all of them.
//   * While the process exits, frees do nothing. In a forked child of a process that has used the driver, and for the
//     resources that a parent has made, frees do nothing and what needs the driver or a lock throws driver_unavailable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "cenote/driver/nvtx.hpp"
#include "cenote/driver/stream_ref.hpp"
#include "cenote/ground/bytes.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/export.hpp"
#include "cenote/ground/process.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class memory_resource {
 public:
  /// Each of them takes a part of the thread's call stack, some hundred bytes: 128 fit into that of any thread.
  static constexpr int max_depth = 128;

  virtual ~memory_resource() = default;
  memory_resource(const memory_resource&) = delete;
  memory_resource& operator=(const memory_resource&) = delete;

  /// Throws out_of_memory, after the pressure handlers (ground/pressure.hpp) could not help, cuda_error, or
  /// std::invalid_argument for an alignment that is no power of two.
  void* allocate(stream_ref stream, std::size_t bytes, std::size_t alignment = default_alignment);

  /// As allocate, but null when memory ran out.
  void* try_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment = default_alignment);

  /// The error of an allocation for which try_allocate had no memory; `steps` were taken meanwhile.
  out_of_memory shortage_of(stream_ref stream, std::size_t bytes, std::vector<relief_step> steps = {},
                            std::size_t alignment = default_alignment) const;

  /// Frees in the order of `stream`. A block that cannot be freed is leaked, which is reported; that needs no memory of
  /// the host.
  void deallocate(stream_ref stream, void* pointer, std::size_t bytes,
                  std::size_t alignment = default_alignment) noexcept;

  /// As try_allocate, but null as well where that would have to wait, or to call what is not the core's: for a caller
  /// who holds a lock that others wait for, such as an interpreter's.
  void* allocate_at_once(stream_ref stream, std::size_t bytes, std::size_t alignment = default_alignment) noexcept;

  /// Frees as deallocate does, or returns false and does nothing where that would have to wait.
  bool deallocate_at_once(stream_ref stream, void* pointer, std::size_t bytes,
                          std::size_t alignment = default_alignment) noexcept;

  /// Allocates on the legacy default stream, or one that stands in for it (unnamed_stream.hpp), and waits until the
  /// memory is usable everywhere.
  void* allocate_sync(std::size_t bytes, std::size_t alignment = default_alignment);

  /// Frees memory that no work uses any more: waits for the legacy default stream first.
  void deallocate_sync(void* pointer, std::size_t bytes, std::size_t alignment = default_alignment) noexcept;

  /// The device whose memory this is.
  int device() const noexcept { return device_; }

  /// How many resources stand on each other from this one down, as far as it can ever come to with bins.
  int depth() const noexcept { return depth_; }

  /// The word for this resource in a specification: "pool", "cuda", "statistics".
  virtual std::string kind() const = 0;

  /// This resource with its parameters, as a specification spells it, without its upstream: "pool:max=8GiB".
  virtual std::string specification() const { return kind(); }

  /// What stands under this one; null for a resource that takes from the driver.
  virtual std::shared_ptr<memory_resource> upstream() const { return nullptr; }

  /// The figures of this resource; an adaptor gives its upstream's.
  virtual memory_state state() const;

  /// Whether the host can read and write the memory.
  virtual bool is_host_accessible() const noexcept { return upstream() && upstream()->is_host_accessible(); }

  /// False where memory is usable on every stream as soon as allocate returns.
  virtual bool is_stream_ordered() const noexcept { return !upstream() || upstream()->is_stream_ordered(); }

  /// Gives unused memory back towards the device until at most `keep_bytes` are held; returns the bytes given back.
  /// Memory whose work is still pending goes back at a later call of the resource; with `wait`, the host waits for that
  /// work first, unless a capture is known to be under way.
  virtual std::size_t trim(std::size_t keep_bytes = 0, bool wait = false);

  /// Throws std::logic_error if the bookkeeping is inconsistent. Checks the upstream too.
  virtual void check() const;

 protected:
  /// Of a resource that takes from the driver.
  explicit memory_resource(int device) : device_(device) {}

  /// Of a resource that stands on `upstream`, and on stacks of up to `more` others beside it, such as bins.
  /// std::invalid_argument names `kind` if `upstream` is null, or if too many stand on each other.
  memory_resource(const std::shared_ptr<memory_resource>& upstream, const char* kind, int more = 0);

  /// Whether nothing may be freed any more: the process exits, or is a forked child of the one that made this.
  bool is_gone() const noexcept { return process_fate.load(std::memory_order_acquire) != made_in_; }

  /// Whether this is a forked child of the one that made it, or of one that had used the driver.
  bool is_inherited() const noexcept {
    return (process_fate.load(std::memory_order_acquire) & ~process_exits) != made_in_;
  }

 private:
  /// `bytes` is neither 0 nor above max_allocation, `alignment` a power of two of at least 256. A free that throws has
  /// lost its block, and is reported by the deallocate that it came from.
  virtual void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) = 0;
  virtual void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) = 0;

  /// As those two, at once or not at all; a resource that cannot says so for ever.
  virtual void* do_allocate_at_once(stream_ref, std::size_t, std::size_t) { return nullptr; }
  virtual bool do_deallocate_at_once(stream_ref, void*, std::size_t, std::size_t) { return false; }

  /// What allocate does when there is no memory at first.
  void* allocate_under_pressure(stream_ref stream, std::size_t bytes, std::size_t alignment);

  /// do_allocate, if what it gives can be a block.
  void* allocate_block(stream_ref stream, std::size_t bytes, std::size_t alignment) {
    void* const pointer = do_allocate(stream, bytes, alignment);
    const auto address = reinterpret_cast<std::uintptr_t>(pointer);
    if ((address & (alignment - 1)) != 0 || address + bytes < address) [[unlikely]]
      refuse(stream, pointer, bytes, alignment);
    return pointer;
  }
  [[noreturn]] void refuse(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment);

  // The same, told to NVIDIA's tools (driver/nvtx.hpp).
  void* allocate_in_range(stream_ref stream, std::size_t bytes, std::size_t alignment);
  void deallocate_in_range(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment);

  friend class resource_adaptor;  // which passes on

  int device_;
  int depth_ = 1;
  unsigned made_in_ = process_generation();
};

/// Calls the pressure handlers for an allocation of `resource`, unless none could help: relieve_pressure of
/// ground/pressure.hpp.
CENOTE_EXPORT std::vector<relief_step> relieve_pressure(const memory_resource& resource, stream_ref stream,
                                                        std::size_t bytes, const std::function<bool()>& retry);

/// The whole stack, outermost first: "statistics | pool:max=8GiB | cuda".
CENOTE_EXPORT std::string describe(const memory_resource& resource);

/// "pool:initial=1GiB,max=8GiB": a kind and those of its parameters that are not empty.
CENOTE_EXPORT std::string spell_specification(const std::string& kind, std::initializer_list<std::string> parameters);

/// `upstream`, or std::invalid_argument naming `resource` if it is null.
CENOTE_EXPORT std::shared_ptr<memory_resource> require_upstream(std::shared_ptr<memory_resource> upstream,
                                                                const char* resource);

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
