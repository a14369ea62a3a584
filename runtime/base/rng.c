/*
** Chance from counters.
*/
#include "base.h"

#include <math.h>

/*
** Philox 4x32, ten rounds, on several counters at once: x[w][lane] is word w. The inner loops have
** a fixed length and no branch, so that they become vector instructions.
*/
#define LANES 8

static inline void rounds(uint32_t x[4][LANES], size_t lanes, uint32_t k0, uint32_t k1) {
  for (int r = 0; r < 10; r++) {
    for (size_t j = 0; j < lanes; j++) {
      uint64_t a = (uint64_t)x[0][j] * 0xD2511F53u, b = (uint64_t)x[2][j] * 0xCD9E8D57u;
      x[0][j] = (uint32_t)(b >> 32) ^ x[1][j] ^ k0;
      x[1][j] = (uint32_t)b;
      x[2][j] = (uint32_t)(a >> 32) ^ x[3][j] ^ k1;
      x[3][j] = (uint32_t)a;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

void ni_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  uint32_t x[4][LANES];
  for (int w = 0; w < 4; w++)
    x[w][0] = counter[w];
  rounds(x, 1, key[0], key[1]);
  for (int w = 0; w < 4; w++)
    out[w] = x[w][0];
}

static void draw(uint64_t seed, uint64_t stream, uint64_t block, uint32_t out[4]) {
  uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)stream,
                         (uint32_t)(stream >> 32)};
  uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  ni_philox(counter, key, out);
}

/*
** LANES counters make a group of 4*LANES numbers; number i of a group is word i / LANES of counter
** i % LANES, so that a group is written in order without a transposition.
*/
#define GROUP (4 * LANES)

static inline float unit(uint32_t bits) { return (float)(int32_t)(bits >> 8) * 0x1p-24f; }

float ni_uniform(uint64_t seed, uint64_t stream, uint64_t index) {
  uint32_t out[4];
  draw(seed, stream, index / GROUP * LANES + index % LANES, out);
  return unit(out[index % GROUP / LANES]);
}

void ni_uniform_fill(uint64_t seed, uint64_t stream, uint64_t index, size_t n, float *out) {
  size_t i = 0;
  for (; i < n && (index + i) % GROUP != 0; i++)
    out[i] = ni_uniform(seed, stream, index + i);
  for (; n - i >= GROUP; i += GROUP) {
    uint64_t block = (index + i) / GROUP * LANES;
    uint32_t x[4][LANES];
    for (size_t j = 0; j < LANES; j++) {
      x[0][j] = (uint32_t)block + (uint32_t)j; /* block is a multiple of LANES: no carry */
      x[1][j] = (uint32_t)(block >> 32);
      x[2][j] = (uint32_t)stream;
      x[3][j] = (uint32_t)(stream >> 32);
    }
    rounds(x, LANES, (uint32_t)seed, (uint32_t)(seed >> 32));
    for (size_t w = 0; w < 4; w++)
      for (size_t j = 0; j < LANES; j++)
        out[i + w * LANES + j] = unit(x[w][j]);
  }
  for (; i < n; i++)
    out[i] = ni_uniform(seed, stream, index + i);
}

/*
** sqrt(-2 ln u) cos(2 pi v) for even, sin for odd numbers, u and v in (0,1) with 52 bits. The top
** bit of the counter keeps these blocks apart from those of ni_uniform.
*/
double ni_normal(uint64_t seed, uint64_t stream, uint64_t index) {
  uint32_t x[4];
  draw(seed, stream, index / 2 | UINT64_C(1) << 63, x);
  double u = ((double)(((uint64_t)x[0] << 32 | x[1]) >> 12) + 0.5) * 0x1p-52;
  double v = ((double)(((uint64_t)x[2] << 32 | x[3]) >> 12) + 0.5) * 0x1p-52;
  double radius = sqrt(-2 * log(u)), angle = 6.283185307179586477 * v;
  return radius * (index % 2 == 0 ? cos(angle) : sin(angle));
}

uint64_t ni_hash(const char *s) {
  uint64_t hash = UINT64_C(0xcbf29ce484222325);
  for (; *s; s++)
    hash = (hash ^ (unsigned char)*s) * UINT64_C(0x100000001b3);
  return hash;
}
