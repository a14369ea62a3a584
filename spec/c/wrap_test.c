/*
** What the library calls while it computes, counted: the linker puts the functions below, __wrap_*,
** before its own and the system's (Makefile). A stream's step takes no lock and calls no BLAS;
** denormals are flushed in runs and streams; a product that no state is in is done for all steps at
** once; a canceled run ends within one product.
*/
#include "record.h"

#include <math.h>
#include <pthread.h>

#include "../../runtime/op/product.h"

/* ---- what is counted ---- */

static atomic_int locks, blas, products, unflushed;
static atomic_size_t rows, most; /* of all products, of the largest */
static neap_run *running;
static int last_product; /* the run is canceled in it; 0: none */
static bool fast_blas;
static atomic_int stop;
static int last_blas; /* stop is set in it; 0: none */

/* A product of two numbers that is too small for a normal one. */
static bool flushes(void) {
  volatile float a = 1e-20f, b = 1e-20f;
  return a * b == 0;
}

static void reset(void) {
  atomic_store(&locks, 0), atomic_store(&blas, 0), atomic_store(&products, 0);
  atomic_store(&unflushed, 0), atomic_store(&rows, 0), atomic_store(&most, 0);
}

int __real_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m) {
  atomic_fetch_add(&locks, 1);
  return __real_pthread_mutex_lock(m);
}

/* BLAS is taken where the library knows it to be fast; here it need not even be right. */
bool __wrap_ni_blas_is_fast(void);
bool __wrap_ni_blas_is_fast(void) { return fast_blas; }
void __wrap_cblas_sgemm(void);
void __wrap_cblas_sgemm(void) {
  if (atomic_fetch_add(&blas, 1) + 1 == last_blas) atomic_store(&stop, 1);
}

static const ni_kernels_f32 *own;

static void counted(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *packed,
                    const float *bias, bool accumulate, float *c, size_t ldc) {
  int before = atomic_fetch_add(&products, 1);
  atomic_fetch_add(&rows, m);
  if (m > atomic_load(&most)) atomic_store(&most, m);
  if (!flushes()) atomic_fetch_add(&unflushed, 1);
  if (before + 1 == last_product) neap_run_cancel(running);
  own->gemm(m, n, k, a, lda, packed, bias, accumulate, c, ldc);
}

static void counted_outer(size_t m, size_t n, size_t k, const float *a, const float *packed,
                          float *c, size_t ldc) {
  if (atomic_fetch_add(&products, 1) + 1 == last_product) neap_run_cancel(running);
  own->outer(m, n, k, a, packed, c, ldc);
}

const ni_kernels_f32 *__real_ni_kernel_f32(void);
const ni_kernels_f32 *__wrap_ni_kernel_f32(void);
const ni_kernels_f32 *__wrap_ni_kernel_f32(void) {
  static ni_kernels_f32 table;
  if (!own) { /* the first call is main's */
    own = __real_ni_kernel_f32();
    table = *own;
    table.gemm = counted;
    table.outer = counted_outer;
  }
  return &table;
}

/* ---- a run of one sequence ---- */

typedef struct rig {
  neap_params *params;
  neap_program *pr;
  neap_pool *pool;
  neap_run *run;
  int loss;
} rig;

enum { STEPS = 12000, SIDE = 300 };

/* x [T,B,SIDE] -> linear, or lstm -> their sum. */
static void open_rig(rig *g, const char *op, int threads) {
  recorder r;
  static float x[(size_t)STEPS * SIDE];
  for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = (float)(i % 7) - 3;
  *g = (rig){.loss = -1};
  size_t n = strcmp(op, "lstm") == 0 ? 4 * SIDE : SIDE;
  CHECK(neap_params_new(&g->params) == NEAP_OK && neap_pool_new(&g->pool, threads) == NEAP_OK);
  start(&r, g->params);
  param(&r, "w", n, SIDE), param(&r, "u", n, SIDE);
  int t = space(&r, "T", 0), in = input(&r, "x", NEAP_F32, t, SIDE);
  int y = n == SIDE ? OP2(&r, op, in, weight(&r, "w"))
                    : OP3(&r, op, in, weight(&r, "w"), weight(&r, "u"));
  g->loss = OP_AT(&r, "sum", OP1(&r, "sum_rows", y), "axis", 0);
  output(&r, "loss", g->loss);
  neap_run_options o = {.flags = NEAP_LEARN, .pool = g->pool};
  CHECK(done(&r, &g->pr) == NEAP_OK && neap_run_open(&g->run, g->pr, &o) == NEAP_OK);
  CHECK(neap_run_batch(g->run, 1) == NEAP_OK);
  CHECK(neap_run_lengths(g->run, t, &(int32_t){STEPS}, 1) == NEAP_OK);
  CHECK(neap_run_input_f32(g->run, in, NEAP_CONCAT, x, sizeof x / sizeof *x) == NEAP_OK);
  running = g->run;
}

static void close_rig(rig *g) {
  neap_run_close(g->run);
  neap_pool_release(g->pool);
  neap_program_release(g->pr);
  neap_params_release(g->params);
}

/* ---- canceling ---- */

/* Canceled in its second product a run does no third one, but for those that other threads are in. */
static void test_cancel(int threads) {
  static const char *const ops[] = {"linear", "lstm"};
  for (int k = 0; k < 2; k++) {
    rig g;
    open_rig(&g, ops[k], threads);
    for (int back = 0; back < 2; back++) {
      reset();
      last_product = 2;
      CHECK((back ? neap_run_backward(g.run, g.loss) : neap_run_forward(g.run)) == NEAP_ECANCELED);
      int n = atomic_load(&products);
      check(n >= 2 && n <= 1 + threads, ops[k], back, "the product has stopped");
      check(back || atomic_load(&most) <= STEPS / 2, ops[k], back, "a piece is a part of it");
      last_product = 0;
      if (!back) CHECK(neap_run_forward(g.run) == NEAP_OK);
    }
    close_rig(&g);
  }
}

/* The same in a sum over rows by BLAS. */
static void test_cancel_blas(void) {
  neap_pool *pool;
  static float a[40000 * 272], c[272 * 16]; /* two tiles */
  fast_blas = true;
  CHECK(ni_pool_view(&pool, NULL, &stop) == NEAP_OK);
  reset();
  ni_product_outer_f32(pool, 272, 40000, a, 272, 1, &(ni_factor_f32){16, a, c}, NULL);
  CHECK(atomic_load(&blas) == 4); /* 13440 rows, and what is less than twice as many, of both */
  reset();
  last_blas = 1;
  ni_product_outer_f32(pool, 272, 40000, a, 272, 1, &(ni_factor_f32){16, a, c}, NULL);
  CHECK(atomic_load(&blas) == 1);
  last_blas = 0;
  ni_pool_release(pool);
  fast_blas = false;
}

/* ---- streams ---- */

static neap_model *model_of(neap_status (*record)(neap_program **, neap_params *)) {
  neap_params *p = NULL;
  neap_program *pr = NULL;
  neap_model *m = NULL;
  CHECK(neap_params_new(&p) == NEAP_OK && record(&pr, p) == NEAP_OK);
  CHECK(neap_model_new(&m, p) == NEAP_OK && neap_model_add(m, "predict", pr) == NEAP_OK);
  neap_program_release(pr);
  neap_params_release(p);
  return m;
}

static void test_stream(void) {
  neap_model *m = model_of(record_small);
  neap_stream *s, *block;
  fast_blas = true;
  CHECK(neap_stream_open(&s, m, NULL) == NEAP_OK);
  CHECK(neap_stream_open(&block, m, &(neap_stream_options){.block = 5}) == NEAP_OK);
  reset();
  for (int k = 0; k < 5; k++) {
    if (k == 3) neap_stream_reset(s), neap_params_touch(neap_model_params(m));
    CHECK(neap_stream_step(s) == NEAP_OK && neap_stream_steps(block, 5) == NEAP_OK);
  }
  CHECK(atomic_load(&products) > 0 && atomic_load(&locks) == 0 && atomic_load(&blas) == 0);
  neap_stream_close(s);
  neap_stream_close(block);
  neap_model_release(m);
  /* the counters count */
  rig g;
  open_rig(&g, "linear", 3);
  CHECK(neap_run_forward(g.run) == NEAP_OK && neap_run_backward(g.run, g.loss) == NEAP_OK);
  close_rig(&g);
  CHECK(atomic_load(&locks) > 0 && atomic_load(&blas) > 0);
  fast_blas = false;
}

/* ---- denormals ---- */

/* y = (1e-20 w) x by a product, with x 1e-20: what is flushed is 0. */
static void test_denormals(void) {
#if defined(__SSE__) || defined(__aarch64__)
  recorder r;
  neap_params *p = NULL;
  neap_run *run = NULL;
  neap_stream *s[2] = {NULL};
  enum { N = 4000 };
  static float x[N * 2], y[N];
  size_t n;
  for (int i = 0; i < 2 * N; i++) x[i] = 1e-20f;
  CHECK(neap_params_new(&p) == NEAP_OK);
  start(&r, p);
  param(&r, "w", 1, 2);
  for (int i = 0; i < 2 && p; i++) neap_params_data(p, 0)[i] = 1e-20f;
  int t = space(&r, "T", 0), in = input(&r, "x", NEAP_F32, t, 2);
  int out = OP2(&r, "linear", in, weight(&r, "w"));
  output(&r, "y", out);
  CHECK(!r.rc && neap_run_open(&run, r.pr, NULL) == NEAP_OK && neap_run_batch(run, 1) == NEAP_OK);
  CHECK(neap_run_lengths(run, t, &(int32_t){N}, 1) == NEAP_OK);
  CHECK(neap_run_input_f32(run, in, NEAP_CONCAT, x, 2 * N) == NEAP_OK);
  for (size_t k = 0; k < 2; k++) {
    neap_stream_options o = {.block = 1 + 3 * k};
    CHECK(neap_stream_open_program(&s[k], r.pr, &o) == NEAP_OK);
    memcpy(neap_stream_input_f32(s[k], 0, &n), x, 2 * sizeof *x);
  }
  reset();
  for (int mode = 0; mode < 2; mode++) { /* the caller's: it keeps denormals, it flushes them */
    unsigned before = mode ? ni_denormals_flush() : 0;
    CHECK(neap_run_forward(run) == NEAP_OK && flushes() == mode);
    CHECK(neap_run_read_f32(run, out, NEAP_CONCAT, y, N) == NEAP_OK && y[0] == 0 && y[N - 1] == 0);
    for (int k = 0; k < 6; k++) { /* the first step goes another way than the later ones */
      CHECK(neap_stream_step(s[k % 2]) == NEAP_OK && flushes() == mode);
      CHECK(neap_stream_output_f32(s[k % 2], 0, &n)[0] == 0);
    }
    neap_stream_input_f32(s[0], 0, &n)[0] = NAN; /* also after a step that fails */
    CHECK(neap_stream_step(s[0]) == NEAP_ENONFINITE && flushes() == mode);
    neap_stream_input_f32(s[0], 0, &n)[0] = 1e-20f;
    if (mode) ni_denormals_restore(before);
    CHECK(!flushes());
  }
  CHECK(atomic_load(&products) >= 14 && atomic_load(&unflushed) == 0);
  for (int k = 0; k < 2; k++) neap_stream_close(s[k]);
  neap_run_close(run);
  neap_program_release(r.pr);
  neap_params_release(p);
#endif
}

/* ---- hoisting ---- */

/* h = tanh(W x + U h'), y = V h: W x before the loop and V h after it, each in one product. */
static void test_hoisting(void) {
  recorder r;
  neap_params *p = NULL;
  neap_run *run = NULL;
  enum { T = 9, B = 3 };
  static float x[T * B * 4];
  CHECK(neap_params_new(&p) == NEAP_OK);
  start(&r, p);
  param(&r, "w", 5, 4), param(&r, "u", 5, 5), param(&r, "v", 2, 5);
  int t = space(&r, "T", 0), in = input(&r, "x", NEAP_F32, t, 4);
  if (!r.rc) r.rc = neap_program_scan_begin(r.pr, t);
  int h = state(&r, "h", NEAP_F32, 5, -1), wx = OP2(&r, "linear", in, weight(&r, "w"));
  int h1 = OP1(&r, "tanh", OP2(&r, "add", wx, OP2(&r, "linear", h, weight(&r, "u"))));
  int y = OP2(&r, "linear", h1, weight(&r, "v"));
  next(&r, h, h1);
  if (!r.rc) r.rc = neap_program_scan_end(r.pr);
  output(&r, "y", y);
  CHECK(!r.rc && neap_run_open(&run, r.pr, NULL) == NEAP_OK && neap_run_batch(run, B) == NEAP_OK);
  CHECK(neap_run_lengths(run, t, (int32_t[B]){T, T, T}, B) == NEAP_OK);
  CHECK(neap_run_input_f32(run, in, NEAP_CONCAT, x, T * B * 4) == NEAP_OK);
  reset();
  CHECK(neap_run_forward(run) == NEAP_OK);
  CHECK(atomic_load(&products) == 1 + T + 1 && atomic_load(&most) == T * B);
  CHECK(atomic_load(&rows) == 3 * T * B);
  neap_run_close(run);
  neap_program_release(r.pr);
  neap_params_release(p);
}

int main(void) {
  CHECK(ni_kernel_f32() != NULL && own != NULL);
  for (int threads = 1; threads < 4; threads += 2) test_cancel(threads);
  test_cancel_blas();
  test_stream();
  test_denormals();
  test_hoisting();
  CHECK(neap_memory_live() == 0);
  return report();
}
