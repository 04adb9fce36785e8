// cenote's functions, as the full allocator calls them: the C ABI of the libcenote.so that is loaded already.
#pragma once

#include <c10/util/Exception.h>

#include <stdexcept>

#include "cenote/cenote.h"

namespace cenote::torch {

/// Throws std::runtime_error beside a library that is not the one this was compiled for.
inline const cenote_api& core() {
  static const cenote_api* const functions = cenote_get_api(CENOTE_ABI_VERSION);
  if (functions == nullptr) throw std::runtime_error(cenote_last_error());
  return *functions;
}

/// Throws with the text of the last failure, unless the status says that all went well.
inline void require(int status) { TORCH_CHECK(status == CENOTE_OK, core().last_error()); }

inline int client() {
  static const int index = core().register_client("torch");
  return index;
}

}  // namespace cenote::torch
