/* cenote from C: allocate from the current memory resource of a device, whichever language chose it.
 *
 * For plugins, and for callers in C, Rust, Julia and other languages. Plain C99 without CUDA's headers: streams are
 * CUstream / cudaStream_t handles as void*, sizes are in bytes. All functions may be called from any thread, whatever
 * device is current.
 *
 * Two doors to the same functions. By name, as the foreign function interface of most languages wants them. Or through
 * cenote_get_api(): one struct of function pointers, for who loads the library at run time and must do without it, as
 * a plugin does: one symbol to look up and one version to compare, instead of one failure a function. The struct grows
 * at its end only and tells its size, so that a caller can see whether a newer function is there.
 *
 * Structs that a caller passes begin with `struct_size`, which the caller sets to the sizeof that it was compiled with.
 * The library writes no further than that, and sets it to the bytes that it knows and has written.
 *
 * Errors: a function that can fail returns null or a negative cenote_status, and leaves that status and a text for
 * cenote_last_status() and cenote_last_error(), which belong to the calling thread and stay until its next failure.
 * Nothing is thrown across this border. The two functions that throw, for callers in C++, are in cenote_or_throw.hpp.
 */
#ifndef CENOTE_H
#define CENOTE_H

#include <stddef.h>
#include <stdint.h>

#include "cenote/ground/version.h"

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

typedef enum cenote_status {
  CENOTE_OK = 0,
  CENOTE_INVALID_ARGUMENT = -1, /* a null pointer, a wrong specification or alignment, a struct that is too small */
  CENOTE_OUT_OF_RANGE = -2,     /* no device, or no client, of that number */
  CENOTE_OUT_OF_MEMORY = -3,    /* the text has the figures */
  CENOTE_CUDA_ERROR = -4,       /* a driver call failed for another reason; the text has its name and code */
  CENOTE_NO_DRIVER = -5,        /* no usable driver, or a forked child of a process that used one */
  CENOTE_UNKNOWN_POINTER = -6,  /* not given out here, or freed already */
  CENOTE_FAILURE = -7           /* anything else, such as host memory that ran out */
} cenote_status;

/* Why the last call on this thread that failed did: a cenote_status, and a text that is never null and is good until
 * the next failure. */
CENOTE_API int cenote_last_status(void);
CENOTE_API const char* cenote_last_error(void);

/* --- Devices and their resources --------------------------------------------------------------------------------- */

/* The number of devices, and the one that is current on this thread; negative on failure. */
CENOTE_API int cenote_device_count(void);
CENOTE_API int cenote_current_device(void);

/* Makes the resource that `specification` describes ("statistics | pool:max=8GiB") the current one of `device`,
 * for allocations from now on. 0, or negative on failure: then nothing has changed. */
CENOTE_API int cenote_set_device_resource(int device, const char* specification);

/* Spells the current resource of `device` as such a text, cut off to `capacity` bytes with the final null. Returns the
 * length of the whole text without it, negative on failure. `text` may be null if `capacity` is 0. */
CENOTE_API int64_t cenote_get_device_resource(int device, char* text, size_t capacity);

/* The same for every device of the process. The device that this thread has chosen, or the only one there is, gets its
 * resource now; the others when they are first used. A resource that was made from the same text stays. */
CENOTE_API int cenote_install_resource(const char* specification);

/* Takes the current resource of `device` away: the next one asked for is made anew, from what was
 * installed for all devices, else CENOTE_RESOURCE, else the driver's plain memory. 0, or negative on failure. */
CENOTE_API int cenote_reset_device_resource(int device);

/* Gives unused memory of the current resource of `device` back; returns the bytes given back, negative on failure. */
CENOTE_API int64_t cenote_trim(int device);

/* The same until at most `keep_bytes` are held. Memory whose work is still pending goes back at a later call; if `wait`
 * is not 0, the host waits for that work first, unless a capture is known to be under way. */
CENOTE_API int64_t cenote_trim_to(int device, size_t keep_bytes, int wait);

/* What a resource does not know. */
#define CENOTE_UNKNOWN UINT64_MAX

/* The figures of a stack of resources, in bytes and in numbers since it was made; CENOTE_UNKNOWN for what nobody in the
 * stack knows. */
typedef struct cenote_memory_state {
  size_t struct_size;
  uint64_t in_use;       /* handed out and not yet freed */
  uint64_t held;         /* taken from the upstream */
  uint64_t limit;        /* never holds more */
  uint64_t largest_free; /* the largest block that it could hand out without growing */
  uint64_t device_free;  /* what the device itself has left */
  uint64_t device_total;
  /* Of a statistics adaptor in the stack. */
  uint64_t peak;
  uint64_t allocations; /* live now */
  uint64_t total_allocations;
  /* Of a pool in the stack. */
  uint64_t pool_allocations;
  uint64_t pool_waits; /* device-side waits for another stream's work */
  uint64_t pool_upstream_allocations;
  uint64_t pool_upstream_frees;
} cenote_memory_state;

/* The figures of the current resource of `device`. 0, or negative on failure: then `state` is as it was. */
CENOTE_API int cenote_get_memory_state(int device, cenote_memory_state* state);

/* The bytes that a pool in the current resource of `device`, and the regions there, hold; asks the driver nothing.
 * Negative where there is no pool, and on failure. */
CENOTE_API int64_t cenote_pool_bytes(int device);

/* --- Memory ------------------------------------------------------------------------------------------------------ */

/* The client of that name: who the bytes are counted for. The same name gives the same number; negative on failure. */
CENOTE_API int cenote_register_client(const char* name);

/* What a client holds, on all devices. */
typedef struct cenote_client_usage {
  size_t struct_size;
  uint64_t bytes; /* held now, as requested */
  uint64_t peak_bytes;
  uint64_t allocations; /* live now */
  uint64_t total_allocations;
} cenote_client_usage;

/* 0, or negative on failure: then `usage` is as it was. */
CENOTE_API int cenote_get_client_usage(int client, cenote_client_usage* usage);

/* Memory usable by work queued on `stream` from now on, at a multiple of 256; null on failure, and for 0 bytes, which
 * is no failure. */
CENOTE_API void* cenote_allocate(int client, int device, size_t bytes, void* stream);

/* The same at a multiple of `alignment`, a power of two. */
CENOTE_API void* cenote_allocate_aligned(int client, int device, size_t bytes, size_t alignment, void* stream);

/* Frees to the resource that made the block, whatever is current by now. `stream` is a live stream on which the
 * caller's uses of the block are queued or finished; if the block was allocated on another one, it is reused only after
 * all work that the device has been given by now, and the other devices in use if the stream is of one. 0, also for
 * null; CENOTE_UNKNOWN_POINTER for any other pointer that is not outstanding, which is logged too and does no harm. */
CENOTE_API int cenote_deallocate(void* pointer, void* stream);

/* The same for who holds a lock that others wait for, such as an interpreter's. What can be done at once is done under
 * that lock. Before anything that may wait, or call back into the program, `release` is called, and `acquire`
 * afterwards with what it returned. Neither may throw. */
CENOTE_API int cenote_deallocate_holding(void* pointer, void* stream, void* (*release)(void),
                                         void (*acquire)(void* released));

/* For who has no stream: memory usable everywhere at once, and freed when no work uses it any more. Both
 * wait on the host for the legacy default stream. */
CENOTE_API void* cenote_allocate_sync(int client, int device, size_t bytes);
CENOTE_API int cenote_deallocate_sync(void* pointer);

/* The block is used on `stream` too: it is not reused before the work that is queued there when it is freed. The stream
 * may be another device's; a default one is taken for the block's device's and the current device's. 0, or negative on
 * failure. */
CENOTE_API int cenote_record_stream(void* pointer, void* stream);

/* --- Memory that other processes of the same user have, too ------------------------------------------------------- */

/* Offers the `bytes` at `pointer`, memory of `device` that other processes can map ("pool | virtual:ipc=true"). Writes
 * the handle, a text, cut off to `capacity` bytes with the final null; returns the length of the whole text without it,
 * negative on failure. Work of another process comes after what is queued on `stream` by now; to announce what is
 * written later the block is shared again, by the same handle. The caller keeps the block until cenote_unshare has
 * returned 0. */
CENOTE_API int64_t cenote_share(int device, const void* pointer, size_t bytes, void* stream, char* handle,
                                size_t capacity);

/* Nobody can open the block any more. 0: nobody has it, and it may be freed; 1: another process has it open, and this
 * function is to be called again; negative on failure. */
CENOTE_API int cenote_unshare(const void* pointer);

/* The block of a handle, mapped here, for work on `stream`; null on failure. `bytes` and `device`, which may be null,
 * get its size and the number of its device here. */
CENOTE_API void* cenote_open_shared(const char* handle, void* stream, size_t* bytes, int* device);

/* Waits on the host for the work on `stream`, and lets the owner have the block. 0, or negative on failure. */
CENOTE_API int cenote_close_shared(void* pointer, void* stream);

/* --- Captures, and the registry ----------------------------------------------------------------------------------- */

/* A stream capture of work on `device` begins, or has ended: frees that would invalidate it are held back between. 0,
 * also at the end of one that was never announced; negative on failure. */
CENOTE_API int cenote_capture_begin(int device);
CENOTE_API int cenote_capture_end(int device);

/* The same for a capture whose graph has memory together with others of a pool: what one capture has freed serves the
 * later ones on the same stream. Two numbers of the caller's, such as PyTorch's id, name a pool of a device. Its graphs
 * are launched one at a time, each after all work that uses the results of the one before; what one leaves in memory
 * that it allocated is valid until another one is launched.
 *
 * The capture is that which begins on `stream`, or, by the other function, that whose streams `takes` answers with 1.
 * The streams live until the end. `takes` is asked by any thread until then, by one at a time; it may call CUDA, but
 * neither wait for another thread nor allocate. `drop`, if it is not null, is called with `data` at the end.
 *
 * Each begin is taken back by a release: at the last, no later capture joins these graphs. The memory goes back with
 * the graphs that use it. 0, or negative on failure: then nothing has changed, and `data` is the caller's. */
CENOTE_API int cenote_graph_pool_begin(int device, uint64_t first, uint64_t second, void* stream);
CENOTE_API int cenote_graph_pool_begin_if(int device, uint64_t first, uint64_t second,
                                          int (*takes)(void* data, void* stream), void* data, void (*drop)(void* data));
CENOTE_API int cenote_graph_pool_end(int device, uint64_t first, uint64_t second);
CENOTE_API int cenote_graph_pool_release(int device, uint64_t first, uint64_t second);

/* --- Pages with several users ------------------------------------------------------------------------------------- */

/* A set of pages that several ranges of addresses show: memory of users of whom one works at a time, such as graphs
 * that are not launched at once. What one writes, the others find there. */
typedef struct cenote_page_set cenote_page_set;

/* Offsets and sizes in a set are multiples of it. */
#define CENOTE_PAGE_SET_BYTES 2097152

/* An empty set of `device`, for the life of the process; null on failure, as on a device without virtual memory. */
CENOTE_API cenote_page_set* cenote_make_page_set(int device);

/* Fresh addresses of the bytes of the set from `offset` on, which grows to that; null on failure. They may be used on
 * every stream, and nothing is mapped or unmapped there before the next function. Legal beside captures. */
CENOTE_API void* cenote_map_page_set(cenote_page_set* set, size_t offset, size_t bytes);

/* The range that begins at `pointer` is used by no work that is given to the device from now on. 0, or negative on
 * failure. */
CENOTE_API int cenote_unmap_page_set(cenote_page_set* set, void* pointer);

/* Lets go of what was unmapped and whose work is done, for which the host waits first if `wait` is not 0 and nothing is
 * being captured. Returns the bytes of the pages that are left, negative on failure. */
CENOTE_API int64_t cenote_trim_page_set(cenote_page_set* set, int wait);

/* --- Regions, and pauses ------------------------------------------------------------------------------------------ */

/* What this thread allocates on `device` from now on lies on pages of the region of that name, which is made if there
 * is none: a pool over virtual memory. Regions nest. 0, or negative on failure. */
CENOTE_API int cenote_begin_region(int device, const char* name);

/* Ends the region that this thread has begun last. 0, or negative on failure: then nothing has ended. */
CENOTE_API int cenote_end_region(void);

/* Gives the memory of a region back to its devices, or, for null, that of all regions and of the pools among the
 * current resources, and keeps every address. `keep`: "host", "peer:N", "file:FOLDER", "nothing", "fill:BYTE". Work
 * that is queued by now is waited for; later work and graphs must not use the memory before it is resumed. Returns the
 * bytes that were given back, negative on failure: then nothing has changed. */
CENOTE_API int64_t cenote_pause(const char* region, const char* keep);

/* Brings the memory back to the same addresses, with what it held. Returns the bytes, negative on failure: then it is
 * paused as before. */
CENOTE_API int64_t cenote_resume(const char* region);

/* Where the one table of current resources lies: equal for every user of the process. */
CENOTE_API const void* cenote_registry_address(void);

/* --- All of them as one struct ------------------------------------------------------------------------------------ */

/* Each member is the function of the same name. The two whose names end in _or_throw are for callers in C++ alone
 * (cenote_or_throw.hpp). */
typedef struct cenote_api {
  size_t struct_size; /* of the library that is loaded: members may be added at the end */
  int abi_version;
  int (*last_status)(void);
  const char* (*last_error)(void);
  int (*device_count)(void);
  int (*current_device)(void);
  int (*set_device_resource)(int device, const char* specification);
  int64_t (*get_device_resource)(int device, char* text, size_t capacity);
  int (*reset_device_resource)(int device);
  int64_t (*trim)(int device);
  int (*get_memory_state)(int device, cenote_memory_state* state);
  int (*register_client)(const char* name);
  int (*get_client_usage)(int client, cenote_client_usage* usage);
  void* (*allocate)(int client, int device, size_t bytes, void* stream);
  void* (*allocate_or_throw)(int client, int device, size_t bytes, void* stream);
  int (*deallocate)(void* pointer, void* stream);
  void* (*allocate_sync)(int client, int device, size_t bytes);
  int (*deallocate_sync)(void* pointer);
  int (*record_stream)(void* pointer, void* stream);
  int (*capture_begin)(int device);
  int (*capture_end)(int device);
  const void* (*registry_address)(void);
  void* (*allocate_holding_or_throw)(int client, int device, size_t bytes, void* stream, void* (*release)(void),
                                     void (*acquire)(void* released));
  int (*deallocate_holding)(void* pointer, void* stream, void* (*release)(void), void (*acquire)(void* released));
  int (*install_resource)(const char* specification);
  int64_t (*trim_to)(int device, size_t keep_bytes, int wait);
  int64_t (*share)(int device, const void* pointer, size_t bytes, void* stream, char* handle, size_t capacity);
  int (*unshare)(const void* pointer);
  void* (*open_shared)(const char* handle, void* stream, size_t* bytes, int* device);
  int (*close_shared)(void* pointer, void* stream);
  cenote_page_set* (*make_page_set)(int device);
  void* (*map_page_set)(cenote_page_set* set, size_t offset, size_t bytes);
  int (*unmap_page_set)(cenote_page_set* set, void* pointer);
  int64_t (*trim_page_set)(cenote_page_set* set, int wait);
  int64_t (*pool_bytes)(int device);
  int (*begin_region)(int device, const char* name);
  int (*end_region)(void);
  int64_t (*pause)(const char* region, const char* keep);
  int64_t (*resume)(const char* region);
  void* (*allocate_aligned)(int client, int device, size_t bytes, size_t alignment, void* stream);
  int (*graph_pool_begin)(int device, uint64_t first, uint64_t second, void* stream);
  int (*graph_pool_end)(int device, uint64_t first, uint64_t second);
  int (*graph_pool_release)(int device, uint64_t first, uint64_t second);
  int (*graph_pool_begin_if)(int device, uint64_t first, uint64_t second, int (*takes)(void* data, void* stream),
                             void* data, void (*drop)(void* data));
} cenote_api;

/* The functions of that version of the interface, for the life of the process; null if this library does not have it.
 */
CENOTE_API const cenote_api* cenote_get_api(int abi_version);

#ifdef __cplusplus
}
#endif

#endif
