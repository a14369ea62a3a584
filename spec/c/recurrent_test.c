/*
** Products, attention and the recurrent layers, on layouts built by hand with ragged lengths:
** values against plain scalar oracles, gradients against finite differences in double, and the
** same-bits rule: any number of threads, a sequence alone and in a batch, step by step and whole.
*/
#include <math.h>
#include <string.h>

#include "../../runtime/kernel/kernel.h"
#include "../../runtime/op/op.h"
#include "check.h"

enum { BATCH, SEQ, QUERY, SPACES, VALUES = 16, B = 5, PER = 8 };

static char name_b[] = "B", name_t[] = "T", name_d[] = "D";
static const ni_space spaces[SPACES] = {{name_b, -1}, {name_t, BATCH}, {name_d, BATCH}};

static void check_that(bool good, int line, const char *who, const char *what, int k) {
  char text[120];
  snprintf(text, sizeof text, "%s: %s %d", who, what, k);
  check(good, __FILE__, line, text);
}
#define THAT(x, who, what, k) check_that((x), __LINE__, (who), (what), (k))

static void *must(size_t count, size_t size) {
  void *p = calloc(count ? count : 1, size);
  if (!p) exit(2);
  return p;
}

/* ---- layouts ---- */

typedef struct layout {
  ni_rows rows[SPACES];
  uint32_t *memory[SPACES];
} layout;

static void space_new(layout *l, int space, size_t n, const int *len) {
  size_t steps = 0, rows = 0;
  for (size_t b = 0; b < n; b++) {
    rows += (size_t)len[b];
    if ((size_t)len[b] > steps) steps = (size_t)len[b];
  }
  uint32_t *off = must(steps + 1 + 3 * n + rows, sizeof *off), *perm = off + steps + 1;
  uint32_t *rank = perm + n, *lens = rank + n, *owner = lens + n;
  size_t at = 0;
  for (int length = (int)steps; length >= 0; length--)
    for (size_t b = 0; b < n; b++)
      if (len[b] == length) {
        lens[b] = (uint32_t)length;
        rank[b] = (uint32_t)at;
        perm[at++] = (uint32_t)b;
      }
  for (size_t t = 0, row = 0; t < steps; t++)
    for (size_t p = 0; p < n && lens[perm[p]] > t; p++) {
      owner[row++] = perm[p];
      off[t + 1] = (uint32_t)row;
    }
  l->memory[space] = off;
  l->rows[space] = (ni_rows){rows, steps, n, off, perm, rank, lens, owner, perm};
}

static layout layout_new(size_t n, const int *seq, const int *query) {
  layout l = {0};
  uint32_t *off = must(2, sizeof *off);
  off[1] = (uint32_t)n;
  l.memory[BATCH] = off;
  l.rows[BATCH] = (ni_rows){.rows = n, .steps = 1, .off = off};
  space_new(&l, SEQ, n, seq);
  space_new(&l, QUERY, n, query);
  return l;
}

static void layout_free(layout *l) {
  for (int s = 0; s < SPACES; s++) free(l->memory[s]);
}

/* ---- one op ---- */

typedef struct subject {
  const char *name;
  ni_node node;
  neap_type type[VALUES]; /* inputs, then outputs */
} subject;

static neap_type type_of(int space, int rank, int d0, int d1) {
  return (neap_type){NEAP_F32, space, rank, {d0, d1, 0}};
}

/* types may have NULL for an input left out. */
static neap_status infer(subject *s, const char *name, int n_in, const neap_type *const *types,
                         double a0, double a1) {
  *s = (subject){.name = name};
  s->node.op = ni_op_find(name);
  s->node.n_in = n_in;
  s->node.slot = -1;
  s->node.attr[0] = a0;
  s->node.attr[1] = a1;
  ni_infer i = {.op = s->node.op, .n_in = n_in, .attr = s->node.attr, .space = spaces,
                .n_spaces = SPACES, .n_out = s->node.op->outs};
  for (int k = 0; k < n_in; k++) {
    i.in[k] = types[k];
    s->node.in[k] = types[k] ? k : -1;
    if (types[k]) s->type[k] = *types[k];
  }
  neap_status rc = s->node.op->infer(&i);
  s->node.out = n_in;
  s->node.n_out = i.n_out;
  for (int k = 0; k < i.n_out; k++) s->type[n_in + k] = i.out[k];
  return rc;
}

static size_t width_of(const layout *l, const neap_type *t) {
  size_t w = 1;
  for (int d = 0; d < t->rank; d++)
    w *= t->dim[d] >= 0 ? (size_t)t->dim[d] : l->rows[-1 - t->dim[d]].steps;
  return w;
}
static size_t rows_of(const layout *l, const neap_type *t) {
  return t->space < 0 ? 1 : l->rows[t->space].rows;
}
static size_t size_of(const layout *l, const neap_type *t) {
  return rows_of(l, t) * width_of(l, t);
}

/* Numbers by value id; NULL: none. */
typedef struct numbers {
  double *of[VALUES];
} numbers;

static void numbers_free(numbers *n) {
  for (int v = 0; v < VALUES; v++) free(n->of[v]);
  *n = (numbers){{0}};
}

static void *narrow(const double *from, size_t n, bool wide) {
  void *p = must(n, wide ? sizeof(double) : sizeof(float));
  for (size_t i = 0; i < n; i++)
    if (wide)
      ((double *)p)[i] = from[i];
    else
      ((float *)p)[i] = (float)from[i];
  return p;
}
static double *widen(const void *from, size_t n, bool wide) {
  double *p = must(n, sizeof *p);
  for (size_t i = 0; i < n; i++)
    p[i] = wide ? ((const double *)from)[i] : (double)((const float *)from)[i];
  return p;
}

static const ni_code *running;
static void forward_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  running->forward(x, n, from, to);
}
static void backward_share(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  running->backward(x, n, from, to);
}

/* Gradients start from this: they are to be added to. */
#define START 0.25

typedef struct how {
  bool wide;
  neap_pool *pool;
  ni_slot *slot;
  int canceled;
} how;

/*
** Runs the op: `values` has the inputs and receives the outputs; grads, if not NULL, has gradients
** of outputs (NULL: none) and receives those of inputs. Memory that the op has to fill is NaN.
*/
static void execute(const subject *s, const layout *l, how h, numbers *values, numbers *grads) {
  const ni_node *n = &s->node;
  const ni_code *code = h.wide ? n->op->code_f64 : n->op->code_f32;
  size_t real_size = h.wide ? sizeof(double) : sizeof(float);
  ni_view view[VALUES] = {{0}};
  _Atomic int canceled = h.canceled;
  void *fixed = NULL, *work = NULL;
  for (int v = 0; v < n->out + n->n_out; v++) {
    size_t size = size_of(l, &s->type[v]);
    view[v].type = s->type[v];
    view[v].width = width_of(l, &s->type[v]);
    if (v >= n->out)
      view[v].data = memset(must(size, real_size), 0xff, size * real_size);
    else if (n->in[v] >= 0)
      view[v].data = narrow(values->of[v], size, h.wide);
    if (!grads || (v < n->out && n->in[v] < 0)) continue;
    double *start = must(size, sizeof *start);
    for (size_t i = 0; i < size; i++) start[i] = START;
    if (v < n->out || grads->of[v])
      view[v].grad = narrow(v < n->out ? start : grads->of[v], size, h.wide);
    free(start);
  }
  ni_exec x = {.view = view, .rows = l->rows, .fixed = &fixed, .work = &work, .slot = h.slot,
               .pool = h.pool, .learning = grads != NULL, .keeps = grads != NULL, .canceled = &canceled};
  size_t size = n->op->fixed ? n->op->fixed(&x, n, grads != NULL) * real_size : 0;
  fixed = memset(must(size, 1), 0xff, size);
  size = n->op->work ? n->op->work(&x, n) * real_size : 0;
  work = memset(must(size, 1), 0xff, size);
  running = code;
  size_t rows = rows_of(l, &s->type[n->out]);
  if (code->prepare) code->prepare(&x, n, false);
  if (n->op->flags & NI_WHOLE)
    code->forward(&x, n, 0, rows);
  else
    ni_exec_share(&x, n, rows, 1, forward_share);
  if (grads) {
    if (code->prepare) code->prepare(&x, n, true);
    if (n->op->flags & NI_WHOLE)
      code->backward(&x, n, 0, rows);
    else
      ni_exec_share(&x, n, rows, 1, backward_share);
    if (code->backward_const) code->backward_const(&x, n);
  }
  for (int v = 0; v < n->out + n->n_out; v++) {
    size_t count = size_of(l, &s->type[v]);
    if (v >= n->out) {
      free(values->of[v]);
      values->of[v] = widen(view[v].data, count, h.wide);
    } else if (view[v].grad) {
      free(grads->of[v]);
      grads->of[v] = widen(view[v].grad, count, h.wide);
    }
    free(view[v].data);
    free(view[v].grad);
  }
  free(fixed);
  free(work);
}

/* Numbers that floats hold exactly, so that both precisions see the same. */
static uint64_t drawn;
static double *draw(size_t n, double scale) {
  double *p = must(n, sizeof *p);
  for (size_t i = 0; i < n; i++)
    p[i] = (double)(float)(scale * (2.0 * (double)ni_uniform(7, 1, drawn++) - 1));
  return p;
}

static numbers draw_inputs(const subject *s, const layout *l) {
  numbers v = {{0}};
  for (int k = 0; k < s->node.n_in; k++)
    if (s->node.in[k] >= 0) {
      /* weights such that no state dies out or explodes */
      const neap_type *t = &s->type[k];
      bool matrix = t->space < 0 && t->rank == 2;
      v.of[k] = draw(size_of(l, t), matrix ? 1.7 / sqrt((double)t->dim[1]) : 1);
    }
  return v;
}

/* Bit k of `which`: output k has a gradient. */
static numbers draw_grads(const subject *s, const layout *l, unsigned which) {
  numbers g = {{0}};
  for (int k = 0; k < s->node.n_out; k++)
    if (which >> k & 1)
      g.of[s->node.out + k] = draw(size_of(l, &s->type[s->node.out + k]), 1);
  return g;
}

/* Largest difference over the largest size. */
static double distance(const double *a, const double *b, size_t n) {
  double worst = 0, top = 1e-30;
  for (size_t i = 0; i < n; i++) {
    if (!(fabs(a[i] - b[i]) <= worst)) worst = fabs(a[i] - b[i]);
    if (fabs(a[i]) > top) top = fabs(a[i]);
  }
  return worst / top;
}

/* ---- oracles: outputs of one sequence after the other, written with plain sums ---- */

typedef void oracle(const subject *s, const layout *l, const numbers *v, double **out);

static size_t row_at(const layout *l, int space, size_t b, size_t t) {
  return space < 0 ? 0 : space == BATCH ? b : l->rows[space].off[t] + l->rows[space].rank[b];
}
static size_t length(const layout *l, int space, size_t b) {
  return space <= BATCH ? 1 : l->rows[space].len[b];
}
static double logistic(double x) { return 1 / (1 + exp(-x)); }

/* Row j of matrix w [..,n] times x, plus b[j] if there is one. */
static double line_of(const double *w, size_t j, size_t n, const double *x, const double *b) {
  double sum = b ? b[j] : 0;
  for (size_t i = 0; i < n; i++) sum += w[j * n + i] * x[i];
  return sum;
}

static void layer_oracle(const subject *s, const layout *l, const numbers *v, double **out) {
  size_t in = (size_t)s->type[0].dim[0], h = (size_t)s->type[2].dim[1];
  bool lstm = s->node.op == ni_op_find("lstm"), gru = s->node.op == ni_op_find("gru");
  int kind = (int)s->node.attr[0];
  const double *bi = v->of[3], *bh = v->of[4];
  for (size_t b = 0; b < l->rows[BATCH].rows; b++) {
    double state[64] = {0}, cell[64] = {0}, next[64];
    if (s->node.n_in > 5 && v->of[5]) memcpy(state, v->of[5] + b * h, h * sizeof *state);
    if (lstm && s->node.n_in > 6 && v->of[6]) memcpy(cell, v->of[6] + b * h, h * sizeof *cell);
    for (size_t t = 0; t < length(l, SEQ, b); t++) {
      const double *x = v->of[0] + row_at(l, SEQ, b, t) * in;
      for (size_t j = 0; j < h; j++) {
        double wx[4], uh[4];
        for (size_t g = 0; g < (lstm ? 4 : gru ? 3 : 1); g++) {
          wx[g] = line_of(v->of[1], g * h + j, in, x, bi);
          uh[g] = line_of(v->of[2], g * h + j, h, state, bh);
        }
        if (lstm) {
          double i = logistic(wx[0] + uh[0]), f = logistic(wx[1] + uh[1]);
          double g = tanh(wx[2] + uh[2]), o = logistic(wx[3] + uh[3]);
          cell[j] = f * cell[j] + i * g;
          next[j] = o * tanh(cell[j]);
        } else if (gru) {
          double z = logistic(wx[1] + uh[1]), n = 0;
          if (kind == 0) {
            n = tanh(wx[2] + logistic(wx[0] + uh[0]) * uh[2]);
          } else {
            n = wx[2] + (bh ? bh[2 * h + j] : 0);
            for (size_t q = 0; q < h; q++) {
              double r = logistic(line_of(v->of[1], q, in, x, bi) +
                                  line_of(v->of[2], q, h, state, bh));
              n += v->of[2][(2 * h + j) * h + q] * (r * state[q]);
            }
            n = tanh(n);
          }
          next[j] = (1 - z) * n + z * state[j];
        } else {
          double a = wx[0] + uh[0];
          next[j] = kind == 0 ? tanh(a) : kind == 1 ? fmax(a, 0) : kind == 2 ? logistic(a) : a;
        }
      }
      memcpy(state, next, h * sizeof *state);
      memcpy(out[0] + row_at(l, SEQ, b, t) * h, state, h * sizeof *state);
    }
    memcpy(out[1] + b * h, state, h * sizeof *state);
    if (lstm) memcpy(out[2] + b * h, cell, h * sizeof *cell);
  }
}

static void attend_oracle(const subject *s, const layout *l, const numbers *v, double **out) {
  int space = s->type[0].space;
  size_t a = (size_t)s->type[0].dim[0], m = (size_t)s->type[2].dim[0];
  size_t longest = l->rows[SEQ].steps;
  for (size_t b = 0; b < l->rows[BATCH].rows; b++)
    for (size_t t = 0; t < length(l, space, b); t++) {
      size_t r = row_at(l, space, b, t), len = length(l, SEQ, b);
      double e[64], sum = 0;
      for (size_t i = 0; i < len; i++) {
        const double *k = v->of[1] + row_at(l, SEQ, b, i) * a, *q = v->of[0] + r * a;
        double score = 0;
        for (size_t j = 0; j < a; j++)
          score += s->node.n_in == 4 ? v->of[3][j] * tanh(q[j] + k[j])
                                     : s->node.attr[0] * q[j] * k[j];
        sum += e[i] = exp(score);
      }
      for (size_t i = 0; i < len; i++) {
        out[1][r * longest + i] = e[i] / sum;
        for (size_t j = 0; j < m; j++)
          out[0][r * m + j] += e[i] / sum * v->of[2][row_at(l, SEQ, b, i) * m + j];
      }
    }
}

/* matmul, linear and bmm */
static void product_oracle(const subject *s, const layout *l, const numbers *v, double **out) {
  const neap_type *a = &s->type[0], *b = &s->type[1];
  bool bmm = s->node.op == ni_op_find("bmm"), linear = s->node.op == ni_op_find("linear");
  bool ta = bmm && s->node.attr[0] != 0, tb = linear || (bmm && s->node.attr[1] != 0);
  size_t rows = rows_of(l, &s->type[s->node.out]), wa = width_of(l, a), wb = width_of(l, b);
  neap_type last = {.rank = 1, .dim = {a->dim[a->rank - 1 - ta]}};
  size_t k = width_of(l, &last), m = wa / k, n = wb / k;
  if (bmm && ta) m = wa / (k = width_of(l, &(neap_type){.rank = 1, .dim = {a->dim[0]}}));
  n = wb / k;
  for (size_t r = 0; r < rows; r++) {
    const double *pa = v->of[0] + (a->space < 0 ? 0 : r * wa);
    const double *pb = v->of[1] + (b->space < 0 ? 0 : r * wb);
    for (size_t i = 0; i < m; i++)
      for (size_t j = 0; j < n; j++) {
        double sum = linear && v->of[2] && s->node.n_in > 2 ? v->of[2][j] : 0;
        for (size_t q = 0; q < k; q++)
          sum += pa[ta ? q * m + i : i * k + q] * pb[tb ? j * k + q : q * n + j];
        out[0][(r * m + i) * n + j] = sum;
      }
  }
}

/* ---- checks of one op on one layout ---- */

/* What the gradients are of: the sum of outputs times the gradients given for them. */
static double objective(const subject *s, const layout *l, const numbers *values,
                        const numbers *grads) {
  double sum = 0;
  for (int v = s->node.out; v < s->node.out + s->node.n_out; v++)
    for (size_t i = 0; grads->of[v] && i < size_of(l, &s->type[v]); i++)
      sum += values->of[v][i] * grads->of[v][i];
  return sum;
}

static void check_values(const subject *s, const layout *l, oracle *expected) {
  numbers v = draw_inputs(s, l), f = {{0}};
  double *out[NEAP_MAX_OUTPUTS] = {0};
  memcpy(f.of, v.of, sizeof(double *) * (size_t)s->node.n_in);
  for (int k = 0; k < s->node.n_out; k++)
    out[k] = must(size_of(l, &s->type[s->node.out + k]), sizeof(double));
  execute(s, l, (how){.wide = true}, &v, NULL);
  execute(s, l, (how){.wide = false}, &f, NULL);
  expected(s, l, &v, out);
  for (int k = 0; k < s->node.n_out; k++) {
    size_t size = size_of(l, &s->type[s->node.out + k]);
    THAT(distance(out[k], v.of[s->node.out + k], size) < 1e-12, s->name, "double, output", k);
    THAT(distance(out[k], f.of[s->node.out + k], size) < 1e-5, s->name, "float, output", k);
    free(out[k]);
    free(f.of[s->node.out + k]);
  }
  numbers_free(&v);
}

static bool differences = true; /* doubles are the same at all levels: measured at the first */

static void check_gradients(const subject *s, const layout *l, unsigned which) {
  numbers v = draw_inputs(s, l), wide = draw_grads(s, l, which), f = {{0}}, out = {{0}};
  memcpy(out.of, v.of, sizeof v.of);
  memcpy(f.of, wide.of, sizeof f.of);
  execute(s, l, (how){.wide = true}, &out, &wide);
  execute(s, l, (how){.wide = false}, &out, &f);
  for (int k = 0; k < s->node.n_in; k++) {
    if (!v.of[k]) continue;
    size_t size = size_of(l, &s->type[k]);
    double *slope = must(size, sizeof *slope), step = 1e-5;
    for (size_t i = 0; i < size; i++) {
      double was = v.of[k][i], side[2] = {0};
      for (int d = 0; d < 2 && differences; d++) {
        v.of[k][i] = was + (d ? step : -step);
        execute(s, l, (how){.wide = true}, &out, NULL);
        side[d] = objective(s, l, &out, &wide);
      }
      v.of[k][i] = was;
      slope[i] = (side[1] - side[0]) / (2 * step);
      wide.of[k][i] -= START;
      f.of[k][i] -= START;
    }
    if (differences)
      THAT(distance(slope, wide.of[k], size) < 1e-6, s->name, "gradient of input", k);
    THAT(distance(wide.of[k], f.of[k], size) < 1e-4, s->name, "float gradient of input", k);
    free(slope);
    free(f.of[k]);
  }
  for (int k = s->node.out; k < s->node.out + s->node.n_out; k++) free(out.of[k]);
  numbers_free(&v);
  numbers_free(&wide);
}

/* The same for sizes at which work is cut into tiles: along one direction for each input. */
static void check_direction(const subject *s, const layout *l) {
  numbers v = draw_inputs(s, l), g = draw_grads(s, l, 7), out = v;
  execute(s, l, (how){.wide = true}, &out, &g);
  for (int k = 0; k < s->node.n_in; k++) {
    if (!v.of[k]) continue;
    size_t size = size_of(l, &s->type[k]);
    double *way = draw(size, 1), *was = v.of[k], side[2], slope = 0, terms = 0;
    out.of[k] = must(size, sizeof(double));
    for (size_t i = 0; i < size; i++) {
      slope += (g.of[k][i] - START) * way[i];
      terms += fabs((g.of[k][i] - START) * way[i]);
    }
    for (int d = 0; d < 2; d++) {
      for (size_t i = 0; i < size; i++) out.of[k][i] = was[i] + (d ? 1e-6 : -1e-6) * way[i];
      execute(s, l, (how){.wide = true}, &out, NULL);
      side[d] = objective(s, l, &out, &g);
    }
    double found = (side[1] - side[0]) / 2e-6;
    THAT(fabs(found - slope) < 1e-6 * terms, s->name, "slope along input", k);
    free(out.of[k]);
    free(way);
    out.of[k] = was;
  }
  numbers_free(&out);
  numbers_free(&g);
}

static neap_pool *two;

static void check_threads(const subject *s, const layout *l) {
  numbers v[2], g[2];
  for (int k = 0; k < 2; k++) {
    drawn = 1000;
    v[k] = draw_inputs(s, l);
    g[k] = draw_grads(s, l, 7);
    execute(s, l, (how){.pool = k ? two : NULL}, &v[k], &g[k]);
  }
  for (int k = 0; k < s->node.out + s->node.n_out; k++) {
    size_t bytes = size_of(l, &s->type[k]) * sizeof(double);
    if (!v[0].of[k]) continue;
    THAT(memcmp(v[0].of[k], v[1].of[k], bytes) == 0, s->name, "two threads, value", k);
    THAT(memcmp(g[0].of[k], g[1].of[k], bytes) == 0, s->name, "two threads, gradient", k);
  }
  for (int k = 0; k < 2; k++) {
    numbers_free(&v[k]);
    numbers_free(&g[k]);
  }
}

/* Copies the rows of sequence b between a batch and the layout of that sequence alone; a row's
** dimension that is the longest sequence is cut to this one's. */
static void copy_rows(const subject *s, int v, const layout *l, const layout *one, size_t b,
                      double *batch, double *alone, bool out) {
  const neap_type *t = &s->type[v];
  size_t wide = width_of(l, t), small = width_of(one, t);
  for (size_t step = 0; step < length(l, t->space, b); step++) {
    double *to = alone + row_at(one, t->space, 0, step) * small;
    double *from = batch + row_at(l, t->space, b, step) * wide;
    if (out)
      THAT(memcmp(to, from, small * sizeof *to) == 0, s->name, "alone, value", v);
    else
      memcpy(to, from, small * sizeof *to);
  }
}

static void check_alone(const subject *s, const layout *l) {
  numbers v = draw_inputs(s, l);
  execute(s, l, (how){0}, &v, NULL);
  for (size_t b = 0; b < l->rows[BATCH].rows; b++) {
    int seq = (int)l->rows[SEQ].len[b], query = (int)l->rows[QUERY].len[b];
    layout one = layout_new(1, &seq, &query);
    numbers w = {{0}};
    for (int k = 0; k < s->node.n_in; k++) {
      if (!v.of[k]) continue;
      w.of[k] = must(size_of(&one, &s->type[k]), sizeof(double));
      copy_rows(s, k, l, &one, b, v.of[k], w.of[k], false);
    }
    execute(s, &one, (how){0}, &w, NULL);
    for (int k = s->node.out; k < s->node.out + s->node.n_out; k++)
      copy_rows(s, k, l, &one, b, v.of[k], w.of[k], true);
    numbers_free(&w);
    layout_free(&one);
  }
  numbers_free(&v);
}

/* One step at a time, carried by a state whose rows are in another order, against the whole. */
static void check_steps(const subject *whole, const layout *l) {
  subject s = *whole;
  s.node.slot = 0;
  size_t n = l->rows[BATCH].rows, h = (size_t)s.type[2].dim[1];
  int states = s.node.n_out - 1;
  numbers v = draw_inputs(&s, l);
  execute(whole, l, (how){0}, &v, NULL);
  ni_slot slot[2];
  uint8_t *held = must(n, 1);
  for (int j = 0; j < states; j++)
    slot[j] = (ni_slot){must(n * h, sizeof(float)), must(n * h, sizeof(float)), held, h};
  for (size_t t = 0; t < l->rows[SEQ].steps; t++) {
    int len[64], none[64] = {0};
    for (size_t b = 0; b < n; b++) len[b] = length(l, SEQ, b) > t;
    layout step = layout_new(n, len, none);
    uint32_t state[64];
    for (size_t p = 0; p < n; p++) state[p] = (uint32_t)n - 1 - step.rows[SEQ].perm[p];
    step.rows[SEQ].state = state;
    numbers w = v;
    w.of[0] = must(size_of(&step, &s.type[0]), sizeof(double));
    for (int k = s.node.out; k < s.node.out + s.node.n_out; k++) w.of[k] = NULL;
    for (size_t b = 0; b < n; b++)
      if (len[b])
        memcpy(w.of[0] + row_at(&step, SEQ, b, 0) * width_of(l, &s.type[0]),
               v.of[0] + row_at(l, SEQ, b, t) * width_of(l, &s.type[0]),
               width_of(l, &s.type[0]) * sizeof(double));
    execute(&s, &step, (how){.slot = slot}, &w, NULL);
    for (size_t b = 0; b < n; b++)
      if (len[b])
        THAT(memcmp(w.of[s.node.out] + row_at(&step, SEQ, b, 0) * h,
                    v.of[s.node.out] + row_at(l, SEQ, b, t) * h, h * sizeof(double)) == 0,
             s.name, "step by step, step", (int)t);
    for (int j = 0; j < states; j++) {
      memcpy(slot[j].data, slot[j].next, n * h * sizeof(float));
      if (t + 1 == l->rows[SEQ].steps)
        THAT(memcmp(w.of[s.node.out + 1 + j], v.of[s.node.out + 1 + j],
                    n * h * sizeof(double)) == 0,
             s.name, "step by step, last state", j);
    }
    memset(held, 1, n);
    free(w.of[0]);
    for (int k = s.node.out; k < s.node.out + s.node.n_out; k++) free(w.of[k]);
    layout_free(&step);
  }
  for (int j = 0; j < states; j++) {
    free(slot[j].data);
    free(slot[j].next);
  }
  free(held);
  numbers_free(&v);
}

/* Rows that start from an attached state leave nothing for the first state's gradient. */
static void check_held(const subject *whole, const layout *l) {
  subject s = *whole;
  s.node.slot = 0;
  size_t n = l->rows[BATCH].rows, h = (size_t)s.type[2].dim[1];
  uint8_t held[64] = {0, 1};
  ni_slot slot[2];
  for (int j = 0; j < s.node.n_out - 1; j++)
    slot[j] = (ni_slot){must(n * h, sizeof(float)), must(n * h, sizeof(float)), held, h};
  numbers v = draw_inputs(&s, l), g = draw_grads(&s, l, 7);
  execute(&s, l, (how){.wide = true, .slot = slot}, &v, &g);
  for (size_t b = 0; b < n; b++) {
    bool moved = false;
    for (size_t i = 0; i < h; i++) moved |= g.of[5][b * h + i] != START;
    THAT(moved == (b != 1), s.name, "gradient of the first state of row", (int)b);
  }
  for (int j = 0; j < s.node.n_out - 1; j++) {
    free(slot[j].data);
    free(slot[j].next);
  }
  numbers_free(&v);
  numbers_free(&g);
}

/* ---- all ops ---- */

static const int LENGTHS[B] = {3, 5, 0, 2, 1}, QUERIES[B] = {2, 0, 3, 4, 1};

static void check_op(const subject *s, oracle *expected, unsigned grads) {
  layout l = layout_new(B, LENGTHS, QUERIES);
  check_values(s, &l, expected);
  for (unsigned which = 1; which <= grads; which++) check_gradients(s, &l, which);
  check_alone(s, &l);
  if (s->node.op->flags & NI_RECURRENT) {
    check_steps(s, &l);
    if (s->node.n_in > 5 && s->node.in[5] >= 0) check_held(s, &l);
  }
  layout_free(&l);
}

static void check_large(const subject *s) {
  int len[40], query[40];
  for (int b = 0; b < 40; b++) {
    len[b] = (b * 7) % 23;
    query[b] = (b * 5) % 11;
  }
  layout l = layout_new(40, len, query);
  check_threads(s, &l);
  if (differences) check_direction(s, &l);
  check_alone(s, &l);
  if (s->node.op->flags & NI_RECURRENT) check_steps(s, &l);
  layout_free(&l);
}

/* Few rows and many units: threads share the units. */
static void check_units(const subject *s) {
  static const int len[3] = {5, 0, 3}, query[3] = {0};
  for (size_t b = 1; b <= 3; b += 2) {
    layout l = layout_new(b, len, query);
    check_threads(s, &l);
    layout_free(&l);
  }
}

static subject layer(const char *name, int kind, int gates, int in, int h, unsigned left_out) {
  neap_type x = type_of(SEQ, 1, in, 0), w = type_of(-1, 2, gates * h, in);
  neap_type u = type_of(-1, 2, gates * h, h), b = type_of(-1, 1, gates * h, 0);
  neap_type first = type_of(BATCH, 1, h, 0);
  const neap_type *all[] = {&x, &w, &u, &b, &b, &first, &first};
  for (int k = 3; k < 7; k++)
    if (left_out >> k & 1) all[k] = NULL;
  subject s;
  CHECK(infer(&s, name, gates == 4 ? 7 : 6, all, kind, 0) == NEAP_OK);
  return s;
}

static void layers(void) {
  static const struct { const char *name; int kind, gates; } cells[] = {
    {"elman", 0, 1}, {"elman", 1, 1}, {"elman", 2, 1}, {"elman", 3, 1},
    {"lstm", 0, 4},  {"gru", 0, 3},   {"gru", 1, 3}};
  for (size_t k = 0; k < sizeof cells / sizeof *cells; k++) {
    /* all inputs; without biases and first states; only one of each */
    static const unsigned left_out[] = {0, 8 | 16 | 32 | 64, 16 | 32, 8 | 64};
    for (int o = 0; o < 4; o++) {
      subject s = layer(cells[k].name, cells[k].kind, cells[k].gates, 3, 4, left_out[o]);
      check_op(&s, layer_oracle, cells[k].gates == 4 ? 7 : 3);
    }
    subject s = layer(cells[k].name, cells[k].kind, cells[k].gates, 37, 41, 0);
    check_large(&s);
    if (cells[k].kind) continue;
    int h = cells[k].gates == 1 ? 384 : cells[k].gates == 3 ? 224 : 192;
    for (int more = 0; more <= 5; more += 5) { /* more: the last thread has no whole panel */
      s = layer(cells[k].name, 0, cells[k].gates, 9, h + more, 0);
      check_units(&s);
    }
  }
}

static void attention(void) {
  for (int additive = 0; additive < 2; additive++)
    for (int query = 0; query < 3; query++) {
      static const int space[] = {QUERY, BATCH, SEQ};
      neap_type q = type_of(space[query], 1, 3, 0), k = type_of(SEQ, 1, 3, 0);
      neap_type v = type_of(SEQ, 1, 4, 0), u = type_of(-1, 1, 3, 0);
      const neap_type *all[] = {&q, &k, &v, &u};
      subject s;
      const char *name = additive ? "attend_additive" : "attend_dot";
      CHECK(infer(&s, name, 3 + additive, all, additive ? 0 : 0.7, 0) == NEAP_OK);
      CHECK(s.type[s.node.out].space == q.space && s.type[s.node.out].dim[0] == 4);
      CHECK(s.type[s.node.out + 1].dim[0] == NEAP_LONGEST(SEQ));
      check_op(&s, attend_oracle, 3);
      q.dim[0] = k.dim[0] = u.dim[0] = 300; /* more than one span of columns */
      CHECK(infer(&s, name, 3 + additive, all, additive ? 0 : 0.1, 0) == NEAP_OK);
      check_large(&s);
      if (query > 0) continue;
      layout l = layout_new(B, LENGTHS, QUERIES);
      check_values(&s, &l, attend_oracle);
      layout_free(&l);
    }
}

static void products(void) {
  static const int of[] = {SEQ, BATCH, -1};
  subject s;
  for (int k = 0; k < 3; k++)
    for (int rank = 1; rank <= 2; rank++) {
      neap_type x = type_of(of[k], rank, rank == 2 ? 2 : 3, 3);
      neap_type w = type_of(-1, 2, 3, 4), wt = type_of(-1, 2, 4, 3), b = type_of(-1, 1, 4, 0);
      CHECK(infer(&s, "matmul", 2, (const neap_type *[]){&x, &w}, 0, 0) == NEAP_OK);
      check_op(&s, product_oracle, 1);
      CHECK(infer(&s, "linear", 2, (const neap_type *[]){&x, &wt}, 0, 0) == NEAP_OK);
      check_op(&s, product_oracle, 1);
      CHECK(infer(&s, "linear", 3, (const neap_type *[]){&x, &wt, &b}, 0, 0) == NEAP_OK);
      check_op(&s, product_oracle, 1);
    }
  neap_type x = type_of(SEQ, 1, 61, 0), w = type_of(-1, 2, 61, 530), b = type_of(-1, 1, 530, 0);
  neap_type wt = type_of(-1, 2, 530, 61);
  CHECK(infer(&s, "matmul", 2, (const neap_type *[]){&x, &w}, 0, 0) == NEAP_OK);
  check_large(&s);
  CHECK(infer(&s, "linear", 3, (const neap_type *[]){&x, &wt, &b}, 0, 0) == NEAP_OK);
  check_large(&s);
}

static void row_products(void) {
  static const int of[][2] = {{SEQ, SEQ}, {SEQ, -1}, {-1, BATCH}, {-1, -1}};
  subject s;
  for (int k = 0; k < 4; k++) {
    for (int turns = 0; turns < 4; turns++) {
      bool ta = turns & 1, tb = turns & 2;
      neap_type a = type_of(of[k][0], 2, ta ? 3 : 2, ta ? 2 : 3);
      neap_type b = type_of(of[k][1], 2, tb ? 4 : 3, tb ? 3 : 4);
      CHECK(infer(&s, "bmm", 2, (const neap_type *[]){&a, &b}, ta, tb) == NEAP_OK);
      check_op(&s, product_oracle, 1);
      if (k < 3) check_large(&s);
    }
    neap_type a = type_of(of[k][0], 1, 3, 0), b = type_of(of[k][1], 2, 3, 4);
    CHECK(infer(&s, "bmm", 2, (const neap_type *[]){&a, &b}, 0, 0) == NEAP_OK);
    CHECK(s.type[2].rank == 1 && s.type[2].dim[0] == 4);
    check_op(&s, product_oracle, 1);
    b.rank = 1;
    CHECK(infer(&s, "bmm", 2, (const neap_type *[]){&a, &b}, 0, 0) == NEAP_OK);
    CHECK(s.type[2].rank == 0);
    check_op(&s, product_oracle, 1);
  }
  /* sums over the longest sequence: zeros past the end of a shorter one change no bit */
  neap_type a = type_of(BATCH, 1, NEAP_LONGEST(SEQ), 0);
  neap_type b = type_of(BATCH, 2, NEAP_LONGEST(SEQ), 4);
  neap_type bt = type_of(BATCH, 2, 4, NEAP_LONGEST(SEQ));
  for (int turned = 0; turned < 2; turned++) {
    const neap_type *all[] = {&a, turned ? &bt : &b};
    CHECK(infer(&s, "bmm", 2, all, 0, turned) == NEAP_OK);
    static const int lengths[B] = {7, 70, 0, 33, 1};
    layout l = layout_new(B, lengths, QUERIES);
    check_values(&s, &l, product_oracle);
    check_gradients(&s, &l, 1);
    size_t longest = l.rows[SEQ].steps;
    numbers v = draw_inputs(&s, &l);
    for (size_t r = 0; r < B; r++)
      for (size_t i = (size_t)lengths[r]; i < longest; i++) {
        v.of[0][r * longest + i] = 0;
        for (size_t j = 0; j < 4; j++)
          v.of[1][r * longest * 4 + (turned ? j * longest + i : i * 4 + j)] = 0;
      }
    execute(&s, &l, (how){0}, &v, NULL);
    for (size_t r = 0; r < B; r++) {
      int len = lengths[r];
      layout one = layout_new(1, &len, &len);
      numbers w = {{0}};
      w.of[0] = must((size_t)len, sizeof(double));
      w.of[1] = must((size_t)len * 4, sizeof(double));
      for (size_t i = 0; i < (size_t)len; i++) {
        w.of[0][i] = v.of[0][r * longest + i];
        for (size_t j = 0; j < 4; j++)
          if (turned)
            w.of[1][j * (size_t)len + i] = v.of[1][r * longest * 4 + j * longest + i];
          else
            w.of[1][i * 4 + j] = v.of[1][r * longest * 4 + i * 4 + j];
      }
      execute(&s, &one, (how){0}, &w, NULL);
      CHECK(memcmp(w.of[2], v.of[2] + r * 4, 4 * sizeof(double)) == 0);
      numbers_free(&w);
      layout_free(&one);
    }
    numbers_free(&v);
    layout_free(&l);
  }
}

/* ---- refusals, and a run that is canceled ---- */

static void refusals(void) {
  neap_type x = type_of(SEQ, 1, 3, 0), w = type_of(-1, 2, 8, 3), u = type_of(-1, 2, 8, 2);
  neap_type b = type_of(-1, 1, 8, 0), first = type_of(BATCH, 1, 2, 0), bad, id = x;
  const neap_type *in[] = {&x, &w, &u, &b, &b, &first, &first};
  subject s;
  id.dtype = NEAP_I32;
#define REFUSED(expected, words, op, n, k, type, a0)                    \
  do {                                                                  \
    const neap_type *kept = in[k];                                      \
    bad = (type);                                                       \
    in[k] = &bad;                                                       \
    CHECK_FAILS(expected, words, infer(&s, op, n, in, a0, 0));          \
    in[k] = kept;                                                       \
  } while (0)
  CHECK(infer(&s, "lstm", 7, in, 0, 0) == NEAP_OK);
  REFUSED(NEAP_ETYPE, "x must be f32, not i32 [T,B,3]", "lstm", 7, 0, id, 0);
  REFUSED(NEAP_ESHAPE, "x must be a sequence", "lstm", 7, 0, first, 0);
  REFUSED(NEAP_ESHAPE, "one feature dimension, not [T,B,3,2]", "lstm", 7, 0,
          type_of(SEQ, 2, 3, 2), 0);
  REFUSED(NEAP_ESHAPE, "weight_ih must be [8,3], not [8,4]: x [T,B,3], weight_hh [8,2]", "lstm", 7,
          1, type_of(-1, 2, 8, 4), 0);
  REFUSED(NEAP_ESHAPE, "weight_hh must be [8,2], not [6,2]", "lstm", 7, 2, type_of(-1, 2, 6, 2), 0);
  REFUSED(NEAP_ESHAPE, "weight_hh must be [4*H,H], not [8]", "lstm", 7, 2, b, 0);
  REFUSED(NEAP_ESHAPE, "bias_hh must be [8], not [B,8]", "lstm", 7, 4, type_of(BATCH, 1, 8, 0), 0);
  REFUSED(NEAP_ESHAPE, "c0 must be [B,2], one for each sequence of x [T,B,3], not [2]", "lstm", 7,
          6, type_of(-1, 1, 2, 0), 0);
  w.dim[0] = u.dim[0] = b.dim[0] = 2;
  REFUSED(NEAP_ERANGE, "activation must be a whole number in 0..3, not 4", "elman", 6, 0, x, 4);
  w.dim[0] = u.dim[0] = b.dim[0] = 6;
  REFUSED(NEAP_ERANGE, "reset_before must be a whole number in 0..1, not 0.5", "gru", 6, 0, x, 0.5);

  in[1] = &w;
  w = type_of(-1, 2, 3, 5);
  REFUSED(NEAP_ESHAPE, "inner widths differ: x [T,B,3], w [4,5]", "matmul", 2, 1,
          type_of(-1, 2, 4, 5), 0);
  REFUSED(NEAP_ESHAPE, "bmm multiplies by row", "matmul", 2, 1, type_of(BATCH, 2, 3, 5), 0);
  REFUSED(NEAP_ESHAPE, "w must be a matrix [N,K], not [3]", "linear", 2, 1,
          type_of(-1, 1, 3, 0), 0);
  REFUSED(NEAP_ESHAPE, "x must have a feature dimension, not [T,B]", "linear", 2, 0,
          type_of(SEQ, 0, 0, 0), 0);
  w = type_of(-1, 2, 5, 3);
  REFUSED(NEAP_ESHAPE, "b must be [5], as wide as w [5,3], not [3]", "linear", 3, 2,
          type_of(-1, 1, 3, 0), 0);
  w = type_of(SEQ, 2, 3, 5);
  REFUSED(NEAP_ESHAPE, "inner widths differ: a [T,B,4], b [T,B,3,5]", "bmm", 2, 0,
          type_of(SEQ, 1, 4, 0), 0);
  REFUSED(NEAP_ESHAPE, "two feature dimensions to be transposed", "bmm", 2, 0, x, 1);
  REFUSED(NEAP_ESHAPE, "not [T,B,2,2,0]", "bmm", 2, 0, type_of(SEQ, 3, 2, 2), 0);

  neap_type k = type_of(SEQ, 1, 3, 0), v = type_of(SEQ, 1, 2, 0), wu = type_of(-1, 1, 3, 0);
  in[1] = &k, in[2] = &v, in[3] = &wu;
  REFUSED(NEAP_ESHAPE, "k and v must be of one sequence", "attend_dot", 3, 2,
          type_of(QUERY, 1, 2, 0), 1);
  REFUSED(NEAP_ESHAPE, "q must have rows of the sequences that k has: q [3], k [T,B,3]",
          "attend_dot", 3, 0, type_of(-1, 1, 3, 0), 1);
  REFUSED(NEAP_ESHAPE, "widths differ: q [B,4], k [T,B,3]", "attend_dot", 3, 0,
          type_of(BATCH, 1, 4, 0), 1);
  REFUSED(NEAP_ESHAPE, "u must be [3], as wide as q [T,B,3], not [2]", "attend_additive", 4, 3,
          type_of(-1, 1, 2, 0), 0);
  REFUSED(NEAP_ETYPE, "q must be f32", "attend_dot", 3, 0, id, 1);
}

static void canceled(void) {
  layout l = layout_new(B, LENGTHS, QUERIES);
  static const char *const names[] = {"elman", "lstm", "gru"};
  static const int gates[] = {1, 4, 3};
  for (int k = 0; k < 3; k++) {
    subject s = layer(names[k], 0, gates[k], 3, 4, 0);
    numbers v = draw_inputs(&s, &l), g = draw_grads(&s, &l, 7);
    execute(&s, &l, (how){.canceled = 1}, &v, &g);
    THAT(isnan(v.of[s.node.out][0]) && isnan(v.of[s.node.out + 1][0]), s.name, "ends at step", 0);
    numbers_free(&v);
    numbers_free(&g);
  }
  layout_free(&l);
}

int main(void) {
  if (ni_pool_new(&two, 2) != NEAP_OK) return 2;
  static const char *const levels[] = {"generic", "avx2", "avx512", "neon"};
  refusals();
  canceled();
  for (size_t k = 0; k < sizeof levels / sizeof *levels; k++) {
    if (!ni_kernel_select(levels[k])) continue;
    layers();
    attention();
    products();
    row_products();
    differences = false;
  }
  ni_pool_release(two);
  return report();
}
