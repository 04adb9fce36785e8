// Which card may use the memory of another one.
//
// 1. cuDeviceCanAccessPeer: whether it could at all (ground/settings.hpp). All cards of one machine can, or none.
// 2. cuCtxEnablePeerAccess opens the memory that a context takes with cuMemAlloc to the context that is current. It
//    does not open memory of pools; that is cuMemPoolSetAccess (pool/pool.hpp).
//
// Copies between plain memory of two cards need neither: where the cards do not reach each other, the driver goes by
// the host.
//
// Source: CUDA driver API, section Peer Context Memory Access; the refusals of 2 are those that it names.
#include "sim/device/context.hpp"
#include "sim/device/device.hpp"
#include "sim/entry/call.hpp"

using namespace cenote::sim;

extern "C" {

CUresult cuDeviceCanAccessPeer(int* can, CUdevice ordinal, CUdevice peer) {
  return call(entry_id::cuDeviceCanAccessPeer, [&] {
    require(can != nullptr);
    *can = reaches(device(ordinal), device(peer));
  });
}

CUresult cuCtxEnablePeerAccess(CUcontext handle, unsigned int flags) {
  return call(entry_id::cuCtxEnablePeerAccess, [&] {
    require(flags == 0);
    primary_context& peer = context_of(handle);
    primary_context& here = current_context();
    require(&peer != &here && peer.retained > 0, CUDA_ERROR_INVALID_CONTEXT);
    require(reaches(here.device, peer.device), CUDA_ERROR_PEER_ACCESS_UNSUPPORTED);
    require(here.open_peers.insert(&peer).second, CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED);
  });
}

CUresult cuCtxDisablePeerAccess(CUcontext handle) {
  return call(entry_id::cuCtxDisablePeerAccess, [&] {
    const primary_context& peer = context_of(handle);
    require(current_context().open_peers.erase(&peer) == 1, CUDA_ERROR_PEER_ACCESS_NOT_ENABLED);
  });
}

}  // extern "C"
