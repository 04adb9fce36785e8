// Arithmetic of alignments.
#pragma once

#include <cstddef>
#include <cstdint>
#include <rmm/detail/export.hpp>

RMM_NAMESPACE_BEGIN

static constexpr std::size_t CUDA_ALLOCATION_ALIGNMENT{256};

[[nodiscard]] inline bool is_pow2(std::size_t value) noexcept { return value != 0 && (value & (value - 1)) == 0; }
[[nodiscard]] inline bool is_supported_alignment(std::size_t alignment) noexcept { return is_pow2(alignment); }
[[nodiscard]] inline bool is_supported_base_resource_alignment(std::size_t alignment) noexcept {
  return is_pow2(alignment) && alignment <= CUDA_ALLOCATION_ALIGNMENT;
}
[[nodiscard]] inline std::size_t align_up(std::size_t value, std::size_t alignment) noexcept {
  return (value + (alignment - 1)) & ~(alignment - 1);
}
[[nodiscard]] inline std::size_t align_down(std::size_t value, std::size_t alignment) noexcept {
  return value & ~(alignment - 1);
}
[[nodiscard]] inline bool is_aligned(std::size_t value, std::size_t alignment) noexcept {
  return value == align_down(value, alignment);
}
[[nodiscard]] inline bool is_pointer_aligned(void* pointer,
                                             std::size_t alignment = CUDA_ALLOCATION_ALIGNMENT) noexcept {
  return is_aligned(reinterpret_cast<std::uintptr_t>(pointer), alignment);
}

RMM_NAMESPACE_END
