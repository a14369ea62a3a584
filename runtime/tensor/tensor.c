#include "tensor.h"

#include <math.h>

neap_status ni_shape_size(size_t *size, const char *who, int rank, const size_t *dims) {
  *size = 0;
  if (rank < 0 || rank > NEAP_MAX_RANK)
    return ni_fail(NEAP_EARG, "%s: expected a rank from 0 to %d, came %d", who, NEAP_MAX_RANK,
                   rank);
  /* Bounding the product without its zeros keeps every partial product safe, in any order. */
  size_t bound = sizeof(float);
  bool empty = false;
  for (int i = 0; i < rank; i++) {
    if (dims[i] == 0)
      empty = true;
    else if (!ni_mul(bound, dims[i], &bound) || bound > PTRDIFF_MAX)
      return ni_fail(NEAP_ERANGE, "%s: expected at most %zu bytes, came more: dimension %d is %zu",
                     who, (size_t)PTRDIFF_MAX, i, dims[i]);
  }
  *size = empty ? 0 : bound / sizeof(float);
  return NEAP_OK;
}

neap_status ni_tensor_new(neap_tensor **result, neap_dtype dtype, int rank, const size_t *dims) {
  size_t size;
  *result = NULL;
  if (dtype != NEAP_F32 && dtype != NEAP_I32)
    return ni_fail(NEAP_EARG, "tensor: expected f32 or i32, came dtype %d", (int)dtype);
  neap_status status = ni_shape_size(&size, "tensor", rank, dims);
  if (status)
    return status;
  const size_t head = (sizeof(neap_tensor) + 63) / 64 * 64;
  neap_tensor *t = ni_calloc(1, head + size * sizeof(float));
  if (!t)
    return NEAP_EMEM;
  atomic_init(&t->refs, 1);
  t->dtype = dtype;
  t->rank = rank;
  for (int i = 0; i < NEAP_MAX_RANK; i++)
    t->dims[i] = i < rank ? dims[i] : 1;
  t->size = size;
  t->data = (char *)t + head;
  *result = t;
  return NEAP_OK;
}

neap_status ni_tensor_part(neap_tensor **result, neap_tensor *of, size_t index) {
  *result = NULL;
  if (of->rank == 0)
    return ni_fail(NEAP_ESHAPE, "tensor: expected rank 1 or more, a number has no parts");
  if (index >= of->dims[0])
    return ni_fail(NEAP_ERANGE, "tensor: part %zu is not among %zu", index, of->dims[0]);
  neap_tensor *t = ni_calloc(1, sizeof *t);
  if (!t)
    return NEAP_EMEM;
  atomic_init(&t->refs, 1);
  t->dtype = of->dtype;
  t->rank = of->rank - 1;
  for (int i = 0; i < NEAP_MAX_RANK; i++)
    t->dims[i] = i < t->rank ? of->dims[i + 1] : 1;
  t->size = of->size / of->dims[0];
  t->data = (char *)of->data + index * t->size * sizeof(float);
  t->owner = of->owner ? of->owner : of;
  ni_tensor_retain(t->owner);
  *result = t;
  return NEAP_OK;
}

/* Does element a of a row come after b? */
static bool after(const float *x, int32_t a, int32_t b) {
  return x[a] < x[b] || (x[a] == x[b] && a > b);
}

/* Lets the root of a heap of n elements sink to its place; the last of all belongs at the root. */
static void sink(const float *x, int32_t *heap, size_t n, size_t at) {
  for (size_t child; (child = 2 * at + 1) < n; at = child) {
    if (child + 1 < n && after(x, heap[child + 1], heap[child]))
      child++;
    if (!after(x, heap[child], heap[at]))
      return;
    int32_t id = heap[at];
    heap[at] = heap[child];
    heap[child] = id;
  }
}

/* Keeps the best k in a heap with the worst of them at the root, which in the end gives them, the
** worst first. */
static void top_of_row(const float *x, size_t width, size_t k, int32_t *ids, float *values) {
  size_t n = 0;
  for (size_t v = 0; v < width; v++) {
    if (!(x[v] > -INFINITY))
      continue;
    if (n < k) {
      ids[n++] = (int32_t)v;
      for (size_t i = n == k ? k / 2 : 0; i-- > 0;)
        sink(x, ids, k, i);
    } else if (after(x, ids[0], (int32_t)v)) {
      ids[0] = (int32_t)v;
      sink(x, ids, k, 0);
    }
  }
  for (size_t i = n < k ? n / 2 : 0; i-- > 0;)
    sink(x, ids, n, i);
  for (size_t last = n; last-- > 1;) {
    int32_t id = ids[0];
    ids[0] = ids[last];
    ids[last] = id;
    sink(x, ids, last, 0);
  }
  for (size_t i = 0; i < k; i++) {
    if (i >= n)
      ids[i] = -1;
    values[i] = i < n ? x[ids[i]] : -INFINITY;
  }
}

neap_status ni_tensor_top(neap_tensor *ids, neap_tensor *values, const neap_tensor *x) {
  if (x->dtype != NEAP_F32 || values->dtype != NEAP_F32 || ids->dtype != NEAP_I32)
    return ni_fail(NEAP_ETYPE, "tensor top: expected ids i32, values f32 and x f32");
  if (x->rank != 2 || ids->rank != 2 || values->rank != 2 || ids->dims[0] != x->dims[0]
      || values->dims[0] != x->dims[0] || ids->dims[1] != values->dims[1])
    return ni_fail(NEAP_ESHAPE, "tensor top: expected ids [R,k], values [R,k] and x [R,V]");
  size_t k = ids->dims[1], width = x->dims[1];
  if (k > width || width > INT32_MAX)
    return ni_fail(NEAP_ESHAPE, "tensor top: expected at most %zu of %zu, came %zu", width, width,
                   k);
  for (size_t r = 0; k > 0 && r < x->dims[0]; r++)
    top_of_row((const float *)x->data + r * width, width, k, (int32_t *)ids->data + r * k,
               (float *)values->data + r * k);
  return NEAP_OK;
}

/* A share of the probability: exp((x - most) / temperature), also where both are infinite. */
static double weight(float x, float most, double temperature) {
  if (x == most)
    return 1;
  return x > -INFINITY ? exp(((double)x - (double)most) / temperature) : 0.0;
}

/* Of n numbers (NaN and -infinity weigh nothing); -1 where none weighs. */
static int32_t draw_of(const float *x, size_t n, double temperature, double top_p, double random) {
  float most = -INFINITY;
  for (size_t v = 0; v < n; v++)
    if (x[v] > most)
      most = x[v];
  double total = 0, sum = 0;
  for (size_t v = 0; v < n; v++)
    total += weight(x[v], most, temperature);
  if (top_p < 1) { /* the largest come first */
    double wanted = top_p * total;
    for (n = 0; n == 0 || sum < wanted; n++)
      sum += weight(x[n], most, temperature);
    total = sum;
  }
  int32_t last = -1;
  random *= total;
  sum = 0;
  for (size_t v = 0; v < n && most > -INFINITY; v++) {
    double w = weight(x[v], most, temperature);
    if (w == 0)
      continue;
    last = (int32_t)v;
    if (random < (sum += w))
      break;
  }
  return last;
}

neap_status ni_tensor_draw(neap_tensor *ids, const neap_tensor *x, double temperature,
                           size_t top_k, double top_p, const double *random) {
  if (x->dtype != NEAP_F32 || ids->dtype != NEAP_I32)
    return ni_fail(NEAP_ETYPE, "tensor draw: expected ids i32 and x f32");
  if (x->rank != 2 || ids->rank != 1 || ids->dims[0] != x->dims[0] || x->dims[1] > INT32_MAX)
    return ni_fail(NEAP_ESHAPE, "tensor draw: expected ids [R] and x [R,V]");
  if (!(temperature > 0) || isinf(temperature))
    return ni_fail(NEAP_EARG, "tensor draw: expected a temperature above 0, came %g", temperature);
  if (!(top_p > 0 && top_p <= 1))
    return ni_fail(NEAP_EARG, "tensor draw: expected top_p above 0 and up to 1, came %g", top_p);
  size_t rows = x->dims[0], width = x->dims[1];
  for (size_t r = 0; r < rows; r++)
    if (!(random[r] >= 0 && random[r] < 1))
      return ni_fail(NEAP_EARG, "tensor draw: row %zu: expected a number from 0 to below 1, came %g",
                     r, random[r]);
  size_t k = top_k > 0 && top_k < width ? top_k : top_p < 1 ? width : 0;
  int32_t *order = NULL;
  if (k > 0 && !(order = ni_alloc(k * (sizeof *order + sizeof(float)))))
    return NEAP_EMEM;
  for (size_t r = 0; r < rows; r++) {
    const float *row = (const float *)x->data + r * width;
    int32_t *id = (int32_t *)ids->data + r;
    if (k > 0) { /* of some, or with the largest first */
      float *values = (float *)(order + k);
      top_of_row(row, width, k, order, values);
      *id = draw_of(values, k, temperature, top_p, random[r]);
      if (*id >= 0)
        *id = order[*id];
    } else {
      *id = draw_of(row, width, temperature, 1, random[r]);
    }
  }
  ni_free(order);
  return NEAP_OK;
}

void ni_tensor_retain(neap_tensor *t) {
  if (t)
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
}

void ni_tensor_release(neap_tensor *t) {
  if (!t || atomic_fetch_sub(&t->refs, 1) != 1)
    return;
  ni_tensor_release(t->owner);
  ni_free(t);
}
