/*
** What the machine can do at most: floating-point operations and bytes read from each level of the
** cache, by one thread and by several.
**   limits [THREADS [SECONDS]]
** Prints lines of name, threads, value, unit, with tabs between: fma (GFLOP/s), L1, L2, L3, memory
** (GB/s). The best of some turns, all threads together: what others take meanwhile is no limit.
*/
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Twelve chains of multiply-adds, or eight of sums over memory, of vectors of N floats. Returns
** operations or bytes. */
#define KEEP(x) __asm__ volatile("" : "+v"(x))
#define LEVEL(name, N, features)                                                              \
  typedef float name##_vec __attribute__((vector_size(4 * (N))));                             \
  features static double name##_fma(long n) {                                                 \
    name##_vec s[12], x = (name##_vec){0} + 0.999f, y = (name##_vec){0} + 0.001f;             \
    _Pragma("GCC unroll 12") for (int k = 0; k < 12; k++) s[k] = y;                           \
    for (long i = 0; i < n; i++)                                                              \
      _Pragma("GCC unroll 12") for (int k = 0; k < 12; k++) {                                 \
        s[k] = s[k] * x + y;                                                                  \
        KEEP(s[k]);                                                                           \
      }                                                                                       \
    return (double)n * 12 * 2 * (N);                                                          \
  }                                                                                           \
  features static double name##_read(const char *p, size_t bytes, long n) {                   \
    name##_vec s[8];                                                                          \
    _Pragma("GCC unroll 8") for (int k = 0; k < 8; k++) s[k] = (name##_vec){0};               \
    for (long i = 0; i < n; i++)                                                              \
      for (size_t at = 0; at < bytes; at += 8 * sizeof s[0])                                  \
        _Pragma("GCC unroll 8") for (size_t k = 0; k < 8; k++) {                              \
          s[k] += *(const name##_vec *)(const void *)(p + at + k * sizeof s[0]);              \
          KEEP(s[k]);                                                                         \
        }                                                                                     \
    return (double)n * (double)bytes;                                                         \
  }

#ifdef __x86_64__
LEVEL(wide, 16, __attribute__((target("avx512f,fma"))))
LEVEL(half, 8, __attribute__((target("avx2,fma"))))
#else
#undef KEEP
#define KEEP(x) __asm__ volatile("" : "+w"(x))
LEVEL(half, 4, )
#endif

enum { TURNS = 9 };
typedef struct job {
  size_t bytes; /* 0: multiply-adds */
  double seconds, done[TURNS], took[TURNS];
  pthread_barrier_t *start;
} job;

static double once(const job *j, const char *p, long n) {
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx512f")) return j->bytes ? wide_read(p, j->bytes, n) : wide_fma(n);
#endif
  return j->bytes ? half_read(p, j->bytes, n) : half_fma(n);
}

static void *work(void *arg) {
  job *j = arg;
  char *p = NULL;
  if (j->bytes) {
    p = aligned_alloc(4096, j->bytes);
    if (!p) exit(1);
    memset(p, 0, j->bytes);
  }
  long n = 1;
  double t;
  for (;; n *= 2) {
    t = now();
    once(j, p, n);
    if ((t = now() - t) > 0.02) break;
  }
  n = (long)((double)n * j->seconds / t) + 1;
  for (int r = 0; r < TURNS; r++) {
    pthread_barrier_wait(j->start);
    t = now();
    j->done[r] = once(j, p, n);
    j->took[r] = now() - t;
  }
  free(p);
  return NULL;
}

int main(int argc, char **argv) {
  enum { MOST = 64 };
  int most = argc > 1 ? atoi(argv[1]) : 1;
  double seconds = argc > 2 ? atof(argv[2]) : 0.1;
  if (most < 1 || most > MOST || !(seconds > 0)) {
    fprintf(stderr, "limits: expected [THREADS 1..%d [SECONDS]]\n", MOST);
    return 2;
  }
  static const struct {
    const char *name;
    size_t bytes;
  } what[] = {{"fma", 0}, {"L1", 32 << 10}, {"L2", 512 << 10}, {"L3", 8 << 20}, {"memory", 256 << 20}};
  for (int threads = 1; threads <= most; threads++)
    for (size_t w = 0; w < sizeof what / sizeof what[0]; w++) {
      job jobs[MOST];
      pthread_t thread[MOST];
      pthread_barrier_t start;
      double best = 0;
      pthread_barrier_init(&start, NULL, (unsigned)threads);
      for (int i = 0; i < threads; i++) {
        jobs[i] = (job){what[w].bytes, seconds, {0}, {0}, &start};
        if (pthread_create(&thread[i], NULL, work, &jobs[i])) return 1;
      }
      for (int i = 0; i < threads; i++) pthread_join(thread[i], NULL);
      for (int r = 0; r < TURNS; r++) {
        double done = 0, took = 0; /* of the slowest: one that is done early leaves the others more */
        for (int i = 0; i < threads; i++) {
          done += jobs[i].done[r];
          if (jobs[i].took[r] > took) took = jobs[i].took[r];
        }
        if (done / took > best) best = done / took;
      }
      pthread_barrier_destroy(&start);
      printf("%s\t%d\t%.1f\t%s\n", what[w].name, threads, best / 1e9, w ? "GB/s" : "GFLOP/s");
      fflush(stdout);
    }
  return 0;
}
