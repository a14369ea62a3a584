/*
** Floor 0: messages, memory, chance, threads. Everything above stands on these.
*/
#ifndef NI_BASE_H
#define NI_BASE_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../neap.h"

/* ---- messages (status.c) ---- */

/* Sets this thread's message (cut at 1023 bytes) and returns status. */
neap_status ni_fail(neap_status status, const char *format, ...) NEAP_PRINTF(2, 3);
/* Puts "text: " before this thread's present message. */
neap_status ni_fail_before(neap_status status, const char *format, ...) NEAP_PRINTF(2, 3);
const char *ni_message(void);
/* Of n names the one nearest to name (edit distance), NULL if none is near. */
const char *ni_nearest(const char *name, const char *const *names, size_t n);
/* How many of the n bytes, from the first on, are valid UTF-8: n if all are. */
size_t ni_utf8(const char *s, size_t n);
/* EARG unless name has 1 to max bytes of valid UTF-8 without control characters. */
neap_status ni_name_check(const char *who, const char *name, size_t max);

/* ---- memory (memory.c) ---- */

/* All through the one allocator. Blocks are aligned to 64 bytes; ni_alloc does not clear. A failed
** call sets the message and returns NULL. ni_free(NULL) is fine. */
void *ni_alloc(size_t bytes);
void *ni_calloc(size_t count, size_t size); /* cleared, overflow-checked */
void *ni_realloc(void *p, size_t bytes);    /* keeps p on failure */
void ni_free(void *p);
char *ni_strdup(const char *s);
char *ni_strndup(const char *s, size_t n);
void ni_memory_set(neap_alloc_fn fn, void *ud);
size_t ni_memory_live(void);
/* What a block takes of the allocator: this one (NULL: 0); one of so many bytes. */
size_t ni_bytes_of(const void *p);
size_t ni_bytes_for(size_t bytes);

/* a*b and a+b without overflow: false if it would. */
static inline bool ni_mul(size_t a, size_t b, size_t *r) { return !__builtin_mul_overflow(a, b, r); }
static inline bool ni_add(size_t a, size_t b, size_t *r) { return !__builtin_add_overflow(a, b, r); }

/* Makes room for one more element in a growing array: false if memory is short. */
bool ni_grow(void **array, size_t *capacity, size_t used, size_t element);
/* Sorts n indices so that compare (as for qsort) rises. In place; not stable. */
void ni_sort(size_t *index, size_t n, int (*compare)(const void *arg, size_t a, size_t b),
             const void *arg);

/* A growing text, always terminated. After a failed append failed is true and stays so. */
typedef struct ni_text {
  char *s;
  size_t n, cap;
  bool failed;
} ni_text;
void ni_text_add(ni_text *t, const char *format, ...) NEAP_PRINTF(2, 3);
void ni_text_addn(ni_text *t, const char *s, size_t n);
/* s as a quoted JSON string; bytes that are not UTF-8 become U+FFFD. */
void ni_text_json(ni_text *t, const char *s);
/* A decimal of at most 17 digits that reads back as x (finite), with a point in every locale. */
void ni_text_number(ni_text *t, double x);
void ni_text_free(ni_text *t);

/* ---- chance (rng.c) ---- */

/*
** Counter-based: Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2,
** 3"). The same (seed, stream, index) gives the same numbers wherever and by whomever it is asked.
*/
void ni_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);
/* The index-th number of a stream, uniform in [0,1) with 24 bits. */
float ni_uniform(uint64_t seed, uint64_t stream, uint64_t index);
/* n numbers from index on, uniform in [0,1): the same as n calls of ni_uniform. */
void ni_uniform_fill(uint64_t seed, uint64_t stream, uint64_t index, size_t n, float *out);
/* Normal with mean 0 and deviation 1 (Box and Muller 1958). */
double ni_normal(uint64_t seed, uint64_t stream, uint64_t index);
/* A stream number for a name (FNV-1a). */
uint64_t ni_hash(const char *s);

/* ---- threads (pool.c) ---- */

typedef void (*ni_task)(void *arg, size_t task);
/* Calls fn(arg, 0..tasks-1), each once, on the pool's threads and the caller's; returns when all
** are done. Which thread runs what is open, so tasks write to places of their own. pool NULL: one
** after the other. Tasks are left out once the pool is stopped. Not to be called from inside a
** task. Workers spin a short while, then sleep. */
void ni_pool_run(neap_pool *pool, size_t tasks, ni_task fn, void *arg);
/* Calls fn(arg, 0..shares-1, step) for step 0..steps-1, each once, and a step's when all those of the
** step before have returned. A thread keeps to its share from step to step, so that it finds in its
** cache what it had there, but a thread that does not come holds up nobody: its share is taken over.
** Of more than NI_MOST_SHARES shares those beyond are not run. Otherwise as ni_pool_run. */
enum { NI_MOST_SHARES = 64 };
typedef void (*ni_step_task)(void *arg, size_t share, size_t step);
void ni_pool_steps(neap_pool *pool, size_t shares, size_t steps, ni_step_task fn, void *arg);
neap_status ni_pool_new(neap_pool **pool, int threads);
/* The same threads for work that ends when *stop is not 0 any more. pool NULL: the caller alone. */
neap_status ni_pool_view(neap_pool **view, const neap_pool *pool, const _Atomic int *stop);
void ni_pool_release(neap_pool *pool);
bool ni_pool_stopped(const neap_pool *pool);
int ni_pool_threads(const neap_pool *pool); /* NULL: 1 */

/* Sets flush-to-zero for denormal numbers (MXCSR / FPCR) and returns the former mode; restore with
** ni_denormals_restore. Each pool task runs under it too. */
unsigned ni_denormals_flush(void);
void ni_denormals_restore(unsigned mode);

#endif
