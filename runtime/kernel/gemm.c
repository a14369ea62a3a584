/*
** The products over all rows of a batch and its time steps: gradients of weights.
*/
#include <string.h>

#include "kernel.h"

#ifdef NI_F64

void ni_gemm_tn_f64(size_t m, size_t n, size_t k, const double *a, size_t lda, const double *b,
                    size_t ldb, bool accumulate, double *c, size_t ldc) {
  enum { BLOCK = 64 }; /* rows of B that stay in cache while all of C passes */
  if (!accumulate)
    for (size_t i = 0; i < m; i++) memset(c + i * ldc, 0, n * sizeof(double));
  for (size_t k0 = 0; k0 < k; k0 += BLOCK) {
    size_t k1 = k - k0 < BLOCK ? k : k0 + BLOCK;
    for (size_t i = 0; i < m; i++)
      for (size_t r = k0; r < k1; r++) {
        double x = a[r * lda + i];
        for (size_t j = 0; j < n; j++) c[i * ldc + j] += x * b[r * ldb + j];
      }
  }
}

#else

#include <cblas.h>
#include <stdatomic.h>

/*
** OpenBLAS takes its oldest SSE kernels for a processor younger than itself, five times slower
** than our own; then the product goes through those. Asked once: the answer never changes within
** a process, so neither do the bits.
*/
static bool blas_is_fast(void) {
  static atomic_int known; /* 0 not asked, 1 no, 2 yes */
  int k = atomic_load_explicit(&known, memory_order_relaxed);
  if (k == 0) {
    static const char *const slow[] = {"Prescott", "Core2", "Nehalem", "Generic", "Atom", "Unknown"};
    const char *core = openblas_get_corename();
    k = 2;
    for (size_t i = 0; i < sizeof slow / sizeof slow[0]; i++)
      if (strcmp(core, slow[i]) == 0 && strcmp(ni_kernel_f32()->level, "generic") != 0) k = 1;
    atomic_store_explicit(&known, k, memory_order_relaxed);
  }
  return k == 2;
}

/*
** Blocks of A and B are copied to the stack, since rows far apart share cache sets. Each element
** still sums over k in rising order.
*/
static void own_tn(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b,
                   size_t ldb, float *c, size_t ldc) {
  enum { COLUMNS = 96, DEPTH = 256, ROWS = 96, SPARE = 64 };
  const ni_kernels_f32 *kern = ni_kernel_f32();
  _Alignas(64) float packed[(COLUMNS + SPARE) * DEPTH], block[ROWS * DEPTH];
  for (size_t k0 = 0; k0 < k; k0 += DEPTH) {
    size_t kn = k - k0 < DEPTH ? k - k0 : DEPTH;
    for (size_t n0 = 0; n0 < n; n0 += COLUMNS) {
      size_t nn = n - n0 < COLUMNS ? n - n0 : COLUMNS;
      kern->pack(nn, kn, b + k0 * ldb + n0, ldb, true, packed);
      for (size_t m0 = 0; m0 < m; m0 += ROWS) {
        size_t mn = m - m0 < ROWS ? m - m0 : ROWS;
        for (size_t r = 0; r < kn; r++)
          memcpy(block + r * ROWS, a + (k0 + r) * lda + m0, mn * sizeof *block);
        kern->gemm(mn, nn, kn, block, 1, ROWS, packed, NULL, true, c + m0 * ldc + n0, ldc);
      }
    }
  }
}

void ni_gemm_tn_f32(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b,
                    size_t ldb, bool accumulate, float *c, size_t ldc) {
  if (m == 0 || n == 0) return;
  bool fast = blas_is_fast();
  if (!accumulate && (k == 0 || !fast))
    for (size_t i = 0; i < m; i++) memset(c + i * ldc, 0, n * sizeof(float));
  if (k == 0) return;
  if (fast)
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (blasint)m, (blasint)n, (blasint)k, 1.0f,
                a, (blasint)lda, b, (blasint)ldb, accumulate ? 1.0f : 0.0f, c, (blasint)ldc);
  else
    own_tn(m, n, k, a, lda, b, ldb, c, ldc);
}

void ni_blas_threads(int threads) { openblas_set_num_threads(threads); }

#endif
