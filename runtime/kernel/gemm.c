/*
** The products over all rows of a batch and its time steps: gradients of weights.
*/
#include <cblas.h>
#include <stdatomic.h>
#include <string.h>

#include "kernel.h"

/* AMD's AVX-512: OpenBLAS takes its code for Intel's there, which the kernels here outdo. */
static bool outdone(void) {
#ifdef __x86_64__
  __builtin_cpu_init();
  return __builtin_cpu_is("amd") && __builtin_cpu_supports("avx512f");
#else
  return false;
#endif
}

bool ni_blas_is_fast(void) {
  static atomic_int known; /* 0 not asked, 1 no, 2 yes */
  int k = atomic_load_explicit(&known, memory_order_relaxed);
  if (k == 0) {
    static const char *const slow[] = {"Prescott", "Core2", "Nehalem", "Generic", "Atom", "Unknown"};
    const char *core = openblas_get_corename();
    k = outdone() && strcmp(ni_kernel_f32()->level, "avx512") == 0 ? 1 : 2;
    for (size_t i = 0; i < sizeof slow / sizeof slow[0]; i++)
      if (strcmp(core, slow[i]) == 0 && strcmp(ni_kernel_f32()->level, "generic") != 0) k = 1;
    atomic_store_explicit(&known, k, memory_order_relaxed);
  }
  return k == 2;
}

void ni_gemm_tn_f32(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b,
                    size_t ldb, bool accumulate, float *c, size_t ldc) {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    if (!accumulate)
      for (size_t i = 0; i < m; i++) memset(c + i * ldc, 0, n * sizeof(float));
    return;
  }
  cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (blasint)m, (blasint)n, (blasint)k, 1.0f, a,
              (blasint)lda, b, (blasint)ldb, accumulate ? 1.0f : 0.0f, c, (blasint)ldc);
}

const char *ni_blas_core(void) { return openblas_get_corename(); }

void ni_blas_threads(int threads) { openblas_set_num_threads(threads); }
