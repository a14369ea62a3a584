/*
** Products over many rows, for product.c and the recurrent layers. Work is divided over the rows
** and columns of the result, never over a sum: any number of threads gives the same bits.
*/
#ifndef NI_PRODUCT_H
#define NI_PRODUCT_H

#include "../kernel/kernel.h"
#include "util.h"

/* Reals for the packed panels of an [N,K] matrix: what float or double needs, the larger. */
size_t ni_product_packed(size_t n, size_t k);
/* Reals of scratch for ni_product_outer: M, and N of its factors (0: there is no second one). */
size_t ni_product_scratch(size_t m, size_t n1, size_t n2);
/* The same for panels of a recurrent step. */
size_t ni_product_packed_gates(size_t gates, size_t h, size_t k);
size_t ni_product_packed_f32(size_t n, size_t k);
size_t ni_product_packed_f64(size_t n, size_t k);
size_t ni_product_turned_f32(size_t m, size_t k);
size_t ni_product_turned_f64(size_t m, size_t k);

/* The kernels' pack and, of all units, pack_gates. */
void NI_R(ni_product_pack)(neap_pool *pool, size_t n, size_t k, const real *w, size_t ldw,
                           bool transposed, real *packed);
void NI_R(ni_product_pack_gates)(neap_pool *pool, size_t gates, size_t h, size_t k, const real *w,
                                 size_t ldw, real *packed);
/* C[M,N] = A[M,K] * packed + bias (NULL: none), or C += A * packed; row strides lda and ldc. */
void NI_R(ni_product_rows)(neap_pool *pool, size_t m, size_t n, size_t k, const real *a, size_t lda,
                           const real *packed, const real *bias, bool accumulate, real *c, size_t ldc);
/* For one or two factors: C[M,N] += A^T B, summed over rows: A is [rows,M] with row stride lda, B
** [rows,N]. */
typedef struct NI_R(ni_factor) {
  size_t n;
  const real *b;
  real *c;
} NI_R(ni_factor);
void NI_R(ni_product_outer)(neap_pool *pool, size_t m, size_t rows, const real *a, size_t lda,
                            int factors, const NI_R(ni_factor) *factor, real *scratch);
/* Adds the sum of the rows of A [rows,N], row stride lda, to `to` and to `also`; either may be
** NULL. */
void NI_R(ni_product_sum)(neap_pool *pool, size_t n, size_t rows, const real *a, size_t lda,
                          real *to, real *also);

#endif
