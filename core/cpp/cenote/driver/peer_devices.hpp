// Other devices that may use a resource's memory, as a program names them.
#pragma once

#include <string>
#include <vector>

#include "cenote/ground/export.hpp"

namespace CENOTE_EXPORT cenote {
inline namespace v1 {

struct peer_devices {
  enum class choice { in_use, all, named };
  choice which = choice::in_use;  ///< of the devices that can reach the memory
  std::vector<int> devices{};     ///< where they are named; the memory's own device among them changes nothing
};

/// As specifications have it: "", "all", "none" or "1,2".
CENOTE_EXPORT std::string spell_peers(const peer_devices& peers);

}  // namespace v1
}  // namespace CENOTE_EXPORT cenote
