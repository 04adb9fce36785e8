// A data set in managed memory, worked on in tiles, with a few of them on the device at a time: what one does where the
// data is larger than the device. The sizes here are small: the point is the order of the steps.
//
//     stream `moves`    in 0   in 1    out 0  in 2    out 1  in 3    …
//     stream `work`            ── 0 ── ────── 1 ───── ────── 2 ─────
//
// The host is the tiles' home (prefer_location). A tile is fetched while the one before it is worked on, and sent home
// when it is done, so that the device never evicts, and no page fault interrupts the work.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>

#include "cenote/cenote.hpp"

namespace {

constexpr std::size_t data_bytes = 64 * cenote::MiB;
constexpr std::size_t tile_bytes = 8 * cenote::MiB;
constexpr std::size_t tiles = data_bytes / tile_bytes;
constexpr int device = 0;

}  // namespace

int main() {
  auto managed = std::make_shared<cenote::managed_memory_resource>(device);
  auto pool = std::make_shared<cenote::pool_memory_resource>(managed, data_bytes, data_bytes);
  cenote::cuda_stream moves(device, cenote::cuda_stream::kind::non_blocking);
  cenote::cuda_stream work(device, cenote::cuda_stream::kind::non_blocking);
  cenote::device_uvector<unsigned char> data(data_bytes, work, pool);

  // The host fills it: pages are made where they are first touched.
  work.synchronize();
  cenote::prefer_location(data.data(), data_bytes, cenote::host_location, device);
  std::fill(data.begin(), data.end(), static_cast<unsigned char>(1));

  auto tile = [&](std::size_t i) { return data.data() + i * tile_bytes; };
  auto fetch = [&](std::size_t i) {
    if (i < tiles) cenote::prefetch_async(tile(i), tile_bytes, device, moves, device);
    return cenote::event::record(moves, device);
  };

  auto arrived = fetch(0);
  for (std::size_t i = 0; i < tiles; ++i) {
    const auto here = std::exchange(arrived, fetch(i + 1));
    cenote::wait(work, *here, device);
    // A kernel would stand here; setting bytes runs on the device as well.
    cenote::fill_async(tile(i), static_cast<unsigned char>(i + 2), tile_bytes, work, device);
    cenote::order_after(moves, work, device);  // the device waits, not the host
    cenote::prefetch_async(tile(i), tile_bytes, cenote::host_location, moves, device);
  }
  moves.synchronize();

  bool is_right = true;
  for (std::size_t i = 0; i < tiles; ++i) {
    const auto value = static_cast<unsigned char>(i + 2);
    is_right = is_right && std::all_of(tile(i), tile(i) + tile_bytes, [=](unsigned char b) { return b == value; });
  }
  std::printf("%s worked on in %zu tiles, two of them (%s) on the device at the most\n",
              cenote::format_bytes(data_bytes).c_str(), tiles, cenote::format_bytes(2 * tile_bytes).c_str());
  std::printf("read on the host: %s\n", is_right ? "right" : "WRONG");
  return is_right ? 0 : 1;
}
