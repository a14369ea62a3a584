/*
** The kernels in plain C11, for float and for double: the reference for the others, and what a
** processor without vectors that we know runs.
*/
#include <math.h>
#include <string.h>
#include <tgmath.h>

#include "kernel.h"

/* ---- products ---- */

/* Packed is [K,N]; BLOCK of its columns at a time stay in cache while the rows of A pass. */
enum { BLOCK = 128 };

static size_t packed(size_t n, size_t k) { return n * k; }

static void pack(size_t n, size_t k, const real *w, size_t ldw, bool transposed, real *to) {
  for (size_t i = 0; i < k; i++)
    for (size_t j = 0; j < n; j++) *to++ = transposed ? w[i * ldw + j] : w[j * ldw + i];
}

/* y += x[0]*w[0] + ... + x[3]*w[3], in this order; the rows of w are n apart. */
static void axpy4(size_t cols, const real x[4], const real *restrict w, size_t n,
                  real *restrict y) {
  real x0 = x[0], x1 = x[1], x2 = x[2], x3 = x[3];
  for (size_t j = 0; j < cols; j++)
    y[j] = y[j] + x0 * w[j] + x1 * w[n + j] + x2 * w[2 * n + j] + x3 * w[3 * n + j];
}

static void axpy(size_t n, real a, const real *x, real *y) {
  for (size_t i = 0; i < n; i++) y[i] += a * x[i];
}

static void gemm(size_t m, size_t n, size_t k, const real *a, size_t lda, const real *w,
                 const real *bias, bool accumulate, real *c, size_t ldc) {
  for (size_t j = 0; j < n; j += BLOCK) {
    size_t cols = n - j < BLOCK ? n - j : BLOCK;
    for (size_t r = 0; r < m; r++) {
      real *y = c + r * ldc + j;
      const real *x = a + r * lda;
      if (!accumulate && bias) memcpy(y, bias + j, cols * sizeof(real));
      if (!accumulate && !bias) memset(y, 0, cols * sizeof(real));
      size_t i = 0;
      for (; k - i >= 4; i += 4) axpy4(cols, x + i, w + i * n + j, n, y);
      for (; i < k; i++) axpy(cols, x[i], w + i * n + j, y);
    }
  }
}

static size_t turned(size_t m, size_t k) { return m * k; }

static void turn(size_t m, size_t k, const real *a, size_t lda, real *to) {
  for (size_t i = 0; i < k; i++)
    for (size_t j = 0; j < m; j++) to[j * k + i] = a[i * lda + j];
}

static void outer(size_t m, size_t n, size_t k, const real *a, const real *w, real *c, size_t ldc) {
  gemm(m, n, k, a, k, w, NULL, true, c, ldc);
}

static real dot(size_t n, const real *x, const real *y) {
  real s = 0;
  for (size_t i = 0; i < n; i++) s += x[i] * y[i];
  return s;
}

/* ---- elementwise ---- */

/* exp of a number that is not positive: neither form overflows, and small results stay exact. */
static inline real sigmoid(real x) {
  real e = exp(-fabs(x));
  return (x < 0 ? e : 1) / (1 + e);
}

static void exp_each(size_t n, const real *x, real *y) {
  for (size_t i = 0; i < n; i++) y[i] = exp(x[i]);
}

static void tanh_each(size_t n, const real *x, real *y) {
  for (size_t i = 0; i < n; i++) y[i] = tanh(x[i]);
}

static void sigmoid_each(size_t n, const real *x, real *y) {
  for (size_t i = 0; i < n; i++) y[i] = sigmoid(x[i]);
}

static void add(size_t n, const real *a, const real *b, real *y) {
  for (size_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

static void sub(size_t n, const real *a, const real *b, real *y) {
  for (size_t i = 0; i < n; i++) y[i] = a[i] - b[i];
}

static void mul(size_t n, const real *a, const real *b, real *y) {
  for (size_t i = 0; i < n; i++) y[i] = a[i] * b[i];
}

static void mul_add(size_t n, const real *a, const real *b, real *y) {
  for (size_t i = 0; i < n; i++) y[i] += a[i] * b[i];
}

static void tanh_back(size_t n, const real *y, const real *dy, real *dx) {
  for (size_t i = 0; i < n; i++) dx[i] += dy[i] * (1 - y[i] * y[i]);
}

static void sigmoid_back(size_t n, const real *y, const real *dy, real *dx) {
  for (size_t i = 0; i < n; i++) dx[i] += dy[i] * (y[i] * (1 - y[i]));
}

static real sum(size_t n, const real *x) {
  real s = 0;
  for (size_t i = 0; i < n; i++) s += x[i];
  return s;
}

static void sum_rows(size_t n, size_t rows, const real *a, size_t lda, real *y) {
  for (size_t j = 0; j < n; j++) {
    real s = 0;
    for (size_t r = 0; r < rows; r++) s += a[r * lda + j];
    y[j] += s;
  }
}

static real max(size_t n, const real *x) {
  real m = -(real)INFINITY;
  for (size_t i = 0; i < n; i++) m = x[i] > m ? x[i] : m;
  return m;
}

static size_t finite_first(size_t n, const real *x) {
  size_t i = 0;
  while (i < n && isfinite(x[i])) i++;
  return i;
}

static real exp_sum(size_t n, const real *x, real shift, real *y) {
  for (size_t i = 0; i < n; i++) y[i] = exp(x[i] - shift);
  return sum(n, y);
}

/* ---- a recurrent step ---- */

/* Packed is [K,G*H]. */
static size_t packed_gates(size_t gates, size_t h, size_t k) { return gates * h * k; }

static void pack_gates(size_t gates, size_t h, size_t k, size_t from, size_t to, const real *w,
                       size_t ldw, real *packed) {
  (void)from, (void)to; /* all: they cannot be cut */
  pack(gates * h, k, w, ldw, false, packed);
}

enum { UNITS = 32 }; /* whose sums stay in the first cache while a row of the step passes */

/* sum[g][j] += a[0..k-1] times columns g*H + j0 + j of the packed w. */
static void step_add(const NI_R(ni_step) *s, size_t gates, size_t k, const real *a, const real *w,
                     size_t j0, size_t units, real sum[4][UNITS]) {
  for (size_t i = 0; i < k; i++, w += gates * s->units)
    for (size_t g = 0; g < gates; g++) axpy(units, a[i], w + g * s->units + j0, sum[g]);
}

/* Row r of a step, units j0..: sums that are known, or bias and W x. */
static void step_start(const NI_R(ni_step) *s, size_t gates, size_t r, size_t j0, size_t units,
                       real sum[4][UNITS]) {
  const real *from = (s->inputs ? s->bias : s->sums + r * s->stride) + j0;
  for (size_t g = 0; g < gates; g++) memcpy(sum[g], from + g * s->units, units * sizeof(real));
  if (s->inputs)
    step_add(s, gates, s->inputs, s->x + r * s->inputs, s->w, j0, units, sum);
}

static void elman(size_t m, const NI_R(ni_step) *s) {
  size_t h = s->units;
  for (size_t r = 0; r < m; r++)
    for (size_t j0 = s->from, units; j0 < s->to; j0 += units) {
      real sum[4][UNITS], *y = s->h + r * h + j0;
      units = s->to - j0 < UNITS ? s->to - j0 : UNITS;
      step_start(s, 1, r, j0, units, sum);
      step_add(s, 1, h, s->before + r * h, s->u, j0, units, sum);
      for (size_t j = 0; j < units; j++) {
        real a = sum[0][j];
        y[j] = s->activation == NI_TANH      ? tanh(a)
               : s->activation == NI_SIGMOID ? sigmoid(a)
               : s->activation == NI_RELU && a <= 0 ? 0 /* NaN stays */
                                                    : a;
      }
      if (s->also) memcpy(s->also + r * h + j0, y, units * sizeof(real));
    }
}

static void lstm(size_t m, const NI_R(ni_step) *s) {
  size_t h = s->units;
  for (size_t r = 0; r < m; r++)
    for (size_t j0 = s->from, units; j0 < s->to; j0 += units) {
      real g[4][UNITS];
      units = s->to - j0 < UNITS ? s->to - j0 : UNITS;
      step_start(s, 4, r, j0, units, g);
      step_add(s, 4, h, s->before + r * h, s->u, j0, units, g);
      for (size_t j = 0; j < units; j++) {
        size_t at = r * h + j0 + j;
        g[0][j] = sigmoid(g[0][j]);
        g[1][j] = sigmoid(g[1][j]);
        g[2][j] = tanh(g[2][j]);
        g[3][j] = sigmoid(g[3][j]);
        real c = g[1][j] * s->c_before[at] + g[0][j] * g[2][j], t = tanh(c);
        s->c[at] = c;
        s->h[at] = g[3][j] * t;
        if (s->also) s->also[at] = s->h[at];
        if (s->tanh_c) s->tanh_c[at] = t;
      }
      for (size_t k = 0; s->gates && k < 4; k++)
        memcpy(s->gates + r * s->stride + k * h + j0, g[k], units * sizeof(real));
    }
}

static void lstm_back(size_t n, size_t h, real *g, const real *c_prev, const real *tc,
                      const real *dh, real *dc) {
  real *f = g + h, *u = f + h, *o = u + h;
  for (size_t i = 0; i < n; i++) {
    real in = g[i], forget = f[i], cell = u[i], out = o[i];
    real d = dc[i] + dh[i] * out * (1 - tc[i] * tc[i]);
    g[i] = d * cell * (in * (1 - in));
    f[i] = d * c_prev[i] * (forget * (1 - forget));
    u[i] = d * in * (1 - cell * cell);
    o[i] = dh[i] * tc[i] * (out * (1 - out));
    dc[i] = d * forget;
  }
}

static void gru(size_t m, const NI_R(ni_step) *s) {
  size_t h = s->units;
  for (size_t r = 0; r < m; r++)
    for (size_t j0 = s->from, units; j0 < s->to; j0 += units) {
      real g[4][UNITS], n[UNITS];
      units = s->to - j0 < UNITS ? s->to - j0 : UNITS;
      step_start(s, 3, r, j0, units, g);
      for (size_t j = 0; j < units; j++) {
        n[j] = g[2][j];
        g[2][j] = s->bias_u ? s->bias_u[j0 + j] : 0;
      }
      step_add(s, 3, h, s->before + r * h, s->u, j0, units, g);
      memcpy(g[3], g[2], units * sizeof(real));
      for (size_t j = 0; j < units; j++) {
        size_t at = r * h + j0 + j;
        g[0][j] = sigmoid(g[0][j]);
        g[1][j] = sigmoid(g[1][j]);
        g[2][j] = tanh(n[j] + g[0][j] * g[3][j]);
        s->h[at] = (1 - g[1][j]) * g[2][j] + g[1][j] * s->before[at];
        if (s->also) s->also[at] = s->h[at];
      }
      for (size_t k = 0; s->gates && k < 4; k++)
        memcpy(s->gates + r * s->stride + k * h + j0, g[k], units * sizeof(real));
    }
}

static void gru_back(size_t n, size_t h, real *g, const real *h_prev, const real *dh,
                     real *dh_prev) {
  for (size_t i = 0; i < n; i++) {
    real r = g[i], z = g[h + i], new = g[2 * h + i], d = dh[i];
    real dn = d * (1 - z) * (1 - new * new);
    g[i] = dn * g[3 * h + i] * (r * (1 - r));
    g[h + i] = d * (h_prev[i] - new) * (z * (1 - z));
    g[2 * h + i] = dn;
    g[3 * h + i] = dn * r;
    dh_prev[i] = d * z;
  }
}

/* ---- optimizers ---- */

static void adam(size_t n, real *p, const real *grad, real scale, real *m, real *v, real rate,
                 real b1, real b2, real c1, real c2, real eps, real coupled, real decoupled) {
  for (size_t i = 0; i < n; i++) {
    real g = grad[i] * scale + coupled * p[i];
    m[i] = b1 * m[i] + (1 - b1) * g;
    v[i] = b2 * v[i] + (1 - b2) * g * g;
    p[i] -= rate * (m[i] / c1 / (sqrt(v[i] / c2) + eps) + decoupled * p[i]);
  }
}

const NI_R(ni_kernels) NI_R(ni_kernels_generic) = {
  .level = "generic",
  .packed = packed,
  .pack = pack,
  .gemm = gemm,
  .group = 1,
  .turned = turned,
  .turn = turn,
  .outer = outer,
  .dot = dot,
  .axpy = axpy,
  .exp = exp_each,
  .tanh = tanh_each,
  .sigmoid = sigmoid_each,
  .add = add,
  .sub = sub,
  .mul = mul,
  .mul_add = mul_add,
  .tanh_back = tanh_back,
  .sigmoid_back = sigmoid_back,
  .sum = sum,
  .max = max,
  .sum_rows = sum_rows,
  .finite_first = finite_first,
  .exp_sum = exp_sum,
  .packed_gates = packed_gates,
  .pack_gates = pack_gates,
  .elman = elman,
  .lstm = lstm,
  .lstm_back = lstm_back,
  .gru = gru,
  .gru_back = gru_back,
  .adam = adam,
};
