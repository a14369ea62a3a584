/*
** Floor 1: raw pointers in and out. Kernels cannot fail and cannot allocate.
**
** Same bits: every kernel gives a number the same bits however many rows or columns are asked for
** at once and wherever in memory they lie. A product sums over K in rising order, one fused
** multiply-add after the other (plain multiply and add in generic.c), starting from 0, from the
** bias or from what stands in C. So do all sizes of one CPU level; levels differ among themselves.
*/
#ifndef NI_KERNEL_H
#define NI_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "real.h"

enum { NI_TANH, NI_RELU, NI_SIGMOID, NI_IDENTITY };

/*
** One step of a recurrent layer of H units for some rows. The sums start from `sums` if inputs is
** 0 (they hold W x + bias then), else from the bias, and W x is added to them; U h' comes after.
** Where a pointer is marked optional, NULL leaves it out.
*/
typedef struct NI_R(ni_step) {
  size_t units, inputs; /* H, I */
  size_t from, to;      /* of the units those to be computed; from is a multiple of panel */
  bool downwards;       /* the last units first: steps that take turns find in the cache what the
                        ** step before has read last; no number depends on it */
  const real *w, *u;    /* weight_ih (if inputs), weight_hh: panels of pack_gates */
  const real *bias;     /* [G*H], if inputs */
  const real *bias_u;   /* GRU: [H], added to U h' in gate n; optional */
  size_t stride;        /* from a row of sums and gates to the next */
  const real *sums;     /* [m, G*H], if not inputs */
  const real *x;        /* [m, I] */
  const real *before;   /* h' [m, H] */
  const real *c_before; /* LSTM: c' [m, H] */
  int activation;       /* Elman: NI_TANH ... */
  real *gates;          /* LSTM, GRU: [m, 4*H], the gates as they act, and of the GRU, in the
                        ** last block, U h' + bias_u of gate n; optional, may be sums */
  real *tanh_c;         /* LSTM: [m, H]; optional */
  real *c;              /* LSTM: c [m, H], may be c_before */
  real *h, *also;       /* h [m, H], not h'; a second copy of it, optional */
} NI_R(ni_step);

typedef struct NI_R(ni_kernels) {
  const char *level; /* "generic", "avx2", "avx512", "neon" */
  size_t panel;      /* N, and the units of a step, may be cut at multiples of it, since packed
                     ** columns stand together: from column j on at j*K. 0: not at all */

  /* ---- products ---- */

  /* Reals that pack needs for an [N,K] matrix. */
  size_t (*packed)(size_t n, size_t k);
  /* Packs for C = A W^T: w is [N,K] with row stride ldw (transposed false), or [K,N] (true: then
  ** C = A W). Columns past N in the last panel are zeros. */
  void (*pack)(size_t n, size_t k, const real *w, size_t ldw, bool transposed, real *packed);
  /* C[M,N] = A[M,K] * packed + start, where start is C itself (accumulate), else bias[N], else 0
  ** (bias NULL). lda and ldc are the row strides of A and C. */
  void (*gemm)(size_t m, size_t n, size_t k, const real *a, size_t lda, const real *packed,
               const real *bias, bool accumulate, real *c, size_t ldc);
  /* C[M,N] += A^T B, for a K that the caches hold: A [K,M], row stride lda, as turn leaves it,
  ** B [K,N] as pack does. turned are the reals of M columns, and where in them column M starts if
  ** it is a multiple of group. */
  size_t group;
  size_t (*turned)(size_t m, size_t k);
  void (*turn)(size_t m, size_t k, const real *a, size_t lda, real *to);
  void (*outer)(size_t m, size_t n, size_t k, const real *turned, const real *packed, real *c,
                size_t ldc);
  /* sum of x[i]*y[i], in an order fixed by n. */
  real (*dot)(size_t n, const real *x, const real *y);
  /* y += a*x */
  void (*axpy)(size_t n, real a, const real *x, real *y);

  /* ---- elementwise; y may be x ---- */

  void (*exp)(size_t n, const real *x, real *y);
  void (*tanh)(size_t n, const real *x, real *y);
  void (*sigmoid)(size_t n, const real *x, real *y);
  void (*add)(size_t n, const real *a, const real *b, real *y);
  void (*sub)(size_t n, const real *a, const real *b, real *y);
  void (*mul)(size_t n, const real *a, const real *b, real *y);
  /* y += a*b elementwise */
  void (*mul_add)(size_t n, const real *a, const real *b, real *y);
  /* dx += dy * (1 - y*y);  dx += dy * y * (1 - y) */
  void (*tanh_back)(size_t n, const real *y, const real *dy, real *dx);
  void (*sigmoid_back)(size_t n, const real *y, const real *dy, real *dx);
  /* sum and largest of x; the sum in an order fixed by n; n 0: 0 and -inf */
  real (*sum)(size_t n, const real *x);
  real (*max)(size_t n, const real *x);
  /* how many numbers stand before the first that is NaN or infinite; n if there is none */
  size_t (*finite_first)(size_t n, const real *x);
  /* y += the sum of the rows of A [rows,N], row stride lda: from the first to the last, then to y */
  void (*sum_rows)(size_t n, size_t rows, const real *a, size_t lda, real *y);
  /* y = exp(x - shift), returns the sum of y (as sum does): the middle of a softmax */
  real (*exp_sum)(size_t n, const real *x, real shift, real *y);

  /* ---- a recurrent step; H units ---- */

  /* Reals that pack_gates needs for a [G*H,K] matrix. */
  size_t (*packed_gates)(size_t gates, size_t h, size_t k);
  /* Packs units from..to-1 of w [G*H,K], row stride ldw, so that the gates of a unit lie together. */
  void (*pack_gates)(size_t gates, size_t h, size_t k, size_t from, size_t to, const real *w,
                     size_t ldw, real *packed);
  /* Elman (1990), m rows: h = act(W x + b + U h'). */
  void (*elman)(size_t m, const NI_R(ni_step) *step);
  /*
  ** LSTM (Hochreiter and Schmidhuber 1997, forget gate: Gers et al. 2000), m rows; gates i f g o:
  ** c = f*c' + i*g; h = o*tanh(c).
  */
  void (*lstm)(size_t m, const NI_R(ni_step) *step);
  /* Backward of n units of one row: g holds activations on entry and d(sums) on return, one gate H
  ** after the other; dh the gradient of h; dc the gradient of c from the next step on entry, of
  ** c_prev on return. */
  void (*lstm_back)(size_t n, size_t h, real *g, const real *c_prev, const real *tc, const real *dh, real *dc);
  /*
  ** GRU (Cho et al. 2014), reset after the product as in PyTorch, m rows; gates r z n:
  ** n = tanh(W x + b + r*(U h' + bias_u)); h = (1-z)*n + z*h'. bias holds both biases of r and z,
  ** but of n only that of the inputs.
  */
  void (*gru)(size_t m, const NI_R(ni_step) *step);
  /* Backward of n units of one row: g holds r z n and U h' + bias_u, one block of H after the other,
  ** on entry; on return d(sums) of r z and, of n, of W x + bias and of U h' + bias_u. dh_prev = dh*z (the
  ** rest comes through d(sums)). */
  void (*gru_back)(size_t n, size_t h, real *g, const real *h_prev, const real *dh, real *dh_prev);

  /* ---- optimizers; n parameters ---- */

  /* Adam (Kingma and Ba 2015): m = b1*m + (1-b1)*g; v = b2*v + (1-b2)*g*g;
  ** p -= rate*( (m/c1) / (sqrt(v/c2) + eps) + decoupled*p ), g = grad*scale + coupled*p. */
  void (*adam)(size_t n, real *p, const real *grad, real scale, real *m, real *v, real rate,
               real b1, real b2, real c1, real c2, real eps, real coupled, real decoupled);
} NI_R(ni_kernels);

extern const NI_R(ni_kernels) NI_R(ni_kernels_generic);

/* The table in use. For double always the generic one. */
const NI_R(ni_kernels) *NI_R(ni_kernel)(void);

#ifndef NI_F64
/* On x86-64 only; run only where dispatch.c finds the instructions. */
extern const ni_kernels_f32 ni_kernels_avx2, ni_kernels_avx512;
/* On aarch64 only, and there always. */
extern const ni_kernels_f32 ni_kernels_neon;

/* Takes another level: false if this processor or build lacks it. */
bool ni_kernel_select(const char *level);

/*
** The large products of training, through OpenBLAS:
** C[M,N] (+)= A^T B, A [K,M], B [K,N], row-major.
*/
void ni_gemm_tn_f32(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b,
                    size_t ldb, bool accumulate, float *c, size_t ldc);
void ni_blas_threads(int threads);
const char *ni_blas_core(void);
/* OpenBLAS takes its oldest SSE kernels for a processor younger than itself: then our own are five
** times as fast; with AMD's AVX-512 up to 8 %. Asked once a process, so the bits of a process
** never change for it. */
bool ni_blas_is_fast(void);
#endif

#endif
