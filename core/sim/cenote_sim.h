/* The control interface of libcenote_sim.so: what a test asks the simulated driver beside the driver's own calls.
 *
 * Plain C, found with dlsym or ctypes. Every function may be called at any time from any thread, before cuInit and
 * while the process exits, except from a host function (cuLaunchHostFunc). None of them counts as a driver call.
 *
 * A `name` is the base name of an entry point: "cuMemAlloc", not "cuMemAlloc_v2".
 */
#ifndef CENOTE_SIM_H
#define CENOTE_SIM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CENOTE_SIM_EXPORT __attribute__((visibility("default")))

/* 1 once cuInit has succeeded in this process, on the machine that there is now. */
CENOTE_SIM_EXPORT int cenote_sim_initialized(void);

/* Whether the text is one that CENOTE_SIM may have; NULL stands for that variable. 0; or -1, and one line that says
 * what is wrong is copied, terminated, into `why`. */
CENOTE_SIM_EXPORT int cenote_sim_check(const char* settings, char* why, size_t capacity);

/* Another machine in the same process, as the text or, for NULL, CENOTE_SIM says; as if cuInit had found it. All work
 * runs, and then everything that was made is gone: its memory can still be freed, which does nothing, and not be used.
 * Streams, events, pools and contexts stay valid on the devices that there are. Counts, armed failures and violations
 * start anew, and the calling thread has no current context. No other thread may use the driver meanwhile.
 * 0, or -1 as above, with nothing changed. */
CENOTE_SIM_EXPORT int cenote_sim_reset(const char* settings, char* why, size_t capacity);

/* The UUID, "GPU-..." or "MIG-...", of a device of the machine, as CUDA_VISIBLE_DEVICES has it; devices that the
 * variable hides are counted too. The text is copied, terminated; the result is its full length, -1 where there is no
 * such device. */
CENOTE_SIM_EXPORT int cenote_sim_uuid(int index, char* text, size_t capacity);

/* Calls of that name since the last reset, failed ones included; of all names together for NULL; -1: unknown name. */
CENOTE_SIM_EXPORT long long cenote_sim_calls(const char* name);
CENOTE_SIM_EXPORT void cenote_sim_reset_calls(void);

/* The names there are, by index from 0; NULL past the last one. */
CENOTE_SIM_EXPORT const char* cenote_sim_name(int index);

/* The nth next call of that name (1: the very next) returns `error`, a CUresult, and has no effect; once. 0 cancels.
 * Arming a name again replaces what was armed. 0, or -1: unknown name, negative nth, or an nth with no error. */
CENOTE_SIM_EXPORT int cenote_sim_fail(const char* name, int nth, int error);

/* The same for `times` calls in a row from the nth on; 0: all of them, until it is cancelled. */
CENOTE_SIM_EXPORT int cenote_sim_fail_from(const char* name, int nth, int times, int error);

/* What another thread does in the worst moment: the next call of that name first runs `meanwhile(context)`, on the
 * thread that makes it and before anything else, so that it may call the driver; once. A null `meanwhile` cancels, and
 * arming a name again replaces what was armed. 0, or -1: unknown name. */
CENOTE_SIM_EXPORT int cenote_sim_before(const char* name, void (*meanwhile)(void* context), void* context);

/* The code of "CUDA_ERROR_OUT_OF_MEMORY" and the like; -1: unknown. */
CENOTE_SIM_EXPORT int cenote_sim_error(const char* name);

/* What the program has made and not yet given back. */
struct cenote_sim_live_objects {
  uint64_t device_bytes;  /* taken from the cards: allocations, pools' segments, physical memory */
  uint64_t pinned_bytes;  /* as asked for */
  uint64_t managed_bytes; /* as asked for */
  uint64_t allocations;   /* device, pinned, managed and pooled memory, and memory of graphs */
  uint64_t pools;         /* without the devices' default pools */
  uint64_t streams;       /* without default streams */
  uint64_t events;
  uint64_t graphs;
  uint64_t contexts;     /* primary contexts that are retained */
  uint64_t reservations; /* cuMemAddressReserve */
  uint64_t mappings;     /* cuMemMap */
  uint64_t handles;      /* cuMemCreate */
};
CENOTE_SIM_EXPORT void cenote_sim_live(struct cenote_sim_live_objects* live);

/* One thing that is live: what is counted above, but for contexts. */
struct cenote_sim_live_object {
  const char* kind;    /* "device memory", "mapping", "stream", ... */
  const char* made_by; /* base name of the call */
  uint64_t handle;     /* its address, or its handle */
  uint64_t bytes;      /* as asked for; of a pool, what it has reserved; else 0 */
  uint64_t number;     /* 1, 2, ... in the order in which things were made */
  int device;          /* -1: none in particular */
};

/* Copies as many as fit, in the order in which they were made. The result is how many there are. */
CENOTE_SIM_EXPORT size_t cenote_sim_list_live(struct cenote_sim_live_object* objects, size_t capacity);

/* What the program did wrong, one line each. The text of line `index` is copied, terminated, into `text`; the result is
 * its full length, or -1 where there is no such line. */
CENOTE_SIM_EXPORT int cenote_sim_violation_count(void);
CENOTE_SIM_EXPORT int cenote_sim_violation(int index, char* text, size_t capacity);
CENOTE_SIM_EXPORT void cenote_sim_clear_violations(void);

/* Pieces of work that were queued and have not run; and run them all, on every device. */
CENOTE_SIM_EXPORT uint64_t cenote_sim_pending(void);
CENOTE_SIM_EXPORT void cenote_sim_drain(void);

#ifdef __cplusplus
}
#endif

#endif
