/*
** Floor 2: contiguous row-major tensors of f32 or i32.
*/
#ifndef NI_TENSOR_H
#define NI_TENSOR_H

#include "../base/base.h"

struct neap_tensor {
  atomic_int refs;
  neap_dtype dtype;
  int rank;
  size_t dims[NEAP_MAX_RANK]; /* 1 past the rank */
  size_t size;                /* elements */
  void *data;                 /* in the same block, aligned to 64 bytes; a view's are its owner's */
  neap_tensor *owner;         /* of a view: held by it; never a view itself */
};

/* The number of elements of a shape: EARG for a wrong rank, ERANGE for more than can be held in
** memory (as 4-byte elements), even where another dimension is 0. */
neap_status ni_shape_size(size_t *size, const char *who, int rank, const size_t *dims);

neap_status ni_tensor_new(neap_tensor **t, neap_dtype dtype, int rank, const size_t *dims);
/* Part `index` along the first axis, one rank less, in the same memory. */
neap_status ni_tensor_part(neap_tensor **t, neap_tensor *of, size_t index);
neap_status ni_tensor_top(neap_tensor *ids, neap_tensor *values, const neap_tensor *x);
neap_status ni_tensor_draw(neap_tensor *ids, const neap_tensor *x, double temperature,
                           size_t top_k, double top_p, const double *random);
void ni_tensor_retain(neap_tensor *t);
void ni_tensor_release(neap_tensor *t);

#endif
