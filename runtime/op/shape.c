/*
** Ops that move elements: within a row, from one space to another, along a sequence.
*/
#include <string.h>

#include "../kernel/kernel.h"
#include "util.h"

/* ---- types ---- */

#ifndef NI_F64

neap_status ni_infer_concat(ni_infer *i) {
  int axis = 0;
  neap_status rc = ni_want_axis(i, 0, "axis", &axis);
  if (rc) return rc;
  neap_type out = *i->in[0];
  int64_t sum = 0;
  for (int k = 0; k < i->n_in; k++) {
    const neap_type *t = i->in[k];
    if (!t) return ni_fail(NEAP_EARG, "input %d is missing", k + 1);
    if (t->dtype != out.dtype)
      return ni_fail(NEAP_ETYPE, "inputs must be all f32 or all i32: %s and %s",
                     ni_type_text(i, i->in[0]), ni_type_text(i, t));
    neap_type same = *t;
    if (t->rank == out.rank) same.dim[axis] = i->in[0]->dim[axis];
    if (!ni_same_features(&same, i->in[0]))
      return ni_fail(NEAP_ESHAPE, "dimensions other than the joined one must be equal: %s and %s",
                     ni_type_text(i, i->in[0]), ni_type_text(i, t));
    if (t->dim[axis] < 0)
      return ni_fail(NEAP_ESHAPE, "a dimension of no fixed size cannot be joined: %s",
                     ni_type_text(i, t));
    if (out.space < 0) out.space = t->space;
    sum += t->dim[axis];
  }
  if (sum > INT32_MAX) return ni_fail(NEAP_ESHAPE, "the result would be too wide");
  out.dim[axis] = (int32_t)sum;
  i->out[0] = out;
  return NEAP_OK;
}

neap_status ni_infer_slice(ni_infer *i) {
  int axis = 0, from = 0, to = 0;
  neap_status rc = ni_want_axis(i, 0, "axis", &axis);
  if (rc) return rc;
  i->out[0] = *i->in[0];
  int32_t n = i->in[0]->dim[axis];
  if (n < 0)
    return ni_fail(NEAP_ESHAPE, "a dimension of no fixed size cannot be cut: %s",
                   ni_type_text(i, i->in[0]));
  rc = ni_want_whole(i, 1, "from", 0, n - 1, &from);
  if (!rc) rc = ni_want_whole(i, 2, "to", from + 1, n, &to);
  i->out[0].dim[axis] = to - from;
  return rc ? ni_fail_before(rc, "x %s", ni_type_text(i, i->in[0])) : NEAP_OK;
}

/* The numbers multiplied; sizes known only at a run are counted by space. */
static int64_t elements(const neap_type *t, int *longest) {
  int64_t n = 1;
  memset(longest, 0, NEAP_MAX_SPACES * sizeof *longest);
  for (int d = 0; d < t->rank; d++) {
    if (t->dim[d] < 0)
      longest[-1 - t->dim[d]]++;
    else if (__builtin_mul_overflow(n, (int64_t)t->dim[d], &n))
      return -1;
  }
  return n;
}

neap_status ni_infer_reshape(ni_infer *i) {
  neap_type *out = &i->out[0];
  *out = *i->in[0];
  neap_status rc = ni_want_whole(i, 0, "rank", 0, NEAP_MAX_FEATURES, &out->rank);
  for (int d = 0; d < out->rank && !rc; d++) {
    int size = 1;
    rc = ni_want_whole(i, 1 + d, "a dimension", -i->n_spaces, INT32_MAX, &size);
    if (!rc && (size == 0 || size == NEAP_LONGEST(0)))
      rc = ni_fail(NEAP_ERANGE, "a dimension cannot be %d", size);
    out->dim[d] = size;
  }
  if (rc) return rc;
  int a[NEAP_MAX_SPACES], b[NEAP_MAX_SPACES];
  if (elements(i->in[0], a) == elements(out, b) && memcmp(a, b, sizeof a) == 0) return NEAP_OK;
  return ni_fail(NEAP_ESHAPE, "the number of elements in a row must stay: x %s, asked for %s",
                 ni_type_text(i, i->in[0]), ni_type_text(i, out));
}

neap_status ni_infer_transpose(ni_infer *i) {
  int a = 0, b = 0;
  neap_status rc = ni_want(i, 0, NEAP_F32, "x");
  if (!rc) rc = ni_want_axis(i, 0, "a", &a);
  if (!rc) rc = ni_want_axis(i, 1, "b", &b);
  i->out[0] = *i->in[0];
  i->out[0].dim[a] = i->in[0]->dim[b];
  i->out[0].dim[b] = i->in[0]->dim[a];
  return rc;
}

/* attr: the space, then the spaces between it and x's, going up; 0 ends them. */
neap_status ni_infer_spread(ni_infer *i) {
  int space = 0, from = i->in[0]->space;
  neap_status rc = ni_want_whole(i, 0, "space", 0, i->n_spaces - 1, &space);
  if (rc) return rc;
  i->out[0] = *i->in[0];
  i->out[0].space = space;
  int s = space, k = 0;
  for (; s >= 0 && s != from; s = i->space[s].parent)
    if (k < NI_MAX_ATTRS && i->space[s].parent >= 0) i->attr[k++] = s;
  if (k < NI_MAX_ATTRS && k > 0) i->attr[k] = 0;
  if (s == from) return NEAP_OK;
  return ni_fail(NEAP_ESHAPE, "x %s is not above '%s': its rows have no rows there",
                 ni_type_text(i, i->in[0]), i->space[space].name);
}

neap_status ni_infer_reverse(ni_infer *i) {
  int parent;
  i->out[0] = *i->in[0];
  return ni_want_sequence(i, &parent);
}

neap_status ni_infer_fold_time(ni_infer *i) {
  int parent, space = 0;
  neap_status rc = ni_want_sequence(i, &parent);
  if (!rc) rc = ni_want_whole(i, 0, "space", 1, i->n_spaces - 1, &space);
  if (rc) return rc;
  const neap_type *t = i->in[0];
  const ni_space *from = &i->space[t->space], *to = &i->space[space];
  if (t->rank != 1)
    return ni_fail(NEAP_ESHAPE, "x must be vectors, such as [T,B,8], not %s", ni_type_text(i, t));
  if (from->of != to->of || to->factor <= from->factor || to->factor % from->factor != 0)
    return ni_fail(NEAP_ESHAPE, "the steps of '%s' are not several of x %s", to->name,
                   ni_type_text(i, t));
  int64_t width = (int64_t)t->dim[0] * (to->factor / from->factor);
  if (width > INT32_MAX)
    return ni_fail(NEAP_ESHAPE, "a row would have more than %d elements", INT32_MAX);
  i->out[0] = (neap_type){t->dtype, space, 1, {(int32_t)width}};
  return NEAP_OK;
}

neap_status ni_infer_padded(ni_infer *i) {
  int parent;
  neap_status rc = ni_want_sequence(i, &parent);
  if (rc) return rc;
  const neap_type *t = i->in[0];
  if (t->rank == NEAP_MAX_FEATURES)
    return ni_fail(NEAP_ESHAPE, "x may have %d feature dimensions at most: %s",
                   NEAP_MAX_FEATURES - 1, ni_type_text(i, t));
  i->out[0] = (neap_type){t->dtype, parent, t->rank + 1, {NEAP_LONGEST(t->space)}};
  for (int d = 0; d < t->rank; d++) i->out[0].dim[d + 1] = t->dim[d];
  return NEAP_OK;
}

neap_status ni_infer_padding_mask(ni_infer *i) {
  int parent;
  neap_status rc = ni_want_sequence(i, &parent);
  i->out[0] = (neap_type){NEAP_F32, parent, 1, {NEAP_LONGEST(i->in[0]->space)}};
  return rc;
}

neap_status ni_infer_lengths(ni_infer *i) {
  int parent;
  neap_status rc = ni_want_sequence(i, &parent);
  i->out[0] = (neap_type){NEAP_F32, parent, 0, {0}};
  return rc;
}

#endif

/* ---- within a row ---- */

static void add(size_t n, const real *from, real *to) {
  NI_R(ni_kernel)()->add(n, to, from, to);
}

static void concat_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  const ni_view *out = &x->view[n->out];
  int axis = (int)n->attr[0];
  ni_axis all = ni_axis_of(x, &out->type, axis);
  size_t size = NI_R(ni_element)(out->type.dtype), line = all.n * all.inner * size, at = 0;
  for (int k = 0; k < n->n_in; k++) {
    const ni_view *in = &x->view[n->in[k]];
    size_t part = ni_axis_of(x, &in->type, axis).n * all.inner * size;
    bool rows = in->type.space == out->type.space;
    for (size_t r = r0; r < r1; r++) {
      const char *from = (const char *)in->data + (rows ? r : 0) * all.outer * part;
      char *to = (char *)out->data + r * all.outer * line + at;
      for (size_t o = 0; o < all.outer; o++) memcpy(to + o * line, from + o * part, part);
    }
    at += part;
  }
}

static void concat_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  const ni_view *out = &x->view[n->out];
  int axis = (int)n->attr[0];
  ni_axis all = ni_axis_of(x, &out->type, axis);
  size_t line = all.n * all.inner, at = 0;
  for (int k = 0; k < n->n_in; k++) {
    const ni_view *in = &x->view[n->in[k]];
    size_t part = ni_axis_of(x, &in->type, axis).n * all.inner;
    if (in->grad && in->type.space == out->type.space)
      for (size_t o = r0 * all.outer; o < r1 * all.outer; o++)
        add(part, (const real *)out->grad + o * line + at, (real *)in->grad + o * part);
    at += part;
  }
}

/* Columns from .. to-1 of the output, for the inputs in no space. */
static void concat_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  const ni_view *out = &x->view[n->out];
  int axis = (int)n->attr[0];
  ni_axis all = ni_axis_of(x, &out->type, axis);
  size_t line = all.n * all.inner, at = 0;
  for (int k = 0; k < n->n_in; k++) {
    const ni_view *in = &x->view[n->in[k]];
    size_t part = ni_axis_of(x, &in->type, axis).n * all.inner;
    for (size_t o = 0; o < all.outer && in->grad && in->type.space != out->type.space; o++) {
      size_t first = o * line + at, c0 = from > first ? from : first;
      size_t c1 = to < first + part ? to : first + part;
      if (c0 < c1)
        NI_R(ni_add_rows)(ni_rows_of(x, n->out), c1 - c0, (const real *)out->grad + c0, out->width,
                          (real *)in->grad + o * part + (c0 - first));
    }
    at += part;
  }
}

static void concat_const(const ni_exec *x, const ni_node *n) {
  for (int k = 0; k < n->n_in; k++)
    if (x->view[n->in[k]].grad && ni_space_of(x, n->in[k]) != ni_space_of(x, n->out)) {
      ni_exec_share(x, n, x->view[n->out].width, 16, concat_share);
      return;
    }
}

const ni_code NI_R(ni_code_concat) = {concat_forward, concat_backward, concat_const, NULL};

static void slice_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  const ni_view *in = &x->view[n->in[0]], *out = &x->view[n->out];
  ni_axis all = ni_axis_of(x, &in->type, (int)n->attr[0]);
  size_t size = all.inner * NI_R(ni_element)(out->type.dtype), line = all.n * size;
  size_t at = (size_t)n->attr[1] * size, part = (size_t)n->attr[2] * size - at;
  for (size_t o = r0 * all.outer; o < r1 * all.outer; o++)
    memcpy((char *)out->data + o * part, (const char *)in->data + o * line + at, part);
}

static void slice_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  const ni_view *in = &x->view[n->in[0]], *out = &x->view[n->out];
  if (!in->grad) return;
  ni_axis all = ni_axis_of(x, &in->type, (int)n->attr[0]);
  size_t line = all.n * all.inner;
  size_t at = (size_t)n->attr[1] * all.inner, part = (size_t)n->attr[2] * all.inner - at;
  for (size_t o = r0 * all.outer; o < r1 * all.outer; o++)
    add(part, (const real *)out->grad + o * part, (real *)in->grad + o * line + at);
}

const ni_code NI_R(ni_code_slice) = {slice_forward, slice_backward, NULL, NULL};

static void reshape_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  const ni_view *in = &x->view[n->in[0]], *out = &x->view[n->out];
  size_t row = out->width * NI_R(ni_element)(out->type.dtype);
  memcpy((char *)out->data + r0 * row, (const char *)in->data + r0 * row, (r1 - r0) * row);
}

static void reshape_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  const ni_view *in = &x->view[n->in[0]], *out = &x->view[n->out];
  size_t at = r0 * out->width;
  if (in->grad) add((r1 - r0) * out->width, (const real *)out->grad + at, (real *)in->grad + at);
}

const ni_code NI_R(ni_code_reshape) = {reshape_forward, reshape_backward, NULL, NULL};

/* The output's dimensions, filled up to three, and the step of each in the input's row. */
static void swapped(const ni_exec *x, const ni_node *n, size_t dim[3], size_t step[3]) {
  const neap_type *t = &x->view[n->in[0]].type;
  size_t width = 1;
  for (int d = 2; d >= 0; d--) {
    dim[d] = d < t->rank ? ni_dim(x, t->dim[d]) : 1;
    step[d] = width;
    width *= dim[d];
  }
  int a = (int)n->attr[0], b = (int)n->attr[1];
  size_t m = dim[a], s = step[a];
  dim[a] = dim[b], step[a] = step[b];
  dim[b] = m, step[b] = s;
}

static void transpose_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  size_t dim[3], step[3], width = x->view[n->out].width;
  swapped(x, n, dim, step);
  const real *from = (const real *)x->view[n->in[0]].data + r0 * width;
  real *to = (real *)x->view[n->out].data + r0 * width;
  for (size_t r = r0; r < r1; r++, from += width)
    for (size_t i = 0; i < dim[0]; i++)
      for (size_t j = 0; j < dim[1]; j++)
        for (size_t k = 0; k < dim[2]; k++)
          *to++ = from[i * step[0] + j * step[1] + k * step[2]];
}

static void transpose_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  if (!x->view[n->in[0]].grad) return;
  size_t dim[3], step[3], width = x->view[n->out].width;
  swapped(x, n, dim, step);
  real *to = (real *)x->view[n->in[0]].grad + r0 * width;
  const real *from = (const real *)x->view[n->out].grad + r0 * width;
  for (size_t r = r0; r < r1; r++, to += width)
    for (size_t i = 0; i < dim[0]; i++)
      for (size_t j = 0; j < dim[1]; j++)
        for (size_t k = 0; k < dim[2]; k++)
          to[i * step[0] + j * step[1] + k * step[2]] += *from++;
}

const ni_code NI_R(ni_code_transpose) = {transpose_forward, transpose_backward, NULL, NULL};

/* ---- from one space to another ---- */

/* The row of the input that serves a row of the output. */
static size_t above(const ni_exec *x, const ni_node *n, size_t row) {
  if (ni_space_of(x, n->in[0]) < 0) return 0;
  if (ni_space_of(x, n->in[0]) == ni_space_of(x, n->out)) return row;
  for (int k = 0; k < NI_MAX_ATTRS && n->attr[k] > 0; k++)
    row = x->rows[(int)n->attr[k]].owner[row];
  return row;
}

static void spread_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  const ni_view *in = &x->view[n->in[0]], *out = &x->view[n->out];
  size_t size = out->width * NI_R(ni_element)(out->type.dtype);
  for (size_t r = from; r < to; r++)
    memcpy((char *)out->data + r * size, (const char *)in->data + above(x, n, r) * size, size);
}

static void spread_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0;
  ni_exec_share(x, n, r1, 64, spread_share);
}

/* Columns from .. to-1, row after row. */
static void spread_back_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  const ni_view *in = &x->view[n->in[0]], *out = &x->view[n->out];
  size_t rows = ni_rows_of(x, n->out), w = out->width;
  for (size_t r = 0; r < rows; r++) {
    const real *dy = (const real *)out->grad + r * w;
    real *dx = (real *)in->grad + above(x, n, r) * w;
    for (size_t c = from; c < to; c++) dx[c] += dy[c];
  }
}

static void spread_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  const ni_view *in = &x->view[n->in[0]];
  if (in->grad && in->type.space >= 0) ni_exec_share(x, n, in->width, 16, spread_back_share);
}

static void spread_const_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  const ni_view *in = &x->view[n->in[0]], *out = &x->view[n->out];
  NI_R(ni_add_rows)(ni_rows_of(x, n->out), to - from, (const real *)out->grad + from, out->width,
                    (real *)in->grad + from);
}

static void spread_const(const ni_exec *x, const ni_node *n) {
  const ni_view *in = &x->view[n->in[0]];
  if (in->grad && in->type.space < 0) ni_exec_share(x, n, in->width, 16, spread_const_share);
}

const ni_code NI_R(ni_code_spread) = {spread_forward, spread_backward, spread_const, NULL};

/* ---- along a sequence: shares are of sorted positions ---- */

static const ni_rows *sequence(const ni_exec *x, const ni_node *n) {
  return &x->rows[ni_space_of(x, n->in[0])];
}

static void reverse_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  const ni_view *in = &x->view[n->in[0]], *out = &x->view[n->out];
  const ni_rows *q = sequence(x, n);
  size_t size = out->width * NI_R(ni_element)(out->type.dtype);
  for (size_t p = from; p < to; p++)
    for (size_t s = 0, len = q->len[q->perm[p]]; s < len; s++)
      memcpy((char *)out->data + (q->off[len - 1 - s] + p) * size,
             (const char *)in->data + (q->off[s] + p) * size, size);
}

static void reverse_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  ni_exec_share(x, n, sequence(x, n)->parents, 1, reverse_share);
}

static void reverse_back_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  const ni_view *in = &x->view[n->in[0]], *out = &x->view[n->out];
  const ni_rows *q = sequence(x, n);
  size_t w = out->width;
  for (size_t p = from; p < to; p++)
    for (size_t s = 0, len = q->len[q->perm[p]]; s < len; s++)
      add(w, (const real *)out->grad + (q->off[len - 1 - s] + p) * w,
          (real *)in->grad + (q->off[s] + p) * w);
}

static void reverse_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  if (x->view[n->in[0]].grad) ni_exec_share(x, n, sequence(x, n)->parents, 1, reverse_back_share);
}

const ni_code NI_R(ni_code_reverse) = {reverse_forward, reverse_backward, NULL, NULL};

/* Shares are of parent rows: fewer steps may sort the sequences in another order. */
static void fold_time_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  const ni_view *in = &x->view[n->in[0]], *out = &x->view[n->out];
  const ni_rows *q = sequence(x, n), *d = &x->rows[out->type.space];
  size_t size = in->width * NI_R(ni_element)(in->type.dtype), k = out->width / in->width;
  for (size_t b = from; b < to; b++)
    for (size_t u = 0; u < d->len[b]; u++) {
      char *row = (char *)out->data + (d->off[u] + d->rank[b]) * k * size;
      size_t left = q->len[b] - u * k, m = left < k ? left : k;
      for (size_t s = 0; s < m; s++)
        memcpy(row + s * size, (const char *)in->data + (q->off[u * k + s] + q->rank[b]) * size,
               size);
      memset(row + m * size, 0, (k - m) * size);
    }
}

static void fold_time_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  ni_exec_share(x, n, sequence(x, n)->parents, 1, fold_time_share);
}

static void fold_time_back_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  const ni_view *in = &x->view[n->in[0]], *out = &x->view[n->out];
  const ni_rows *q = sequence(x, n), *d = &x->rows[out->type.space];
  size_t w = in->width, k = out->width / w;
  for (size_t b = from; b < to; b++)
    for (size_t s = 0; s < q->len[b]; s++)
      add(w, (const real *)out->grad + ((d->off[s / k] + d->rank[b]) * k + s % k) * w,
          (real *)in->grad + (q->off[s] + q->rank[b]) * w);
}

static void fold_time_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  if (x->view[n->in[0]].grad) ni_exec_share(x, n, sequence(x, n)->parents, 1, fold_time_back_share);
}

const ni_code NI_R(ni_code_fold_time) = {fold_time_forward, fold_time_backward, NULL, NULL};

static void padded_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  const ni_view *in = &x->view[n->in[0]], *out = &x->view[n->out];
  const ni_rows *q = sequence(x, n);
  size_t size = in->width * NI_R(ni_element)(in->type.dtype);
  for (size_t p = from; p < to; p++) {
    char *row = (char *)out->data + q->perm[p] * q->steps * size;
    size_t len = q->len[q->perm[p]];
    for (size_t s = 0; s < len; s++)
      memcpy(row + s * size, (const char *)in->data + (q->off[s] + p) * size, size);
    memset(row + len * size, 0, (q->steps - len) * size);
  }
}

static void padded_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  ni_exec_share(x, n, sequence(x, n)->parents, 1, padded_share);
}

static void padded_back_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  const ni_view *in = &x->view[n->in[0]], *out = &x->view[n->out];
  const ni_rows *q = sequence(x, n);
  size_t w = in->width;
  for (size_t p = from; p < to; p++)
    for (size_t s = 0, len = q->len[q->perm[p]]; s < len; s++)
      add(w, (const real *)out->grad + (q->perm[p] * q->steps + s) * w,
          (real *)in->grad + (q->off[s] + p) * w);
}

static void padded_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  if (x->view[n->in[0]].grad) ni_exec_share(x, n, sequence(x, n)->parents, 1, padded_back_share);
}

const ni_code NI_R(ni_code_padded) = {padded_forward, padded_backward, NULL, NULL};

static void padding_mask_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  const ni_rows *q = sequence(x, n);
  real *y = x->view[n->out].data;
  for (size_t r = r0; r < r1; r++)
    for (size_t s = 0; s < q->steps; s++) y[r * q->steps + s] = s < q->len[r];
}

const ni_code NI_R(ni_code_padding_mask) = {padding_mask_forward, NULL, NULL, NULL};

static void lengths_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  real *y = x->view[n->out].data;
  for (size_t r = r0; r < r1; r++) y[r] = (real)sequence(x, n)->len[r];
}

const ni_code NI_R(ni_code_lengths) = {lengths_forward, NULL, NULL, NULL};
