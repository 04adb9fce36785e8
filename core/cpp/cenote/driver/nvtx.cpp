#include "cenote/driver/nvtx.hpp"

#include <cstdio>
#include <string_view>

#include "cenote/ground/environment.hpp"
#include "cenote/ground/error.hpp"

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define CENOTE_HAS_NVTX 1
#endif

namespace cenote::inline v1::nvtx {
namespace {

bool is_asked_for() noexcept {
  const char* const value = environment_variable("CENOTE_NVTX");
  if (value == nullptr || std::string_view(value) == "0") return false;
  if (std::string_view(value) == "1") return true;
  std::fprintf(stderr, "cenote: CENOTE_NVTX is '%s' and has no effect: it must be 1 or 0\n", value);
  return false;
}

/// What the calling thread is in the midst of.
struct progress {
  int calls = 0;         // of allocate and deallocate, and of trims
  int cutting = 0;       // of those, of resources that cut
  bool has_cut = false;  // since the outermost one began
  int trims = 0;
};

thread_local progress here;

}  // namespace

std::atomic<bool> switched_on{is_asked_for()};

#ifdef CENOTE_HAS_NVTX

namespace {

nvtxDomainHandle_t domain() noexcept {
  static const nvtxDomainHandle_t made = nvtxDomainCreateA("cenote");
  return made;
}

nvtxEventAttributes_t attributes(const char* what, std::size_t bytes) noexcept {
  nvtxEventAttributes_t event{};
  event.version = NVTX_VERSION;
  event.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
  event.payloadType = NVTX_PAYLOAD_TYPE_UNSIGNED_INT64;
  event.payload.ullValue = bytes;
  event.messageType = NVTX_MESSAGE_TYPE_ASCII;
  event.message.ascii = what;
  return event;
}

void push(const char* what, std::size_t bytes) noexcept {
  const nvtxEventAttributes_t event = attributes(what, bytes);
  nvtxDomainRangePushEx(domain(), &event);
}

void pop() noexcept { nvtxDomainRangePop(domain()); }

}  // namespace

void mark(const char* what, std::size_t bytes) noexcept {
  if (!is_on()) return;
  const nvtxEventAttributes_t event = attributes(what, bytes);
  nvtxDomainMarkEx(domain(), &event);
}

#else

namespace {

void push(const char*, std::size_t) noexcept {
  switched_on = false;
  report_once(
      "CENOTE_NVTX is set, but this cenote was built without NVTX's headers: no tool is told anything. To have them, "
      "install nvidia-nvtx or a CUDA toolkit, and build cenote again");
}

void pop() noexcept {}

}  // namespace

void mark(const char*, std::size_t) noexcept {}

#endif

trim_range::trim_range(std::size_t bytes) noexcept : counted_(is_on()) {
  if (!counted_) return;
  is_said_ = here.trims++ == 0;
  ++here.calls;
  if (is_said_) push("trim", bytes);
}

trim_range::~trim_range() {
  if (!counted_) return;
  if (is_said_) pop();
  --here.calls;
  --here.trims;
}

call::call(verb what, role of, std::size_t bytes) noexcept : role_(of), is_outermost_(here.calls == 0) {
  const bool grows = what == verb::allocate && of == role::asks_the_driver && here.cutting != 0;
  is_said_ = is_outermost_ || grows;
  if (is_outermost_) here.has_cut = false;
  ++here.calls;
  if (of == role::cuts) {
    ++here.cutting;
    here.has_cut = true;
  }
  if (is_said_) push(!is_outermost_ ? "grow" : what == verb::allocate ? "allocate" : "deallocate", bytes);
}

call::~call() {
  if (is_said_) pop();
  if (role_ == role::cuts) --here.cutting;
  --here.calls;
}

bool call::is_of_a_part() const noexcept { return is_outermost_ && here.has_cut; }

}  // namespace cenote::inline v1::nvtx
