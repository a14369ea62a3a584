/*
** A pool of threads. A job is a counter from which tasks are drawn; workers go in and out of it
** freely, and the caller draws too, so that no job waits for a worker to wake.
**
** One word says all about the present job: bits 32 and up its number, then how many workers are
** inside, then three flags. A worker enters by raising the count with a compare-and-swap, which
** fails once the job is closed or is another one. The caller rewrites the job's fields only when
** it is closed and nobody is inside.
*/
#include "base.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#if defined(__SSE__)
#include <immintrin.h>
#endif

#define OPEN 1u    /* tasks may be drawn */
#define WAITING 2u /* the caller sleeps until nobody is inside */
#define STOP 4u    /* the pool ends */
#define INSIDE 8u  /* one worker */
#define COUNT UINT64_C(0xfffffff8)
#define JOB (UINT64_C(1) << 32)

#define MOST_THREADS 1024
#define SPIN_NS 30000

typedef struct crew {
  _Alignas(64) _Atomic uint64_t state;
  _Alignas(64) atomic_size_t next; /* the task to be drawn */
  _Alignas(64) ni_task fn;
  void *arg;
  size_t tasks;
  const _Atomic int *stop;
  atomic_flag busy; /* a job runs */
  atomic_int refs;        /* pools that have it */
  int threads;            /* with the caller */
  atomic_size_t sleepers; /* written under lock */
  pthread_mutex_t lock;
  pthread_cond_t wake; /* workers: there is a job */
  pthread_cond_t idle; /* the caller: nobody is inside */
  pthread_t workers[];
} crew;

/* What is handed out: the threads, and what ends their work. */
struct neap_pool {
  crew *crew;              /* NULL: the caller alone */
  const _Atomic int *stop; /* NULL: nothing does */
};

/* ---- denormal numbers ---- */

unsigned ni_denormals_flush(void) {
#if defined(__SSE__)
  unsigned mode = _mm_getcsr();
  _mm_setcsr(mode | 0x8040); /* FTZ and DAZ */
  return mode;
#elif defined(__aarch64__)
  uint64_t mode;
  __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
  __asm__ volatile("msr fpcr, %0" : : "r"(mode | UINT64_C(1) << 24)); /* FZ */
  return (unsigned)mode;
#else
  return 0;
#endif
}

void ni_denormals_restore(unsigned mode) {
#if defined(__SSE__)
  _mm_setcsr(mode);
#elif defined(__aarch64__)
  __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)mode));
#else
  (void)mode;
#endif
}

/* ---- waiting ---- */

static void relax(void) {
#if defined(__SSE__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Is there a job that is not the last one this worker was in, or the end? */
static bool wanted(uint64_t state, uint64_t last) {
  return state & STOP || (state & OPEN && state / JOB != last);
}

static bool left(uint64_t state) { return (state & COUNT) == 0; }

/* Spins a short while until the state is wanted (caller false) or all have left (caller true). */
static bool spin(crew *c, bool caller, uint64_t last) {
  int64_t end = now_ns() + SPIN_NS;
  do {
    for (int i = 0; i < 32; i++) {
      uint64_t state = atomic_load(&c->state);
      if (caller ? left(state) : wanted(state, last))
        return true;
      relax();
    }
  } while (now_ns() < end);
  return false;
}

/* ---- workers ---- */

static bool stopped(const _Atomic int *stop) {
  return stop && atomic_load_explicit(stop, memory_order_relaxed);
}

static void draw(crew *c) {
  size_t task;
  while (!stopped(c->stop) &&
         (task = atomic_fetch_add_explicit(&c->next, 1, memory_order_relaxed)) < c->tasks)
    c->fn(c->arg, task);
}

/* sleepers is raised before state is read, and the caller does the reverse: one sees the other. */
static void sleep_until_wanted(crew *c, uint64_t last) {
  pthread_mutex_lock(&c->lock);
  atomic_fetch_add(&c->sleepers, 1);
  while (!wanted(atomic_load(&c->state), last))
    pthread_cond_wait(&c->wake, &c->lock);
  atomic_fetch_sub(&c->sleepers, 1);
  pthread_mutex_unlock(&c->lock);
}

static void *work(void *arg) {
  crew *c = arg;
  uint64_t last = 0;
  ni_denormals_flush();
  for (;;) {
    if (!spin(c, false, last))
      sleep_until_wanted(c, last);
    uint64_t state = atomic_load(&c->state);
    if (state & STOP)
      return NULL;
    if (!wanted(state, last) ||
        !atomic_compare_exchange_strong(&c->state, &state, state + INSIDE))
      continue;
    last = state / JOB;
    draw(c);
    state = atomic_fetch_sub(&c->state, INSIDE) - INSIDE;
    if (state & WAITING && left(state)) {
      pthread_mutex_lock(&c->lock);
      pthread_cond_signal(&c->idle);
      pthread_mutex_unlock(&c->lock);
    }
  }
}

bool ni_pool_stopped(const neap_pool *pool) { return pool && stopped(pool->stop); }

void ni_pool_run(neap_pool *pool, size_t tasks, ni_task fn, void *arg) {
  unsigned mode = ni_denormals_flush();
  crew *c = pool ? pool->crew : NULL;
  /* A crew that is busy with another run is not waited for. */
  if (tasks < 2 || !c || c->threads < 2 || atomic_flag_test_and_set(&c->busy)) {
    for (size_t i = 0; i < tasks && !ni_pool_stopped(pool); i++)
      fn(arg, i);
    ni_denormals_restore(mode);
    return;
  }
  c->fn = fn;
  c->arg = arg;
  c->tasks = tasks;
  c->stop = pool->stop;
  atomic_store_explicit(&c->next, 0, memory_order_relaxed);
  atomic_store(&c->state, (atomic_load(&c->state) / JOB + 1) * JOB | OPEN);
  size_t sleepers = atomic_load(&c->sleepers);
  if (sleepers > 0) {
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < sleepers && i + 1 < tasks; i++)
      pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
  }
  draw(c);
  atomic_fetch_and(&c->state, ~(uint64_t)OPEN);
  if (!spin(c, true, 0)) {
    pthread_mutex_lock(&c->lock);
    atomic_fetch_or(&c->state, WAITING);
    while (!left(atomic_load(&c->state)))
      pthread_cond_wait(&c->idle, &c->lock);
    pthread_mutex_unlock(&c->lock);
  }
  atomic_flag_clear(&c->busy);
  ni_denormals_restore(mode);
}

/* ---- steps ---- */

/* Pauses before a share that its thread has not begun is taken over, or the processor yielded. */
enum { PATIENCE = 32, LONG = 4096 };

typedef struct march {
  size_t shares, steps;
  ni_step_task fn;
  void *arg;
  const _Atomic int *stop;
  _Alignas(64) atomic_size_t done; /* shares of all steps that have returned */
  struct {
    _Alignas(64) atomic_size_t next; /* the step that is not begun */
  } share[NI_MOST_SHARES];
} march;

static bool take(march *m, size_t share, size_t step) {
  size_t next = step;
  if (atomic_load_explicit(&m->share[share].next, memory_order_relaxed) != step ||
      !atomic_compare_exchange_strong(&m->share[share].next, &next, step + 1))
    return false;
  m->fn(m->arg, share, step);
  atomic_fetch_add_explicit(&m->done, 1, memory_order_release);
  return true;
}

static void keep_step(void *arg, size_t own) {
  march *m = arg;
  size_t step = 0, pauses = 0;
  while (!stopped(m->stop)) {
    size_t done = atomic_load_explicit(&m->done, memory_order_acquire);
    for (; done >= (step + 1) * m->shares; pauses = 0)
      if (++step == m->steps) return;
    if (take(m, own, step)) continue;
    relax();
    if (++pauses % LONG == 0) sched_yield();
    for (size_t s = 0; s < m->shares && pauses >= PATIENCE; s++)
      if (take(m, s, step)) pauses = 0;
  }
}

void ni_pool_steps(neap_pool *pool, size_t shares, size_t steps, ni_step_task fn, void *arg) {
  if (steps == 0 || shares == 0) return;
  march m = {.shares = shares < NI_MOST_SHARES ? shares : NI_MOST_SHARES, .steps = steps, .fn = fn,
             .arg = arg, .stop = pool ? pool->stop : NULL};
  ni_pool_run(pool, m.shares, keep_step, &m);
}

/* ---- life ---- */

/* Ends the first n workers and the crew. */
static void end(crew *c, int n) {
  pthread_mutex_lock(&c->lock);
  atomic_fetch_or(&c->state, STOP);
  pthread_cond_broadcast(&c->wake);
  pthread_mutex_unlock(&c->lock);
  for (int i = 0; i < n; i++)
    pthread_join(c->workers[i], NULL);
  pthread_cond_destroy(&c->idle);
  pthread_cond_destroy(&c->wake);
  pthread_mutex_destroy(&c->lock);
  ni_free(c);
}

static neap_status hire(crew **result, int threads) {
  crew *c = ni_calloc(1, sizeof *c + (size_t)(threads - 1) * sizeof(pthread_t));
  if (!c)
    return NEAP_EMEM;
  int error = pthread_mutex_init(&c->lock, NULL);
  if (error) {
    ni_free(c);
    return ni_fail(NEAP_EMEM, "pool: expected a lock: %s", strerror(error));
  }
  /* A condition variable without attributes needs nothing that could be short. */
  pthread_cond_init(&c->wake, NULL);
  pthread_cond_init(&c->idle, NULL);
  atomic_flag_clear(&c->busy);
  atomic_init(&c->refs, 1);
  c->threads = threads;
  /* Signals are for the host's own threads. */
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  int made = 0;
  while (!error && made < threads - 1) {
    error = pthread_create(&c->workers[made], NULL, work, c);
    made += !error;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (error) {
    end(c, made);
    return ni_fail(NEAP_EMEM, "pool: expected %d threads, came %d: %s", threads, made + 1,
                   strerror(error));
  }
  *result = c;
  return NEAP_OK;
}

static void leave(crew *c) {
  if (c && atomic_fetch_sub(&c->refs, 1) == 1)
    end(c, c->threads - 1);
}

/* Takes the crew over, also when it fails. */
static neap_status make(neap_pool **result, crew *c, const _Atomic int *stop) {
  neap_pool *pool = *result = ni_calloc(1, sizeof *pool);
  if (pool) {
    *pool = (neap_pool){c, stop};
    return NEAP_OK;
  }
  leave(c);
  return NEAP_EMEM;
}

neap_status ni_pool_new(neap_pool **result, int threads) {
  crew *c;
  *result = NULL;
  if (threads < 1 || threads > MOST_THREADS)
    return ni_fail(NEAP_EARG, "pool: expected 1 to %d threads, came %d", MOST_THREADS, threads);
  neap_status rc = hire(&c, threads);
  return rc ? rc : make(result, c, NULL);
}

neap_status ni_pool_view(neap_pool **result, const neap_pool *pool, const _Atomic int *stop) {
  crew *c = pool ? pool->crew : NULL;
  if (c)
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
  return make(result, c, stop);
}

void ni_pool_release(neap_pool *pool) {
  if (!pool)
    return;
  leave(pool->crew);
  ni_free(pool);
}

int ni_pool_threads(const neap_pool *pool) { return pool && pool->crew ? pool->crew->threads : 1; }
