#include "cenote/surface/specification.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <map>
#include <optional>
#include <stdexcept>
#include <vector>

#include "cenote/adaptors/aligned_resource_adaptor.hpp"
#include "cenote/adaptors/guard_resource_adaptor.hpp"
#include "cenote/adaptors/limiting_resource_adaptor.hpp"
#include "cenote/adaptors/logging_resource_adaptor.hpp"
#include "cenote/adaptors/prefetch_resource_adaptor.hpp"
#include "cenote/adaptors/statistics_resource_adaptor.hpp"
#include "cenote/adaptors/thread_safe_resource_adaptor.hpp"
#include "cenote/adaptors/tracking_resource_adaptor.hpp"
#include "cenote/driver/device.hpp"
#include "cenote/driver/physical_page.hpp"
#include "cenote/ground/quoted.hpp"
#include "cenote/resources/arena_memory_resource.hpp"
#include "cenote/resources/binning_memory_resource.hpp"
#include "cenote/resources/cuda_async_managed_memory_resource.hpp"
#include "cenote/resources/cuda_async_memory_resource.hpp"
#include "cenote/resources/cuda_memory_resource.hpp"
#include "cenote/resources/fixed_size_memory_resource.hpp"
#include "cenote/resources/managed_memory_resource.hpp"
#include "cenote/resources/pinned_host_memory_resource.hpp"
#include "cenote/resources/pool_memory_resource.hpp"
#include "cenote/resources/sam_headroom_memory_resource.hpp"
#include "cenote/resources/system_memory_resource.hpp"
#include "cenote/resources/virtual_memory_resource.hpp"

namespace cenote::inline v1 {
namespace {

using resource_ptr = std::shared_ptr<memory_resource>;

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

/// For a message: one line, of at most so many bytes of the text.
std::string in_quotes(std::string_view text) {
  constexpr std::size_t most_shown = 80;
  std::size_t shown = std::min(text.size(), most_shown);
  while (shown < text.size() && (static_cast<unsigned char>(text[shown]) & 0xC0) == 0x80) --shown;  // no half letter
  std::string quoted = "'";
  for (const char c : text.substr(0, shown)) {
    if (static_cast<unsigned char>(c) >= 0x20 && c != 0x7F) {
      quoted += c;
    } else {
      constexpr std::string_view digits = "0123456789abcdef";
      quoted += "\\x";
      quoted += digits[static_cast<unsigned char>(c) / 16];
      quoted += digits[static_cast<unsigned char>(c) % 16];
    }
  }
  return quoted + (shown < text.size() ? "…'" : "'");
}

// A value as its parameter reads it; std::invalid_argument for one that it cannot mean.

struct size_value {
  std::size_t bytes = 0;
  std::optional<double> percent;  // of the device's free memory, instead of the bytes
};

/// Digits with a point among them, whatever the locale.
std::optional<double> percentage(std::string_view value) {
  if (value.empty() || value.back() != '%' || value.front() < '0' || value.front() > '9') return std::nullopt;
  double percent = 0;
  const char* const sign = value.data() + value.size() - 1;
  const auto [end, error] = std::from_chars(value.data(), sign, percent, std::chars_format::fixed);
  return error == std::errc{} && end == sign && percent <= 100 ? std::optional(percent) : std::nullopt;
}

size_value read_size(const std::string& name, std::string_view value) {
  if (const auto percent = percentage(value)) return {0, percent};
  if (const auto bytes = parse_bytes(value)) return {*bytes, std::nullopt};
  throw std::invalid_argument(in_quotes(value) + " is no size for '" + name + "': write 4096, 512MiB, 1.5GB or 50%");
}

std::size_t read_number(const std::string& name, std::string_view value) {
  std::size_t number = 0;
  const char* const last = value.data() + value.size();
  const auto [end, error] = std::from_chars(value.data(), last, number);
  if (error == std::errc{} && end == last) return number;
  throw std::invalid_argument(in_quotes(value) + " is no number for '" + name + "': write 0, 12 or 1000");
}

std::chrono::milliseconds read_duration(const std::string& name, std::string_view value) {
  std::int64_t number = 0;
  const char* const last = value.data() + value.size();
  const auto [end, error] = std::from_chars(value.data(), last, number);
  const std::string_view unit(end, static_cast<std::size_t>(last - end));
  constexpr std::int64_t most = std::int64_t{1} << 40;  // milliseconds: 35 years
  if (error == std::errc{} && number > 0 && number <= most && (unit == "s" || unit == "ms")) {
    return std::chrono::milliseconds(unit == "s" ? number * 1000 : number);
  }
  throw std::invalid_argument(in_quotes(value) + " is no time for '" + name + "': write 30s or 500ms");
}

bool read_flag(const std::string& name, std::string_view value) {
  if (value == "false" || value == "0") return false;
  if (value == "true" || value == "1") return true;
  throw std::invalid_argument(in_quotes(value) + " is neither true nor false for '" + name + "'");
}

/// "all", "none", or numbers.
peer_devices read_peers(const std::string& name, std::string_view value) {
  if (value == "all") return {peer_devices::choice::all, {}};
  peer_devices named{peer_devices::choice::named, {}};
  if (value == "none") return named;
  for (const std::string_view part : split_unquoted(value, ',')) {
    int device = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), device);
    if (error != std::errc{} || end != part.data() + part.size()) {
      throw std::invalid_argument(in_quotes(value) + " names no devices for '" + name +
                                  "': write all, none, or numbers such as 0,1");
    }
    named.devices.push_back(device);
  }
  return named;
}

void read_text(const std::string&, std::string_view) {}  // any text will do

/// The parameters of one word, read by the builder of its kind.
class parameters {
 public:
  parameters(int device, std::map<std::string, std::string> values) : device_(device), values_(std::move(values)) {}

  int device() const noexcept { return device_; }

  bool has(const std::string& name) const { return values_.contains(name); }

  std::string text(const std::string& name) const {
    const auto found = values_.find(name);
    return found == values_.end() ? std::string{} : found->second;
  }

  std::optional<std::size_t> size(const std::string& name) const {
    const auto found = values_.find(name);
    if (found == values_.end()) return std::nullopt;
    const size_value size = read_size(name, found->second);
    if (!size.percent) return size.bytes;
    return static_cast<std::size_t>(static_cast<double>(device_memory_info(device_).free_bytes) * *size.percent / 100);
  }

  /// A plain number, without a unit.
  std::optional<std::size_t> number(const std::string& name) const {
    const auto found = values_.find(name);
    return found == values_.end() ? std::nullopt : std::optional(read_number(name, found->second));
  }

  std::optional<std::chrono::milliseconds> duration(const std::string& name) const {
    const auto found = values_.find(name);
    return found == values_.end() ? std::nullopt : std::optional(read_duration(name, found->second));
  }

  peer_devices peers(const std::string& name) const {
    const auto found = values_.find(name);
    return found == values_.end() ? peer_devices{} : read_peers(name, found->second);
  }

  std::optional<bool> given_flag(const std::string& name) const {
    const auto found = values_.find(name);
    return found == values_.end() ? std::nullopt : std::optional(read_flag(name, found->second));
  }
  bool flag(const std::string& name) const { return given_flag(name).value_or(false); }

 private:
  int device_;
  std::map<std::string, std::string> values_;
};

struct parameter {
  std::string name;
  void (*check)(const std::string& name, std::string_view value);
  bool is_list = false;  // of numbers, with the comma that stands between parameters too
};

parameter size(const char* name) {
  return {name, [](const std::string& its, std::string_view value) { read_size(its, value); }};
}
parameter number(const char* name) {
  return {name, [](const std::string& its, std::string_view value) { read_number(its, value); }};
}
parameter flag(const char* name) {
  return {name, [](const std::string& its, std::string_view value) { read_flag(its, value); }};
}
parameter duration(const char* name) {
  return {name, [](const std::string& its, std::string_view value) { read_duration(its, value); }};
}
parameter peers(const char* name) {
  return {name, [](const std::string& its, std::string_view value) { read_peers(its, value); }, true};
}
parameter text(const char* name) { return {name, read_text}; }

struct kind {
  const char* name;
  bool needs_upstream;
  std::vector<parameter> takes;
  resource_ptr (*make)(const parameters&, resource_ptr upstream);
  void (*check)(const parameters&) = [](const parameters&) {};  // throws where what it cannot do without is missing
};

resource_ptr make_async(const parameters& given, resource_ptr) {
  cuda_async_memory_resource::options options;
  options.initial_pool_size = given.size("initial").value_or(options.initial_pool_size);
  options.release_threshold = given.size("release_threshold").value_or(options.release_threshold);
  options.handles = {given.flag("ipc"), given.flag("fabric")};
  options.peers = given.peers("peers");
  return std::make_shared<cuda_async_memory_resource>(given.device(), options);
}

resource_ptr make_virtual(const parameters& given, resource_ptr) {
  return std::make_shared<virtual_memory_resource>(
      given.device(), virtual_memory_resource::options{given.given_flag("ipc"), given.flag("fabric"),
                                                       given.flag("rdma"), given.peers("peers")});
}

/// A pool's sizes are multiples of 256; "7.6GiB" means the nearest one below.
std::optional<std::size_t> pool_size(const parameters& given, const std::string& name) {
  const auto bytes = given.size(name);
  return bytes ? std::optional(align_down(*bytes, default_alignment)) : std::nullopt;
}

resource_ptr make_pool(const parameters& given, resource_ptr upstream) {
  return std::make_shared<pool_memory_resource>(std::move(upstream), pool_size(given, "initial"),
                                                pool_size(given, "max"),
                                                pool_spare{given.flag("tight"), given.duration("idle")});
}

resource_ptr make_arena(const parameters& given, resource_ptr upstream) {
  return std::make_shared<arena_memory_resource>(std::move(upstream), given.size("size"), given.flag("dump"));
}

resource_ptr make_fixed_size(const parameters& given, resource_ptr upstream) {
  return std::make_shared<fixed_size_memory_resource>(
      std::move(upstream), given.size("block_size").value_or(fixed_size_memory_resource::default_block_size),
      given.number("preallocate").value_or(fixed_size_memory_resource::default_blocks_to_preallocate));
}

void check_binning(const parameters& given) {
  if (given.has("min") != given.has("max")) {
    throw std::invalid_argument("'binning' needs both 'min' and 'max', or neither");
  }
}

resource_ptr make_binning(const parameters& given, resource_ptr upstream) {
  const auto least = given.number("min");
  const auto most = given.number("max");
  if (!least || !most) return std::make_shared<binning_memory_resource>(std::move(upstream));
  constexpr std::size_t beyond = 64;  // any exponent from here on is refused alike
  return std::make_shared<binning_memory_resource>(std::move(upstream), static_cast<int>(std::min(*least, beyond)),
                                                   static_cast<int>(std::min(*most, beyond)));
}

void check_sam_headroom(const parameters& given) {
  if (given.has("headroom")) return;
  throw std::invalid_argument("'sam_headroom' needs a value for 'headroom', such as 1GiB");
}

resource_ptr make_sam_headroom(const parameters& given, resource_ptr) {
  return std::make_shared<sam_headroom_memory_resource>(given.device(), given.size("headroom").value());
}

void check_logging(const parameters& given) { logging_resource_adaptor::check_file(given.text("file")); }

resource_ptr make_logging(const parameters& given, resource_ptr upstream) {
  return std::make_shared<logging_resource_adaptor>(std::move(upstream), given.text("file"));
}

resource_ptr make_tracking(const parameters& given, resource_ptr upstream) {
  return std::make_shared<tracking_resource_adaptor>(std::move(upstream), given.flag("capture_stacks"));
}

void check_limiting(const parameters& given) {
  if (!given.has("limit")) throw std::invalid_argument("'limiting' needs a limit: limiting:limit=1GiB");
}

resource_ptr make_limiting(const parameters& given, resource_ptr upstream) {
  return std::make_shared<limiting_resource_adaptor>(std::move(upstream), given.size("limit").value(),
                                                     given.size("alignment").value_or(default_alignment));
}

resource_ptr make_guard(const parameters& given, resource_ptr upstream) {
  return std::make_shared<guard_resource_adaptor>(
      std::move(upstream), given.size("bytes").value_or(guard_resource_adaptor::default_guard_bytes));
}

resource_ptr make_aligned(const parameters& given, resource_ptr upstream) {
  return std::make_shared<aligned_resource_adaptor>(
      std::move(upstream), given.size("alignment").value_or(default_alignment), given.size("threshold").value_or(0));
}

template <class Resource>
resource_ptr make_on_device(const parameters& given, resource_ptr) {
  return std::make_shared<Resource>(given.device());
}

template <class Adaptor>
resource_ptr make_adaptor(const parameters&, resource_ptr upstream) {
  return std::make_shared<Adaptor>(std::move(upstream));
}

const std::vector<kind>& kinds() {
  static const auto* const all = new std::vector<kind>{
      {"cuda", false, {}, make_on_device<cuda_memory_resource>},
      {"managed", false, {}, make_on_device<managed_memory_resource>},
      {"pinned", false, {}, make_on_device<pinned_host_memory_resource>},
      {"async",
       false,
       {size("initial"), size("release_threshold"), flag("ipc"), flag("fabric"), peers("peers")},
       make_async},
      {"async_managed", false, {}, make_on_device<cuda_async_managed_memory_resource>},
      {"virtual", false, {flag("ipc"), flag("fabric"), flag("rdma"), peers("peers")}, make_virtual},
      {"system", false, {}, make_on_device<system_memory_resource>},
      {"sam_headroom", false, {size("headroom")}, make_sam_headroom, check_sam_headroom},
      {"pool", true, {size("initial"), size("max"), flag("tight"), duration("idle")}, make_pool},
      {"arena", true, {size("size"), flag("dump")}, make_arena},
      {"fixed_size", true, {size("block_size"), number("preallocate")}, make_fixed_size},
      {"binning", true, {number("min"), number("max")}, make_binning, check_binning},
      {"statistics", true, {}, make_adaptor<statistics_resource_adaptor>},
      {"logging", true, {text("file")}, make_logging, check_logging},
      {"tracking", true, {flag("capture_stacks")}, make_tracking},
      {"limiting", true, {size("limit"), size("alignment")}, make_limiting, check_limiting},
      {"prefetch", true, {}, make_adaptor<prefetch_resource_adaptor>},
      {"aligned", true, {size("alignment"), size("threshold")}, make_aligned},
      {"guard", true, {size("bytes")}, make_guard},
      {"thread_safe", true, {}, make_adaptor<thread_safe_resource_adaptor>},
  };
  return *all;
}

[[maybe_unused]] const std::vector<kind>& kinds_made_while_there_is_one_thread =
    kinds();  // none waits in a forked child for it to be made

/// The reason why no text can make a resource of this name; null for all other names.
const char* why_not_from_a_text(std::string_view name) {
  for (const auto& [made_by_programs, why] : {
           std::pair{"callback", "it calls functions of the program"},
           std::pair{"failure_callback", "it calls a function of the program"},
           std::pair{"async_view", "it is a view of a pool that the program has made"},
           std::pair{"opened", "it is memory of another process"},
       }) {
    if (name == made_by_programs) return why;
  }
  return nullptr;
}

const kind& find_kind(std::string_view name) {
  std::vector<std::string> known;
  for (const kind& k : kinds()) {
    if (k.name == name) return k;
    known.emplace_back(k.name);
  }
  if (name.empty()) throw std::invalid_argument("a resource is missing; known are: " + joined(known));
  if (const char* const why = why_not_from_a_text(name)) {
    throw std::invalid_argument(in_quotes(name) + " cannot be made from a text, as " + why);
  }
  throw std::invalid_argument(in_quotes(name) + " is not a known resource; known are: " + joined(known));
}

/// "peers=0,1" has two parts: a number goes on with the list that stands before it.
bool goes_on(std::string_view part) { return !part.empty() && part.find_first_not_of("0123456789") == part.npos; }

const parameter& find_parameter(const kind& of, const std::string& name) {
  std::vector<std::string> known;
  for (const parameter& p : of.takes) {
    if (p.name == name) return p;
    known.push_back(p.name);
  }
  if (name == "added" && std::string_view(of.name) == "binning") {
    throw std::invalid_argument("bins that a program has added to 'binning' cannot be made from a text");
  }
  throw std::invalid_argument(in_quotes(name) + " is not a parameter of '" + of.name + "'; " +
                              (known.empty() ? "it has none" : "known are: " + joined(known)));
}

parameters read_parameters(const kind& of, std::string_view text, int device) {
  std::map<std::string, std::string> values;
  std::string* list = nullptr;
  for (const std::string_view part : split_unquoted(text, ',')) {
    if (list != nullptr && goes_on(part)) {
      list->append(",").append(part);
      continue;
    }
    const auto equals = part.find('=');
    const std::string name(without_blanks(part.substr(0, equals)));
    const parameter& known = find_parameter(of, name);
    const auto value = equals == std::string_view::npos ? std::string_view{} : without_blanks(part.substr(equals + 1));
    if (value.empty()) {
      throw std::invalid_argument(in_quotes(name) + " of '" + of.name + "' needs a value: " + name + "=…");
    }
    const auto [place, is_new] = values.emplace(name, unquoted(value));
    if (!is_new) throw std::invalid_argument(in_quotes(name) + " of '" + of.name + "' is given twice");
    list = known.is_list ? &place->second : nullptr;
  }
  for (const auto& [name, value] : values) find_parameter(of, name).check(name, value);
  return {device, std::move(values)};
}

struct parsed_word {
  const kind* of;
  parameters given;
};

parsed_word parse_word(std::string_view word, int device) {
  const auto colon = word.find(':');
  const kind& of = find_kind(without_blanks(word.substr(0, colon)));
  if (colon == std::string_view::npos) return {&of, {device, {}}};
  return {&of, read_parameters(of, word.substr(colon + 1), device)};
}

/// The words, outermost first, all of them right; what only a device can say of them is found out when they are made.
std::vector<parsed_word> parse(std::string_view specification, int device) {
  const auto words = split_unquoted(specification, '|');
  if (words.size() > memory_resource::max_depth) {
    throw std::invalid_argument("a specification of " + std::to_string(words.size()) + " words: at most " +
                                std::to_string(memory_resource::max_depth) + " resources can stand on each other");
  }
  std::vector<parsed_word> chain;
  for (const std::string_view word : words) chain.push_back(parse_word(word, device));
  for (const parsed_word& word : chain) word.of->check(word.given);
  for (std::size_t i = 0; i + 1 < chain.size(); ++i) {
    if (chain[i].of->needs_upstream) continue;
    throw std::invalid_argument(in_quotes(chain[i].of->name) +
                                " takes its memory from the driver: nothing can stand under it");
  }
  return chain;
}

/// The source that a chain stands on which names none: pages for a pool, plain device memory for all others.
const char* unnamed_source(const kind& innermost, bool has_pages) {
  return innermost.make == make_pool && has_pages ? "virtual" : "cuda";
}

}  // namespace

void check_specification(std::string_view specification) { parse(specification, 0); }

resource_ptr make_resource(std::string_view specification, int device) {
  check_device(device);
  std::vector<parsed_word> chain = parse(specification, device);
  if (const kind& innermost = *chain.back().of; innermost.needs_upstream) {
    chain.push_back(parse_word(unnamed_source(innermost, has_virtual_memory(device)), device));
  }
  resource_ptr resource;
  for (auto word = chain.rbegin(); word != chain.rend(); ++word) {
    resource = word->of->make(word->given, std::move(resource));
  }
  return resource;
}

std::vector<std::string> specification_words(std::string_view specification, std::optional<int> device) {
  const kind& innermost = *parse(specification, 0).back().of;
  std::vector<std::string> words;
  for (const std::string_view word : split_unquoted(specification, '|')) words.emplace_back(word);
  if (innermost.needs_upstream) words.emplace_back(unnamed_source(innermost, !device || has_virtual_memory(*device)));
  return words;
}

std::string known_specifications() {
  std::string text;
  for (const kind& k : kinds()) {
    text += k.name;
    char separator = ':';
    for (const parameter& p : k.takes) {
      text += separator + p.name + "=…";
      separator = ',';
    }
    text += '\n';
  }
  return text;
}

}  // namespace cenote::inline v1
