#include "cenote/ground/error.hpp"

#include <array>
#include <atomic>
#include <cstdint>

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
