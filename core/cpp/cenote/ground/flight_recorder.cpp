#include "cenote/ground/flight_recorder.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <mutex>
#include <new>
#include <utility>

#include "cenote/ground/bytes.hpp"
#include "cenote/ground/environment.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/hot.hpp"
#include "cenote/ground/immortal.hpp"
#include "cenote/ground/mutex.hpp"
#include "cenote/ground/output_file.hpp"
#include "cenote/ground/process.hpp"

namespace cenote::inline v1::recorder {
namespace {

constexpr int most_devices = 64;
constexpr std::size_t default_bytes = 16 * MiB;
constexpr std::size_t fewest_bytes = 256 * KiB;
constexpr std::size_t most_bytes = 64 * GiB;

constexpr std::array<char, 8> magic = {'c', 'e', 'n', 'o', 't', 'e', 'F', 'R'};
constexpr std::uint32_t layout_version = 1;

struct header {
  std::array<char, 8> magic;
  std::uint32_t version;
  std::uint32_t device;
  std::uint32_t segment_bytes;
  std::uint32_t segment_count;
  std::uint32_t names_offset;
  std::uint32_t segments_offset;
  std::uint32_t clients;  // how many names of each there is room for
  std::uint32_t tags;
  std::uint32_t name_bytes;
  std::uint32_t process;
  std::uint64_t made_ns, made_since_1970_ns;  // the clock of the events, and that of the world, at one moment
  std::uint64_t copied_ns, unused;            // when a copy was made; 0 in the region itself
  std::atomic<std::uint64_t> lost;
  std::atomic<std::uint64_t> next_ticket;
};
static_assert(sizeof(header) == 96 && std::atomic<std::uint64_t>::is_always_lock_free);

using word = std::atomic<std::uint64_t>;

struct record {
  word ns, address, bytes, who;
};

// Where the parts of `who` begin: the stream, the tag, the client, the event, and the use of the segment.
constexpr int tag_bit = 32, client_bit = 42, event_bit = 47, use_bit = 50;
static_assert(most_tags <= 1 << (client_bit - tag_bit) && most_clients <= 1 << (event_bit - client_bit));
static_assert(sizeof(record) == 32);

constexpr std::size_t segment_bytes = 16 * KiB;

struct segment {
  word turn;  // ticket + 1; 0: never used, or just being taken
  word thread;
  word use;  // how often it was taken, in its place of `who`
  std::atomic<std::uint32_t> is_written;
  std::array<std::uint32_t, 9> unused;
  std::array<record, segment_bytes / sizeof(record) - 2> records;
};
static_assert(sizeof(segment) == segment_bytes);

constexpr std::size_t name_bytes = longest_name + 1;
constexpr std::size_t names_bytes = (most_clients + most_tags) * name_bytes;
constexpr std::size_t names_offset = 4 * KiB;
constexpr std::size_t segments_offset = align_up(names_offset + names_bytes, 4 * KiB);

struct region {
  std::byte* memory = nullptr;
  std::size_t segments = 0;
  std::string file;

  header& head() const noexcept { return *reinterpret_cast<header*>(memory); }
  segment& at(std::size_t i) const noexcept {
    return *reinterpret_cast<segment*>(memory + segments_offset + i * segment_bytes);
  }
  char* name(names kind, std::size_t number) const noexcept {
    const std::size_t place = number + (kind == names::tags ? most_clients : 0);
    return reinterpret_cast<char*>(memory + names_offset + place * name_bytes);
  }
};

std::uint64_t ns_of(clockid_t clock) noexcept {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

std::uint64_t coarse_ns() noexcept { return ns_of(CLOCK_MONOTONIC_COARSE); }

/// Where a thread writes on one device.
struct place {
  record* next = nullptr;
  record* end = nullptr;
  std::uint64_t use = 0;
  segment* in = nullptr;
};

struct places {
  std::array<place, most_devices> of_device;
};

// Read at every event: initial-exec spares a call into the loader.
[[gnu::tls_model("initial-exec")]] constinit thread_local places* mine = nullptr;
[[gnu::tls_model("initial-exec")]] constinit thread_local std::uint64_t last_noted_ns = 0;
constinit thread_local bool has_ended = false;

/// Gives the segments of a thread back at its end.
struct thread_end {
  ~thread_end() {
    has_ended = true;  // other destructors of the thread may still free
    places* const left = std::exchange(mine, nullptr);
    if (left == nullptr) return;
    for (const place& each : left->of_device) {
      if (each.in != nullptr) each.in->is_written.store(0, std::memory_order_release);
    }
    delete left;
  }
};

constinit std::atomic<bool> is_recording{true};

struct settings {
  std::size_t bytes = default_bytes;  // 0: off
  std::string file;

  settings() {
    const char* const size = environment_variable("CENOTE_RECORDER");
    if (const char* const name = environment_variable("CENOTE_RECORDER_FILE")) file = name;
    if (size == nullptr) return;
    const std::string_view text = size;
    if (text == "off" || text == "0") {
      bytes = 0;
      is_recording.store(false, std::memory_order_relaxed);
    } else if (const auto parsed = parse_bytes(text); parsed && *parsed >= fewest_bytes && *parsed <= most_bytes) {
      bytes = align_down(*parsed, 4 * KiB);
    } else {
      report_once("CENOTE_RECORDER='", text, "' is neither a size from 256KiB to 64GiB nor 'off': it is 16MiB");
    }
  }
};

class all_regions {
 public:
  const settings chosen;

  region* find(int device) const noexcept {
    return regions_[static_cast<std::size_t>(device)].load(std::memory_order_acquire);
  }

  /// The region of a device, made if there is none; null if none can be had.
  region* get(int device) noexcept {
    if (region* const known = find(device)) return known;
    const std::lock_guard lock(mutex_);
    if (region* const known = find(device)) return known;
    if (is_refused_[static_cast<std::size_t>(device)]) return nullptr;
    auto* const made = new (std::nothrow) region;
    if (made == nullptr || !make(*made, device)) {
      delete made;
      is_refused_[static_cast<std::size_t>(device)] = true;
      return nullptr;
    }
    regions_[static_cast<std::size_t>(device)].store(made, std::memory_order_release);
    return made;
  }

  void name(names kind, std::size_t number, std::string_view text) noexcept {
    const std::lock_guard lock(mutex_);
    write_name(texts(kind, number), text);
    for (const auto& each : regions_) {
      if (const region* const known = each.load(std::memory_order_relaxed)) write_name(known->name(kind, number), text);
    }
  }

  void copy_names(char* to) noexcept {
    const std::lock_guard lock(mutex_);
    std::memcpy(to, texts_.data(), names_bytes);
  }

  /// The header and the names of a region.
  std::string copy_head(const region& of) noexcept(false) {
    std::string made(segments_offset, '\0');
    const std::lock_guard lock(mutex_);
    std::memcpy(made.data(), of.memory, offsetof(header, lost));
    const std::uint64_t lost = of.head().lost.load(std::memory_order_relaxed);
    std::memcpy(made.data() + offsetof(header, lost), &lost, sizeof lost);
    std::memcpy(made.data() + names_offset, of.memory + names_offset, names_bytes);
    return made;
  }

  /// In a forked child: the parent's regions are the parent's.
  void forget() noexcept {
    for (auto& each : regions_) each.store(nullptr, std::memory_order_relaxed);
    is_refused_ = {};
  }

 private:
  char* texts(names kind, std::size_t number) noexcept {
    return texts_.data() + (number + (kind == names::tags ? most_clients : 0)) * name_bytes;
  }

  static void write_name(char* to, std::string_view text) noexcept {
    const std::size_t bytes = std::min(text.size(), longest_name);
    std::memcpy(to, text.data(), bytes);
    to[bytes] = '\0';
  }

  bool make(region& made, int device) noexcept {
    made.segments = (chosen.bytes - std::min(chosen.bytes, segments_offset)) / segment_bytes;
    const std::size_t bytes = segments_offset + made.segments * segment_bytes;
    if (!chosen.file.empty()) map_file(made, bytes, device);
    if (made.memory == nullptr) {
      void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (memory == MAP_FAILED) return false;
      made.memory = static_cast<std::byte*>(memory);
    }
    madvise(made.memory, bytes, MADV_DONTFORK);
    header& head = *new (made.memory) header{};
    head.version = layout_version;
    head.device = static_cast<std::uint32_t>(device);
    head.segment_bytes = segment_bytes;
    head.segment_count = static_cast<std::uint32_t>(made.segments);
    head.names_offset = names_offset;
    head.segments_offset = segments_offset;
    head.clients = most_clients;
    head.tags = most_tags;
    head.name_bytes = name_bytes;
    head.process = static_cast<std::uint32_t>(getpid());
    std::memcpy(made.memory + names_offset, texts_.data(), names_bytes);
    head.made_ns = coarse_ns();
    head.made_since_1970_ns = ns_of(CLOCK_REALTIME);
    head.magic = magic;
    return true;
  }

  /// "run.rec" of device 0 is "run.dev0.rec".
  static std::string with_device(const std::string& path, int device) {
    const auto folder = path.rfind('/');
    auto dot = path.rfind('.');
    if (dot == std::string::npos || dot == 0 || (folder != std::string::npos && dot <= folder + 1)) dot = path.size();
    return path.substr(0, dot) + ".dev" + std::to_string(device) + path.substr(dot);
  }

  void map_file(region& made, std::size_t bytes, int device) noexcept try {
    const std::string named = with_process_number(chosen.file);
    if (named == chosen.file && process_generation() != 0) return;  // it is the parent's
    const std::string path = with_device(named, device);
    const auto refuse = [&](int error) {
      report_once("the recorder's file '", path,
                  "' cannot be used, so its events are in memory alone: ", std::strerror(error));
    };
    const int descriptor = open_for_mapping(path);
    if (descriptor < 0) return refuse(errno);
    struct stat found{};
    int error = 0;
    if (fstat(descriptor, &found) != 0) {
      error = errno;
    } else if (!S_ISREG(found.st_mode) || found.st_uid != geteuid()) {
      error = EPERM;  // a device, or a file that somebody else could cut short under us
    } else if (flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      error = EBUSY;  // another process records there
    } else if (ftruncate(descriptor, 0) != 0) {
      error = errno;
    } else if (const int full = posix_fallocate(descriptor, 0, static_cast<off_t>(bytes)); full != 0) {
      error = full;
      [[maybe_unused]] const int cut = ftruncate(descriptor, 0);
    }
    void* memory = MAP_FAILED;
    if (error == 0) memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (error == 0 && memory == MAP_FAILED) error = errno;
    if (error != 0) {
      close(descriptor);
      return refuse(error);
    }
    made.file = path;
    made.memory = static_cast<std::byte*>(memory);  // the descriptor stays open: it has the lock
  } catch (const std::bad_alloc&) {                 // in memory alone
  }

  std::array<std::atomic<region*>, most_devices> regions_{};
  process_mutex mutex_;                          // guards all below, and the making of regions
  std::array<bool, most_devices> is_refused_{};  // none could be made
  std::array<char, names_bytes> texts_{};
};

all_regions& all() noexcept {
  static immortal<all_regions> the_one;
  return *the_one;
}

void start_life_as_child() noexcept {
  if (mine != nullptr) *mine = {};
  all().forget();
}

[[maybe_unused]] const int watch_forks =
    (all(), pthread_atfork(nullptr, nullptr, start_life_as_child));  // made while there is one thread

/// Takes the oldest segment that nobody writes; null where all are written.
segment* take_segment(const region& from) noexcept {
  header& head = from.head();
  for (std::size_t tries = 0; tries < 2 * from.segments; ++tries) {
    const std::uint64_t ticket = head.next_ticket.fetch_add(1, std::memory_order_relaxed);
    segment& found = from.at(ticket % from.segments);
    std::uint32_t nobody = 0;
    if (!found.is_written.compare_exchange_strong(nobody, 1, std::memory_order_acquire)) continue;
    found.turn.exchange(0, std::memory_order_acq_rel);  // before what is written from here on
    found.thread.store(static_cast<std::uint64_t>(thread_id()), std::memory_order_relaxed);
    found.use.store((ticket / from.segments + 1) << use_bit, std::memory_order_relaxed);
    found.turn.store(ticket + 1, std::memory_order_release);
    return &found;
  }
  return nullptr;
}

/// A place for the next event of the calling thread; null if it is not recorded.
[[gnu::noinline]] place* make_room(int device) noexcept {
  if (device < 0 || device >= most_devices) return nullptr;
  if (all().chosen.bytes == 0 || has_ended || process_is_exiting()) return nullptr;
  const region* const in = all().get(device);
  if (in == nullptr) return nullptr;
  if (mine == nullptr) {
    mine = new (std::nothrow) places;
    if (mine == nullptr) return nullptr;
    static thread_local thread_end at_its_end;
    (void)at_its_end;
  }
  place& here = mine->of_device[static_cast<std::size_t>(device)];
  if (here.in != nullptr) here.in->is_written.store(0, std::memory_order_release);
  here = {};
  here.in = take_segment(*in);
  if (here.in == nullptr) {
    in->head().lost.fetch_add(1, std::memory_order_relaxed);
    return nullptr;
  }
  here.use = here.in->use.load(std::memory_order_relaxed);
  here.next = here.in->records.data();
  here.end = here.next + here.in->records.size();
  return &here;
}

/// How far ahead of a record that is written memory is asked for, two lines of the cache. The region is larger than a
/// processor's own caches, and the next lock waits for what was written before it.
constexpr std::uintptr_t bytes_ahead = 128;

void write(place& here, event what, const void* address, std::size_t bytes, whose by, std::uint64_t at) noexcept {
  record& made = *here.next++;  // each store comes after the segment was taken, for who reads meanwhile
  made.address.store(reinterpret_cast<std::uintptr_t>(address), std::memory_order_release);
  made.bytes.store(bytes, std::memory_order_release);
  const std::uint64_t who = here.use | static_cast<std::uint64_t>(what) << event_bit |
                            std::uint64_t{by.client} << client_bit | std::uint64_t{by.tag} << tag_bit |
                            (by.stream & 0xFFFFFFFF);
  made.ns.store(at, std::memory_order_release);
  last_noted_ns = at;
  made.who.store(who, std::memory_order_release);
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(&made) + bytes_ahead), 1);
}

/// A function of its own, so that the other one has no registers to save.
[[gnu::noinline]] void note_in_new_room(event what, int device, const void* address, std::size_t bytes, whose by,
                                        std::uint64_t at) noexcept {
  if (!is_recording.load(std::memory_order_relaxed)) return;
  if (place* const here = make_room(device)) write(*here, what, address, bytes, by, at);
}

/// Appends the words of a segment as they are now, in loads that none comes before (acquire); false, and nothing is
/// appended, if it has none or was taken anew.
bool append_copy(std::string& to, segment& from) {
  const std::uint64_t turn = from.turn.load(std::memory_order_acquire);
  if (turn == 0) return false;
  const std::size_t before = to.size();
  to.resize(before + segment_bytes);
  char* out = to.data() + before;
  const auto put = [&](std::uint64_t value) {
    std::memcpy(out, &value, sizeof value);
    out += sizeof value;
  };
  for (const word* each : {&from.turn, &from.thread, &from.use}) put(each->load(std::memory_order_acquire));
  for (int i = 0; i < 5; ++i) put(0);
  for (const record& each : from.records) {
    const std::uint64_t who = each.who.load(std::memory_order_acquire);
    for (const word* of : {&each.ns, &each.address, &each.bytes}) put(of->load(std::memory_order_acquire));
    put(who);
  }
  if (from.turn.load(std::memory_order_relaxed) == turn) return true;
  to.resize(before);
  return false;
}

}  // namespace

CENOTE_HOT std::uint64_t now() noexcept {
  if (!is_recording.load(std::memory_order_relaxed)) return 0;
  return std::max(coarse_ns(), last_noted_ns + 1);
}

CENOTE_HOT void note(event what, int device, const void* address, std::size_t bytes, whose by,
                     std::uint64_t at) noexcept {
  if (mine == nullptr || static_cast<unsigned>(device) >= most_devices) [[unlikely]]
    return note_in_new_room(what, device, address, bytes, by, at);
  place& here = mine->of_device[static_cast<std::size_t>(device)];
  if (here.next == here.end || !is_recording.load(std::memory_order_relaxed)) [[unlikely]]
    return note_in_new_room(what, device, address, bytes, by, at);
  write(here, what, address, bytes, by, at);
}

void name(names kind, std::size_t number, std::string_view text) noexcept {
  if (number < (kind == names::tags ? most_tags : most_clients)) all().name(kind, number, text);
}

void copy_names(char* to) noexcept { all().copy_names(to); }

std::string copy(int device) {
  const region* const in = device >= 0 && device < most_devices ? all().find(device) : nullptr;
  if (in == nullptr) return {};
  std::string made = all().copy_head(*in);
  made.reserve(segments_offset + in->segments * segment_bytes);
  std::uint32_t segments = 0;
  for (std::size_t i = 0; i < in->segments; ++i) segments += append_copy(made, in->at(i)) ? 1 : 0;
  const std::uint64_t ns = coarse_ns();
  std::memcpy(made.data() + offsetof(header, segment_count), &segments, sizeof segments);
  std::memcpy(made.data() + offsetof(header, copied_ns), &ns, sizeof ns);
  return made;
}

std::string file_of(int device) {
  const region* const in = device >= 0 && device < most_devices ? all().find(device) : nullptr;
  return in != nullptr ? in->file : std::string();
}

std::size_t bytes_of_a_region() noexcept { return all().chosen.bytes; }

void set_recording(bool on) noexcept { is_recording.store(on && all().chosen.bytes != 0, std::memory_order_relaxed); }

}  // namespace cenote::inline v1::recorder
