/*
** Shared by the files of this floor: prototypes of what ops.h names, checks of recorded types,
** and sums over rows.
*/
#ifndef NI_OP_UTIL_H
#define NI_OP_UTIL_H

#include "op.h"

/* Many ops share one function. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wredundant-decls"
#define OP(name, in_min, in_max, outs, flags, attrs, keep_in, keep_out, infer, work, fixed, ...) \
  neap_status ni_infer_##infer(ni_infer *i);                                                     \
  size_t ni_work_##work(const ni_exec *x, const ni_node *n);                                     \
  size_t ni_fixed_##fixed(const ni_exec *x, const ni_node *n, bool backward);
#include "ops.h"
#undef OP
#pragma GCC diagnostic pop

/* ---- recording ---- */

/* Input k must be of this dtype; who names it in the message. */
static inline neap_status ni_want(const ni_infer *i, int k, neap_dtype dtype, const char *who) {
  if (i->in[k]->dtype == dtype) return NEAP_OK;
  return ni_fail(NEAP_ETYPE, "%s must be %s, not %s", who, dtype == NEAP_F32 ? "f32" : "i32",
                 ni_type_text(i, i->in[k]));
}

/* A number that may change between runs: f32, one element, in no space. */
static inline neap_status ni_want_number(const ni_infer *i, int k, const char *who) {
  const neap_type *t = i->in[k];
  neap_status rc = ni_want(i, k, NEAP_F32, who);
  if (rc) return rc;
  for (int d = 0; d < t->rank; d++)
    if (t->dim[d] != 1) rc = NEAP_ESHAPE;
  if (!rc && t->space == NEAP_NO_SPACE) return NEAP_OK;
  return ni_fail(NEAP_ESHAPE, "%s must be one number, not %s", who, ni_type_text(i, t));
}

/* Attribute k as a whole number in low..high. */
static inline neap_status ni_want_whole(const ni_infer *i, int k, const char *who, int low,
                                        int high, int *value) {
  double v = i->attr[k];
  if (!(v >= low && v <= high) || v != (int)v)
    return ni_fail(NEAP_ERANGE, "%s must be a whole number in %d..%d, not %g", who, low, high, v);
  *value = (int)v;
  return NEAP_OK;
}

/* Axis attribute k of input 0. */
static inline neap_status ni_want_axis(const ni_infer *i, int k, const char *who, int *axis) {
  if (i->in[0]->rank == 0)
    return ni_fail(NEAP_ESHAPE, "x must have a feature dimension: %s", ni_type_text(i, i->in[0]));
  return ni_want_whole(i, k, who, 0, i->in[0]->rank - 1, axis);
}

/* Input 0 must be in a sequence space. */
static inline neap_status ni_want_sequence(const ni_infer *i, int *parent) {
  int space = i->in[0]->space;
  *parent = space < 0 ? -1 : i->space[space].parent;
  if (*parent >= 0) return NEAP_OK;
  return ni_fail(NEAP_ESHAPE, "x must be a sequence, such as [T,B,8], not %s",
                 ni_type_text(i, i->in[0]));
}

static inline bool ni_same_features(const neap_type *a, const neap_type *b) {
  if (a->rank != b->rank) return false;
  for (int d = 0; d < a->rank; d++)
    if (a->dim[d] != b->dim[d]) return false;
  return true;
}

/* ---- running ---- */

static inline size_t ni_dim(const ni_exec *x, int32_t dim) {
  return dim >= 0 ? (size_t)dim : x->rows[-1 - dim].steps;
}

/* A row seen along one feature axis: outer blocks of n lines of inner elements. */
typedef struct ni_axis {
  size_t outer, n, inner;
} ni_axis;
static inline ni_axis ni_axis_of(const ni_exec *x, const neap_type *t, int axis) {
  ni_axis a = {1, 1, 1};
  for (int d = 0; d < t->rank; d++) {
    size_t n = ni_dim(x, t->dim[d]);
    if (d < axis) a.outer *= n;
    if (d == axis) a.n = n;
    if (d > axis) a.inner *= n;
  }
  return a;
}

static inline size_t NI_R(ni_element)(neap_dtype dtype) {
  return dtype == NEAP_I32 ? sizeof(int32_t) : sizeof(real);
}

enum { NI_CHUNK = 256, NI_COLUMNS = 64 };

/* to[c] += sum over rows of x[r*stride + c], c in 0..n-1, row after row in double. */
static inline void NI_R(ni_add_rows)(size_t rows, size_t n, const real *x, size_t stride,
                                     real *to) {
  for (size_t c = 0; c < n; c += NI_COLUMNS) {
    size_t m = n - c < NI_COLUMNS ? n - c : NI_COLUMNS;
    double sum[NI_COLUMNS] = {0};
    for (size_t r = 0; r < rows; r++)
      for (size_t i = 0; i < m; i++) sum[i] += (double)x[r * stride + c + i];
    for (size_t i = 0; i < m; i++) to[c + i] += (real)sum[i];
  }
}

#endif
