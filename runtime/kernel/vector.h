/*
** The kernels over vectors of W floats: avx2.c, avx512.c and neon.c are this text with their
** own W, ROWS and some names for instructions. Everything is static but the table at the end.
**
** A lane's number never depends on its neighbours, and the end of an array goes through the same
** code with lanes masked out; so a number has the same bits wherever it stands. No product stands
** where a compiler could fuse it with a sum: what is to be fused says so.
*/
#include <math.h>
#include <string.h>

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define INLINE static inline __attribute__((always_inline))

typedef uint32_t bits __attribute__((vector_size(W * 4)));

INLINE vec load_part(const float *p, size_t n) { return load_lanes(p, first(n)); }
INLINE void store_part(float *p, size_t n, vec x) { store_lanes(p, first(n), x); }

/* The first left floats at p, then zeros; left may exceed W. */
INLINE vec get(const float *p, size_t left) { return left >= W ? load(p) : load_part(p, left); }

/* The same for one of many places with as many left, of which `in` knows. */
INLINE vec get_in(const float *p, size_t left, lanes in) {
  return MASKS_ARE_FREE ? load_lanes(p, in) : get(p, left);
}
INLINE lanes lanes_of(size_t left) { return first(left < W ? left : W); }

INLINE void put(float *p, size_t left, vec x) {
  if (left >= W)
    store(p, x);
  else
    store_part(p, left, x);
}

/* The statements for each i = 0, W, 2W ... < n; left = W, or what is left at the end. */
#define EACH(n, ...)                       \
  do {                                     \
    size_t i = 0;                          \
    for (; (n) - i >= W; i += W) {         \
      const size_t left = W;               \
      __VA_ARGS__                          \
    }                                      \
    if (i < (n)) {                         \
      const size_t left = (n) - i;         \
      __VA_ARGS__                          \
    }                                      \
  } while (0)

/* ---- products ---- */

/*
** A panel holds PANEL columns, row after row of K. A tile of up to ROWS rows by a panel keeps its
** sums in registers over a block of K; the next block goes on from what stands in C, which changes
** no bit. BLOCK_K rows of a panel fit the first cache, where BAND tiles take them up one after the
** other, and BLOCK_N columns of them the second. The rows of A are first copied, so that they are
** contiguous and, whatever the stride of A, do not fall on the same lines of the cache. Few rows
** take several panels at once: that many sums are in flight as the multiplier is deep.
**
** A tile asks for what comes next while it computes: rows of C, which lie too far apart for the
** processor to guess, and a line of the next panel now and then, from where it guesses the others.
*/
enum {
  PANEL = 2 * W,
  BLOCK_K = 256,
  BLOCK_N = 512,
  BAND = 2,
  GROUP = (ROWS + W - 1) / W * W, /* from one row of turned columns to the next: whole vectors */
  FEW = 8, /* rows that are packed at a time: some lines of a panel in a row */
  LINE = BLOCK_K + 16 /* from one copied row to the next */
};

static size_t packed(size_t n, size_t k) { return (n + PANEL - 1) / PANEL * PANEL * k; }

/* To W columns of a panel, whose rows are stride apart: W rows of w. */
INLINE void pack_columns(size_t cols, size_t k, const float *w, size_t ldw, float *to,
                         size_t stride) {
  for (size_t i = 0; i < k; i += W) {
    size_t left = k - i < W ? k - i : W;
    vec square[W];
    UNROLL for (size_t j = 0; j < W; j++)
      square[j] = j < cols ? get(w + j * ldw + i, left) : splat(0);
    transpose(square);
    UNROLL for (size_t r = 0; r < W; r++)
      if (r < left) store(to + (i + r) * stride, square[r]);
  }
}

static void pack(size_t n, size_t k, const float *w, size_t ldw, bool transposed, float *to) {
  const size_t whole = (n + PANEL - 1) / PANEL * PANEL;
  for (size_t i0 = 0; transposed && i0 < k; i0 += FEW)
    for (size_t j = 0; j < whole; j += PANEL)
      for (size_t i = i0; i < k && i < i0 + FEW; i++)
        UNROLL for (size_t v = 0; v < PANEL; v += W)
          store(to + j * k + i * PANEL + v,
                j + v < n ? get(w + i * ldw + j + v, n - j - v) : splat(0));
  for (size_t j = 0; !transposed && j < whole; j += W)
    pack_columns(j < n ? n - j : 0, k, w + (j < n ? j : 0) * ldw, ldw,
                 to + j / PANEL * PANEL * k + j % PANEL, PANEL);
}

#define EACH_SUM                           \
  UNROLL for (size_t r = 0; r < rows; r++) \
    UNROLL for (size_t v = 0; v < 2 * panels; v++)
#define PAST(cols, at) ((cols) > (at) ? (cols) - (at) : 0)
/* Loaded once, not as part of each instruction that uses it. */
#ifdef __x86_64__
#define KEEP(x) __asm__("" : "+v"(x))
#else
#define KEEP(x) __asm__("" : "+w"(x))
#endif

/* What a tile calls into the caches for those after it: lines of a panel, rows of C. Addresses only:
** nothing need be there. */
typedef struct ahead {
  const float *panel, *c;
} ahead;

/*
** C[rows,cols] = start + A * panels over k steps of K; a is the copy, stride is from panel to
** panel. start is NULL for zeros, else its row r is at start + r*step.
*/
INLINE void tile(const size_t rows, const size_t panels, const size_t across_a, size_t k, size_t cols,
                 const float *a, const float *b, size_t stride, const float *start, size_t step, float *c,
                 size_t ldc, ahead soon) {
  const bool whole = !MASKS_ARE_FREE && cols >= panels * PANEL;
  vec sum[ROWS][8], w[8];
  lanes in[8];
  UNROLL for (size_t v = 0; v < 2 * panels; v++)
    in[v] = lanes_of(PAST(cols, v * W));
  if (!start)
    EACH_SUM sum[r][v] = splat(0);
  else if (whole)
    EACH_SUM sum[r][v] = load(start + r * step + v * W);
  else
    EACH_SUM sum[r][v] = load_lanes(start + r * step + v * W, in[v]);
  if (rows > 1)
    UNROLL for (size_t r = 0; r < rows; r++) {
      __builtin_prefetch(soon.c + r * ldc, 1);
      __builtin_prefetch(soon.c + r * ldc + PANEL - 1, 1);
    }
  for (size_t i = 0; i < k; i++) {
    if (rows > 1) __builtin_prefetch(soon.panel + (i & ~(size_t)3) * PANEL, 0, 2);
    UNROLL for (size_t v = 0; v < 2 * panels; v++) {
      w[v] = load(b + v / 2 * stride + i * PANEL + v % 2 * W);
      if (rows > 1) KEEP(w[v]);
    }
    UNROLL for (size_t r = 0; r < rows; r++) {
      vec x = splat(across_a ? a[i * GROUP + r] : a[r * LINE + i]);
      UNROLL for (size_t v = 0; v < 2 * panels; v++) sum[r][v] = fused(x, w[v], sum[r][v]);
    }
  }
  if (whole)
    EACH_SUM store(c + r * ldc + v * W, sum[r][v]);
  else
    EACH_SUM store_lanes(c + r * ldc + v * W, in[v], sum[r][v]);
}

typedef void tile_fn(size_t k, size_t cols, const float *a, const float *b, size_t stride,
                     const float *start, size_t step, float *c, size_t ldc, ahead soon);

#define TILE_(rows, panels, way, turned)                                                       \
  static void tile_##rows##_##panels##way(size_t k, size_t cols, const float *a, const float *b, \
                                          size_t stride, const float *start, size_t step,       \
                                          float *c, size_t ldc, ahead soon) {                   \
    tile(rows, panels, turned, k, cols, a, b, stride, start, step, c, ldc, soon);               \
  }
#define TILE(rows, panels) TILE_(rows, panels, , 0) TILE_(rows, panels, t, 1)

TILE(1, 1) TILE(2, 1) TILE(3, 1) TILE(4, 1) TILE(5, 1) TILE(6, 1)
TILE(1, 4) TILE(2, 2)
#if ROWS > 6
TILE(7, 1) TILE(8, 1)
TILE(3, 2) TILE(4, 2)
#endif
#if ROWS > 8
TILE(9, 1) TILE(10, 1) TILE(11, 1) TILE(12, 1) TILE(13, 1) TILE(14, 1)
#endif

/* By the number of rows: for one panel, and for many (wide of them) at once. */
#define PAIR(r, w) {{tile_##r##_1, tile_##r##_1t}, {tile_##r##_##w, tile_##r##_##w##t}, w}
static const struct {
  tile_fn *one[2], *many[2];
  size_t wide;
} tiles[ROWS + 1] = {
  {{NULL}, {NULL}, 0}, PAIR(1, 4), PAIR(2, 2),
#if ROWS > 6
  PAIR(3, 2), PAIR(4, 2), PAIR(5, 1), PAIR(6, 1), PAIR(7, 1), PAIR(8, 1),
#else
  PAIR(3, 1), PAIR(4, 1), PAIR(5, 1), PAIR(6, 1),
#endif
#if ROWS > 8
  PAIR(9, 1), PAIR(10, 1), PAIR(11, 1), PAIR(12, 1), PAIR(13, 1), PAIR(14, 1),
#endif
};

static void gemm(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *packed_w,
                 const float *bias, bool accumulate, float *c, size_t ldc) {
  float copy[BAND][ROWS * LINE];
  size_t k0 = 0;
  do {
    size_t steps = k - k0 < BLOCK_K ? k - k0 : BLOCK_K;
    bool onto = accumulate || k0 > 0;
    for (size_t n0 = 0; n0 < n; n0 += BLOCK_N) {
      size_t n1 = n - n0 < BLOCK_N ? n : n0 + BLOCK_N, row[BAND + 1] = {0}, tall;
      for (; row[0] < m; row[0] = row[tall]) {
        for (tall = 0; tall < BAND && row[tall] < m; tall++) {
          /* as even a division of the rows as ROWS allows */
          size_t rest = m - row[tall], parts = (rest + ROWS - 1) / ROWS;
          row[tall + 1] = row[tall] + (rest + parts - 1) / parts;
          for (size_t r = row[tall]; r < row[tall + 1]; r++) {
            float *to = copy[tall] + (r - row[tall]) * LINE;
            EACH(steps, vec x = get(a + r * lda + k0 + i, left); KEEP(x); store(to + i, x););
          }
        }
        /* tiles of several bands are half as high as they may be or more: one panel at a time */
        size_t wide = tall == 1 ? tiles[row[1] - row[0]].wide : 1, panels = wide;
        for (size_t j = n0; j < n1; j += panels * PANEL) {
          const float *b = packed_w + j * k + k0 * PANEL;
          bool many = wide > 1 && n1 - j > (wide - 1) * PANEL;
          if (!many) panels = 1;
          for (size_t t = 0; t < tall; t++) {
            size_t rows = row[t + 1] - row[t];
            float *to = c + row[t] * ldc + j;
            const float *start = onto ? to : bias ? bias + j : NULL;
            ahead soon = {j + PANEL < n1 ? b + k * PANEL + t * W : b,
                          t + 1 < tall ? to + rows * ldc : c + row[0] * ldc + j + PANEL};
            (many ? tiles[rows].many : tiles[rows].one)[0](steps, n - j, copy[t], b, k * PANEL,
                                                           start, onto ? ldc : 0, to, ldc, soon);
          }
        }
      }
    }
    k0 += steps;
  } while (k0 < k);
}

/* Groups of ROWS columns of A, for each row of A the columns of the group: [M/ROWS][K][GROUP]. */
static size_t turned(size_t m, size_t k) { return (m + ROWS - 1) / ROWS * GROUP * k; }

static void turn(size_t m, size_t k, const float *a, size_t lda, float *to) {
  for (size_t i0 = 0; i0 < k; i0 += FEW)
    for (size_t j = 0; j < m; j += ROWS)
      for (size_t i = i0; i < k && i < i0 + FEW; i++) {
        __builtin_prefetch(a + (i + FEW) * lda + j); /* rows lie far apart; past the last: no harm */
        UNROLL for (size_t v = 0; v < ROWS; v += W)
          store(to + turned(j, k) + i * GROUP + v, get(a + i * lda + j + v, PAST(m - j, v)));
      }
}

static void outer(size_t m, size_t n, size_t k, const float *a, const float *packed_w, float *c,
                  size_t ldc) {
  for (size_t m0 = 0; m0 < m; m0 += ROWS, a += GROUP * k, c += ROWS * ldc) {
    size_t rows = m - m0 < ROWS ? m - m0 : ROWS;
    for (size_t j = 0, panels; j < n; j += panels * PANEL) {
      bool many = n - j > (tiles[rows].wide - 1) * PANEL;
      panels = many ? tiles[rows].wide : 1;
      (many ? tiles[rows].many : tiles[rows].one)[1](k, n - j, a, packed_w + j * k, k * PANEL,
                                                     c + j, ldc, c + j, ldc,
                                                     (ahead){packed_w + j * k, c + j + PANEL});
    }
  }
}

INLINE float across(vec x) {
  for (size_t half = W / 2; half > 0; half /= 2)
    for (size_t i = 0; i < half; i++) x[i] += x[i + half];
  return x[0];
}

/* Sum of x, or of x*y, over four chains and then across: an order that n alone fixes. */
INLINE float total(size_t n, const float *x, const float *y) {
  vec s[4] = {splat(0), splat(0), splat(0), splat(0)};
  size_t done = 0;
  for (; n - done >= 4 * W; done += 4 * W)
    for (size_t v = 0; v < 4; v++) {
      size_t at = done + v * W;
      s[v] = fused(load(x + at), y ? load(y + at) : splat(1), s[v]);
    }
  size_t rest = n - done;
  x += done;
  if (y) y += done;
  EACH(rest, {
    s[0] = fused(get(x + i, left), y ? get(y + i, left) : splat(1), s[0]);
  });
  return across((s[0] + s[1]) + (s[2] + s[3]));
}

static float dot(size_t n, const float *x, const float *y) { return total(n, x, y); }

static void axpy(size_t n, float a, const float *x, float *y) {
  EACH(n, put(y + i, left, fused(splat(a), get(x + i, left), get(y + i, left))););
}

/* ---- elementwise; within 1.02, 1.75 and 2 ulp ---- */

/*
** Of several vectors each operation for all before the next one: their chains of sums, each of which
** waits for the one before, then run side by side.
*/
enum { MOST_SIDES = 8 }; /* Elman: 4 panels of 2; LSTM: 3 gates of 2 panels; GRU: 2 gates of 3 */
#define SIDES UNROLL for (size_t i = 0; i < count; i++)

/*
** e^x = 2^n e^r with n = round(x/ln 2), |r| <= ln(2)/2 (ln 2 in two parts: Cody and Waite 1980),
** and e^r - 1 = r + r^2 q(r), q fitted by least squares over Chebyshev nodes, absolute error
** 2^-28. p becomes e^r - 1. Adding and taking away 1.5 * 2^23 rounds to a whole number.
*/
INLINE void reduce(const size_t count, const vec *x, vec *n, vec *p) {
  vec magic = splat(0x1.8p23f), r[MOST_SIDES];
  SIDES n[i] = fused(x[i], splat(0x1.715476p0f), magic) - magic;
  SIDES r[i] = fused(n[i], splat(-0x1.62e4p-1f), x[i]);
  SIDES r[i] = fused(n[i], splat(-0x1.7f7d1cp-20f), r[i]);
  SIDES p[i] = fused(splat(0x1.6d53cap-10f), r[i], splat(0x1.123e7p-7f));
  SIDES p[i] = fused(p[i], r[i], splat(0x1.5554e2p-5f));
  SIDES p[i] = fused(p[i], r[i], splat(0x1.55548ap-3f));
  SIDES p[i] = fused(p[i], r[i], splat(0.5f));
  SIDES p[i] = fused(r[i] * r[i], p[i], r[i]);
}

/* Past the limits the result is infinity and zero. The limits come first: so a NaN is returned. */
INLINE void exps(const size_t count, vec *x) {
  vec n[MOST_SIDES], p[MOST_SIDES];
  SIDES x[i] = larger(splat(-104), smaller(splat(89), x[i]));
  reduce(count, x, n, p);
  SIDES x[i] = scale(p[i] + 1, n[i]);
}

#define SIGN splat(-0.0f)
#define AND(a, b) ((vec)((bits)(a) & (bits)(b)))
#define OR(a, b) ((vec)((bits)(a) | (bits)(b)))

/*
** Quotients by one step of Newton's from a reciprocal of 13 bits or more. What is left of the
** numerator goes by e and by u themselves: what rounding does to 1 + e and u + 1 does not count.
*/

/* 1/(1 + e), e = e^-x. Below the normal numbers the result is that of -88, which runs flush to 0. */
INLINE void sigmoids(const size_t count, vec *x) {
  vec n[MOST_SIDES], e[MOST_SIDES];
  SIDES x[i] = -larger(splat(-88), smaller(splat(104), x[i]));
  reduce(count, x, n, e);
  SIDES e[i] = scale(e[i] + 1, n[i]);
  SIDES n[i] = reciprocal(1 + e[i]);
  SIDES e[i] = fused(-n[i], e[i], 1 - n[i]);
  SIDES x[i] = fused(e[i], n[i], n[i]);
}

/* u/(u + 1) with u = (e^2|x| - 1)/2 = 2^n p + (2^n - 1)/2, which keeps its precision near 0. Half
** the argument goes into reduce's polynomial for p = (e^2r - 1)/2; ln 2 as a float is near enough,
** since the slope falls faster than n rises. */
INLINE void tanhs(const size_t count, vec *x) {
  vec magic = splat(0x1.8p23f), n[MOST_SIDES], r[MOST_SIDES], q[MOST_SIDES];
  SIDES r[i] = smaller(splat(10), (vec)((bits)x[i] & ~(bits)SIGN));
  SIDES n[i] = fused(r[i], splat(0x1.715476p1f), magic) - magic;
  SIDES r[i] = fused(n[i], splat(-0x1.62e43p-2f), r[i]);
  SIDES q[i] = fused(splat(0x1.6d53cap-5f), r[i], splat(0x1.123e7p-3f));
  SIDES q[i] = fused(q[i], r[i], splat(0x1.5554e2p-2f));
  SIDES q[i] = fused(q[i], r[i], splat(0x1.55548ap-1f));
  SIDES q[i] = fused(q[i], r[i], splat(1));
  SIDES q[i] = fused(r[i] * r[i], q[i], r[i]);
  SIDES n[i] = scale(splat(1), n[i]);
  SIDES q[i] = fused(n[i], q[i], fused(n[i], splat(0.5f), splat(-0.5f)));
  SIDES r[i] = reciprocal(q[i] + 1);
  SIDES n[i] = q[i] * r[i];
  SIDES q[i] = fused(-n[i], q[i], q[i] - n[i]);
  SIDES x[i] = OR(fused(q[i], r[i], n[i]), AND(x[i], SIGN));
}

#define EACH_BY(function)                            \
  do {                                               \
    const size_t count = MANY_REGISTERS ? 4 : 2;     \
    for (; n >= count * W; n -= count * W) {         \
      vec v[MOST_SIDES];                             \
      SIDES v[i] = load(x + i * W);                  \
      function(count, v);                            \
      SIDES store(y + i * W, v[i]);                  \
      x += count * W;                                \
      y += count * W;                                \
    }                                                \
    EACH(n, {                                        \
      vec v = get(x + i, left);                      \
      function(1, &v);                               \
      put(y + i, left, v);                           \
    });                                              \
  } while (0)

static void exp_each(size_t n, const float *x, float *y) { EACH_BY(exps); }
static void tanh_each(size_t n, const float *x, float *y) { EACH_BY(tanhs); }
static void sigmoid_each(size_t n, const float *x, float *y) { EACH_BY(sigmoids); }

static void add(size_t n, const float *a, const float *b, float *y) {
  EACH(n, put(y + i, left, get(a + i, left) + get(b + i, left)););
}

static void sub(size_t n, const float *a, const float *b, float *y) {
  EACH(n, put(y + i, left, get(a + i, left) - get(b + i, left)););
}

static void mul(size_t n, const float *a, const float *b, float *y) {
  EACH(n, put(y + i, left, get(a + i, left) * get(b + i, left)););
}

static void mul_add(size_t n, const float *a, const float *b, float *y) {
  EACH(n, put(y + i, left, fused(get(a + i, left), get(b + i, left), get(y + i, left))););
}

/* The slopes of tanh and sigmoid by their results. */
INLINE vec tanh_slope(vec y) { return fused(-y, y, splat(1)); }
INLINE vec sigmoid_slope(vec y) { return y * (1 - y); }

static void tanh_back(size_t n, const float *y, const float *dy, float *dx) {
  EACH(n, put(dx + i, left,
              fused(get(dy + i, left), tanh_slope(get(y + i, left)), get(dx + i, left))););
}

static void sigmoid_back(size_t n, const float *y, const float *dy, float *dx) {
  EACH(n, put(dx + i, left,
              fused(get(dy + i, left), sigmoid_slope(get(y + i, left)), get(dx + i, left))););
}

static float sum(size_t n, const float *x) { return total(n, x, NULL); }

/* Rows lie too far apart for the processor to read ahead: several lines of each are asked for. */
static void sum_rows(size_t n, size_t rows, const float *a, size_t lda, float *y) {
  enum { AT_ONCE = 4 };
  for (size_t j = 0; j < n; j += AT_ONCE * W) {
    vec s[AT_ONCE];
    lanes in[AT_ONCE];
    UNROLL for (size_t v = 0; v < AT_ONCE; v++) {
      in[v] = lanes_of(PAST(n, j + v * W));
      s[v] = splat(0);
    }
    for (size_t r = 0; r < rows; r++)
      UNROLL for (size_t v = 0; v < AT_ONCE; v++)
        s[v] += get_in(a + r * lda + j + v * W, PAST(n, j + v * W), in[v]);
    UNROLL for (size_t v = 0; v < AT_ONCE; v++)
      if (PAST(n, j + v * W) > 0)
        put(y + j + v * W, PAST(n, j + v * W), get(y + j + v * W, PAST(n, j + v * W)) + s[v]);
  }
}

static float max(size_t n, const float *x) {
  float m = -INFINITY;
  size_t i = 0;
  if (n >= W) {
    vec v = load(x);
    for (i = W; n - i >= W; i += W) v = larger(load(x + i), v);
    for (size_t j = 0; j < W; j++) m = v[j] > m ? v[j] : m;
  }
  for (; i < n; i++) m = x[i] > m ? x[i] : m;
  return m;
}

/* NaN and infinity have an exponent of ones: one more makes it a sign. */
INLINE bits past_finite(vec x) { return ((bits)x & 0x7f800000u) + 0x00800000u; }

static size_t finite_first(size_t n, const float *x) {
  enum { AT_ONCE = 4 };
  size_t i = 0;
  for (; n - i >= AT_ONCE * W; i += AT_ONCE * W) {
    bits past = past_finite(load(x + i));
    UNROLL for (size_t v = 1; v < AT_ONCE; v++) past |= past_finite(load(x + i + v * W));
    if (negative((vec)past)) break;
  }
  while (i < n && !negative((vec)past_finite(get(x + i, n - i)))) i += W;
  while (i < n && isfinite(x[i])) i++;
  return i < n ? i : n;
}

static float exp_sum(size_t n, const float *x, float shift, float *y) {
  EACH(n, {
    vec v = get(x + i, left) - shift;
    exps(1, &v);
    put(y + i, left, v);
  });
  return sum(n, y);
}

/* ---- a recurrent step ---- */

/*
** A panel has W units: for each k the gates beside one another, [K][gates][W]. The sums of a tile
** of rows by a panel stay in registers over all of K and through the gates to the new state. A
** single row takes several panels at once: that many sums are in flight as the multiplier is deep.
** A single gate is packed as any matrix is: then a panel has 2 W units.
*/
static size_t packed_gates(size_t gates, size_t h, size_t k) {
  return gates == 1 ? packed(h, k) : (h + W - 1) / W * W * gates * k;
}

static void pack_gates(size_t gates, size_t h, size_t k, size_t from, size_t to, const float *w,
                       size_t ldw, float *at) {
  at += from * gates * k;
  if (gates == 1) pack(to - from, k, w + from * ldw, ldw, false, at);
  for (size_t j = from; gates > 1 && j < to; j += W, at += k * gates * W)
    for (size_t g = 0; g < gates; g++)
      pack_columns(h - j, k, w + (g * h + j) * ldw, ldw, at + g * W, gates * W);
}

/* Vectors of sums in flight for a single row, and rows of a tile. */
enum { STEP_SUMS = 9, ELMAN_ROWS = 8 < ROWS ? 8 : ROWS };
typedef vec step_sums[ELMAN_ROWS > GRU_ROWS ? ELMAN_ROWS : GRU_ROWS][STEP_SUMS];

/* sum += A * panels over k steps of K. What stands at `soon` will be needed next. */
INLINE void step_add(const size_t rows, const size_t gates, const size_t panels, size_t k,
                     const float *a, size_t lda, const float *w, const float *soon,
                     step_sums sum) {
  const size_t stride = k * gates * W;
  vec each[STEP_SUMS];
  for (size_t i = 0; i < k; i++) {
    if (rows > 1) {
      __builtin_prefetch(soon + i * 2 * W, 0, 2);
      __builtin_prefetch(soon + i * 2 * W + W, 0, 2);
    }
    UNROLL for (size_t v = 0; v < gates * panels; v++) {
      each[v] = load(w + v / gates * stride + (i * gates + v % gates) * W);
      if (rows > 1) KEEP(each[v]);
    }
    UNROLL for (size_t r = 0; r < rows; r++) {
      vec x = splat(a[r * lda + i]);
      UNROLL for (size_t v = 0; v < gates * panels; v++) sum[r][v] = fused(x, each[v], sum[r][v]);
    }
  }
}

/* Rows r0.. and units j0.. of a step: sums that are known, or bias and W x. */
INLINE void step_start(const size_t rows, const size_t gates, const size_t panels,
                       const ni_step_f32 *s, size_t r0, size_t j0, step_sums sum) {
  const size_t h = s->units;
  const float *from = s->inputs ? s->bias : s->sums + r0 * s->stride;
  lanes in[STEP_SUMS];
  UNROLL for (size_t p = 0; p < panels; p++) in[p] = lanes_of(h - j0 - p * W);
  UNROLL for (size_t r = 0; r < rows; r++)
    UNROLL for (size_t v = 0; v < gates * panels; v++) {
      size_t p = v / gates, j = j0 + p * W;
      sum[r][v] = get_in(from + (s->inputs ? 0 : r * s->stride) + v % gates * h + j, h - j, in[p]);
    }
  if (s->inputs)
    step_add(rows, gates, panels, s->inputs, s->x + r0 * s->inputs, s->inputs,
             s->w + j0 * gates * s->inputs, s->w, sum);
}

/*
** From sums to the new state: of `count` vectors, which are as many rows (across false) or as many
** panels of one row.
*/
#define ROW (row + (across ? 0 : i))
#define UNIT (j + (across ? i * W : 0))
#define AT (ROW * h + UNIT)
#define LEFT PAST(h, UNIT)

INLINE void elman_units(const size_t count, const ni_step_f32 *s, size_t row, size_t j, vec *y) {
  const size_t h = s->units;
  const bool across = true;
  if (s->activation == NI_TANH)
    tanhs(count, y);
  else if (s->activation == NI_SIGMOID)
    sigmoids(count, y);
  else if (s->activation == NI_RELU)
    SIDES y[i] = larger(splat(0), y[i]); /* NaN stays */
  SIDES put(s->h + AT, LEFT, y[i]);
  if (s->also) SIDES put(s->also + AT, LEFT, y[i]);
}

INLINE void lstm_units(const size_t count, const bool across, const ni_step_f32 *s, size_t row,
                       size_t j, const vec (*sum)[4]) {
  const size_t h = s->units;
  vec by[3 * MOST_SIDES], state[MOST_SIDES], t[MOST_SIDES];
  vec *in = by, *forget = by + count, *out = by + 2 * count;
  SIDES {
    in[i] = sum[i][0];
    forget[i] = sum[i][1];
    t[i] = sum[i][2];
    out[i] = sum[i][3];
  }
  tanhs(count, t); /* the longer chain */
  sigmoids(3 * count, by);
  SIDES state[i] = fused(forget[i], get(s->c_before + AT, LEFT), in[i] * t[i]);
  if (s->gates) SIDES {
    float *g = s->gates + ROW * s->stride + UNIT;
    put(g, LEFT, in[i]);
    put(g + h, LEFT, forget[i]);
    put(g + 2 * h, LEFT, t[i]);
    put(g + 3 * h, LEFT, out[i]);
  }
  SIDES {
    t[i] = state[i];
    put(s->c + AT, LEFT, state[i]);
  }
  tanhs(count, t);
  if (s->tanh_c) SIDES put(s->tanh_c + AT, LEFT, t[i]);
  SIDES put(s->h + AT, LEFT, out[i] * t[i]);
  if (s->also) SIDES put(s->also + AT, LEFT, out[i] * t[i]);
}

/* sum[3]: what reset leaves alone in gate n. */
INLINE void gru_units(const size_t count, const bool across, const ni_step_f32 *s, size_t row,
                      size_t j, const vec (*sum)[4]) {
  const size_t h = s->units;
  vec by[2 * MOST_SIDES], n[MOST_SIDES], y[MOST_SIDES];
  vec *reset = by, *z = by + count;
  SIDES {
    reset[i] = sum[i][0];
    z[i] = sum[i][1];
  }
  sigmoids(2 * count, by);
  SIDES n[i] = fused(reset[i], sum[i][2], sum[i][3]);
  tanhs(count, n);
  SIDES y[i] = fused(z[i], get(s->before + AT, LEFT), (1 - z[i]) * n[i]);
  SIDES put(s->h + AT, LEFT, y[i]);
  if (s->also) SIDES put(s->also + AT, LEFT, y[i]);
  if (s->gates) SIDES {
    float *g = s->gates + ROW * s->stride + UNIT;
    put(g, LEFT, reset[i]);
    put(g + h, LEFT, z[i]);
    put(g + 2 * h, LEFT, n[i]);
    put(g + 3 * h, LEFT, sum[i][2]);
  }
}
#undef ROW
#undef UNIT
#undef AT
#undef LEFT

/* A number that the compiler does not know. */
INLINE size_t hidden(size_t n) {
  __asm__("" : "+r"(n));
  return n;
}

/* The rows of a tile as a call: so that its code is there once and not for each number of rows. */
static __attribute__((noinline)) void elman_rows(const ni_step_f32 *s, size_t row, size_t rows,
                                                 size_t j, vec (*sum)[2]) {
  for (size_t r = 0; r < rows; r++) elman_units(2, s, row + r, j, sum[r]);
}
static __attribute__((noinline)) void lstm_rows(const ni_step_f32 *s, size_t row, size_t rows,
                                                size_t j, const vec (*sum)[4]) {
  for (size_t r = 0; r < rows; r++) lstm_units(1, false, s, row + r, j, sum + r);
}
static __attribute__((noinline)) void gru_rows(const ni_step_f32 *s, size_t row, size_t rows,
                                               size_t j, const vec (*sum)[4]) {
  size_t r = 0;
  for (; MANY_REGISTERS && rows - r >= 2; r += 2) gru_units(2, false, s, row + r, j, sum + r);
  for (; r < rows; r++) gru_units(1, false, s, row + r, j, sum + r);
}

/* The panels of a single row: vectors side by side, as many as there are registers for. */
enum { SIDES_1 = MANY_REGISTERS ? MOST_SIDES : 2 };
#define ACROSS(cell)                                                                            \
  do {                                                                                          \
    if (MANY_REGISTERS)                                                                         \
      cell##_units(panels, true, s, r0, j0, (const vec (*)[4])four);                            \
    else                                                                                        \
      UNROLL for (size_t p = 0; p < panels; p++)                                                \
        cell##_units(1, true, s, r0, j0 + p * W, (const vec (*)[4])four + p);                   \
  } while (0)

INLINE void elman_tile(const size_t rows, const size_t panels, const ni_step_f32 *s, size_t r0,
                       size_t j0, const float *soon) {
  const size_t h = s->units;
  const float *from = (s->inputs ? s->bias : s->sums + r0 * s->stride) + j0;
  step_sums sum;
  lanes in[8];
  UNROLL for (size_t v = 0; v < 2 * panels; v++) in[v] = lanes_of(PAST(h, j0 + v * W));
  UNROLL for (size_t r = 0; r < rows; r++)
    UNROLL for (size_t v = 0; v < 2 * panels; v++)
      sum[r][v] = get_in(from + (s->inputs ? 0 : r * s->stride) + v * W, PAST(h, j0 + v * W), in[v]);
  if (s->inputs)
    step_add(rows, 2, panels, s->inputs, s->x + r0 * s->inputs, s->inputs, s->w + j0 * s->inputs,
             s->w, sum);
  step_add(rows, 2, panels, h, s->before + r0 * h, h, s->u + j0 * h, soon, sum);
  if (rows == 1) {
    vec line[8];
    UNROLL for (size_t v = 0; v < 2 * panels; v++) line[v] = sum[0][v];
    UNROLL for (size_t v = 0; v < 2 * panels; v += SIDES_1)
      elman_units(2 * panels - v < SIDES_1 ? 2 * panels - v : SIDES_1, s, r0, j0 + v * W, line + v);
    return;
  }
  vec two[ELMAN_ROWS][2];
  UNROLL for (size_t r = 0; r < rows; r++)
    UNROLL for (size_t v = 0; v < 2; v++) two[r][v] = sum[r][v];
  elman_rows(s, r0, hidden(rows), j0, two);
}

INLINE void lstm_tile(const size_t rows, const size_t panels, const ni_step_f32 *s, size_t r0,
                      size_t j0, const float *soon) {
  const size_t h = s->units;
  step_sums sum;
  step_start(rows, 4, panels, s, r0, j0, sum);
  step_add(rows, 4, panels, h, s->before + r0 * h, h, s->u + j0 * 4 * h, soon, sum);
  vec four[GRU_ROWS][4]; /* a copy, so that the sums themselves stay in registers */
  if (rows == 1) {
    UNROLL for (size_t p = 0; p < panels; p++)
      UNROLL for (size_t v = 0; v < 4; v++) four[p][v] = sum[0][4 * p + v];
    ACROSS(lstm);
    return;
  }
  UNROLL for (size_t r = 0; r < rows; r++)
    UNROLL for (size_t v = 0; v < 4; v++) four[r][v] = sum[r][v];
  lstm_rows(s, r0, hidden(rows), j0, (const vec (*)[4])four);
}

INLINE void gru_tile(const size_t rows, const size_t panels, const ni_step_f32 *s, size_t r0,
                     size_t j0, const float *soon) {
  const size_t h = s->units;
  step_sums sum;
  vec nx[GRU_ROWS][STEP_SUMS / 3];
  step_start(rows, 3, panels, s, r0, j0, sum);
  UNROLL for (size_t r = 0; r < rows; r++)
    UNROLL for (size_t p = 0; p < panels; p++) {
      nx[r][p] = sum[r][3 * p + 2];
      size_t j = j0 + p * W;
      sum[r][3 * p + 2] = s->bias_u ? get(s->bias_u + j, h - j) : splat(0);
    }
  step_add(rows, 3, panels, h, s->before + r0 * h, h, s->u + j0 * 3 * h, soon, sum);
  vec four[GRU_ROWS][4];
  if (rows == 1) {
    UNROLL for (size_t p = 0; p < panels; p++) {
      UNROLL for (size_t v = 0; v < 3; v++) four[p][v] = sum[0][3 * p + v];
      four[p][3] = nx[0][p];
    }
    ACROSS(gru);
    return;
  }
  UNROLL for (size_t r = 0; r < rows; r++) {
    UNROLL for (size_t v = 0; v < 3; v++) four[r][v] = sum[r][v];
    four[r][3] = nx[r][0];
  }
  gru_rows(s, r0, hidden(rows), j0, (const vec (*)[4])four);
}

_Static_assert(LSTM_ROWS <= GRU_ROWS && GRU_ROWS >= 3, "rows of a tile, panels of a row");

typedef void step_tile(const ni_step_f32 *s, size_t r0, size_t j0, const float *soon);

#define STEP_TILE(name, tile, rows, panels)                                         \
  static void name(const ni_step_f32 *s, size_t r0, size_t j0, const float *soon) { \
    tile(rows, panels, s, r0, j0, soon);                                            \
  }
/* One panel by many rows, and one row by several panels. */
#define ELMAN(rows) STEP_TILE(elman_##rows, elman_tile, rows, 1)
#define LSTM(rows) STEP_TILE(lstm_##rows, lstm_tile, rows, 1)
#define GRU(rows) STEP_TILE(gru_##rows, gru_tile, rows, 1)
STEP_TILE(elman_by_2, elman_tile, 1, 2)
STEP_TILE(elman_by_3, elman_tile, 1, 3)
STEP_TILE(elman_by_4, elman_tile, 1, 4)
STEP_TILE(lstm_by_2, lstm_tile, 1, 2)
STEP_TILE(gru_by_2, gru_tile, 1, 2)
STEP_TILE(gru_by_3, gru_tile, 1, 3)
ELMAN(1) ELMAN(2) ELMAN(3) ELMAN(4) ELMAN(5) ELMAN(6)
LSTM(1) LSTM(2) LSTM(3)
GRU(1) GRU(2) GRU(3) GRU(4)
#if ROWS > 6
ELMAN(7) ELMAN(8)
LSTM(4) LSTM(5)
GRU(5) GRU(6) GRU(7)
#endif
#if LSTM_ROWS > 5
LSTM(6)
GRU(8)
#endif

/* A cell's tiles: the units of a panel, by its rows, and for a single row by its panels. */
typedef struct step_tiles {
  size_t gates, units, rows, panels;
  step_tile *by_rows[10], *by_panels[5];
} step_tiles;
static const step_tiles elman_tiles = {
  1, PANEL, ELMAN_ROWS, 4,
  {NULL, elman_1, elman_2, elman_3, elman_4, elman_5, elman_6,
#if ROWS > 6
   elman_7, elman_8,
#endif
  },
  {NULL, elman_1, elman_by_2, elman_by_3, elman_by_4}};
static const step_tiles lstm_tiles = {
  4, W, LSTM_ROWS, 2,
  {NULL, lstm_1, lstm_2, lstm_3,
#if ROWS > 6
   lstm_4, lstm_5,
#endif
#if LSTM_ROWS > 5
   lstm_6,
#endif
  },
  {NULL, lstm_1, lstm_by_2}};
static const step_tiles gru_tiles = {
  3, W, GRU_ROWS, 3,
  {NULL, gru_1, gru_2, gru_3, gru_4,
#if ROWS > 6
   gru_5, gru_6, gru_7,
#endif
#if GRU_ROWS > 7
   gru_8,
#endif
  },
  {NULL, gru_1, gru_by_2, gru_by_3}};

/* A step: panel by panel, and in each all rows; or several panels of a single row at once. */
static void step_all(size_t m, const ni_step_f32 *s, const step_tiles *by) {
  const size_t panels = (s->to - s->from + by->units - 1) / by->units;
  for (size_t i = 0, n; i < panels; i += n) {
    size_t left = panels - i, most = by->panels;
    n = m > 1 ? 1 : left <= most ? left : left == most + 1 && most > 2 ? most - 1 : most;
    size_t j = s->from + (s->downwards ? left - n : i) * by->units;
    if (m == 1) {
      by->by_panels[n](s, 0, j, s->u);
      continue;
    }
    const float *own = s->u + j * by->gates * s->units, *next = own;
    if (left > 1)
      next = s->u + (s->downwards ? j - by->units : j + by->units) * by->gates * s->units;
    for (size_t r = 0, rows, t = 0; r < m; r += rows, t++) {
      size_t parts = (m - r + by->rows - 1) / by->rows;
      rows = (m - r + parts - 1) / parts;
      by->by_rows[rows](s, r, j, t < 2 ? next + t * 2 * W * s->units : own);
    }
  }
}

static void elman(size_t m, const ni_step_f32 *s) { step_all(m, s, &elman_tiles); }
static void lstm(size_t m, const ni_step_f32 *s) { step_all(m, s, &lstm_tiles); }
static void gru(size_t m, const ni_step_f32 *s) { step_all(m, s, &gru_tiles); }

static void lstm_back(size_t n, size_t h, float *g, const float *c_prev, const float *tc,
                      const float *dh, float *dc) {
  float *f = g + h, *u = f + h, *o = u + h;
  EACH(n, {
    vec in = get(g + i, left), forget = get(f + i, left), cell = get(u + i, left);
    vec out = get(o + i, left), t = get(tc + i, left), d = get(dh + i, left);
    vec dstate = fused(d * out, tanh_slope(t), get(dc + i, left));
    put(g + i, left, dstate * cell * sigmoid_slope(in));
    put(f + i, left, dstate * get(c_prev + i, left) * sigmoid_slope(forget));
    put(u + i, left, dstate * in * tanh_slope(cell));
    put(o + i, left, d * t * sigmoid_slope(out));
    put(dc + i, left, dstate * forget);
  });
}

static void gru_back(size_t n, size_t h, float *g, const float *h_prev, const float *dh,
                     float *dh_prev) {
  float *gz = g + h, *gn = gz + h, *gh = gn + h;
  EACH(n, {
    vec r = get(g + i, left), z = get(gz + i, left), new = get(gn + i, left), d = get(dh + i, left);
    vec dn = d * (1 - z) * tanh_slope(new);
    put(g + i, left, dn * get(gh + i, left) * sigmoid_slope(r));
    put(gz + i, left, d * (get(h_prev + i, left) - new) * sigmoid_slope(z));
    put(gn + i, left, dn);
    put(gh + i, left, dn * r);
    put(dh_prev + i, left, d * z);
  });
}

/* ---- optimizers ---- */

static void adam(size_t n, float *p, const float *grad, float scaling, float *m, float *v,
                 float rate, float b1, float b2, float c1, float c2, float eps, float coupled,
                 float decoupled) {
  EACH(n, {
    vec w = get(p + i, left);
    vec g = fused(splat(coupled), w, get(grad + i, left) * scaling);
    vec mean = fused(splat(b1), get(m + i, left), g * (1 - b1));
    vec var = fused(splat(b2), get(v + i, left), g * g * (1 - b2));
    vec step = mean * (1 / c1) / (root(var * (1 / c2)) + eps);
    put(m + i, left, mean);
    put(v + i, left, var);
    put(p + i, left, fused(splat(-rate), fused(splat(decoupled), w, step), w));
  });
}

const ni_kernels_f32 JOIN(ni_kernels_, LEVEL) = {
  .level = TEXT(LEVEL),
  .panel = PANEL,
  .packed = packed,
  .pack = pack,
  .gemm = gemm,
  .group = ROWS,
  .turned = turned,
  .turn = turn,
  .outer = outer,
  .dot = dot,
  .axpy = axpy,
  .exp = exp_each,
  .tanh = tanh_each,
  .sigmoid = sigmoid_each,
  .add = add,
  .sub = sub,
  .mul = mul,
  .mul_add = mul_add,
  .tanh_back = tanh_back,
  .sigmoid_back = sigmoid_back,
  .sum = sum,
  .max = max,
  .sum_rows = sum_rows,
  .finite_first = finite_first,
  .exp_sum = exp_sum,
  .packed_gates = packed_gates,
  .pack_gates = pack_gates,
  .elman = elman,
  .lstm = lstm,
  .lstm_back = lstm_back,
  .gru = gru,
  .gru_back = gru_back,
  .adam = adam,
};
