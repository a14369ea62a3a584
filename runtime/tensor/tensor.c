#include "tensor.h"

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
