/*
** Attention: a = softmax over a memory's elements s of score(q, k_s), c = sum a_s v_s. The memory
** (k, v) is in a sequence space S over a parent space P; the query is in P, or in a sequence space
** over P: then each of its rows attends to the memory of its own sequence.
** Kept for backward: a, which is an output; backward leaves d(scores) in work, from which the
** gradients of k, v and u are summed afterwards, memory by memory.
** attend_at looks at one element, whose number is given.
*/
#include <string.h>

#include "product.h"

enum { Q, K, V, U };
/* of attend_at */
enum { IDS, AT_V };
/* Attributes; BELOW is not named in ops.h: infer notes there that q is below P, not in it. */
enum { SCALE, BELOW };

/* Columns of tanh(q + k) at a time, on the stack. */
enum { SPAN = 256 };

#ifndef NI_F64

/* The memory m is a sequence; q is in its parent space, or in a sequence over that. */
static neap_status meet(ni_infer *i, const char *q_name, const neap_type *q, const char *m_name,
                        const neap_type *m) {
  int parent = m->space < 0 ? -1 : i->space[m->space].parent;
  if (parent < 0)
    return ni_fail(NEAP_ESHAPE, "%s must be a sequence, such as [S,B,8], not %s", m_name,
                   ni_type_text(i, m));
  if (q->space != parent && (q->space < 0 || i->space[q->space].parent != parent))
    return ni_fail(NEAP_ESHAPE, "%s must have rows of the sequences that %s has: %s %s, %s %s", q_name,
                   m_name, q_name, ni_type_text(i, q), m_name, ni_type_text(i, m));
  i->attr[BELOW] = q->space != parent;
  return NEAP_OK;
}

static neap_status infer(ni_infer *i, bool additive) {
  static const char *const who[] = {"q", "k", "v", "u"};
  const neap_type *q = i->in[Q], *k = i->in[K], *v = i->in[V], *u = additive ? i->in[U] : NULL;
  for (int j = 0; j < i->n_in; j++) {
    neap_status rc = ni_want(i, j, NEAP_F32, who[j]);
    if (rc) return rc;
    if (i->in[j]->rank != 1 || i->in[j]->dim[0] < 1)
      return ni_fail(NEAP_ESHAPE, "%s must have one feature dimension, not %s", who[j],
                     ni_type_text(i, i->in[j]));
  }
  if (k->space < 1 || v->space != k->space)
    return ni_fail(NEAP_ESHAPE, "k and v must be of one sequence, such as [S,B,8]: k %s, v %s",
                   ni_type_text(i, k), ni_type_text(i, v));
  neap_status rc = meet(i, "q", q, "k", k);
  if (rc) return rc;
  if (q->dim[0] != k->dim[0])
    return ni_fail(NEAP_ESHAPE, "widths differ: q %s, k %s", ni_type_text(i, q),
                   ni_type_text(i, k));
  if (u && (u->space >= 0 || u->dim[0] != q->dim[0]))
    return ni_fail(NEAP_ESHAPE, "u must be [%d], as wide as q %s, not %s", (int)q->dim[0],
                   ni_type_text(i, q), ni_type_text(i, u));
  i->out[0] = i->out[1] = *q;
  i->out[0].dim[0] = v->dim[0];
  i->out[1].dim[0] = NEAP_LONGEST(k->space);
  return NEAP_OK;
}

neap_status ni_infer_attend_dot(ni_infer *i) { return infer(i, false); }
neap_status ni_infer_attend_additive(ni_infer *i) { return infer(i, true); }

neap_status ni_infer_attend_at(ni_infer *i) {
  const neap_type *ids = i->in[IDS], *v = i->in[AT_V];
  neap_status rc = ni_want(i, IDS, NEAP_I32, "ids");
  if (!rc) rc = ni_want(i, AT_V, NEAP_F32, "v");
  if (rc) return rc;
  if (ids->rank != 0)
    return ni_fail(NEAP_ESHAPE, "expected one id a row, such as i32 [T,B], came %s",
                   ni_type_text(i, ids));
  if ((rc = meet(i, "ids", ids, "v", v)) != NEAP_OK) return rc;
  i->out[0] = *v;
  i->out[0].space = ids->space;
  return NEAP_OK;
}

/* d(scores) [rows of q, longest memory] */
size_t ni_work_attend(const ni_exec *x, const ni_node *n) {
  return ni_rows_of(x, n->in[Q]) * x->rows[ni_space_of(x, n->in[K])].steps;
}
/* the same, then each memory's share of u's gradient */
size_t ni_work_attend_additive(const ni_exec *x, const ni_node *n) {
  return ni_work_attend(x, n) +
         x->rows[ni_space_of(x, n->in[K])].parents * x->view[n->in[K]].width;
}

#endif

typedef struct attention {
  const ni_rows *memory, *query; /* query NULL: q is in P */
  size_t width, m, longest;      /* of keys, of values; of the longest memory */
  const real *q, *k, *v, *u;
  real *scores;                  /* their gradients */
} attention;

static attention attention_of(const ni_exec *x, const ni_node *n) {
  attention w = {.memory = &x->rows[ni_space_of(x, n->in[K])],
                 .query = n->attr[BELOW] != 0 ? &x->rows[ni_space_of(x, n->in[Q])] : NULL,
                 .width = x->view[n->in[K]].width,
                 .m = x->view[n->in[V]].width,
                 .q = x->view[n->in[Q]].data,
                 .k = x->view[n->in[K]].data,
                 .v = x->view[n->in[V]].data,
                 .u = n->n_in > U ? x->view[n->in[U]].data : NULL,
                 .scores = x->work[n->index]};
  w.longest = w.memory->steps;
  return w;
}

static size_t span(const attention *w, size_t j) {
  return w->width - j < SPAN ? w->width - j : SPAN;
}

/* t = tanh(q + k), columns j .. j + span - 1 */
static void mix(const attention *w, const real *q, const real *k, size_t j, real *t) {
  const NI_R(ni_kernels) *f = NI_R(ni_kernel)();
  f->add(span(w, j), q + j, k + j, t);
  f->tanh(span(w, j), t, t);
}

static real score(const attention *w, double scale, const real *q, const real *k) {
  const NI_R(ni_kernels) *f = NI_R(ni_kernel)();
  if (!w->u) return (real)scale * f->dot(w->width, q, k);
  real t[SPAN], sum = 0;
  for (size_t j = 0; j < w->width; j += SPAN) {
    mix(w, q, k, j, t);
    sum += f->dot(span(w, j), w->u + j, t);
  }
  return sum;
}

static void forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  const NI_R(ni_kernels) *f = NI_R(ni_kernel)();
  attention w = attention_of(x, n);
  for (size_t r = r0; r < r1; r++) {
    size_t p = w.query ? w.query->owner[r] : r, rank = w.memory->rank[p], len = w.memory->len[p];
    real *c = (real *)x->view[n->out].data + r * w.m;
    real *a = (real *)x->view[n->out + 1].data + r * w.longest;
    for (size_t s = 0; s < len; s++)
      a[s] = score(&w, n->attr[SCALE], w.q + r * w.width,
                   w.k + (w.memory->off[s] + rank) * w.width);
    memset(a + len, 0, (w.longest - len) * sizeof(real));
    memset(c, 0, w.m * sizeof(real));
    real sum = f->exp_sum(len, a, f->max(len, a), a);
    for (size_t s = 0; s < len; s++) {
      a[s] /= sum;
      f->axpy(w.m, a[s], w.v + (w.memory->off[s] + rank) * w.m, c);
    }
  }
}

/* Columns j .. j + span - 1 of one score's part: sum += d (1 - tanh^2), and du += d tanh. */
static void slope(const attention *w, real d, const real *q, const real *k, size_t j, real *sum,
                  real *du) {
  real t[SPAN];
  mix(w, q, k, j, t);
  if (du) NI_R(ni_kernel)()->axpy(span(w, j), d, t, du + j);
  for (size_t i = 0; i < span(w, j); i++) sum[i] += d * (1 - t[i] * t[i]);
}

static void backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  const NI_R(ni_kernels) *f = NI_R(ni_kernel)();
  attention w = attention_of(x, n);
  const real *dc = x->view[n->out].grad, *da = x->view[n->out + 1].grad;
  if (!dc && !da) return;
  for (size_t r = r0; r < r1; r++) {
    size_t p = w.query ? w.query->owner[r] : r, rank = w.memory->rank[p], len = w.memory->len[p];
    const real *a = (real *)x->view[n->out + 1].data + r * w.longest, *q = w.q + r * w.width;
    real *d = w.scores + r * w.longest, mean = 0;
    for (size_t s = 0; s < len; s++) {
      d[s] = da ? da[r * w.longest + s] : 0;
      if (dc) d[s] += f->dot(w.m, dc + r * w.m, w.v + (w.memory->off[s] + rank) * w.m);
      mean += a[s] * d[s];
    }
    for (size_t s = 0; s < len; s++) d[s] = a[s] * (d[s] - mean) * (w.u ? 1 : (real)n->attr[SCALE]);
    real *dq = x->view[n->in[Q]].grad;
    if (!dq) continue;
    dq += r * w.width;
    for (size_t s = 0; !w.u && s < len; s++)
      f->axpy(w.width, d[s], w.k + (w.memory->off[s] + rank) * w.width, dq);
    for (size_t j = 0; w.u && j < w.width; j += SPAN) {
      real sum[SPAN] = {0};
      for (size_t s = 0; s < len; s++)
        slope(&w, d[s], q, w.k + (w.memory->off[s] + rank) * w.width, j, sum, NULL);
      f->mul_add(span(&w, j), w.u + j, sum, dq + j);
    }
  }
}

/* Gradients of the memories of parent rows p0..p1-1, from all queries of each. */
static void memory_back(const ni_exec *x, const ni_node *n, size_t p0, size_t p1) {
  const NI_R(ni_kernels) *f = NI_R(ni_kernel)();
  attention w = attention_of(x, n);
  const real *dc = x->view[n->out].grad, *weights = x->view[n->out + 1].data;
  real *dk = x->view[n->in[K]].grad, *dv = x->view[n->in[V]].grad;
  real *du = w.u && x->view[n->in[U]].grad ? w.scores + ni_rows_of(x, n->in[Q]) * w.longest : NULL;
  for (size_t p = p0; p < p1; p++) {
    size_t steps = w.query ? w.query->len[p] : 1;
    if (du) memset(du + p * w.width, 0, w.width * sizeof(real));
    for (size_t s = 0; s < w.memory->len[p]; s++) {
      size_t row = w.memory->off[s] + w.memory->rank[p];
      const real *k = w.k + row * w.width;
      for (size_t t = 0; t < steps; t++) {
        size_t r = w.query ? w.query->off[t] + w.query->rank[p] : p;
        if (dv && dc) f->axpy(w.m, weights[r * w.longest + s], dc + r * w.m, dv + row * w.m);
        if (dk && !w.u)
          f->axpy(w.width, w.scores[r * w.longest + s], w.q + r * w.width, dk + row * w.width);
      }
      for (size_t j = 0; (du || (w.u && dk)) && j < w.width; j += SPAN) {
        real sum[SPAN] = {0};
        for (size_t t = 0; t < steps; t++) {
          size_t r = w.query ? w.query->off[t] + w.query->rank[p] : p;
          slope(&w, w.scores[r * w.longest + s], w.q + r * w.width, k, j, sum,
                du ? du + p * w.width : NULL);
        }
        if (dk) f->mul_add(span(&w, j), w.u + j, sum, dk + row * w.width + j);
      }
    }
  }
}

static void backward_const(const ni_exec *x, const ni_node *n) {
  attention w = attention_of(x, n);
  if (!x->view[n->out].grad && !x->view[n->out + 1].grad) return;
  ni_exec_share(x, n, w.memory->parents, 1, memory_back);
  if (w.u && x->view[n->in[U]].grad)
    NI_R(ni_product_sum)(x->pool, w.width, w.memory->parents,
                         w.scores + ni_rows_of(x, n->in[Q]) * w.longest, w.width,
                         x->view[n->in[U]].grad,
                         NULL);
}

const ni_code NI_R(ni_code_attend_dot) = {forward, backward, backward_const, NULL};
const ni_code NI_R(ni_code_attend_additive) = {forward, backward, backward_const, NULL};

/* ---- one element, by its number ---- */

typedef struct pick {
  const ni_rows *memory, *query; /* query NULL: the ids are in P */
  size_t width;
  const int32_t *id;
} pick;

static pick pick_of(const ni_exec *x, const ni_node *n) {
  return (pick){.memory = &x->rows[ni_space_of(x, n->in[AT_V])],
                .query = n->attr[BELOW] != 0 ? &x->rows[ni_space_of(x, n->in[IDS])] : NULL,
                .width = x->view[n->in[AT_V]].width,
                .id = x->view[n->in[IDS]].data};
}

/* The row of the memory of parent row p that a row r looks at; false: none. */
static bool picked(const pick *w, size_t r, size_t p, size_t *row) {
  int32_t id = w->id[r];
  if (id < 0 || (uint32_t)id >= w->memory->len[p]) return false;
  *row = w->memory->off[id] + w->memory->rank[p];
  return true;
}

static void at_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  pick w = pick_of(x, n);
  const real *v = x->view[n->in[AT_V]].data;
  real *c = (real *)x->view[n->out].data + r0 * w.width;
  for (size_t r = r0, row; r < r1; r++, c += w.width)
    if (picked(&w, r, w.query ? w.query->owner[r] : r, &row))
      memcpy(c, v + row * w.width, w.width * sizeof(real));
    else
      memset(c, 0, w.width * sizeof(real));
}

/* Gradients of the memories of parent rows p0..p1-1. */
static void at_back(const ni_exec *x, const ni_node *n, size_t p0, size_t p1) {
  const NI_R(ni_kernels) *f = NI_R(ni_kernel)();
  pick w = pick_of(x, n);
  const real *dc = x->view[n->out].grad;
  real *dv = x->view[n->in[AT_V]].grad;
  for (size_t p = p0; p < p1; p++)
    for (size_t t = 0, steps = w.query ? w.query->len[p] : 1, row; t < steps; t++) {
      size_t r = w.query ? w.query->off[t] + w.query->rank[p] : p;
      if (picked(&w, r, p, &row)) f->axpy(w.width, 1, dc + r * w.width, dv + row * w.width);
    }
}

static void at_backward_const(const ni_exec *x, const ni_node *n) {
  if (x->view[n->out].grad && x->view[n->in[AT_V]].grad)
    ni_exec_share(x, n, x->rows[ni_space_of(x, n->in[AT_V])].parents, 1, at_back);
}

const ni_code NI_R(ni_code_attend_at) = {at_forward, NULL, at_backward_const, NULL};
