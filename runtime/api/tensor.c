/*
** Floor 7: tensors as the public header has them.
*/
#include "../tensor/tensor.h"

NEAP_API neap_status neap_tensor_new(neap_tensor **t, neap_dtype dtype, int rank,
                                     const size_t *dims) {
  if (!t)
    return ni_fail(NEAP_EARG, "tensor: expected a place for the result, came NULL");
  *t = NULL;
  if (rank > 0 && !dims)
    return ni_fail(NEAP_EARG, "tensor: expected %d dimensions, came NULL", rank);
  return ni_tensor_new(t, dtype, rank, dims);
}

NEAP_API neap_status neap_tensor_part(neap_tensor **t, neap_tensor *of, size_t index) {
  if (!t)
    return ni_fail(NEAP_EARG, "tensor part: expected a place for the result, came NULL");
  *t = NULL;
  if (!of)
    return ni_fail(NEAP_EARG, "tensor part: expected a tensor, came NULL");
  return ni_tensor_part(t, of, index);
}

NEAP_API neap_status neap_tensor_top(neap_tensor *ids, neap_tensor *values, const neap_tensor *x) {
  if (!ids || !values || !x)
    return ni_fail(NEAP_EARG, "tensor top: expected three tensors, came NULL");
  return ni_tensor_top(ids, values, x);
}

NEAP_API neap_status neap_tensor_draw(neap_tensor *ids, const neap_tensor *x, double temperature,
                                      size_t top_k, double top_p, const double *random) {
  if (!ids || !x || !random)
    return ni_fail(NEAP_EARG, "tensor draw: expected two tensors and numbers, came NULL");
  return ni_tensor_draw(ids, x, temperature, top_k, top_p, random);
}

NEAP_API void neap_tensor_retain(neap_tensor *t) { ni_tensor_retain(t); }

NEAP_API void neap_tensor_release(neap_tensor *t) { ni_tensor_release(t); }

NEAP_API neap_dtype neap_tensor_dtype(const neap_tensor *t) { return t ? t->dtype : NEAP_F32; }

NEAP_API int neap_tensor_rank(const neap_tensor *t) { return t ? t->rank : 0; }

NEAP_API size_t neap_tensor_dim(const neap_tensor *t, int axis) {
  return t && axis >= 0 && axis < t->rank ? t->dims[axis] : 0;
}

NEAP_API size_t neap_tensor_size(const neap_tensor *t) { return t ? t->size : 0; }

NEAP_API void *neap_tensor_data(neap_tensor *t) { return t ? t->data : NULL; }
