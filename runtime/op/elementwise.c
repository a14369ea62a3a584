/*
** Ops on single elements. Operands broadcast as in NumPy over feature dimensions; a value in no
** space serves every row. NaN goes through all of them.
*/
#include <math.h>
#include <string.h>

#include "../kernel/kernel.h"
#include "util.h"

#ifdef NI_F64
#define FN(name) name
#else
#define FN(name) name##f
#endif

/* ---- types ---- */

#ifndef NI_F64

neap_status ni_infer_unary(ni_infer *i) {
  i->out[0] = *i->in[0];
  if (strcmp(i->op->name, "clamp") == 0 && !(i->attr[0] <= i->attr[1]))
    return ni_fail(NEAP_ERANGE, "low %g is above high %g", i->attr[0], i->attr[1]);
  return ni_want(i, 0, NEAP_F32, "x");
}

neap_status ni_infer_copy(ni_infer *i) {
  i->out[0] = *i->in[0];
  if (i->op->flags & NI_RANDOM) i->out[0].dtype = NEAP_F32;
  return NEAP_OK;
}

neap_status ni_infer_cast(ni_infer *i) {
  int dtype = 0;
  neap_status rc = ni_want_whole(i, 0, "dtype", NEAP_F32, NEAP_I32, &dtype);
  i->out[0] = *i->in[0];
  if (!rc) i->out[0].dtype = (neap_dtype)dtype;
  return rc;
}

/* The common shape of inputs from .. n_in-1 and `to`, into `to`. */
static neap_status broadcast(ni_infer *i, int from, neap_type *to) {
  for (int k = from; k < i->n_in; k++) {
    const neap_type *t = i->in[k];
    neap_type common = *to;
    common.rank = t->rank > to->rank ? t->rank : to->rank;
    if (to->space < 0) common.space = t->space;
    bool fits = t->space < 0 || to->space < 0 || t->space == to->space;
    for (int d = 1; d <= common.rank; d++) {
      int32_t a = d <= to->rank ? to->dim[to->rank - d] : 1;
      int32_t b = d <= t->rank ? t->dim[t->rank - d] : 1;
      fits &= a == b || a == 1 || b == 1;
      common.dim[common.rank - d] = a == 1 ? b : a;
    }
    if (!fits)
      return ni_fail(NEAP_ESHAPE, "dimensions must be equal or 1: %s and %s do not fit",
                     ni_type_text(i, to), ni_type_text(i, t));
    *to = common;
  }
  return NEAP_OK;
}

neap_status ni_infer_binary(ni_infer *i) {
  neap_status rc = ni_want(i, 0, NEAP_F32, "a");
  if (!rc) rc = ni_want(i, 1, NEAP_F32, "b");
  i->out[0] = *i->in[0];
  return rc ? rc : broadcast(i, 1, &i->out[0]);
}

neap_status ni_infer_compare(ni_infer *i) {
  i->out[0] = *i->in[0];
  i->out[0].dtype = NEAP_F32;
  return broadcast(i, 1, &i->out[0]);
}

neap_status ni_infer_where(ni_infer *i) {
  if (i->in[1]->dtype != i->in[2]->dtype)
    return ni_fail(NEAP_ETYPE, "a and b must be both f32 or both i32, not %s and %s",
                   ni_type_text(i, i->in[1]), ni_type_text(i, i->in[2]));
  i->out[0] = *i->in[0];
  i->out[0].dtype = i->in[1]->dtype;
  return broadcast(i, 1, &i->out[0]);
}

neap_status ni_infer_same(ni_infer *i) {
  neap_status rc = ni_want(i, 0, NEAP_F32, "x");
  if (!rc) rc = ni_want(i, 1, NEAP_F32, "y");
  if (rc) return rc;
  i->out[0] = *i->in[0];
  if (i->out[0].space < 0) i->out[0].space = i->in[1]->space;
  if (ni_same_features(i->in[0], i->in[1])) return NEAP_OK;
  return ni_fail(NEAP_ESHAPE, "x and y must have the same dimensions: %s and %s",
                 ni_type_text(i, i->in[0]), ni_type_text(i, i->in[1]));
}

neap_status ni_infer_dropout(ni_infer *i) {
  i->out[0] = *i->in[0];
  neap_status rc = ni_want(i, 0, NEAP_F32, "x");
  return rc ? rc : ni_want_number(i, 1, "rate");
}

size_t ni_work_dropout(const ni_exec *x, const ni_node *n) {
  return ni_rows_of(x, n->out) * x->view[n->out].width;
}

#endif

/* ---- one operand ---- */

/* Rows r0..r1-1 as one run of n elements. */
typedef struct span {
  size_t n;
  const real *x, *y, *dy;
  real *to; /* y forward, dx backward */
  real c0, c1;
} span;

static bool open_span(span *s, const ni_exec *x, const ni_node *n, size_t r0, size_t r1,
                      bool backward) {
  const ni_view *in = &x->view[n->in[0]], *out = &x->view[n->out];
  size_t at = r0 * out->width;
  if (backward && !in->grad) return false;
  *s = (span){.n = (r1 - r0) * out->width,
              .x = (const real *)in->data + at,
              .y = (const real *)out->data + at,
              .dy = backward ? (const real *)out->grad + at : NULL,
              .to = (real *)(backward ? in->grad : out->data) + at,
              .c0 = (real)n->attr[0],
              .c1 = (real)n->attr[1]};
  return true;
}

#define X (s.x[i])
#define Y (s.y[i])
#define G (s.dy[i])
#define C0 (s.c0)
#define C1 (s.c1)

/* y = F(X) and dx += D(X, Y, G). */
#define UNARY_BACK(name, D)                                                                       \
  static void name##_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {         \
    span s;                                                                                       \
    if (!open_span(&s, x, n, r0, r1, true)) return;                                               \
    for (size_t i = 0; i < s.n; i++) s.to[i] += (D);                                              \
  }                                                                                               \
  const ni_code NI_R(ni_code_##name) = {name##_forward, name##_backward, NULL, NULL};

#define UNARY(name, F, D)                                                                         \
  static void name##_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {          \
    span s;                                                                                       \
    open_span(&s, x, n, r0, r1, false);                                                           \
    for (size_t i = 0; i < s.n; i++) s.to[i] = (F);                                               \
  }                                                                                               \
  UNARY_BACK(name, D)

/* The same where kernel.h has both. */
#define UNARY_KERNEL(name, ...)                                                                   \
  static void name##_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {          \
    span s;                                                                                       \
    open_span(&s, x, n, r0, r1, false);                                                           \
    NI_R(ni_kernel)()->name(s.n, s.x, s.to);                                                      \
  }                                                                                               \
  static void name##_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {         \
    span s;                                                                                       \
    if (open_span(&s, x, n, r0, r1, true)) NI_R(ni_kernel)()->__VA_ARGS__;                        \
  }                                                                                               \
  const ni_code NI_R(ni_code_##name) = {name##_forward, name##_backward, NULL, NULL};

static inline real logistic(real x) {
  real e = FN(exp)(-FN(fabs)(x));
  return (x < 0 ? e : 1) / (1 + e);
}
/* Phi and phi of the normal distribution. */
static inline real normal_below(real x) {
  return (real)0.5 * FN(erfc)(-x * (real)0.70710678118654752440);
}
static inline real normal_at(real x) {
  return (real)0.39894228040143267794 * FN(exp)((real)-0.5 * x * x);
}
/* Read first and then chosen, so that a loop needs no branch. */
static inline real either(bool first, real a, real b) { return first ? a : b; }
static inline real between(real x, real low, real high) {
  return x < low ? low : x > high ? high : x;
}

UNARY_KERNEL(exp, mul_add(s.n, s.dy, s.y, s.to))
UNARY_KERNEL(tanh, tanh_back(s.n, s.y, s.dy, s.to))
UNARY_KERNEL(sigmoid, sigmoid_back(s.n, s.y, s.dy, s.to))
UNARY(neg, -X, -G)
UNARY(log, FN(log)(X), G / X)
UNARY(sqrt, FN(sqrt)(X), G / (2 * Y))
UNARY(square, X * X, 2 * G * X)
UNARY(abs, FN(fabs)(X), either(X > 0, G, either(X < 0, -G, 0 * X)))
UNARY(reciprocal, 1 / X, -G * Y * Y)
UNARY(sin, FN(sin)(X), G * FN(cos)(X))
UNARY(cos, FN(cos)(X), -G * FN(sin)(X))
UNARY(relu, either(X <= 0, 0, X), either(Y <= 0, 0, G))
UNARY(leaky_relu, either(X <= 0, C0 * X, X), either(X <= 0, C0 * G, G))
UNARY(elu, X <= 0 ? C0 * FN(expm1)(X) : X, either(X <= 0, G * (Y + C0), G))
UNARY(gelu, X * normal_below(X), G * (normal_below(X) + X * normal_at(X)))
UNARY(softplus, (X < 0 ? 0 : X) + FN(log1p)(FN(exp)(-FN(fabs)(X))), G * logistic(X))
UNARY(softsign, X / (1 + FN(fabs)(X)), G / ((1 + FN(fabs)(X)) * (1 + FN(fabs)(X))))
UNARY(hard_sigmoid, between(C0 * X + C1, 0, 1),
      either((C0 * X + C1 <= 0) | (C0 * X + C1 >= 1), 0, C0 * G))
UNARY(clamp, between(X, C0, C1), either((X < C0) | (X > C1), 0, G))

#undef X
#undef Y
#undef G

/* ---- copies, casts, chance ---- */

static void copy_rows(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  const ni_view *in = &x->view[n->in[0]], *out = &x->view[n->out];
  size_t row = out->width * NI_R(ni_element)(out->type.dtype);
  memcpy((char *)out->data + r0 * row, (const char *)in->data + r0 * row, (r1 - r0) * row);
}

const ni_code NI_R(ni_code_copy) = {copy_rows, NULL, NULL, NULL};

/* Rounded towards 0; what does not fit becomes the nearest number that does, NaN becomes 0. */
static inline int32_t whole(real x) {
  return x != x                     ? 0
         : x >= (real)2147483648.0  ? INT32_MAX
         : x <= (real)-2147483648.0 ? INT32_MIN
                                    : (int32_t)x;
}

static void cast_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  const ni_view *in = &x->view[n->in[0]], *out = &x->view[n->out];
  if (in->type.dtype == out->type.dtype) {
    copy_rows(x, n, r0, r1);
    return;
  }
  size_t from = r0 * out->width, to = r1 * out->width;
  if (out->type.dtype == NEAP_I32)
    for (size_t i = from; i < to; i++)
      ((int32_t *)out->data)[i] = whole(((const real *)in->data)[i]);
  else
    for (size_t i = from; i < to; i++)
      ((real *)out->data)[i] = (real)((const int32_t *)in->data)[i];
}

const ni_code NI_R(ni_code_cast) = {cast_forward, NULL, NULL, NULL};

static void uniform_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  const ni_view *out = &x->view[n->out];
  real *y = out->data;
  float u[NI_CHUNK];
  size_t end = r1 * out->width, first = ni_first_element(x, n->out);
  for (size_t i = r0 * out->width; i < end; i += NI_CHUNK) {
    size_t m = end - i < NI_CHUNK ? end - i : NI_CHUNK;
    ni_uniform_fill(x->seed, (uint64_t)n->index, first + i, m, u);
    for (size_t j = 0; j < m; j++) y[i + j] = (real)u[j];
  }
}

const ni_code NI_R(ni_code_uniform) = {uniform_forward, NULL, NULL, NULL};

/* Srivastava et al. 2014, scaled while learning. An element's factor depends on seed, node and
** place alone; work keeps it. */
static void dropout_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  if (!x->learning) {
    copy_rows(x, n, r0, r1);
    return;
  }
  const real *in = x->view[n->in[0]].data;
  real *y = x->view[n->out].data, *factor = x->work[n->index];
  double rate = (double)*(const real *)x->view[n->in[1]].data;
  if (!(rate >= 0 && rate < 1)) {
    ni_exec_fault(x, n, NEAP_ERANGE, r0, "rate %g is not in 0 <= rate < 1", rate);
    rate = 0;
  }
  real scale = (real)(1 / (1 - rate));
  float u[NI_CHUNK];
  size_t end = r1 * x->view[n->out].width, first = ni_first_element(x, n->out);
  for (size_t i = r0 * x->view[n->out].width; i < end; i += NI_CHUNK) {
    size_t m = end - i < NI_CHUNK ? end - i : NI_CHUNK;
    ni_uniform_fill(x->seed, (uint64_t)n->index, first + i, m, u);
    for (size_t j = 0; j < m; j++) factor[i + j] = (double)u[j] < rate ? 0 : scale;
    for (size_t j = 0; j < m; j++) y[i + j] = in[i + j] * factor[i + j];
  }
}

static void dropout_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  real *dx = x->view[n->in[0]].grad;
  if (!dx) return;
  const real *dy = x->view[n->out].grad, *factor = x->work[n->index];
  size_t at = r0 * x->view[n->out].width, count = (r1 - r0) * x->view[n->out].width;
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  if (x->learning)
    k->mul_add(count, dy + at, factor + at, dx + at);
  else
    k->add(count, dx + at, dy + at, dx + at);
}

const ni_code NI_R(ni_code_dropout) = {dropout_forward, dropout_backward, NULL, NULL};

/* ---- several operands ---- */

/*
** The rows and feature dimensions of the output as a nest of loops, as few as the operands allow:
** dimensions that every operand walks through evenly are joined, so equal shapes are one long
** line and a bias is two loops. A step of 0 is a dimension that an operand is stretched over.
** Dimension 0 is a loop of one turn, so that there always is a loop.
*/
enum { OUT = 3, OPERANDS = 4, LOOPS = NEAP_MAX_FEATURES + 2 };

typedef struct nest {
  int dims, ins;
  const ni_view *view[OPERANDS];
  size_t n[LOOPS], at[LOOPS], step[OPERANDS][LOOPS], base[OPERANDS];
} nest;

static void add_loop(nest *t, size_t n, const size_t *step) {
  if (n == 1) return;
  int last = t->dims - 1;
  bool joins = last > 0;
  for (int k = 0; k < OPERANDS; k++) joins &= t->step[k][last] == step[k] * n;
  if (!joins) t->n[++last] = 1;
  t->n[last] *= n;
  for (int k = 0; k < OPERANDS; k++) t->step[k][last] = step[k];
  t->dims = last + 1;
}

/* False if there is no element. */
static bool open_nest(nest *t, const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  const neap_type *out = &x->view[n->out].type;
  size_t step[LOOPS][OPERANDS] = {{0}};
  *t = (nest){.dims = 1, .ins = n->n_in, .n = {1}};
  for (int k = 0; k < OPERANDS; k++) {
    if (k != OUT && k >= n->n_in) continue;
    const ni_view *v = t->view[k] = &x->view[k == OUT ? n->out : n->in[k]];
    size_t width = 1;
    for (int d = v->type.rank - 1, o = out->rank; d >= 0; d--, o--) {
      size_t m = ni_dim(x, v->type.dim[d]);
      step[o][k] = m == 1 ? 0 : width;
      width *= m;
    }
    step[0][k] = v->type.space == out->space ? width : 0;
    t->base[k] = r0 * step[0][k];
  }
  add_loop(t, r1 - r0, step[0]);
  for (int d = 0; d < out->rank; d++) add_loop(t, ni_dim(x, out->dim[d]), step[d + 1]);
  for (int d = 0; d < t->dims; d++)
    if (!t->n[d]) return false;
  return true;
}

/* The next turn of the loops in the set `dims`, the innermost fastest; false after the last. */
static bool next(nest *t, unsigned dims) {
  for (int d = t->dims - 1; d >= 0; d--) {
    if (!(dims >> d & 1)) continue;
    if (++t->at[d] < t->n[d]) return true;
    t->at[d] = 0;
  }
  return false;
}

static size_t place(const nest *t, int operand) {
  size_t at = t->base[operand];
  for (int d = 0; d < t->dims; d++) at += t->at[d] * t->step[operand][d];
  return at;
}

/* What one line of elements reads. Steps are 0 or 1. */
typedef struct line {
  const void *in[OUT];
  size_t step[OUT];
  neap_dtype type[OUT];
  const real *y, *dy;
} line;
typedef void (*line_fn)(size_t n, const line *l, void *to);

/* The line that begins where the loops stand, along the innermost one. */
static line line_at(const nest *t, bool backward) {
  line l = {.y = t->view[OUT]->data};
  for (int k = 0; k < t->ins; k++) {
    const ni_view *v = t->view[k];
    l.in[k] = (const char *)v->data + place(t, k) * NI_R(ni_element)(v->type.dtype);
    l.step[k] = t->step[k][t->dims - 1];
    l.type[k] = v->type.dtype;
  }
  if (backward) {
    l.y = (const real *)t->view[OUT]->data + place(t, OUT);
    l.dy = (const real *)t->view[OUT]->grad + place(t, OUT);
  }
  return l;
}

/* Rows r0..r1-1 as one line, without a nest: false unless each operand goes along with the result
** or is one number for all of it. In a loop over steps a few rows are little work. */
static bool one_line(line *l, const ni_exec *x, const ni_node *n, size_t r0, size_t r1,
                     bool backward) {
  const ni_view *out = &x->view[n->out];
  size_t at = r0 * out->width;
  for (int k = 0; k < n->n_in; k++) {
    const ni_view *v = &x->view[n->in[k]];
    bool rows = v->type.space == out->type.space, along = v->width == out->width;
    if (!rows) along &= v->type.space < 0 && r1 - r0 == 1;
    if (!along && (v->type.space >= 0 || v->width != 1)) return false;
    l->in[k] = (const char *)v->data + (rows && along ? at * NI_R(ni_element)(v->type.dtype) : 0);
    l->step[k] = along;
    l->type[k] = v->type.dtype;
  }
  l->y = (const real *)out->data + at;
  l->dy = backward ? (const real *)out->grad + at : NULL;
  return true;
}

/* n elements further on. */
static void advance(line *l, int ins, size_t n) {
  for (int k = 0; k < ins; k++)
    l->in[k] = (const char *)l->in[k] + l->step[k] * n * NI_R(ni_element)(l->type[k]);
  l->y += n;
  l->dy += n;
}

static void compute(const ni_exec *x, const ni_node *n, size_t r0, size_t r1, line_fn fn) {
  const ni_view *out = &x->view[n->out];
  line flat;
  if (one_line(&flat, x, n, r0, r1, false)) {
    fn((r1 - r0) * out->width, &flat,
       (char *)out->data + r0 * out->width * NI_R(ni_element)(out->type.dtype));
    return;
  }
  nest t;
  if (!open_nest(&t, x, n, r0, r1)) return;
  int last = t.dims - 1;
  do {
    line l = line_at(&t, false);
    fn(t.n[last], &l,
       (char *)out->data + place(&t, OUT) * NI_R(ni_element)(out->type.dtype));
  } while (next(&t, ~(1u << last)));
}

/* An operand whose gradient is the result's (place.c) has it already. */
static bool wanted(const ni_exec *x, const ni_node *n, int k, const line_fn *slope, bool same) {
  const ni_view *in = &x->view[n->in[k]], *out = &x->view[n->out];
  return slope[k] && in->grad && in->grad != out->grad &&
         (in->type.space == out->type.space) == same;
}

/* Of a sum: dy as it is. */
static void pass_line(size_t n, const line *l, void *to) { memcpy(to, l->dy, n * sizeof(real)); }

/* Adds the slope of a line to n elements of a gradient. */
static void add_line_slope(line *l, int ins, size_t n, line_fn slope, real *to) {
  real part[NI_CHUNK];
  if (slope == pass_line) {
    NI_R(ni_kernel)()->add(n, to, l->dy, to);
    return;
  }
  for (size_t c = 0; c < n; c += NI_CHUNK) {
    size_t m = n - c < NI_CHUNK ? n - c : NI_CHUNK;
    slope(m, l, part);
    NI_R(ni_kernel)()->add(m, to + c, part, to + c);
    advance(l, ins, m);
  }
}

/* slope[k] writes d(out)/d(in k) * dy of a line; NULL: none. */
static void spread_back(const ni_exec *x, const ni_node *n, size_t r0, size_t r1,
                        const line_fn *slope) {
  nest t;
  real part[NI_CHUNK];
  const neap_type *out = &x->view[n->out].type;
  bool fixed = true; /* else one by one: a longer neighbour's padding must not regroup the sum */
  for (int d = 0; d < out->rank; d++) fixed &= out->dim[d] >= 0;
  for (int k = 0; k < n->n_in; k++) {
    if (!wanted(x, n, k, slope, true)) continue;
    line flat;
    if (one_line(&flat, x, n, r0, r1, true) && flat.step[k]) {
      add_line_slope(&flat, n->n_in, (r1 - r0) * x->view[n->out].width, slope[k],
                     (real *)x->view[n->in[k]].grad + r0 * x->view[n->out].width);
      continue;
    }
    if (!open_nest(&t, x, n, r0, r1)) continue;
    int last = t.dims - 1;
    size_t count = t.n[last], step = t.step[k][last];
    do {
      for (size_t c = 0; c < count; c += NI_CHUNK) {
        t.at[last] = c;
        size_t m = count - c < NI_CHUNK ? count - c : NI_CHUNK;
        line l = line_at(&t, true);
        real *to = (real *)t.view[k]->grad + place(&t, k);
        if (step && slope[k] == pass_line) {
          NI_R(ni_kernel)()->add(m, to, l.dy, to);
          continue;
        }
        slope[k](m, &l, part);
        if (step)
          NI_R(ni_kernel)()->add(m, to, part, to);
        else if (fixed)
          *to += NI_R(ni_kernel)()->sum(m, part);
        else
          for (size_t i = 0; i < m; i++) *to += part[i];
      }
      t.at[last] = 0;
    } while (next(&t, ~(1u << last)));
  }
}

/* The innermost loop that operand k is not stretched over, 0 if it is one number. */
static int own_loop(const nest *t, int k) {
  int d = t->dims - 1;
  while (d > 0 && !t->step[k][d]) d--;
  return d;
}

/*
** The gradient of operand k in no space: elements from .. to-1 of its innermost loop, summed over
** the rows and over what it is stretched over, always in the same order.
*/
static void const_back(const ni_exec *x, const ni_node *n, int k, size_t from, size_t to,
                       line_fn slope) {
  nest t;
  if (!open_nest(&t, x, n, 0, ni_rows_of(x, n->out))) return;
  int last = t.dims - 1, own = own_loop(&t, k);
  unsigned outer = 0, inner = 0;
  for (int d = 0; d < last; d++)
    if (d != own) *(t.step[k][d] ? &outer : &inner) |= 1u << d;
  if (slope == pass_line && own == last && t.dims == 3 && !outer) { /* a bias: sums of columns */
    NI_R(ni_add_rows)(t.n[1], to - from, (const real *)t.view[OUT]->grad + from, t.step[OUT][1],
                      (real *)t.view[k]->grad + from);
    return;
  }
  real part[NI_CHUNK];
  do {
    for (size_t b = from; b < to; b += NI_COLUMNS) {
      size_t m = to - b < NI_COLUMNS ? to - b : NI_COLUMNS;
      double sum[NI_COLUMNS] = {0};
      t.at[own] = b;
      real *grad = (real *)t.view[k]->grad + place(&t, k);
      if (own == last) {
        do {
          line l = line_at(&t, true);
          slope(m, &l, part);
          for (size_t i = 0; i < m; i++) sum[i] += (double)part[i];
        } while (next(&t, inner));
      } else {
        for (size_t i = 0; i < m; i++) {
          t.at[own] = b + i;
          do {
            for (size_t c = 0; c < t.n[last]; c += NI_CHUNK) {
              t.at[last] = c;
              size_t count = t.n[last] - c < NI_CHUNK ? t.n[last] - c : NI_CHUNK;
              line l = line_at(&t, true);
              slope(count, &l, part);
              for (size_t j = 0; j < count; j++) sum[i] += (double)part[j];
            }
            t.at[last] = 0;
          } while (next(&t, inner));
        }
      }
      for (size_t i = 0; i < m; i++) grad[i * t.step[k][own]] += (real)sum[i];
    }
    t.at[own] = 0;
  } while (next(&t, outer));
}

static void const_back_all(const ni_exec *x, const ni_node *n, const line_fn *slope,
                           const ni_share *share) {
  nest t;
  for (int k = 0; k < n->n_in; k++)
    if (wanted(x, n, k, slope, false) && open_nest(&t, x, n, 0, ni_rows_of(x, n->out)))
      ni_exec_share(x, n, t.n[own_loop(&t, k)], 16, share[k]);
}

#define SEVERAL(name, line_forward, ...)                                                          \
  static const line_fn name##_slope[OUT] = {__VA_ARGS__};                                         \
  static void name##_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {          \
    compute(x, n, r0, r1, line_forward);                                                          \
  }                                                                                               \
  static void name##_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {         \
    spread_back(x, n, r0, r1, name##_slope);                                                      \
  }                                                                                               \
  static void name##_share0(const ni_exec *x, const ni_node *n, size_t from, size_t to) {         \
    const_back(x, n, 0, from, to, name##_slope[0]);                                               \
  }                                                                                               \
  static void name##_share1(const ni_exec *x, const ni_node *n, size_t from, size_t to) {         \
    const_back(x, n, 1, from, to, name##_slope[1]);                                               \
  }                                                                                               \
  static void name##_share2(const ni_exec *x, const ni_node *n, size_t from, size_t to) {         \
    const_back(x, n, 2, from, to, name##_slope[2]);                                               \
  }                                                                                               \
  static void name##_const(const ni_exec *x, const ni_node *n) {                                  \
    static const ni_share share[OUT] = {name##_share0, name##_share1, name##_share2};             \
    const_back_all(x, n, name##_slope, share);                                                    \
  }                                                                                               \
  const ni_code NI_R(ni_code_##name) = {name##_forward, name##_backward, name##_const, NULL};

#define A (a[i * sa])
#define B (b[i * sb])
#define Y (l->y[i])
#define G (l->dy[i])

/* Three loops of one expression: both operands walk, or one stands still. */
#define LINE(name, E)                                                                             \
  static inline __attribute__((always_inline)) void name##_by(size_t n, const line *l, real *to,  \
                                                              size_t sa, size_t sb) {             \
    const real *a = l->in[0], *b = l->in[1];                                                      \
    (void)a, (void)b, (void)sa, (void)sb;                                                         \
    for (size_t i = 0; i < n; i++) to[i] = (E);                                                   \
  }                                                                                               \
  static void name(size_t n, const line *l, void *to) {                                           \
    if (!l->step[0])                                                                              \
      name##_by(n, l, to, 0, 1);                                                                  \
    else if (!l->step[1])                                                                         \
      name##_by(n, l, to, 1, 0);                                                                  \
    else                                                                                          \
      name##_by(n, l, to, 1, 1);                                                                  \
  }

#define BINARY(name, F, DA, DB)                                                                   \
  LINE(name##_line, F)                                                                            \
  LINE(name##_line_a, DA)                                                                         \
  LINE(name##_line_b, DB)                                                                         \
  SEVERAL(name, name##_line, name##_line_a, name##_line_b)

#define A_ABOVE ((A >= B) | (A != A))
#define A_BELOW ((A <= B) | (A != A))

/* The same numbers from a kernel, where both operands walk. */
#define FAST(name, E, kernel, first, second)                                                      \
  LINE(name##_slow, E)                                                                            \
  static void name(size_t n, const line *l, void *to) {                                           \
    if (l->step[0] && l->step[1])                                                                 \
      NI_R(ni_kernel)()->kernel(n, first, second, to);                                            \
    else                                                                                          \
      name##_slow(n, l, to);                                                                      \
  }

FAST(add_line, A + B, add, l->in[0], l->in[1])
FAST(sub_line, A - B, sub, l->in[0], l->in[1])
FAST(mul_line, A * B, mul, l->in[0], l->in[1])
FAST(mul_line_a, G * B, mul, l->dy, l->in[1])
FAST(mul_line_b, G * A, mul, l->dy, l->in[0])
LINE(sub_line_b, -G)
SEVERAL(add, add_line, pass_line, pass_line)
SEVERAL(sub, sub_line, pass_line, sub_line_b)
SEVERAL(mul, mul_line, mul_line_a, mul_line_b)
BINARY(div, A / B, G / B, -G * Y / B)
BINARY(pow, FN(pow)(A, B), B == 0 ? 0 : G * B * FN(pow)(A, B - 1), A == 0 ? 0 : G * Y * FN(log)(A))
BINARY(maximum, either(A_ABOVE, A, B), either(A_ABOVE, G, 0), either(A_ABOVE, 0, G))
BINARY(minimum, either(A_BELOW, A, B), either(A_BELOW, G, 0), either(A_BELOW, 0, G))
BINARY(bce_with_logits, (A < 0 ? 0 : A) - A * B + FN(log1p)(FN(exp)(-FN(fabs)(A))),
       G * (logistic(A) - B), -G * A)

#undef A
#undef B
#undef G

/* ---- comparisons, choice ---- */

static inline double number(const line *l, int k, size_t i) {
  i *= l->step[k];
  return l->type[k] == NEAP_I32 ? ((const int32_t *)l->in[k])[i]
                                : (double)((const real *)l->in[k])[i];
}

#define COMPARE(name, sign)                                                                       \
  static void name##_line(size_t n, const line *l, void *to) {                                    \
    for (size_t i = 0; i < n; i++) ((real *)to)[i] = number(l, 0, i) sign number(l, 1, i);        \
  }                                                                                               \
  static void name##_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {          \
    compute(x, n, r0, r1, name##_line);                                                           \
  }                                                                                               \
  const ni_code NI_R(ni_code_##name) = {name##_forward, NULL, NULL, NULL};

COMPARE(equal, ==)
COMPARE(not_equal, !=)
COMPARE(less, <)
COMPARE(less_equal, <=)
COMPARE(greater, >)
COMPARE(greater_equal, >=)

static void where_line(size_t n, const line *l, void *to) {
  size_t sa = l->step[1], sb = l->step[2];
  if (l->type[1] == NEAP_I32)
    for (size_t i = 0; i < n; i++)
      ((int32_t *)to)[i] = number(l, 0, i) != 0 ? ((const int32_t *)l->in[1])[i * sa]
                                                : ((const int32_t *)l->in[2])[i * sb];
  else
    for (size_t i = 0; i < n; i++)
      ((real *)to)[i] = either(number(l, 0, i) != 0, ((const real *)l->in[1])[i * sa],
                               ((const real *)l->in[2])[i * sb]);
}
static void where_line_a(size_t n, const line *l, void *to) {
  for (size_t i = 0; i < n; i++) ((real *)to)[i] = either(number(l, 0, i) != 0, l->dy[i], 0);
}
static void where_line_b(size_t n, const line *l, void *to) {
  for (size_t i = 0; i < n; i++) ((real *)to)[i] = either(number(l, 0, i) != 0, 0, l->dy[i]);
}
SEVERAL(where, where_line, NULL, where_line_a, where_line_b)
