#include "cenote/ground/error.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <utility>

#include "cenote/ground/bytes.hpp"
#include "cenote/ground/log.hpp"
#include "cenote/ground/process.hpp"
#include "cenote/ground/reports.hpp"

namespace cenote::inline v1 {
namespace {

void append(std::string& text, const char* label, const std::optional<std::size_t>& bytes) {
  if (bytes) text += (text.empty() ? "" : ", ") + std::string(label) + " " + format_bytes(*bytes);
}

std::string out_of_memory_text(const std::string& resource, std::size_t requested, const memory_state& state) {
  std::string figures;
  append(figures, "in use", state.in_use);
  append(figures, "held", state.held);
  append(figures, "limit", state.limit);
  append(figures, "largest free block", state.largest_free);
  append(figures, "free on the device", state.device_free);
  append(figures, "device total", state.device_total);
  return "out_of_memory: " + format_bytes(requested) + " (" + std::to_string(requested) + " bytes) requested from '" +
         resource + "'" + (figures.empty() ? "" : ": " + figures);
}

void append_holders(std::string& text, const char* heading, memory_holder::kind kind, const char* nameless,
                    const shortage& known) {
  constexpr std::size_t most = 5;
  std::size_t told = 0, left_out = 0, bytes_left_out = 0;
  std::string line;
  for (const memory_holder& each : known.holders) {
    if (each.of != kind) continue;
    if (told == most) {
      ++left_out;
      bytes_left_out += each.bytes;
      continue;
    }
    ++told;
    line += (line.empty() ? "" : ", ") + (each.name.empty() ? std::string(nameless) : each.name) + " " +
            format_bytes(each.bytes) + " in " + std::to_string(each.blocks) + (each.blocks == 1 ? " block" : " blocks");
  }
  if (left_out != 0) line += ", " + std::to_string(left_out) + " others " + format_bytes(bytes_left_out);
  if (!line.empty()) text += "\n  " + std::string(heading) + ": " + line;
}

std::string text_of_step(const relief_step& step) {
  if (!step.why_not.empty()) return step.name + " (" + step.why_not + ")";
  if (!step.freed_bytes) return step.name;
  return step.name + " (" + (*step.freed_bytes == 0 ? "nothing" : format_bytes(*step.freed_bytes)) + " freed)";
}

/// The lines below the first one; empty where nothing is known.
std::string shortage_text(std::size_t requested, const shortage& known) {
  std::string text;
  if (known.device) {
    text += "\n  device " + std::to_string(*known.device);
    if (known.stream) text += ", stream " + std::to_string(*known.stream);
    if (known.rounded != requested) text += ", " + std::to_string(known.rounded) + " bytes when rounded";
    if (known.alignment != 0) text += ", at a multiple of " + format_bytes(known.alignment);
  }
  if (!known.limited_by.empty()) text += "\n  the limit is " + known.limited_by;
  append_holders(text, "held by client", memory_holder::kind::client, "", known);
  append_holders(text, "held by tag", memory_holder::kind::tag, "(no tag)", known);
  append_holders(text, "held by call site", memory_holder::kind::site, "(not sampled)", known);
  std::string steps;
  for (const relief_step& each : known.steps) steps += (steps.empty() ? "" : ", ") + text_of_step(each);
  if (!steps.empty()) text += "\n  tried: " + steps;
  return text;
}

// The texts that were reported, by their hashes: each lies in one of a few places from that of its hash on.
constexpr std::size_t reported_places = 4096;
constexpr std::size_t places_of_a_text = 16;
constinit std::array<std::atomic<std::uint64_t>, reported_places> reported{};  // 0: vacant

/// FNV-1a.
std::uint64_t hash_of(std::initializer_list<text_part> parts) noexcept {
  std::uint64_t hash = 0xCBF29CE484222325;
  for (const text_part& part : parts) {
    for (const char c : part.text()) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  }
  return hash != 0 ? hash : 1;
}

/// False if it was there. Takes no lock, as a forked child reports too; where all of its places are taken, the first
/// text is forgotten.
bool remember_report(std::uint64_t hash) noexcept {
  for (std::size_t i = 0; i < places_of_a_text; ++i) {
    std::uint64_t found = 0;
    if (reported[(hash + i) % reported_places].compare_exchange_strong(found, hash, std::memory_order_relaxed))
      return true;
    if (found == hash) return false;
  }
  reported[hash % reported_places].store(hash, std::memory_order_relaxed);
  return true;
}

}  // namespace

out_of_memory::out_of_memory(const std::string& resource, std::size_t requested, const memory_state& state)
    : requested_(requested), state_(state), text_(out_of_memory_text(resource, requested, state)) {}

out_of_memory::out_of_memory(std::size_t requested, const memory_state& state, shortage known)
    : requested_(requested),
      state_(state),
      known_(std::move(known)),
      text_(out_of_memory_text(known_.resource, requested, state) + shortage_text(requested, known_)) {}

cuda_error::cuda_error(const std::string& call, int code, const std::string& name, const std::string& description)
    : std::runtime_error(call + " failed: " + name + " (" + std::to_string(code) + "): " + description),
      call_(call),
      name_(name),
      code_(code) {}

void report_text_once(std::initializer_list<text_part> parts) noexcept {
  if (process_is_exiting()) return;
  note_report(parts);
  if (remember_report(hash_of(parts))) log_text(log_level::error, parts);
}

}  // namespace cenote::inline v1
