/*
** Memory: one allocator, aligned blocks, a count of live bytes; growing arrays and texts.
*/
#include "base.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISONS
#endif
#endif
#if defined(POISONS) || defined(__SANITIZE_ADDRESS__)
/* Alignment leaves slack behind a block: poisoned, so that an overrun is seen to the byte. */
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

#define ALIGNMENT 64

/* Stands right before each block. */
typedef struct head {
  void *raw;    /* what the allocator gave */
  size_t total; /* and how much of it */
  size_t bytes; /* of the block */
} head;

#define OVERHEAD (sizeof(head) + ALIGNMENT - 1)

/* Of large blocks the system is asked for pages of 2 MB: a slab has thousands of the small ones, more
** than the processor remembers the places of. A block costs up to 2 MB more of addresses, not of memory. */
enum { HUGE_PAGE = 1 << 21 };

static void *plain(void *ud, void *ptr, size_t osize, size_t nsize) {
  (void)ud;
  (void)osize;
  if (nsize == 0) {
    free(ptr);
    return NULL;
  }
#ifdef MADV_HUGEPAGE
  if (!ptr && nsize >= 2 * HUGE_PAGE && posix_memalign(&ptr, HUGE_PAGE, nsize) == 0) {
    madvise(ptr, nsize, MADV_HUGEPAGE);
    return ptr;
  }
#endif
  return realloc(ptr, nsize);
}

static neap_alloc_fn allocator = plain;
static void *allocator_ud;
static atomic_size_t live;

void ni_memory_set(neap_alloc_fn fn, void *ud) {
  allocator = fn ? fn : plain;
  allocator_ud = fn ? ud : NULL;
}

size_t ni_memory_live(void) { return atomic_load_explicit(&live, memory_order_relaxed); }

static head *head_of(void *p) { return (head *)((char *)p - sizeof(head)); }

static char *slack(head *h) { return (char *)(h + 1) + h->bytes; }

static size_t slack_bytes(head *h) { return (size_t)((char *)h->raw + h->total - slack(h)); }

size_t ni_bytes_for(size_t bytes) { return bytes > SIZE_MAX - OVERHEAD ? SIZE_MAX : bytes + OVERHEAD; }

size_t ni_bytes_of(const void *p) { return p ? ((const head *)p - 1)->total : 0; }

void *ni_alloc(size_t bytes) {
  size_t total;
  char *raw = NULL;
  if (ni_add(bytes, OVERHEAD, &total) && total <= PTRDIFF_MAX)
    raw = allocator(allocator_ud, NULL, 0, total);
  if (!raw) {
    ni_fail(NEAP_EMEM, "memory: expected %zu bytes, came none", bytes);
    return NULL;
  }
  atomic_fetch_add_explicit(&live, total, memory_order_relaxed);
  char *p = raw + sizeof(head);
  p += -(uintptr_t)p & (ALIGNMENT - 1);
  head *h = head_of(p);
  *h = (head){raw, total, bytes};
  ASAN_POISON_MEMORY_REGION(slack(h), slack_bytes(h));
  return p;
}

void ni_free(void *p) {
  if (!p)
    return;
  head *h = head_of(p);
  ASAN_UNPOISON_MEMORY_REGION(slack(h), slack_bytes(h));
  atomic_fetch_sub_explicit(&live, h->total, memory_order_relaxed);
  allocator(allocator_ud, h->raw, h->total, 0);
}

void *ni_calloc(size_t count, size_t size) {
  size_t bytes;
  if (!ni_mul(count, size, &bytes)) {
    ni_fail(NEAP_EMEM, "memory: expected %zu times %zu bytes, more than can be counted", count,
            size);
    return NULL;
  }
  void *p = ni_alloc(bytes);
  if (p)
    memset(p, 0, bytes);
  return p;
}

/* The allocator's own resizing would not keep the alignment. */
void *ni_realloc(void *p, size_t bytes) {
  void *q = ni_alloc(bytes);
  if (p && q) {
    size_t old = head_of(p)->bytes;
    memcpy(q, p, old < bytes ? old : bytes);
    ni_free(p);
  }
  return q;
}

char *ni_strndup(const char *s, size_t n) {
  size_t bytes;
  if (!ni_add(n, 1, &bytes)) {
    ni_fail(NEAP_EMEM, "memory: expected %zu bytes and one, more than can be counted", n);
    return NULL;
  }
  char *copy = ni_alloc(bytes);
  if (copy) {
    memcpy(copy, s, n);
    copy[n] = '\0';
  }
  return copy;
}

char *ni_strdup(const char *s) { return ni_strndup(s, strlen(s)); }

bool ni_grow(void **array, size_t *capacity, size_t used, size_t element) {
  if (used < *capacity)
    return true;
  size_t more, bytes;
  if (!ni_add(used, used / 2 + 8, &more) || !ni_mul(more, element, &bytes)) {
    ni_fail(NEAP_EMEM, "memory: expected %zu elements and more, more than can be counted", used);
    return false;
  }
  void *p = ni_realloc(*array, bytes);
  if (!p)
    return false;
  *array = p;
  *capacity = more;
  return true;
}

/* Heapsort (Williams 1964): needs no memory and no input makes it slow. */
void ni_sort(size_t *index, size_t n, int (*compare)(const void *arg, size_t a, size_t b),
             const void *arg) {
  size_t start = n / 2, end = n;
  while (end > 1) {
    size_t hole, moved;
    if (start > 0) {
      moved = index[--start];
    } else {
      moved = index[--end];
      index[end] = index[0];
    }
    for (hole = start; 2 * hole + 1 < end;) {
      size_t child = 2 * hole + 1;
      if (child + 1 < end && compare(arg, index[child], index[child + 1]) < 0)
        child++;
      if (compare(arg, moved, index[child]) >= 0)
        break;
      index[hole] = index[child];
      hole = child;
    }
    index[hole] = moved;
  }
}

/* ---- growing texts ---- */

/* Room for n more bytes and the terminator. */
static bool reserve(ni_text *t, size_t n) {
  size_t need, cap;
  if (t->failed)
    return false;
  if (!ni_add(t->n, n, &need) || !ni_add(need, 1, &need) || !ni_add(need, need / 2, &cap)) {
    ni_fail(NEAP_EMEM, "memory: expected a text of %zu bytes and more, more than can be counted",
            t->n);
    t->failed = true;
  } else if (need > t->cap) {
    char *s = ni_realloc(t->s, cap);
    t->failed = !s;
    if (s) {
      t->s = s;
      t->cap = cap;
    }
  }
  return !t->failed;
}

void ni_text_addn(ni_text *t, const char *s, size_t n) {
  if (!reserve(t, n))
    return;
  if (n > 0)
    memcpy(t->s + t->n, s, n);
  t->n += n;
  t->s[t->n] = '\0';
}

void ni_text_add(ni_text *t, const char *format, ...) {
  va_list args;
  va_start(args, format);
  int n = vsnprintf(NULL, 0, format, args);
  va_end(args);
  if (n < 0) {
    ni_fail(NEAP_EARG, "text: expected a format that fits its arguments, came \"%.40s\"", format);
    t->failed = true;
  }
  if (!reserve(t, n < 0 ? 0 : (size_t)n))
    return;
  va_start(args, format);
  vsnprintf(t->s + t->n, (size_t)n + 1, format, args);
  va_end(args);
  t->n += (size_t)n;
}

void ni_text_json(ni_text *t, const char *s) {
  size_t n = strlen(s), good = ni_utf8(s, n);
  ni_text_addn(t, "\"", 1);
  for (size_t i = 0; i < n;) {
    size_t run = i;
    while (run < good && (unsigned char)s[run] >= 0x20 && s[run] != '"' && s[run] != '\\')
      run++;
    ni_text_addn(t, s + i, run - i);
    i = run;
    if (i == n)
      break;
    if (i == good) {
      ni_text_addn(t, "\\ufffd", 6);
      good = i + 1 + ni_utf8(s + i + 1, n - i - 1);
    } else if (s[i] == '"' || s[i] == '\\') {
      ni_text_add(t, "\\%c", s[i]);
    } else if (s[i] == '\n') {
      ni_text_addn(t, "\\n", 2);
    } else {
      ni_text_add(t, "\\u%04x", (unsigned)s[i]);
    }
    i++;
  }
  ni_text_addn(t, "\"", 1);
}

void ni_text_number(ni_text *t, double x) {
  char s[40];
  const char *point = localeconv()->decimal_point;
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(s, sizeof s, "%.*g", digits, x);
    if (strtod(s, NULL) == x)
      break;
  }
  char *at = strstr(s, point);
  size_t before = at ? (size_t)(at - s) : strlen(s);
  ni_text_addn(t, s, before);
  if (at)
    ni_text_add(t, ".%s", at + strlen(point));
}

void ni_text_free(ni_text *t) {
  ni_free(t->s);
  *t = (ni_text){0};
}
