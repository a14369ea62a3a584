/*
** The kernels for AVX-512 (F, DQ, VL, BW): 16 floats a vector, 32 registers.
*/
#include "kernel.h"

#if defined(__x86_64__) && !defined(NI_F64)

#include <immintrin.h>

#define LEVEL avx512
#define W 16
#define ROWS 14
#define STEP_ROWS 6

typedef __m512 vec;

static inline vec splat(float x) { return _mm512_set1_ps(x); }
static inline vec load(const float *p) { return _mm512_loadu_ps(p); }
static inline void store(float *p, vec x) { _mm512_storeu_ps(p, x); }
static inline vec fused(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline vec root(vec x) { return _mm512_sqrt_ps(x); }
static inline vec smaller(vec a, vec b) { return _mm512_min_ps(a, b); }
static inline vec larger(vec a, vec b) { return _mm512_max_ps(a, b); }

static inline __mmask16 first(size_t n) { return (__mmask16)((1u << n) - 1); }

static inline vec load_part(const float *p, size_t n) { return _mm512_maskz_loadu_ps(first(n), p); }

static inline void store_part(float *p, size_t n, vec x) { _mm512_mask_storeu_ps(p, first(n), x); }

/* Where sign has its sign bit set a, elsewhere b. */
static inline vec negative(vec sign, vec a, vec b) {
  return _mm512_mask_blend_ps(_mm512_movepi32_mask(_mm512_castps_si512(sign)), b, a);
}

/* x * 2^n for a whole n */
static inline vec scale(vec x, vec n) { return _mm512_scalef_ps(x, n); }

#include "vector.h"

#endif
