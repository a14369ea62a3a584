/*
** The kernels for AVX2 with FMA: 8 floats a vector, 16 registers.
*/
#include "kernel.h"

#if defined(__x86_64__) && !defined(NI_F64)

#include <immintrin.h>

#define LEVEL avx2
#define W 8
#define ROWS 6
#define LSTM_ROWS 3
#define MANY_REGISTERS 0 /* 16: fewer activations side by side */
#define GRU_ROWS 4

typedef __m256 vec;

static inline vec splat(float x) { return _mm256_set1_ps(x); }
static inline vec load(const float *p) { return _mm256_loadu_ps(p); }
static inline void store(float *p, vec x) { _mm256_storeu_ps(p, x); }
static inline vec fused(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline vec root(vec x) { return _mm256_sqrt_ps(x); }
static inline vec smaller(vec a, vec b) { return _mm256_min_ps(a, b); }
static inline vec larger(vec a, vec b) { return _mm256_max_ps(a, b); }

/* The first n lanes. */
#define MASKS_ARE_FREE 0
typedef __m256i lanes;
static inline lanes first(size_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline vec load_lanes(const float *p, lanes m) { return _mm256_maskload_ps(p, m); }
static inline void store_lanes(float *p, lanes m, vec x) { _mm256_maskstore_ps(p, m, x); }

/* _mm256_rcp_ps would be too coarse, and is not the same on every processor. */
static inline vec reciprocal(vec x) { return 1 / x; }

/* Has any lane a sign? */
static inline bool negative(vec x) { return _mm256_movemask_ps(x) != 0; }

/* x * 2^n for a whole n within +-250, in two steps since 2^n may not be a float. */
static inline vec scale(vec x, vec n) {
  __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
  __m256i bias = _mm256_set1_epi32(127), rest = _mm256_sub_epi32(whole, half);
  x *= _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  return x * _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
}

/* Row j becomes column j: by pairs of numbers, pairs of pairs, halves. */
static inline void transpose(vec *a) {
  vec b[W];
  for (int i = 0; i < W; i += 4)
    for (int j = 0; j < 2; j++) {
      vec x = a[i + 2 * j], y = a[i + 2 * j + 1];
      b[i + j] = _mm256_unpacklo_ps(x, y);
      b[i + j + 2] = _mm256_unpackhi_ps(x, y);
    }
  for (int i = 0; i < W; i += 4)
    for (int j = 0; j < 2; j++) {
      vec x = b[i + 2 * j], y = b[i + 2 * j + 1];
      a[i + 2 * j] = _mm256_shuffle_ps(x, y, 0x44);
      a[i + 2 * j + 1] = _mm256_shuffle_ps(x, y, 0xee);
    }
  for (int i = 0; i < 4; i++) {
    vec x = a[i], y = a[i + 4];
    a[i] = _mm256_permute2f128_ps(x, y, 0x20);
    a[i + 4] = _mm256_permute2f128_ps(x, y, 0x31);
  }
}

#include "vector.h"

#endif
