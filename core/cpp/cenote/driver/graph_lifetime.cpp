#include "cenote/driver/graph_lifetime.hpp"

#include <utility>

#include "cenote/driver/driver.hpp"
#include "cenote/driver/stream_scope.hpp"
#include "cenote/ground/error.hpp"

namespace cenote::inline v1 {
namespace {

CUgraph graph_of(CUstream captured) {
  CUstreamCaptureStatus status{};
  CUgraph graph = nullptr;
  CENOTE_DRIVER_CALL(cuStreamGetCaptureInfo, captured, &status, nullptr, &graph, nullptr, nullptr);
  return status == CU_STREAM_CAPTURE_STATUS_ACTIVE ? graph : nullptr;
}

}  // namespace

std::shared_ptr<const graph_lifetime> graph_lifetime::of_capture(
    stream_ref stream, int device, const std::shared_ptr<std::atomic<bool>>& is_any_over) noexcept {
  try {
    const stream_scope scope(stream, device);
    const CUgraph graph = graph_of(stream.value());
    if (graph == nullptr) return nullptr;
    auto lifetime = std::make_shared<graph_lifetime>(is_any_over);
    auto held = std::make_unique<std::shared_ptr<graph_lifetime>>(lifetime);
    CUuserObject object = nullptr;
    CENOTE_DRIVER_CALL(cuUserObjectCreate, &object, held.get(), end, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC);
    held.release();  // end() has it from now on
    const CUresult given = driver().cuGraphRetainUserObject(graph, object, 1, CU_GRAPH_USER_OBJECT_MOVE);
    if (given == CUDA_SUCCESS) return lifetime;
    report_driver_failure("cuGraphRetainUserObject", given, "memory of a graph stays in its pool: ");
    report_driver_failure("cuUserObjectRelease", driver().cuUserObjectRelease(object, 1));
  } catch (const std::exception& error) {
    report_once("memory of a graph stays in its pool: ", error.what());
  }
  return nullptr;
}

void graph_lifetime::end(void* held) noexcept {
  const std::unique_ptr<std::shared_ptr<graph_lifetime>> ended(static_cast<std::shared_ptr<graph_lifetime>*>(held));
  (*ended)->is_over_.store(true, std::memory_order_release);
  (*ended)->is_any_over_->store(true, std::memory_order_release);
}

}  // namespace cenote::inline v1
