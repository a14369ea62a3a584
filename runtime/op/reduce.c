/*
** Ops that fold a feature axis, a sequence or all rows. Sums have an order fixed by the width, the
** length or the number of rows. A NaN among the elements comes out.
*/
#include <math.h>
#include <string.h>

#include "../kernel/kernel.h"
#include "util.h"

/* ---- types ---- */

#ifndef NI_F64

neap_status ni_infer_reduce(ni_infer *i) {
  const neap_type *t = i->in[0];
  int axis = 0, keep = 0;
  neap_status rc = ni_want(i, 0, NEAP_F32, "x");
  if (!rc) rc = ni_want_axis(i, 0, "axis", &axis);
  if (!rc) rc = ni_want_whole(i, 1, "keep", 0, 1, &keep);
  if (rc) return rc;
  neap_type *out = &i->out[0];
  *out = *t;
  out->rank = 0;
  for (int d = 0; d < t->rank; d++)
    if (d != axis || keep) out->dim[out->rank++] = d == axis ? 1 : t->dim[d];
  return NEAP_OK;
}

static neap_status last_axis(ni_infer *i) {
  i->out[0] = *i->in[0];
  neap_status rc = ni_want(i, 0, NEAP_F32, "x");
  if (rc || i->in[0]->rank > 0) return rc;
  return ni_fail(NEAP_ESHAPE, "x must have a feature dimension: %s", ni_type_text(i, i->in[0]));
}

neap_status ni_infer_unary_last(ni_infer *i) { return last_axis(i); }

neap_status ni_infer_masked_softmax(ni_infer *i) {
  neap_status rc = last_axis(i);
  if (!rc) rc = ni_want(i, 1, NEAP_F32, "the mask");
  if (rc) return rc;
  if (!ni_same_features(i->in[0], i->in[1]))
    return ni_fail(NEAP_ESHAPE, "x and mask must have the same dimensions: %s and %s",
                   ni_type_text(i, i->in[0]), ni_type_text(i, i->in[1]));
  if (i->in[1]->space < 0 || i->in[1]->space == i->in[0]->space) return NEAP_OK;
  return ni_fail(NEAP_ESHAPE, "x must have the rows of its mask: x %s, mask %s",
                 ni_type_text(i, i->in[0]), ni_type_text(i, i->in[1]));
}

neap_status ni_infer_layer_norm(ni_infer *i) {
  neap_status rc = last_axis(i);
  if (!rc) rc = ni_want(i, 1, NEAP_F32, "gain");
  if (!rc) rc = ni_want(i, 2, NEAP_F32, "bias");
  if (rc) return rc;
  if (!(i->attr[0] >= 0)) return ni_fail(NEAP_ERANGE, "eps must not be negative: %g", i->attr[0]);
  for (int k = 1; k <= 2; k++) {
    const neap_type *t = i->in[k];
    if (t->space >= 0 || t->rank != 1 || t->dim[0] != i->in[0]->dim[i->in[0]->rank - 1])
      return ni_fail(NEAP_ESHAPE, "%s must be as wide as x and in no space: x %s, %s %s",
                     k == 1 ? "gain" : "bias", ni_type_text(i, i->in[0]),
                     k == 1 ? "gain" : "bias", ni_type_text(i, t));
  }
  return NEAP_OK;
}

/* Mean and 1/deviation of each line. */
size_t ni_work_layer_norm(const ni_exec *x, const ni_node *n) {
  return 2 * ni_rows_of(x, n->out) * x->view[n->out].width / x->view[n->in[1]].width;
}

neap_status ni_infer_last(ni_infer *i) {
  int parent;
  neap_status rc = ni_want_sequence(i, &parent);
  if (rc) return rc;
  i->out[0] = *i->in[0];
  i->out[0].space = parent;
  if (i->n_in < 2 || !i->in[1]) return NEAP_OK;
  if ((rc = ni_want(i, 1, i->in[0]->dtype, "the value for empty sequences")) != NEAP_OK) return rc;
  if (ni_same_features(i->in[0], i->in[1]) && (i->in[1]->space < 0 || i->in[1]->space == parent))
    return NEAP_OK;
  return ni_fail(NEAP_ESHAPE, "the value for empty sequences must be %s or the same in no space, "
                 "not %s", ni_type_text(i, &i->out[0]), ni_type_text(i, i->in[1]));
}

neap_status ni_infer_over_time(ni_infer *i) {
  int parent = -1;
  neap_status rc = ni_want(i, 0, NEAP_F32, "x");
  if (!rc) rc = ni_want_sequence(i, &parent);
  i->out[0] = *i->in[0];
  i->out[0].space = parent;
  return rc;
}

/* In segments: where the one began that the largest came up in. */
size_t ni_work_max_time(const ni_exec *x, const ni_node *n) {
  const ni_rows *q = &x->rows[ni_space_of(x, n->in[0])];
  return q->whole ? q->parents * x->view[n->out].width : 0;
}

neap_status ni_infer_over_rows(ni_infer *i) {
  i->out[0] = *i->in[0];
  i->out[0].space = NEAP_NO_SPACE;
  return ni_want(i, 0, NEAP_F32, "x");
}

neap_status ni_infer_mean_rows(ni_infer *i) {
  neap_status rc = ni_infer_over_rows(i);
  if (rc || i->n_in < 2 || !i->in[1]) return rc;
  if ((rc = ni_want(i, 1, NEAP_F32, "the weights")) != NEAP_OK) return rc;
  bool ok = i->in[1]->space == i->in[0]->space;
  for (int d = 0; d < i->in[1]->rank; d++) ok &= i->in[1]->dim[d] == 1;
  if (ok) return NEAP_OK;
  return ni_fail(NEAP_ESHAPE, "the weights must be one number for each row of x: x %s, weights %s",
                 ni_type_text(i, i->in[0]), ni_type_text(i, i->in[1]));
}

/* The sum of the weights. */
size_t ni_work_mean_rows(const ni_exec *x, const ni_node *n) {
  (void)x, (void)n;
  return 1;
}

#endif

static const real *data(const ni_exec *x, int value) { return x->view[value].data; }
static real *grad(const ni_exec *x, int value) { return x->view[value].grad; }

static inline bool above(real a, real b) { return a > b || a != a; }

/* ---- over a feature axis ---- */

/* Of each block, n lines of `inner` elements become one. */
static void fold(const ni_exec *x, const ni_node *n, size_t r0, size_t r1, bool mean) {
  const neap_type *t = &x->view[n->in[0]].type;
  ni_axis a = ni_axis_of(x, t, (int)n->attr[0]);
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  /* along the longest sequence one by one: a neighbour's padding must not regroup the sum */
  bool whole = a.inner == 1 && t->dim[(int)n->attr[0]] >= 0;
  real share = mean ? (a.n ? 1 / (real)a.n : 0) : 1;
  for (size_t o = r0 * a.outer; o < r1 * a.outer; o++) {
    const real *from = data(x, n->in[0]) + o * a.n * a.inner;
    real *to = (real *)x->view[n->out].data + o * a.inner;
    if (whole) {
      *to = k->sum(a.n, from) * share;
      continue;
    }
    memset(to, 0, a.inner * sizeof *to);
    for (size_t j = 0; j < a.n; j++) k->add(a.inner, to, from + j * a.inner, to);
    for (size_t i = 0; i < a.inner && mean; i++) to[i] *= share;
  }
}

static void fold_back(const ni_exec *x, const ni_node *n, size_t r0, size_t r1, bool mean) {
  if (!grad(x, n->in[0])) return;
  ni_axis a = ni_axis_of(x, &x->view[n->in[0]].type, (int)n->attr[0]);
  real share = mean ? (a.n ? 1 / (real)a.n : 0) : 1;
  for (size_t o = r0 * a.outer; o < r1 * a.outer; o++) {
    const real *dy = grad(x, n->out) + o * a.inner;
    real *dx = grad(x, n->in[0]) + o * a.n * a.inner;
    for (size_t j = 0; j < a.n; j++)
      for (size_t i = 0; i < a.inner; i++) dx[j * a.inner + i] += dy[i] * share;
  }
}

static void sum_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  fold(x, n, r0, r1, false);
}
static void sum_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  fold_back(x, n, r0, r1, false);
}
const ni_code NI_R(ni_code_sum) = {sum_forward, sum_backward, NULL, NULL};

static void mean_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  fold(x, n, r0, r1, true);
}
static void mean_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  fold_back(x, n, r0, r1, true);
}
const ni_code NI_R(ni_code_mean) = {mean_forward, mean_backward, NULL, NULL};

static void max_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  ni_axis a = ni_axis_of(x, &x->view[n->in[0]].type, (int)n->attr[0]);
  for (size_t o = r0 * a.outer; o < r1 * a.outer; o++) {
    const real *from = data(x, n->in[0]) + o * a.n * a.inner;
    real *to = (real *)x->view[n->out].data + o * a.inner;
    for (size_t i = 0; i < a.inner; i++) to[i] = a.n ? from[i] : 0;
    for (size_t j = 1; j < a.n; j++)
      for (size_t i = 0; i < a.inner; i++)
        to[i] = above(from[j * a.inner + i], to[i]) ? from[j * a.inner + i] : to[i];
  }
}

static void max_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  if (!grad(x, n->in[0])) return;
  ni_axis a = ni_axis_of(x, &x->view[n->in[0]].type, (int)n->attr[0]);
  for (size_t o = r0 * a.outer; o < r1 * a.outer; o++)
    for (size_t i = 0; i < a.inner; i++) {
      size_t at = o * a.n * a.inner + i, y = o * a.inner + i, j = 0;
      while (j < a.n && data(x, n->in[0])[at + j * a.inner] != data(x, n->out)[y]) j++;
      if (j < a.n) grad(x, n->in[0])[at + j * a.inner] += grad(x, n->out)[y];
    }
}
const ni_code NI_R(ni_code_max) = {max_forward, max_backward, NULL, NULL};

/* ---- over the last axis: lines of n elements ---- */

typedef struct lines {
  size_t n, from, to;
} lines;
static lines lines_of(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  const neap_type *t = &x->view[n->in[0]].type;
  ni_axis a = ni_axis_of(x, t, t->rank - 1);
  return (lines){a.n, r0 * a.outer, r1 * a.outer};
}

static void softmax_line(const NI_R(ni_kernels) *k, size_t n, const real *x, real *y) {
  real sum = k->exp_sum(n, x, k->max(n, x), y);
  for (size_t i = 0; i < n; i++) y[i] /= sum;
}

/* dx += y * (dy - sum(dy*y)) */
static void softmax_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  if (!grad(x, n->in[0])) return;
  lines l = lines_of(x, n, r0, r1);
  for (size_t o = l.from; o < l.to; o++) {
    const real *y = data(x, n->out) + o * l.n, *dy = grad(x, n->out) + o * l.n;
    real *dx = grad(x, n->in[0]) + o * l.n, s = NI_R(ni_kernel)()->dot(l.n, dy, y);
    for (size_t i = 0; i < l.n; i++) dx[i] += y[i] * (dy[i] - s);
  }
}

static void softmax_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  lines l = lines_of(x, n, r0, r1);
  for (size_t o = l.from; o < l.to; o++)
    softmax_line(NI_R(ni_kernel)(), l.n, data(x, n->in[0]) + o * l.n,
                 (real *)x->view[n->out].data + o * l.n);
}
const ni_code NI_R(ni_code_softmax) = {softmax_forward, softmax_backward, NULL, NULL};

static void log_softmax_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  lines l = lines_of(x, n, r0, r1);
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  for (size_t o = l.from; o < l.to; o++) {
    const real *from = data(x, n->in[0]) + o * l.n;
    real *to = (real *)x->view[n->out].data + o * l.n, top = k->max(l.n, from);
    real sum = (real)log((double)k->exp_sum(l.n, from, top, to));
    for (size_t i = 0; i < l.n; i++) to[i] = from[i] - top - sum;
  }
}

/* dx += dy - e^y * sum(dy) */
static void log_softmax_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  if (!grad(x, n->in[0])) return;
  lines l = lines_of(x, n, r0, r1);
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  real part[NI_CHUNK];
  for (size_t o = l.from; o < l.to; o++) {
    const real *y = data(x, n->out) + o * l.n, *dy = grad(x, n->out) + o * l.n;
    real *dx = grad(x, n->in[0]) + o * l.n, s = k->sum(l.n, dy);
    for (size_t c = 0; c < l.n; c += NI_CHUNK) {
      size_t m = l.n - c < NI_CHUNK ? l.n - c : NI_CHUNK;
      k->exp(m, y + c, part);
      for (size_t i = 0; i < m; i++) dx[c + i] += dy[c + i] - part[i] * s;
    }
  }
}
const ni_code NI_R(ni_code_log_softmax) = {log_softmax_forward, log_softmax_backward, NULL, NULL};

/* What the mask leaves is packed to the front of y first: so the sum has the same bits whatever
** stands around it, such as a longer neighbour's padding. */
static void masked_softmax_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  lines l = lines_of(x, n, r0, r1);
  bool rows = ni_space_of(x, n->in[1]) == ni_space_of(x, n->in[0]);
  size_t each = rows || r1 == r0 ? 0 : (l.to - l.from) / (r1 - r0);
  for (size_t o = l.from; o < l.to; o++) {
    const real *from = data(x, n->in[0]) + o * l.n;
    const real *mask = data(x, n->in[1]) + (rows ? o : o % each) * l.n;
    real *to = (real *)x->view[n->out].data + o * l.n;
    size_t left = 0;
    for (size_t i = 0; i < l.n; i++)
      if (mask[i] != 0) to[left++] = from[i];
    softmax_line(NI_R(ni_kernel)(), left, to, to);
    for (size_t i = l.n; i-- > 0;) to[i] = mask[i] != 0 ? to[--left] : 0;
  }
}
/* As of softmax, but the sum goes over what the mask left, one by one: the same bits again. */
static void masked_softmax_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  if (!grad(x, n->in[0])) return;
  lines l = lines_of(x, n, r0, r1);
  for (size_t o = l.from; o < l.to; o++) {
    const real *y = data(x, n->out) + o * l.n, *dy = grad(x, n->out) + o * l.n;
    real *dx = grad(x, n->in[0]) + o * l.n, s = 0;
    for (size_t i = 0; i < l.n; i++)
      if (y[i] != 0) s += dy[i] * y[i];
    for (size_t i = 0; i < l.n; i++) dx[i] += y[i] * (dy[i] - s);
  }
}
const ni_code NI_R(ni_code_masked_softmax) = {masked_softmax_forward, masked_softmax_backward, NULL,
                                              NULL};

/* Ba et al. 2016, "Layer normalization". */
static void layer_norm_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  lines l = lines_of(x, n, r0, r1);
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  const real *gain = data(x, n->in[1]), *bias = data(x, n->in[2]);
  real *keep = x->work[n->index];
  for (size_t o = l.from; o < l.to; o++) {
    const real *from = data(x, n->in[0]) + o * l.n;
    real *to = (real *)x->view[n->out].data + o * l.n;
    real mean = k->sum(l.n, from) / (real)l.n;
    for (size_t i = 0; i < l.n; i++) to[i] = from[i] - mean;
    real scale = (real)(1 / sqrt((double)(k->dot(l.n, to, to) / (real)l.n) + n->attr[0]));
    for (size_t i = 0; i < l.n; i++) to[i] = to[i] * scale * gain[i] + bias[i];
    keep[2 * o] = mean;
    keep[2 * o + 1] = scale;
  }
}

/* With u = (x-mean)*scale and g = dy*gain: dx += scale * (g - mean(g) - u * mean(g*u)). */
static void layer_norm_rows(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  lines l = lines_of(x, n, r0, r1);
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  const real *gain = data(x, n->in[1]), *keep = x->work[n->index];
  real g[NI_CHUNK], u[NI_CHUNK];
  for (size_t o = l.from; o < l.to; o++) {
    const real *from = data(x, n->in[0]) + o * l.n, *dy = grad(x, n->out) + o * l.n;
    real *dx = grad(x, n->in[0]) + o * l.n;
    real mean = keep[2 * o], scale = keep[2 * o + 1], sg = 0, sgu = 0;
    for (size_t c = 0; c < l.n; c += NI_CHUNK) {
      size_t m = l.n - c < NI_CHUNK ? l.n - c : NI_CHUNK;
      for (size_t i = 0; i < m; i++) g[i] = dy[c + i] * gain[c + i];
      for (size_t i = 0; i < m; i++) u[i] = (from[c + i] - mean) * scale;
      sg += k->sum(m, g);
      sgu += k->dot(m, g, u);
    }
    sg /= (real)l.n;
    sgu /= (real)l.n;
    for (size_t i = 0; i < l.n; i++)
      dx[i] += scale * (dy[i] * gain[i] - sg - (from[i] - mean) * scale * sgu);
  }
}

/* Columns from .. to-1 of the gradients of gain and bias. */
static void layer_norm_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  lines l = lines_of(x, n, 0, ni_rows_of(x, n->out));
  const real *in = data(x, n->in[0]), *dy = grad(x, n->out), *keep = x->work[n->index];
  real *dgain = grad(x, n->in[1]), *dbias = grad(x, n->in[2]);
  if (dbias) NI_R(ni_add_rows)(l.to, to - from, dy + from, l.n, dbias + from);
  for (size_t c = from; c < to && dgain; c += NI_COLUMNS) {
    size_t m = to - c < NI_COLUMNS ? to - c : NI_COLUMNS;
    double sum[NI_COLUMNS] = {0};
    for (size_t o = 0; o < l.to; o++)
      for (size_t i = 0; i < m; i++)
        sum[i] += (double)(dy[o * l.n + c + i] * ((in[o * l.n + c + i] - keep[2 * o]) *
                                                  keep[2 * o + 1]));
    for (size_t i = 0; i < m; i++) dgain[c + i] += (real)sum[i];
  }
}

static void layer_norm_const(const ni_exec *x, const ni_node *n) {
  if (ni_space_of(x, n->out) >= 0 && (grad(x, n->in[1]) || grad(x, n->in[2])))
    ni_exec_share(x, n, x->view[n->in[1]].width, 16, layer_norm_share);
}

static void layer_norm_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  if (grad(x, n->in[0])) layer_norm_rows(x, n, r0, r1);
  if (ni_space_of(x, n->out) < 0) layer_norm_share(x, n, 0, x->view[n->in[1]].width);
}
const ni_code NI_R(ni_code_layer_norm) = {layer_norm_forward, layer_norm_backward,
                                          layer_norm_const, NULL};

/* ---- over a sequence: shares are of sorted positions ---- */

static const ni_rows *sequence(const ni_exec *x, const ni_node *n) {
  return &x->rows[ni_space_of(x, n->in[0])];
}

static void over_time(const ni_exec *x, const ni_node *n, ni_share fn) {
  ni_exec_share(x, n, sequence(x, n)->parents, 1, fn);
}

/* The row of the last step of sorted position p; false if there is none. */
static bool last_row(const ni_rows *q, size_t p, size_t *row) {
  size_t len = q->len[q->perm[p]];
  if (len) *row = q->off[len - 1] + p;
  return len > 0;
}

static void last_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  const ni_rows *q = sequence(x, n);
  const ni_view *out = &x->view[n->out];
  const ni_view *other = n->n_in > 1 && n->in[1] >= 0 ? &x->view[n->in[1]] : NULL;
  size_t size = out->width * NI_R(ni_element)(out->type.dtype), row;
  for (size_t p = from; p < to; p++) {
    char *y = (char *)out->data + q->perm[p] * size;
    if (last_row(q, p, &row)) /* so far: a later segment may have a later one */
      memcpy(y, (const char *)x->view[n->in[0]].data + row * size, size);
    else if (q->step)
      continue;
    else if (other)
      memcpy(y, (const char *)other->data + (other->type.space < 0 ? 0 : q->perm[p]) * size, size);
    else
      memset(y, 0, size);
  }
}

static void last_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  over_time(x, n, last_share);
}

/* Adds the gradient of each sequence's last step to x, or of the empty ones to `other`. */
static void last_back(const ni_exec *x, const ni_node *n, real *dx, real *other, bool rows) {
  const ni_rows *q = sequence(x, n);
  size_t w = x->view[n->out].width, row;
  for (size_t p = 0; p < q->parents; p++) {
    const real *dy = grad(x, n->out) + q->perm[p] * w;
    real *to = NULL;
    if (ni_ends_here(q, q->perm[p])) {
      if (dx && last_row(q, p, &row)) to = dx + row * w;
    } else if (other && !q->step && !q->len[q->perm[p]]) {
      to = other + (rows ? q->perm[p] * w : 0);
    }
    if (to) NI_R(ni_kernel)()->add(w, to, dy, to);
  }
}

static real *other_grad(const ni_exec *x, const ni_node *n, bool rows) {
  if (n->n_in < 2 || n->in[1] < 0 || (ni_space_of(x, n->in[1]) >= 0) != rows) return NULL;
  return grad(x, n->in[1]);
}

static void last_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  last_back(x, n, grad(x, n->in[0]), other_grad(x, n, true), true);
}

static void last_const(const ni_exec *x, const ni_node *n) {
  real *other = other_grad(x, n, false);
  if (other) last_back(x, n, NULL, other, false);
}
const ni_code NI_R(ni_code_last) = {last_forward, last_backward, last_const, NULL};

static inline real part_of(const ni_rows *q, size_t parent, bool mean) {
  return mean ? 1 / (real)ni_whole_length(q, parent) : 1;
}

static void add_steps(const ni_exec *x, const ni_node *n, size_t from, size_t to, bool mean) {
  const ni_rows *q = sequence(x, n);
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  size_t w = x->view[n->out].width;
  for (size_t p = from; p < to; p++) {
    real *y = (real *)x->view[n->out].data + q->perm[p] * w;
    size_t len = q->len[q->perm[p]];
    if (!q->step) memset(y, 0, w * sizeof *y);
    for (size_t s = 0; s < len; s++) k->add(w, y, data(x, n->in[0]) + (q->off[s] + p) * w, y);
    if (!mean || !ni_ends_here(q, q->perm[p])) continue;
    for (size_t c = 0; c < w; c++) y[c] *= part_of(q, q->perm[p], true);
  }
}

static void add_steps_back(const ni_exec *x, const ni_node *n, size_t from, size_t to, bool mean) {
  const ni_rows *q = sequence(x, n);
  size_t w = x->view[n->out].width;
  for (size_t p = from; p < to; p++)
    for (size_t s = 0, len = q->len[q->perm[p]]; s < len; s++)
      NI_R(ni_kernel)()->axpy(w, part_of(q, q->perm[p], mean), grad(x, n->out) + q->perm[p] * w,
                              grad(x, n->in[0]) + (q->off[s] + p) * w);
}

static void max_steps(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  const ni_rows *q = sequence(x, n);
  size_t w = x->view[n->out].width;
  for (size_t p = from; p < to; p++) {
    real *y = (real *)x->view[n->out].data + q->perm[p] * w;
    real *since = q->whole ? (real *)x->work[n->index] + q->perm[p] * w : NULL;
    if (!q->step) memset(y, 0, w * sizeof *y);
    for (size_t s = 0, len = q->len[q->perm[p]]; s < len; s++) {
      const real *in = data(x, n->in[0]) + (q->off[s] + p) * w;
      bool first = q->step + s == 0;
      for (size_t c = 0; c < w && since; c++)
        if (first || above(in[c], y[c])) since[c] = (real)q->step;
      for (size_t c = 0; c < w; c++) y[c] = first || above(in[c], y[c]) ? in[c] : y[c];
    }
  }
}

static void max_steps_back(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  const ni_rows *q = sequence(x, n);
  size_t w = x->view[n->out].width;
  for (size_t p = from; p < to; p++)
    for (size_t c = 0; c < w; c++) {
      size_t y = q->perm[p] * w + c, s = 0, len = q->len[q->perm[p]];
      if (q->whole && ((real *)x->work[n->index])[y] != (real)q->step) continue;
      while (s < len && data(x, n->in[0])[(q->off[s] + p) * w + c] != data(x, n->out)[y]) s++;
      if (s < len) grad(x, n->in[0])[(q->off[s] + p) * w + c] += grad(x, n->out)[y];
    }
}

#define OVER_TIME(name, FORWARD, BACKWARD)                                                        \
  static void name##_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {          \
    FORWARD;                                                                                      \
  }                                                                                               \
  static void name##_share_back(const ni_exec *x, const ni_node *n, size_t from, size_t to) {     \
    BACKWARD;                                                                                     \
  }                                                                                               \
  static void name##_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {          \
    (void)r0, (void)r1;                                                                           \
    over_time(x, n, name##_share);                                                                \
  }                                                                                               \
  static void name##_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {         \
    (void)r0, (void)r1;                                                                           \
    if (grad(x, n->in[0])) over_time(x, n, name##_share_back);                                    \
  }                                                                                               \
  const ni_code NI_R(ni_code_##name) = {name##_forward, name##_backward, NULL, NULL};

OVER_TIME(sum_time, add_steps(x, n, from, to, false), add_steps_back(x, n, from, to, false))
OVER_TIME(mean_time, add_steps(x, n, from, to, true), add_steps_back(x, n, from, to, true))
OVER_TIME(max_time, max_steps(x, n, from, to), max_steps_back(x, n, from, to))

/* ---- over all rows: shares are of columns forward, of rows backward ---- */

/* Rows that came before these, and come after them, in other segments. */
static size_t rows_before(const ni_exec *x, const ni_node *n) {
  return ni_space_of(x, n->in[0]) < 0 ? 0 : sequence(x, n)->row;
}
static size_t rows_later(const ni_exec *x, const ni_node *n) {
  return ni_space_of(x, n->in[0]) < 0 ? 0 : sequence(x, n)->later;
}

static void sum_rows_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  real *y = x->view[n->out].data;
  if (!rows_before(x, n)) memset(y + from, 0, (to - from) * sizeof *y);
  NI_R(ni_add_rows)(ni_rows_of(x, n->in[0]), to - from, data(x, n->in[0]) + from,
                    x->view[n->out].width, y + from);
}

static void sum_rows_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  ni_exec_share(x, n, x->view[n->out].width, 16, sum_rows_share);
}

static void sum_rows_share_back(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  size_t w = x->view[n->out].width;
  for (size_t r = from; r < to; r++) {
    real *dx = grad(x, n->in[0]) + r * w;
    NI_R(ni_kernel)()->add(w, dx, grad(x, n->out), dx);
  }
}

static void sum_rows_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  if (grad(x, n->in[0])) ni_exec_share(x, n, ni_rows_of(x, n->in[0]), 64, sum_rows_share_back);
}
const ni_code NI_R(ni_code_sum_rows) = {sum_rows_forward, sum_rows_backward, NULL, NULL};

static const real *weights(const ni_exec *x, const ni_node *n) {
  return n->n_in > 1 && n->in[1] >= 0 ? data(x, n->in[1]) : NULL;
}

static void mean_rows_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  size_t rows = ni_rows_of(x, n->in[0]), w = x->view[n->out].width;
  const real *in = data(x, n->in[0]), *weight = weights(x, n);
  real *y = x->view[n->out].data;
  double total = (double)*(real *)x->work[n->index];
  bool goes_on = rows_before(x, n) > 0, ends = rows_later(x, n) == 0;
  for (size_t c = from; c < to; c += NI_COLUMNS) {
    size_t m = to - c < NI_COLUMNS ? to - c : NI_COLUMNS;
    double sum[NI_COLUMNS] = {0};
    for (size_t i = 0; i < m && goes_on; i++) sum[i] = (double)y[c + i];
    for (size_t r = 0; r < rows; r++) {
      double a = weight ? (double)weight[r] : 1;
      if (a == 0) continue;
      for (size_t i = 0; i < m; i++) sum[i] += a * (double)in[r * w + c + i];
    }
    for (size_t i = 0; i < m; i++)
      y[c + i] = (real)(!ends ? sum[i] : total == 0 ? 0 : sum[i] / total);
  }
}

static void mean_rows_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  size_t rows = ni_rows_of(x, n->in[0]);
  const real *weight = weights(x, n);
  real *sum = x->work[n->index];
  double total = rows_before(x, n) ? (double)*sum : 0;
  if (!weight) total += (double)rows;
  for (size_t r = 0; r < rows && weight; r++) total += (double)weight[r];
  *sum = (real)total;
  ni_exec_share(x, n, x->view[n->out].width, 16, mean_rows_share);
}

/* dx += dy * w/sum(w); dw += sum(dy * (x - y)) / sum(w) */
static void mean_rows_share_back(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  size_t w = x->view[n->out].width;
  const real *dy = grad(x, n->out), *weight = weights(x, n);
  real *dx = grad(x, n->in[0]), *dweight = weight ? grad(x, n->in[1]) : NULL;
  real total = *(real *)x->work[n->index];
  for (size_t r = from; r < to; r++) {
    if (dx) NI_R(ni_kernel)()->axpy(w, (weight ? weight[r] : 1) / total, dy, dx + r * w);
    double sum = 0;
    for (size_t c = 0; c < w && dweight; c++)
      sum += (double)dy[c] * (double)(data(x, n->in[0])[r * w + c] - data(x, n->out)[c]);
    if (dweight) dweight[r] += (real)(sum / (double)total);
  }
}

static void mean_rows_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  if (*(real *)x->work[n->index] != 0)
    ni_exec_share(x, n, ni_rows_of(x, n->in[0]), 64, mean_rows_share_back);
}
const ni_code NI_R(ni_code_mean_rows) = {mean_rows_forward, mean_rows_backward, NULL, NULL};
