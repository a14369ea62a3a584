#include "params.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "tensor.h"

#define ROUND 16 /* floats in 64 bytes */

neap_status ni_params_new(neap_params **result) {
  neap_params *p = *result = ni_calloc(1, sizeof *p);
  if (!p)
    return NEAP_EMEM;
  atomic_init(&p->refs, 1);
  return NEAP_OK;
}

void ni_params_retain(neap_params *p) {
  if (p)
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
}

void ni_params_release(neap_params *p) {
  if (!p || atomic_fetch_sub(&p->refs, 1) != 1)
    return;
  for (size_t i = 0; i < p->count; i++)
    ni_free(p->entries[i].name);
  ni_free(p->entries);
  ni_free(p->data);
  ni_free(p->grad);
  ni_free(p->used);
  ni_pool_release(p->pool);
  ni_free(p);
}

neap_status ni_params_pool(neap_params *p, const neap_pool *pool) {
  neap_pool *view = NULL;
  neap_status rc = pool ? ni_pool_view(&view, pool, NULL) : NEAP_OK;
  if (rc) return rc;
  ni_pool_release(p->pool);
  p->pool = view;
  return NEAP_OK;
}

/* ---- adding ---- */

static bool same_shape(const ni_param *e, int rank, const size_t *dims) {
  if (e->rank != rank)
    return false;
  for (int i = 0; i < rank; i++)
    if (e->dims[i] != dims[i])
      return false;
  return true;
}

/* A vector of so many bytes that begins as old does and goes on with zeros. */
static void *longer(const void *old, size_t bytes, size_t cap) {
  void *v = ni_calloc(cap, 1);
  if (v && bytes > 0)
    memcpy(v, old, bytes);
  return v;
}

/* Of the bits of so many rows. */
static size_t words(size_t rows) { return (rows + 63) / 64; }

/* Room for an extent of need floats and need_words of bits, in all vectors or, on failure, in none.
** Even a parameter without numbers has an address. */
static bool reserve(neap_params *p, size_t need, size_t need_words) {
  size_t bit = sizeof *p->used, now = p->extent * sizeof *p->data, cap = p->cap;
  bool grow = !p->data || need > p->cap, bits = p->grad && need_words > p->words;
  if (grow)
    cap = need / ROUND / 2 * ROUND + need + ROUND;
  float *data = grow ? longer(p->data, now, cap * sizeof *data) : NULL;
  float *grad = data && p->grad ? longer(p->grad, now, cap * sizeof *grad) : NULL;
  uint64_t *used = bits ? longer(p->used, p->words * bit, need_words * bit) : NULL;
  if ((grow && (!data || (p->grad && !grad))) || (bits && !used)) {
    ni_free(data);
    ni_free(grad);
    ni_free(used);
    return false;
  }
  if (grow) {
    ni_free(p->data);
    ni_free(p->grad);
    p->data = data;
    p->grad = grad;
    p->cap = cap;
  }
  if (bits) {
    ni_free(p->used);
    p->used = used;
  }
  return true;
}

neap_status ni_params_add(int *id, neap_params *p, const char *name, int rank, const size_t *dims) {
  size_t size, need;
  *id = -1;
  neap_status status = ni_name_check("params", name, NI_PARAM_NAME);
  if (!status)
    status = ni_shape_size(&size, name, rank, dims);
  if (status)
    return status;
  int found = ni_params_find(p, name);
  if (found >= 0) {
    if (!same_shape(&p->entries[found], rank, dims))
      return ni_fail(NEAP_EARG, "params: \"%s\" exists with another shape", name);
    *id = found;
    return NEAP_OK;
  }
  /* ni_shape_size leaves size far from overflow, and a vector in memory leaves extent so. */
  size_t rows = size == 0 ? 0 : rank > 0 ? dims[0] : 1;
  need = p->extent + (size + ROUND - 1) / ROUND * ROUND;
  if (p->count >= INT32_MAX || need > PTRDIFF_MAX / sizeof(float) / 2)
    return ni_fail(NEAP_ERANGE, "params: \"%s\" is more than can be counted", name);
  char *copy = ni_strdup(name);
  if (!copy || !ni_grow((void **)&p->entries, &p->entries_cap, p->count, sizeof *p->entries) ||
      !reserve(p, need, p->words + words(rows))) {
    ni_free(copy);
    return NEAP_EMEM;
  }
  ni_param *e = &p->entries[p->count];
  *e = (ni_param){.name = copy, .hash = ni_hash(name), .rank = rank, .size = size};
  for (int i = 0; i < NEAP_MAX_RANK; i++)
    e->dims[i] = i < rank ? dims[i] : 1;
  e->start = p->extent;
  e->rows = rows;
  e->width = rows > 0 ? size / rows : 0;
  e->bit = 64 * p->words;
  e->part = p->parts;
  p->parts += (size + NI_PART - 1) / NI_PART;
  p->words += words(e->rows);
  p->extent = need;
  p->size += size;
  p->version++;
  *id = (int)p->count++;
  return NEAP_OK;
}

/* ---- looking ---- */

static ni_param *entry(const neap_params *p, int id) {
  return id >= 0 && (size_t)id < p->count ? &p->entries[id] : NULL;
}

int ni_params_find(const neap_params *p, const char *name) {
  uint64_t hash = ni_hash(name);
  for (size_t i = 0; i < p->count; i++)
    if (p->entries[i].hash == hash && strcmp(p->entries[i].name, name) == 0)
      return (int)i;
  return -1;
}

int ni_params_count(const neap_params *p) { return (int)p->count; }

size_t ni_params_size(const neap_params *p) { return p->size; }

const char *ni_params_name(const neap_params *p, int id) {
  const ni_param *e = entry(p, id);
  return e ? e->name : NULL;
}

int ni_params_rank(const neap_params *p, int id) {
  const ni_param *e = entry(p, id);
  return e ? e->rank : -1;
}

size_t ni_params_dim(const neap_params *p, int id, int axis) {
  const ni_param *e = entry(p, id);
  return e && axis >= 0 && axis < e->rank ? e->dims[axis] : 0;
}

float *ni_params_data(neap_params *p, int id) {
  const ni_param *e = entry(p, id);
  return e ? p->data + e->start : NULL;
}

/* ---- the gradient ---- */

bool ni_params_grad_make(neap_params *p) {
  if (p->grad)
    return true;
  float *grad = ni_calloc(p->cap, sizeof *grad);
  uint64_t *used = grad ? ni_calloc(p->words + 1, sizeof *used) : NULL;
  if (!used) {
    ni_free(grad);
    return false;
  }
  p->grad = grad;
  p->used = used;
  return true;
}

float *ni_params_grad_rows(neap_params *p, int id, const int32_t *row, size_t n) {
  const ni_param *e = entry(p, id);
  if (!e || !ni_params_grad_make(p))
    return NULL;
  uint64_t *used = p->used + e->bit / 64;
  for (size_t i = 0; row && i < n; i++)
    used[(size_t)row[i] / 64] |= (uint64_t)1 << row[i] % 64;
  if (!row)
    memset(used, 0xff, words(e->rows) * sizeof *used);
  return p->grad + e->start;
}

float *ni_params_grad(neap_params *p, int id) {
  ni_param *e = entry(p, id);
  if (e)
    e->lent = true;
  return ni_params_grad_rows(p, id, NULL, 0);
}

const float *ni_params_grad_seen(const neap_params *p, int id) {
  const ni_param *e = entry(p, id);
  return e && p->grad ? p->grad + e->start : NULL;
}

neap_status ni_params_read_grad(const neap_params *p, int id, float *data, size_t count) {
  const ni_param *e = entry(p, id);
  if (!e)
    return ni_fail(NEAP_EARG, "params: expected an id below %zu, came %d", p->count, id);
  if (count != e->size)
    return ni_fail(NEAP_ESHAPE, "params: \"%s\" has %zu numbers, came room for %zu", e->name,
                   e->size, count);
  if (count > 0 && p->grad)
    memcpy(data, p->grad + e->start, count * sizeof *data);
  else if (count > 0)
    memset(data, 0, count * sizeof *data);
  return NEAP_OK;
}

/* The first bit from i on that differs from those of `but`, end if none before it does. */
static size_t next_bit(const uint64_t *bits, size_t i, size_t end, uint64_t but) {
  while (i < end) {
    uint64_t rest = (bits[i / 64] ^ but) >> i % 64;
    if (rest) {
      i += (size_t)__builtin_ctzll(rest);
      break;
    }
    i = (i / 64 + 1) * 64;
  }
  return i < end ? i : end;
}

/* The next numbers after `to` in rows that have their bits set and lie before row n. */
static bool span(const ni_param *e, const uint64_t *bits, size_t n, size_t *from, size_t *to) {
  size_t end = e->bit + n;
  size_t i = next_bit(bits, e->bit + (e->width ? *to / e->width : 0), end, 0);
  *from = (i - e->bit) * e->width;
  *to = (next_bit(bits, i, end, ~(uint64_t)0) - e->bit) * e->width;
  return i < end;
}

bool ni_params_span(const ni_param *e, const uint64_t *bits, size_t *from, size_t *to) {
  return span(e, bits, e->rows, from, to);
}

ni_part ni_params_part(const neap_params *p, size_t i) {
  size_t low = 0, high = p->count; /* the last parameter whose parts begin at i or before it */
  while (high - low > 1) {
    size_t middle = low + (high - low) / 2;
    *(p->entries[middle].part <= i ? &low : &high) = middle;
  }
  const ni_param *e = &p->entries[low];
  size_t from = (i - e->part) * NI_PART;
  return (ni_part){e, from, e->size - from < NI_PART ? e->size : from + NI_PART};
}

bool ni_part_span(const ni_part *x, const uint64_t *bits, size_t *from, size_t *to) {
  size_t at = *to;
  if (!bits) {
    *from = at;
    *to = x->to;
    return at < x->to;
  }
  if (at >= x->to || !span(x->e, bits, (x->to - 1) / x->e->width + 1, from, to)) return false;
  if (*from < at) *from = at; /* a row that began in the part before */
  if (*to > x->to) *to = x->to;
  return true;
}

static void zero_part(void *arg, size_t task) {
  neap_params *p = arg;
  ni_part x = ni_params_part(p, task);
  for (size_t from, to = x.from; ni_part_span(&x, p->used, &from, &to);)
    memset(p->grad + x.e->start + from, 0, (to - from) * sizeof *p->grad);
}

void ni_params_zero_grad(neap_params *p) {
  if (!p->grad) return;
  ni_pool_run(p->pool, p->parts, zero_part, p);
  for (size_t i = 0; i < p->count; i++) {
    const ni_param *e = &p->entries[i];
    if (!e->lent)
      memset(p->used + e->bit / 64, 0, words(e->rows) * sizeof *p->used);
  }
}

void ni_params_touch(neap_params *p) { p->version++; }

void ni_params_freeze(neap_params *p, int id, bool frozen) {
  ni_param *e = entry(p, id);
  if (e)
    e->frozen = frozen;
}

bool ni_params_frozen(const neap_params *p, int id) {
  const ni_param *e = entry(p, id);
  return e && e->frozen;
}

/* ---- start values ---- */

/*
** Modified Gram-Schmidt on the columns of w [length,count], length >= count: once column k is
** done, its part is taken out of all later ones. Columns side by side make the inner loops run
** over neighbours in memory. part [count] is scratch.
*/
static void orthonormalise(double *w, size_t length, size_t count, double *part) {
  for (size_t k = 0; k < count; k++) {
    for (size_t j = k; j < count; j++)
      part[j] = 0;
    for (size_t i = 0; i < length; i++)
      for (size_t j = k; j < count; j++)
        part[j] += w[i * count + k] * w[i * count + j];
    double square = part[k], norm = sqrt(square);
    for (size_t i = 0; i < length; i++) {
      double x = w[i * count + k] / square;
      for (size_t j = k + 1; j < count; j++)
        w[i * count + j] -= x * part[j];
      w[i * count + k] /= norm;
    }
  }
}

/* Saxe, McClelland and Ganguli 2014: a Gaussian matrix, orthonormalised. */
static neap_status orthogonal(const ni_param *e, float *out, double gain, double block,
                              uint64_t seed) {
  size_t rows = e->dims[0];
  if (e->rank < 2)
    return ni_fail(NEAP_EARG, "params: \"%s\": orthogonal: expected rank 2 or more, came %d",
                   e->name, e->rank);
  if (block < 0 || block > (double)rows || block != floor(block) ||
      (block > 0 && rows % (size_t)block != 0))
    return ni_fail(NEAP_EARG,
                   "params: \"%s\": orthogonal: expected blocks that divide %zu rows, came %g rows",
                   e->name, rows, block);
  if (e->size == 0)
    return NEAP_OK;
  size_t b = block > 0 ? (size_t)block : rows, columns = e->size / rows;
  bool wide = b <= columns;
  size_t length = wide ? columns : b, count = wide ? b : columns;
  double *w = ni_calloc(length * count + count, sizeof *w);
  if (!w)
    return NEAP_EMEM;
  for (size_t from = 0; from < rows; from += b) {
    float *o = out + from * columns;
    for (size_t i = 0; i < b; i++)
      for (size_t j = 0; j < columns; j++)
        w[wide ? j * b + i : i * columns + j] =
            ni_normal(seed, e->hash, (from + i) * columns + j);
    orthonormalise(w, length, count, w + length * count);
    for (size_t i = 0; i < b; i++)
      for (size_t j = 0; j < columns; j++)
        o[i * columns + j] = (float)(gain * w[wide ? j * b + i : i * columns + j]);
  }
  ni_free(w);
  return NEAP_OK;
}

neap_status ni_params_init(neap_params *p, int id, neap_init kind, double a, double b,
                           uint64_t seed) {
  const ni_param *e = entry(p, id);
  neap_status status = NEAP_OK;
  if (!e)
    return ni_fail(NEAP_EARG, "params: expected an id below %zu, came %d", p->count, id);
  if (!(fabs(a) <= (double)FLT_MAX && fabs(b) <= (double)FLT_MAX))
    return ni_fail(NEAP_EARG, "params: \"%s\": expected finite numbers, came %g and %g", e->name, a,
                   b);
  float *out = p->data + e->start;
  switch (kind) {
  case NEAP_INIT_CONSTANT:
    for (size_t i = 0; i < e->size; i++)
      out[i] = (float)a;
    break;
  case NEAP_INIT_UNIFORM:
    if (a > b)
      return ni_fail(NEAP_EARG, "params: \"%s\": uniform: expected a <= b, came %g and %g", e->name,
                     a, b);
    ni_uniform_fill(seed, e->hash, 0, e->size, out);
    for (size_t i = 0; i < e->size; i++)
      out[i] = (float)(a + (b - a) * (double)out[i]);
    break;
  case NEAP_INIT_NORMAL:
    if (b < 0)
      return ni_fail(NEAP_EARG, "params: \"%s\": normal: expected a deviation >= 0, came %g",
                     e->name, b);
    for (size_t i = 0; i < e->size; i++)
      out[i] = (float)(a + b * ni_normal(seed, e->hash, i));
    break;
  case NEAP_INIT_ORTHOGONAL:
    status = orthogonal(e, out, a, b, seed);
    break;
  default:
    return ni_fail(NEAP_EARG, "params: \"%s\": expected a kind of start value, came %d", e->name,
                   (int)kind);
  }
  if (!status)
    p->version++;
  return status;
}

neap_status ni_params_copy(neap_params *to, const neap_params *from) {
  return ni_params_mix(to, from, 1);
}

typedef struct mix_job {
  neap_params *to;
  const neap_params *from;
  float share;
} mix_job;

static void mix_part(void *arg, size_t task) {
  const mix_job *j = arg;
  ni_part x = ni_params_part(j->to, task);
  const ni_param *f = entry(j->from, ni_params_find(j->from, x.e->name));
  float *restrict a = j->to->data + x.e->start + x.from;
  const float *restrict b = j->from->data + f->start + x.from;
  size_t n = x.to - x.from;
  if (j->share == 1) memcpy(a, b, n * sizeof *a);
  else
    for (size_t k = 0; k < n; k++) a[k] += j->share * (b[k] - a[k]);
}

neap_status ni_params_mix(neap_params *to, const neap_params *from, double share) {
  if (!(share >= 0 && share <= 1))
    return ni_fail(NEAP_EARG, "params: mix: expected a share in 0..1, came %g", share);
  if (to->count != from->count)
    return ni_fail(NEAP_EARG, "params: copy: expected %zu parameters, came %zu", to->count,
                   from->count);
  for (size_t i = 0; i < to->count; i++) {
    const ni_param *e = &to->entries[i], *f = entry(from, ni_params_find(from, e->name));
    if (!f || !same_shape(e, f->rank, f->dims))
      return ni_fail(NEAP_EARG, "params: copy: \"%s\" %s", e->name,
                     f ? "has another shape in the source" : "is missing from the source");
  }
  if (to != from) {
    unsigned mode = ni_denormals_flush();
    ni_pool_run(from->pool ? from->pool : to->pool, to->parts, mix_part,
                &(mix_job){to, from, (float)share});
    ni_denormals_restore(mode);
  }
  to->version++;
  return NEAP_OK;
}
