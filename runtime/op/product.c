/*
** Matrix products: rows times a weight matrix that is packed once, and products row by row.
*/
#include <string.h>

#include "product.h"
#include "../kernel/kernel.h"

/* ---- over many rows ---- */

/*
** Gradients of weights are sums over all rows of a batch and its steps. CHUNK rows of A and B are
** packed once, then every tile of C takes them up. Where OpenBLAS knows the processor and there is
** more than one tile for it, it takes tiles instead, whose cut does not depend on the number of
** threads. A task has the tiles of TILE columns of A, or turns TURN columns.
*/
enum { CHUNK = 256, BLOCK = 512, TILE = 32, TURN = 128, BLAS_TILE = 256, BAND = 128, RUN = 128 };

/* Rows that OpenBLAS sums up at a time, so that a run can be canceled in between: whole blocks of
** its kernels (320, 384 or 448 rows), so that the sums are those of one call. */
enum { BLAS_ROWS = 13440 };

/* Rows and columns that fill the tiles of a product well. */
enum { FEW_ROWS = 32, FEW_COLUMNS = 128 };

/* Multiplications and sums worth waking a thread for: it takes some microseconds. */
#define WORTH ((size_t)1 << 18)
#define SUMS_WORTH ((size_t)1 << 15)
/* Multiplications worth OpenBLAS. */
#define BLAS_WORTH ((size_t)1 << 17)

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

size_t NI_R(ni_product_packed)(size_t n, size_t k) { return NI_R(ni_kernel)()->packed(n, k); }
size_t NI_R(ni_product_turned)(size_t m, size_t k) { return NI_R(ni_kernel)()->turned(m, k); }

#ifndef NI_F64
size_t ni_product_packed(size_t n, size_t k) {
  size_t a = ni_product_packed_f32(n, k), b = ni_product_packed_f64(n, k);
  return ((a > b ? a : b) + 15) & ~(size_t)15;
}

size_t ni_product_packed_gates(size_t gates, size_t h, size_t k) {
  size_t a = ni_kernel_f32()->packed_gates(gates, h, k);
  size_t b = gates * h * k; /* what the plain kernels, the only ones for double, take */
  return ((a > b ? a : b) + 15) & ~(size_t)15;
}

size_t ni_product_scratch(size_t m, size_t n1, size_t n2) {
  size_t a = ni_product_turned_f32(m, CHUNK), b = ni_product_turned_f64(m, CHUNK);
  return ((a > b ? a : b) + 15) / 16 * 16 + ni_product_packed(n1, CHUNK) +
         ni_product_packed(n2, CHUNK);
}
#endif

/* Packing, cut by columns; with gates by units. */
typedef struct packing {
  size_t gates, n, k, ldw, step;
  bool transposed;
  const real *w;
  real *to;
} packing;

static void packing_task(void *arg, size_t task) {
  const packing *p = arg;
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  size_t from = task * p->step, to = least(p->n, from + p->step);
  if (p->gates)
    k->pack_gates(p->gates, p->n, p->k, from, to, p->w, p->ldw, p->to);
  else
    k->pack(to - from, p->k, p->w + from * (p->transposed ? 1 : p->ldw), p->ldw, p->transposed,
            p->to + from * p->k);
}

static void run_packing(neap_pool *pool, packing p) {
  size_t panel = NI_R(ni_kernel)()->panel, threads = (size_t)ni_pool_threads(pool);
  p.step = p.n;
  if (panel && threads > 1 && p.n * p.k >= SUMS_WORTH)
    p.step = (p.n / (4 * threads) + panel) / panel * panel;
  if (p.n > 0) ni_pool_run(pool, (p.n + p.step - 1) / p.step, packing_task, &p);
}

void NI_R(ni_product_pack)(neap_pool *pool, size_t n, size_t k, const real *w, size_t ldw,
                           bool transposed, real *packed) {
  run_packing(pool, (packing){0, n, k, ldw, 0, transposed, w, packed});
}

void NI_R(ni_product_pack_gates)(neap_pool *pool, size_t gates, size_t h, size_t k, const real *w,
                                 size_t ldw, real *packed) {
  run_packing(pool, (packing){gates, h, k, ldw, 0, false, w, packed});
}

typedef struct product {
  size_t m, n, k, lda, ldc, step, wide, across;
  const real *a, *w, *bias;
  real *c;
  bool accumulate;
} product;

static void rows_task(void *arg, size_t task) {
  const product *p = arg;
  size_t i = task / p->across * p->step, j = task % p->across * p->wide;
  NI_R(ni_kernel)()->gemm(least(p->step, p->m - i), least(p->wide, p->n - j), p->k, p->a + i * p->lda,
                          p->lda, p->w + j * p->k, p->bias ? p->bias + j : NULL, p->accumulate,
                          p->c + i * p->ldc + j, p->ldc);
}

void NI_R(ni_product_rows)(neap_pool *pool, size_t m, size_t n, size_t k, const real *a, size_t lda,
                           const real *packed, const real *bias, bool accumulate, real *c, size_t ldc) {
  /* several tasks for each thread, so that one that is held up leaves its share to others */
  size_t threads = (size_t)ni_pool_threads(pool), few = WORTH / (n * k + 1) + 1;
  size_t step = threads > 1 ? (m + 4 * threads - 1) / (4 * threads) : m;
  step = least(step, ni_piece(n * k));
  if (step < FEW_ROWS) step = FEW_ROWS;
  if (step < few) step = few;
  /* and columns, where there are too few rows for all */
  size_t panel = NI_R(ni_kernel)()->panel, tasks = (m + step - 1) / step, wide = n;
  if (threads > 1 && panel && tasks > 0 && tasks < 2 * threads) {
    size_t parts = (2 * threads + tasks - 1) / tasks, least_wide = WORTH / (least(step, m) * k + 1);
    wide = n / parts > FEW_COLUMNS ? n / parts : FEW_COLUMNS;
    wide = ((wide > least_wide ? wide : least_wide) + panel - 1) / panel * panel;
    wide = least(wide, n);
  }
  product p = {.m = m, .n = n, .k = k, .lda = lda, .ldc = ldc, .step = step, .wide = wide,
               .across = (n + wide - 1) / wide,
               .a = a, .bias = bias, .c = c, .w = packed, .accumulate = accumulate};
  ni_pool_run(pool, tasks * p.across, rows_task, &p);
}

/* A product over rows: some of them at a time, what they are packed to, how C is cut. */
typedef struct sums {
  neap_pool *pool;
  size_t m, lda, rows, tile, tiles, turn, blocks, b_blocks[2];
  const real *a;
  const NI_R(ni_factor) *factor;
  size_t first; /* of the rows at hand */
  real *turned, *packed[2];
} sums;

/* Block of BLOCK columns, counted over all factors: the factor, and the column in it. */
static int factor_of(const sums *p, size_t block, size_t *column) {
  int f = block >= p->b_blocks[0];
  *column = (f ? block - p->b_blocks[0] : block) * BLOCK;
  return f;
}

static void pack_task(void *arg, size_t task) {
  const sums *p = arg;
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  size_t j;
  if (task < p->blocks) {
    const int f = factor_of(p, task, &j);
    const NI_R(ni_factor) *b = &p->factor[f];
    k->pack(least(BLOCK, b->n - j), p->rows, b->b + p->first * b->n + j, b->n, true,
            p->packed[f] + j * p->rows);
  } else {
    size_t i = (task - p->blocks) * p->turn;
    k->turn(least(p->turn, p->m - i), p->rows, p->a + p->first * p->lda + i, p->lda,
            p->turned + k->turned(i, p->rows));
  }
}

static void tile_task(void *arg, size_t task) {
  const sums *p = arg;
  size_t j, i = task / p->blocks * p->tile;
  const int f = factor_of(p, task % p->blocks, &j);
  const NI_R(ni_factor) *b = &p->factor[f];
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  k->outer(least(p->tile, p->m - i), least(BLOCK, b->n - j), p->rows,
           p->turned + k->turned(i, p->rows), p->packed[f] + j * p->rows, b->c + i * b->n + j, b->n);
}

#ifndef NI_F64
static void blas_task(void *arg, size_t task) {
  const sums *p = arg;
  const ni_factor_f32 *b = &p->factor[task / p->tiles];
  size_t i = task % p->tiles * BLAS_TILE, rows;
  for (size_t r = 0; r < p->rows && !ni_pool_stopped(p->pool); r += rows) {
    rows = p->rows - r < 2 * BLAS_ROWS ? p->rows - r : BLAS_ROWS;
    ni_gemm_tn_f32(least(BLAS_TILE, p->m - i), b->n, rows, p->a + r * p->lda + i, p->lda,
                   b->b + r * b->n, b->n, true, b->c + i * b->n, b->n);
  }
}
#endif

void NI_R(ni_product_outer)(neap_pool *pool, size_t m, size_t rows, const real *a, size_t lda,
                            int factors, const NI_R(ni_factor) *factor, real *scratch) {
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  sums p = {.pool = pool, .m = m, .lda = lda, .rows = rows, .a = a, .factor = factor, .turned = scratch};
  size_t width = 0;
  for (int f = 0; f < factors; f++) width += factor[f].n;
#ifndef NI_F64
  if (m > BLAS_TILE && m * width * rows >= BLAS_WORTH && ni_blas_is_fast()) {
    p.tiles = (m + BLAS_TILE - 1) / BLAS_TILE;
    ni_pool_run(pool, p.tiles * (size_t)factors, blas_task, &p);
    return;
  }
#endif
  p.turn = TURN / k->group * k->group;
  p.tile = TILE / k->group * k->group;
  p.tiles = (m + p.tile - 1) / p.tile;
  real *at = scratch + (k->turned(m, CHUNK) + 15) / 16 * 16;
  for (int f = 0; f < factors; f++) {
    p.packed[f] = at;
    p.b_blocks[f] = (factor[f].n + BLOCK - 1) / BLOCK;
    p.blocks += p.b_blocks[f];
    at += ni_product_packed(factor[f].n, CHUNK);
  }
  if (m * width * least(rows, CHUNK) < WORTH) pool = NULL;
  for (size_t all = rows, left; p.first < all; p.first += p.rows) {
    left = all - p.first;
    p.rows = left / ((left + CHUNK - 1) / CHUNK); /* as even as CHUNK allows */
    ni_pool_run(pool, p.blocks + (m + p.turn - 1) / p.turn, pack_task, &p);
    ni_pool_run(pool, p.blocks * p.tiles, tile_task, &p);
  }
}

typedef struct columns {
  size_t n, rows, lda;
  const real *a;
  real *to, *also;
} columns;

/* Sums of RUN rows each are summed: long sums of floats stay exact to a few bits. */
static void sum_task(void *arg, size_t band) {
  const columns *s = arg;
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  size_t j = band * BAND, n = least(BAND, s->n - j);
  real sum[BAND] = {0};
  for (size_t r = 0; r < s->rows; r += RUN)
    k->sum_rows(n, least(RUN, s->rows - r), s->a + r * s->lda + j, s->lda, sum);
  if (s->to) k->add(n, s->to + j, sum, s->to + j);
  if (s->also) k->add(n, s->also + j, sum, s->also + j);
}

void NI_R(ni_product_sum)(neap_pool *pool, size_t n, size_t rows, const real *a, size_t lda,
                          real *to, real *also) {
  columns s = {n, rows, lda, a, to, also};
  if (n * rows < SUMS_WORTH) pool = NULL;
  if (to || also) ni_pool_run(pool, (n + BAND - 1) / BAND, sum_task, &s);
}

/* ---- x w, and x w^T + b ---- */

/* w is [K,N] in matmul, [N,K] in linear. fixed: panels of w; then, for backward, panels of the
** other orientation for dx, and scratch for dw. */
typedef struct weight {
  size_t n, k, back, scratch, fixed;
} weight;

static weight weight_of(const ni_exec *x, const ni_node *n, bool linear) {
  const int32_t *dim = x->view[n->in[1]].type.dim;
  weight w = {.n = (size_t)dim[linear ? 0 : 1], .k = (size_t)dim[linear ? 1 : 0]};
  w.back = ni_product_packed(w.n, w.k);
  w.scratch = w.back + ni_product_packed(w.k, w.n);
  w.fixed = w.scratch + (linear ? ni_product_scratch(w.n, w.k, 0) : ni_product_scratch(w.k, w.n, 0));
  return w;
}

#ifndef NI_F64

static neap_status infer(ni_infer *i, bool linear) {
  const neap_type *x = i->in[0], *w = i->in[1], *b = i->n_in > 2 ? i->in[2] : NULL;
  neap_status rc = ni_want(i, 0, NEAP_F32, "x");
  if (!rc) rc = ni_want(i, 1, NEAP_F32, "w");
  if (!rc && b) rc = ni_want(i, 2, NEAP_F32, "b");
  if (rc) return rc;
  if (x->rank == 0)
    return ni_fail(NEAP_ESHAPE, "x must have a feature dimension, not %s", ni_type_text(i, x));
  if (w->space >= 0)
    return ni_fail(NEAP_ESHAPE, "w must be one matrix for all rows, not %s: bmm multiplies by row",
                   ni_type_text(i, w));
  if (w->rank != 2 || w->dim[0] < 1 || w->dim[1] < 1)
    return ni_fail(NEAP_ESHAPE, "w must be a matrix %s, not %s", linear ? "[N,K]" : "[K,N]",
                   ni_type_text(i, w));
  if (x->dim[x->rank - 1] != w->dim[linear ? 1 : 0])
    return ni_fail(NEAP_ESHAPE, "inner widths differ: x %s, w %s", ni_type_text(i, x),
                   ni_type_text(i, w));
  int32_t width = w->dim[linear ? 0 : 1];
  if (b && (b->space >= 0 || b->rank != 1 || b->dim[0] != width))
    return ni_fail(NEAP_ESHAPE, "b must be [%d], as wide as w %s, not %s", (int)width,
                   ni_type_text(i, w), ni_type_text(i, b));
  i->out[0] = *x;
  i->out[0].dim[x->rank - 1] = width;
  return NEAP_OK;
}

neap_status ni_infer_matmul(ni_infer *i) { return infer(i, false); }
neap_status ni_infer_linear(ni_infer *i) { return infer(i, true); }

static size_t fixed(const ni_exec *x, const ni_node *n, bool backward, bool linear) {
  weight w = weight_of(x, n, linear);
  return backward ? w.fixed : w.back;
}

size_t ni_fixed_matmul(const ni_exec *x, const ni_node *n, bool backward) {
  return fixed(x, n, backward, false);
}
size_t ni_fixed_linear(const ni_exec *x, const ni_node *n, bool backward) {
  return fixed(x, n, backward, true);
}

#endif

static void prepare(const ni_exec *x, const ni_node *n, bool backward, bool linear) {
  weight w = weight_of(x, n, linear);
  const real *data = x->view[n->in[1]].data;
  real *to = x->fixed[n->index];
  if (backward)
    NI_R(ni_product_pack)(x->pool, w.k, w.n, data, linear ? w.k : w.n, linear, to + w.back);
  else
    NI_R(ni_product_pack)(x->pool, w.n, w.k, data, linear ? w.k : w.n, !linear, to);
}

/* Rows of x, its leading feature dimensions counted in, in rows r0..r1-1 of its space. */
static size_t lines(const ni_exec *x, const ni_node *n, size_t rows, const weight *w) {
  return rows * (x->view[n->in[0]].width / w->k);
}

static void forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1, bool linear) {
  weight w = weight_of(x, n, linear);
  size_t first = lines(x, n, r0, &w), m = lines(x, n, r1, &w) - first;
  const real *b = n->n_in > 2 && n->in[2] >= 0 ? x->view[n->in[2]].data : NULL;
  NI_R(ni_kernel)()->gemm(m, w.n, w.k, (const real *)x->view[n->in[0]].data + first * w.k, w.k,
                          x->fixed[n->index], b, false, (real *)x->view[n->out].data + first * w.n,
                          w.n);
}

static void backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1, bool linear) {
  weight w = weight_of(x, n, linear);
  size_t first = lines(x, n, r0, &w), m = lines(x, n, r1, &w) - first;
  const real *dy = x->view[n->out].grad;
  real *dx = x->view[n->in[0]].grad;
  if (!dy || !dx) return;
  NI_R(ni_kernel)()->gemm(m, w.k, w.n, dy + first * w.n, w.n,
                          (real *)x->fixed[n->index] + w.back, NULL, true, dx + first * w.k, w.k);
}

static void backward_const(const ni_exec *x, const ni_node *n, bool linear) {
  weight w = weight_of(x, n, linear);
  size_t m = lines(x, n, ni_rows_of(x, n->in[0]), &w);
  const real *data = x->view[n->in[0]].data, *dy = x->view[n->out].grad;
  real *dw = x->view[n->in[1]].grad, *scratch = (real *)x->fixed[n->index] + w.scratch;
  if (!dy) return;
  if (dw && linear)
    NI_R(ni_product_outer)(x->pool, w.n, m, dy, w.n, 1, &(NI_R(ni_factor)){w.k, data, dw}, scratch);
  if (dw && !linear)
    NI_R(ni_product_outer)(x->pool, w.k, m, data, w.k, 1, &(NI_R(ni_factor)){w.n, dy, dw}, scratch);
  if (n->n_in > 2 && n->in[2] >= 0)
    NI_R(ni_product_sum)(x->pool, w.n, m, dy, w.n, x->view[n->in[2]].grad, NULL);
}

#define CODE(name, linear)                                                                      \
  static void name##_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {        \
    forward(x, n, r0, r1, linear);                                                              \
  }                                                                                             \
  static void name##_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {       \
    backward(x, n, r0, r1, linear);                                                             \
  }                                                                                             \
  static void name##_const(const ni_exec *x, const ni_node *n) { backward_const(x, n, linear); } \
  static void name##_prepare(const ni_exec *x, const ni_node *n, bool back) {                   \
    prepare(x, n, back, linear);                                                                \
  }                                                                                             \
  const ni_code NI_R(ni_code_##name) = {name##_forward, name##_backward, name##_const,          \
                                        name##_prepare};
CODE(matmul, false)
CODE(linear, true)

/* ---- a product for each row ---- */

/* A matrix, or its transpose (turned), in row-major memory with row stride ld. */
typedef struct matrix {
  real *p;
  size_t rows, cols, ld;
  bool turned;
} matrix;

static matrix turn(matrix a) { return (matrix){a.p, a.cols, a.rows, a.ld, !a.turned}; }
static size_t at(const matrix *a, size_t i, size_t j) {
  return a->turned ? j * a->ld + i : i * a->ld + j;
}

/*
** C += A B, rows i0..i1-1. A sum over K rises one by one unless dots says that K is a number that
** no batch changes: a longer memory that ends in zeros gives the same bits.
*/
static void product_add(matrix a, matrix b, matrix c, size_t i0, size_t i1, bool dots) {
  const NI_R(ni_kernels) *f = NI_R(ni_kernel)();
  if (!b.turned && !c.turned) {
    for (size_t i = i0; i < i1; i++)
      for (size_t k = 0; k < a.cols; k++)
        f->axpy(c.cols, a.p[at(&a, i, k)], b.p + k * b.ld, c.p + i * c.ld);
  } else if (a.turned && c.turned) {
    for (size_t j = 0; j < c.cols; j++)
      for (size_t k = 0; k < a.cols; k++)
        f->axpy(i1 - i0, b.p[at(&b, k, j)], a.p + k * a.ld + i0, c.p + j * c.ld + i0);
  } else {
    bool rows = dots && !a.turned && b.turned;
    for (size_t i = i0; i < i1; i++)
      for (size_t j = 0; j < c.cols; j++) {
        real *sum = c.p + at(&c, i, j);
        if (rows)
          *sum += f->dot(a.cols, a.p + i * a.ld, b.p + j * b.ld);
        else
          for (size_t k = 0; k < a.cols; k++) *sum += a.p[at(&a, i, k)] * b.p[at(&b, k, j)];
      }
  }
}

enum { TRANSPOSE_A, TRANSPOSE_B };

#ifndef NI_F64

neap_status ni_infer_bmm(ni_infer *i) {
  int32_t side[2][2]; /* of a: M K; of b: K N */
  for (int o = 0; o < 2; o++) {
    const neap_type *t = i->in[o];
    const char *who = o ? "b" : "a";
    int turned = 0;
    neap_status rc = ni_want(i, o, NEAP_F32, who);
    if (!rc) rc = ni_want_whole(i, o, o ? "transpose_b" : "transpose_a", 0, 1, &turned);
    if (rc) return rc;
    if (t->rank != 2 && (t->rank != 1 || turned))
      return ni_fail(NEAP_ESHAPE, "%s must have two feature dimensions%s, not %s", who,
                     turned ? " to be transposed" : ", or one", ni_type_text(i, t));
    side[o][0] = t->rank == 2 ? t->dim[turned] : o ? t->dim[0] : 1;
    side[o][1] = t->rank == 2 ? t->dim[!turned] : o ? 1 : t->dim[0];
  }
  const neap_type *a = i->in[0], *b = i->in[1];
  if (side[0][1] != side[1][0] || (a->space >= 0 && b->space >= 0 && a->space != b->space))
    return ni_fail(NEAP_ESHAPE, "%s differ: a %s%s, b %s%s",
                   side[0][1] != side[1][0] ? "inner widths" : "rows", ni_type_text(i, a),
                   i->attr[TRANSPOSE_A] != 0 ? " transposed" : "", ni_type_text(i, b),
                   i->attr[TRANSPOSE_B] != 0 ? " transposed" : "");
  neap_type *out = &i->out[0];
  *out = (neap_type){.dtype = NEAP_F32, .space = a->space >= 0 ? a->space : b->space};
  if (a->rank == 2) out->dim[out->rank++] = side[0][0];
  if (b->rank == 2) out->dim[out->rank++] = side[1][1];
  return NEAP_OK;
}

#endif

/* Operand o (2: the result) at one row of the space; gradient instead of data if asked. */
static matrix operand(const ni_exec *x, const ni_node *n, int o, size_t row, bool gradient) {
  const ni_view *v = &x->view[o < 2 ? n->in[o] : n->out];
  real *p = gradient ? v->grad : v->data;
  if (p && v->type.space >= 0) p += row * v->width;
  if (o == 2) {
    size_t rows = operand(x, n, 0, 0, false).rows, cols = operand(x, n, 1, 0, false).cols;
    return (matrix){p, rows, cols, cols, false};
  }
  size_t last = ni_dim(x, v->type.dim[v->type.rank - 1]);
  size_t lead = v->type.rank == 2 ? ni_dim(x, v->type.dim[0]) : 1;
  matrix m = {p, lead, last, last, false};
  if (v->type.rank == 1) return o ? (matrix){p, last, 1, 1, false} : m;
  return n->attr[o] != 0 ? turn(m) : m;
}

/* Is the side of operand o that the product sums over (inner), or the other, of fixed length? */
static bool fixed_side(const ni_exec *x, const ni_node *n, int o, bool inner) {
  const neap_type *t = &x->view[n->in[o]].type;
  if (t->rank == 1) return !inner || t->dim[0] >= 0;
  return t->dim[inner ^ (n->attr[o] != 0) ^ o] >= 0;
}

static void bmm_forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  bool dots = fixed_side(x, n, 0, true);
  for (size_t r = r0; r < r1; r++) {
    matrix c = operand(x, n, 2, r, false);
    memset(c.p, 0, c.rows * c.cols * sizeof(real));
    product_add(operand(x, n, 0, r, false), operand(x, n, 1, r, false), c, 0, c.rows, dots);
  }
}

/* Rows i0..i1-1 of operand o's gradient: dA += dC B^T, dB += A^T dC. */
static void operand_back(const ni_exec *x, const ni_node *n, int o, size_t row, size_t i0,
                         size_t i1) {
  matrix dc = operand(x, n, 2, row, true), d = operand(x, n, o, row, true);
  matrix other = turn(operand(x, n, !o, row, false));
  bool dots = fixed_side(x, n, !o, false);
  if (o)
    product_add(other, dc, d, i0, i1, dots);
  else
    product_add(dc, other, d, i0, i1, dots);
}

static void bmm_backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  if (!x->view[n->out].grad) return;
  for (int o = 0; o < 2; o++) {
    if (!x->view[n->in[o]].grad || ni_space_of(x, n->in[o]) != ni_space_of(x, n->out)) continue;
    size_t rows = operand(x, n, o, 0, true).rows;
    for (size_t r = r0; r < r1; r++) operand_back(x, n, o, r, 0, rows);
  }
}

static void shared_a(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  for (size_t r = 0; r < ni_rows_of(x, n->out); r++) operand_back(x, n, 0, r, from, to);
}
static void shared_b(const ni_exec *x, const ni_node *n, size_t from, size_t to) {
  for (size_t r = 0; r < ni_rows_of(x, n->out); r++) operand_back(x, n, 1, r, from, to);
}

/* An operand that all rows share. */
static void bmm_const(const ni_exec *x, const ni_node *n) {
  for (int o = 0; o < 2 && x->view[n->out].grad; o++)
    if (x->view[n->in[o]].grad && ni_space_of(x, n->in[o]) != ni_space_of(x, n->out))
      ni_exec_share(x, n, operand(x, n, o, 0, true).rows, 16, o ? shared_b : shared_a);
}

const ni_code NI_R(ni_code_bmm) = {bmm_forward, bmm_backward, bmm_const, NULL};
