/*
** Ops on ids: looking rows up, picking one of many, and the loss of a pick.
*/
#include <math.h>
#include <string.h>

#include "../kernel/kernel.h"
#include "util.h"

/* ---- types ---- */

#ifndef NI_F64

/* The type of the ids with one more dimension. */
static neap_status widen(ni_infer *i, int32_t size) {
  neap_type *out = &i->out[0];
  *out = *i->in[0];
  neap_status rc = ni_want(i, 0, NEAP_I32, "ids");
  if (!rc && out->rank == NEAP_MAX_FEATURES)
    rc = ni_fail(NEAP_ESHAPE, "ids may have %d feature dimensions at most: %s",
                 NEAP_MAX_FEATURES - 1, ni_type_text(i, i->in[0]));
  if (rc) return rc;
  out->dtype = NEAP_F32;
  out->dim[out->rank++] = size;
  return NEAP_OK;
}

neap_status ni_infer_embedding(ni_infer *i) {
  const neap_type *t = i->in[1];
  neap_status rc = ni_want(i, 1, NEAP_F32, "the table");
  if (!rc && (t->space >= 0 || t->rank != 2 || t->dim[0] < 1 || t->dim[1] < 1))
    rc = ni_fail(NEAP_ESHAPE, "the table must be [V,w] in no space, not %s", ni_type_text(i, t));
  return rc ? rc : widen(i, t->dim[1]);
}

neap_status ni_infer_gather(ni_infer *i) {
  const neap_type *x = i->in[0], *ids = i->in[1];
  neap_status rc = ni_want(i, 0, NEAP_F32, "x");
  if (!rc) rc = ni_want(i, 1, NEAP_I32, "ids");
  if (rc) return rc;
  if (x->rank == 0)
    return ni_fail(NEAP_ESHAPE, "x must have a feature dimension: %s", ni_type_text(i, x));
  if (x->space >= 0 && ids->space >= 0 && x->space != ids->space)
    return ni_fail(NEAP_ESHAPE, "rows differ: x %s, ids %s", ni_type_text(i, x),
                   ni_type_text(i, ids));
  if (ids->rank + x->rank - 1 > NEAP_MAX_FEATURES)
    return ni_fail(NEAP_ESHAPE, "the result may have %d feature dimensions at most: x %s, ids %s",
                   NEAP_MAX_FEATURES, ni_type_text(i, x), ni_type_text(i, ids));
  neap_type *out = &i->out[0];
  *out = *ids;
  out->dtype = NEAP_F32;
  if (x->space >= 0) out->space = x->space;
  for (int k = 1; k < x->rank; k++) out->dim[out->rank++] = x->dim[k];
  return NEAP_OK;
}

neap_status ni_infer_scatter(ni_infer *i) {
  const neap_type *x = i->in[0], *ids = i->in[1];
  int size = 0;
  neap_status rc = ni_want(i, 0, NEAP_F32, "x");
  if (!rc) rc = ni_want(i, 1, NEAP_I32, "ids");
  if (!rc) rc = ni_want_whole(i, 0, "size", 1, INT32_MAX, &size);
  if (rc) return rc;
  if (x->rank == 0 || x->space != ids->space || !ni_same_features(x, ids))
    return ni_fail(NEAP_ESHAPE, "x and ids must have the same shape, with a feature dimension: x %s, "
                   "ids %s", ni_type_text(i, x), ni_type_text(i, ids));
  i->out[0] = *x;
  i->out[0].dim[x->rank - 1] = size;
  return NEAP_OK;
}

neap_status ni_infer_one_hot(ni_infer *i) {
  int size = 0;
  neap_status rc = ni_want_whole(i, 0, "size", 1, INT32_MAX, &size);
  return rc ? rc : widen(i, size);
}

/* Input 0, of dtype `from`, without its last dimension. */
static neap_status drop_last(ni_infer *i, neap_dtype from, const char *who, neap_dtype dtype) {
  i->out[0] = *i->in[0];
  i->out[0].dtype = dtype;
  neap_status rc = ni_want(i, 0, from, who);
  if (rc || i->out[0].rank-- > 0) return rc;
  return ni_fail(NEAP_ESHAPE, "%s must have a feature dimension: %s", who,
                 ni_type_text(i, i->in[0]));
}

neap_status ni_infer_hash(ni_infer *i) {
  int size = 0;
  neap_status rc = ni_want_whole(i, 0, "size", 1, INT32_MAX, &size);
  return rc ? rc : drop_last(i, NEAP_I32, "ids", NEAP_I32);
}

neap_status ni_infer_pick(ni_infer *i) { return drop_last(i, NEAP_F32, "x", NEAP_I32); }

neap_status ni_infer_sample(ni_infer *i) {
  neap_status rc = ni_want_number(i, 1, "temperature");
  return rc ? rc : drop_last(i, NEAP_F32, "x", NEAP_I32);
}

neap_status ni_infer_cross_entropy(ni_infer *i) {
  neap_status rc = drop_last(i, NEAP_F32, "x", NEAP_F32);
  if (!rc) rc = ni_want(i, 1, NEAP_I32, "ids");
  if (rc) return rc;
  if (!(i->attr[0] >= 0 && i->attr[0] <= 1))
    return ni_fail(NEAP_ERANGE, "smoothing must be in 0..1, not %g", i->attr[0]);
  if (i->in[1]->space == i->in[0]->space && ni_same_features(i->in[1], &i->out[0]))
    return NEAP_OK;
  return ni_fail(NEAP_ESHAPE, "ids must have the shape of x without its last dimension: x %s, "
                 "ids %s", ni_type_text(i, i->in[0]), ni_type_text(i, i->in[1]));
}

/* The largest number of each line and the sum of e^(x - it). */
size_t ni_work_cross_entropy(const ni_exec *x, const ni_node *n) {
  return 2 * ni_rows_of(x, n->out) * x->view[n->out].width;
}

#endif

/* Id number `at`, 0 where it is not below size: noted as an error by forward. */
static size_t id_at(const ni_exec *x, const ni_node *n, int value, size_t at, size_t size,
                    bool note) {
  const ni_view *v = &x->view[value];
  int32_t id = ((const int32_t *)v->data)[at];
  if (id >= 0 && (size_t)id < size) return (size_t)id;
  if (note && size)
    ni_exec_fault(x, n, NEAP_ERANGE, at / v->width, "id %d is not in 0..%zu", (int)id, size - 1);
  else if (note)
    ni_exec_fault(x, n, NEAP_ERANGE, at / v->width, "id %d of nothing", (int)id);
  return 0;
}

/* ---- rows of a table ---- */

static void embedding_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  const ni_view *table = &x->view[n->in[1]];
  size_t ids = x->view[n->in[0]].width, w = (size_t)table->type.dim[1];
  size_t size = (size_t)table->type.dim[0];
  for (size_t i = r0 * ids; i < r1 * ids; i++)
    memcpy((real *)x->view[n->out].data + i * w,
           (const real *)table->data + id_at(x, n, n->in[0], i, size, true) * w, w * sizeof(real));
}

/* Columns from .. to-1, id after id. */
static void embedding_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  const ni_view *table = &x->view[n->in[1]];
  size_t ids = ni_rows_of(x, n->in[0]) * x->view[n->in[0]].width;
  size_t w = (size_t)table->type.dim[1], size = (size_t)table->type.dim[0];
  for (size_t i = 0; i < ids; i++) {
    const real *dy = (const real *)x->view[n->out].grad + i * w;
    real *to_row = (real *)table->grad + id_at(x, n, n->in[0], i, size, false) * w;
    for (size_t c = from; c < to; c++) to_row[c] += dy[c];
  }
}

static void embedding_const(const ni_exec *x, const ni_node *n) {
  const ni_view *table = &x->view[n->in[1]];
  if (table->grad && ni_space_of(x, n->out) >= 0)
    ni_exec_share(x, n, (size_t)table->type.dim[1], 16, embedding_share);
}

static void embedding_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  const ni_view *table = &x->view[n->in[1]];
  if (table->grad && ni_space_of(x, n->out) < 0)
    embedding_share(x, n, 0, (size_t)table->type.dim[1]);
}
const ni_code NI_R(ni_code_embedding) = {embedding_forward, embedding_backward, embedding_const,
                                         NULL};

/* ---- elements of each row's own x ---- */

/* What stands where: a row's x has `size` parts of w numbers, `ids` of them are taken. A row step of
** 0: all rows share it. */
typedef struct gather {
  size_t size, w, ids, x_step, ids_step;
} gather;

static gather gather_of(const ni_exec *x, const ni_node *n) {
  const ni_view *from = &x->view[n->in[0]], *ids = &x->view[n->in[1]];
  ni_axis a = ni_axis_of(x, &from->type, 0);
  return (gather){a.n, a.inner, ids->width, from->type.space < 0 ? 0 : from->width,
                  ids->type.space < 0 ? 0 : ids->width};
}

static void gather_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  gather g = gather_of(x, n);
  const real *from = x->view[n->in[0]].data;
  real *to = (real *)x->view[n->out].data + r0 * g.ids * g.w;
  for (size_t r = r0; r < r1; r++)
    for (size_t k = 0; k < g.ids; k++, to += g.w) {
      size_t id = id_at(x, n, n->in[1], r * g.ids_step + k, g.size, true);
      if (g.size)
        memcpy(to, from + r * g.x_step + id * g.w, g.w * sizeof(real));
      else
        memset(to, 0, g.w * sizeof(real)); /* the longest sequence is empty */
    }
}

/* Rows r0..r1-1, columns from..to-1 of each part. */
static void gather_add(const ni_exec *x, const ni_node *n, size_t r0, size_t r1, size_t from,
                       size_t to) {
  gather g = gather_of(x, n);
  const real *dy = (const real *)x->view[n->out].grad + r0 * g.ids * g.w;
  real *dx = x->view[n->in[0]].grad;
  for (size_t r = r0; g.size && r < r1; r++)
    for (size_t k = 0; k < g.ids; k++, dy += g.w) {
      real *sum = dx + r * g.x_step +
                  id_at(x, n, n->in[1], r * g.ids_step + k, g.size, false) * g.w;
      for (size_t c = from; c < to; c++) sum[c] += dy[c];
    }
}

static bool gather_shared(const ni_exec *x, const ni_node *n) {
  return ni_space_of(x, n->in[0]) != ni_space_of(x, n->out);
}

static void gather_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  if (x->view[n->in[0]].grad && !gather_shared(x, n))
    gather_add(x, n, r0, r1, 0, gather_of(x, n).w);
}

static void gather_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  gather_add(x, n, 0, ni_rows_of(x, n->out), from, to);
}

/* x of all rows: a part's columns may be added to apart. */
static void gather_const(const ni_exec *x, const ni_node *n) {
  if (x->view[n->in[0]].grad && gather_shared(x, n))
    ni_exec_share(x, n, gather_of(x, n).w, 16, gather_share);
}
const ni_code NI_R(ni_code_gather) = {gather_forward, gather_backward, gather_const, NULL};

/* ---- sums by id ---- */

static void scatter_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  const ni_view *from = &x->view[n->in[0]], *y = &x->view[n->out];
  size_t size = (size_t)n->attr[0], lines = y->width / size, w = from->width;
  real *to = (real *)y->data + r0 * y->width;
  memset(to, 0, (r1 - r0) * y->width * sizeof *to);
  for (size_t k = r0 * w; k < r1 * w; k++)
    to[(k - r0 * w) / (w / lines) * size + id_at(x, n, n->in[1], k, size, true)] +=
        ((const real *)from->data)[k];
}

static void scatter_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  const ni_view *from = &x->view[n->in[0]], *y = &x->view[n->out];
  size_t size = (size_t)n->attr[0], lines = y->width / size, w = from->width;
  const real *dy = (const real *)y->grad + r0 * y->width;
  for (size_t k = r0 * w; from->grad && k < r1 * w; k++)
    ((real *)from->grad)[k] +=
        dy[(k - r0 * w) / (w / lines) * size + id_at(x, n, n->in[1], k, size, false)];
}
const ni_code NI_R(ni_code_scatter) = {scatter_forward, scatter_backward, NULL, NULL};

static void one_hot_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  size_t ids = x->view[n->in[0]].width, size = (size_t)n->attr[0];
  real *y = x->view[n->out].data;
  memset(y + r0 * ids * size, 0, (r1 - r0) * ids * size * sizeof *y);
  for (size_t i = r0 * ids; i < r1 * ids; i++)
    y[i * size + id_at(x, n, n->in[0], i, size, true)] = 1;
}
const ni_code NI_R(ni_code_one_hot) = {one_hot_forward, NULL, NULL, NULL};

static void hash_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  size_t w = x->view[n->out].width, k = w ? x->view[n->in[0]].width / w : 0;
  const int32_t *id = (const int32_t *)x->view[n->in[0]].data + r0 * w * k;
  for (size_t o = r0 * w; o < r1 * w; o++) {
    uint32_t h = 0x811c9dc5;
    for (size_t i = 0; i < k; i++, id++)
      for (int byte = 0; byte < 32; byte += 8)
        h = (h ^ ((uint32_t)*id >> byte & 255)) * 0x01000193;
    ((int32_t *)x->view[n->out].data)[o] = (int32_t)(h % (uint32_t)n->attr[0]);
  }
}
const ni_code NI_R(ni_code_hash) = {hash_forward, NULL, NULL, NULL};

/* ---- one of many ---- */

/* The lines of x stand one for one with the elements of the output. */
static size_t line_length(const ni_exec *x, const ni_node *n) {
  const neap_type *t = &x->view[n->in[0]].type;
  return ni_dim(x, t->dim[t->rank - 1]);
}

static int32_t largest(size_t n, const real *x) {
  size_t at = 0;
  for (size_t i = 1; i < n && x[at] == x[at]; i++)
    if (!(x[i] <= x[at])) at = i;
  return (int32_t)at;
}

static void argmax_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  size_t size = line_length(x, n), w = x->view[n->out].width;
  for (size_t o = r0 * w; o < r1 * w; o++)
    ((int32_t *)x->view[n->out].data)[o] =
        largest(size, (const real *)x->view[n->in[0]].data + o * size);
}
const ni_code NI_R(ni_code_argmax) = {argmax_forward, NULL, NULL, NULL};

/* e^((x - top)/temperature) of a chunk into `to`; returns their sum. */
static real weigh(size_t n, const real *x, real top, double temperature, real *to) {
  for (size_t i = 0; i < n; i++) to[i] = (real)((double)(x[i] - top) / temperature);
  return NI_R(ni_kernel)()->exp_sum(n, to, 0, to);
}

/* The first index at which the running sum of the weights passes u times their sum. */
static int32_t draw(size_t n, const real *x, double temperature, double u) {
  real part[NI_CHUNK], top = NI_R(ni_kernel)()->max(n, x);
  double total = 0, sum = 0;
  size_t at = 0;
  for (size_t c = 0; c < n; c += NI_CHUNK)
    total += (double)weigh(n - c < NI_CHUNK ? n - c : NI_CHUNK, x + c, top, temperature, part);
  for (size_t c = 0; c < n; c += NI_CHUNK) {
    size_t m = n - c < NI_CHUNK ? n - c : NI_CHUNK;
    weigh(m, x + c, top, temperature, part);
    for (size_t i = 0; i < m; i++) {
      if (part[i] > 0) at = c + i;
      sum += (double)part[i];
      if (sum > u * total) return (int32_t)at;
    }
  }
  return (int32_t)at;
}

/* Temperature 0 is its limit: the first largest. */
static void sample_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  size_t size = line_length(x, n), w = x->view[n->out].width, first = ni_first_element(x, n->out);
  double temperature = (double)*(const real *)x->view[n->in[1]].data;
  if (!(temperature >= 0)) {
    ni_exec_fault(x, n, NEAP_ERANGE, r0, "temperature %g is not 0 or more", temperature);
    temperature = 0;
  }
  for (size_t o = r0 * w; o < r1 * w; o++) {
    const real *in = (const real *)x->view[n->in[0]].data + o * size;
    ((int32_t *)x->view[n->out].data)[o] =
        temperature == 0 ? largest(size, in)
                         : draw(size, in, temperature,
                                (double)ni_uniform(x->seed, (uint64_t)n->index, first + o));
  }
}
const ni_code NI_R(ni_code_sample) = {sample_forward, NULL, NULL, NULL};

/* ---- the loss ---- */

static bool no_target(const ni_exec *x, const ni_node *n, size_t at) {
  return ((const int32_t *)x->view[n->in[1]].data)[at] == -1;
}

/* ln sum e^x - (1-smoothing) * x[id] - smoothing * mean(x); Szegedy et al. 2016, section 7. */
static void cross_entropy_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  size_t size = line_length(x, n), w = x->view[n->out].width;
  real smoothing = (real)n->attr[0], *keep = x->work[n->index], *y = x->view[n->out].data;
  real part[NI_CHUNK];
  for (size_t o = r0 * w; o < r1 * w; o++) {
    y[o] = 0;
    if (!size || no_target(x, n, o)) continue;
    const real *in = (const real *)x->view[n->in[0]].data + o * size;
    size_t id = id_at(x, n, n->in[1], o, size, true);
    real top = k->max(size, in), sum = 0, mean = 0;
    for (size_t c = 0; c < size; c += NI_CHUNK)
      sum += k->exp_sum(size - c < NI_CHUNK ? size - c : NI_CHUNK, in + c, top, part);
    keep[2 * o] = top;
    keep[2 * o + 1] = sum;
    y[o] = (real)log((double)sum) + (1 - smoothing) * (top - in[id]);
    if (smoothing == 0) continue;
    for (size_t i = 0; i < size; i++) mean += top - in[i];
    y[o] += smoothing * mean / (real)size;
  }
}

/* dx += dy * (softmax(x) - (1-smoothing) * [id] - smoothing/V), or dx = that in the place of x */
static void cross_entropy_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  if (!x->view[n->in[0]].grad) return;
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  size_t size = line_length(x, n), w = x->view[n->out].width;
  real smoothing = (real)n->attr[0], part[NI_CHUNK];
  const real *keep = x->work[n->index], *dy = x->view[n->out].grad;
  bool turns = x->view[n->in[0]].grad == x->view[n->in[0]].data;
  for (size_t o = r0 * w; o < r1 * w; o++) {
    const real *in = (const real *)x->view[n->in[0]].data + o * size;
    real *dx = (real *)x->view[n->in[0]].grad + o * size;
    if (!size || no_target(x, n, o)) {
      if (turns) memset(dx, 0, size * sizeof *dx);
      continue;
    }
    real scale = dy[o] / keep[2 * o + 1], share = dy[o] * smoothing / (real)size;
    for (size_t c = 0; c < size; c += NI_CHUNK) {
      size_t m = size - c < NI_CHUNK ? size - c : NI_CHUNK;
      k->exp_sum(m, in + c, keep[2 * o], part);
      if (turns)
        for (size_t i = 0; i < m; i++) dx[c + i] = part[i] * scale - share;
      else
        for (size_t i = 0; i < m; i++) dx[c + i] += part[i] * scale - share;
    }
    dx[id_at(x, n, n->in[1], o, size, false)] -= dy[o] * (1 - smoothing);
  }
}
const ni_code NI_R(ni_code_cross_entropy) = {cross_entropy_forward, cross_entropy_backward, NULL,
                                             NULL};
