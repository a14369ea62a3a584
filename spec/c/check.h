/*
** For the C specs: checks that are counted, and an allocator that fails when told to.
*/
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../runtime/base/base.h"

static int passed, failed;

static inline void check(bool good, const char *file, int line, const char *what) {
  if (good) {
    passed++;
  } else {
    failed++;
    printf("%s:%d: %s (message: %s)\n", file, line, what, ni_message());
  }
}
#define CHECK(x) check((x), __FILE__, __LINE__, #x)
/* The status is as expected and the message has some words in it. */
#define CHECK_FAILS(expected, words, call)                                                         \
  do {                                                                                             \
    CHECK((call) == (expected));                                                                   \
    check(strstr(ni_message(), (words)) != NULL, __FILE__, __LINE__, "message has " #words);       \
  } while (0)

static inline int report(void) {
  printf("%d passed, %d failed\n", passed, failed);
  return failed > 0;
}

/* Allocations that still succeed; below 0: all. */
static atomic_long allowed = -1;

static inline void *rationed(void *ud, void *ptr, size_t osize, size_t nsize) {
  (void)ud, (void)osize;
  if (nsize == 0) {
    free(ptr);
    return NULL;
  }
  if (atomic_load(&allowed) == 0)
    return NULL;
  if (atomic_load(&allowed) > 0)
    atomic_fetch_sub(&allowed, 1);
  void *p = realloc(ptr, nsize);
  if (p && !ptr)
    memset(p, 0x7f, nsize); /* numbers that show if nobody has written there */
  return p;
}

/* Runs use() with 0, 1, 2, ... allocations allowed until it succeeds. It gives back what it took.
 */
static inline void check_each_failure(const char *what, neap_status (*use)(void *), void *arg) {
  size_t before = ni_memory_live();
  for (long n = 0; n < 1000; n++) {
    atomic_store(&allowed, n);
    neap_status status = use(arg);
    atomic_store(&allowed, -1);
    check(ni_memory_live() == before, what, (int)n, "live bytes are back");
    check(status == NEAP_OK || status == NEAP_EMEM, what, (int)n, "is OK or EMEM");
    if (status == NEAP_OK) {
      check(n > 0, what, (int)n, "allocates");
      return;
    }
    check(strstr(ni_message(), "memory") != NULL, what, (int)n, "the message tells of memory");
  }
  check(false, what, 1000, "succeeds in the end");
}

#endif
