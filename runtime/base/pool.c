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

struct neap_pool {
  _Alignas(64) _Atomic uint64_t state;
  _Alignas(64) atomic_size_t next; /* the task to be drawn */
  _Alignas(64) ni_task fn;
  void *arg;
  size_t tasks;
  atomic_flag busy; /* a job runs */
  atomic_int refs;
  int threads;            /* with the caller */
  atomic_size_t sleepers; /* written under lock */
  pthread_mutex_t lock;
  pthread_cond_t wake; /* workers: there is a job */
  pthread_cond_t idle; /* the caller: nobody is inside */
  pthread_t workers[];
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
static bool spin(neap_pool *pool, bool caller, uint64_t last) {
  int64_t end = now_ns() + SPIN_NS;
  do {
    for (int i = 0; i < 32; i++) {
      uint64_t state = atomic_load(&pool->state);
      if (caller ? left(state) : wanted(state, last))
        return true;
      relax();
    }
  } while (now_ns() < end);
  return false;
}

/* ---- workers ---- */

static void draw(neap_pool *pool) {
  size_t task;
  while ((task = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed)) < pool->tasks)
    pool->fn(pool->arg, task);
}

/* sleepers is raised before state is read, and the caller does the reverse: one sees the other. */
static void sleep_until_wanted(neap_pool *pool, uint64_t last) {
  pthread_mutex_lock(&pool->lock);
  atomic_fetch_add(&pool->sleepers, 1);
  while (!wanted(atomic_load(&pool->state), last))
    pthread_cond_wait(&pool->wake, &pool->lock);
  atomic_fetch_sub(&pool->sleepers, 1);
  pthread_mutex_unlock(&pool->lock);
}

static void *work(void *arg) {
  neap_pool *pool = arg;
  uint64_t last = 0;
  ni_denormals_flush();
  for (;;) {
    if (!spin(pool, false, last))
      sleep_until_wanted(pool, last);
    uint64_t state = atomic_load(&pool->state);
    if (state & STOP)
      return NULL;
    if (!wanted(state, last) ||
        !atomic_compare_exchange_strong(&pool->state, &state, state + INSIDE))
      continue;
    last = state / JOB;
    draw(pool);
    state = atomic_fetch_sub(&pool->state, INSIDE) - INSIDE;
    if (state & WAITING && left(state)) {
      pthread_mutex_lock(&pool->lock);
      pthread_cond_signal(&pool->idle);
      pthread_mutex_unlock(&pool->lock);
    }
  }
}

void ni_pool_run(neap_pool *pool, size_t tasks, ni_task fn, void *arg) {
  unsigned mode = ni_denormals_flush();
  /* A pool that is busy with another run is not waited for. */
  if (tasks < 2 || !pool || pool->threads < 2 || atomic_flag_test_and_set(&pool->busy)) {
    for (size_t i = 0; i < tasks; i++)
      fn(arg, i);
    ni_denormals_restore(mode);
    return;
  }
  pool->fn = fn;
  pool->arg = arg;
  pool->tasks = tasks;
  atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
  atomic_store(&pool->state, (atomic_load(&pool->state) / JOB + 1) * JOB | OPEN);
  size_t sleepers = atomic_load(&pool->sleepers);
  if (sleepers > 0) {
    pthread_mutex_lock(&pool->lock);
    for (size_t i = 0; i < sleepers && i + 1 < tasks; i++)
      pthread_cond_signal(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
  }
  draw(pool);
  atomic_fetch_and(&pool->state, ~(uint64_t)OPEN);
  if (!spin(pool, true, 0)) {
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_or(&pool->state, WAITING);
    while (!left(atomic_load(&pool->state)))
      pthread_cond_wait(&pool->idle, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
  }
  atomic_flag_clear(&pool->busy);
  ni_denormals_restore(mode);
}

/* ---- life ---- */

/* Ends the first n workers and the pool. */
static void end(neap_pool *pool, int n) {
  pthread_mutex_lock(&pool->lock);
  atomic_fetch_or(&pool->state, STOP);
  pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->lock);
  for (int i = 0; i < n; i++)
    pthread_join(pool->workers[i], NULL);
  pthread_cond_destroy(&pool->idle);
  pthread_cond_destroy(&pool->wake);
  pthread_mutex_destroy(&pool->lock);
  ni_free(pool);
}

neap_status ni_pool_new(neap_pool **result, int threads) {
  *result = NULL;
  if (threads < 1 || threads > MOST_THREADS)
    return ni_fail(NEAP_EARG, "pool: expected 1 to %d threads, came %d", MOST_THREADS, threads);
  neap_pool *pool = ni_calloc(1, sizeof *pool + (size_t)(threads - 1) * sizeof(pthread_t));
  if (!pool)
    return NEAP_EMEM;
  int error = pthread_mutex_init(&pool->lock, NULL);
  if (error) {
    ni_free(pool);
    return ni_fail(NEAP_EMEM, "pool: expected a lock: %s", strerror(error));
  }
  /* A condition variable without attributes needs nothing that could be short. */
  pthread_cond_init(&pool->wake, NULL);
  pthread_cond_init(&pool->idle, NULL);
  atomic_flag_clear(&pool->busy);
  atomic_init(&pool->refs, 1);
  pool->threads = threads;
  /* Signals are for the host's own threads. */
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  int made = 0;
  while (!error && made < threads - 1) {
    error = pthread_create(&pool->workers[made], NULL, work, pool);
    made += !error;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (error) {
    end(pool, made);
    return ni_fail(NEAP_EMEM, "pool: expected %d threads, came %d: %s", threads, made + 1,
                   strerror(error));
  }
  *result = pool;
  return NEAP_OK;
}

void ni_pool_retain(neap_pool *pool) {
  if (pool)
    atomic_fetch_add_explicit(&pool->refs, 1, memory_order_relaxed);
}

void ni_pool_release(neap_pool *pool) {
  if (pool && atomic_fetch_sub(&pool->refs, 1) == 1)
    end(pool, pool->threads - 1);
}

int ni_pool_threads(const neap_pool *pool) { return pool ? pool->threads : 1; }
