/*
** Linear-chain conditional random field (Lafferty et al. 2001): the score of a sequence of classes
** y is start(y_1) + sum x_t(y_t) + sum a(y_t, y_{t-1}) + stop(y_T), its probability the share of
** e^score among all V^T sequences. a [V,V] has a row for each class to which, a column for each
** from which a transition leads.
*/
#include <math.h>
#include <string.h>

#include "../kernel/kernel.h"
#include "util.h"

/* Inputs; without y (viterbi, crf_marginals) the others stand one place before. */
enum { X, Y, A };
enum { START = 1, STOP = 2 }; /* after A */

#ifndef NI_F64

/* x, and a [start stop] from input k. */
static neap_status want_chain(ni_infer *i, int k) {
  static const char *const who[] = {"the transitions", "start", "stop"};
  const neap_type *x = i->in[X];
  int parent;
  neap_status rc = ni_want(i, X, NEAP_F32, "x");
  if (!rc) rc = ni_want_sequence(i, &parent);
  if (rc) return rc;
  if (x->rank != 1 || x->dim[0] < 1)
    return ni_fail(NEAP_ESHAPE, "x must be a score for each class, such as [T,B,8], not %s",
                   ni_type_text(i, x));
  for (int j = 0; k + j < i->n_in; j++) {
    const neap_type *t = i->in[k + j];
    if (!t) continue;
    if ((rc = ni_want(i, k + j, NEAP_F32, who[j])) != NEAP_OK) return rc;
    bool ok = t->space < 0 && t->rank == (j == 0 ? 2 : 1);
    for (int d = 0; ok && d < t->rank; d++) ok = t->dim[d] == x->dim[0];
    if (ok) continue;
    neap_type want = {NEAP_F32, NEAP_NO_SPACE, j == 0 ? 2 : 1, {x->dim[0], x->dim[0]}};
    return ni_fail(NEAP_ESHAPE, "%s must be %s, not %s: x %s", who[j], ni_type_text(i, &want),
                   ni_type_text(i, t), ni_type_text(i, x));
  }
  return NEAP_OK;
}

neap_status ni_infer_crf(ni_infer *i) {
  neap_status rc = want_chain(i, A);
  if (!rc) rc = ni_want(i, Y, NEAP_I32, "the classes");
  if (rc) return rc;
  if (i->in[Y]->space != i->in[X]->space || i->in[Y]->rank != 0)
    return ni_fail(NEAP_ESHAPE, "the classes must be an id for each step of x: x %s, classes %s",
                   ni_type_text(i, i->in[X]), ni_type_text(i, i->in[Y]));
  i->out[0] = (neap_type){NEAP_F32, i->space[i->in[X]->space].parent, 0, {0}};
  return NEAP_OK;
}

neap_status ni_infer_viterbi(ni_infer *i) {
  neap_status rc = want_chain(i, A - 1);
  i->out[0] = *i->in[X];
  i->out[0].dtype = NEAP_I32;
  i->out[0].rank = 0;
  return rc;
}

neap_status ni_infer_crf_marginals(ni_infer *i) {
  neap_status rc = want_chain(i, A - 1);
  i->out[0] = *i->in[X];
  return rc;
}

/* alpha, what comes into each class, and slopes, of all sequences and of those that y allows. */
size_t ni_work_crf(const ni_exec *x, const ni_node *n) {
  return 6 * ni_rows_of(x, n->in[X]) * x->view[n->in[X]].width;
}
/* alpha, what comes into each class. */
size_t ni_work_crf_marginals(const ni_exec *x, const ni_node *n) {
  return 2 * ni_rows_of(x, n->in[X]) * x->view[n->in[X]].width;
}
/* From which class each is reached best; scores of two steps of each sequence. */
size_t ni_work_viterbi(const ni_exec *x, const ni_node *n) {
  const ni_rows *q = &x->rows[ni_space_of(x, n->in[X])];
  return (q->rows + 2 * q->parents) * x->view[n->in[X]].width;
}

#define LOG logf
#else
#define LOG log
#endif

/* Sequences that one thread takes at a time. */
enum { PIECE = 8 };

/* Less than any score. */
#define LOWEST ((real)-HUGE_VAL)

/* ln alpha of a class that y does not allow: e^it is 0, as of all that is less than LEAST. */
static const real NEVER = -1e30;
#define LEAST ((real)-1e29)

/* The sequences of classes, all of them or those that ids allow. */
typedef struct lattice {
  const ni_rows *q;
  size_t v;
  const real *x, *a, *start, *stop; /* start, stop: NULL: zeros */
  const int32_t *ids;               /* NULL or -1: any class */
  real *alpha, *into, *slope;       /* [rows,v] */
} lattice;

static lattice lattice_of(const ni_exec *x, const ni_node *n, int at) {
  const ni_view *in = &x->view[n->in[X]];
  bool starts = n->n_in > at + START && n->in[at + START] >= 0;
  bool stops = n->n_in > at + STOP && n->in[at + STOP] >= 0;
  lattice l = {.q = &x->rows[in->type.space], .v = in->width, .x = in->data,
               .a = x->view[n->in[at]].data,
               .start = starts ? x->view[n->in[at + START]].data : NULL,
               .stop = stops ? x->view[n->in[at + STOP]].data : NULL,
               .alpha = x->work[n->index]};
  l.into = l.alpha + l.q->rows * l.v;
  l.slope = l.into + l.q->rows * l.v;
  return l;
}

/* The two of the loss: all sequences, and those that y allows. */
static void both_of(const ni_exec *x, const ni_node *n, lattice l[2]) {
  l[0] = l[1] = lattice_of(x, n, A);
  size_t each = 3 * l->q->rows * l->v;
  l[1].ids = x->view[n->in[Y]].data;
  l[1].alpha += each, l[1].into += each, l[1].slope += each;
}

static size_t row_of(const lattice *l, size_t p, size_t t) { return l->q->off[t] + l->q->rank[p]; }

static bool allows(const lattice *l, size_t r, size_t j) {
  int32_t id = l->ids ? l->ids[r] : -1;
  return id < 0 || (size_t)id >= l->v || (size_t)id == j;
}

/* part = a + b, columns c .. c+m-1; b NULL: zeros */
static size_t chunk(const lattice *l, const real *a, const real *b, size_t c, real *part) {
  size_t m = l->v - c < NI_CHUNK ? l->v - c : NI_CHUNK;
  if (b)
    NI_R(ni_kernel)()->add(m, a + c, b + c, part);
  else
    memcpy(part, a + c, m * sizeof *part);
  return m;
}

/* ln sum_i e^(a_i + b_i) */
static real log_sum(const lattice *l, const real *a, const real *b) {
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  real part[NI_CHUNK], top = LOWEST, sum = 0;
  for (size_t c = 0; c < l->v; c += NI_CHUNK) {
    real most = k->max(chunk(l, a, b, c, part), part);
    if (most > top || most != most) top = most;
  }
  if (top <= LOWEST) return LOWEST; /* not for NaN */
  for (size_t c = 0; c < l->v; c += NI_CHUNK) {
    size_t m = chunk(l, a, b, c, part);
    sum += k->exp_sum(m, part, top, part);
  }
  return top + LOG(sum);
}

/*
** ln of the sum of e^score over the sequences: into_t(j) = ln sum_i e^(alpha_{t-1}(i) + a(j,i)),
** alpha_t(j) = into_t(j) + x_t(j), less what all have in common, so that long sequences keep their
** digits. never: the step, from 1, by which no sequence has any probability left; 0: some have.
*/
static double sweep(const lattice *l, size_t p, size_t *never) {
  size_t len = l->q->len[p];
  double total = 0;
  *never = 0;
  const real *before = NULL;
  for (size_t t = 0; t < len; t++) {
    size_t r = row_of(l, p, t);
    real *alpha = l->alpha + r * l->v, *into = l->into + r * l->v, most = LOWEST;
    for (size_t j = 0; j < l->v; j++) {
      alpha[j] = NEVER, into[j] = 0;
      if (!allows(l, r, j)) continue;
      if (t)
        into[j] = log_sum(l, before, l->a + j * l->v);
      else if (l->start)
        into[j] = l->start[j];
      alpha[j] = into[j] + l->x[r * l->v + j];
      if (alpha[j] > most || alpha[j] != alpha[j]) most = alpha[j];
    }
    if (most < LEAST) {
      *never = t + 1;
      return (double)LOWEST;
    }
    for (size_t j = 0; j < l->v; j++) alpha[j] -= most;
    total += (double)most;
    before = alpha;
  }
  real end = len ? log_sum(l, before, l->stop) : 0;
  if (end < LEAST) *never = len;
  return total + (double)end;
}

/* Adds c * e^(a + b - shift) to y. */
static void add_shares(const lattice *l, const real *a, const real *b, real shift, real c,
                       real *y) {
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  real part[NI_CHUNK];
  for (size_t i = 0; i < l->v; i += NI_CHUNK) {
    size_t m = chunk(l, a, b, i, part);
    k->exp_sum(m, part, shift, part);
    k->axpy(m, c, part, y + i);
  }
}

/* slope_t(j) = dy times the share of the sequences that are in class j at step t: from the last
** step back along the ways by which alpha was summed. */
static void walk_back(const lattice *l, size_t p, real dy) {
  size_t len = l->q->len[p];
  if (!len) return;
  size_t last = row_of(l, p, len - 1) * l->v;
  memset(l->slope + last, 0, l->v * sizeof(real));
  add_shares(l, l->alpha + last, l->stop, log_sum(l, l->alpha + last, l->stop), dy,
             l->slope + last);
  for (size_t t = len; t-- > 1;) {
    size_t now = row_of(l, p, t) * l->v, before = row_of(l, p, t - 1) * l->v;
    memset(l->slope + before, 0, l->v * sizeof(real));
    for (size_t j = 0; j < l->v; j++)
      if (l->slope[now + j] != 0)
        add_shares(l, l->alpha + before, l->a + j * l->v, l->into[now + j], l->slope[now + j],
                   l->slope + before);
  }
}

/* Is there nothing left of sequence p by that step, whatever its classes? Then that is an error. */
static bool nothing_left(const ni_exec *x, const ni_node *n, size_t p, size_t never) {
  if (never)
    ni_exec_fault(x, n, NEAP_ERANGE, p, "step %zu: every sequence of classes has probability 0",
                  never);
  return never != 0;
}

/* ---- the loss: ln sum over all sequences - ln sum over those that y allows ---- */

static void loss(const ni_exec *x, const ni_node *n, size_t p0, size_t p1) {
  lattice l[2];
  both_of(x, n, l);
  for (size_t p = p0; p < p1; p++) {
    for (size_t t = 0; t < l->q->len[p]; t++) {
      int32_t id = l[1].ids[row_of(l, p, t)];
      if (id < -1 || (id >= 0 && (size_t)id >= l->v))
        ni_exec_fault(x, n, NEAP_ERANGE, p, "step %zu: id %d is not in 0..%zu, nor -1 for any",
                      t + 1, (int)id, l->v - 1);
    }
    size_t never, any_never;
    double all = sweep(&l[0], p, &any_never), allowed = sweep(&l[1], p, &never);
    if (!nothing_left(x, n, p, any_never) && never)
      ni_exec_fault(x, n, NEAP_ERANGE, p, "step %zu: the classes that are given have probability 0",
                    never);
    ((real *)x->view[n->out].data)[p] = any_never || never ? 0 : (real)(all - allowed);
  }
}

static void crf_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  ni_exec_pieces(x, n, lattice_of(x, n, A).q->parents, 1, PIECE, loss);
}

static void loss_back(const ni_exec *x, const ni_node *n, size_t p0, size_t p1) {
  lattice l[2];
  both_of(x, n, l);
  real *dx = x->view[n->in[X]].grad;
  for (size_t p = p0; p < p1; p++) {
    real dy = ((const real *)x->view[n->out].grad)[p];
    walk_back(&l[0], p, dy);
    walk_back(&l[1], p, -dy);
    for (size_t t = 0; dx && t < l->q->len[p]; t++) {
      size_t at = row_of(l, p, t) * l->v;
      NI_R(ni_kernel)()->add(l->v, dx + at, l[0].slope + at, dx + at);
      NI_R(ni_kernel)()->add(l->v, dx + at, l[1].slope + at, dx + at);
    }
  }
}

static void crf_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  ni_exec_pieces(x, n, lattice_of(x, n, A).q->parents, 1, PIECE, loss_back);
}

/* da(j,i) += sum over t of slope_t(j) * e^(alpha_{t-1}(i) + a(j,i) - into_t(j)), rows j from ..
** to-1, of both lattices, step after step. */
static void transitions_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  lattice l[2];
  both_of(x, n, l);
  const ni_rows *q = l->q;
  size_t v = l->v;
  for (size_t j = from; j < to; j++)
    for (size_t c = 0; c < v; c += NI_COLUMNS) {
      size_t m = v - c < NI_COLUMNS ? v - c : NI_COLUMNS;
      double sum[NI_COLUMNS] = {0};
      real part[NI_COLUMNS];
      for (int k = 0; k < 2; k++)
        for (size_t t = 1; t < q->steps; t++)
          for (size_t r = q->off[t], before = q->off[t - 1]; r < q->off[t + 1]; r++, before++) {
            double slope = (double)l[k].slope[r * v + j];
            if (slope == 0) continue;
            NI_R(ni_kernel)()->add(m, l[k].alpha + before * v + c, l->a + j * v + c, part);
            NI_R(ni_kernel)()->exp_sum(m, part, l[k].into[r * v + j], part);
            for (size_t i = 0; i < m; i++) sum[i] += slope * (double)part[i];
          }
      real *da = (real *)x->view[n->in[A]].grad + j * v + c;
      for (size_t i = 0; i < m; i++) da[i] += (real)sum[i];
    }
}

/* The slopes of first steps, of last ones, summed over the sequences. */
static void ends(const ni_exec *x, const ni_node *n, bool last) {
  int k = A + (last ? STOP : START);
  real *to = n->n_in > k && n->in[k] >= 0 ? x->view[n->in[k]].grad : NULL;
  lattice l[2];
  both_of(x, n, l);
  for (size_t j = 0; to && j < l->v; j++) {
    double sum = 0;
    for (size_t p = 0; p < l->q->parents; p++) {
      if (!l->q->len[p]) continue;
      size_t r = row_of(l, p, last ? l->q->len[p] - 1 : 0);
      sum += (double)l[0].slope[r * l->v + j] + (double)l[1].slope[r * l->v + j];
    }
    to[j] += (real)sum;
  }
}

static void crf_const(const ni_exec *x, const ni_node *n) {
  if (x->view[n->in[A]].grad) ni_exec_share(x, n, x->view[n->in[X]].width, 1, transitions_share);
  ends(x, n, false);
  ends(x, n, true);
}
const ni_code NI_R(ni_code_crf) = {crf_forward, crf_backward, crf_const, NULL};

/* ---- the probability of each class at each step ---- */

static void marginals(const ni_exec *x, const ni_node *n, size_t p0, size_t p1) {
  lattice l = lattice_of(x, n, A - 1);
  l.slope = x->view[n->out].data;
  for (size_t p = p0; p < p1; p++) {
    size_t never;
    sweep(&l, p, &never);
    if (!nothing_left(x, n, p, never)) walk_back(&l, p, 1);
  }
}

static void marginals_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  ni_exec_pieces(x, n, lattice_of(x, n, A - 1).q->parents, 1, PIECE, marginals);
}
const ni_code NI_R(ni_code_crf_marginals) = {marginals_forward, NULL, NULL, NULL};

/* ---- the likeliest sequence (Viterbi 1967) ---- */

/* The index of the first largest of a + b. */
static size_t best(size_t v, const real *a, const real *b) {
  size_t at = 0;
  real most = a[0] + (b ? b[0] : 0);
  for (size_t i = 1; i < v; i++) {
    real score = a[i] + (b ? b[i] : 0);
    if (score > most) most = score, at = i;
  }
  return at;
}

static void decode(const ni_exec *x, const ni_node *n, size_t p0, size_t p1) {
  lattice l = lattice_of(x, n, A - 1);
  int32_t *from = x->work[n->index], *y = x->view[n->out].data;
  for (size_t p = p0; p < p1; p++) {
    size_t len = l.q->len[p];
    real *score = (real *)x->work[n->index] + (l.q->rows + 2 * p) * l.v, *before = score + l.v;
    for (size_t t = 0; t < len; t++) {
      size_t r = row_of(&l, p, t);
      real *was = before, most = LOWEST;
      before = score, score = was;
      for (size_t j = 0; j < l.v; j++) {
        size_t i = t ? best(l.v, before, l.a + j * l.v) : 0;
        from[r * l.v + j] = (int32_t)i;
        score[j] = l.x[r * l.v + j] + (t ? before[i] + l.a[j * l.v + i] : l.start ? l.start[j] : 0);
        if (score[j] > most) most = score[j];
      }
      for (size_t j = 0; j < l.v; j++) score[j] -= most;
    }
    size_t at = len ? best(l.v, score, l.stop) : 0;
    for (size_t t = len; t-- > 0;) {
      size_t r = row_of(&l, p, t);
      y[r] = (int32_t)at;
      at = (size_t)from[r * l.v + at];
    }
  }
}

static void viterbi_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  ni_exec_pieces(x, n, lattice_of(x, n, A - 1).q->parents, 1, PIECE, decode);
}
const ni_code NI_R(ni_code_viterbi) = {viterbi_forward, NULL, NULL, NULL};
