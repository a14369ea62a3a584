/*
** The kernels for NEON on aarch64: 4 floats a vector, 32 registers. Numbers that go by whole rows
** are lanes of fmla. The tiles are the largest for which they can be loaded ahead, which processors
** that work in order need, with nothing spilled.
*/
#include "kernel.h"

#if defined(__aarch64__) && !defined(NI_F64)

#include <arm_neon.h>

#define LEVEL neon
#define W 4
#define ROWS 8
#define LSTM_ROWS 5
#define MANY_REGISTERS 1 /* 32: several activations side by side */
#define GRU_ROWS 7

typedef float32x4_t vec;

static inline vec splat(float x) { return vdupq_n_f32(x); }
static inline vec load(const float *p) { return vld1q_f32(p); }
static inline void store(float *p, vec x) { vst1q_f32(p, x); }
static inline vec fused(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
static inline vec root(vec x) { return vsqrtq_f32(x); }
/* Of a NaN and a number the NaN. */
static inline vec smaller(vec a, vec b) { return vminq_f32(a, b); }
static inline vec larger(vec a, vec b) { return vmaxq_f32(a, b); }

/* The first n lanes. There is no mask: two by two, then the last, in one place for all ends. */
#define MASKS_ARE_FREE 0
typedef size_t lanes;
static inline lanes first(size_t n) { return n; }

static __attribute__((noinline)) vec load_lanes(const float *p, lanes n) {
  if (n >= W) return load(p);
  vec x = splat(0);
  if (n & 2) x = vcombine_f32(vld1_f32(p), vget_low_f32(x));
  if (n == 1) x = vld1q_lane_f32(p, x, 0);
  if (n == 3) x = vld1q_lane_f32(p + 2, x, 2);
  return x;
}

static __attribute__((noinline)) void store_lanes(float *p, lanes n, vec x) {
  if (n >= W) {
    store(p, x);
    return;
  }
  if (n & 2) vst1_f32(p, vget_low_f32(x));
  if (n == 1) vst1q_lane_f32(p, x, 0);
  if (n == 3) vst1q_lane_f32(p + 2, x, 2);
}

/*
** The estimate has 8 bits, the same on every processor; each step of Newton's doubles them. After
** two that of 1 is 1: quotients of the smallest numbers, whose remainders are flushed, need it.
*/
static inline vec reciprocal(vec x) {
  vec r = vrecpeq_f32(x);
  r *= vrecpsq_f32(x, r);
  return r * vrecpsq_f32(x, r);
}

/* Has any lane a sign? */
static inline bool negative(vec x) { return vmaxvq_u32(vreinterpretq_u32_f32(x)) >> 31; }

/* x * 2^n for a whole n within +-250, in two steps since 2^n may not be a float. */
static inline vec scale(vec x, vec n) {
  int32x4_t whole = vcvtq_s32_f32(n), half = vshrq_n_s32(whole, 1);
  int32x4_t bias = vdupq_n_s32(127), rest = whole - half;
  x *= vreinterpretq_f32_s32(vshlq_n_s32(half + bias, 23));
  return x * vreinterpretq_f32_s32(vshlq_n_s32(rest + bias, 23));
}

/* Row j becomes column j: by numbers, then by pairs. */
static inline void transpose(vec *a) {
  float64x2_t b[W];
  for (int j = 0; j < 2; j++) {
    b[2 * j] = vreinterpretq_f64_f32(vtrn1q_f32(a[2 * j], a[2 * j + 1]));
    b[2 * j + 1] = vreinterpretq_f64_f32(vtrn2q_f32(a[2 * j], a[2 * j + 1]));
  }
  for (int j = 0; j < 2; j++) {
    a[j] = vreinterpretq_f32_f64(vtrn1q_f64(b[j], b[j + 2]));
    a[j + 2] = vreinterpretq_f32_f64(vtrn2q_f64(b[j], b[j + 2]));
  }
}

#include "vector.h"

#endif
