/* cenote from C: allocate from the current memory resource of a device, whichever language chose it.
 *
 * For plugins and for callers in C, Rust, Julia and other languages. Streams are CUstream / cudaStream_t handles as
 * void*; sizes are in bytes. All functions may be called from any thread.
 *
 * Errors: a function that can fail returns null or a negative number and leaves a text for cenote_last_error(), which
 * belongs to the calling thread. Nothing is thrown across this border, except from the function whose name says so.
 */
#ifndef CENOTE_H
#define CENOTE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define CENOTE_API __attribute__((visibility("default")))
#else
#define CENOTE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised whenever a declaration here changes in a way that an older caller would notice. */
#define CENOTE_ABI_VERSION 1
CENOTE_API int cenote_abi_version(void);

/* The client of that name: who the bytes are counted for. The same name gives the same number; negative on failure. */
CENOTE_API int cenote_register_client(const char* name);

/* Memory usable by work queued on `stream` from now on; null on failure, and for 0 bytes. */
CENOTE_API void* cenote_allocate(int client, int device, size_t bytes, void* stream);

/* The same for callers in C++: throws cenote::out_of_memory (a std::bad_alloc) or cenote::cuda_error (a
 * std::runtime_error) instead of returning null. */
CENOTE_API void* cenote_allocate_or_throw(int client, int device, size_t bytes, void* stream);

/* Frees to the resource that made the block, whatever is current by now. `stream` is a live stream on which the
 * caller's uses of the block are queued or finished; if the block was allocated on another one, it is reused only after
 * all work that the device has been given by now. */
CENOTE_API void cenote_deallocate(void* pointer, void* stream);

/* The block is used on `stream` too: it is not reused before the work that is queued there when it is freed. 0, or
 * negative on failure. */
CENOTE_API int cenote_record_stream(void* pointer, void* stream);

/* A stream capture of work on `device` begins, or has ended: frees that would invalidate it are held back between. */
CENOTE_API void cenote_capture_begin(int device);
CENOTE_API void cenote_capture_end(int device);

/* Gives unused memory of the current resource of `device` back; returns the bytes given back, negative on failure. */
CENOTE_API int64_t cenote_trim(int device);

/* Makes the resource that `specification` describes ("pool:max=8GiB | cuda") the current one of `device`. 0, or
 * negative on failure. */
CENOTE_API int cenote_set_device_resource(int device, const char* specification);

/* The number of devices; negative on failure. */
CENOTE_API int cenote_device_count(void);

/* Where the one table of current resources lies: equal for every user of the process. */
CENOTE_API const void* cenote_registry_address(void);

/* Why the last call on this thread failed; never null. */
CENOTE_API const char* cenote_last_error(void);

#ifdef __cplusplus
}
#endif

#endif
