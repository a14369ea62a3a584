/*
** Every op of the table but the products, attention and the recurrent layers: types, values in
** double against formulas written here, float against double, gradients against central
** differences, rows in shares against rows at once, threads against none, and wrong shapes.
** What an op does not declare as kept is overwritten before its backward runs.
*/
#include "check.h"

#include <math.h>

#include "../../runtime/kernel/kernel.h"
#include "../../runtime/op/op.h"

/* A check whose failure says which op, type and layout. */
#define TELL(ok, ...)                        \
  do {                                       \
    if (ok) {                                \
      passed++;                              \
    } else {                                 \
      failed++;                              \
      printf("%s:%d: ", __FILE__, __LINE__); \
      printf(__VA_ARGS__);                   \
      printf("\n");                          \
    }                                        \
  } while (0)

static void *take(size_t bytes) {
  void *p = calloc(1, bytes ? bytes : 1);
  if (!p) exit(2);
  return p;
}

static double chance(void) {
  static uint64_t n;
  return (double)ni_uniform(5, 0, n++);
}

/* ---- spaces ---- */

enum { B, T, CHARS, U, PAIRS, SIXES, SPACES };
static const ni_space space[SPACES] = {
    {(char *)"B", -1, B, 1}, {(char *)"T", B, T, 1},   {(char *)"chars", T, CHARS, 1},
    {(char *)"U", B, U, 1},  {(char *)"T/2", B, T, 2}, {(char *)"T/6", B, T, 6}};
static ni_rows rows_of[SPACES];
static const char *layout;

static void layout_space(int s, const uint32_t *lengths) {
  ni_rows *q = &rows_of[s];
  size_t n = q->parents = rows_of[space[s].parent].rows;
  uint32_t *len = take(n * 4), *perm = take(n * 4), *rank = take(n * 4);
  q->rows = q->steps = 0;
  for (size_t p = 0; p < n; p++) {
    len[p] = lengths[p];
    perm[p] = (uint32_t)p;
    q->rows += len[p];
    if (len[p] > q->steps) q->steps = len[p];
  }
  for (size_t i = 1; i < n; i++)
    for (size_t j = i; j > 0 && len[perm[j]] > len[perm[j - 1]]; j--) {
      uint32_t was = perm[j];
      perm[j] = perm[j - 1];
      perm[j - 1] = was;
    }
  for (size_t i = 0; i < n; i++) rank[perm[i]] = (uint32_t)i;
  uint32_t *off = take((q->steps + 1) * 4), *owner = take(q->rows * 4), row = 0;
  for (size_t t = 0; t < q->steps; t++) {
    off[t] = row;
    for (size_t i = 0; i < n; i++)
      if (len[perm[i]] > t) owner[row++] = perm[i];
  }
  off[q->steps] = row;
  q->len = len, q->perm = q->state = perm, q->rank = rank, q->off = off, q->owner = owner;
}

static void layout_all(const char *name, size_t batch, const uint32_t *t, const uint32_t *chars,
                       const uint32_t *u) {
  layout = name;
  rows_of[B] = (ni_rows){.rows = batch, .steps = 1};
  layout_space(T, t);
  layout_space(CHARS, chars);
  layout_space(U, u);
  for (int s = PAIRS; s <= SIXES; s++) {
    uint32_t *fewer = take(batch * 4), k = (uint32_t)space[s].factor;
    for (size_t p = 0; p < batch; p++) fewer[p] = (t[p] + k - 1) / k;
    layout_space(s, fewer);
    free(fewer);
  }
}

static void free_layout(void) {
  for (int s = T; s < SPACES; s++) {
    free((void *)rows_of[s].len);
    free((void *)rows_of[s].perm);
    free((void *)rows_of[s].rank);
    free((void *)rows_of[s].off);
    free((void *)rows_of[s].owner);
  }
}

static size_t size_of(int32_t dim) { return dim >= 0 ? (size_t)dim : rows_of[-1 - dim].steps; }
static size_t row_at(int s, size_t parent, size_t step) {
  return rows_of[s].off[step] + rows_of[s].rank[parent];
}

/* ---- values ---- */

typedef struct value {
  neap_type type;
  size_t rows, width, dim[3];
  double *v;
} value;

static value value_of(const neap_type *t) {
  value v = {.type = *t, .rows = t->space < 0 ? 1 : rows_of[t->space].rows, .width = 1};
  for (int d = 0; d < t->rank; d++) v.width *= v.dim[d] = size_of(t->dim[d]);
  v.v = take(v.rows * v.width * sizeof(double));
  return v;
}

/*
** "r T:2,3": how it is filled, its space (left out: none), its dimensions (a name: the longest of
** that space). r real, p positive, m 0 or 1 with probability 1/2, u in (0,1), n few whole numbers,
** i ids 0..4, j ids -1..4, d ids 1 and 2, 0.. the number itself.
*/
static neap_type type_of(const char *text) {
  neap_type t = {strchr("ijd", *text) ? NEAP_I32 : NEAP_F32, NEAP_NO_SPACE, 0, {0}};
  const char *p = strchr(text, ' ') + 1;
  for (int s = 0; s < SPACES; s++) {
    size_t n = strlen(space[s].name);
    if (strncmp(p, space[s].name, n) == 0 && p[n] == ':') t.space = s;
  }
  p = strchr(p, ':') + 1;
  while (*p) {
    char *end = (char *)p;
    int32_t dim = (int32_t)strtol(p, &end, 10);
    for (int s = 0; s < SPACES && end == p; s++)
      if (strncmp(p, space[s].name, strlen(space[s].name)) == 0) {
        dim = NEAP_LONGEST(s);
        end = (char *)p + strlen(space[s].name);
      }
    t.dim[t.rank++] = dim;
    p = *end ? end + 1 : end;
  }
  return t;
}

static void fill(value *v, const char *text) {
  for (size_t i = 0; i < v->rows * v->width; i++) {
    double c = chance();
    double x = 4 * c - 2;
    switch (*text) {
      case 'p': x = 0.3 + 2 * c; break;
      case 'm': x = c < 0.5; break;
      case 'u': x = 0.02 + 0.96 * c; break;
      case 'n': x = floor(5 * c) - 2; break;
      case 'i': x = floor(5 * c); break;
      case 'j': x = floor(6 * c) - 1; break;
      case 'd': x = 1 + floor(2 * c); break;
      case 'r': break;
      default: x = strtod(text, NULL);
    }
    v->v[i] = (double)(float)x;
  }
}

static void store(void *to, neap_dtype dtype, bool f64, size_t i, double x) {
  if (dtype == NEAP_I32)
    ((int32_t *)to)[i] = (int32_t)x;
  else if (f64)
    ((double *)to)[i] = x;
  else
    ((float *)to)[i] = (float)x;
}

static double load(const void *from, neap_dtype dtype, bool f64, size_t i) {
  if (dtype == NEAP_I32) return ((const int32_t *)from)[i];
  return f64 ? ((const double *)from)[i] : (double)((const float *)from)[i];
}

/* ---- cases ---- */

enum { MAX_IN = 5 };

typedef struct io {
  const struct test_case *c;
  int n_in;
  value in[MAX_IN], out;
} io;

typedef struct test_case {
  const char *op;
  const char *in[MAX_IN];
  double attr[4];
  const char *type;               /* of the result */
  double (*one)(const double *v, const double *attr); /* an element from its operands', or */
  void (*all)(io *t);             /* the whole result */
  unsigned no_grad;               /* inputs that get none, as bits */
  bool idle;                      /* not learning */
} test_case;

/* Operand k's element for a row and element i of the result, broadcast. */
static double operand(const io *t, int k, size_t row, size_t i) {
  const value *a = &t->in[k], *y = &t->out;
  size_t at = 0, step = 1;
  for (int d = 1; d <= y->type.rank; d++) {
    size_t n = y->dim[y->type.rank - d], index = i % n;
    i /= n;
    if (d > a->type.rank) continue;
    if (a->dim[a->type.rank - d] != 1) at += index * step;
    step *= a->dim[a->type.rank - d];
  }
  return a->v[(a->type.space == y->type.space ? row : 0) * a->width + at];
}

static void expect(io *t) {
  if (t->c->all) {
    t->c->all(t);
    return;
  }
  for (size_t r = 0; r < t->out.rows; r++)
    for (size_t i = 0; i < t->out.width; i++) {
      double v[MAX_IN] = {0};
      for (int k = 0; k < t->n_in; k++) v[k] = operand(t, k, r, i);
      t->out.v[r * t->out.width + i] = t->c->one(v, t->c->attr);
    }
}

/* ---- formulas of single elements ---- */

#define ONE(name, E)                                            \
  static double name(const double *v, const double *attr) {     \
    double a = v[0], b = v[1], c = v[2], p = attr[0], q = attr[1]; \
    (void)a, (void)b, (void)c, (void)p, (void)q;                \
    return E;                                                   \
  }
ONE(f_neg, 0 - a)
ONE(f_exp, exp(a))
ONE(f_log, log(a))
ONE(f_sqrt, sqrt(a))
ONE(f_square, pow(a, 2))
ONE(f_abs, a < 0 ? -a : a)
ONE(f_reciprocal, pow(a, -1))
ONE(f_sin, sin(a))
ONE(f_cos, cos(a))
ONE(f_tanh, (exp(2 * a) - 1) / (exp(2 * a) + 1))
ONE(f_sigmoid, 1 / (1 + exp(-a)))
ONE(f_relu, fmax(a, 0))
ONE(f_leaky, fmax(a, 0) + p * fmin(a, 0))
ONE(f_elu, a > 0 ? a : p * (exp(a) - 1))
ONE(f_gelu, a * (1 + erf(a / sqrt(2))) / 2)
ONE(f_softplus, log(1 + exp(a)))
ONE(f_softsign, a / (1 + fabs(a)))
ONE(f_hard, fmin(fmax(p * a + q, 0), 1))
ONE(f_clamp, fmin(fmax(a, p), q))
ONE(f_same, a)
ONE(f_trunc, trunc(a))
ONE(f_add, a + b)
ONE(f_sub, a - b)
ONE(f_mul, a * b)
ONE(f_div, a / b)
ONE(f_pow, exp(b * log(a)))
ONE(f_max, fmax(a, b))
ONE(f_min, fmin(a, b))
ONE(f_eq, a == b)
ONE(f_ne, a != b)
ONE(f_lt, a < b)
ONE(f_le, a <= b)
ONE(f_gt, a > b)
ONE(f_ge, a >= b)
ONE(f_where, a != 0 ? b : c)
ONE(f_bce, -(b * log(1 / (1 + exp(-a))) + (1 - b) * log(1 - 1 / (1 + exp(-a)))))

/* ---- formulas of whole results ---- */

enum { SEED = 77, NODE = 2 };

static void f_uniform(io *t) {
  for (size_t i = 0; i < t->out.rows * t->out.width; i++)
    t->out.v[i] = (double)ni_uniform(SEED, NODE, i);
}

static void f_dropout(io *t) {
  double rate = t->in[1].v[0];
  for (size_t i = 0; i < t->out.rows * t->out.width; i++)
    t->out.v[i] = (double)ni_uniform(SEED, NODE, i) < rate ? 0 : t->in[0].v[i] / (1 - rate);
}

/* Splits element i of a row of v at an axis. */
static void split(const value *v, int axis, size_t i, size_t *outer, size_t *at, size_t *inner) {
  size_t in = 1;
  for (int d = axis + 1; d < v->type.rank; d++) in *= v->dim[d];
  *inner = i % in;
  *at = i / in % v->dim[axis];
  *outer = i / in / v->dim[axis];
}
static size_t join(const value *v, int axis, size_t outer, size_t at, size_t inner) {
  size_t in = 1;
  for (int d = axis + 1; d < v->type.rank; d++) in *= v->dim[d];
  return (outer * v->dim[axis] + at) * in + inner;
}

static void f_concat(io *t) {
  int axis = (int)t->c->attr[0];
  for (size_t r = 0; r < t->out.rows; r++)
    for (size_t i = 0; i < t->out.width; i++) {
      size_t o, j, e;
      int k = 0;
      split(&t->out, axis, i, &o, &j, &e);
      for (; j >= t->in[k].dim[axis]; k++) j -= t->in[k].dim[axis];
      const value *a = &t->in[k];
      size_t row = a->type.space < 0 ? 0 : r;
      t->out.v[r * t->out.width + i] = a->v[row * a->width + join(a, axis, o, j, e)];
    }
}

static void f_slice(io *t) {
  int axis = (int)t->c->attr[0];
  for (size_t i = 0; i < t->out.rows * t->out.width; i++) {
    size_t o, j, e;
    split(&t->out, axis, i, &o, &j, &e);
    t->out.v[i] = t->in[0].v[join(&t->in[0], axis, o, j + (size_t)t->c->attr[1], e)];
  }
}

static void f_reshape(io *t) {
  memcpy(t->out.v, t->in[0].v, t->out.rows * t->out.width * sizeof(double));
}

static void f_transpose(io *t) {
  int a = (int)t->c->attr[0], b = (int)t->c->attr[1];
  size_t n[3] = {1, 1, 1}, m[3] = {1, 1, 1};
  for (int d = 0; d < t->out.type.rank; d++) n[d] = t->out.dim[d], m[d] = t->in[0].dim[d];
  for (size_t r = 0; r < t->out.rows; r++)
    for (size_t i = 0; i < t->out.width; i++) {
      size_t at[3] = {i / (n[1] * n[2]), i / n[2] % n[1], i % n[2]}, was = at[a];
      at[a] = at[b];
      at[b] = was;
      t->out.v[r * t->out.width + i] =
          t->in[0].v[r * t->in[0].width + (at[0] * m[1] + at[1]) * m[2] + at[2]];
    }
}

static void f_spread(io *t) {
  size_t w = t->out.width;
  for (size_t r = 0; r < t->out.rows; r++) {
    size_t row = r;
    for (int s = t->out.type.space; s != t->in[0].type.space; s = space[s].parent)
      row = space[s].parent < 0 ? 0 : rows_of[s].owner[row];
    memcpy(t->out.v + r * w, t->in[0].v + row * w, w * sizeof(double));
  }
}

/* Calls E for each step s of each parent row p of x's sequence; from: x's row, to: y's row. */
#define EACH_STEP(E)                                                           \
  size_t w = t->in[0].width;                                                   \
  int q = t->in[0].type.space;                                                 \
  for (size_t p = 0; p < rows_of[q].parents; p++)                              \
    for (size_t s = 0, len = rows_of[q].len[p]; s < len; s++)                  \
      for (size_t i = 0; i < w; i++) {                                         \
        double x = t->in[0].v[row_at(q, p, s) * w + i];                        \
        double *y = t->out.v;                                                  \
        (void)x, (void)y;                                                      \
        E;                                                                     \
      }

static void f_reverse(io *t) { EACH_STEP(y[row_at(q, p, len - 1 - s) * w + i] = x) }
static void f_fold_time(io *t) {
  size_t k = t->out.width / t->in[0].width;
  EACH_STEP(y[(row_at(t->out.type.space, p, s / k) * k + s % k) * w + i] = x)
}
static void f_padded(io *t) { EACH_STEP(y[(p * rows_of[q].steps + s) * w + i] = x) }
static void f_padding_mask(io *t) { EACH_STEP(y[p * rows_of[q].steps + s] = 1) }
static void f_sum_time(io *t) { EACH_STEP(y[p * w + i] += x) }
static void f_mean_time(io *t) { EACH_STEP(y[p * w + i] += x / (double)len) }
static void f_max_time(io *t) {
  EACH_STEP(if (s == 0 || x > y[p * w + i]) y[p * w + i] = x)
}
static void f_lengths(io *t) {
  for (size_t p = 0; p < t->out.rows; p++) t->out.v[p] = rows_of[t->in[0].type.space].len[p];
}
static void f_last(io *t) {
  size_t n = t->out.rows;
  for (size_t p = 0; p < n && t->n_in > 1; p++)
    for (size_t i = 0; i < t->out.width; i++)
      t->out.v[p * t->out.width + i] =
          t->in[1].v[(t->in[1].type.space < 0 ? 0 : p) * t->out.width + i];
  EACH_STEP(y[p * w + i] = x)
}

enum fold { SUM, MEAN, MAX };
static void fold(io *t, enum fold how) {
  const value *a = &t->in[0];
  int axis = (int)t->c->attr[0];
  for (size_t r = 0; r < a->rows; r++)
    for (size_t i = 0; i < a->width; i++) {
      size_t o, j, e;
      split(a, axis, i, &o, &j, &e);
      size_t inner = 1;
      for (int d = axis + 1; d < a->type.rank; d++) inner *= a->dim[d];
      double x = a->v[r * a->width + i], *y = &t->out.v[r * t->out.width + o * inner + e];
      if (how == MAX)
        *y = j == 0 || x > *y ? x : *y;
      else
        *y += how == MEAN ? x / (double)a->dim[axis] : x;
    }
}
static void f_sum(io *t) { fold(t, SUM); }
static void f_mean(io *t) { fold(t, MEAN); }
static void f_largest(io *t) { fold(t, MAX); }

/* Calls E for each line of the last axis: x, y, n; o its number. */
#define EACH_LINE(E)                                                   \
  size_t n = t->in[0].dim[t->in[0].type.rank - 1];                     \
  for (size_t o = 0; n && o < t->in[0].rows * t->in[0].width / n; o++) { \
    const double *x = t->in[0].v + o * n;                              \
    double *y = t->out.v + o * n, sum = 0;                             \
    for (size_t i = 0; i < n; i++) sum += exp(x[i]);                   \
    (void)y;                                                           \
    E                                                                  \
  }

static void f_softmax(io *t) {
  EACH_LINE(for (size_t i = 0; i < n; i++) y[i] = exp(x[i]) / sum;)
}
static void f_log_softmax(io *t) {
  EACH_LINE(for (size_t i = 0; i < n; i++) y[i] = log(exp(x[i]) / sum);)
}
static void f_masked(io *t) {
  size_t lines = t->in[0].width ? t->in[1].rows * t->in[1].width : 1;
  EACH_LINE(const double *m = t->in[1].v + o * n % lines; sum = 0;
            for (size_t i = 0; i < n; i++) sum += m[i] * exp(x[i]);
            for (size_t i = 0; i < n; i++) y[i] = m[i] == 0 ? 0 : exp(x[i]) / sum;)
}
static void f_layer_norm(io *t) {
  EACH_LINE(double mean = 0; double var = 0; (void)sum;
            for (size_t i = 0; i < n; i++) mean += x[i] / (double)n;
            for (size_t i = 0; i < n; i++) var += pow(x[i] - mean, 2) / (double)n;
            for (size_t i = 0; i < n; i++) y[i] =
                (x[i] - mean) / sqrt(var + t->c->attr[0]) * t->in[1].v[i] + t->in[2].v[i];)
}
static void f_argmax(io *t) {
  EACH_LINE(size_t at = 0; (void)sum; for (size_t i = 0; i < n; i++) if (x[i] > x[at]) at = i;
            t->out.v[o] = (double)at;)
}
static void f_sample(io *t) {
  double temperature = t->in[1].v[0];
  EACH_LINE(double u = (double)ni_uniform(SEED, NODE, o); double total = 0; size_t at = 0;
            double below = 0; (void)sum;
            for (size_t i = 0; i < n; i++) total += exp(x[i] / temperature);
            for (; at < n; at++) if ((below += exp(x[at] / temperature)) > u * total) break;
            t->out.v[o] = (double)at;)
}
static void f_cross_entropy(io *t) {
  double e = t->c->attr[0];
  EACH_LINE(int id = (int)t->in[1].v[o]; double all = 0;
            for (size_t i = 0; i < n; i++) all -= log(exp(x[i]) / sum) / (double)n;
            if (id >= 0) t->out.v[o] = (1 - e) * -log(exp(x[id]) / sum) + e * all;)
}

static void f_sum_rows(io *t) {
  for (size_t i = 0; i < t->in[0].rows * t->in[0].width; i++)
    t->out.v[i % t->out.width] += t->in[0].v[i];
}
static void f_mean_rows(io *t) {
  double sum = 0;
  for (size_t r = 0; r < t->in[0].rows; r++) sum += t->n_in > 1 ? t->in[1].v[r] : 1;
  for (size_t i = 0; i < t->in[0].rows * t->in[0].width && sum != 0; i++)
    t->out.v[i % t->out.width] +=
        t->in[0].v[i] * (t->n_in > 1 ? t->in[1].v[i / t->out.width] : 1) / sum;
}

/* The share of class c in a line of n scores. */
static double share_of(const double *x, size_t n, size_t c) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += exp(x[i]);
  return exp(x[c]) / sum;
}

/* What a path of classes reads as; its length. */
static size_t reading(const size_t *path, size_t len, size_t blank, size_t *labels) {
  size_t n = 0;
  for (size_t s = 0; s < len; s++)
    if (path[s] != blank && (s == 0 || path[s] != path[s - 1])) labels[n++] = path[s];
  return n;
}

/* The next path of `base` digits; false after the last. */
static bool next_path(size_t *digit, size_t len, size_t base) {
  for (size_t s = 0; s < len; s++) {
    if (++digit[s] < base) return true;
    digit[s] = 0;
  }
  return false;
}

enum { LONGEST = 8 };

/* All paths of the labels' classes and the blank. */
static void f_ctc(io *t) {
  const value *x = &t->in[0], *y = &t->in[1];
  size_t v = x->width, blank = t->c->attr[0] < 0 ? v - 1 : (size_t)t->c->attr[0];
  for (size_t p = 0; p < t->out.rows; p++) {
    size_t len = rows_of[x->type.space].len[p], count = rows_of[y->type.space].len[p];
    size_t use[LONGEST] = {blank}, digit[LONGEST] = {0}, path[LONGEST], labels[LONGEST];
    double sum = 0;
    for (size_t u = 0; u < count; u++) use[u + 1] = (size_t)y->v[row_at(y->type.space, p, u)];
    size_t kinds = 1;
    for (size_t u = 1; u <= count; u++) { /* each class once */
      bool known = false;
      for (size_t k = 1; k < kinds; k++) known |= use[k] == use[u];
      if (!known) use[kinds++] = use[u];
    }
    do {
      double here = 1;
      for (size_t s = 0; s < len; s++) {
        path[s] = use[digit[s]];
        here *= share_of(x->v + row_at(x->type.space, p, s) * v, v, path[s]);
      }
      bool same = reading(path, len, blank, labels) == count;
      for (size_t u = 0; same && u < count; u++)
        same = (double)labels[u] == y->v[row_at(y->type.space, p, u)];
      if (same) sum += here;
    } while (next_path(digit, len, kinds));
    t->out.v[p] = sum > 0 ? -log(sum) : 0;
  }
}

/* The labels that most paths read as, by their probability; with beam 0 those of the best path. */
static void f_ctc_decode(io *t) {
  const value *x = &t->in[0];
  int along = x->type.space;
  size_t v = x->width, blank = t->c->attr[0] < 0 ? v - 1 : (size_t)t->c->attr[0];
  for (size_t p = 0; p < rows_of[along].parents; p++) {
    size_t len = rows_of[along].len[p], path[LONGEST] = {0}, labels[LONGEST], most = 0;
    double *sum = take(200000 * sizeof *sum);
    for (int turn = 0; turn < 2; turn++) { /* sums first, then who has the largest */
      memset(path, 0, sizeof path);
      do {
        double here = 1;
        for (size_t s = 0; s < len; s++)
          here *= share_of(x->v + row_at(along, p, s) * v, v, path[s]);
        size_t n = reading(path, len, blank, labels), code = 0;
        for (size_t s = 0; s < (t->c->attr[1] == 0 ? len : n); s++)
          code = code * (v + 1) + (t->c->attr[1] == 0 ? path[s] : labels[s]) + 1;
        if (turn == 0) sum[code] += here;
        if (turn == 0 && sum[code] > sum[most]) most = code;
        if (turn == 0 || code != most) continue;
        for (size_t s = 0; s < len; s++)
          t->out.v[row_at(along, p, s)] = s < n ? (double)labels[s] : -1;
      } while (next_path(path, len, v));
    }
    free(sum);
  }
}

/* Element i of input k; zero if there is none. */
static double chain(const io *t, int k, size_t i) { return k < t->n_in ? t->in[k].v[i] : 0; }

/*
** e^score summed over all sequences of classes, over those that ids allow: in probabilities, from
** the front and from the back. share, if asked for: of those that pass each class at each step.
*/
static double chains(const io *t, int a, const double *ids, size_t p, double *share) {
  const value *x = &t->in[0];
  size_t v = x->width, len = rows_of[x->type.space].len[p];
  double *front = take(len * v * sizeof *front), *back = take(len * v * sizeof *back), sum = 0;
  for (size_t s = 0; s < len; s++)
    for (size_t to = 0; to < v; to++) {
      size_t r = row_at(x->type.space, p, s);
      if (ids && ids[r] >= 0 && ids[r] != (double)to) continue;
      double in = s ? 0 : exp(chain(t, a + 1, to));
      for (size_t from = 0; s && from < v; from++)
        in += front[(s - 1) * v + from] * exp(chain(t, a, to * v + from));
      front[s * v + to] = in * exp(x->v[r * v + to]);
    }
  for (size_t s = len; s-- > 0;)
    for (size_t from = 0; from < v; from++) {
      double out = s + 1 < len ? 0 : exp(chain(t, a + 2, from));
      for (size_t to = 0; s + 1 < len && to < v; to++)
        out += back[(s + 1) * v + to] * exp(chain(t, a, to * v + from)) *
               exp(x->v[row_at(x->type.space, p, s + 1) * v + to]);
      back[s * v + from] = out;
      if (s + 1 == len) sum += front[s * v + from] * out;
    }
  for (size_t i = 0; share && i < len * v; i++) share[i] = front[i] * back[i] / sum;
  free(front), free(back);
  return len ? sum : 1;
}

static void f_crf(io *t) {
  for (size_t p = 0; p < t->out.rows; p++)
    t->out.v[p] = log(chains(t, 2, NULL, p, NULL) / chains(t, 2, t->in[1].v, p, NULL));
}

static void f_marginals(io *t) {
  int along = t->out.type.space;
  size_t v = t->out.width;
  for (size_t p = 0; p < rows_of[along].parents; p++) {
    size_t len = rows_of[along].len[p];
    double *share = take(len * v * sizeof *share);
    chains(t, 1, NULL, p, share);
    for (size_t s = 0; s < len; s++)
      memcpy(t->out.v + row_at(along, p, s) * v, share + s * v, v * sizeof *share);
    free(share);
  }
}

/* From all sequences of classes. */
static void f_viterbi(io *t) {
  const value *x = &t->in[0];
  int along = x->type.space;
  size_t v = x->width;
  for (size_t p = 0; p < rows_of[along].parents; p++) {
    size_t len = rows_of[along].len[p], path[LONGEST] = {0};
    double most = -HUGE_VAL;
    do {
      double score = 0;
      for (size_t s = 0; s < len; s++) {
        score += x->v[row_at(along, p, s) * v + path[s]];
        score += s ? chain(t, 1, path[s] * v + path[s - 1]) : chain(t, 2, path[s]);
      }
      if (len) score += chain(t, 3, path[len - 1]);
      if (score <= most) continue;
      most = score;
      for (size_t s = 0; s < len; s++) t->out.v[row_at(along, p, s)] = (double)path[s];
    } while (next_path(path, len, v));
  }
}

static void f_embedding(io *t) {
  size_t w = t->in[1].dim[1];
  for (size_t i = 0; i < t->in[0].rows * t->in[0].width * w; i++)
    t->out.v[i] = t->in[1].v[(size_t)t->in[0].v[i / w] * w + i % w];
}
static void f_gather(io *t) {
  const value *x = &t->in[0], *ids = &t->in[1];
  for (size_t r = 0; r < t->out.rows; r++)
    for (size_t i = 0; i < t->out.width; i++) {
      size_t w = t->out.width / ids->width, k = (ids->type.space < 0 ? 0 : r) * ids->width + i / w;
      t->out.v[r * t->out.width + i] =
        x->v[(x->type.space < 0 ? 0 : r) * x->width + (size_t)ids->v[k] * w + i % w];
    }
}
static void f_attend_at(io *t) {
  const value *ids = &t->in[0], *v = &t->in[1];
  for (size_t r = 0; r < t->out.rows; r++) {
    size_t p = ids->type.space == B ? r : rows_of[ids->type.space].owner[r];
    for (size_t s = 0; s < rows_of[v->type.space].len[p]; s++)
      for (size_t i = 0; i < v->width && ids->v[r] == (double)s; i++)
        t->out.v[r * v->width + i] = v->v[row_at(v->type.space, p, s) * v->width + i];
  }
}
static void f_scatter(io *t) {
  const value *x = &t->in[0], *ids = &t->in[1];
  size_t n = (size_t)t->c->attr[0], lines = t->out.width / n, w = lines ? x->width / lines : 0;
  for (size_t i = 0; i < t->out.rows * lines; i++)
    for (size_t k = i * w; k < (i + 1) * w; k++) t->out.v[i * n + (size_t)ids->v[k]] += x->v[k];
}
static void f_one_hot(io *t) {
  size_t n = (size_t)t->c->attr[0];
  for (size_t i = 0; i < t->in[0].rows * t->in[0].width; i++)
    t->out.v[i * n + (size_t)t->in[0].v[i]] = 1;
}

/* FNV-1a, in numbers wide enough not to overflow. */
static void f_hash(io *t) {
  size_t k = t->in[0].width / t->out.width;
  for (size_t o = 0; o < t->out.rows * t->out.width; o++) {
    uint64_t h = 2166136261u;
    for (size_t i = 0; i < 4 * k; i++) {
      uint64_t id = (uint64_t)t->in[0].v[o * k + i / 4];
      h = ((h ^ (id / (1ull << 8 * (i % 4)) % 256)) * 16777619u) % (1ull << 32);
    }
    t->out.v[o] = (double)(h % (uint64_t)t->c->attr[0]);
  }
}

static const test_case cases[] = {
    {"neg", {"r T:3"}, {0}, "[T,B,3]", f_neg, NULL, 0, 0},
    {"exp", {"r chars:3,2"}, {0}, "[chars,T,B,3,2]", f_exp, NULL, 0, 0},
    {"log", {"p T:3"}, {0}, "[T,B,3]", f_log, NULL, 0, 0},
    {"sqrt", {"p T:3"}, {0}, "[T,B,3]", f_sqrt, NULL, 0, 0},
    {"square", {"r :3,4"}, {0}, "[3,4]", f_square, NULL, 0, 0},
    {"abs", {"r T:3"}, {0}, "[T,B,3]", f_abs, NULL, 0, 0},
    {"reciprocal", {"p B:3"}, {0}, "[B,3]", f_reciprocal, NULL, 0, 0},
    {"sin", {"r T:"}, {0}, "[T,B]", f_sin, NULL, 0, 0},
    {"cos", {"r B:T,2"}, {0}, "[B,max T,2]", f_cos, NULL, 0, 0},
    {"tanh", {"r T:3"}, {0}, "[T,B,3]", f_tanh, NULL, 0, 0},
    {"sigmoid", {"r T:3"}, {0}, "[T,B,3]", f_sigmoid, NULL, 0, 0},
    {"relu", {"r T:3"}, {0}, "[T,B,3]", f_relu, NULL, 0, 0},
    {"leaky_relu", {"r T:3"}, {0.1}, "[T,B,3]", f_leaky, NULL, 0, 0},
    {"elu", {"r T:3"}, {0.7}, "[T,B,3]", f_elu, NULL, 0, 0},
    {"gelu", {"r T:3"}, {0}, "[T,B,3]", f_gelu, NULL, 0, 0},
    {"softplus", {"r T:3"}, {0}, "[T,B,3]", f_softplus, NULL, 0, 0},
    {"softsign", {"r T:3"}, {0}, "[T,B,3]", f_softsign, NULL, 0, 0},
    {"hard_sigmoid", {"r T:3"}, {0.4, 0.5}, "[T,B,3]", f_hard, NULL, 0, 0},
    {"clamp", {"r T:3"}, {-0.5, 1}, "[T,B,3]", f_clamp, NULL, 0, 0},
    {"stop_gradient", {"r T:3"}, {0}, "[T,B,3]", f_same, NULL, 0, 0},
    {"stop_gradient", {"i T:3"}, {0}, "i32 [T,B,3]", f_same, NULL, 0, 0},
    {"cast", {"r T:3"}, {NEAP_I32}, "i32 [T,B,3]", f_trunc, NULL, 0, 0},
    {"cast", {"r T:3"}, {NEAP_F32}, "[T,B,3]", f_same, NULL, 0, 0},
    {"cast", {"j T:"}, {NEAP_F32}, "[T,B]", f_same, NULL, 0, 0},
    {"add", {"r T:3", "r T:3"}, {0}, "[T,B,3]", f_add, NULL, 0, 0},
    {"add", {"r T:70", "r :70"}, {0}, "[T,B,70]", f_add, NULL, 0, 0},
    {"add", {"r :", "r T:300"}, {0}, "[T,B,300]", f_add, NULL, 0, 0},
    {"add", {"r T:2,3,4", "r :3,1"}, {0}, "[T,B,2,3,4]", f_add, NULL, 0, 0},
    {"add", {"r T:3,1", "r T:1,4"}, {0}, "[T,B,3,4]", f_add, NULL, 0, 0},
    {"add", {"r :2,3,4", "r chars:2,1,4"}, {0}, "[chars,T,B,2,3,4]", f_add, NULL, 0, 0},
    {"add", {"r :1", "r T:"}, {0}, "[T,B,1]", f_add, NULL, 0, 0},
    {"add", {"r B:T,2", "r :2"}, {0}, "[B,max T,2]", f_add, NULL, 0, 0},
    {"add", {"r B:T,1", "r B:1,U"}, {0}, "[B,max T,max U]", f_add, NULL, 0, 0},
    {"sub", {"r :3", "r T:3"}, {0}, "[T,B,3]", f_sub, NULL, 0, 0},
    {"sub", {"r T:3", "r :2,1"}, {0}, "[T,B,2,3]", f_sub, NULL, 0, 0},
    {"mul", {"r T:3", "r T:1"}, {0}, "[T,B,3]", f_mul, NULL, 0, 0},
    {"mul", {"r :4", "r :3,1"}, {0}, "[3,4]", f_mul, NULL, 0, 0},
    {"mul", {"r :3,1", "r T:3,300"}, {0}, "[T,B,3,300]", f_mul, NULL, 0, 0},
    {"mul", {"r T:5,3,1", "r :5,1,2"}, {0}, "[T,B,5,3,2]", f_mul, NULL, 0, 0},
    {"div", {"r T:3", "p :3"}, {0}, "[T,B,3]", f_div, NULL, 0, 0},
    {"div", {"r :3", "p T:3"}, {0}, "[T,B,3]", f_div, NULL, 0, 0},
    {"pow", {"p T:3", "r :"}, {0}, "[T,B,3]", f_pow, NULL, 0, 0},
    {"pow", {"p :3", "r T:3"}, {0}, "[T,B,3]", f_pow, NULL, 0, 0},
    {"maximum", {"r T:3", "r :3"}, {0}, "[T,B,3]", f_max, NULL, 0, 0},
    {"minimum", {"r T:3", "r T:3"}, {0}, "[T,B,3]", f_min, NULL, 0, 0},
    {"equal", {"n T:3", "n :3"}, {0}, "[T,B,3]", f_eq, NULL, 0, 0},
    {"equal", {"i T:", "3 :"}, {0}, "[T,B]", f_eq, NULL, 0, 0},
    {"not_equal", {"i T:", "i T:"}, {0}, "[T,B]", f_ne, NULL, 0, 0},
    {"less", {"n T:3", "n T:1"}, {0}, "[T,B,3]", f_lt, NULL, 0, 0},
    {"less_equal", {"n :3", "n T:3"}, {0}, "[T,B,3]", f_le, NULL, 0, 0},
    {"greater", {"n T:3", "i T:3"}, {0}, "[T,B,3]", f_gt, NULL, 0, 0},
    {"greater_equal", {"n T:3", "n T:3"}, {0}, "[T,B,3]", f_ge, NULL, 0, 0},
    {"where", {"m T:1", "r T:3", "r :3"}, {0}, "[T,B,3]", f_where, NULL, 1, 0},
    {"where", {"m :3", "r T:3", "r :"}, {0}, "[T,B,3]", f_where, NULL, 1, 0},
    {"where", {"i T:", "r :300", "r :1"}, {0}, "[T,B,300]", f_where, NULL, 1, 0},
    {"where", {"m T:", "i T:", "j :"}, {0}, "i32 [T,B]", f_where, NULL, 7, 0},
    {"bce_with_logits", {"r T:3", "u T:3"}, {0}, "[T,B,3]", f_bce, NULL, 0, 0},
    {"bce_with_logits", {"r :3", "u T:3"}, {0}, "[T,B,3]", f_bce, NULL, 0, 0},
    {"dropout", {"r T:300", "0.375 :"}, {0}, "[T,B,300]", NULL, f_dropout, 2, 0},
    {"dropout", {"r T:3", "0.375 :"}, {0}, "[T,B,3]", f_same, NULL, 2, true},
    {"dropout", {"r :3", "0 :"}, {0}, "[3]", f_same, NULL, 2, 0},
    {"uniform", {"r T:300"}, {0}, "[T,B,300]", NULL, f_uniform, 0, 0},
    {"uniform", {"i T:"}, {0}, "[T,B]", NULL, f_uniform, 0, 0},

    {"concat", {"r T:3", "r T:2", "r :4"}, {0}, "[T,B,9]", NULL, f_concat, 0, 0},
    {"concat", {"r :2,3", "r T:2,1", "r T:2,40", "r :2,30"}, {1}, "[T,B,2,74]", NULL, f_concat, 0,
     0},
    {"concat", {"r :2,3", "r :1,3"}, {0}, "[3,3]", NULL, f_concat, 0, 0},
    {"concat", {"i T:2", "j :1"}, {0}, "i32 [T,B,3]", NULL, f_concat, 3, 0},
    {"concat", {"r B:T,2", "r B:T,1"}, {1}, "[B,max T,3]", NULL, f_concat, 0, 0},
    {"slice", {"r T:5"}, {0, 1, 4}, "[T,B,3]", NULL, f_slice, 0, 0},
    {"slice", {"r T:2,4,3"}, {1, 3, 4}, "[T,B,2,1,3]", NULL, f_slice, 0, 0},
    {"slice", {"i B:T,3"}, {1, 0, 2}, "i32 [B,max T,2]", NULL, f_slice, 1, 0},
    {"reshape", {"r T:2,6"}, {3, 3, 2, 2}, "[T,B,3,2,2]", NULL, f_reshape, 0, 0},
    {"reshape", {"r B:T,4"}, {3, 2, NEAP_LONGEST(T), 2}, "[B,2,max T,2]", NULL, f_reshape, 0, 0},
    {"reshape", {"i T:1"}, {0}, "i32 [T,B]", NULL, f_reshape, 1, 0},
    {"transpose", {"r T:2,3"}, {0, 1}, "[T,B,3,2]", NULL, f_transpose, 0, 0},
    {"transpose", {"r B:T,3,2"}, {2, 0}, "[B,2,3,max T]", NULL, f_transpose, 0, 0},
    {"transpose", {"r T:3,2,4"}, {1, 2}, "[T,B,3,4,2]", NULL, f_transpose, 0, 0},
    {"spread", {"r B:3"}, {T}, "[T,B,3]", NULL, f_spread, 0, 0},
    {"spread", {"r B:20"}, {CHARS}, "[chars,T,B,20]", NULL, f_spread, 0, 0},
    {"spread", {"r T:3"}, {CHARS}, "[chars,T,B,3]", NULL, f_spread, 0, 0},
    {"spread", {"r :70"}, {CHARS}, "[chars,T,B,70]", NULL, f_spread, 0, 0},
    {"spread", {"r :2"}, {B}, "[B,2]", NULL, f_spread, 0, 0},
    {"spread", {"r T:2"}, {T}, "[T,B,2]", NULL, f_spread, 0, 0},
    {"spread", {"i B:"}, {T}, "i32 [T,B]", NULL, f_spread, 1, 0},
    {"reverse", {"r T:3"}, {0}, "[T,B,3]", NULL, f_reverse, 0, 0},
    {"reverse", {"i chars:"}, {0}, "i32 [chars,T,B]", NULL, f_reverse, 1, 0},
    {"fold_time", {"r T:3"}, {PAIRS}, "[T/2,B,6]", NULL, f_fold_time, 0, 0},
    {"fold_time", {"r T/2:1"}, {SIXES}, "[T/6,B,3]", NULL, f_fold_time, 0, 0},
    {"fold_time", {"i T:2"}, {SIXES}, "i32 [T/6,B,12]", NULL, f_fold_time, 1, 0},
    {"padded", {"r T:3"}, {0}, "[B,max T,3]", NULL, f_padded, 0, 0},
    {"padded", {"r chars:"}, {0}, "[T,B,max chars]", NULL, f_padded, 0, 0},
    {"padded", {"i T:"}, {0}, "i32 [B,max T]", NULL, f_padded, 1, 0},
    {"padding_mask", {"r T:3"}, {0}, "[B,max T]", NULL, f_padding_mask, 0, 0},
    {"padding_mask", {"i chars:"}, {0}, "[T,B,max chars]", NULL, f_padding_mask, 0, 0},
    {"lengths", {"r chars:3"}, {0}, "[T,B]", NULL, f_lengths, 0, 0},

    {"sum", {"r T:3"}, {0}, "[T,B]", NULL, f_sum, 0, 0},
    {"sum", {"r T:2,3,4"}, {1, 1}, "[T,B,2,1,4]", NULL, f_sum, 0, 0},
    {"mean", {"r T:2,3"}, {0}, "[T,B,3]", NULL, f_mean, 0, 0},
    {"mean", {"r B:T,2"}, {0, 1}, "[B,1,2]", NULL, f_mean, 0, 0},
    {"mean", {"r :5"}, {0}, "[]", NULL, f_mean, 0, 0},
    {"max", {"r T:2,3"}, {0}, "[T,B,3]", NULL, f_largest, 0, 0},
    {"max", {"r T:4,3"}, {1, 1}, "[T,B,4,1]", NULL, f_largest, 0, 0},
    {"max", {"r B:T"}, {0}, "[B]", NULL, f_largest, 0, 0},
    {"softmax", {"r T:3,5"}, {0}, "[T,B,3,5]", NULL, f_softmax, 0, 0},
    {"softmax", {"r B:T"}, {0}, "[B,max T]", NULL, f_softmax, 0, 0},
    {"log_softmax", {"r T:300"}, {0}, "[T,B,300]", NULL, f_log_softmax, 0, 0},
    {"masked_softmax", {"r T:2,5", "m T:2,5"}, {0}, "[T,B,2,5]", NULL, f_masked, 2, 0},
    {"masked_softmax", {"r T:2,5", "m :2,5"}, {0}, "[T,B,2,5]", NULL, f_masked, 2, 0},
    {"masked_softmax", {"r B:T", "m B:T"}, {0}, "[B,max T]", NULL, f_masked, 2, 0},
    {"layer_norm", {"r T:5", "r :5", "r :5"}, {1e-5}, "[T,B,5]", NULL, f_layer_norm, 0, 0},
    {"layer_norm", {"r T:3,300", "r :300", "r :300"}, {1e-3}, "[T,B,3,300]", NULL, f_layer_norm, 0,
     0},
    {"layer_norm", {"r :2,5", "r :5", "r :5"}, {1e-5}, "[2,5]", NULL, f_layer_norm, 0, 0},
    {"last", {"r T:3"}, {0}, "[B,3]", NULL, f_last, 0, 0},
    {"last", {"r T:3", "r B:3"}, {0}, "[B,3]", NULL, f_last, 0, 0},
    {"last", {"r chars:3", "r :3"}, {0}, "[T,B,3]", NULL, f_last, 0, 0},
    {"last", {"i T:", "j B:"}, {0}, "i32 [B]", NULL, f_last, 3, 0},
    {"sum_time", {"r T:3"}, {0}, "[B,3]", NULL, f_sum_time, 0, 0},
    {"sum_time", {"r chars:"}, {0}, "[T,B]", NULL, f_sum_time, 0, 0},
    {"mean_time", {"r chars:2,2"}, {0}, "[T,B,2,2]", NULL, f_mean_time, 0, 0},
    {"max_time", {"r T:3"}, {0}, "[B,3]", NULL, f_max_time, 0, 0},
    {"max_time", {"r chars:3"}, {0}, "[T,B,3]", NULL, f_max_time, 0, 0},
    {"sum_rows", {"r T:3"}, {0}, "[3]", NULL, f_sum_rows, 0, 0},
    {"sum_rows", {"r B:T,30"}, {0}, "[max T,30]", NULL, f_sum_rows, 0, 0},
    {"sum_rows", {"r :2"}, {0}, "[2]", NULL, f_sum_rows, 0, 0},
    {"mean_rows", {"r chars:3"}, {0}, "[3]", NULL, f_mean_rows, 0, 0},
    {"mean_rows", {"r T:", "m T:1"}, {0}, "[]", NULL, f_mean_rows, 0, 0},
    {"mean_rows", {"r T:70", "p T:"}, {0}, "[70]", NULL, f_mean_rows, 0, 0},
    {"mean_rows", {"r T:2", "0 T:"}, {0}, "[2]", NULL, f_mean_rows, 2, 0},

    {"embedding", {"i T:", "r :5,40"}, {0}, "[T,B,40]", NULL, f_embedding, 0, 0},
    {"embedding", {"i B:T,2", "r :5,3"}, {0}, "[B,max T,2,3]", NULL, f_embedding, 0, 0},
    {"embedding", {"i :4", "r :5,3"}, {0}, "[4,3]", NULL, f_embedding, 0, 0},
    {"gather", {"r T:5", "i T:"}, {0}, "[T,B]", NULL, f_gather, 0, 0},
    {"gather", {"r T:5,20", "i T:3"}, {0}, "[T,B,3,20]", NULL, f_gather, 0, 0},
    {"gather", {"r B:5,T,2", "i B:"}, {0}, "[B,max T,2]", NULL, f_gather, 0, 0},
    {"gather", {"r B:5", "i B:T,2"}, {0}, "[B,max T,2]", NULL, f_gather, 0, 0},
    {"gather", {"r chars:5,2", "i :4"}, {0}, "[chars,T,B,4,2]", NULL, f_gather, 0, 0},
    {"gather", {"r :5,40", "i T:2"}, {0}, "[T,B,2,40]", NULL, f_gather, 0, 0},
    {"gather", {"r :5,3", "i :4"}, {0}, "[4,3]", NULL, f_gather, 0, 0},
    {"attend_at", {"j T:", "r U:3"}, {0}, "[T,B,3]", NULL, f_attend_at, 0, 0},
    {"attend_at", {"j T:", "r T:40"}, {0}, "[T,B,40]", NULL, f_attend_at, 0, 0},
    {"attend_at", {"i B:", "r T:2,3"}, {0}, "[B,2,3]", NULL, f_attend_at, 0, 0},
    {"attend_at", {"i T:", "r T/2:"}, {0}, "[T,B]", NULL, f_attend_at, 0, 0},
    {"scatter", {"r T:4", "i T:4"}, {5}, "[T,B,5]", NULL, f_scatter, 0, 0},
    {"scatter", {"r B:2,T", "i B:2,T"}, {5}, "[B,2,5]", NULL, f_scatter, 0, 0},
    {"scatter", {"r :3,4", "i :3,4"}, {6}, "[3,6]", NULL, f_scatter, 0, 0},
    {"one_hot", {"i T:"}, {5}, "[T,B,5]", NULL, f_one_hot, 0, 0},
    {"one_hot", {"i B:T"}, {6}, "[B,max T,6]", NULL, f_one_hot, 0, 0},
    {"hash", {"i T:3"}, {1000}, "i32 [T,B]", NULL, f_hash, 0, 0},
    {"hash", {"i T:2,1"}, {2147483647}, "i32 [T,B,2]", NULL, f_hash, 0, 0},
    {"hash", {"i :2"}, {5}, "i32 []", NULL, f_hash, 0, 0},
    {"argmax", {"r T:2,5"}, {0}, "i32 [T,B,2]", NULL, f_argmax, 0, 0},
    {"argmax", {"n T:9"}, {0}, "i32 [T,B]", NULL, f_argmax, 0, 0},
    {"sample", {"r T:2,5", "0.7 :"}, {0}, "i32 [T,B,2]", NULL, f_sample, 0, 0},
    {"sample", {"r T:600", "1.3 :1"}, {0}, "i32 [T,B]", NULL, f_sample, 0, 0},
    {"cross_entropy", {"r T:5", "j T:"}, {0}, "[T,B]", NULL, f_cross_entropy, 0, 0},
    {"cross_entropy", {"r T:2,5", "j T:2"}, {0.1}, "[T,B,2]", NULL, f_cross_entropy, 0, 0},
    {"cross_entropy", {"r :300", "i :"}, {0.1}, "[]", NULL, f_cross_entropy, 0, 0},
    {"cross_entropy", {"r T:300", "j T:"}, {1}, "[T,B]", NULL, f_cross_entropy, 0, 0},

    {"ctc", {"r T:6", "i U:"}, {-1, 1}, "[B]", NULL, f_ctc, 0, 0},
    {"ctc", {"r T:3", "d U:"}, {0, 1}, "[B]", NULL, f_ctc, 0, 0},
    {"ctc", {"r T:300", "i U:"}, {7, 1}, "[B]", NULL, f_ctc, 0, 0},
    {"ctc", {"r chars:6", "i chars:"}, {-1, 1}, "[T,B]", NULL, f_ctc, 0, 0},
    {"ctc_decode", {"r T:4"}, {-1, 0}, "i32 [T,B]", NULL, f_ctc_decode, 1, 0},
    {"ctc_decode", {"r T:4"}, {1, 400}, "i32 [T,B]", NULL, f_ctc_decode, 1, 0},
    {"ctc_decode", {"r chars:3"}, {0, 64}, "i32 [chars,T,B]", NULL, f_ctc_decode, 1, 0},
    {"crf", {"r T:5", "j T:", "r :5,5", "r :5", "r :5"}, {0}, "[B]", NULL, f_crf, 0, 0},
    {"crf", {"r T:5", "i T:", "r :5,5"}, {0}, "[B]", NULL, f_crf, 0, 0},
    {"crf", {"r chars:66", "j chars:", "r :66,66", "r :66"}, {0}, "[T,B]", NULL, f_crf, 0, 0},
    {"crf_marginals", {"r T:5", "r :5,5", "r :5", "r :5"}, {0}, "[T,B,5]", NULL, f_marginals, 0,
     0},
    {"crf_marginals", {"r T:300", "r :300,300"}, {0}, "[T,B,300]", NULL, f_marginals, 0, 0},
    {"viterbi", {"r T:5", "r :5,5", "r :5", "r :5"}, {0}, "i32 [T,B]", NULL, f_viterbi, 0, 0},
    {"viterbi", {"r chars:5", "r :5,5"}, {0}, "i32 [chars,T,B]", NULL, f_viterbi, 0, 0},
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

/* ---- running one case ---- */

typedef struct rig {
  const io *t;
  bool f64;
  ni_node node;
  ni_view view[MAX_IN + 1];
  void *work[NODE + 1];
  ni_fault fault;
  ni_exec x;
} rig;

static size_t count(const rig *g, int v) {
  return (g->view[v].type.space < 0 ? 1 : rows_of[g->view[v].type.space].rows) * g->view[v].width;
}

static void open_rig(rig *g, const io *t, const ni_node *node, bool f64) {
  size_t bytes = f64 ? sizeof(double) : sizeof(float);
  memset(g, 0, sizeof *g);
  g->t = t;
  g->f64 = f64;
  g->node = *node;
  g->x = (ni_exec){.view = g->view,
                   .rows = rows_of,
                   .work = g->work,
                   .seed = SEED,
                   .learning = !t->c->idle,
                   .keeps = true,
                   .fault = &g->fault};
  for (int v = 0; v <= t->n_in; v++) {
    const value *a = v < t->n_in ? &t->in[v] : &t->out;
    ni_view *w = &g->view[v];
    w->type = a->type;
    w->width = a->width;
    w->data = take(count(g, v) * (a->type.dtype == NEAP_I32 ? 4 : bytes));
    memset(w->data, 0x7f, count(g, v) * (a->type.dtype == NEAP_I32 ? 4 : bytes));
    for (size_t i = 0; v < t->n_in && i < count(g, v); i++)
      store(w->data, a->type.dtype, f64, i, a->v[i]);
    if (a->type.dtype != NEAP_F32) continue;
    w->grad = take(count(g, v) * bytes);
    for (size_t i = 0; i < count(g, v); i++)
      store(w->grad, NEAP_F32, f64, i, v < t->n_in ? 0.5 : sin((double)i + 1));
  }
  size_t reals = node->op->work ? node->op->work(&g->x, node) : 0;
  g->work[NODE] = take(reals * bytes);
}

static void close_rig(rig *g) {
  for (int v = 0; v <= g->t->n_in; v++) {
    free(g->view[v].data);
    free(g->view[v].grad);
  }
  free(g->work[NODE]);
}

static const ni_code *code_of(const rig *g) {
  return g->f64 ? g->node.op->code_f64 : g->node.op->code_f32;
}

static void in_pieces(rig *g, bool pieces,
                      void (*fn)(const ni_exec *, const ni_node *, size_t, size_t)) {
  const ni_view *out = &g->view[g->node.out];
  size_t rows = out->type.space < 0 ? 1 : rows_of[out->type.space].rows;
  if (!pieces || (g->node.op->flags & NI_WHOLE) || out->type.space < 0) {
    fn(&g->x, &g->node, 0, rows);
    return;
  }
  for (size_t from = rows, step = 1; from > 0; step = step % 3 + 1) {
    size_t to = from;
    from = from > step ? from - step : 0;
    fn(&g->x, &g->node, from, to);
  }
}

static void forward(rig *g, bool pieces) { in_pieces(g, pieces, code_of(g)->forward); }

/* After overwriting what the op does not keep. */
static void backward(rig *g, bool pieces) {
  const ni_op *op = g->node.op;
  for (int v = 0; v <= g->t->n_in; v++) {
    bool kept = v < g->t->n_in ? op->keep_in >> v & 1 : op->keep_out & 1;
    for (size_t i = 0; i < count(g, v) && !kept; i++)
      store(g->view[v].data, g->view[v].type.dtype, g->f64, i,
            g->view[v].type.dtype == NEAP_I32 ? 1e9 : (double)NAN);
  }
  if (code_of(g)->backward) in_pieces(g, pieces, code_of(g)->backward);
  if (code_of(g)->backward_const) code_of(g)->backward_const(&g->x, &g->node);
}

static double off_by(double a, double b, double floor) {
  double scale = fmax(fmax(fabs(a), fabs(b)), floor);
  if (!isfinite(a) || !isfinite(b)) return HUGE_VAL;
  return fabs(a - b) / scale;
}

static bool same_bits(const rig *a, const rig *b, int v, bool grad) {
  size_t size = a->view[v].type.dtype == NEAP_I32 ? 4 : a->f64 ? sizeof(double) : sizeof(float);
  return memcmp(grad ? a->view[v].grad : a->view[v].data,
                grad ? b->view[v].grad : b->view[v].data, count(a, v) * size) == 0;
}

/* Sum of the result times the gradient it was given. */
static double score(rig *g) {
  int y = g->node.out;
  double sum = 0;
  forward(g, false);
  for (size_t i = 0; i < count(g, y); i++)
    sum += load(g->view[y].data, NEAP_F32, true, i) * load(g->view[y].grad, NEAP_F32, true, i);
  return sum;
}

static void check_slopes(const io *t, const rig *after, const ni_node *node) {
  rig g;
  open_rig(&g, t, node, true);
  double worst = 0;
  for (int k = 0; k < t->n_in; k++) {
    if (t->in[k].type.dtype != NEAP_F32) continue;
    size_t n = count(&g, k), step = n > 400 ? n / 400 * 2 + 1 : 1;
    for (size_t i = 0; i < n; i += step) {
      double got = load(after->view[k].grad, NEAP_F32, true, i) - 0.5, want = 0;
      double *x = (double *)g.view[k].data + i, was = *x, h = 1e-5;
      if (!(t->c->no_grad >> k & 1)) {
        *x = was + h;
        want = score(&g);
        *x = was - h;
        want = (want - score(&g)) / (2 * h);
        *x = was;
      }
      worst = fmax(worst, off_by(got, want, 0.02));
    }
  }
  TELL(worst <= 1e-6, "%s %s, %s: gradient off by %g", t->c->op, t->c->type, layout, worst);
  close_rig(&g);
}

static const ni_op *find(const char *name) {
  const ni_op *op = ni_op_find(name);
  if (op) return op;
  printf("there is no op %s\n", name);
  exit(2);
}

static neap_status infer(ni_infer *i, neap_type *types, double *attr, const ni_op *op,
                         const char *const *in, const double *attrs) {
  *i = (ni_infer){.op = op, .attr = attr, .space = space, .n_spaces = SPACES, .n_out = op->outs};
  for (int k = 0; k < NI_MAX_ATTRS; k++) attr[k] = k < 4 ? attrs[k] : 0;
  while (i->n_in < MAX_IN && in[i->n_in]) {
    types[i->n_in] = type_of(in[i->n_in]);
    i->in[i->n_in] = &types[i->n_in];
    i->n_in++;
  }
  return op->infer(i);
}

static void run_case(const test_case *c, neap_pool *pool) {
  const ni_op *op = find(c->op);
  neap_type types[MAX_IN];
  ni_infer inf;
  ni_node node = {.op = op, .index = NODE};
  neap_status rc = infer(&inf, types, node.attr, op, c->in, c->attr);
  TELL(rc == NEAP_OK, "%s %s: %s", c->op, c->type, ni_message());
  if (rc) return;
  const char *text = ni_type_text(&inf, &inf.out[0]);
  TELL(strcmp(text, c->type) == 0, "%s: type %s, expected %s", c->op, text, c->type);
  io t = {.c = c, .n_in = inf.n_in};
  for (int k = 0; k < t.n_in; k++) {
    t.in[k] = value_of(&types[k]);
    fill(&t.in[k], c->in[k]);
    node.in[k] = k;
  }
  t.out = value_of(&inf.out[0]);
  node.n_in = node.out = t.n_in;
  node.n_out = 1;
  expect(&t);

  rig d, f, pieces, threads;
  open_rig(&d, &t, &node, true);
  open_rig(&f, &t, &node, false);
  open_rig(&pieces, &t, &node, false);
  open_rig(&threads, &t, &node, false);
  threads.x.pool = pool;
  forward(&d, false);
  forward(&f, false);
  forward(&pieces, true);
  forward(&threads, false);
  double worst = 0, rough = 0;
  int y = node.out;
  for (size_t i = 0; i < count(&d, y); i++) {
    double got = load(d.view[y].data, t.out.type.dtype, true, i);
    double small = load(f.view[y].data, t.out.type.dtype, false, i);
    worst = fmax(worst, off_by(got, t.out.v[i], 1));
    rough = fmax(rough, off_by(small, got, 1));
  }
  TELL(worst <= 1e-12, "%s %s, %s: off by %g", c->op, c->type, layout, worst);
  TELL(rough <= 4e-6, "%s %s, %s: float off by %g", c->op, c->type, layout, rough);
  TELL(same_bits(&f, &pieces, y, false), "%s %s, %s: rows in shares differ", c->op, c->type,
        layout);
  TELL(same_bits(&f, &threads, y, false), "%s %s, %s: threads differ", c->op, c->type, layout);

  if (!(op->flags & NI_NOGRAD) && t.out.type.dtype == NEAP_F32) {
    TELL(op->code_f64->backward || op->code_f64->backward_const, "%s has no backward", c->op);
    backward(&d, false);
    backward(&f, false);
    backward(&pieces, true);
    backward(&threads, false);
    check_slopes(&t, &d, &node);
    for (int k = 0; k < t.n_in; k++) {
      if (t.in[k].type.dtype != NEAP_F32) continue;
      rough = 0;
      for (size_t i = 0; i < count(&d, k); i++)
        rough = fmax(rough, off_by(load(f.view[k].grad, NEAP_F32, false, i),
                                   load(d.view[k].grad, NEAP_F32, true, i), 1));
      TELL(rough <= 1e-5, "%s %s, %s: float gradient %d off by %g", c->op, c->type, layout, k,
            rough);
      TELL(same_bits(&f, &pieces, k, true), "%s %s, %s: gradient %d in shares differs", c->op,
            c->type, layout, k);
      TELL(same_bits(&f, &threads, k, true), "%s %s, %s: gradient %d with threads differs", c->op,
            c->type, layout, k);
    }
    /* nothing may be written where no gradient is wanted */
    for (int k = 0; k < t.n_in; k++) {
      free(d.view[k].grad);
      d.view[k].grad = NULL;
    }
    backward(&d, false);
  }
  TELL(!atomic_load(&d.fault.set) && !atomic_load(&f.fault.set), "%s: %s", c->op, d.fault.text);
  close_rig(&d), close_rig(&f), close_rig(&pieces), close_rig(&threads);
  for (int k = 0; k < t.n_in; k++) free(t.in[k].v);
  free(t.out.v);
}

/* ---- wrong types ---- */

typedef struct bad_case {
  const char *op;
  const char *in[MAX_IN];
  double attr[4];
  neap_status status;
  const char *says; /* stands in the message */
} bad_case;

#define WANTS_F32(op) {op, {"i T:3"}, {0}, NEAP_ETYPE, "x must be f32, not i32 [T,B,3]"}
#define WANTS_TWO_F32(op) \
  {op, {"r T:3", "i :3"}, {0}, NEAP_ETYPE, "b must be f32, not i32 [3]"}, \
  {op, {"r T:3", "r T:4"}, {0}, NEAP_ESHAPE, "[T,B,3] and [T,B,4] do not fit"}
#define WANTS_FIT(op) \
  {op, {"i T:3", "r :2"}, {0}, NEAP_ESHAPE, "[T,B,3] and [2] do not fit"}
#define WANTS_AXIS(op) \
  WANTS_F32(op), \
  {op, {"r T:"}, {0}, NEAP_ESHAPE, "x must have a feature dimension: [T,B]"}, \
  {op, {"r T:2,3"}, {2}, NEAP_ERANGE, "axis must be a whole number in 0..1, not 2"}, \
  {op, {"r T:2,3"}, {0.5}, NEAP_ERANGE, "axis must be a whole number in 0..1, not 0.5"}, \
  {op, {"r T:2,3"}, {0, 2}, NEAP_ERANGE, "keep must be"}
#define WANTS_SEQUENCE(op) \
  {op, {"r B:3"}, {0}, NEAP_ESHAPE, "x must be a sequence, such as [T,B,8], not [B,3]"}, \
  {op, {"r :3"}, {0}, NEAP_ESHAPE, "not [3]"}

static const bad_case bad_cases[] = {
    WANTS_F32("neg"), WANTS_F32("exp"), WANTS_F32("log"), WANTS_F32("sqrt"), WANTS_F32("square"),
    WANTS_F32("abs"), WANTS_F32("reciprocal"), WANTS_F32("sin"), WANTS_F32("cos"),
    WANTS_F32("tanh"), WANTS_F32("sigmoid"), WANTS_F32("relu"), WANTS_F32("leaky_relu"),
    WANTS_F32("elu"), WANTS_F32("gelu"), WANTS_F32("softplus"), WANTS_F32("softsign"),
    WANTS_F32("hard_sigmoid"), WANTS_F32("clamp"),
    {"clamp", {"r T:3"}, {1, -1}, NEAP_ERANGE, "low 1 is above high -1"},
    {"cast", {"r T:3"}, {2}, NEAP_ERANGE, "dtype must be a whole number in 0..1, not 2"},
    WANTS_TWO_F32("add"), WANTS_TWO_F32("sub"), WANTS_TWO_F32("mul"), WANTS_TWO_F32("div"),
    WANTS_TWO_F32("pow"), WANTS_TWO_F32("maximum"), WANTS_TWO_F32("minimum"),
    {"add", {"r B:T", "r B:U"}, {0}, NEAP_ESHAPE, "[B,max T] and [B,max U] do not fit"},
    WANTS_FIT("equal"), WANTS_FIT("not_equal"), WANTS_FIT("less"), WANTS_FIT("less_equal"),
    WANTS_FIT("greater"), WANTS_FIT("greater_equal"),
    {"where", {"m T:", "r T:3", "i T:3"}, {0}, NEAP_ETYPE, "both f32 or both i32, not [T,B,3]"},
    {"where", {"m T:", "r T:3", "r T:4"}, {0}, NEAP_ESHAPE, "[T,B,3] and [T,B,4] do not fit"},
    {"bce_with_logits", {"r T:3", "r T:1"}, {0}, NEAP_ESHAPE, "[T,B,3] and [T,B,1]"},
    {"bce_with_logits", {"r T:3", "i T:3"}, {0}, NEAP_ETYPE, "y must be f32"},
    WANTS_F32("dropout"),
    {"dropout", {"r T:3", "r :2"}, {0}, NEAP_ESHAPE, "rate must be one number, not [2]"},
    {"dropout", {"r T:3", "r T:"}, {0}, NEAP_ESHAPE, "rate must be one number, not [T,B]"},

    {"concat", {"r T:3", "i T:3"}, {0}, NEAP_ETYPE, "[T,B,3] and i32 [T,B,3]"},
    {"concat", {"r T:3,2", "r T:3,4"}, {0}, NEAP_ESHAPE, "the joined one must be equal: [T,B,3,2] and"},
    {"concat", {"r T:3,2", "r T:3"}, {0}, NEAP_ESHAPE, "[T,B,3,2] and [T,B,3]"},
    {"concat", {"r T:", "r T:"}, {0}, NEAP_ESHAPE, "must have a feature dimension: [T,B]"},
    {"concat", {"r B:T", "r B:T"}, {0}, NEAP_ESHAPE, "cannot be joined: [B,max T]"},
    {"concat", {"r T:2000000000", "r T:2000000000"}, {0}, NEAP_ESHAPE, "too wide"},
    {"slice", {"r T:3"}, {0, 1, 4}, NEAP_ERANGE, "x [T,B,3]: to must be"},
    {"slice", {"r T:3"}, {0, 2, 2}, NEAP_ERANGE, "to must be a whole number in 3..3, not 2"},
    {"slice", {"r T:3"}, {0, -1, 2}, NEAP_ERANGE, "from must be a whole number in 0..2, not -1"},
    {"slice", {"r B:T"}, {0, 0, 1}, NEAP_ESHAPE, "cannot be cut: [B,max T]"},
    {"reshape", {"r T:6"}, {2, 4, 2}, NEAP_ESHAPE, "x [T,B,6], asked for [T,B,4,2]"},
    {"reshape", {"r T:6"}, {1, -1}, NEAP_ERANGE, "a dimension cannot be -1"},
    {"reshape", {"r B:T"}, {1, NEAP_LONGEST(U)}, NEAP_ESHAPE, "asked for [B,max U]"},
    {"reshape", {"r T:6"}, {4}, NEAP_ERANGE, "rank must be a whole number in 0..3, not 4"},
    {"transpose", {"r T:2,3"}, {0, 2}, NEAP_ERANGE, "b must be a whole number in 0..1, not 2"},
    {"transpose", {"r T:"}, {0, 1}, NEAP_ESHAPE, "feature dimension"},
    {"spread", {"r T:3"}, {B}, NEAP_ESHAPE, "x [T,B,3] is not above 'B'"},
    {"spread", {"r U:3"}, {CHARS}, NEAP_ESHAPE, "x [U,B,3] is not above 'chars'"},
    {"spread", {"r B:3"}, {9}, NEAP_ERANGE, "space must be a whole number in 0..5, not 9"},
    WANTS_SEQUENCE("reverse"), WANTS_SEQUENCE("padded"), WANTS_SEQUENCE("padding_mask"),
    WANTS_SEQUENCE("lengths"), WANTS_SEQUENCE("fold_time"),
    {"fold_time", {"r T:"}, {PAIRS}, NEAP_ESHAPE, "x must be vectors, such as [T,B,8], not [T,B]"},
    {"fold_time", {"r U:3"}, {PAIRS}, NEAP_ESHAPE, "steps of 'T/2' are not several of x [U,B,3]"},
    {"fold_time", {"r T:3"}, {T}, NEAP_ESHAPE, "steps of 'T' are not several of x [T,B,3]"},
    {"fold_time", {"r T/6:3"}, {PAIRS}, NEAP_ESHAPE, "not several of x [T/6,B,3]"},
    {"fold_time", {"r T:3"}, {9}, NEAP_ERANGE, "space must be a whole number in 1..5, not 9"},
    {"fold_time", {"r T:2000000000"}, {PAIRS}, NEAP_ESHAPE, "more than 2147483647 elements"},
    {"padded", {"r T:2,2,2"}, {0}, NEAP_ESHAPE, "2 feature dimensions at most: [T,B,2,2,2]"},

    WANTS_AXIS("sum"), WANTS_AXIS("mean"), WANTS_AXIS("max"),
    WANTS_F32("softmax"), {"softmax", {"r T:"}, {0}, NEAP_ESHAPE, "feature dimension: [T,B]"},
    WANTS_F32("log_softmax"),
    {"masked_softmax", {"r T:3", "m T:1"}, {0}, NEAP_ESHAPE, "[T,B,3] and [T,B,1]"},
    {"masked_softmax", {"r :3", "m T:3"}, {0}, NEAP_ESHAPE, "x [3], mask [T,B,3]"},
    {"masked_softmax", {"r T:3", "i T:3"}, {0}, NEAP_ETYPE, "the mask must be f32"},
    {"layer_norm", {"r T:3", "r :4", "r :3"}, {0}, NEAP_ESHAPE, "x [T,B,3], gain [4]"},
    {"layer_norm", {"r T:3", "r :3", "r T:3"}, {0}, NEAP_ESHAPE, "x [T,B,3], bias [T,B,3]"},
    {"layer_norm", {"r T:3", "r :3", "r :3"}, {-1}, NEAP_ERANGE, "eps must not be negative: -1"},
    WANTS_SEQUENCE("last"),
    {"last", {"r T:3", "r B:2"}, {0}, NEAP_ESHAPE, "must be [B,3] or the same in no space, not"},
    {"last", {"r T:3", "i B:3"}, {0}, NEAP_ETYPE, "must be f32, not i32 [B,3]"},
    WANTS_SEQUENCE("sum_time"), WANTS_SEQUENCE("mean_time"), WANTS_SEQUENCE("max_time"),
    WANTS_F32("sum_time"), WANTS_F32("sum_rows"), WANTS_F32("mean_rows"),
    {"mean_rows", {"r T:3", "r T:3"}, {0}, NEAP_ESHAPE, "x [T,B,3], weights [T,B,3]"},
    {"mean_rows", {"r T:3", "r B:"}, {0}, NEAP_ESHAPE, "x [T,B,3], weights [B]"},

    {"embedding", {"r T:", "r :5,3"}, {0}, NEAP_ETYPE, "ids must be i32, not [T,B]"},
    {"embedding", {"i T:", "r :5"}, {0}, NEAP_ESHAPE, "must be [V,w] in no space, not [5]"},
    {"embedding", {"i T:2,2,2", "r :5,3"}, {0}, NEAP_ESHAPE, "2 feature dimensions at most"},
    {"attend_at", {"r T:", "r T:3"}, {0}, NEAP_ETYPE, "ids must be i32, not [T,B]"},
    {"attend_at", {"i T:", "i T:3"}, {0}, NEAP_ETYPE, "v must be f32, not i32 [T,B,3]"},
    {"attend_at", {"i T:2", "r T:3"}, {0}, NEAP_ESHAPE, "expected one id a row, such as i32 [T,B], came i32 [T,B,2]"},
    {"attend_at", {"i T:", "r B:3"}, {0}, NEAP_ESHAPE, "v must be a sequence, such as [S,B,8], not [B,3]"},
    {"attend_at", {"i chars:", "r U:3"}, {0}, NEAP_ESHAPE, "ids must have rows of the sequences that v has: ids i32 [chars,T,B], v [U,B,3]"},
    {"gather", {"i T:5", "i T:"}, {0}, NEAP_ETYPE, "x must be f32, not i32 [T,B,5]"},
    {"gather", {"r T:5", "r T:"}, {0}, NEAP_ETYPE, "ids must be i32, not [T,B]"},
    {"gather", {"r T:", "i T:"}, {0}, NEAP_ESHAPE, "x must have a feature dimension: [T,B]"},
    {"gather", {"r T:5", "i U:"}, {0}, NEAP_ESHAPE, "rows differ: x [T,B,5], ids i32 [U,B]"},
    {"gather", {"r T:5,2,2", "i T:2,2"}, {0}, NEAP_ESHAPE, "3 feature dimensions at most"},
    {"scatter", {"r T:5", "r T:5"}, {5}, NEAP_ETYPE, "ids must be i32, not [T,B,5]"},
    {"scatter", {"r T:5", "i T:4"}, {5}, NEAP_ESHAPE, "the same shape, with a feature dimension: x "
                                                      "[T,B,5], ids i32 [T,B,4]"},
    {"scatter", {"r T:", "i T:"}, {5}, NEAP_ESHAPE, "with a feature dimension: x [T,B]"},
    {"scatter", {"r T:5", "i T:5"}, {0}, NEAP_ERANGE, "size must be a whole number in 1.."},
    {"one_hot", {"r T:"}, {5}, NEAP_ETYPE, "ids must be i32, not [T,B]"},
    {"one_hot", {"i T:"}, {0}, NEAP_ERANGE, "size must be a whole number in 1.."},
    {"hash", {"r T:3"}, {5}, NEAP_ETYPE, "ids must be i32, not [T,B,3]"},
    {"hash", {"i T:"}, {5}, NEAP_ESHAPE, "ids must have a feature dimension: i32 [T,B]"},
    {"hash", {"i T:3"}, {0}, NEAP_ERANGE, "size must be a whole number in 1.."},
    WANTS_F32("argmax"), {"argmax", {"r T:"}, {0}, NEAP_ESHAPE, "feature dimension: [T,B]"},
    {"sample", {"r T:3", "r T:"}, {0}, NEAP_ESHAPE, "temperature must be one number, not [T,B]"},
    {"sample", {"r T:", "1 :"}, {0}, NEAP_ESHAPE, "feature dimension: [T,B]"},
    {"cross_entropy", {"r T:3", "r T:"}, {0}, NEAP_ETYPE, "ids must be i32, not [T,B]"},
    {"cross_entropy", {"r T:3", "i B:"}, {0}, NEAP_ESHAPE, "x [T,B,3], ids i32 [B]"},
    {"cross_entropy", {"r T:3", "i T:3"}, {0}, NEAP_ESHAPE, "x [T,B,3], ids i32 [T,B,3]"},
    {"cross_entropy", {"r T:3", "i T:"}, {1.5}, NEAP_ERANGE, "smoothing must be in 0..1, not 1.5"},

    {"ctc", {"i T:3", "i U:"}, {0}, NEAP_ETYPE, "x must be f32, not i32 [T,B,3]"},
    {"ctc", {"r T:3", "r U:"}, {0}, NEAP_ETYPE, "the labels must be i32, not [U,B]"},
    {"ctc", {"r B:3", "i U:"}, {0}, NEAP_ESHAPE, "x must be a sequence, such as [T,B,8], not"},
    {"ctc", {"r T:1", "i U:"}, {0}, NEAP_ESHAPE, "2 classes or more, the blank is one: [T,B,1]"},
    {"ctc", {"r T:3,2", "i U:"}, {0}, NEAP_ESHAPE, "or more, the blank is one: [T,B,3,2]"},
    {"ctc", {"r T:3", "i B:"}, {0}, NEAP_ESHAPE, "x [T,B,3], labels i32 [B]"},
    {"ctc", {"r T:3", "i chars:"}, {0}, NEAP_ESHAPE, "x [T,B,3], labels i32 [chars,T,B]"},
    {"ctc", {"r T:3", "i U:"}, {3}, NEAP_ERANGE, "blank must be a whole number in -1..2, not 3"},
    {"ctc", {"r T:3", "i U:"}, {0, 2}, NEAP_ERANGE, "zero must be a whole number in 0..1, not 2"},
    WANTS_SEQUENCE("ctc_decode"), WANTS_F32("ctc_decode"),
    {"ctc_decode", {"r T:3"}, {0, -1}, NEAP_ERANGE, "beam must be a whole number in 0..1000"},
    {"crf", {"r T:3", "r T:", "r :3,3"}, {0}, NEAP_ETYPE, "the classes must be i32, not [T,B]"},
    {"crf", {"r T:3", "i U:", "r :3,3"}, {0}, NEAP_ESHAPE, "x [T,B,3], classes i32 [U,B]"},
    {"crf", {"r T:3", "i T:1", "r :3,3"}, {0}, NEAP_ESHAPE, "x [T,B,3], classes i32 [T,B,1]"},
    {"crf", {"r T:3", "i T:", "r :3,4"}, {0}, NEAP_ESHAPE,
     "the transitions must be [3,3], not [3,4]: x [T,B,3]"},
    {"crf", {"r T:3", "i T:", "r :3,3", "r :3", "r T:3"}, {0}, NEAP_ESHAPE,
     "stop must be [3], not [T,B,3]: x [T,B,3]"},
    {"viterbi", {"r T:3", "i :3,3"}, {0}, NEAP_ETYPE, "the transitions must be f32, not i32 [3,3]"},
    {"viterbi", {"r T:3", "r :3,3", "r :4"}, {0}, NEAP_ESHAPE, "start must be [3], not [4]"},
    {"viterbi", {"r T:3,2", "r :3,3"}, {0}, NEAP_ESHAPE, "a score for each class, such as [T,B,8]"},
    WANTS_SEQUENCE("crf_marginals"), WANTS_F32("crf_marginals"),
};
enum { N_BAD = sizeof bad_cases / sizeof bad_cases[0] };

static void run_bad(const bad_case *c) {
  neap_type types[MAX_IN];
  double attr[NI_MAX_ATTRS];
  ni_infer inf;
  const ni_op *op = find(c->op);
  neap_status rc = infer(&inf, types, attr, op, c->in, c->attr);
  TELL(rc == c->status, "%s: status %d, expected %d: %s", c->op, rc, c->status, ni_message());
  TELL(rc && strstr(ni_message(), c->says), "%s: says '%s', not '%s'", c->op, ni_message(),
        c->says);
}

/* Every op has a case; every op that can be wrong has a wrong one. */
static void check_covered(void) {
  static const char *const elsewhere[] = {"matmul", "linear", "bmm", "attend_dot",
                                          "attend_additive", "elman", "lstm", "gru"};
  for (int i = 0; i < ni_ops_count; i++) {
    const char *name = ni_ops[i].name;
    bool skip = false, good = false, bad = false;
    for (size_t k = 0; k < sizeof elsewhere / sizeof elsewhere[0]; k++)
      skip |= strcmp(name, elsewhere[k]) == 0;
    if (skip) continue;
    for (int k = 0; k < N_CASES; k++) good |= strcmp(name, cases[k].op) == 0;
    for (int k = 0; k < N_BAD; k++) bad |= strcmp(name, bad_cases[k].op) == 0;
    TELL(good, "%s has no case", name);
    TELL(bad || strcmp(name, "stop_gradient") == 0 || strcmp(name, "uniform") == 0,
          "%s has no wrong case", name);
    TELL(ni_op_find(name) == &ni_ops[i], "%s is not found", name);
  }
  TELL(ni_op_find("softmx") == NULL, "an unknown op is found");
}

/* ---- single facts ---- */

/* One op in float on values written out here; the caller reads g and closes it. */
typedef struct fact {
  io t;
  rig g;
  test_case c;
} fact;

static void open_fact(fact *f, const char *op, const char *a, const char *b, double attr) {
  memset(f, 0, sizeof *f);
  f->c = (test_case){.op = op, .in = {a, b}, .attr = {attr}};
  neap_type types[MAX_IN];
  ni_infer inf;
  ni_node node = {.op = find(op), .index = NODE, .n_out = 1};
  neap_status rc = infer(&inf, types, node.attr, node.op, f->c.in, f->c.attr);
  TELL(rc == NEAP_OK, "%s: %s", op, ni_message());
  f->t.c = &f->c;
  f->t.n_in = node.n_in = node.out = inf.n_in;
  for (int k = 0; k < inf.n_in; k++) {
    f->t.in[k] = value_of(&types[k]);
    fill(&f->t.in[k], f->c.in[k]);
    node.in[k] = k;
  }
  f->t.out = value_of(&inf.out[0]);
  open_rig(&f->g, &f->t, &node, false);
}

static void close_fact(fact *f) {
  close_rig(&f->g);
  for (int k = 0; k < f->t.n_in; k++) free(f->t.in[k].v);
  free(f->t.out.v);
}

static float *floats(fact *f, int v) { return f->g.view[v].data; }
static int32_t *ints(fact *f, int v) { return f->g.view[v].data; }

static void check_faults(void) {
  static const struct {
    const char *op, *a, *b;
    double attr;
    int bad;        /* the input that is wrong, */
    size_t at;      /* its element */
    double number;
    size_t row;
    const char *says;
  } f[] = {
      {"embedding", "i T:2", "r :5,3", 0, 0, 7, 5, 3, "id 5 is not in 0..4"},
      {"embedding", "i T:2", "r :5,3", 0, 0, 7, -1, 3, "id -1 is not in 0..4"},
      {"gather", "r T:5,2", "i T:3", 0, 1, 7, 5, 2, "id 5 is not in 0..4"},
      {"gather", "r T:5", "i T:", 0, 1, 3, -1, 3, "id -1 is not in 0..4"},
      {"one_hot", "i T:", NULL, 5, 0, 4, 57, 4, "id 57 is not in 0..4"},
      {"scatter", "r T:2", "i T:2", 5, 1, 5, 5, 2, "id 5 is not in 0..4"},
      {"cross_entropy", "r T:5", "i T:", 0, 1, 6, -2, 6, "id -2 is not in 0..4"},
      {"ctc", "r T:6", "d U:", 5, 1, 0, 6, 1, "label 1: id 6 is not in 0..5"},
      {"ctc", "r T:6", "d U:", 5, 1, 3, -1, 1, "label 2: id -1 is not in 0..5"},
      {"ctc", "r T:6", "d U:", 5, 1, 0, 5, 1, "label 1 is 5, the blank"},
      {"ctc", "r T:6", "d U:", 5, 1, 4, 4, 2, "2 labels, 0 of them as the one before, need 2 "
       "steps, there are 0; with zero such a sequence counts 0"},
      {"dropout", "r T:3", "1 :", 0, 1, 0, 1, 0, "rate 1 is not in 0 <= rate < 1"},
      {"sample", "r T:3", "1 :", 0, 1, 0, -1, 0, "temperature -1 is not 0 or more"},
  };
  for (size_t i = 0; i < sizeof f / sizeof f[0]; i++) {
    fact t;
    open_fact(&t, f[i].op, f[i].a, f[i].b, f[i].attr);
    store(t.g.view[f[i].bad].data, t.g.view[f[i].bad].type.dtype, false, f[i].at, f[i].number);
    forward(&t.g, false);
    TELL(atomic_load(&t.g.fault.set) && t.g.fault.status == NEAP_ERANGE &&
              t.g.fault.row == f[i].row && t.g.fault.node == &t.g.node &&
              strcmp(t.g.fault.text, f[i].says) == 0,
          "%s: fault '%s' at row %zu", f[i].op, t.g.fault.text, t.g.fault.row);
    backward(&t.g, false);
    ni_exec_fault(&t.g.x, &t.g.node, NEAP_EARG, 99, "later");
    TELL(t.g.fault.row == f[i].row, "a later fault replaced the first");
    close_fact(&t);
  }
}

static void check_nan(void) {
  static const char *const ops[] = {"relu", "leaky_relu", "elu", "clamp", "hard_sigmoid",
                                    "softplus", "maximum", "minimum", "max", "softmax",
                                    "log_softmax", "max_time", "sum_rows"};
  for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
    for (int where = 0; where < 20; where += 19) {
      fact t;
      bool two = find(ops[i])->in_min == 2;
      open_fact(&t, ops[i], "r T:20", two ? "r T:20" : NULL, 0);
      floats(&t, 0)[where] = NAN;
      if (two && where) floats(&t, 1)[0] = NAN;
      forward(&t.g, false);
      bool nan = false;
      for (size_t k = 0; k < count(&t.g, t.g.node.out); k++)
        nan |= isnan(floats(&t, t.g.node.out)[k]);
      TELL(nan, "%s: a NaN at %d vanished", ops[i], where);
      close_fact(&t);
    }
  }
  fact t;
  open_fact(&t, "mean_rows", "r T:2", "p T:", 0);
  floats(&t, 0)[5] = NAN;
  floats(&t, 1)[2] = 0;
  forward(&t.g, false);
  TELL(isfinite(floats(&t, 2)[1]), "mean_rows: a NaN of weight 0 came through");
  close_fact(&t);
}

static void check_ties(void) {
  fact t;
  open_fact(&t, "max", "1 T:4", NULL, 0);
  forward(&t.g, false);
  backward(&t.g, false);
  const float *g = t.g.view[0].grad;
  TELL(g[0] != 0.5f && g[1] == 0.5f && g[3] == 0.5f, "max: not the first of equals");
  close_fact(&t);
  open_fact(&t, "max_time", "1 T:1", NULL, 0);
  forward(&t.g, false);
  backward(&t.g, false);
  g = t.g.view[0].grad;
  TELL(g[row_at(T, 1, 0)] != 0.5f && g[row_at(T, 1, 1)] == 0.5f,
        "max_time: not the first of equals");
  close_fact(&t);
  static const char *const pick[] = {"maximum", "minimum"};
  for (int i = 0; i < 2; i++) {
    open_fact(&t, pick[i], "1 T:1", "1 T:1", 0);
    forward(&t.g, false);
    backward(&t.g, false);
    TELL(((float *)t.g.view[0].grad)[0] != 0.5f && ((float *)t.g.view[1].grad)[0] == 0.5f,
          "%s: a tie is not a's", pick[i]);
    close_fact(&t);
  }
  open_fact(&t, "argmax", "1 B:4", NULL, 0);
  floats(&t, 0)[2] = floats(&t, 0)[3] = 2;
  floats(&t, 0)[5] = floats(&t, 0)[6] = NAN;
  forward(&t.g, false);
  TELL(ints(&t, 1)[0] == 2 && ints(&t, 1)[1] == 1 && ints(&t, 1)[2] == 0,
        "argmax: %d %d %d", ints(&t, 1)[0], ints(&t, 1)[1], ints(&t, 1)[2]);
  close_fact(&t);
}

static void check_large(void) {
  fact t;
  static const char *const ops[] = {"softmax", "log_softmax"};
  for (int i = 0; i < 2; i++) {
    open_fact(&t, ops[i], "1000 B:2", NULL, 0);
    floats(&t, 0)[1] = -1000;
    forward(&t.g, false);
    const float *y = floats(&t, 1);
    TELL(y[0] == (i ? 0 : 1) && y[1] == (i ? -2000 : 0), "%s: %g %g", ops[i], (double)y[0],
          (double)y[1]);
    close_fact(&t);
  }
  open_fact(&t, "bce_with_logits", "500 B:2", "1 B:2", 0);
  floats(&t, 0)[1] = -500;
  forward(&t.g, false);
  TELL(floats(&t, 2)[0] == 0 && floats(&t, 2)[1] == 500, "bce: %g %g", (double)floats(&t, 2)[0],
        (double)floats(&t, 2)[1]);
  close_fact(&t);
  open_fact(&t, "cast", "3e9 B:2", NULL, NEAP_I32);
  floats(&t, 0)[1] = NAN;
  floats(&t, 0)[2] = -3e9f;
  floats(&t, 0)[3] = -2.7f;
  forward(&t.g, false);
  TELL(ints(&t, 1)[0] == INT32_MAX && ints(&t, 1)[1] == 0 && ints(&t, 1)[2] == INT32_MIN &&
            ints(&t, 1)[3] == -2,
        "cast: %d %d %d %d", ints(&t, 1)[0], ints(&t, 1)[1], ints(&t, 1)[2], ints(&t, 1)[3]);
  close_fact(&t);
}

/* The same line with more that is masked behind it, as in a batch with a longer sequence. */
static void check_masked_width(void) {
  fact a, b;
  open_fact(&a, "masked_softmax", "r B:37", "1 B:37", 0);
  open_fact(&b, "masked_softmax", "r B:90", "0 B:90", 0);
  for (int i = 0; i < 37; i++) {
    floats(&b, 0)[i] = floats(&a, 0)[i];
    floats(&b, 1)[i] = 1;
  }
  floats(&b, 0)[50] = NAN;
  forward(&a.g, false);
  forward(&b.g, false);
  TELL(memcmp(floats(&a, 2), floats(&b, 2), 37 * sizeof(float)) == 0,
        "masked_softmax: what is masked changes the rest");
  double rest = 0, sum = 0;
  for (int i = 37; i < 180; i++) rest += fabs((double)floats(&b, 2)[i]);
  for (int i = 0; i < 37; i++) sum += (double)floats(&a, 2)[i];
  TELL(rest == 0, "masked_softmax: %g where the mask is 0", rest);
  TELL(fabs(sum - 1) < 1e-6, "masked_softmax: sums to %g", sum);
  close_fact(&a), close_fact(&b);
}

static void check_chance(void) {
  fact t;
  open_fact(&t, "dropout", "1 T:2000", "0.25 :", 0);
  forward(&t.g, false);
  double sum = 0, n = (double)count(&t.g, 2), zeros = 0;
  for (size_t i = 0; i < count(&t.g, 2); i++) {
    sum += (double)floats(&t, 2)[i];
    zeros += floats(&t, 2)[i] == 0;
  }
  TELL(fabs(sum / n - 1) < 0.02 && fabs(zeros / n - 0.25) < 0.02, "dropout: mean %g, zeros %g",
        sum / n, zeros / n);
  close_fact(&t);
  open_fact(&t, "sample", "0 T:2000,2", "1 :", 0);
  for (size_t i = 0; i < count(&t.g, 0); i += 2) floats(&t, 0)[i] = logf(3);
  forward(&t.g, false);
  zeros = 0;
  for (size_t i = 0; i < count(&t.g, 2); i++) zeros += ints(&t, 2)[i] == 0;
  TELL(fabs(zeros / n - 0.75) < 0.02, "sample: %g, expected 0.75", zeros / n);
  floats(&t, 1)[0] = 0;
  forward(&t.g, false);
  zeros = 0;
  for (size_t i = 0; i < count(&t.g, 2); i++) zeros += ints(&t, 2)[i] == 0;
  TELL(zeros == n, "sample: temperature 0 is not the largest");
  close_fact(&t);
}

static uint8_t seen[1000];
static void see(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  (void)x, (void)n;
  for (size_t i = from; i < to; i++) seen[i]++;
}
static void check_share(neap_pool *pool) {
  for (size_t n = 0; n < 1000; n += 37) {
    static const size_t grain[] = {1, 16, 64};
    for (int g = 0; g < 3; g++)
      for (int with = 0; with < 2; with++) {
        memset(seen, 0, sizeof seen);
        ni_exec x = {.pool = with ? pool : NULL};
        ni_exec_share(&x, NULL, n, grain[g], see);
        bool once = true;
        for (size_t i = 0; i < 1000; i++) once &= seen[i] == (i < n);
        TELL(once, "share: %zu by %zu: not each once", n, grain[g]);
      }
  }
}

static void run_all(neap_pool *pool) {
  static const uint32_t ragged[] = {3, 5, 0, 2}, words[] = {2, 0, 1, 3, 4, 1, 0, 2, 2, 1};
  static const uint32_t other[] = {1, 2, 2, 0}, zeros[10] = {0}, ones[] = {1};
  static const struct {
    const char *name;
    size_t batch;
    const uint32_t *t, *chars, *u;
  } layouts[] = {{"no rows", 0, zeros, zeros, zeros},
                 {"empty sequences", 4, zeros, zeros, zeros},
                 {"one row", 1, ones, ones, ones},
                 {"ragged", 4, ragged, words, other}};
  for (int l = 0; l < 4; l++) {
    layout_all(layouts[l].name, layouts[l].batch, layouts[l].t, layouts[l].chars, layouts[l].u);
    for (int i = 0; i < N_CASES; i++) run_case(&cases[i], pool);
    if (l < 3) free_layout();
  }
  check_faults();
  check_nan();
  check_ties();
  check_large();
  check_masked_width();
  check_chance();
  free_layout();
}

int main(void) {
  static const char *const levels[] = {"generic", "avx2", "avx512", "neon"};
  neap_pool *pool;
  if (ni_pool_new(&pool, 3)) return 2;
  for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
    if (ni_kernel_select(levels[i])) run_all(pool);
  for (int i = 0; i < N_BAD; i++) run_bad(&bad_cases[i]);
  check_covered();
  check_share(pool);
  ni_pool_release(pool);
  return report();
}
