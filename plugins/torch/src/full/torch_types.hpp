// PyTorch's types of an allocator, wherever this version of it has them: until 2.10 in c10::cuda::CUDACachingAllocator,
// from 2.11 on in c10::CachingDeviceAllocator.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/cuda/CUDACachingAllocator.h>

#include <memory>
#include <utility>

namespace cenote::torch {

namespace either {
using namespace c10::CachingDeviceAllocator;
using namespace c10::cuda::CUDACachingAllocator;
}  // namespace either

using cuda_allocator = c10::cuda::CUDACachingAllocator::CUDAAllocator;
using mempool_id = std::pair<unsigned long long, unsigned long long>;
using context = std::shared_ptr<c10::GatheredContext>;

using device_figures = either::DeviceStats;
using trace_entry = either::TraceEntry;
using trace_tracker = either::AllocatorTraceTracker;
using annotation_entry = either::AnnotationEntry;
using record_level = either::RecordContext;
using context_recorder = either::CreateContextFn;
using segment_info = either::SegmentInfo;
using block_info = either::BlockInfo;

using c10::cuda::CUDACachingAllocator::AllocatorState;
using c10::cuda::CUDACachingAllocator::CheckpointDelta;
using c10::cuda::CUDACachingAllocator::OutOfMemoryObserver;
using c10::cuda::CUDACachingAllocator::ShareableHandle;
using c10::cuda::CUDACachingAllocator::SnapshotInfo;

/// 2.9 has a cudaStream_t where later ones have a void*.
using traced_stream = decltype(trace_entry::stream_);
using segment_stream = decltype(segment_info::stream);

}  // namespace cenote::torch
