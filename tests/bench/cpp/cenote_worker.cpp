// The worker for cenote's resources, the allocators of the host, and the floors.
#include <gnu/libc-version.h>

#include "cenote_peers.hpp"
#include "floors.hpp"
#include "host_peers.hpp"
#include "offer.hpp"

int main() {
  using namespace bench;
  worker serving("cenote");
  offer<cenote_peer>(serving, "cenote-pool", "", without_promise(make_cenote_pool));
  offer<cenote_peer>(serving, "cenote-chunks", "", without_promise(make_cenote_chunks));
  offer<cenote_peer>(serving, "cenote-announced", "", make_cenote_announced);
  const auto pool = without_promise(make_cenote_pool);
  offer_pairs_of_threads<cenote_peer>(serving, "cenote-pool", pool);
  offer_adaptor<cenote_peer>(serving, "cenote-statistics", without_promise(make_cenote_statistics), pool);
  offer_adaptor<cenote_peer>(serving, "cenote-limiting", without_promise(make_cenote_limiting), pool);
  offer<cenote_peer>(serving, "cenote-async", "", without_promise(make_cenote_async));
  offer<cenote_peer>(serving, "cenote-arena", "", without_promise(make_cenote_arena));
  offer<cenote_peer>(serving, "cenote-binning", "", without_promise(make_cenote_binning));
  offer<malloc_peer>(serving, "malloc", std::string("glibc ") + gnu_get_libc_version(),
                     [](room) { return std::make_unique<malloc_peer>(); });
  try {
    offer<mimalloc_peer>(serving, "mimalloc", mimalloc_peer::version(),
                         [](room) { return std::make_unique<mimalloc_peer>(); });
  } catch (const std::exception& error) {
    serving.add_missing("mimalloc", error.what());
  }
  serving.add_peer("driver", "");
  offer_hand_off<record_and_wait_peer>(serving, "driver",
                                       [](room) { return std::make_unique<record_and_wait_peer>(); });
  add_floors(serving);
  return serving.serve();
}
