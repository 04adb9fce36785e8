#include "cenote/ground/error.hpp"

#include <cstdio>
#include <mutex>
#include <set>

#include "cenote/ground/bytes.hpp"
#include "cenote/ground/log.hpp"
#include "cenote/ground/process.hpp"

namespace cenote {
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

}  // namespace

out_of_memory::out_of_memory(const std::string& resource, std::size_t requested, const memory_state& state)
    : requested_(requested), state_(state), text_(out_of_memory_text(resource, requested, state)) {}

cuda_error::cuda_error(const std::string& call, int code, const std::string& name, const std::string& description)
    : std::runtime_error(call + " failed: " + name + " (" + std::to_string(code) + "): " + description),
      call_(call),
      name_(name),
      code_(code) {}

void report_once(const std::string& text) noexcept {
  if (process_is_exiting()) return;
  try {
    // Leaked: it may be needed by the last static destructor of the process.
    static auto* const mutex = new std::mutex;
    static auto* const seen = new std::set<std::string>;
    {
      const std::lock_guard lock(*mutex);
      if (!seen->insert(text).second) return;
    }
    log(log_level::error, text);
  } catch (...) {
    std::fputs("cenote: an error could not be reported for lack of host memory\n", stderr);
  }
}

}  // namespace cenote
