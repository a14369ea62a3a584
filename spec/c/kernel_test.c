/*
** Every kernel, at every level this processor has, against plain formulas in double; and the
** same-bits rule. For float; kernel_f64_test.c is this for double.
*/
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../runtime/base/base.h"
#include "../../runtime/kernel/kernel.h"

#ifdef NI_F64
#define EPSILON DBL_EPSILON
#else
#define EPSILON (double)FLT_EPSILON
#endif

typedef NI_R(ni_kernels) kernels;

static int passed, failed;
static const kernels *k; /* the level under test */

static void check(bool ok, const char *format, ...) {
  if (ok) {
    passed++;
    return;
  }
  failed++;
  va_list args;
  va_start(args, format);
  printf("FAILED %s: ", k->level);
  vprintf(format, args);
  printf("\n");
  va_end(args);
}

/* ---- numbers ---- */

static double uniform(double low, double high) {
  static uint64_t state = 88172645463325252u; /* Marsaglia 2003, xorshift */
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return low + (high - low) * ((double)(state >> 11) * 0x1p-53);
}

/* Arrays with a known pattern behind them; all are looked at and freed by done. Their starts go
** through the offsets 0 to 3 from a line of the cache. */
enum { GUARD = 40 };
static struct {
  real *block, *p;
  size_t n;
} arrays[1024];
static size_t used;

static real *array(size_t n) {
  size_t offset = used % 4, bytes = (n + offset + GUARD) * sizeof(real);
  real *block = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!block || used == sizeof arrays / sizeof *arrays) {
    printf("FAILED: no memory for a test\n");
    exit(1);
  }
  real *p = block + offset;
  for (size_t i = 0; i < n; i++) p[i] = (real)uniform(-1, 1);
  for (size_t i = n; i < n + GUARD; i++) p[i] = (real)12345;
  arrays[used].block = block;
  arrays[used].p = p;
  arrays[used++].n = n;
  return p;
}

static real *copy(const real *x, size_t n) {
  real *p = array(n);
  if (n > 0) memcpy(p, x, n * sizeof(real));
  return p;
}

static void done(const char *what, size_t n) {
  bool intact = true;
  while (used > 0) {
    used--;
    for (size_t i = 0; i < GUARD; i++)
      if (arrays[used].p[arrays[used].n + i] != (real)12345) intact = false;
    free(arrays[used].block);
  }
  check(intact, "%s wrote past the end, n = %zu", what, n);
}

static bool same(const real *a, const real *b, size_t n) {
  return n == 0 || memcmp(a, b, n * sizeof(real)) == 0;
}

/* Within a few roundings of something as large as scale. */
static bool near(double got, double want, double scale) {
  return fabs(got - want) <= 8 * EPSILON * (scale + fabs(want));
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static const size_t sizes[] = {0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 131};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* ---- elementwise ---- */

typedef enum {
  EXP, TANH, SIGMOID, ADD, SUB, MUL, MUL_ADD, TANH_BACK, SIGMOID_BACK, AXPY, OPS
} op;

static const char *const names[OPS] = {"exp", "tanh",    "sigmoid",   "add",          "sub",
                                       "mul", "mul_add", "tanh_back", "sigmoid_back", "axpy"};

static void apply(op o, size_t n, const real *a, const real *b, real *y) {
  switch (o) {
    case EXP: k->exp(n, a, y); break;
    case TANH: k->tanh(n, a, y); break;
    case SIGMOID: k->sigmoid(n, a, y); break;
    case ADD: k->add(n, a, b, y); break;
    case SUB: k->sub(n, a, b, y); break;
    case MUL: k->mul(n, a, b, y); break;
    case MUL_ADD: k->mul_add(n, a, b, y); break;
    case TANH_BACK: k->tanh_back(n, a, b, y); break;
    case SIGMOID_BACK: k->sigmoid_back(n, a, b, y); break;
    default: k->axpy(n, (real)0.75, a, y);
  }
}

static double formula(op o, double a, double b, double y) {
  switch (o) {
    case EXP: return exp(a);
    case TANH: return tanh(a);
    case SIGMOID: return sigmoid(a);
    case ADD: return a + b;
    case SUB: return a - b;
    case MUL: return a * b;
    case MUL_ADD: return y + a * b;
    case TANH_BACK: return y + b * (1 - a * a);
    case SIGMOID_BACK: return y + b * a * (1 - a);
    default: return y + 0.75 * a;
  }
}

static void test_elementwise(op o) {
  for (size_t s = 0; s < SIZES; s++) {
    size_t n = sizes[s];
    for (size_t offset = 0; offset < 3; offset++) {
      array(0); /* moves on the offsets */
      real *a = array(n), *b = array(n), *y0 = array(n), *y = copy(y0, n);
      apply(o, n, a, b, y);
      bool right = true, alone = true;
      for (size_t i = 0; i < n; i++) {
        double want = formula(o, (double)a[i], (double)b[i], (double)y0[i]);
        right = right && near((double)y[i], want, 1);
        real one = y0[i];
        apply(o, 1, a + i, b + i, &one);
        alone = alone && same(&one, y + i, 1);
      }
      check(right, "%s: numbers, n = %zu", names[o], n);
      check(alone, "%s: bits depend on the place, n = %zu", names[o], n);
      if (o < MUL_ADD) {
        real *z = copy(a, n);
        apply(o, n, z, b, z);
        check(same(y, z, n), "%s: in place, n = %zu", names[o], n);
      }
      done(names[o], n);
    }
  }
}

static real at(op o, double x) {
  real y[35];
  real a[35];
  for (size_t i = 0; i < 35; i++) a[i] = (real)x;
  apply(o, 35, a, a, y);
  for (size_t i = 1; i < 35; i++)
    check(same(y, y + i, 1), "%s(%g): lanes differ", names[o], x);
  return y[0];
}

static void test_limits(void) {
  check(at(EXP, 0) == 1, "exp(0)");
  check(isinf(at(EXP, HUGE_VAL)) && at(EXP, HUGE_VAL) > 0, "exp(inf)");
  check(at(EXP, -HUGE_VAL) == 0, "exp(-inf)");
  check(isinf(at(EXP, 1000)) && at(EXP, -1000) == 0, "exp(+-1000)");
  check(at(TANH, HUGE_VAL) == 1 && at(TANH, -HUGE_VAL) == -1, "tanh(+-inf)");
  check(at(TANH, 30) == 1 && at(TANH, -30) == -1, "tanh(+-30)");
  check(at(TANH, 0) == 0 && !signbit(at(TANH, 0)) && signbit(at(TANH, -0.0)), "tanh(+-0)");
  check(at(TANH, 1e-30) == (real)1e-30 && at(TANH, -1e-30) == (real)-1e-30, "tanh(+-1e-30)");
  check(at(SIGMOID, 0) == (real)0.5, "sigmoid(0)");
  check(at(SIGMOID, HUGE_VAL) == 1 && at(SIGMOID, -HUGE_VAL) == 0, "sigmoid(+-inf)");
  check(at(SIGMOID, 1000) == 1 && at(SIGMOID, -1000) == 0, "sigmoid(+-1000)");
  for (op o = EXP; o <= SIGMOID; o++)
    check(isnan(at(o, nan(""))) && isnan(at(o, -nan(""))), "%s(nan)", names[o]);
}

#ifndef NI_F64
/* In units of the last place of the true result. What is below the normal numbers is as good as
** zero, since runs flush it. */
static double ulps(float got, double want) {
  if (got == 0 && fabs(want) < 1.0000002 * (double)FLT_MIN) return 0;
  if (isinf(got) || fabs(want) > (double)FLT_MAX) {
    double edge = 0x1.ffffffp127; /* halfway between the largest float and the next */
    return isinf(got) && fabs(want) >= edge ? 0 : got == FLT_MAX && fabs(want) < edge ? 0 : 9;
  }
  int e;
  frexp(want, &e);
  return fabs((double)got - want) / ldexp(1, (e < -125 ? -125 : e) - 24);
}

/* Every 1009th float; the bounds hold for all of them. */
static void test_precision(void) {
  /* the plain kernels are as good as the C library's functions */
  const bool plain = strcmp(k->level, "generic") == 0;
  const double bound[] = {[EXP] = 1.02, [TANH] = plain ? 2.5 : 1.75, [SIGMOID] = plain ? 2.5 : 2};
  enum { CHUNK = 1024 };
  static float x[CHUNK], y[CHUNK];
  double worst[3] = {0};
  float where[3] = {0};
  for (uint64_t bits = 0; bits < UINT64_C(1) << 32;) {
    size_t n = 0;
    for (; n < CHUNK && bits < UINT64_C(1) << 32; bits += 1009) {
      uint32_t b = (uint32_t)bits;
      memcpy(&x[n], &b, 4);
      if (!isnan(x[n])) n++;
    }
    for (op o = EXP; o <= SIGMOID; o++) {
      apply(o, n, x, x, y);
      for (size_t i = 0; i < n; i++) {
        double u = ulps(y[i], formula(o, (double)x[i], 0, 0));
        if (!(u <= worst[o])) {
          worst[o] = u;
          where[o] = x[i];
        }
      }
    }
  }
  for (op o = EXP; o <= SIGMOID; o++)
    check(worst[o] <= bound[o], "%s is off by %.2f ulp at %a, bound %.2f", names[o], worst[o],
          (double)where[o], bound[o]);
}
#endif

/* ---- sums ---- */

static void test_sums(void) {
  static const size_t more[] = {500, 1024, 1027};
  for (size_t s = 0; s < SIZES + 3; s++) {
    size_t n = s < SIZES ? sizes[s] : more[s - SIZES];
    real *x = array(n), *y = array(n), *e = array(n), *e2 = array(n);
    double sum = 0, dot = 0, most = -HUGE_VAL, all = 0;
    for (size_t i = 0; i < n; i++) {
      sum += (double)x[i];
      dot += (double)x[i] * (double)y[i];
      most = fmax(most, (double)x[i]);
      all += fabs((double)x[i]);
    }
    real got_sum = k->sum(n, x), got_dot = k->dot(n, x, y), got_max = k->max(n, x);
    check(near((double)got_sum, sum, 4 * all), "sum, n = %zu", n);
    check(near((double)got_dot, dot, 4 * all), "dot, n = %zu", n);
    check((double)got_max == most, "max, n = %zu", n);
    real shift = (real)0.3, got = k->exp_sum(n, x, shift, e), again = k->sum(n, e);
    check(same(&got, &again, 1), "exp_sum is not the sum of its results, n = %zu", n);
    bool right = true;
    for (size_t i = 0; i < n; i++)
      right = right && near((double)e[i], exp((double)x[i] - (double)shift), 1);
    check(right, "exp_sum: numbers, n = %zu", n);
    for (size_t moved = 0; moved < 3; moved++) {
      real *p = copy(x, n), *q = copy(y, n);
      real s2 = k->sum(n, p), d2 = k->dot(n, p, q), m2 = k->max(n, p);
      real t2 = k->exp_sum(n, p, shift, e2);
      check(same(&got_sum, &s2, 1) && same(&got_dot, &d2, 1) && same(&got_max, &m2, 1) &&
              same(&got, &t2, 1) && same(e, e2, n),
            "sums: bits depend on the alignment, n = %zu", n);
    }
    /* the largest in each place, below zero too */
    for (size_t i = 0; i < n; i++) {
      for (size_t j = 0; j < n; j++) e[j] = (real)-5;
      e[i] = (real)-2;
      if (k->max(n, e) != (real)-2) check(false, "max misses place %zu of %zu", i, n);
    }
    done("sums", n);
  }
}

/* Sums of columns: each has the same bits alone. */
static void test_sum_rows(void) {
  static const size_t rows[] = {0, 1, 3, 40};
  for (size_t c = 0; c < SIZES * 4; c++) {
    size_t n = sizes[c / 4], m = rows[c % 4], lda = n + 5;
    real *a = array(m * lda), *y0 = array(n), *y = copy(y0, n);
    k->sum_rows(n, m, a, lda, y);
    bool right = true, alone = true;
    for (size_t j = 0; j < n; j++) {
      double want = (double)y0[j], scale = 1;
      for (size_t i = 0; i < m; i++) {
        want += (double)a[i * lda + j];
        scale += fabs((double)a[i * lda + j]);
      }
      real one = y0[j];
      k->sum_rows(1, m, a + j, lda, &one);
      right = right && near((double)y[j], want, scale);
      alone = alone && same(&one, y + j, 1);
    }
    check(right, "sum_rows: numbers, n = %zu, %zu rows", n, m);
    check(alone, "sum_rows: bits depend on the place, n = %zu, %zu rows", n, m);
    done("sum_rows", n);
  }
}

/* Each place, and others after it, the one behind the array too, that must not be the answer. */
static void test_finite_first(void) {
  static const real bad[] = {(real)NAN, -(real)NAN, (real)INFINITY, -(real)INFINITY};
  const real most = sizeof(real) == 4 ? (real)FLT_MAX : (real)DBL_MAX;
  for (size_t s = 0; s < SIZES; s++) {
    size_t n = sizes[s];
    real *x = array(n + 1);
    x[n] = bad[s % 4];
    for (size_t i = 0; i < n; i += 3) x[i] = i % 2 ? most : -most;
    check(k->finite_first(n, x) == n, "finite_first: all are finite, n = %zu", n);
    for (size_t i = 0; i < n; i++) {
      real kept = x[i], last = x[n - 1];
      x[n - 1] = bad[(i + 1) % 4];
      x[i] = bad[i % 4];
      size_t got = k->finite_first(n, x);
      check(got == i, "finite_first: number %zu of %zu is not finite, came %zu", i, n, got);
      x[n - 1] = last;
      x[i] = kept;
    }
    done("finite_first", n);
  }
}

/* ---- products ---- */

static void product(size_t m, size_t n, size_t depth, const real *a, size_t lda, const real *w,
                    const real *bias, bool accumulate, real *c, size_t ldc) {
  k->gemm(m, n, depth, a, lda, w, bias, accumulate, c, ldc);
}

/* One N and K; M from 0 past the largest tile of any level. */
static void test_gemm(size_t n, size_t depth) {
  enum { M = 31, GAP = 3 };
  size_t lda = depth + 2, ldc = n + GAP, ldw = depth + 1;
  real *a = array(M * lda), *w = array(n * ldw), *bias = array(n), *c0 = array(M * ldc);
  real *turned = array(depth * M), *turned_w = array(depth * n + 1);
  for (size_t i = 0; i < depth; i++) {
    for (size_t r = 0; r < M; r++) turned[i * M + r] = a[r * lda + i];
    for (size_t j = 0; j < n; j++) turned_w[i * n + j] = w[j * ldw + i];
  }
  size_t need = k->packed(n, depth);
  real *p = array(need), *p2 = array(need);
  k->pack(n, depth, w, ldw, false, p);
  k->pack(n, depth, turned_w, n, true, p2);
  check(need >= n * depth && same(p, p2, need), "pack: transposed differs, %zu x %zu", n, depth);

  /* rows one by one: the numbers, and the bits that all others must have */
  real *alone[3], *c = array(M * ldc);
  for (int mode = 0; mode < 3; mode++) { /* from 0, from bias, from C */
    alone[mode] = copy(c0, M * ldc);
    bool right = true;
    for (size_t r = 0; r < M; r++) {
      real *row = alone[mode] + r * ldc;
      product(1, n, depth, a + r * lda, lda, p, mode == 1 ? bias : NULL, mode == 2, row, ldc);
      for (size_t j = 0; j < n; j++) {
        double want = mode == 0 ? 0 : mode == 1 ? (double)bias[j] : (double)c0[r * ldc + j];
        for (size_t i = 0; i < depth; i++)
          want += (double)a[r * lda + i] * (double)w[j * ldw + i];
        right = right && near((double)row[j], want, 1 + (double)depth / 8);
      }
      right = right && same(row + n, c0 + r * ldc + n, GAP);
    }
    check(right, "gemm: numbers, mode %d, N %zu, K %zu", mode, n, depth);
  }
  for (size_t m = 0; m <= M; m++)
    for (int mode = 0; mode < 3; mode++) {
      const real *start = mode == 1 ? bias : NULL;
      memcpy(c, c0, M * ldc * sizeof(real));
      product(m, n, depth, a, lda, p, start, mode == 2, c, ldc);
      bool ok = same(c, alone[mode], m * ldc) && same(c + m * ldc, c0 + m * ldc, (M - m) * ldc);
      check(ok, "gemm: bits of rows differ, mode %d, %zu x %zu x %zu", mode, m, n, depth);
    }

  real *groups = array(k->turned(M, depth)), *untouched = copy(c0, M * ldc);
  k->turn(M, depth, turned, M, groups);
  memcpy(c, c0, M * ldc * sizeof(real));
  k->outer(M, n, depth, groups, p, c, ldc);
  check(same(c, alone[2], M * ldc), "outer: not the bits of gemm, N %zu, K %zu", n, depth);
  memcpy(c, c0, M * ldc * sizeof(real)); /* from a group on, and not to the end */
  size_t from = k->group < M ? k->group : 0;
  k->turn(M - from - 1, depth, turned + from, M, groups + k->turned(from, depth));
  k->outer(M - from - 1, n, depth, groups + k->turned(from, depth), p, c + from * ldc, ldc);
  check(same(c + from * ldc, alone[2] + from * ldc, (M - from - 1) * ldc) &&
          same(c, untouched, from * ldc) &&
          same(c + (M - 1) * ldc, untouched + (M - 1) * ldc, ldc),
        "outer: part of the rows, N %zu, K %zu", n, depth);

  for (size_t r = 0; r < M; r++)
    for (size_t j = 0; j < n; j++) c[r * ldc + j] = bias[j];
  product(M, n, depth, a, lda, p, NULL, true, c, ldc);
  check(same(c, alone[1], M * ldc), "gemm: bias and accumulate differ, N %zu, K %zu", n, depth);

  /* the first columns alone; the first steps of K and then the rest */
  if (n > 1) {
    size_t part = n - n / 3;
    k->pack(part, depth, w, ldw, false, p2);
    product(M, part, depth, a, lda, p2, bias, false, c, ldc);
    bool ok = true;
    for (size_t r = 0; r < M; r++) ok = ok && same(c + r * ldc, alone[1] + r * ldc, part);
    check(ok, "gemm: bits depend on N: %zu of %zu, K %zu", part, n, depth);
  }
  size_t half = depth / 2;
  real *p3 = array(k->packed(n, depth - half));
  k->pack(n, half, w, ldw, false, p2);
  k->pack(n, depth - half, w + half, ldw, false, p3);
  product(M, n, half, a, lda, p2, bias, false, c, ldc);
  product(M, n, depth - half, a + half, lda, p3, NULL, true, c, ldc);
  bool ok = true;
  for (size_t r = 0; r < M; r++) ok = ok && same(c + r * ldc, alone[1] + r * ldc, n);
  check(ok, "gemm: K in two parts differs, N %zu, K %zu", n, depth);
  done("gemm", n);
}

#ifndef NI_F64
static void test_gemm_tn(void) {
  static const size_t shapes[][3] = {{3, 5, 7}, {1, 1, 1}, {17, 9, 150}, {0, 4, 4}, {4, 0, 4},
                                     {4, 5, 0}, {33, 40, 64}};
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
    for (int accumulate = 0; accumulate < 2; accumulate++) {
      size_t m = shapes[s][0], n = shapes[s][1], depth = shapes[s][2];
      size_t lda = m + 1, ldb = n + 2, ldc = n + 3;
      real *a = array(depth * lda), *b = array(depth * ldb), *c0 = array(m * ldc);
      real *c = copy(c0, m * ldc);
      ni_gemm_tn_f32(m, n, depth, a, lda, b, ldb, accumulate, c, ldc);
      bool right = true;
      for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
          double want = accumulate ? (double)c0[i * ldc + j] : 0;
          for (size_t r = 0; r < depth; r++)
            want += (double)a[r * lda + i] * (double)b[r * ldb + j];
          right = right && near((double)c[i * ldc + j], want, 1 + (double)depth / 8);
        }
        right = right && same(c + i * ldc + n, c0 + i * ldc + n, 3);
      }
      check(right, "gemm_tn: %zu x %zu x %zu, accumulate %d", m, n, depth, accumulate);
      done("gemm_tn", n);
    }
}
#endif

/* ---- recurrent steps ---- */

/* Column i of an array of blocks of h, gathered into one of blocks of 1. */
static void gather(size_t blocks, size_t h, size_t i, const real *from, real *to) {
  for (size_t b = 0; b < blocks; b++) to[b] = from[b * h + i];
}

static bool gathered(size_t blocks, size_t h, size_t i, const real *all, const real *one) {
  bool ok = true;
  for (size_t b = 0; b < blocks; b++) ok = ok && same(&all[b * h + i], &one[b], 1);
  return ok;
}

/* A step of M rows with I inputs, its operands at random. */
enum { STEP_M = 17, STEP_I = 5 };

typedef struct subject {
  size_t gates, h, n, m, stride;
  real *w, *u, *bias, *bias_u, *x, *before, *c_before; /* plain */
  real *sums;                                          /* bias + W x, as gemm makes it */
  NI_R(ni_step) step;                                  /* with new room for what comes out */
} subject;

/* Rows from..from+m-1 of a subject as a step of their own. */
static NI_R(ni_step) rows_of(const subject *s, size_t from, size_t m, bool inputs) {
  NI_R(ni_step) p = s->step;
  p.inputs = inputs ? STEP_I : 0;
  p.sums = copy(s->sums + from * s->stride, m * s->stride);
  p.x = s->x + from * STEP_I;
  p.before = s->before + from * s->h;
  p.c_before = s->c_before + from * s->h;
  p.gates = array(m * s->stride);
  p.tanh_c = array(m * s->h);
  p.c = array(m * s->h);
  p.h = array(m * s->h);
  p.also = array(m * s->h);
  return p;
}

static subject draw(size_t gates, size_t h) {
  subject s = {.gates = gates, .h = h, .n = gates * h, .m = STEP_M, .stride = (gates > 1 ? 4 : 1) * h + 3};
  s.w = array(s.n * STEP_I), s.u = array(s.n * h), s.bias = array(s.n), s.bias_u = array(h);
  s.x = array(s.m * STEP_I), s.before = array(s.m * h), s.c_before = array(s.m * h);
  s.sums = array(s.m * s.stride);
  for (size_t i = 0; i < s.n * h; i++) s.u[i] /= (real)(h > 8 ? 8 : 1);
  real *w = array(k->packed_gates(gates, h, STEP_I)), *u = array(k->packed_gates(gates, h, h));
  real *panels = array(k->packed(s.n, STEP_I));
  k->pack_gates(gates, h, STEP_I, 0, h, s.w, STEP_I, w);
  for (size_t from = 0, to; from < h; from = to) { /* in parts: the steps show that they fit */
    to = k->panel && h - from > k->panel ? from + k->panel : h;
    k->pack_gates(gates, h, h, from, to, s.u, h, u);
  }
  k->pack(s.n, STEP_I, s.w, STEP_I, false, panels);
  k->gemm(s.m, s.n, STEP_I, s.x, STEP_I, panels, s.bias, false, s.sums, s.stride);
  s.step = (NI_R(ni_step)){.units = h, .to = h, .stride = s.stride, .w = w, .u = u, .bias = s.bias,
                           .bias_u = s.bias_u};
  return s;
}

/* Sum of gate g, unit j, row r, over the inputs or over h'. */
static double part(const subject *s, size_t g, size_t j, size_t r, bool inputs) {
  double sum = 0;
  size_t n = inputs ? STEP_I : s->h;
  const real *w = (inputs ? s->w : s->u) + (g * s->h + j) * n;
  const real *x = (inputs ? s->x : s->before) + r * n;
  for (size_t i = 0; i < n; i++) sum += (double)w[i] * (double)x[i];
  return inputs ? sum + (double)s->bias[g * s->h + j] : sum;
}

/* All rows at once, each row alone, from the inputs and from their sums, in place: the same bits. */
static void check_rows(const char *name, const subject *s,
                       void (*kernel)(size_t, const NI_R(ni_step) *), const NI_R(ni_step) *all) {
  size_t h = s->h, stride = s->stride;
  bool ok = true;
  for (int inputs = 0; inputs < 2; inputs++)
    for (size_t r = 0, m; r < s->m; r += m) {
      m = inputs ? 1 : r < 3 ? 1 + r : 2; /* rows 0, 1..2, 3..6 and so on: other tiles */
      if (m > s->m - r) m = s->m - r;
      NI_R(ni_step) p = rows_of(s, r, m, inputs);
      p.activation = all->activation;
      if (!inputs) p.sums = p.gates = copy(s->sums + r * stride, m * stride);
      kernel(m, &p);
      ok = ok && same(p.h, all->h + r * h, m * h) && same(p.also, p.h, m * h);
      for (size_t i = 0; i < m && s->gates > 1; i++)
        ok = ok && same(p.gates + i * stride, all->gates + (r + i) * stride, 4 * h);
      if (s->gates == 4)
        ok = ok && same(p.c, all->c + r * h, m * h) && same(p.tanh_c, all->tanh_c + r * h, m * h);
      NI_R(ni_step) bare = rows_of(s, r, m, inputs);
      bare.downwards = true;
      bare.activation = all->activation;
      real *h_alone = bare.h;
      bare.gates = bare.tanh_c = bare.also = NULL;
      kernel(m, &bare);
      ok = ok && same(h_alone, p.h, m * h);
      NI_R(ni_step) cut = rows_of(s, r, m, inputs);
      cut.activation = all->activation;
      for (cut.from = 0; cut.from < h; cut.from = cut.to) {
        cut.to = k->panel && h - cut.from > k->panel ? cut.from + k->panel : h;
        kernel(m, &cut);
      }
      ok = ok && same(cut.h, p.h, m * h);
      if (s->gates != 4) continue;
      real *c = copy(s->c_before + r * h, m * h);
      bare.c_before = bare.c = c;
      kernel(m, &bare);
      ok = ok && same(c, p.c, m * h);
    }
  check(ok, "%s: bits depend on the rows, the cut, the way down, or what is asked for, H %zu", name, h);
}

static void test_elman(size_t h) {
  static const char *const acts[] = {"tanh", "relu", "sigmoid", "identity"};
  for (int act = NI_TANH; act <= NI_IDENTITY; act++) {
    subject s = draw(1, h);
    NI_R(ni_step) p = rows_of(&s, 0, s.m, true);
    p.activation = act;
    k->elman(s.m, &p);
    bool right = true;
    for (size_t r = 0; r < s.m; r++)
      for (size_t j = 0; j < h; j++) {
        double sum = part(&s, 0, j, r, true) + part(&s, 0, j, r, false);
        double want = act == NI_TANH ? tanh(sum) : act == NI_SIGMOID ? sigmoid(sum)
                      : act == NI_RELU ? fmax(sum, 0) : sum;
        right = right && near((double)p.h[r * h + j], want, 4 + (double)h / 4);
      }
    check(right, "elman %s: numbers, H %zu", acts[act], h);
    check_rows(acts[act], &s, k->elman, &p);
    for (size_t j = 0; j < h; j++) s.bias[j] = (real)NAN;
    k->elman(s.m, &p);
    for (size_t j = 0; j < h; j++) right = right && isnan(p.h[j]);
    check(right, "elman %s: NaN stays, H %zu", acts[act], h);
    done("elman", h);
  }
}

static void test_lstm(size_t h) {
  subject s = draw(4, h);
  NI_R(ni_step) p = rows_of(&s, 0, s.m, true);
  k->lstm(s.m, &p);
  bool right = true, alone = true;
  double slack = 4 + (double)h / 4;
  for (size_t r = 0; r < s.m; r++)
    for (size_t j = 0; j < h; j++) {
      double a[4];
      for (size_t q = 0; q < 4; q++) {
        double sum = part(&s, q, j, r, true) + part(&s, q, j, r, false);
        a[q] = q == 2 ? tanh(sum) : sigmoid(sum);
        right = right && near((double)p.gates[r * s.stride + q * h + j], a[q], slack);
      }
      double state = a[1] * (double)s.c_before[r * h + j] + a[0] * a[2];
      right = right && near((double)p.c[r * h + j], state, slack) &&
              near((double)p.tanh_c[r * h + j], tanh(state), slack) &&
              near((double)p.h[r * h + j], a[3] * tanh(state), slack);
    }
  check(right, "lstm: numbers, H %zu", h);
  check_rows("lstm", &s, k->lstm, &p);

  real *g = copy(p.gates, 4 * h), *prev = s.c_before, *tc = copy(p.tanh_c, h);
  real *act = copy(g, 4 * h), *dh = array(h), *dc0 = array(h), *dc = copy(dc0, h);
  k->lstm_back(h, h, g, prev, tc, dh, dc);
  right = alone = true;
  for (size_t i = 0; i < h; i++) {
    double in = (double)act[i], forget = (double)act[h + i], cell = (double)act[2 * h + i];
    double gate = (double)act[3 * h + i], t = (double)tc[i], d = (double)dh[i];
    double ds = (double)dc0[i] + d * gate * (1 - t * t);
    right = right && near((double)g[i], ds * cell * in * (1 - in), 1) &&
            near((double)g[h + i], ds * (double)prev[i] * forget * (1 - forget), 1) &&
            near((double)g[2 * h + i], ds * in * (1 - cell * cell), 1) &&
            near((double)g[3 * h + i], d * t * gate * (1 - gate), 1) &&
            near((double)dc[i], ds * forget, 1);
    real g1[4], dc1 = dc0[i];
    gather(4, h, i, act, g1);
    k->lstm_back(1, 1, g1, prev + i, tc + i, dh + i, &dc1);
    alone = alone && gathered(4, h, i, g, g1) && same(&dc1, dc + i, 1);
  }
  check(right, "lstm_back: numbers, H %zu", h);
  check(alone, "lstm_back: bits depend on the place, H %zu", h);
  done("lstm", h);
}

static void test_gru(size_t h) {
  subject s = draw(3, h);
  NI_R(ni_step) p = rows_of(&s, 0, s.m, true);
  k->gru(s.m, &p);
  bool right = true, alone = true;
  double slack = 4 + (double)h / 4;
  for (size_t r = 0; r < s.m; r++)
    for (size_t j = 0; j < h; j++) {
      double reset = sigmoid(part(&s, 0, j, r, true) + part(&s, 0, j, r, false));
      double z = sigmoid(part(&s, 1, j, r, true) + part(&s, 1, j, r, false));
      double u = part(&s, 2, j, r, false) + (double)s.bias_u[j];
      double n = tanh(part(&s, 2, j, r, true) + reset * u);
      const real *g = p.gates + r * s.stride + j;
      right = right && near((double)g[0], reset, slack) && near((double)g[h], z, slack) &&
              near((double)g[2 * h], n, slack) && near((double)g[3 * h], u, slack) &&
              near((double)p.h[r * h + j], (1 - z) * n + z * (double)s.before[r * h + j], slack);
    }
  check(right, "gru: numbers, H %zu", h);
  check_rows("gru", &s, k->gru, &p);
  NI_R(ni_step) none = rows_of(&s, 0, 1, true), zero = rows_of(&s, 0, 1, true);
  none.bias_u = NULL;
  zero.bias_u = memset(array(h), 0, h * sizeof(real));
  k->gru(1, &none);
  k->gru(1, &zero);
  check(same(none.h, zero.h, h), "gru: without a bias, H %zu", h);

  real *g = copy(p.gates, 4 * h), *act = copy(g, 4 * h), *prev = s.before, *dh = array(h);
  real *dprev = array(h);
  k->gru_back(h, h, g, prev, dh, dprev);
  right = alone = true;
  for (size_t i = 0; i < h; i++) {
    double r = (double)act[i], z = (double)act[h + i], n = (double)act[2 * h + i];
    double d = (double)dh[i], dn = d * (1 - z) * (1 - n * n);
    right = right && near((double)g[i], dn * (double)act[3 * h + i] * r * (1 - r), 1) &&
            near((double)g[h + i], d * ((double)prev[i] - n) * z * (1 - z), 1) &&
            near((double)g[2 * h + i], dn, 1) && near((double)g[3 * h + i], dn * r, 1) &&
            near((double)dprev[i], d * z, 1);
    real g1[4], dprev1;
    gather(4, h, i, act, g1);
    k->gru_back(1, 1, g1, prev + i, dh + i, &dprev1);
    alone = alone && gathered(4, h, i, g, g1) && same(&dprev1, dprev + i, 1);
  }
  check(right, "gru_back: numbers, H %zu", h);
  check(alone, "gru_back: bits depend on the place, H %zu", h);
  done("gru", h);
}

/* ---- optimizers ---- */

static void test_adam(size_t n) {
  const double scale = 0.5, rate = 0.01, b1 = 0.875, b2 = 0.96875, c1 = 0.25, c2 = 0.125;
  const double eps = 0x1p-20, coupled = 0.0625, decoupled = 0.125;
  real *p0 = array(n), *grad = array(n), *m0 = array(n), *v0 = array(n);
  for (size_t i = 0; i < n; i++) v0[i] = v0[i] * v0[i];
  real *p = copy(p0, n), *m = copy(m0, n), *v = copy(v0, n);
  k->adam(n, p, grad, (real)scale, m, v, (real)rate, (real)b1, (real)b2, (real)c1, (real)c2,
          (real)eps, (real)coupled, (real)decoupled);
  bool right = true, alone = true;
  for (size_t i = 0; i < n; i++) {
    double g = (double)grad[i] * scale + coupled * (double)p0[i];
    double mean = b1 * (double)m0[i] + (1 - b1) * g, var = b2 * (double)v0[i] + (1 - b2) * g * g;
    double step = mean / c1 / (sqrt(var / c2) + eps) + decoupled * (double)p0[i];
    right = right && near((double)m[i], mean, 1) && near((double)v[i], var, 0) &&
            near((double)p[i], (double)p0[i] - rate * step, 1);
    real p1 = p0[i], m1 = m0[i], v1 = v0[i];
    k->adam(1, &p1, grad + i, (real)scale, &m1, &v1, (real)rate, (real)b1, (real)b2, (real)c1,
            (real)c2, (real)eps, (real)coupled, (real)decoupled);
    alone = alone && same(&p1, p + i, 1) && same(&m1, m + i, 1) && same(&v1, v + i, 1);
  }
  check(right, "adam: numbers, n = %zu", n);
  check(alone, "adam: bits depend on the place, n = %zu", n);
  done("adam", n);
}

static void test_level(void) {
  static const size_t columns[] = {0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 65, 129};
  static const size_t depths[] = {0, 1, 2, 17, 64};
  for (op o = EXP; o < OPS; o++) test_elementwise(o);
  test_sum_rows();
  test_finite_first();
  test_limits();
#ifndef NI_F64
  test_precision();
#endif
  test_sums();
  for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
    for (size_t j = 0; j < sizeof depths / sizeof *depths; j++) test_gemm(columns[i], depths[j]);
  test_gemm(40, 257); /* past the blocks of K and N */
  test_gemm(33, 530);
  test_gemm(545, 300);
  for (size_t s = 0; s < SIZES; s++) {
    test_elman(sizes[s]);
    test_lstm(sizes[s]);
    test_gru(sizes[s]);
    test_adam(sizes[s]);
  }
#ifndef NI_F64
  test_gemm_tn();
#endif
}

int main(void) {
  ni_denormals_flush(); /* as all runs do */
#ifdef NI_F64
  k = ni_kernel_f64();
  test_level();
#else
  ni_blas_threads(1);
  static const char *const levels[] = {"generic", "avx2", "avx512", "neon"};
  k = ni_kernel_f32();
  const char *best = k->level;
  check(!ni_kernel_select("mmx") && !ni_kernel_select(NULL), "took an unknown level");
  check(ni_kernel_f32() == k, "a refused level changed the table");
  for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
    if (ni_kernel_select(levels[i])) {
      k = ni_kernel_f32();
      check(strcmp(k->level, levels[i]) == 0, "selected %s", levels[i]);
      test_level();
    } else {
      printf("%s: not on this processor\n", levels[i]);
      check(strcmp(best, levels[i]) != 0, "the level chosen cannot be selected");
    }
#endif
  printf("%d passed, %d failed\n", passed, failed);
  return failed > 0;
}
