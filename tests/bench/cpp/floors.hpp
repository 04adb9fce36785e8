// What nothing can be cheaper than: the pieces that an allocation is made of, each by itself.
#pragma once

#include "worker.hpp"

namespace bench {

/// The case `floor`, whose only peer is `machine`; the request's `what` says which piece.
void add_floors(worker& to);

}  // namespace bench
