#include "device.hpp"

#include <dlfcn.h>

#include <cstdlib>
#include <stdexcept>

namespace bench {
namespace {

constexpr const char* spin_ptx = R"(
.version 7.0
.target sm_75
.address_size 64
.visible .entry spin(.param .u64 spin_address, .param .u64 spin_nanoseconds)
{
  .reg .pred %p;
  .reg .u64 %rd<6>;
  ld.param.u64 %rd0, [spin_address];
  ld.param.u64 %rd1, [spin_nanoseconds];
  cvta.to.global.u64 %rd2, %rd0;
  mov.u64 %rd3, %globaltimer;
$again:
  mov.u64 %rd4, %globaltimer;
  sub.u64 %rd5, %rd4, %rd3;
  setp.lt.u64 %p, %rd5, %rd1;
  @%p bra $again;
  st.global.u64 [%rd2], %rd5;
  ret;
}
)";

std::string library_name() {
  const char* chosen = std::getenv("CENOTE_CUDA_DRIVER");
  if (chosen == nullptr || *chosen == '\0') return "libcuda.so.1";
  if (std::string(chosen) != "sim") return chosen;
  const char* simulated = std::getenv("BENCH_SIM_LIBRARY");
  return simulated ? simulated : "libcenote_sim.so";
}

#define BENCH_TEXT(name) #name
#define BENCH_SPELLED(name) BENCH_TEXT(name)  // cuda.h renames some calls: cuStreamDestroy is cuStreamDestroy_v2

driver_table load() {
  const std::string name = library_name();
  void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw std::runtime_error("no driver: " + std::string(dlerror()));
  driver_table table{};
  table.library = library;
#define BENCH_DRIVER_CALL(name) table.name = reinterpret_cast<decltype(&::name)>(dlsym(library, BENCH_SPELLED(name)));
#include "driver_calls.inc"
#undef BENCH_DRIVER_CALL
  return table;
}

}  // namespace

void check(CUresult result, const char* call) {
  if (result != CUDA_SUCCESS) throw std::runtime_error(std::string(call) + " failed: " + std::to_string(result));
}

const driver_table& driver() {
  static const driver_table table = load();
  static const CUcontext context = [] {
    check(table.cuInit(0), "cuInit");
    CUdevice device = 0;
    check(table.cuDeviceGet(&device, 0), "cuDeviceGet");
    CUcontext primary = nullptr;
    check(table.cuDevicePrimaryCtxRetain(&primary, device), "cuDevicePrimaryCtxRetain");
    return primary;
  }();
  thread_local const bool is_current = [] {
    check(table.cuCtxSetCurrent(context), "cuCtxSetCurrent");
    return true;
  }();
  static_cast<void>(is_current);
  return table;
}

bool is_simulated() { return dlsym(driver().library, "cenote_sim_calls") != nullptr; }

std::string device_name() {
  char name[256] = "";
  check(driver().cuDeviceGetName(name, sizeof name, 0), "cuDeviceGetName");
  return name;
}

std::optional<double> calls_so_far() {
  using counting = long long (*)(const char*);
  static const auto count = reinterpret_cast<counting>(dlsym(driver().library, "cenote_sim_calls"));
  if (count == nullptr) return std::nullopt;
  return static_cast<double>(count(nullptr));
}

std::size_t free_bytes() {
  std::size_t free = 0, total = 0;
  check(driver().cuMemGetInfo(&free, &total), "cuMemGetInfo");
  return free;
}

void finish_all_work() { check(driver().cuCtxSynchronize(), "cuCtxSynchronize"); }

foreign_stream::foreign_stream() { check(driver().cuStreamCreate(&handle_, CU_STREAM_NON_BLOCKING), "cuStreamCreate"); }

foreign_stream::~foreign_stream() { driver().cuStreamDestroy(handle_); }

event::event() { check(driver().cuEventCreate(&handle_, CU_EVENT_DISABLE_TIMING), "cuEventCreate"); }

event::~event() { driver().cuEventDestroy(handle_); }

spin_kernel::spin_kernel() {
  if (is_simulated()) throw std::runtime_error("needs a GPU: the simulated device runs no kernels");
  check(driver().cuModuleLoadData(&module_, spin_ptx), "cuModuleLoadData");
  check(driver().cuModuleGetFunction(&function_, module_, "spin"), "cuModuleGetFunction");
}

spin_kernel::~spin_kernel() { driver().cuModuleUnload(module_); }

void spin_kernel::launch(CUstream stream, void* target, std::size_t nanoseconds) const {
  void* arguments[] = {&target, &nanoseconds};
  check(driver().cuLaunchKernel(function_, 1, 1, 1, 1, 1, 1, 0, stream, arguments, nullptr), "cuLaunchKernel");
}

}  // namespace bench
