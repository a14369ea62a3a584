/*
** One model, four threads: each opens runs and streams of its own on it, at the same time, and gets
** the bits that one thread alone gets, also where the threads are the first that ever use it. And
** optimizers whose parameters are shared out among a pool. Built with ThreadSanitizer too.
*/
#include "record.h"

#include <pthread.h>
#include <unistd.h>

enum { THREADS = 4, TIMES = 20, ROWS = 3, STEPS = 17, WIDTH = 2 };

typedef struct result {
  float y[ROWS * STEPS * WIDTH];
  int32_t n[ROWS * STEPS];
  float streamed[STEPS * WIDTH];
} result;

typedef struct worker {
  neap_model *model;
  float x[ROWS * STEPS * 3]; /* its own input */
  result alone, together;
  neap_pool *pool;
  pthread_barrier_t *gate;
  bool cold, good;
} worker;

static neap_status run_whole(worker *w, neap_program *pr, unsigned flags, result *r) {
  const int32_t lengths[ROWS] = {STEPS, STEPS, STEPS};
  neap_run_options o = {.pool = w->pool, .flags = flags};
  neap_run *run;
  neap_status rc = neap_run_open(&run, pr, &o);
  if (!rc) rc = neap_run_batch(run, ROWS);
  if (!rc) rc = neap_run_lengths(run, 1, lengths, ROWS);
  int x = neap_program_find_input(pr, "x"), y = neap_program_find_output(pr, "y");
  if (!rc) rc = neap_run_input_f32(run, x, NEAP_CONCAT, w->x, ROWS * STEPS * 3);
  if (!rc) rc = neap_run_forward(run);
  if (!rc) rc = neap_run_read_f32(run, y, NEAP_CONCAT, r->y, ROWS * STEPS * WIDTH);
  y = neap_program_find_output(pr, "n");
  if (!rc) rc = neap_run_read_i32(run, y, NEAP_CONCAT, r->n, ROWS * STEPS);
  neap_run_close(run);
  return rc;
}

static neap_status run_stream(worker *w, result *r) {
  neap_stream *s;
  size_t n;
  neap_status rc = neap_stream_open(&s, w->model, NULL);
  for (int t = 0; t < STEPS && !rc; t++) {
    memcpy(neap_stream_input_f32(s, 0, &n), w->x + 3 * t, 3 * sizeof(float));
    rc = neap_stream_step(s);
    memcpy(r->streamed + WIDTH * t, neap_stream_output_f32(s, 0, &n), WIDTH * sizeof(float));
  }
  neap_stream_close(s);
  return rc;
}

static neap_status run_both(worker *w, result *r) {
  neap_model_retain(w->model);
  neap_program *pr = neap_model_program(w->model, "predict");
  result segments; /* the same sequences, some steps at a time */
  neap_status rc = run_whole(w, pr, 0, r);
  if (!rc) rc = run_whole(w, pr, NEAP_RECOMPUTE, &segments);
  if (!rc && (memcmp(segments.y, r->y, sizeof r->y) || memcmp(segments.n, r->n, sizeof r->n)))
    rc = NEAP_ESTATE;
  if (!rc) rc = run_stream(w, r);
  neap_model_release(w->model);
  return rc;
}

static void *work(void *arg) {
  worker *w = arg;
  pthread_barrier_wait(w->gate);
  w->good = true;
  for (int k = 0; k < TIMES && w->good; k++) {
    memset(&w->together, 0, sizeof w->together);
    w->good = run_both(w, w->cold && k == 0 ? &w->alone : &w->together) == NEAP_OK;
    if (w->cold && k == 0) continue;
    w->good = w->good &&
              memcmp(&w->together, &w->alone, sizeof w->alone) == 0;
    /* the message of an error is the thread's own */
    w->good = w->good && neap_stream_step(NULL) == NEAP_EARG && strstr(neap_errmsg(), "stream step");
  }
  return NULL;
}

/* The model as a program finds it: saved and loaded, its weights not written by anyone. */
static neap_model *loaded(void) {
  char path[] = "/tmp/neap-thread-XXXXXX";
  neap_params *p = NULL;
  neap_program *pr = NULL;
  neap_model *m = NULL, *copy = NULL;
  int fd = mkstemp(path);
  CHECK(neap_params_new(&p) == NEAP_OK && record_small(&pr, p) == NEAP_OK);
  CHECK(neap_model_new(&m, p) == NEAP_OK && neap_model_add(m, "predict", pr) == NEAP_OK);
  CHECK(neap_model_save(m, path) == NEAP_OK && neap_model_load(&copy, path) == NEAP_OK);
  neap_model_release(m);
  neap_program_release(pr);
  neap_params_release(p);
  close(fd);
  unlink(path);
  return copy;
}

/* pools: each run has threads of its own besides. cold: nobody has run the model before, and one
** thread alone runs it afterwards. */
static void test_threads(neap_model *m, int pools, bool cold) {
  static worker w[THREADS];
  pthread_t thread[THREADS];
  pthread_barrier_t gate;
  pthread_barrier_init(&gate, NULL, THREADS);
  for (int i = 0; i < THREADS; i++) {
    w[i] = (worker){.model = m, .gate = &gate, .cold = cold};
    for (int k = 0; k < ROWS * STEPS * 3; k++)
      w[i].x[k] = 0.01f * (float)((k * 7 + i * 13) % 200) - 1;
    if (!cold) CHECK(run_both(&w[i], &w[i].alone) == NEAP_OK);
    if (pools) CHECK(neap_pool_new(&w[i].pool, 2) == NEAP_OK);
  }
  for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&thread[i], NULL, work, &w[i]) == 0);
  for (int i = 0; i < THREADS; i++) {
    pthread_join(thread[i], NULL);
    CHECK(w[i].good);
    neap_pool_release(w[i].pool);
    w[i].pool = NULL;
    CHECK(memcmp(w[i].alone.y, w[i].alone.streamed, sizeof w[i].alone.streamed) == 0);
    CHECK(i == 0 || memcmp(&w[i].alone, &w[0].alone, sizeof w[i].alone) != 0);
    if (cold) CHECK(run_both(&w[i], &w[i].together) == NEAP_OK);
    CHECK(memcmp(&w[i].together, &w[i].alone, sizeof w[i].alone) == 0);
  }
  pthread_barrier_destroy(&gate);
}

enum { NUMBERS = 50000 };

typedef struct learner {
  neap_pool *pool; /* of its own, or several have it */
  float w[NUMBERS];
  bool good;
} learner;

/* Five updates of parameters of several parts, and the average of the values. */
static void *learn(void *arg) {
  learner *l = arg;
  neap_params *p = NULL, *mean = NULL;
  neap_optim *o = NULL;
  size_t n = NUMBERS;
  int id;
  neap_optim_options c = neap_optim_preset(NEAP_ADAM);
  c.clip_norm = 1;
  l->good = neap_params_new(&p) == NEAP_OK && neap_params_new(&mean) == NEAP_OK &&
            neap_params_add(&id, p, "w", 1, &n) == NEAP_OK &&
            neap_params_add(&id, mean, "w", 1, &n) == NEAP_OK &&
            neap_params_pool(p, l->pool) == NEAP_OK &&
            neap_optim_new(&o, p, NULL, 0, &c) == NEAP_OK;
  for (int step = 0; step < 5 && l->good; step++) {
    neap_params_zero_grad(p);
    float *g = neap_params_grad(p, 0);
    for (int k = 0; k < NUMBERS; k++) g[k] += (float)((k * 31 + step * 17) % 101 - 50);
    l->good = neap_optim_step(o) == NEAP_OK && neap_params_mix(mean, p, 0.5) == NEAP_OK;
  }
  if (l->good) memcpy(l->w, neap_params_data(mean, 0), sizeof l->w);
  neap_optim_release(o);
  neap_params_release(mean);
  neap_params_release(p);
  return NULL;
}

static void test_learning(void) {
  static learner alone, l[3];
  pthread_t thread[3];
  learn(&alone);
  CHECK(alone.good);
  for (int shared = 0; shared < 2; shared++) {
    neap_pool *pool = NULL;
    if (shared) CHECK(neap_pool_new(&pool, 2) == NEAP_OK);
    for (int i = 0; i < 3; i++) {
      if (!shared) CHECK(neap_pool_new(&l[i].pool, 3) == NEAP_OK);
      if (shared) l[i].pool = pool;
      CHECK(pthread_create(&thread[i], NULL, learn, &l[i]) == 0);
    }
    for (int i = 0; i < 3; i++) {
      pthread_join(thread[i], NULL);
      CHECK(l[i].good && memcmp(l[i].w, alone.w, sizeof alone.w) == 0);
      if (!shared) neap_pool_release(l[i].pool);
    }
    neap_pool_release(pool);
  }
}

int main(void) {
  test_learning();
  for (int pools = 0; pools < 2; pools++) {
    neap_model *m = loaded();
    test_threads(m, pools, true); /* the first time: kernels are not chosen yet */
    test_threads(m, pools, false);
    neap_model_release(m);
  }
  CHECK(neap_memory_live() == 0);
  return report();
}
