// A model of a pool whose memory is pages under reserved addresses. It replays a trace to compare designs.
//
//   g++ -std=c++20 -O2 -o page_model page_model.cpp
//   page_model TRACE < DESIGNS
//
// TRACE is a file of int64: id, bytes (-1 for a free) and stream of each event. DESIGNS has one design a line, in words
// `key=value` (struct design). Each is answered by a line of JSON (struct figures). page_model.py, one folder up, does
// both.
//
// How it works
//   1. Free addresses lie in one sorted row of blocks. A block belongs to the stream that freed it, to everybody
//      ("ready"), or is unmapped. A block in use is only an address and a size. The model walks the row for everything.
//   2. A page has a size that is a power of two, and lies at a multiple of its size.
//
//          |  in use  | free, stream 0 |   unmapped   | ready |  in use |    unmapped  …
//          [ page 8 MiB      ][ page 8 ]                [page 2][page 2]
//
//   3. An allocation takes a mapped block that its stream may use (the fast path). If none fits, it looks at runs of
//      neighbouring blocks, unmapped ones too, at both ends of each. It takes the place that lacks the fewest bytes of
//      pages, then the one with the smallest rest (the slow path). Missing pages are made while what is held stays
//      within the bound. Otherwise idle pages are moved from elsewhere, and only the shortage is made.
//   4. Above the bound or at the limit, an allocation may use blocks and idle pages of other streams whose work is
//      pending. It waits for them, which is counted unless the stream has waited for that free before.
//   5. Idle pages that are too large to be moved are released for small new ones.
//
// Invariants (check=1: after each event)
//   I1  free blocks are sorted, not empty and disjoint; neighbours of one owner are one block
//   I2  a page lies under mapped blocks and blocks in use; an unmapped block has no page; held_ is the sum of all pages
//   I3  a page counts the blocks in use that touch it
//
// Threads: one.
// Cost: O(free blocks) for an allocation, O(pages) for one that moves pages.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

namespace {

using bytes_t = std::uint64_t;

constexpr bytes_t granularity = 256;
constexpr bytes_t mib = 1u << 20;
constexpr bytes_t range_bytes = bytes_t{1} << 44;  // so many addresses are never used up
constexpr bytes_t nowhere = ~bytes_t{0};
constexpr int unmapped = -1;
constexpr int ready = -2;
constexpr bytes_t pages_held = 1024;        // about so many, if their size follows the pool's
constexpr unsigned bin_bits = 4;            // 16 bins to a power of two, as in structures/free_index.hpp
constexpr std::size_t looks_at = 8;         // blocks of a bin
constexpr bytes_t cache_share = 64;         // a cache holds this part of what the pool holds,
constexpr bytes_t cached_block_share = 16;  // in blocks of at most this part of that

struct event {
  std::int64_t id, bytes, stream;
};

struct design {
  bool one_range = true;          // or a range for each stream, between which pages change hands
  bytes_t page = 0;               // a fixed size; 0: held / 1024, as a power of two in 2 … 32 MiB
  double near = 0.9;              // above this share of the limit, new pages have the smallest size
  std::string fit = "own_bin";    // of the fast path: best (exact), good (two-level segregated fit), own_bin (the
                                  // wanted size's own bin before that), none (no fast path: runs for everybody)
  bool upper = true;              // takes the upper end of a block, where both ends are as good
  std::size_t candidates = 8;     // runs that the slow path looks at: the smallest that fit, and the largest
  bytes_t touch = pages_held;     // near a limit of fewer pages than these, requests of a page or more go where they
                                  // touch the fewest idle pages
  bool coalesce = true;           // a freed block takes in neighbours of other owners whose work is known to be done
  bool wait_first = true;         // above the bound, waits for another stream's block before it moves pages
  std::string victim = "oldest";  // moves the idle page that was longest idle (oldest), or from the smallest or
                                  // largest free block, or from the highest address
  double bound = 1.10;            // times the peak in use so far may be held before pages are moved; 0: no bound
  bytes_t slack = 256 * mib;      // or so many bytes more than that peak
  std::int64_t ready_after = 0;   // events of a stream after which its work is done; -1: never
  bool cache = false;             // a cache of exact sizes for each stream
  double cache_near = 0.9;        // above this share of the limit it takes no blocks
  bytes_t limit = nowhere;        // of what is held
  bool check = false;             //
};

struct free_block {
  bytes_t begin, end;
  int owner;
  std::uint64_t freed_at;   // its owner's number of events at the latest free in it
  std::uint64_t stamp = 0;  // when it was entered: a bin gives out its latest first
  bytes_t bytes() const { return end - begin; }
};

struct page {
  bytes_t bytes;
  int uses = 0;
  std::uint64_t idle_since = 0;
};

struct extent {
  bytes_t begin, bytes;
  bytes_t end() const { return begin + bytes; }
};

struct request {
  std::int64_t id;
  bytes_t bytes;
  int stream;
};

struct figures {
  bytes_t held = 0, touched = 0;  // the most
  std::uint64_t moves = 0, created = 0, recuts = 0, waits = 0, mapping = 0;
};

bytes_t align_down(bytes_t value, bytes_t unit) { return value & ~(unit - 1); }

int bin_of(bytes_t bytes) {
  const bytes_t granules = bytes / granularity;
  if (granules < (1u << bin_bits)) return static_cast<int>(granules);
  const unsigned shift = static_cast<unsigned>(std::bit_width(granules)) - 1 - bin_bits;
  return static_cast<int>(((shift + 1) << bin_bits) + (granules >> shift) - (1u << bin_bits));
}

class pool {
  // The last page that begins at an address or before it; the first page if there is none.
  template <class Pages>
  static auto page_at(Pages& pages, bytes_t address) {
    auto p = pages.upper_bound(address);
    return p == pages.begin() ? p : --p;
  }

 public:
  pool(const design& the_design, std::size_t streams, std::size_t ids)
      : design_(the_design),
        live_(ids),
        events_(streams),
        waited_(streams, std::vector<std::uint64_t>(streams)),
        caches_(streams),
        cached_bytes_(streams) {
    if (design_.page != 0) smallest_ = largest_ = design_.page;
    for (std::size_t i = 0; i < (design_.one_range ? 1 : streams); ++i) {
      free_.push_back({i * range_bytes, (i + 1) * range_bytes - largest_, unmapped, 0});
    }
  }

  bool allocate(request r) {
    r.bytes = align_down(r.bytes + granularity - 1, granularity);
    ++clock_, ++events_[r.stream];
    in_use_ += r.bytes;
    peak_in_use_ = std::max(peak_in_use_, in_use_);
    if (auto& shelf = caches_[r.stream][r.bytes]; !shelf.empty()) {
      live_[r.id] = {shelf.back(), r.bytes};
      shelf.pop_back();
      cached_bytes_[r.stream] -= r.bytes;
      return true;
    }
    const std::uint64_t before = figures_.created + figures_.moves;
    const bool has_found = place(r);
    if (figures_.created + figures_.moves != before) ++figures_.mapping;
    return has_found;
  }

  void deallocate(std::int64_t id, int stream) {
    ++clock_, ++events_[stream];
    const extent block = live_[id];
    in_use_ -= block.bytes;
    const bytes_t room = design_.cache && !is_near(0, design_.cache_near) ? held_ / cache_share : 0;
    if (block.bytes > room / cached_block_share || cached_bytes_[stream] + block.bytes > room) {
      return release(block, stream);
    }
    caches_[stream][block.bytes].push_back(block.begin);
    cached_bytes_[stream] += block.bytes;
  }

  figures result() const { return figures_; }

  void check(const std::vector<char>& is_live) const {
    const auto require = [](bool holds, const char* invariant) {
      if (!holds) throw std::logic_error(invariant);
    };
    for (std::size_t i = 0; i < free_.size(); ++i) {
      const free_block &b = free_[i], &before = free_[i == 0 ? 0 : i - 1];
      require(b.begin < b.end && (i == 0 || before.end <= b.begin), "I1: sorted and disjoint");
      require(i == 0 || before.end != b.begin || before.owner != b.owner, "I1: neighbours are one");
      require(covered({b.begin, b.bytes()}) == (b.owner == unmapped ? 0 : b.bytes()), "I2: a free block's pages");
    }
    std::vector<extent> in_use;
    for (std::size_t id = 0; id < is_live.size(); ++id) {
      if (is_live[id]) in_use.push_back(live_[id]);
    }
    for (const auto& shelves : caches_) {
      for (const auto& [bytes, shelf] : shelves) {
        for (const bytes_t begin : shelf) in_use.push_back({begin, bytes});
      }
    }
    std::map<bytes_t, int> uses;
    for (const extent block : in_use) {
      require(covered(block) == block.bytes, "I2: the pages of a block in use");
      for (auto p = page_at(pages_, block.begin); p != pages_.end() && p->first < block.end(); ++p) ++uses[p->first];
    }
    bytes_t held = 0;
    for (const auto& [begin, p] : pages_) {
      held += p.bytes;
      require(p.uses == uses[begin], "I3: the uses of a page");
    }
    require(held == held_, "I2: the sum of all pages");
  }

 private:
  // How far a step of the ladder goes.
  struct reach {
    bool moves;      // moves idle pages
    bool any_page;   // also those that wait for other streams
    bool any_block;  // runs contain blocks that wait for other streams
    bytes_t limit;   // of what is held
  };

  // The ladder. What costs less comes first.
  bool place(const request& r) {
    if (design_.fit != "none" && !(by_touch(r) && r.bytes >= smallest_)) {
      if (take_mapped(r, false)) return true;
      if (empty_cache(r.stream) && take_mapped(r, false)) return true;
    }
    settle(r.stream);
    const bytes_t bound = allowed(), limit = design_.limit;
    const bool waits_first = design_.wait_first && !by_touch(r);
    if (take_run(r, {!waits_first, false, false, bound})) return true;
    for (std::size_t s = 0; s < caches_.size(); ++s) empty_cache(static_cast<int>(s));
    if (!by_touch(r) && take_mapped(r, true)) return true;
    return take_run(r, {true, false, false, bound}) || take_run(r, {true, true, true, bound}) ||
           take_run(r, {true, true, true, limit});
  }

  bool is_near(bytes_t more, double share) const {
    return static_cast<double>(held_ + more) > share * static_cast<double>(design_.limit);
  }
  bool by_touch(const request& r) const {
    return design_.limit / smallest_ < design_.touch && is_near(r.bytes, design_.near);
  }

  bytes_t allowed() const {
    if (design_.bound == 0) return design_.limit;
    const auto bound = static_cast<bytes_t>(design_.bound * static_cast<double>(peak_in_use_));
    return std::min(design_.limit, std::max(bound, peak_in_use_ + design_.slack));
  }

  bytes_t page_bytes(bytes_t request_bytes) const {
    const bytes_t share = (held_ + request_bytes) / pages_held;
    return std::clamp(std::bit_floor(share + share / 2), smallest_, largest_);
  }

  bool is_done(const free_block& b) const {
    if (b.owner < 0) return true;
    return design_.ready_after >= 0 && events_[b.owner] - b.freed_at >= static_cast<std::uint64_t>(design_.ready_after);
  }
  bool is_pending(const free_block& b, int stream) const {
    return b.owner != stream && !is_done(b) && b.freed_at > waited_[stream][b.owner];
  }
  bool is_usable(const free_block& b, int stream, bool any_block) const {
    if (!design_.one_range && b.begin / range_bytes != static_cast<bytes_t>(stream)) return false;
    return any_block || !is_pending(b, stream);
  }

  bool take_mapped(const request& r, bool any_block) {
    const int bin = bin_of(r.bytes);
    const bool all_of_bin_fit = r.bytes == granularity || bin_of(r.bytes - granularity) != bin;
    const int certain = bin + (design_.fit == "own_bin" || !all_of_bin_fit ? 1 : 0);
    const auto is_better = [&](const free_block& a, const free_block& b) {
      if (design_.fit == "best") return a.bytes() < b.bytes();
      return std::pair(bin_of(a.bytes()), b.stamp) < std::pair(bin_of(b.bytes()), a.stamp);
    };
    const free_block *best = nullptr, *of_own_bin = nullptr;
    std::vector<const free_block*> own;
    for (const free_block& b : free_) {
      if (b.owner == unmapped || bin_of(b.bytes()) < bin || !is_usable(b, r.stream, any_block)) continue;
      if (design_.fit != "best" && bin_of(b.bytes()) < certain) {
        own.push_back(&b);
      } else if (b.bytes() >= r.bytes && (best == nullptr || is_better(b, *best))) {
        best = &b;
      }
    }
    std::sort(own.begin(), own.end(), [](auto* a, auto* b) { return a->stamp > b->stamp; });
    own.resize(std::min(own.size(), looks_at));
    for (const free_block* b : own) {
      if (b->bytes() >= r.bytes && (of_own_bin == nullptr || b->bytes() < of_own_bin->bytes())) of_own_bin = b;
    }
    if (of_own_bin != nullptr && (best == nullptr || design_.fit == "own_bin")) best = of_own_bin;
    if (best == nullptr) return false;
    take(r, design_.upper ? best->end - r.bytes : best->begin);
    return true;
  }

  bool take_run(const request& r, const reach& how) {
    std::vector<extent> runs;
    bool continues = false;
    for (const free_block& b : free_) {
      const bool is_of_run = is_usable(b, r.stream, how.any_block);
      if (is_of_run && continues && runs.back().end() == b.begin)
        runs.back().bytes += b.bytes();
      else if (is_of_run)
        runs.push_back({b.begin, b.bytes()});
      continues = is_of_run;
    }
    std::erase_if(runs, [&](const extent& run) { return run.bytes < r.bytes; });
    std::stable_sort(runs.begin(), runs.end(), [](auto& a, auto& b) { return a.bytes < b.bytes; });
    if (design_.candidates > 1 && runs.size() > design_.candidates) runs[design_.candidates - 1] = runs.back();
    runs.resize(std::min(runs.size(), design_.candidates));

    struct candidate {
      bytes_t touched, missing, rest;
      bool is_other_end;
      bytes_t begin;
      auto operator<=>(const candidate&) const = default;
    };
    std::vector<candidate> places;
    for (const extent& run : runs) {
      for (const bool at_end : {design_.upper, !design_.upper}) {
        if (design_.candidates == 1 && at_end != design_.upper) continue;
        const extent block{at_end ? run.end() - r.bytes : run.begin, r.bytes};
        bytes_t missing = 0;
        for (const extent& s : missing_pages(block)) missing += s.bytes;
        const bytes_t touched = by_touch(r) ? missing + idle_bytes(block) : missing;
        places.push_back({touched, missing, run.bytes - r.bytes, at_end != design_.upper, block.begin});
      }
    }
    std::sort(places.begin(), places.end());
    return std::any_of(places.begin(), places.end(), [&](const candidate& c) {
      if (!supply({c.begin, r.bytes}, r.stream, how)) return false;
      take(r, c.begin);
      return true;
    });
  }

  // The largest pages that fit between those that are there; near the limit, none reaches further than it must.
  std::vector<extent> missing_pages(extent block) const {
    std::vector<extent> result;
    const bool is_scarce = is_near(block.bytes, design_.near);
    const bytes_t first = is_scarce ? align_down(block.begin, smallest_) : 0;
    const bytes_t last = is_scarce ? align_down(block.end() + smallest_ - 1, smallest_) : nowhere;
    for (auto b = block_at(block.begin); b != free_.end() && b->begin < block.end(); ++b) {
      if (b->owner != unmapped) continue;
      bytes_t low = std::max(b->begin, first);
      const bytes_t high = std::min(b->end, last);
      for (bytes_t at = std::max(b->begin, block.begin); at < std::min(b->end, block.end()); at = low) {
        bytes_t bytes = page_bytes(block.bytes);
        while (bytes > smallest_ && (align_down(at, bytes) < low || align_down(at, bytes) + bytes > high)) bytes /= 2;
        result.push_back({align_down(at, bytes), bytes});
        low = result.back().end();
      }
    }
    return result;
  }

  // Brings the missing pages under a block: new ones within the bound, then idle ones of that size, then parts of
  // larger idle ones, then smaller idle ones, then new ones up to the limit. Changes nothing if that is not enough.
  bool supply(extent block, int stream, const reach& how) {
    struct step {
      bytes_t from, to, bytes;
    };
    std::vector<step> steps;
    std::vector<extent> wanted = missing_pages(block), idle;
    bool is_listed = false;
    bytes_t held = held_;
    const bytes_t bound = std::min(how.limit, allowed());
    const bool is_scarce = is_near(block.bytes, design_.near);
    while (!wanted.empty()) {
      const extent w = wanted.back();
      wanted.pop_back();
      if (w.begin >= block.end() || w.end() <= block.begin) continue;  // a half that is not needed
      const bool is_within = held + w.bytes <= bound;
      if (!is_within && !how.moves) return false;
      if (!is_within && !is_listed) idle = idle_pages(block, stream, how.any_page), is_listed = true;
      const auto fitting = [&](auto fits) { return std::find_if(idle.begin(), idle.end(), fits); };
      const auto same = fitting([&](const extent& p) { return p.bytes == w.bytes; });
      const auto larger = fitting([&](const extent& p) { return p.bytes > w.bytes; });
      const bool may_make = is_within || (idle.empty() && held + w.bytes <= how.limit);
      if (may_make && !(is_scarce && w.bytes > smallest_)) {
        steps.push_back({nowhere, w.begin, w.bytes});
        held += w.bytes;
      } else if (same != idle.end() && !may_make) {
        steps.push_back({same->begin, w.begin, w.bytes});
        idle.erase(same);
      } else if (larger != idle.end() && !may_make) {
        steps.push_back({larger->begin, nowhere, 0});
        held -= larger->bytes;
        idle.erase(larger);
        wanted.push_back(w);
      } else if (w.bytes > smallest_) {
        wanted.push_back({w.begin, w.bytes / 2});
        wanted.push_back({w.begin + w.bytes / 2, w.bytes / 2});
      } else {
        return false;
      }
    }
    for (const step& s : steps) {
      if (s.from != nowhere) unmap(s.from, stream);
      if (s.to != nowhere) map({s.to, s.bytes}, s.from == nowhere ? ready : stream);
      ++(s.from == nowhere ? figures_.created : s.to == nowhere ? figures_.recuts : figures_.moves);
    }
    figures_.held = std::max(figures_.held, held_);
    return true;
  }

  // In the order in which they are moved.
  std::vector<extent> idle_pages(extent block, int stream, bool any_page) const {
    std::vector<std::pair<bytes_t, extent>> found;
    for (const auto& [begin, p] : pages_) {
      const extent e{begin, p.bytes};
      bool may_move = p.uses == 0 && (e.end() <= block.begin || block.end() <= begin);
      auto b = block_at(begin);
      const bytes_t order = design_.victim == "oldest"    ? p.idle_since
                            : design_.victim == "highest" ? ~begin
                            : design_.victim == "largest" ? ~b->bytes()
                                                          : b->bytes();
      for (; may_move && !any_page && b != free_.end() && b->begin < e.end(); ++b)
        may_move = is_usable(*b, stream, false);
      if (may_move) found.emplace_back(order, e);
    }
    std::stable_sort(found.begin(), found.end(), [](auto& a, auto& b) { return a.first < b.first; });
    std::vector<extent> result;
    for (const auto& [order, e] : found) result.push_back(e);
    return result;
  }

  void map(extent place, int owner) {
    carve(place, owner, true);
    pages_[place.begin] = {place.bytes, 0, clock_};
    held_ += place.bytes;
    enter({place.begin, place.end(), owner, owner < 0 ? 0 : events_[owner]});
  }

  void unmap(bytes_t begin, int stream) {
    const extent place{begin, pages_.at(begin).bytes};
    carve(place, stream, false);
    pages_.erase(begin);
    held_ -= place.bytes;
    enter({begin, place.end(), unmapped, 0});
  }

  void take(const request& r, bytes_t begin) {
    live_[r.id] = {begin, r.bytes};
    carve(live_[r.id], r.stream, false);
    for (auto p = page_at(pages_, begin); p != pages_.end() && p->first < begin + r.bytes; ++p) {
      if (p->second.uses++ == 0) touched_ += p->second.bytes;
    }
    figures_.touched = std::max(figures_.touched, touched_);
  }

  void release(extent block, int stream) {
    for (auto p = page_at(pages_, block.begin); p != pages_.end() && p->first < block.end(); ++p) {
      if (--p->second.uses != 0) continue;
      p->second.idle_since = clock_;
      touched_ -= p->second.bytes;
    }
    const int owner = design_.one_range ? stream : static_cast<int>(block.begin / range_bytes);
    if (owner != stream) wait(owner, stream);
    enter({block.begin, block.end(), owner, events_[owner]});
  }

  // Takes addresses out of the free blocks, and waits for the work that is pending there.
  void carve(extent place, int stream, bool is_unmapped) {
    auto b = free_.begin() + (block_at(place.begin) - free_.cbegin());
    for (bytes_t at = place.begin; at < place.end();) {
      if (b == free_.end() || b->begin > at || (b->owner == unmapped) != is_unmapped) {
        throw std::logic_error("addresses are taken that are not free");
      }
      if (stream >= 0 && is_pending(*b, stream)) wait(stream, b->owner);
      const free_block old = *b;
      b = free_.erase(b);
      if (old.begin < at) b = free_.insert(b, {old.begin, at, old.owner, old.freed_at, ++stamps_}) + 1;
      at = std::min(old.end, place.end());
      if (at < old.end) b = free_.insert(b, {at, old.end, old.owner, old.freed_at, ++stamps_});
    }
  }

  void enter(free_block block) {
    const auto joins = [&](const free_block& other) {
      if (other.owner == block.owner) return true;
      return design_.coalesce && block.owner >= 0 && other.owner != unmapped && !is_pending(other, block.owner);
    };
    auto b = free_.begin() + (block_at(block.begin) - free_.cbegin());
    const auto absorb = [&] {
      if (b->owner == block.owner) block.freed_at = std::max(block.freed_at, b->freed_at);
      b = free_.erase(b);
    };
    while (b != free_.end() && b->begin == block.end && joins(*b)) block.end = b->end, absorb();
    while (b != free_.begin() && (b - 1)->end == block.begin && joins(*(b - 1))) block.begin = (--b)->begin, absorb();
    block.stamp = ++stamps_;
    free_.insert(b, block);
  }

  void wait(int stream, int other) {
    ++figures_.waits;
    waited_[stream][other] = events_[other];
  }

  // Makes ready what other streams have freed long enough ago.
  void settle(int stream) {
    if (!design_.one_range) return;
    std::vector<free_block> done;
    const auto is_for_all = [&](const free_block& b) { return b.owner >= 0 && b.owner != stream && is_done(b); };
    std::copy_if(free_.begin(), free_.end(), std::back_inserter(done), is_for_all);
    std::erase_if(free_, is_for_all);
    for (const free_block& b : done) enter({b.begin, b.end, ready, 0});
  }

  bool empty_cache(int stream) {
    const bool had_any = cached_bytes_[stream] != 0;
    for (auto& [bytes, shelf] : caches_[stream]) {
      for (const bytes_t begin : shelf) release({begin, bytes}, stream);
      shelf.clear();
    }
    cached_bytes_[stream] = 0;
    return had_any;
  }

  // The first free block that ends after an address.
  std::vector<free_block>::const_iterator block_at(bytes_t address) const {
    return std::partition_point(free_.begin(), free_.end(), [&](const free_block& b) { return b.end <= address; });
  }

  bytes_t sum_of_pages(extent e, bool only_idle, bool whole) const {
    bytes_t sum = 0;
    for (auto p = page_at(pages_, e.begin); p != pages_.end() && p->first < e.end(); ++p) {
      const bytes_t end = p->first + p->second.bytes;
      if (end <= e.begin || (only_idle && p->second.uses != 0)) continue;
      sum += whole ? p->second.bytes : std::min(end, e.end()) - std::max(p->first, e.begin);
    }
    return sum;
  }
  bytes_t idle_bytes(extent e) const { return sum_of_pages(e, true, true); }
  bytes_t covered(extent e) const { return sum_of_pages(e, false, false); }

  design design_;
  bytes_t smallest_ = 2 * mib, largest_ = 32 * mib;  // pages
  std::vector<free_block> free_;
  std::map<bytes_t, page> pages_;
  std::vector<extent> live_;
  std::vector<std::uint64_t> events_;
  std::vector<std::vector<std::uint64_t>> waited_;  // [stream][other]: waited for the other's events up to this one
  std::vector<std::map<bytes_t, std::vector<bytes_t>>> caches_;
  std::vector<bytes_t> cached_bytes_;
  bytes_t held_ = 0, touched_ = 0, in_use_ = 0, peak_in_use_ = 0;
  std::uint64_t clock_ = 0, stamps_ = 0;
  figures figures_;
};

design parse(const std::string& line) {
  design d;
  using field = std::variant<bool*, bytes_t*, std::int64_t*, double*, std::string*>;
  const std::map<std::string, field> fields{{"one_range", &d.one_range}, {"page", &d.page},
                                            {"near", &d.near},           {"fit", &d.fit},
                                            {"upper", &d.upper},         {"candidates", &d.candidates},
                                            {"touch", &d.touch},         {"coalesce", &d.coalesce},
                                            {"victim", &d.victim},       {"wait_first", &d.wait_first},
                                            {"bound", &d.bound},         {"slack", &d.slack},
                                            {"cache", &d.cache},         {"ready_after", &d.ready_after},
                                            {"limit", &d.limit},         {"cache_near", &d.cache_near},
                                            {"check", &d.check}};
  std::istringstream words(line);
  for (std::string key; words >> std::ws && std::getline(words, key, '=');) {
    const auto found = fields.find(key);
    if (found == fields.end()) throw std::invalid_argument("a design has no " + key);
    std::visit([&](auto* value) { words >> *value; }, found->second);
    if (!words) throw std::invalid_argument("not a value of " + key);
  }
  return d;
}

void replay(const std::vector<event>& trace, std::size_t streams, std::size_t ids, const design& d) {
  pool p(d, streams, ids);
  std::vector<char> is_live(d.check ? ids : 0);
  figures half;
  bool has_completed = true;
  for (std::size_t i = 0; i < trace.size() && has_completed; ++i) {
    const event& e = trace[i];
    const int stream = static_cast<int>(e.stream);
    if (i == trace.size() / 2) half = p.result();
    if (e.bytes < 0)
      p.deallocate(e.id, stream);
    else
      has_completed = p.allocate({e.id, static_cast<bytes_t>(e.bytes), stream});
    if (!d.check || !has_completed) continue;
    is_live[static_cast<std::size_t>(e.id)] = e.bytes >= 0;
    p.check(is_live);
  }
  const figures f = p.result();
  std::cout << "{\"completed\": " << has_completed << ", \"held\": " << f.held << ", \"touched\": " << f.touched
            << ", \"moves\": " << f.moves << ", \"created\": " << f.created << ", \"recuts\": " << f.recuts
            << ", \"waits\": " << f.waits << ", \"mapping\": " << f.mapping
            << ", \"late_moves\": " << f.moves - half.moves << ", \"late_mapping\": " << f.mapping - half.mapping << "}"
            << std::endl;
}

}  // namespace

int main(int count, char** arguments) try {
  if (count != 2) throw std::invalid_argument("page_model TRACE < DESIGNS");
  std::ifstream file(arguments[1], std::ios::binary);
  if (!file) throw std::invalid_argument(std::string("no such file: ") + arguments[1]);
  std::vector<event> trace;
  std::size_t streams = 1, ids = 0;
  for (event e; file.read(reinterpret_cast<char*>(&e), sizeof e); trace.push_back(e)) {
    streams = std::max(streams, static_cast<std::size_t>(e.stream) + 1);
    ids = std::max(ids, static_cast<std::size_t>(e.id) + 1);
  }
  std::cout << std::boolalpha;
  for (std::string line; std::getline(std::cin, line);) replay(trace, streams, ids, parse(line));
} catch (const std::exception& error) {
  std::fprintf(stderr, "page_model: %s\n", error.what());
  return 1;
}
