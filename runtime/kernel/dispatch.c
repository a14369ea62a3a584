/*
** Which kernels are in use. Chosen once, by what the processor has and the operating system saves
** on a switch of threads (__builtin_cpu_supports asks both); the environment has no say.
*/
#include <string.h>

#include "kernel.h"

#ifdef NI_F64

const ni_kernels_f64 *ni_kernel_f64(void) { return &ni_kernels_generic_f64; }

#else

#include <stdatomic.h>

static _Atomic(const ni_kernels_f32 *) chosen;

/* The best level, or the one of that name; NULL if it cannot run here. */
static const ni_kernels_f32 *find(const char *level) {
#ifdef __x86_64__
  __builtin_cpu_init();
  bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
      (!level || strcmp(level, "avx512") == 0))
    return &ni_kernels_avx512;
  if (fma && (!level || strcmp(level, "avx2") == 0)) return &ni_kernels_avx2;
#elif defined(__aarch64__)
  if (!level || strcmp(level, "neon") == 0) return &ni_kernels_neon;
#endif
  return !level || strcmp(level, "generic") == 0 ? &ni_kernels_generic_f32 : NULL;
}

const ni_kernels_f32 *ni_kernel_f32(void) {
  const ni_kernels_f32 *now = atomic_load_explicit(&chosen, memory_order_acquire);
  if (!now) {
    /* Exchanged, not stored: a level selected in the meantime stays. */
    const ni_kernels_f32 *best = find(NULL);
    now = atomic_compare_exchange_strong(&chosen, &now, best) ? best : now;
  }
  return now;
}

bool ni_kernel_select(const char *level) {
  const ni_kernels_f32 *k = level ? find(level) : NULL;
  if (k) atomic_store_explicit(&chosen, k, memory_order_release);
  return k != NULL;
}

#endif
