/*
** For the C specs: chance that can be repeated, and files that it damages.
*/
#ifndef MUTATE_H
#define MUTATE_H

#include "check.h"

typedef struct bytes {
  unsigned char *p;
  size_t n;
} bytes;

static uint64_t dice;

static inline size_t roll(size_t n) {
  dice = dice * 6364136223846793005u + 1442695040888963407u;
  return (size_t)(dice >> 33) % n;
}

/* The state of chance for one of many cases: each can be had alone. */
static inline void shake(uint64_t seed, long i) {
  dice = seed * 1000003 + (uint64_t)i;
  roll(2);
}

/* A safetensors file with up to four changes: bits, bytes, a piece dropped or there twice, the end
** cut; most of them in the header. Half the files say how long it is now. In a block of its exact
** size, to be freed. */
static inline bytes mutated(bytes b) {
  size_t header = 0, changes = roll(4) + 1;
  for (int i = 8; i-- > 0;) header = header << 8 | b.p[i];
  bytes e = {malloc(b.n + 4 * 16), b.n};
  memcpy(e.p, b.p, b.n);
  while (changes-- > 0 && e.n > 8) {
    size_t end = roll(8) && header && header < e.n - 8 ? 8 + header : e.n;
    size_t at = roll(20) ? 8 + roll(end - 8) : roll(8), n = roll(16) + 1;
    if (n > e.n - at) n = e.n - at;
    bool inside = at >= 8 && at < 8 + header;
    switch (roll(12)) {
      default: e.p[at] ^= (unsigned char)(1u << roll(8)); break;
      case 4: case 5: case 6: e.p[at] = (unsigned char)roll(256); break;
      case 7: case 8:
        memmove(e.p + at, e.p + at + n, e.n - at - n);
        e.n -= n;
        if (inside) header -= n < header ? n : header;
        break;
      case 9: case 10:
        memmove(e.p + at + n, e.p + at, e.n - at);
        e.n += n;
        if (inside) header += n;
        break;
      case 11: e.n = roll(4) ? e.n : at;
    }
  }
  if (roll(2) && e.n >= 8)
    for (int i = 0; i < 8; i++) e.p[i] = (unsigned char)((uint64_t)header >> 8 * i);
  e.p = realloc(e.p, e.n ? e.n : 1);
  return e;
}

#endif
