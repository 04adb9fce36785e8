#include "cenote/driver/driver.hpp"

#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <mutex>
#include <new>
#include <optional>

#include "cenote/driver/device.hpp"
#include "cenote/driver/driver_info.hpp"
#include "cenote/driver/peer_access.hpp"
#include "cenote/driver/pinned_chunks.hpp"
#include "cenote/ground/environment.hpp"
#include "cenote/ground/error.hpp"
#include "cenote/ground/process.hpp"

namespace cenote::inline v1 {
namespace {

constexpr int oldest_driver = 12000;  // cuStreamGetId came with it
constexpr const char* driver_variable = "CENOTE_CUDA_DRIVER";

struct loaded_driver {
  driver_table table;
  std::string library;
};

/// The outcome of the one attempt to load: a table, or the reason why there is none. Leaked, as frees may come late.
struct load_outcome {
  std::optional<loaded_driver> loaded;
  std::string failure;
};

std::atomic<const load_outcome*> outcome{nullptr};

std::string library_name() {
  const char* const named = environment_variable(driver_variable);
  if (named == nullptr) return "libcuda.so.1";
  if (std::string_view(named) != "sim") return named;
  Dl_info self{};
  dladdr(reinterpret_cast<const void*>(&library_name), &self);
  return (std::filesystem::path(self.dli_fname).parent_path() / "libcenote_sim.so").string();
}

bool is_simulator(const std::string& library) {
  return std::filesystem::path(library).filename() == "libcenote_sim.so";
}

/// Says what to do, too: whoever has the simulated driver already is not told to take it.
[[noreturn]] void unavailable(const std::string& library, const std::string& why) {
  throw driver_unavailable(why + (is_simulator(library)
                                      ? " This driver is the simulated one, which CENOTE_SIM describes."
                                      : " To run without a GPU, set CENOTE_CUDA_DRIVER=sim: a simulated device takes "
                                        "its place (CENOTE_SIM sizes it)."));
}

/// "CUDA_ERROR_INVALID_VALUE: invalid value": of a call before there is a table of entry points that throws.
std::string text_of(const driver_table& table, CUresult result) {
  const char* name = nullptr;
  const char* text = nullptr;
  table.cuGetErrorName(result, &name);
  table.cuGetErrorString(result, &text);
  return std::string(name != nullptr ? name : "unknown error") + (text != nullptr ? ": " + std::string(text) : "");
}

/// Takes entry points from one loaded library.
class entry_point_source {
 public:
  explicit entry_point_source(void* library)
      : get_(reinterpret_cast<PFN_cuGetProcAddress_v12000>(dlsym(library, "cuGetProcAddress_v2"))) {}

  bool usable() const { return get_ != nullptr; }

  void* find(const char* name, int version) const {
    void* address = nullptr;
    CUdriverProcAddressQueryResult status{};
    const CUresult result = get_(name, &address, version, CU_GET_PROC_ADDRESS_LEGACY_STREAM, &status);
    return result == CUDA_SUCCESS && status == CU_GET_PROC_ADDRESS_SUCCESS ? address : nullptr;
  }

 private:
  PFN_cuGetProcAddress_v12000 get_;
};

driver_table fill_table(const entry_point_source& source, const std::string& library) {
  driver_table table;
#define CENOTE_DRIVER_REQUIRED(name, version)                                                                      \
  table.name = reinterpret_cast<PFN_##name##_v##version>(source.find(#name, version));                             \
  if (table.name == nullptr) {                                                                                     \
    unavailable(library, "the CUDA driver '" + library + "' lacks " #name ": cenote needs driver 12.0 or newer."); \
  }
#define CENOTE_DRIVER_OPTIONAL(name, version) \
  table.name = reinterpret_cast<PFN_##name##_v##version>(source.find(#name, version));
#include "cenote/driver/entry_points.hpp"
#undef CENOTE_DRIVER_REQUIRED
#undef CENOTE_DRIVER_OPTIONAL
  return table;
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

/// The driver's own variable, which may hide all devices, or name one twice.
std::string visible_devices_text() {
  const char* const text = environment_text("CUDA_VISIBLE_DEVICES");
  return text == nullptr ? "" : " CUDA_VISIBLE_DEVICES is '" + std::string(text) + "'.";
}

loaded_driver load() {
  const std::string name = library_name();
  void* const library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const why = dlerror();
    const char* const named = environment_variable(driver_variable);
    const bool by_variable = named != nullptr;
    unavailable(name, (by_variable ? std::string(driver_variable) + " is '" + named + "', which" : "the CUDA driver") +
                          " could not be loaded (" + why + "): is an NVIDIA driver installed?" +
                          (by_variable ? " The variable names its library, and need not be set." : ""));
  }
  const entry_point_source source(library);
  if (!source.usable()) {
    unavailable(name, "'" + name + "' is no CUDA driver of 12.0 or newer: it has no cuGetProcAddress_v2.");
  }
  const auto init = reinterpret_cast<PFN_cuInit_v2000>(source.find("cuInit", 2000));
  const auto get_version = reinterpret_cast<PFN_cuDriverGetVersion_v2020>(source.find("cuDriverGetVersion", 2020));
  if (init == nullptr || get_version == nullptr)
    unavailable(name, "'" + name + "' is no CUDA driver: it lacks cuInit.");

  int version = 0;
  if (get_version(&version) == CUDA_SUCCESS && version < oldest_driver) {
    unavailable(name, "the CUDA driver is of version " + version_text(version) + "; cenote needs " +
                          version_text(oldest_driver) + " or newer.");
  }
  driver_use_begins();
  const CUresult result = init(0);
  if (result == CUDA_ERROR_NO_DEVICE) {
    unavailable(name, "the CUDA driver finds no device (cuInit: CUDA_ERROR_NO_DEVICE)." + visible_devices_text());
  }
  loaded_driver loaded{fill_table(source, name), name};
  if (result != CUDA_SUCCESS) {
    unavailable(name, "the CUDA driver could not be initialised (cuInit: " + text_of(loaded.table, result) + ")." +
                          (result == CUDA_ERROR_INVALID_DEVICE ? visible_devices_text() : ""));
  }
  watch_exit();
  return loaded;
}

/// A forked child gets a new one: the thread that loads, which may fork itself in doing so, is not there.
constinit std::mutex loading;
[[maybe_unused]] const int renew_in_child = pthread_atfork(nullptr, nullptr, [] { new (&loading) std::mutex; });

const load_outcome& load_once() {
  const std::lock_guard lock(loading);
  if (const load_outcome* known = outcome.load(std::memory_order_acquire)) return *known;
  auto fresh = std::make_unique<load_outcome>();
  try {
    fresh->loaded = load();
  } catch (const driver_unavailable& error) {
    fresh->failure = error.what();
  }
  outcome.store(fresh.get(), std::memory_order_release);
  return *fresh.release();
}

const loaded_driver& loaded() {
  const load_outcome* known = outcome.load(std::memory_order_acquire);
  if (process_is_forked_child() && (known == nullptr || known->loaded)) refuse_in_forked_child();
  if (known == nullptr) known = &load_once();
  if (!known->loaded) throw driver_unavailable(known->failure);
  return *known->loaded;
}

struct error_words {
  const char* name = "unknown error";
  const char* text = "no description";
};

/// The driver's own, for an answer that it has given.
error_words words_of(CUresult result) noexcept {
  error_words words;
  const load_outcome* const known = outcome.load(std::memory_order_acquire);
  if (known == nullptr || !known->loaded || process_is_forked_child()) return words;
  const driver_table& table = known->loaded->table;
  if (table.cuGetErrorName(result, &words.name) != CUDA_SUCCESS) words.name = error_words{}.name;
  if (table.cuGetErrorString(result, &words.text) != CUDA_SUCCESS) words.text = error_words{}.text;
  if (result == CUDA_ERROR_INVALID_HANDLE) {  // which nearly always is a stream that ended before its memory did
    words.text = "invalid handle: the stream, event or pool was destroyed before, or never was one";
  }
  return words;
}

}  // namespace

const driver_table& driver() { return loaded().table; }

bool driver_is_loaded() noexcept {
  const load_outcome* known = outcome.load(std::memory_order_acquire);
  return known != nullptr && known->loaded.has_value();
}

std::string driver_library() { return loaded().library; }

int driver_version() {
  int version = 0;
  CENOTE_DRIVER_CALL(cuDriverGetVersion, &version);
  return version;
}

int usable_cuda_version() { return std::min(driver_version(), CUDA_VERSION); }

void forget_driver() {
  if (driver_is_loaded() && !driver_is_simulated()) {
    throw std::logic_error("the CUDA driver '" + driver_library() + "' is in use in this process and stays so");
  }
  outcome.store(nullptr, std::memory_order_release);  // the old one is leaked: a caller may still hold its table
  forget_primary_contexts();
  forget_devices_in_use();
  pinned_chunks::get().forget();
}

bool driver_is_simulated() { return is_simulator(driver_library()); }

void report_driver_failure(const char* call, CUresult result, const char* what_of_it) noexcept {
  if (result == CUDA_SUCCESS) return;
  const error_words words = words_of(result);
  report_once(what_of_it, call, " failed: ", words.name, " (", static_cast<int>(result), "): ", words.text);
}

void throw_cuda_error(const char* call, CUresult result) {
  const error_words words = words_of(result);
  throw cuda_error(call, result, words.name, words.text);
}

void check_driver_beside_captures(const char* call, CUresult result) {
  if (result != CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED) return check_driver(call, result);
  throw cuda_error(call, result, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
                   "it has ended a capture that nobody announced: call cenote_capture_begin and cenote_capture_end "
                   "around it");
}

}  // namespace cenote::inline v1
