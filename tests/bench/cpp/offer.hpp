// Puts a peer into a worker with every case that makes sense for it.
#pragma once

#include "adaptor_case.hpp"
#include "growth_case.hpp"
#include "stream_cases.hpp"
#include "thread_cases.hpp"
#include "worker.hpp"

namespace bench {

template <class Peer>
void offer_hand_off(worker& to, const std::string& name, maker<Peer> make) {
  to.add("handoff", name, [make](const record& request) { return hand_off<Peer>(make, request); });
}

template <class Peer>
void offer_pairs_of_threads(worker& to, const std::string& name, maker<Peer> make) {
  to.add("adaptors", name, [make](const record& request) { return pairs_of_threads<Peer>(make, request); });
}

/// `make` puts an adaptor over what `make_pool` makes.
template <class Peer>
void offer_adaptor(worker& to, const std::string& name, maker<Peer> make, maker<Peer> make_pool) {
  to.add("adaptors", name,
         [make, make_pool](const record& request) { return adaptor_pairs<Peer>(make, make_pool, request); });
}

template <class Peer>
void offer(worker& to, const std::string& name, const std::string& version, maker<Peer> make) {
  to.add_peer(name, version);
  to.add("pair", name, [make](const record& request) { return same_size_pair<Peer>(make, request); });
  for (const char* bench_case : {"live", "live-small"})
    to.add(bench_case, name, [make](const record& request) { return random_replacement<Peer>(make, request); });
  to.add("holes", name, [make](const record& request) { return holes<Peer>(make, request); });
  to.add("rmm-random", name, [make](const record& request) { return rmm_random<Peer>(make, request); });
  to.add("threads", name, [make](const record& request) { return many_threads<Peer>(make, request); });
  to.add("producer-consumer", name, [make](const record& request) { return producer_consumer<Peer>(make, request); });
  if constexpr (Peer::on_device) {
    offer_hand_off<Peer>(to, name, make);
    to.add("busy-streams", name, [make](const record& request) { return busy_streams<Peer>(make, request); });
    to.add("growth", name, [make](const record& request) { return growth<Peer>(make, request); });
  }
}

}  // namespace bench
