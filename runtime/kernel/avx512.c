/*
** The kernels for AVX-512 (F, DQ, VL, BW): 16 floats a vector, 32 registers.
*/
#include "kernel.h"

#if defined(__x86_64__) && !defined(NI_F64)

#include <immintrin.h>

#define LEVEL avx512
#define W 16
#define ROWS 14
#define LSTM_ROWS 6
#define MANY_REGISTERS 1 /* 32: several activations side by side */
#define GRU_ROWS 8

typedef __m512 vec;

static inline vec splat(float x) { return _mm512_set1_ps(x); }
static inline vec load(const float *p) { return _mm512_loadu_ps(p); }
static inline void store(float *p, vec x) { _mm512_storeu_ps(p, x); }
static inline vec fused(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline vec root(vec x) { return _mm512_sqrt_ps(x); }
static inline vec smaller(vec a, vec b) { return _mm512_min_ps(a, b); }
static inline vec larger(vec a, vec b) { return _mm512_max_ps(a, b); }

/* The first n lanes. Reading and writing under a mask costs no more than without. */
#define MASKS_ARE_FREE 1
typedef __mmask16 lanes;
static inline lanes first(size_t n) { return (lanes)((1u << n) - 1); }
static inline vec load_lanes(const float *p, lanes m) { return _mm512_maskz_loadu_ps(m, p); }
static inline void store_lanes(float *p, lanes m, vec x) { _mm512_mask_storeu_ps(p, m, x); }

/* To 2^-14. */
static inline vec reciprocal(vec x) { return _mm512_rcp14_ps(x); }

/* Has any lane a sign? */
static inline bool negative(vec x) { return _mm512_movepi32_mask(_mm512_castps_si512(x)) != 0; }

/* x * 2^n for a whole n */
static inline vec scale(vec x, vec n) { return _mm512_scalef_ps(x, n); }

/* Row j becomes column j: squares of s lanes change places, s = 1, 2, 4, 8. */
static inline __attribute__((always_inline)) void transpose(vec *a) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#pragma GCC unroll 4
  for (int s = 1; s < W; s *= 2) {
    __mmask16 odd = _mm512_test_epi32_mask(lane, _mm512_set1_epi32(s));
    __m512i low = _mm512_mask_add_epi32(lane, odd, lane, _mm512_set1_epi32(W - s));
    __m512i high = _mm512_mask_add_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(s)), odd, lane,
                                         _mm512_set1_epi32(W));
#pragma GCC unroll 16
    for (int i = 0; i < W; i++) {
      if (i & s) continue;
      vec x = a[i], y = a[i + s];
      a[i] = _mm512_permutex2var_ps(x, low, y);
      a[i + s] = _mm512_permutex2var_ps(x, high, y);
    }
  }
}

#include "vector.h"

#endif
