// The namespace of RMM's names over cenote: an inline one of its own, so that a process may have librmm's as well.
#pragma once

#include <cuda/version>
#include <rmm/version_config.hpp>

#if CCCL_VERSION < 3003000
#error "RMM's names over cenote need CCCL 3.3 or newer, as RMM 26.10 does: pip install 'nvidia-cuda-cccl>=13.3'"
#endif

#define RMM_EXPORT __attribute__((visibility("default")))
#define RMM_HIDDEN __attribute__((visibility("hidden")))
#define RMM_ABI_NAMESPACE over_cenote_26_10
#define RMM_NAMESPACE rmm::RMM_ABI_NAMESPACE
#define RMM_NAMESPACE_BEGIN  \
  namespace RMM_EXPORT rmm { \
  inline namespace RMM_ABI_NAMESPACE {
#define RMM_NAMESPACE_END \
  }                       \
  }
#define RMM_CONSTEXPR_FRIEND constexpr friend
