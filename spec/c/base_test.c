/*
** Floors 0 and 2: messages, memory, chance, threads, JSON, tensors, parameters.
*/
#include "check.h"

#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../runtime/base/json.h"
#include "../../runtime/tensor/params.h"
#include "../../runtime/tensor/tensor.h"

/* ---- messages and names ---- */

static void test_status(void) {
  CHECK(strcmp(ni_message(), "") == 0);
  CHECK(ni_fail(NEAP_ESHAPE, "op: expected %d, came %s", 3, "four") == NEAP_ESHAPE);
  CHECK(strcmp(ni_message(), "op: expected 3, came four") == 0);
  CHECK(ni_fail(NEAP_EARG, "[%s]", ni_message()) == NEAP_EARG);
  CHECK(strcmp(ni_message(), "[op: expected 3, came four]") == 0);
  CHECK(ni_fail_before(NEAP_EFORMAT, "file %s", "a.b") == NEAP_EFORMAT);
  CHECK(strcmp(ni_message(), "file a.b: [op: expected 3, came four]") == 0);
  char *lengthy = malloc(5000);
  memset(lengthy, 'x', 4999);
  lengthy[4999] = '\0';
  ni_fail(NEAP_EARG, "%s", lengthy);
  CHECK(strlen(ni_message()) == 1023);
  ni_fail_before(NEAP_EARG, "abc");
  CHECK(strlen(ni_message()) == 1023 && strncmp(ni_message(), "abc: xxx", 8) == 0);

  const char *const names[] = {"size", "rate", "input", "output", "b"};
  CHECK(strcmp(ni_nearest("szie", names, 5), "size") == 0);
  CHECK(strcmp(ni_nearest("ouput", names, 5), "output") == 0);
  CHECK(strcmp(ni_nearest("rates", names, 5), "rate") == 0);
  CHECK(ni_nearest("c", names, 5) == NULL);
  CHECK(ni_nearest("", names, 5) == NULL);
  CHECK(ni_nearest("momentum", names, 5) == NULL);
  CHECK(ni_nearest(lengthy, names, 5) == NULL);
  const char *const one[] = {lengthy};
  CHECK(ni_nearest("x", one, 1) == NULL);
  free(lengthy);
}

static void test_names(void) {
  static const struct {
    const char *s;
    size_t n, good;
  } texts[] = {
      {"", 0, 0},
      {"abc", 3, 3},
      {"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", 9, 9},
      {"\xEF\xBF\xBF\xF4\x8F\xBF\xBF\xED\x9F\xBF\xEE\x80\x80", 13, 13},
      {"a\x80", 2, 1},        /* a tail without a lead */
      {"\xC0\xAF", 2, 0},     /* overlong */
      {"\xE0\x9F\xBF", 3, 0}, /* overlong */
      {"\xF0\x8F\xBF\xBF", 4, 0},
      {"\xED\xA0\x80", 3, 0},     /* a surrogate */
      {"\xF4\x90\x80\x80", 4, 0}, /* past U+10FFFF */
      {"\xF5\x80\x80\x80", 4, 0},
      {"ab\xE2\x82", 4, 2}, /* cut */
      {"\xE2\x82"
       "a",
       3, 0},
  };
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    CHECK(ni_utf8(texts[i].s, texts[i].n) == texts[i].good);
  CHECK(ni_name_check("t", "encoder.weight_ih_l0", 255) == NEAP_OK);
  CHECK(ni_name_check("t", "caf\xC3\xA9", 5) == NEAP_OK);
  CHECK_FAILS(NEAP_EARG, "1 to 4 bytes", ni_name_check("t", "caf\xC3\xA9", 4));
  CHECK_FAILS(NEAP_EARG, "1 to 4 bytes", ni_name_check("t", "", 4));
  CHECK_FAILS(NEAP_EARG, "UTF-8, came a bad byte 0xff at byte 2", ni_name_check("t", "ab\xFF", 9));
  CHECK_FAILS(NEAP_EARG, "0x0a at byte 1", ni_name_check("t", "a\nb", 9));
  CHECK_FAILS(NEAP_EARG, "0x7f", ni_name_check("t", "\x7F", 9));
  CHECK_FAILS(NEAP_EARG, "control", ni_name_check("t", "a\xC2\x85", 9));
  CHECK(ni_name_check("t", "a\xC2\xA0", 9) == NEAP_OK);
}

/* ---- memory ---- */

static neap_status use_memory(void *arg) {
  (void)arg;
  neap_status status = NEAP_EMEM;
  ni_text t = {0};
  int *array = NULL;
  size_t cap = 0;
  char *s = ni_strdup("abc"), *p = ni_calloc(3, 5);
  ni_text_add(&t, "%s", "some text that grows");
  for (int i = 0; i < 20; i++)
    ni_text_add(&t, " %d", i);
  bool grown = s && p;
  for (size_t i = 0; grown && i < 100; i++)
    if ((grown = ni_grow((void **)&array, &cap, i, sizeof *array)))
      array[i] = (int)i;
  if (grown && !t.failed) {
    char *q = ni_realloc(s, 100);
    if (q) {
      s = q;
      CHECK(strcmp(s, "abc") == 0 && array[99] == 99);
      CHECK(strcmp(t.s + t.n - 6, " 18 19") == 0);
      status = NEAP_OK;
    }
  }
  ni_text_free(&t);
  ni_free(array);
  ni_free(s);
  ni_free(p);
  return status;
}

static void test_memory(void) {
  size_t before = ni_memory_live();
  void *blocks[40];
  for (size_t i = 0; i < 40; i++) {
    blocks[i] = ni_alloc(i * i);
    CHECK(blocks[i] && (uintptr_t)blocks[i] % 64 == 0);
    memset(blocks[i], 0xAA, i * i);
  }
  CHECK(ni_memory_live() >= before + 20540); /* the sum of squares below 40 */
  char *zeros = ni_calloc(39, 39);
  for (size_t i = 0; i < 39 * 39; i++)
    if (zeros[i])
      CHECK(!"calloc clears");
  zeros[38] = 'x';
  zeros = ni_realloc(zeros, 100000);
  CHECK((uintptr_t)zeros % 64 == 0 && zeros[38] == 'x' && zeros[1520] == 0);
  zeros = ni_realloc(zeros, 40);
  CHECK(zeros[38] == 'x');
  CHECK(ni_alloc(SIZE_MAX) == NULL && strstr(ni_message(), "memory"));
  CHECK(ni_alloc((size_t)PTRDIFF_MAX) == NULL);
  CHECK(ni_realloc(zeros, SIZE_MAX - 10) == NULL && zeros[38] == 'x');
  CHECK(ni_calloc(SIZE_MAX / 2, 3) == NULL && strstr(ni_message(), "3 bytes"));
  CHECK(ni_strndup("", SIZE_MAX) == NULL);
  char *part = ni_strndup("abcdef", 3);
  CHECK(strcmp(part, "abc") == 0);
  ni_free(part);
  ni_free(zeros);
  for (size_t i = 0; i < 40; i++)
    ni_free(blocks[i]);
  ni_free(NULL);
  CHECK(ni_memory_live() == before);
  check_each_failure("memory", use_memory, NULL);
}

static int compare_ints(const void *arg, size_t a, size_t b) {
  const int *x = arg;
  return x[a] < x[b] ? -1 : x[a] > x[b];
}

static void test_sort(void) {
  for (size_t n = 0; n < 70; n++) {
    int values[70] = {0};
    size_t index[70], seen = 0;
    for (size_t i = 0; i < n; i++) {
      values[i] = (int)(20 * (double)ni_uniform(1, n, i));
      index[i] = i;
    }
    ni_sort(index, n, compare_ints, values);
    bool rising = true;
    for (size_t i = 0; i < n; i++) {
      seen += index[i] + 1;
      rising = rising && (i == 0 || values[index[i - 1]] <= values[index[i]]);
    }
    CHECK(rising && seen == n * (n + 1) / 2);
  }
}

static void test_text(void) {
  ni_text t = {0};
  ni_text_json(&t, "a\"b\\c\n\t\x01\x7F \xC3\xA9/");
  CHECK(strcmp(t.s, "\"a\\\"b\\\\c\\n\\u0009\\u0001\x7F \xC3\xA9/\"") == 0);
  ni_text_free(&t);
  ni_text_json(&t, "");
  ni_text_json(&t, "x\xFFy\xC3\xA9\xE2\x82");
  CHECK(strcmp(t.s, "\"\"\"x\\ufffdy\xC3\xA9\\ufffd\\ufffd\"") == 0);
  ni_text_free(&t);
  CHECK(t.s == NULL && t.n == 0);
  static const struct {
    double x;
    const char *s;
  } numbers[] = {{0, "0"},
                 {-1.5, "-1.5"},
                 {0.1, "0.1"},
                 {1e300, "1e+300"},
                 {1.0 / 3, "0.3333333333333333"},
                 {5e-324, "4.94065645841247e-324"},
                 {16777217, "16777217"}};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    ni_text_number(&t, numbers[i].x);
    CHECK(strcmp(t.s, numbers[i].s) == 0);
    ni_text_free(&t);
  }
  atomic_store(&allowed, 0);
  ni_text_add(&t, "x");
  atomic_store(&allowed, -1);
  ni_text_add(&t, "y");
  CHECK(t.failed && t.n == 0);
  ni_text_free(&t);
}

/* ---- chance ---- */

static void test_rng(void) {
  /* The known answers of Random123's kat_vectors, philox4x32, 10 rounds. */
  static const uint32_t known[3][10] = {
      {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
      {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
      {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
       0x94fdcceb, 0x5001e420, 0x24126ea1}};
  for (int i = 0; i < 3; i++) {
    uint32_t out[4];
    ni_philox(known[i], known[i] + 4, out);
    CHECK(memcmp(out, known[i] + 6, sizeof out) == 0);
  }
  /* Number 0 of stream s comes from counter (0, s): ties the floats to the known answers. */
  CHECK(ni_uniform(0, 0, 0) == (float)(0x6627e8d5 >> 8) * 0x1p-24f);

  float all[300], part[300];
  const uint64_t starts[] = {0, 5, UINT64_C(0x7FFFFFFF0), UINT64_MAX - 400};
  for (size_t s = 0; s < 4; s++) {
    for (size_t i = 0; i < 300; i++)
      all[i] = ni_uniform(17, UINT64_C(0x123456789AB), starts[s] + i);
    bool same = true;
    for (size_t from = 0; from < 70; from += 3)
      for (size_t n = 0; n < 230; n += 7) {
        ni_uniform_fill(17, UINT64_C(0x123456789AB), starts[s] + from, n, part);
        same = same && memcmp(part, all + from, n * sizeof *part) == 0;
      }
    CHECK(same);
  }
  CHECK(ni_uniform(1, 2, 3) != ni_uniform(2, 2, 3) && ni_uniform(1, 2, 3) != ni_uniform(1, 3, 3));

  enum { N = 200000 };
  float *u = malloc(N * sizeof *u);
  ni_uniform_fill(99, 1, 0, N, u);
  double sum = 0, square = 0, lag = 0;
  int bins[16] = {0};
  bool within = true;
  for (int i = 0; i < N; i++) {
    double x = (double)u[i];
    within = within && x >= 0 && x < 1;
    sum += x;
    square += x * x;
    bins[(int)(16 * x)]++;
    lag += i > 0 ? (x - 0.5) * ((double)u[i - 1] - 0.5) : 0;
  }
  /* Five standard errors. */
  CHECK(within && fabs(sum / N - 0.5) < 5 * sqrt(1.0 / 12 / N));
  CHECK(fabs(square / N - 1.0 / 3) < 5 * sqrt(4.0 / 45 / N) && fabs(lag / N) < 5 / 12.0 / sqrt(N));
  double chi = 0;
  for (int i = 0; i < 16; i++)
    chi += pow(bins[i] - N / 16.0, 2) / (N / 16.0);
  CHECK(chi < 44.3); /* 15 degrees of freedom, 1 in 10,000 */
  free(u);
  double moments[5] = {0};
  for (uint64_t i = 0; i < N; i++) {
    double x = ni_normal(5, 6, i);
    for (int k = 1; k <= 4; k++)
      moments[k] += pow(x, k) / N;
  }
  CHECK(fabs(moments[1]) < 5 * sqrt(1.0 / N) && fabs(moments[2] - 1) < 5 * sqrt(2.0 / N));
  CHECK(fabs(moments[3]) < 5 * sqrt(15.0 / N) && fabs(moments[4] - 3) < 5 * sqrt(96.0 / N));
  CHECK(ni_normal(5, 6, 7) == ni_normal(5, 6, 7));
  /* The published FNV-1a answers. */
  CHECK(ni_hash("") == UINT64_C(0xcbf29ce484222325) &&
        ni_hash("a") == UINT64_C(0xaf63dc4c8601ec8c));
  CHECK(ni_hash("foobar") == UINT64_C(0x85944171f73967e8));
}

/* ---- threads ---- */

#if defined(__SSE__) || defined(__aarch64__)
#define FLUSHES 1
#else
#define FLUSHES 0
#endif

static bool flushed(void) {
  volatile float tiny = 1e-40f, one = 1;
  return tiny * one == 0;
}

typedef struct job {
  unsigned char times[1000];
  size_t unflushed[1000];
  neap_pool *pool;
  size_t sum;
} job;

static void mark(void *arg, size_t task) {
  job *j = arg;
  j->times[task]++;
  j->unflushed[task] = !flushed();
}

static bool once_each(job *j, neap_pool *pool, size_t tasks) {
  memset(j, 0, sizeof *j);
  ni_pool_run(pool, tasks, mark, j);
  bool good = true;
  for (size_t i = 0; i < 1000; i++)
    good = good && j->times[i] == (i < tasks) && (!FLUSHES || !j->unflushed[i]);
  return good && !flushed();
}

static void nothing(void *arg, size_t task) { (void)arg, (void)task; }

static void nested(void *arg, size_t task) {
  job *j = arg;
  ni_pool_run(j->pool, 3, nothing, NULL);
  j->times[task]++;
}

static void *other_caller(void *arg) {
  static _Thread_local job own;
  bool good = true;
  for (int i = 0; i < 200; i++)
    good = good && once_each(&own, arg, 20);
  return good ? arg : NULL;
}

static void pause_ms(int ms) {
  struct timespec t = {0, ms * 1000000L};
  nanosleep(&t, NULL);
}

static void slow(void *arg, size_t task) {
  (void)task;
  pause_ms(2);
  atomic_fetch_add((atomic_int *)arg, 1);
}

static neap_status use_pool(void *arg) {
  (void)arg;
  neap_pool *pool;
  neap_status status = ni_pool_new(&pool, 3);
  ni_pool_release(pool);
  return status;
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED
#endif

/* With little address space for stacks, some thread cannot be had. Sanitizers need theirs, and an
** emulator may not hold its program to a limit. */
static void test_too_many_threads(void) {
#ifndef SANITIZED
  pid_t child = fork();
  if (child == 0) {
    struct rlimit limit = {64u << 20, 64u << 20};
    neap_pool *pool = (neap_pool *)&limit;
    struct rlimit held = {0, 0};
    size_t before = ni_memory_live();
    bool good = setrlimit(RLIMIT_AS, &limit) == 0 && getrlimit(RLIMIT_AS, &held) == 0;
    if (good && held.rlim_cur != limit.rlim_cur) {
      printf("no limit of address space is held here\n");
      fflush(stdout);
      _exit(0);
    }
    good = good && ni_pool_new(&pool, 1000) == NEAP_EMEM && !pool &&
           strstr(ni_message(), "expected 1000 threads, came ") && ni_memory_live() == before;
    _exit(!good);
  }
  int status = 1;
  CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
#endif
}

/* Ends the work at its third task; what others have taken up by then is done. */
typedef struct ending {
  atomic_int stop, done, late;
} ending;

static void end_at_third(void *arg, size_t task) {
  ending *e = arg;
  (void)task;
  if (atomic_load(&e->stop)) atomic_fetch_add(&e->late, 1);
  if (atomic_fetch_add(&e->done, 1) == 2) atomic_store(&e->stop, 1);
}

/* A view of a pool works as the pool does until it is stopped; the pool itself goes on. */
static void test_stopped(neap_pool *pool) {
  ending e = {0};
  neap_pool *view;
  CHECK(ni_pool_view(&view, pool, &e.stop) == NEAP_OK);
  CHECK(ni_pool_threads(view) == ni_pool_threads(pool) && !ni_pool_stopped(view));
  static job j;
  CHECK(once_each(&j, view, 40));
  ni_pool_run(view, 1000, end_at_third, &e);
  int done = atomic_load(&e.done);
  CHECK(done >= 3 && atomic_load(&e.late) < ni_pool_threads(pool) && ni_pool_stopped(view));
  ni_pool_run(view, 1, end_at_third, &e);
  CHECK(atomic_load(&e.done) == done && !ni_pool_stopped(pool) && once_each(&j, pool, 40));
  ni_pool_release(view);
}

/* Each share of a step adds up what all shares wrote in the step before. */
enum { SHARES = 5, MARCH = 300 };
typedef struct march {
  uint32_t of[MARCH + 1][SHARES];
  atomic_int times[MARCH][SHARES];
  bool slow; /* share 0 is long now and then, and the others are done before it */
} march;

static void step(void *arg, size_t share, size_t at) {
  march *m = arg;
  uint32_t sum = (uint32_t)share;
  for (int s = 0; s < SHARES; s++) sum = sum * 31 + m->of[at][s];
  if (m->slow && share == 0 && at % 64 == 0) pause_ms(1);
  m->of[at + 1][share] = sum;
  atomic_fetch_add(&m->times[at][share], 1);
}

static void test_steps(neap_pool *pool) {
  static march alone, m;
  memset(&alone, 0, sizeof alone);
  for (size_t at = 0; at < MARCH; at++)
    for (size_t s = 0; s < SHARES; s++) step(&alone, s, at);
  for (int slow = 0; slow < 2; slow++) {
    memset(&m, 0, sizeof m);
    m.slow = slow;
    ni_pool_steps(pool, SHARES, MARCH, step, &m);
    CHECK(memcmp(m.of, alone.of, sizeof m.of) == 0);
    CHECK(memcmp(m.times, alone.times, sizeof m.times) == 0);
  }
  memset(&m, 0, sizeof m);
  ni_pool_steps(pool, SHARES, 0, step, &m);
  ni_pool_steps(pool, 0, MARCH, step, &m);
  CHECK(atomic_load(&m.times[0][0]) == 0);
}

static void end_at_step(void *arg, size_t share, size_t at) {
  (void)share, (void)at;
  end_at_third(arg, 0);
}

/* Stopped on the way, it ends there. */
static void test_steps_stopped(neap_pool *pool) {
  neap_pool *view;
  ending e = {0};
  CHECK(ni_pool_view(&view, pool, &e.stop) == NEAP_OK);
  ni_pool_steps(view, 2, 1000000, end_at_step, &e);
  CHECK(atomic_load(&e.done) >= 3 && atomic_load(&e.done) <= 5);
  ni_pool_release(view);
}

static void test_pool(void) {
  static job j;
  neap_pool *pool = NULL;
  CHECK_FAILS(NEAP_EARG, "came 0", ni_pool_new(&pool, 0));
  CHECK_FAILS(NEAP_EARG, "1 to 1024", ni_pool_new(&pool, 1 << 20));
  CHECK(ni_pool_threads(NULL) == 1 && once_each(&j, NULL, 7));
  test_stopped(NULL);
  test_steps(NULL);
  for (int threads = 1; threads <= 5; threads++) {
    CHECK(ni_pool_new(&pool, threads) == NEAP_OK && ni_pool_threads(pool) == threads);
    bool good = true;
    for (size_t i = 0; i < 600; i++)
      good = good && once_each(&j, pool, i % 40);
    CHECK(good && once_each(&j, pool, 1000));
    for (int i = 0; i < 20; i++) { /* long enough that the workers sleep in between */
      pause_ms(1);
      good = good && once_each(&j, pool, 9);
    }
    atomic_int done = 0;
    ni_pool_run(pool, 12, slow, &done); /* long enough that the caller sleeps too */
    CHECK(good && atomic_load(&done) == 12);
    memset(&j, 0, sizeof j);
    j.pool = pool;
    ni_pool_run(pool, 100, nested, &j);
    CHECK(memchr(j.times, 0, 100) == NULL);
    test_stopped(pool);
    test_steps(pool);
    test_steps_stopped(pool);
    pthread_t others[2];
    for (int i = 0; i < 2; i++)
      CHECK(pthread_create(&others[i], NULL, other_caller, pool) == 0);
    CHECK(other_caller(pool) != NULL);
    for (int i = 0; i < 2; i++) {
      void *result;
      pthread_join(others[i], &result);
      CHECK(result != NULL);
    }
    ni_pool_release(pool);
  }
  ni_pool_release(NULL);
  check_each_failure("pool", use_pool, NULL);
  unsigned mode = ni_denormals_flush();
  CHECK(flushed() == FLUSHES);
  ni_denormals_restore(mode);
  CHECK(!flushed());
}

/* ---- JSON ---- */

static bool parses(const char *s) {
  ni_json doc;
  neap_status status = ni_json_parse(&doc, s, strlen(s), 1000);
  ni_json_free(&doc);
  return status == NEAP_OK;
}

static neap_status use_json(void *arg) {
  ni_json doc;
  const char *s = arg;
  neap_status status = ni_json_parse(&doc, s, strlen(s), 1000);
  ni_json_free(&doc);
  return status;
}

static void test_json(void) {
  const char *good = " {\"a\" : [1, -2.5e3,true,false , null,{}, []],\"b\":\"x\\n\\u00e9"
                     "\\ud83d\\ude00\\\"\\/\",\"\":{\"a\":7,\"c\":[[\"k\",\"l\"],\"m\"]}}\t\r\n ";
  ni_json doc;
  CHECK(ni_json_parse(&doc, good, strlen(good), 1000) == NEAP_OK);
  int a = ni_json_find(&doc, 0, "a"), b = ni_json_find(&doc, 0, "b"), c = ni_json_find(&doc, 0, "");
  CHECK(ni_json_size(&doc, 0) == 3 && ni_json_size(&doc, a) == 7 && ni_json_size(&doc, b) == 0);
  static const ni_json_kind kinds[] = {NI_JSON_NUMBER, NI_JSON_NUMBER, NI_JSON_TRUE, NI_JSON_FALSE,
                                       NI_JSON_NULL,   NI_JSON_OBJECT, NI_JSON_ARRAY};
  int n = 0;
  for (int e = ni_json_first(&doc, a); e >= 0; e = ni_json_next(&doc, e))
    CHECK(n < 7 && ni_json_kind_of(&doc, e) == kinds[n++]);
  CHECK(n == 7);
  CHECK(strcmp(ni_json_string(&doc, b), "x\n\xC3\xA9\xF0\x9F\x98\x80\"/") == 0);
  CHECK(ni_json_byte(&doc, a) == 8 && good[ni_json_byte(&doc, b)] == '"');
  int e = ni_json_first(&doc, ni_json_find(&doc, c, "c"));
  CHECK(strcmp(ni_json_string(&doc, ni_json_next(&doc, e)), "m") == 0);
  CHECK(ni_json_next(&doc, ni_json_next(&doc, e)) == -1 && ni_json_next(&doc, 0) == -1);
  CHECK(strcmp(ni_json_string(&doc, ni_json_next(&doc, e + 1)), "l") == 0);
  CHECK(ni_json_find(&doc, 0, "x") == -1 && ni_json_find(&doc, a, "a") == -1);
  CHECK(ni_json_string(&doc, a) == NULL && ni_json_first(&doc, b) == -1);
  int64_t i;
  double x;
  CHECK(ni_json_integer(&i, &doc, a + 1, 0, 5) == NEAP_OK && i == 1);
  CHECK(ni_json_double(&x, &doc, a + 2) == NEAP_OK && x == -2500);
  CHECK_FAILS(NEAP_EFORMAT, "came -2.5e3", ni_json_integer(&i, &doc, a + 2, INT64_MIN, INT64_MAX));
  CHECK_FAILS(NEAP_EFORMAT, "byte 9: expected an integer from 2 to 5",
              ni_json_integer(&i, &doc, a + 1, 2, 5));
  CHECK_FAILS(NEAP_EFORMAT, "came true", ni_json_double(&x, &doc, a + 3));
  CHECK_FAILS(NEAP_EFORMAT, "came a string", ni_json_integer(&i, &doc, b, 0, 1));
  ni_json_free(&doc);

  static const struct {
    const char *s;
    int64_t x;
    bool good;
  } integers[] = {{"[9223372036854775807]", INT64_MAX, true},
                  {"[-9223372036854775808]", INT64_MIN, true},
                  {"[9223372036854775808]", 0, false},
                  {"[-9223372036854775809]", 0, false},
                  {"[-0]", 0, false},
                  {"[0]", 0, true},
                  {"[1.0]", 0, false},
                  {"[1e2]", 0, false},
                  {"[18446744073709551617]", 0, false},
                  {"[-7]", -7, true}};
  for (size_t k = 0; k < sizeof integers / sizeof *integers; k++) {
    CHECK(ni_json_parse(&doc, integers[k].s, strlen(integers[k].s), 2) == NEAP_OK);
    bool read = ni_json_integer(&i, &doc, 1, INT64_MIN, INT64_MAX) == NEAP_OK;
    CHECK(read == integers[k].good && i == integers[k].x);
    ni_json_free(&doc);
  }
  const char *doubles = "[0.1,1e308,1e309,4.9e-324,123456789.123456789,-0,1E+2]";
  CHECK(ni_json_parse(&doc, doubles, strlen(doubles), 100) == NEAP_OK);
  /* Where a locale with a comma is installed, numbers must not care. */
  bool comma = setlocale(LC_ALL, "de_DE.UTF-8") != NULL;
  CHECK(ni_json_double(&x, &doc, 1) == NEAP_OK && x == 0.1);
  CHECK(ni_json_double(&x, &doc, 2) == NEAP_OK && x == 1e308);
  CHECK_FAILS(NEAP_EFORMAT, "finite number, came 1e309", ni_json_double(&x, &doc, 3));
  CHECK(ni_json_double(&x, &doc, 4) == NEAP_OK && x == 4.9e-324);
  CHECK(ni_json_double(&x, &doc, 5) == NEAP_OK && x == 123456789.123456789);
  CHECK(ni_json_double(&x, &doc, 6) == NEAP_OK && x == 0 && signbit(x));
  CHECK(ni_json_double(&x, &doc, 7) == NEAP_OK && x == 100);
  ni_text t = {0};
  ni_text_number(&t, -0.25);
  CHECK(strcmp(t.s, "-0.25") == 0);
  ni_text_free(&t);
  if (comma)
    CHECK(strcmp(localeconv()->decimal_point, ",") == 0);
  setlocale(LC_ALL, "C");
  ni_json_free(&doc);

  static const char *const bad[] = {"",
                                    " ",
                                    "{",
                                    "}",
                                    "[",
                                    "]",
                                    "[]]",
                                    "{}}",
                                    "{}{}",
                                    "[] x",
                                    "[1 2]",
                                    "[1,]",
                                    "[,1]",
                                    "[1,,2]",
                                    "[}",
                                    "{]",
                                    "{\"a\"}",
                                    "{\"a\":}",
                                    "{\"a\" 1}",
                                    "{\"a\":1,}",
                                    "{,\"a\":1}",
                                    "{\"a\":1 \"b\":2}",
                                    "{\"a\":1:2}",
                                    "{\"a\":\"b\":\"c\"}",
                                    "{a:1}",
                                    "{1:2}",
                                    "{[]:1}",
                                    "{\"a\":1,\"a\":2}",
                                    "{\"a\":1,\"\\u0061\":2}",
                                    "[{\"k\":1,\"l\":2,\"k\":3}]",
                                    "[01]",
                                    "[-]",
                                    "[1.]",
                                    "[.5]",
                                    "[1e]",
                                    "[1e+]",
                                    "[+1]",
                                    "[0x10]",
                                    "[nul]",
                                    "[nulll]",
                                    "[True]",
                                    "[NaN]",
                                    "[Infinity]",
                                    "[-Infinity]",
                                    "[tru]",
                                    "[1a]",
                                    "[--1]",
                                    "[\"a\nb\"]",
                                    "[\"\t\"]",
                                    "[\"\\x\"]",
                                    "[\"\\u12\"]",
                                    "[\"\\u12g4\"]",
                                    "[\"\\u0000\"]",
                                    "[\"\\ud800\"]",
                                    "[\"\\udc00\"]",
                                    "[\"\\ud800\\u0041\"]",
                                    "[\"\\ud800x\"]",
                                    "[\"a]",
                                    "[\"a\\\"]",
                                    "[\"\xFF\"]",
                                    "[\"\xED\xA0\x80\"]",
                                    "\xEF\xBB\xBF[]",
                                    "['a']",
                                    "[1]//",
                                    "/**/[1]",
                                    "[:1]",
                                    "[1:2]",
                                    "{:\"a\"}",
                                    "[\"a\":1]",
                                    "{\"a\":1}:}",
                                    "[\"a\"\"b\"]",
                                    "[[1]2]",
                                    "[1[2]]",
                                    "[{}\"a\"]",
                                    "{\"a\":{}\"b\":1}",
                                    "[1,2",
                                    "{\"a\":[1}",
                                    "[truefalse]",
                                    "\f[]"};
  for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
    check(!parses(bad[k]), __FILE__, __LINE__, bad[k]);
    CHECK(strncmp(ni_message(), "json: byte ", 11) == 0);
  }
  CHECK(parses("[0,-1,1.5,2E-3,\"\\u0001\\ud7ff\\ue000\"]") &&
        parses("{\"a\":{\"a\":1},\"b\":{\"a\":1}}"));
  CHECK_FAILS(NEAP_EFORMAT, "byte 5: expected ',' or ']', came '2'",
              ni_json_parse(&doc, "[1,2 2]", 7, 9) ? NEAP_EFORMAT : NEAP_OK);
  CHECK(ni_json_parse(&doc, "[1]\0[2]", 7, 100) == NEAP_EFORMAT);
  CHECK(ni_json_parse(&doc, "[1,2,3]", 7, 4) == NEAP_OK);
  ni_json_free(&doc);
  CHECK_FAILS(NEAP_EFORMAT, "at most 3 values", ni_json_parse(&doc, "[1,2,3]", 7, 3));

  char deep[2 * NI_JSON_DEPTH + 3];
  for (int depth = NI_JSON_DEPTH; depth <= NI_JSON_DEPTH + 1; depth++) {
    memset(deep, '[', (size_t)depth);
    memset(deep + depth, ']', (size_t)depth);
    deep[2 * depth] = '\0';
    CHECK(parses(deep) == (depth == NI_JSON_DEPTH));
  }
  CHECK(strstr(ni_message(), "32 levels"));
  CHECK(parses("[\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[\"]"));
  /* Every prefix of a good text is refused; every change of a byte is survived. */
  size_t length = strlen(good) - 4;
  char *copy = malloc(length + 1);
  for (size_t k = 0; k < length; k++) {
    char *cut = malloc(k + 1); /* of its exact size, so that a read past it is seen */
    memcpy(cut, good, k);
    CHECK(ni_json_parse(&doc, cut, k, 1000) == NEAP_EFORMAT);
    free(cut);
  }
  for (size_t k = 0; k < length; k++)
    for (int bit = 0; bit < 8; bit++) {
      memcpy(copy, good, length);
      copy[k] = (char)(copy[k] ^ 1 << bit);
      neap_status status = ni_json_parse(&doc, copy, length, 1000);
      ni_json_free(&doc);
      if (status != NEAP_OK && status != NEAP_EFORMAT)
        CHECK(!"a flipped bit gives OK or EFORMAT");
    }
  free(copy);
  char s[] = "{\"a\":[1,2,{\"b\":\"c\"}]}";
  check_each_failure("json", use_json, s);
}

/* ---- tensors ---- */

static neap_status use_tensor(void *arg) {
  neap_tensor *t;
  neap_status status = ni_tensor_new(&t, NEAP_I32, 2, arg);
  CHECK((t != NULL) == (status == NEAP_OK));
  ni_tensor_release(t);
  return status;
}

static void test_tensor(void) {
  size_t before = ni_memory_live(), dims[] = {2, 3, 4, 5, 6};
  neap_tensor *t;
  CHECK(ni_tensor_new(&t, NEAP_F32, 4, dims) == NEAP_OK);
  CHECK(t->size == 120 && t->rank == 4 && t->dims[3] == 5 && t->dtype == NEAP_F32);
  CHECK((uintptr_t)t->data % 64 == 0);
  float *x = t->data;
  for (int i = 0; i < 120; i++)
    if (x[i] != 0)
      CHECK(!"a new tensor is zeros");
  x[119] = 1;
  ni_tensor_retain(t);
  ni_tensor_release(t);
  CHECK(x[119] == 1);
  ni_tensor_release(t);
  CHECK(ni_tensor_new(&t, NEAP_I32, 0, NULL) == NEAP_OK && t->size == 1 && t->dims[0] == 1);
  ni_tensor_release(t);
  size_t empty[] = {7, 0};
  CHECK(ni_tensor_new(&t, NEAP_I32, 2, empty) == NEAP_OK && t->size == 0 && t->data);
  ni_tensor_release(t);
  ni_tensor_retain(NULL);
  ni_tensor_release(NULL);
  CHECK_FAILS(NEAP_EARG, "rank from 0 to 4, came 5", ni_tensor_new(&t, NEAP_F32, 5, dims));
  CHECK(t == NULL && ni_tensor_new(&t, NEAP_F32, -1, dims) == NEAP_EARG);
  CHECK_FAILS(NEAP_EARG, "dtype 9", ni_tensor_new(&t, (neap_dtype)9, 1, dims));
  size_t big[][4] = {{SIZE_MAX}, {SIZE_MAX / 2, 3}, {0, SIZE_MAX}, {1u << 31, 1u << 31, 2, 0}};
  for (int i = 0; i < 4; i++)
    CHECK_FAILS(NEAP_ERANGE, "came more: dimension",
                ni_tensor_new(&t, NEAP_F32,
                              i == 0   ? 1
                              : i == 3 ? 4
                                       : 2,
                              big[i]));
  size_t most[] = {(size_t)PTRDIFF_MAX / 4};
  CHECK(ni_tensor_new(&t, NEAP_F32, 1, most) == NEAP_EMEM && t == NULL);
  check_each_failure("tensor", use_tensor, dims);
  CHECK(ni_memory_live() == before);
}

/* ---- parameters ---- */

static neap_status use_params(void *arg) {
  (void)arg;
  size_t dims[] = {5, 9};
  char name[40];
  neap_params *p, *q = NULL;
  int id;
  neap_status status = ni_params_new(&p);
  if (!status)
    status = ni_params_new(&q);
  for (int i = 0; !status && i < 12; i++) {
    snprintf(name, sizeof name, "layer.%d", i);
    status = ni_params_add(&id, p, name, 2, dims);
    if (status) {
      /* Nothing has changed. */
      CHECK(id == -1 && ni_params_count(p) == i && ni_params_size(p) == 45u * (unsigned)i);
      CHECK(ni_params_find(p, name) == -1);
      if (i > 0)
        CHECK(ni_params_data(p, i - 1)[44] == (float)i);
      break;
    }
    ni_params_data(p, id)[44] = (float)i + 1;
    if (i == 2) {
      float *g = ni_params_grad(p, 0), *some = ni_params_grad_rows(p, 1, &(int32_t){2}, 1);
      status = g && some ? NEAP_OK : NEAP_EMEM;
      if (g)
        g[1] = 5;
    }
    if (!status && i == 5)
      status = ni_params_init(p, 1, NEAP_INIT_ORTHOGONAL, 1, 0, 3);
  }
  if (!status) {
    size_t from, to = 0;
    CHECK(ni_params_span(&p->entries[1], p->used, &from, &to) && from / p->entries[1].width == 2);
    CHECK(ni_params_grad(p, 0)[1] == 5 && ni_params_grad(p, 11)[0] == 0);
  }
  ni_params_release(p);
  ni_params_release(q);
  return status;
}

/* The largest error of the block's Gram matrix against gain^2 times the identity. */
static double skew(const float *w, size_t rows, size_t columns, double gain) {
  bool wide = rows <= columns;
  size_t n = wide ? rows : columns, length = wide ? columns : rows;
  double worst = 0;
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++) {
      double sum = 0;
      for (size_t k = 0; k < length; k++)
        sum += wide ? (double)w[i * columns + k] * (double)w[j * columns + k]
                    : (double)w[k * columns + i] * (double)w[k * columns + j];
      worst = fmax(worst, fabs(sum - (i == j ? gain * gain : 0)));
    }
  return worst;
}

static void test_inits(void) {
  size_t before = ni_memory_live();
  neap_params *p, *q;
  int id, other;
  size_t matrix[] = {64, 48}, tall[] = {30, 4, 2}, row[] = {1000}, none[] = {0, 3}, one[] = {1, 1};
  CHECK(ni_params_new(&p) == NEAP_OK && ni_params_new(&q) == NEAP_OK);
  CHECK(ni_params_add(&id, p, "w", 2, matrix) == NEAP_OK);
  float *w = ni_params_data(p, id);
  uint64_t version = p->version;
  CHECK(ni_params_init(p, id, NEAP_INIT_CONSTANT, 0.5, 0, 1) == NEAP_OK);
  CHECK(w[0] == 0.5f && w[64 * 48 - 1] == 0.5f && p->version > version);

  CHECK(ni_params_init(p, id, NEAP_INIT_UNIFORM, -2, 3, 1) == NEAP_OK);
  double low = 9, high = -9, sum = 0;
  for (int i = 0; i < 64 * 48; i++) {
    low = fmin(low, (double)w[i]);
    high = fmax(high, (double)w[i]);
    sum += (double)w[i] / (64 * 48);
  }
  CHECK(low >= -2 && low < -1.98 && high <= 3 && high > 2.98 && fabs(sum - 0.5) < 0.13);
  /* The same name and seed give the same numbers, whatever was made before. */
  CHECK(ni_params_add(&other, q, "v", 1, row) == NEAP_OK);
  CHECK(ni_params_add(&other, q, "w", 2, matrix) == NEAP_OK && other == 1);
  CHECK(ni_params_init(q, other, NEAP_INIT_UNIFORM, -2, 3, 1) == NEAP_OK);
  CHECK(memcmp(w, ni_params_data(q, other), 64 * 48 * sizeof *w) == 0);
  CHECK(ni_params_init(q, other, NEAP_INIT_UNIFORM, -2, 3, 2) == NEAP_OK);
  CHECK(w[0] != ni_params_data(q, other)[0]);

  CHECK(ni_params_init(p, id, NEAP_INIT_NORMAL, 1, 0.1, 1) == NEAP_OK);
  double mean = 0, square = 0;
  for (int i = 0; i < 64 * 48; i++) {
    mean += (double)w[i] / (64 * 48);
    square += pow((double)w[i] - 1, 2) / (64 * 48);
  }
  CHECK(fabs(mean - 1) < 5 * 0.1 / sqrt(64 * 48) && fabs(square - 0.01) < 5 * 0.01 / sqrt(32 * 48));

  CHECK(ni_params_init(p, id, NEAP_INIT_ORTHOGONAL, 1, 0, 7) == NEAP_OK);
  CHECK(skew(w, 64, 48, 1) < 1e-6);
  CHECK(ni_params_init(p, id, NEAP_INIT_ORTHOGONAL, 2, 16, 7) == NEAP_OK);
  for (size_t b = 0; b < 4; b++)
    CHECK(skew(w + b * 16 * 48, 16, 48, 2) < 4e-6);
  CHECK(memcmp(w, w + 16 * 48, 48 * sizeof *w) != 0);
  CHECK(ni_params_add(&id, p, "tall", 3, tall) == NEAP_OK);
  CHECK(ni_params_init(p, id, NEAP_INIT_ORTHOGONAL, 1, 15, 7) == NEAP_OK);
  CHECK(skew(ni_params_data(p, id), 15, 8, 1) < 1e-6);
  CHECK(ni_params_add(&id, p, "one", 2, one) == NEAP_OK);
  CHECK(ni_params_init(p, id, NEAP_INIT_ORTHOGONAL, 1, 0, 7) == NEAP_OK);
  CHECK(fabsf(ni_params_data(p, id)[0]) == 1);
  CHECK(ni_params_add(&id, p, "none", 2, none) == NEAP_OK);
  CHECK(ni_params_init(p, id, NEAP_INIT_ORTHOGONAL, 1, 0, 7) == NEAP_OK);

  version = p->version;
  CHECK_FAILS(NEAP_EARG, "divide 64 rows", ni_params_init(p, 0, NEAP_INIT_ORTHOGONAL, 1, 7, 1));
  CHECK(ni_params_init(p, 0, NEAP_INIT_ORTHOGONAL, 1, 2.5, 1) == NEAP_EARG);
  CHECK(ni_params_init(p, 0, NEAP_INIT_ORTHOGONAL, 1, -1, 1) == NEAP_EARG);
  CHECK_FAILS(NEAP_EARG, "rank 2", ni_params_init(q, 0, NEAP_INIT_ORTHOGONAL, 1, 0, 1));
  CHECK_FAILS(NEAP_EARG, "a <= b", ni_params_init(p, 0, NEAP_INIT_UNIFORM, 1, 0, 1));
  CHECK_FAILS(NEAP_EARG, "deviation", ni_params_init(p, 0, NEAP_INIT_NORMAL, 1, -1, 1));
  CHECK_FAILS(NEAP_EARG, "finite", ni_params_init(p, 0, NEAP_INIT_CONSTANT, (double)NAN, 0, 1));
  CHECK_FAILS(NEAP_EARG, "finite", ni_params_init(p, 0, NEAP_INIT_NORMAL, 0, 1e39, 1));
  CHECK_FAILS(NEAP_EARG, "kind", ni_params_init(p, 0, (neap_init)77, 0, 0, 1));
  CHECK_FAILS(NEAP_EARG, "id below 4, came 4", ni_params_init(p, 4, NEAP_INIT_CONSTANT, 0, 0, 1));
  CHECK(p->version == version);
  ni_params_release(p);
  ni_params_release(q);
  CHECK(ni_memory_live() == before);
}

static void test_params(void) {
  size_t before = ni_memory_live(), dims[] = {3, 5}, other[] = {5, 3}, vast[] = {SIZE_MAX / 4, 2};
  neap_params *p, *q;
  int a, b, c;
  CHECK(ni_params_new(&p) == NEAP_OK && ni_params_count(p) == 0 && ni_params_size(p) == 0);
  CHECK(ni_params_add(&a, p, "a", 2, dims) == NEAP_OK && a == 0);
  CHECK(ni_params_add(&b, p, "b.\xC3\xA9", 0, NULL) == NEAP_OK && b == 1);
  CHECK(ni_params_add(&c, p, "a", 2, dims) == NEAP_OK && c == a);
  CHECK_FAILS(NEAP_EARG, "another shape", ni_params_add(&c, p, "a", 2, other));
  CHECK(c == -1 && ni_params_add(&c, p, "a", 1, dims) == NEAP_EARG);
  CHECK(ni_params_add(&c, p, "", 2, dims) == NEAP_EARG);
  CHECK(ni_params_add(&c, p, "x\n", 2, dims) == NEAP_EARG);
  CHECK(ni_params_add(&c, p, "c", 5, dims) == NEAP_EARG);
  CHECK(ni_params_add(&c, p, "c", 2, vast) == NEAP_ERANGE);
  vast[0] = (size_t)PTRDIFF_MAX / 8;
  vast[1] = 2;
  CHECK(ni_params_add(&c, p, "c", 2, vast) != NEAP_OK);
  char name[300];
  memset(name, 'n', sizeof name);
  name[256] = '\0';
  CHECK(ni_params_add(&c, p, name, 2, dims) == NEAP_EARG);
  name[255] = '\0';
  CHECK(ni_params_add(&c, p, name, 2, dims) == NEAP_OK && c == 2);
  CHECK(ni_params_count(p) == 3 && ni_params_size(p) == 31 && p->extent == 48);
  CHECK(ni_params_find(p, "b.\xC3\xA9") == b && ni_params_find(p, "b") == -1);
  CHECK(strcmp(ni_params_name(p, a), "a") == 0 && ni_params_rank(p, a) == 2);
  CHECK(ni_params_dim(p, a, 1) == 5 && ni_params_dim(p, a, 2) == 0 && ni_params_dim(p, a, -1) == 0);
  for (int i = 0; i < 3; i++)
    CHECK((uintptr_t)ni_params_data(p, i) % 64 == 0 && (uintptr_t)ni_params_grad(p, i) % 64 == 0);
  CHECK(ni_params_name(p, 3) == NULL && ni_params_data(p, -1) == NULL &&
        ni_params_rank(p, 9) == -1);
  CHECK(ni_params_grad(p, 3) == NULL && !ni_params_frozen(p, 3));
  ni_params_freeze(p, b, true);
  CHECK(ni_params_frozen(p, b) && !ni_params_frozen(p, a));
  ni_params_freeze(p, b, false);
  CHECK(!ni_params_frozen(p, b));
  ni_params_grad(p, c)[14] = 2;
  ni_params_zero_grad(p);
  CHECK(ni_params_grad(p, c)[14] == 0);
  uint64_t version = p->version;
  ni_params_touch(p);
  CHECK(p->version == version + 1);

  /* Copies go by name. */
  CHECK(ni_params_new(&q) == NEAP_OK && ni_params_add(&c, q, name, 2, dims) == NEAP_OK);
  CHECK_FAILS(NEAP_EARG, "expected 3 parameters, came 1", ni_params_copy(p, q));
  CHECK(ni_params_add(&c, q, "a", 2, dims) == NEAP_OK);
  CHECK(ni_params_add(&c, q, "z", 0, NULL) == NEAP_OK);
  CHECK_FAILS(NEAP_EARG, "missing", ni_params_copy(p, q));
  ni_params_release(q);
  CHECK(ni_params_new(&q) == NEAP_OK && ni_params_add(&c, q, name, 2, dims) == NEAP_OK);
  CHECK(ni_params_add(&c, q, "a", 2, dims) == NEAP_OK);
  CHECK(ni_params_add(&c, q, "b.\xC3\xA9", 0, NULL) == NEAP_OK);
  ni_params_data(q, 1)[14] = 8;
  ni_params_data(q, 2)[0] = 9;
  version = p->version;
  CHECK(ni_params_copy(p, q) == NEAP_OK && p->version > version);
  CHECK(ni_params_data(p, a)[14] == 8 && ni_params_data(p, b)[0] == 9);
  CHECK(ni_params_copy(p, p) == NEAP_OK && ni_params_data(p, a)[14] == 8);
  /* What lies between the parameters stays 0. */
  CHECK(p->data[15] == 0 && p->data[17] == 0 && p->data[31] == 0 && p->data[47] == 0);
  ni_params_retain(p);
  ni_params_release(p);
  ni_params_release(p);
  ni_params_release(q);
  ni_params_release(NULL);
  CHECK(ni_memory_live() == before);
  check_each_failure("params", use_params, NULL);
}

/* Do the numbers that a parameter's bits stand for lie from[i] .. to[i]-1, and nowhere else? */
static bool spans(const neap_params *p, int id, size_t n, const size_t *first, const size_t *last) {
  size_t from, to = 0, i = 0;
  for (; ni_params_span(&p->entries[id], p->used, &from, &to); i++)
    if (i >= n || from != first[i] || to != last[i])
      return false;
  return i == n;
}
#define SPANS(id, n, ...) spans(p, id, n, (const size_t[2][8]){__VA_ARGS__}[0], \
                                (const size_t[2][8]){__VA_ARGS__}[1])

static void test_used_rows(void) {
  const size_t before = ni_memory_live(), table[] = {200, 3}, none[] = {7, 0};
  const int32_t few[] = {0, 63, 199, 64, 5, 63}, more[] = {4, 65};
  neap_params *p;
  int a = -1, b = -1, c = -1, d = -1;
  float numbers[600];
  CHECK(ni_params_new(&p) == NEAP_OK && ni_params_add(&a, p, "a", 2, table) == NEAP_OK);
  CHECK(ni_params_add(&b, p, "b", 0, NULL) == NEAP_OK);
  CHECK(ni_params_add(&c, p, "c", 2, none) == NEAP_OK);
  CHECK(ni_params_read_grad(p, a, numbers, 600) == NEAP_OK && numbers[599] == 0 && !p->grad);
  CHECK(!ni_params_grad_seen(p, a) && ni_params_grad_make(p) && ni_params_grad_make(p));
  CHECK(SPANS(a, 0, {0}, {0}) && SPANS(b, 0, {0}, {0}) && SPANS(c, 0, {0}, {0}));
  float *g = ni_params_grad_rows(p, a, few, 6);
  CHECK(g == ni_params_grad_seen(p, a));
  CHECK(SPANS(a, 4, {0, 15, 189, 597}, {3, 18, 195, 600}));
  CHECK(ni_params_grad_rows(p, a, more, 2) == g);
  CHECK(SPANS(a, 4, {0, 12, 189, 597}, {3, 18, 198, 600}) && SPANS(b, 0, {0}, {0}));
  CHECK(ni_params_grad_rows(p, b, NULL, 0) && SPANS(b, 1, {0}, {1}));
  CHECK(!ni_params_grad_rows(p, 9, NULL, 0));
  CHECK(ni_params_grad_rows(p, c, NULL, 0) && SPANS(c, 0, {0}, {0}));
  g[12] = g[599] = 3;
  CHECK(ni_params_add(&d, p, "d", 2, table) == NEAP_OK && SPANS(d, 0, {0}, {0}));
  CHECK(SPANS(a, 4, {0, 12, 189, 597}, {3, 18, 198, 600}));
  CHECK(ni_params_read_grad(p, a, numbers, 600) == NEAP_OK);
  CHECK(numbers[12] == 3 && numbers[599] == 3);
  CHECK_FAILS(NEAP_EARG, "an id below 4, came 4", ni_params_read_grad(p, 4, numbers, 600));
  CHECK_FAILS(NEAP_ESHAPE, "\"a\" has 600 numbers, came room for 3",
              ni_params_read_grad(p, a, numbers, 3));
  ni_params_zero_grad(p);
  CHECK(ni_params_grad_seen(p, a)[12] == 0 && ni_params_grad_seen(p, a)[599] == 0);
  CHECK(SPANS(a, 0, {0}, {0}) && SPANS(b, 0, {0}, {0}));
  CHECK(ni_params_grad_rows(p, a, NULL, 0) && SPANS(a, 1, {0}, {600}) && SPANS(d, 0, {0}, {0}));
  ni_params_zero_grad(p);
  CHECK(SPANS(a, 0, {0}, {0}));
  /* Whoever has the address may write at any time. */
  g = ni_params_grad(p, a);
  CHECK(SPANS(a, 1, {0}, {600}));
  ni_params_zero_grad(p);
  CHECK(SPANS(a, 1, {0}, {600}));
  g[300] = 4;
  ni_params_zero_grad(p);
  CHECK(g[300] == 0);
  ni_params_release(p);
  CHECK(ni_memory_live() == before);
}

/* The parts of a parameter cover its numbers once; what their spans say is what those of all say. */
static void test_parts(void) {
  const size_t before = ni_memory_live();
  const size_t shapes[][2] = {{0, 5}, {9000, 3}, {1, 1}, {4, NI_PART}, {3, 0}, {2, NI_PART + 1},
                              {7, 0}};
  enum { N = sizeof shapes / sizeof *shapes };
  neap_params *p;
  neap_pool *pool;
  CHECK(ni_params_new(&p) == NEAP_OK && ni_pool_new(&pool, 3) == NEAP_OK);
  for (int i = 0; i < N; i++) {
    char name[2] = {(char)('a' + i), 0};
    int id;
    CHECK(ni_params_add(&id, p, name, 2, shapes[i]) == NEAP_OK && id == i);
  }
  CHECK(p->parts == (27000 + NI_PART - 1) / NI_PART + 1 + 4 + 3);
  CHECK(ni_params_pool(p, pool) == NEAP_OK && ni_params_pool(p, pool) == NEAP_OK);
  ni_pool_release(pool);
  CHECK(ni_params_grad_make(p));
  size_t task = 0;
  for (int i = 0; i < N; i++) {
    const ni_param *e = &p->entries[i];
    const int32_t rows[] = {0, 1, 2730, 2731, 5460, 5461, 5462, 8999};
    ni_params_grad_rows(p, i, rows, i == 1 ? 8 : e->rows > 0);
    unsigned char *seen = ni_calloc(e->size + 1, 1), *wanted = ni_calloc(e->size + 1, 1);
    CHECK(seen && wanted);
    for (size_t from, to = 0; ni_params_span(e, p->used, &from, &to);)
      memset(wanted + from, 1, to - from);
    for (size_t at = 0; at < e->size; at += NI_PART, task++) {
      ni_part x = ni_params_part(p, task);
      CHECK(x.e == e && x.from == at && x.to == (at + NI_PART < e->size ? at + NI_PART : e->size));
      size_t from, to = x.from, whole = 0;
      while (ni_part_span(&x, p->used, &from, &to)) {
        CHECK(from >= x.from && from < to && to <= x.to);
        for (size_t k = from; k < to; k++) seen[k]++;
      }
      for (to = x.from; ni_part_span(&x, NULL, &from, &to);) {
        CHECK(from == x.from && to == x.to);
        whole++;
      }
      CHECK(whole == 1);
    }
    CHECK(memcmp(seen, wanted, e->size) == 0);
    ni_free(seen);
    ni_free(wanted);
  }
  CHECK(task == p->parts);
  for (size_t i = 0; i < p->extent; i++) p->grad[i] = 1;
  for (int i = 0; i < N; i++) ni_params_grad_rows(p, i, NULL, 0);
  ni_params_zero_grad(p);
  double sum = 0;
  for (int i = 0; i < N; i++)
    for (size_t k = 0; k < p->entries[i].size; k++) sum += (double)p->grad[p->entries[i].start + k];
  CHECK(sum == 0);
  CHECK(ni_params_pool(p, NULL) == NEAP_OK && !p->pool);
  ni_params_zero_grad(p);
  ni_params_release(p);
  CHECK(ni_memory_live() == before);
}

int main(void) {
  ni_memory_set(rationed, NULL);
  test_status();
  test_names();
  test_memory();
  test_sort();
  test_text();
  test_rng();
  test_too_many_threads();
  test_pool();
  test_json();
  test_tensor();
  test_inits();
  test_params();
  test_used_rows();
  test_parts();
  CHECK(ni_memory_live() == 0);
  return report();
}
