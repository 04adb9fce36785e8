#include "cenote/driver/peer_devices.hpp"

namespace cenote::inline v1 {

std::string spell_peers(const peer_devices& peers) {
  if (peers.which == peer_devices::choice::in_use) return "";
  if (peers.which == peer_devices::choice::all) return "all";
  if (peers.devices.empty()) return "none";
  std::string text;
  for (const int device : peers.devices) {
    if (!text.empty()) text += ',';
    text += std::to_string(device);
  }
  return text;
}

}  // namespace cenote::inline v1
