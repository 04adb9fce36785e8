// Hands out no more than a limit of bytes, whatever the upstream has.
//
// Each allocation counts as its bytes rounded up to the adaptor's alignment. The bytes are reserved before the upstream
// is asked, and given back if it fails, so that threads never pass the limit together.
//
// A free gives back the bytes that its block has where the upstream knows them (ground/free_correction.hpp), as pools,
// tracking and guards do; else what it says.
//
// Threads: a quota of which each thread has a lease (structures/leased_quota.hpp). No number of threads passes the
// limit together, and what one thread could still take is taken by another before anything is refused.
// Cost: 4.5 ns a pair, 2.3 of them the passing on, without a locked instruction (13.7 with one counter of all threads);
// where a thread's lease does not suffice, a spin lock and O(threads), and near the limit a system call. 0.9 KiB, and
// 64 bytes for each thread. Source of the figures: as in leased_quota.hpp, over a pool.
#pragma once

#include "cenote/ground/export.hpp"
#include "cenote/resource_adaptor.hpp"
#include "cenote/structures/leased_quota.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

class limiting_resource_adaptor final : public resource_adaptor {
 public:
  /// `allocation_limit` in bytes. Throws std::invalid_argument unless `alignment` is a power of two.
  limiting_resource_adaptor(std::shared_ptr<memory_resource> upstream, std::size_t allocation_limit,
                            std::size_t alignment = default_alignment);

  /// Bytes handed out and not yet freed, each allocation rounded up.
  std::size_t allocated_bytes() const noexcept;
  std::size_t allocation_limit() const noexcept { return limit_; }

  std::string kind() const override { return "limiting"; }
  std::string specification() const override;
  memory_state state() const override;

 private:
  void* do_allocate(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) override;
  void* do_allocate_at_once(stream_ref stream, std::size_t bytes, std::size_t alignment) override;
  bool do_deallocate_at_once(stream_ref stream, void* pointer, std::size_t bytes, std::size_t alignment) override;
  inline bool try_reserve(std::size_t counted) noexcept;
  inline void release(std::size_t counted) noexcept;

  const std::size_t limit_;
  const std::size_t alignment_;
  leased_quota quota_;
};

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
