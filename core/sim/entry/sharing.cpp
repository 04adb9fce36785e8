// Memory and events that other processes use: pages and pools by file descriptors, blocks of a pool and events by
// handles.
//
// A descriptor is the file of a physical piece (device/physical_piece.hpp), which is mapped as any other once it was
// imported. A device would take one of them anywhere; here it must be of a card that the process sees.
//
// Source: CUDA driver API, sections Virtual Memory Management and Event Management.
#include <cstddef>
#include <cstdint>
#include <memory>

#include "sim/device/context.hpp"
#include "sim/device/physical_piece.hpp"
#include "sim/entry/call.hpp"
#include "sim/ground/handles.hpp"
#include "sim/memory/backing_file.hpp"
#include "sim/memory/block.hpp"
#include "sim/pool/pool.hpp"
#include "sim/pool/pool_file.hpp"
#include "sim/pool/pool_place.hpp"
#include "sim/stream/event.hpp"
#include "sim/stream/shared_event.hpp"

using namespace cenote::sim;

extern "C" {

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle* handle, void* address) {
  return call(entry_id::cuMemRetainAllocationHandle, [&] {
    require(handle != nullptr);
    const auto block = live_blocks().find(reinterpret_cast<std::uintptr_t>(address));
    require(block != nullptr && block->kind == block_kind::mapped);
    *handle = live_pieces().insert(block->physical);
  });
}

CUresult cuMemExportToShareableHandle(void* shareable, CUmemGenericAllocationHandle handle,
                                      CUmemAllocationHandleType type, unsigned long long flags) {
  return call(entry_id::cuMemExportToShareableHandle, [&] {
    require(shareable != nullptr && flags == 0 && type == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    const auto physical = find_live(live_pieces(), handle, CUDA_ERROR_INVALID_VALUE);
    *static_cast<int*>(shareable) = physical->export_file();
  });
}

CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle* handle, void* shareable,
                                        CUmemAllocationHandleType type) {
  return call(entry_id::cuMemImportFromShareableHandle, [&] {
    require(handle != nullptr && type == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    const auto descriptor = static_cast<int>(reinterpret_cast<std::intptr_t>(shareable));
    *handle = live_pieces().insert(physical_piece::import(descriptor));
  });
}

CUresult cuMemPoolExportToShareableHandle(void* shareable, CUmemoryPool pool, CUmemAllocationHandleType type,
                                          unsigned long long flags) {
  return call(entry_id::cuMemPoolExportToShareableHandle, [&] {
    require(shareable != nullptr && flags == 0 && type == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    *static_cast<int*>(shareable) = pool_of(pool)->export_pool();
  });
}

CUresult cuMemPoolImportFromShareableHandle(CUmemoryPool* pool, void* shareable, CUmemAllocationHandleType type,
                                            unsigned long long flags) {
  return call(entry_id::cuMemPoolImportFromShareableHandle, [&] {
    require(pool != nullptr && flags == 0 && type == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    const auto file = pool_file::open(static_cast<int>(reinterpret_cast<std::intptr_t>(shareable)));
    *pool = live_pools().insert(std::make_shared<simulated_pool>(pinned_place(file->device()), file, 0, true));
  });
}

CUresult cuMemPoolExportPointer(CUmemPoolPtrExportData* exported, CUdeviceptr address) {
  return call(entry_id::cuMemPoolExportPointer, [&] {
    require(exported != nullptr);
    const auto block = live_blocks().find_base(address);
    require(block != nullptr && block->pool != nullptr);
    *exported = block->pool->export_block(*block);
  });
}

CUresult cuMemPoolImportPointer(CUdeviceptr* address, CUmemoryPool pool, CUmemPoolPtrExportData* exported) {
  return call(entry_id::cuMemPoolImportPointer, [&] {
    require(address != nullptr && exported != nullptr);
    *address = pool_of(pool)->import_block(*exported)->base;
  });
}

CUresult cuIpcGetEventHandle(CUipcEventHandle* handle, CUevent event) {
  return call(entry_id::cuIpcGetEventHandle, [&] {
    require(handle != nullptr);
    *handle = share_event(event_of(event));
  });
}

CUresult cuIpcOpenEventHandle(CUevent* event, CUipcEventHandle handle) {
  return call(entry_id::cuIpcOpenEventHandle, [&] {
    require(event != nullptr);
    *event = live_events().insert(open_event(current_context(), handle));
  });
}

}  // extern "C"
