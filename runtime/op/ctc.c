/*
** Connectionist temporal classification (Graves et al. 2006): a sequence of scores of V classes,
** one of them the blank, read as a shorter sequence of labels. A reading drops repeats first, then
** blanks; the probability of labels is the sum over all paths of steps that read so.
** The labels l_1 .. l_U stand between blanks: 2U+1 states, those with an odd number are labels.
*/
#include <math.h>
#include <string.h>

#include "../kernel/kernel.h"
#include "util.h"

enum { X, Y };
/* Attributes of ctc, of ctc_decode. */
enum { BLANK, ZERO, BEAM = 1 };
enum { MOST_BEAM = 1000 };

/* What the best prefixes are kept in. A node is a prefix: its last symbol after the parent's. */
typedef struct node {
  int32_t parent, symbol, child, sibling; /* -1: none */
  int32_t place;                          /* among the present beam; -1: not in it */
} node;

/* A prefix in the beam, or with a symbol >= 0 what it becomes by this symbol. Logarithms of the
** probability of all paths that read so and end in a blank, in a label, of both. */
typedef struct entry {
  double blank, label, total;
  int32_t node, symbol;
} entry;

/* ---- types ---- */

#ifndef NI_F64

/* x must be the scores of a sequence; finds which of them is the blank's. */
static neap_status want_scores(ni_infer *i, int *parent) {
  const neap_type *x = i->in[X];
  neap_status rc = ni_want(i, X, NEAP_F32, "x");
  if (!rc) rc = ni_want_sequence(i, parent);
  if (rc) return rc;
  if (x->rank != 1 || x->dim[0] < 2)
    return ni_fail(NEAP_ESHAPE, "x must have scores of 2 classes or more, the blank is one: %s",
                   ni_type_text(i, x));
  int blank = 0;
  rc = ni_want_whole(i, BLANK, "blank", -1, x->dim[0] - 1, &blank);
  i->attr[BLANK] = blank < 0 ? x->dim[0] - 1 : blank;
  return rc;
}

neap_status ni_infer_ctc(ni_infer *i) {
  int parent = -1, zero = 0;
  neap_status rc = want_scores(i, &parent);
  if (!rc) rc = ni_want(i, Y, NEAP_I32, "the labels");
  if (!rc) rc = ni_want_whole(i, ZERO, "zero", 0, 1, &zero);
  if (rc) return rc;
  const neap_type *y = i->in[Y];
  if (y->rank != 0 || y->space < 0 || i->space[y->space].parent != parent)
    return ni_fail(NEAP_ESHAPE, "the labels must be a sequence of ids beside x, such as i32 [U,B]: "
                   "x %s, labels %s", ni_type_text(i, i->in[X]), ni_type_text(i, y));
  i->out[0] = (neap_type){NEAP_F32, parent, 0, {0}};
  return NEAP_OK;
}

neap_status ni_infer_ctc_decode(ni_infer *i) {
  int parent, beam = 0;
  neap_status rc = want_scores(i, &parent);
  if (!rc) rc = ni_want_whole(i, BEAM, "beam", 0, MOST_BEAM, &beam);
  i->out[0] = *i->in[X];
  i->out[0].dtype = NEAP_I32;
  i->out[0].rank = 0;
  return rc;
}

/* Of each step of x: its largest score, the logarithm of the sum of e^(x - it), and ln alpha of
** each state; of each sequence: the slopes of two steps. */
size_t ni_work_ctc(const ni_exec *x, const ni_node *n) {
  const ni_rows *q = &x->rows[ni_space_of(x, n->in[X])];
  size_t states = 2 * x->rows[ni_space_of(x, n->in[Y])].steps + 1;
  return q->rows * (2 + states) + q->parents * 2 * states;
}

#endif

/* Bytes that the beam of one sequence takes: prefixes now and next, the likeliest symbols, the
** tree. */
static size_t beam_bytes(size_t beam, size_t steps) {
  size_t bytes = 2 * beam * sizeof(entry) + 2 * beam * sizeof(int32_t) +
                 (beam * steps + 1) * sizeof(node);
  return (bytes + 63) / 64 * 64;
}

#ifndef NI_F64
size_t ni_work_ctc_decode(const ni_exec *x, const ni_node *n) {
  const ni_rows *q = &x->rows[ni_space_of(x, n->in[X])];
  size_t beam = (size_t)n->attr[BEAM];
  return beam ? q->parents * (beam_bytes(beam, q->steps) / sizeof(float)) : 0;
}
#define EXP expf
#define LOG logf
#else
#define EXP exp
#define LOG log
#endif

/* Sequences that one thread takes at a time. */
enum { PIECE = 8 };

/* ln 0 */
#define NONE ((real)-HUGE_VAL)
/* e^less than it is 0, though it be finite: nothing comes to it by sums of scores that mean something. */
#define LEAST ((real)-1e29)

typedef struct ctc {
  const ni_rows *steps, *labels;
  const real *x; /* [steps->rows, classes] */
  const int32_t *ids;
  size_t classes, blank, states; /* states: of the longest labels */
  real *norm, *alpha, *slope;
} ctc;

static ctc ctc_of(const ni_exec *x, const ni_node *n) {
  ctc c = {.steps = &x->rows[ni_space_of(x, n->in[X])],
           .x = x->view[n->in[X]].data,
           .classes = x->view[n->in[X]].width,
           .blank = (size_t)n->attr[BLANK]};
  if (n->n_in <= Y) return c;
  c.labels = &x->rows[ni_space_of(x, n->in[Y])];
  c.ids = x->view[n->in[Y]].data;
  c.states = 2 * c.labels->steps + 1;
  c.norm = x->work[n->index];
  c.alpha = c.norm + 2 * c.steps->rows;
  c.slope = c.alpha + c.steps->rows * c.states;
  return c;
}

static size_t row_of(const ni_rows *q, size_t p, size_t t) { return q->off[t] + q->rank[p]; }
static size_t count_of(const ctc *c, size_t p) { return 2 * (size_t)c->labels->len[p] + 1; }

/* The class of a state; 0 for a label that cannot be, of which forward has told. */
static size_t class_of(const ctc *c, size_t p, size_t s) {
  if (s % 2 == 0) return c->blank;
  int32_t id = c->ids[row_of(c->labels, p, s / 2)];
  return id >= 0 && (size_t)id < c->classes ? (size_t)id : 0;
}

/* May a path go from state s - 2 to s? Not past a blank that parts two equal labels. */
static bool skips(const ctc *c, size_t p, size_t s) {
  return s % 2 == 1 && s > 1 && class_of(c, p, s) != class_of(c, p, s - 2);
}

/* How many labels are the same as the one before: each needs a step of blank. */
static size_t repeats(const ctc *c, size_t p) {
  size_t n = 0;
  for (size_t s = 3; s < count_of(c, p); s += 2) n += !skips(c, p, s);
  return n;
}

static bool fits(const ctc *c, size_t p) {
  return c->steps->len[p] >= c->labels->len[p] + repeats(c, p);
}

/* States that are reached at step t and from which the end is reached: from .. to-1. */
static size_t from_state(const ctc *c, size_t p, size_t t) {
  size_t count = count_of(c, p), left = 2 * (c->steps->len[p] - t);
  return count > left ? count - left : 0;
}
static size_t to_state(const ctc *c, size_t p, size_t t) {
  return 2 * t + 2 < count_of(c, p) ? 2 * t + 2 : count_of(c, p);
}

/* w_k = e^(a_k), from ln a of the states s, s-1 and, if it skips, s-2; returns ln of their sum, the
** weights divided by it. */
static real arrive(const real *before, size_t s, bool skip, real w[3]) {
  w[0] = before[s];
  w[1] = s > 0 ? before[s - 1] : NONE;
  w[2] = skip ? before[s - 2] : NONE;
  real top = w[0] > w[1] ? w[0] : w[1], sum = 0;
  if (w[2] > top) top = w[2];
  if (!(top > NONE)) return NONE;
  for (int k = 0; k < 3; k++) sum += w[k] = w[k] > NONE ? EXP(w[k] - top) : 0;
  for (int k = 0; k < 3; k++) w[k] /= sum;
  return top + LOG(sum);
}

/* ---- the loss ---- */

static bool labels_fit(const ni_exec *x, const ni_node *n, const ctc *c, size_t p) {
  size_t count = c->labels->len[p], twice;
  for (size_t u = 0; u < count; u++) {
    int32_t id = c->ids[row_of(c->labels, p, u)];
    if (id >= 0 && (size_t)id < c->classes && (size_t)id != c->blank) continue;
    if (id >= 0 && (size_t)id == c->blank)
      ni_exec_fault(x, n, NEAP_ERANGE, p, "label %zu is %d, the blank", u + 1, (int)id);
    else
      ni_exec_fault(x, n, NEAP_ERANGE, p, "label %zu: id %d is not in 0..%zu", u + 1, (int)id,
                    c->classes - 1);
    return false;
  }
  if (fits(c, p)) return true;
  twice = repeats(c, p);
  if (n->attr[ZERO] == 0)
    ni_exec_fault(x, n, NEAP_ERANGE, p,
                  "%zu labels, %zu of them as the one before, need %zu steps, there are %u; with "
                  "zero such a sequence counts 0", count, twice, count + twice,
                  (unsigned)c->steps->len[p]);
  return false;
}

/* -ln of the sum over paths: alpha_t(s) = y_t(l_s) * sum of alpha_{t-1} of s, s-1 and perhaps s-2.
** Logarithms of alpha lose what they have in common, so that long sequences keep their digits. */
static void loss(const ni_exec *x, const ni_node *n, size_t p0, size_t p1) {
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  ctc c = ctc_of(x, n);
  real part[NI_CHUNK], w[3];
  for (size_t p = p0; p < p1; p++) {
    real *y = (real *)x->view[n->out].data + p, *a = NULL, *before = NULL;
    size_t count = count_of(&c, p), len = c.steps->len[p];
    double total = 0;
    bool never = false;
    *y = 0;
    if (!labels_fit(x, n, &c, p) || !len) continue;
    for (size_t t = 0; t < len; t++, before = a) {
      size_t r = row_of(c.steps, p, t);
      const real *in = c.x + r * c.classes;
      real top = k->max(c.classes, in), sum = 0, most = NONE;
      for (size_t i = 0; i < c.classes; i += NI_CHUNK)
        sum += k->exp_sum(c.classes - i < NI_CHUNK ? c.classes - i : NI_CHUNK, in + i, top, part);
      c.norm[2 * r] = top;
      c.norm[2 * r + 1] = LOG(sum);
      a = c.alpha + r * c.states;
      for (size_t s = 0; s < count; s++) a[s] = NONE;
      for (size_t s = from_state(&c, p, t); s < to_state(&c, p, t); s++) {
        real sofar = t ? arrive(before, s, skips(&c, p, s), w) : 0;
        a[s] = sofar + (in[class_of(&c, p, s)] - top - c.norm[2 * r + 1]);
        if (a[s] > most || a[s] != a[s]) most = a[s];
      }
      if ((never |= most < LEAST)) break;
      for (size_t s = 0; s < count; s++) a[s] -= most;
      total += (double)most;
    }
    real last = never ? NONE : arrive(a, count - 1, false, w);
    if (never || last < LEAST)
      ni_exec_fault(x, n, NEAP_ERANGE, p, "the labels have probability 0 by these scores");
    else
      *y = (real)-(total + (double)last);
  }
}

static void ctc_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  ni_exec_pieces(x, n, ctc_of(x, n).steps->parents, 1, PIECE, loss);
}

/* dx += dy * (softmax(x) - the share of paths that are in a label's state): these shares go back
** from the last step along the ways by which alpha was summed. */
static void loss_back(const ni_exec *x, const ni_node *n, size_t p0, size_t p1) {
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  ctc c = ctc_of(x, n);
  real part[NI_CHUNK], w[3];
  for (size_t p = p0; p < p1; p++) {
    size_t count = count_of(&c, p), len = c.steps->len[p];
    real dy = ((const real *)x->view[n->out].grad)[p];
    if (!len || !fits(&c, p)) continue;
    real *share = c.slope + p * 2 * c.states, *next = share + c.states;
    memset(share, 0, count * sizeof *share);
    arrive(c.alpha + row_of(c.steps, p, len - 1) * c.states, count - 1, false, w);
    for (size_t s = 0; s < 2 && s < count; s++) share[count - 1 - s] = w[s];
    for (size_t t = len; t-- > 0;) {
      size_t r = row_of(c.steps, p, t);
      real *dx = (real *)x->view[n->in[X]].grad + r * c.classes;
      real scale = dy * EXP(-c.norm[2 * r + 1]);
      for (size_t i = 0; i < c.classes; i += NI_CHUNK) {
        size_t m = c.classes - i < NI_CHUNK ? c.classes - i : NI_CHUNK;
        k->exp_sum(m, c.x + r * c.classes + i, c.norm[2 * r], part);
        k->axpy(m, scale, part, dx + i);
      }
      memset(next, 0, count * sizeof *next);
      for (size_t s = from_state(&c, p, t); s < to_state(&c, p, t); s++) {
        if (share[s] == 0) continue;
        dx[class_of(&c, p, s)] -= dy * share[s];
        if (!t) continue;
        bool skip = skips(&c, p, s);
        arrive(c.alpha + row_of(c.steps, p, t - 1) * c.states, s, skip, w);
        next[s] += share[s] * w[0];
        if (s > 0) next[s - 1] += share[s] * w[1];
        if (skip) next[s - 2] += share[s] * w[2];
      }
      real *was = share;
      share = next, next = was;
    }
  }
}

static void ctc_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  if (x->view[n->in[X]].grad)
    ni_exec_pieces(x, n, ctc_of(x, n).steps->parents, 1, PIECE, loss_back);
}
const ni_code NI_R(ni_code_ctc) = {ctc_forward, ctc_backward, NULL, NULL};

/* ---- decoding ---- */

static int32_t *step_of(const ni_exec *x, const ni_node *n, const ctc *c, size_t p, size_t t) {
  return (int32_t *)x->view[n->out].data + row_of(c->steps, p, t);
}

/* The likeliest class of each step, read. */
static size_t best_path(const ni_exec *x, const ni_node *n, const ctc *c, size_t p) {
  size_t length = 0, last = c->blank;
  for (size_t t = 0; t < c->steps->len[p]; t++) {
    const real *in = c->x + row_of(c->steps, p, t) * c->classes;
    size_t at = 0;
    for (size_t i = 1; i < c->classes; i++)
      if (in[i] > in[at]) at = i;
    if (at != last && at != c->blank) *step_of(x, n, c, p, length++) = (int32_t)at;
    last = at;
  }
  return length;
}

/* ln(e^a + e^b) */
static double both(double a, double b) {
  double top = a > b ? a : b;
  return top > -HUGE_VAL ? top + log(exp(a - top) + exp(b - top)) : top;
}

/* Puts e among the `most` likeliest, the first of equals in front. */
static size_t place(entry *to, size_t n, size_t most, const entry *e) {
  if (n == most && !(e->total > to[n - 1].total)) return n;
  size_t at = n < most ? n++ : n - 1;
  for (; at > 0 && e->total > to[at - 1].total; at--) to[at] = to[at - 1];
  to[at] = *e;
  return n;
}

/* The likeliest classes but the blank, the first of equals in front. */
static size_t likeliest(const ctc *c, const real *in, size_t most, int32_t *to) {
  size_t n = 0;
  for (size_t i = 0; i < c->classes; i++) {
    if (i == c->blank || (n == most && !(in[i] > in[to[n - 1]]))) continue;
    size_t at = n < most ? n++ : n - 1;
    for (; at > 0 && in[i] > in[to[at - 1]]; at--) to[at] = to[at - 1];
    to[at] = (int32_t)i;
  }
  return n;
}

static int32_t child_of(node *tree, int32_t *nodes, int32_t parent, int32_t symbol) {
  int32_t at = tree[parent].child;
  while (at >= 0 && tree[at].symbol != symbol) at = tree[at].sibling;
  if (at >= 0) return at;
  tree[*nodes] = (node){parent, symbol, -1, tree[parent].child, -1};
  tree[parent].child = *nodes;
  return (*nodes)++;
}

/* Does the beam hold what entry i becomes by the symbol? Then it is counted there. */
static bool held(const node *tree, const entry *now, size_t n, int32_t i, int32_t symbol) {
  for (size_t j = 0; j < n; j++)
    if (tree[now[j].node].parent == i && tree[now[j].node].symbol == symbol) return true;
  return false;
}

/*
** Prefix beam search (Graves 2012, section 7.5; Hannun et al. 2014): of each prefix the probability
** of all its paths, the `beam` likeliest prefixes kept. Of the symbols that may follow, 2 * beam
** are looked at: of those at most beam - 1 stand in the beam already and one is the prefix's last,
** so that the others leave no room for any symbol less likely.
*/
static size_t best_prefix(const ni_exec *x, const ni_node *n, const ctc *c, size_t p) {
  size_t beam = (size_t)n->attr[BEAM], count = 1, many;
  char *memory = (char *)x->work[n->index] + p * beam_bytes(beam, c->steps->steps);
  entry *now = (entry *)memory, *next = now + beam, *was;
  int32_t *symbol = (int32_t *)(next + beam), nodes = 1;
  node *tree = (node *)(symbol + 2 * beam);
  tree[0] = (node){-1, -1, -1, -1, 0};
  now[0] = (entry){0, -HUGE_VAL, 0, 0, -1};
  for (size_t t = 0; t < c->steps->len[p]; t++) {
    const real *in = c->x + row_of(c->steps, p, t) * c->classes;
    double top = (double)in[0], sum = 0;
    for (size_t i = 1; i < c->classes; i++) top = (double)in[i] > top ? (double)in[i] : top;
    for (size_t i = 0; i < c->classes; i++) sum += exp((double)in[i] - top);
    double norm = top + log(sum), blank = (double)in[c->blank] - norm;
    size_t kept = 0;
    many = likeliest(c, in, 2 * beam, symbol);
    for (size_t i = 0; i < count; i++) { /* as they are: a blank, or the last symbol again */
      const node *of = &tree[now[i].node];
      entry e = {now[i].total + blank, -HUGE_VAL, 0, now[i].node, -1};
      if (of->symbol >= 0) {
        double score = (double)in[of->symbol] - norm;
        int32_t from = tree[of->parent].place;
        bool again = tree[of->parent].symbol == of->symbol;
        e.label = now[i].label + score;
        if (from >= 0)
          e.label = both(e.label, score + (again ? now[from].blank : now[from].total));
      }
      e.total = both(e.blank, e.label);
      kept = place(next, kept, beam, &e);
    }
    for (size_t i = 0; i < count; i++) /* longer by a symbol */
      for (size_t j = 0; j < many; j++) {
        double score = (double)in[symbol[j]] - norm;
        if (kept == beam && !(score + now[i].total > next[kept - 1].total)) break;
        score += tree[now[i].node].symbol == symbol[j] ? now[i].blank : now[i].total;
        entry e = {-HUGE_VAL, score, score, now[i].node, symbol[j]};
        if (score > -HUGE_VAL && !held(tree, now, count, now[i].node, symbol[j]))
          kept = place(next, kept, beam, &e);
      }
    for (size_t i = 0; i < count; i++) tree[now[i].node].place = -1;
    for (size_t i = 0; i < kept; i++) {
      if (next[i].symbol >= 0) next[i].node = child_of(tree, &nodes, next[i].node, next[i].symbol);
      tree[next[i].node].place = (int32_t)i;
    }
    was = now, now = next, next = was;
    count = kept;
  }
  size_t length = 0, at = 0;
  for (int32_t i = now[0].node; i > 0; i = tree[i].parent) length++;
  for (int32_t i = now[0].node; i > 0; i = tree[i].parent)
    *step_of(x, n, c, p, length - 1 - at++) = tree[i].symbol;
  return length;
}

static void decode(const ni_exec *x, const ni_node *n, size_t p0, size_t p1) {
  ctc c = ctc_of(x, n);
  for (size_t p = p0; p < p1; p++) {
    size_t length = n->attr[BEAM] == 0 ? best_path(x, n, &c, p) : best_prefix(x, n, &c, p);
    for (size_t t = length; t < c.steps->len[p]; t++) *step_of(x, n, &c, p, t) = -1;
  }
}

static void ctc_decode_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  ni_exec_pieces(x, n, ctc_of(x, n).steps->parents, 1, PIECE, decode);
}
const ni_code NI_R(ni_code_ctc_decode) = {ctc_decode_forward, NULL, NULL, NULL};
