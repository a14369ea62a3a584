/*
** What the whole-sequence layers (elman.c, lstm.c, gru.c) share. Inputs: x [T,B,I], weight_ih
** [G*H,I], weight_hh [G*H,H], bias_ih, bias_hh [G*H], first states [B,H]; the last ones optional.
**
** Forward: the products with x for the rows of some steps at once; then each thread walks its own
** sequences through these steps, without waiting for the others. Backward: the same walk from the
** last step to the first leaves d(sums) of some steps; the gradients of x, of the weights and of the
** biases are then products over their rows.
*/
#ifndef NI_RECURRENT_H
#define NI_RECURRENT_H

#include "product.h"

/* What sets a layer apart. */
typedef struct ni_cell {
  size_t gates;
  size_t blocks;   /* of H in a row that forward leaves for backward: the gates, and of a GRU that resets
                   ** after the product one more */
  bool fused;      /* a step is one kernel: forward has weight_hh packed by units, not in parts */
  size_t first;    /* gates in the first packing of weight_hh; the others are in the second */
  bool slab[2];    /* slabs [rows,H] of its own */
  bool always[2];  /* which of them forward needs too; the others are backward's */
  size_t narrow;   /* slabs [B,H]: first states, gradients that walk back */
} ni_cell;

typedef struct ni_layer {
  const ni_rows *rows;
  int space;
  size_t inputs, h, n;      /* I, H, G*H */
  size_t row;               /* from one row of gates to the next: n, or blocks*H if backward follows */
  size_t part[2];           /* rows of weight_hh in each packing */
  size_t fused;             /* gates, if a step is one kernel, else 0 */
  bool direct;              /* and adds up W x itself */
  /* where things stand in fixed, counted in reals: panels, the sum of the biases; for backward
  ** panels of the other orientation and scratch */
  size_t w, u[2], bias, fixed, w_back, u_back[2], scratch, fixed_back;
  /* in work: gates [rows,row], of a piece's rows if no backward follows; h of the step before
  ** [rows,H], the cell's own slabs */
  size_t gates, before, slab[2], narrow[4], work;
  size_t piece, piece_back; /* rows that are walked at a time, if a step has no more */
} ni_layer;

ni_layer ni_layer_of(const ni_exec *x, const ni_node *n, const ni_cell *cell);
neap_status ni_layer_infer(ni_infer *i, const ni_cell *cell, int states);

/* Value id of input k, -1 if it is left out. */
static inline int ni_layer_input(const ni_node *n, int k) { return k < n->n_in ? n->in[k] : -1; }
/* Data of input k, NULL if it is left out. */
static inline const void *ni_layer_data(const ni_exec *x, const ni_node *n, int k) {
  int v = ni_layer_input(n, k);
  return v < 0 ? NULL : x->view[v].data;
}

/* Of positions p0..p1-1 those that are alive at step t. */
static inline size_t ni_layer_alive(const ni_layer *l, size_t t, size_t p0, size_t p1) {
  if (t >= l->rows->steps) return 0;
  size_t alive = l->rows->off[t + 1] - l->rows->off[t], end = p1 < alive ? p1 : alive;
  return end > p0 ? end - p0 : 0;
}

/* True once the run is to end. */
static inline bool ni_layer_stop(const ni_exec *x) {
  return x->canceled && atomic_load_explicit(x->canceled, memory_order_relaxed);
}

/* In a slab of width H: row p0 of the step before t, `first` before the first step. */
static inline const real *NI_R(ni_layer_before)(const ni_layer *l, size_t t, size_t p0,
                                                const real *slab, const real *first) {
  return (t ? slab + l->rows->off[t - 1] * l->h : first) + p0 * l->h;
}

/* Packs both weights and adds bias_hh to bias_ih, its first `merged` elements. */
void NI_R(ni_layer_prepare)(const ni_exec *x, const ni_node *n, const ni_layer *l, bool backward,
                            size_t merged);
/* What the kernel of a step is told that is the same at all steps. */
NI_R(ni_step) NI_R(ni_layer_step)(const ni_exec *x, const ni_node *n, const ni_layer *l);
#ifndef NI_F64
/* The step of a stream, all but the kernel; false where forward must do it. */
bool ni_layer_bind(ni_call *c, const ni_layer *l);
/* After it: the last states as values of the program. */
void ni_layer_bound_last(const ni_call *c, int states);
#endif
/*
** All steps of a layer, one after the other, in pieces: what is done for all rows of a piece before
** and after its steps finds in the cache what they leave there. In a piece each thread takes sorted
** positions of its own through the steps and waits for nobody, where rows abound; where they do not,
** and a step is long, each takes units of its own and waits for the others after each step. The
** functions are told which.
*/
typedef struct NI_R(ni_walk) NI_R(ni_walk);
struct NI_R(ni_walk) {
  const ni_exec *x;
  const ni_node *n;
  ni_layer l;
  size_t first_row; /* whose gates stand first; the walk sets it: 0, or of the piece at hand */
  bool back;       /* from the last step to the first, and one more for the first state */
  bool whole;      /* units cannot be cut */
  /* Rows r0..r1-1 before their steps are walked, and after it; NULL: nothing. They have the pool. */
  void (*before_piece)(const NI_R(ni_walk) *w, size_t r0, size_t r1);
  void (*after_piece)(const NI_R(ni_walk) *w, size_t r0, size_t r1);
  /* Before the first step (NULL: nothing) and after the last one, for positions p0..p1-1. */
  void (*begin)(const NI_R(ni_walk) *w, size_t p0, size_t p1);
  void (*end)(const NI_R(ni_walk) *w, size_t p0, size_t p1);
  /* Step i of the walk for positions p0..p1-1 and units u0..u1-1. It may read of all units what
  ** earlier steps have written. */
  void (*step)(const NI_R(ni_walk) *w, size_t i, size_t p0, size_t p1, size_t u0, size_t u1);
};
void NI_R(ni_layer_walk)(NI_R(ni_walk) *w);
/* The gates of a row. */
static inline real *NI_R(ni_layer_gates)(const NI_R(ni_walk) *w, size_t row) {
  return (real *)w->x->work[w->n->index] + w->l.gates + (row - w->first_row) * w->l.row;
}
/* `before_piece` of a forward walk: sums that need no earlier step, gates = W x + bias. A layer whose steps
** do it themselves has no need of it. */
void NI_R(ni_layer_sums)(const NI_R(ni_walk) *w, size_t r0, size_t r1);
/* Last state j of positions p0..p1-1, from a slab of rows and the first state. */
void NI_R(ni_layer_last)(const ni_exec *x, const ni_node *n, const ni_layer *l, int j, size_t p0,
                         size_t p1, const real *slab, const real *first);
/* d [B,H], positions p0..p1-1 and units u0..u1-1, becomes the gradient of last state j; in
** a segment, what the one after it has handed in. */
void NI_R(ni_layer_last_back)(const NI_R(ni_walk) *w, int j, size_t p0, size_t p1, size_t u0,
                              size_t u1, real *d);
/* What backward does at step t before a layer's own: units u0..u1-1 of d become the gradient of h,
** those of sequences that end here included, and h of the step before is copied to its rows. Returns
** the rows alive. */
size_t NI_R(ni_layer_step_back)(const NI_R(ni_walk) *w, size_t t, size_t p0, size_t p1, size_t u0,
                                size_t u1, const real *first, real *d);
/* dst[r][u0..u1-1] (+)= src[r][u0..u1-1] for m rows of H units. */
void NI_R(ni_units_copy)(size_t m, size_t h, size_t u0, size_t u1, const real *src, real *dst);
void NI_R(ni_units_add)(size_t m, size_t h, size_t u0, size_t u1, const real *src, real *dst);
/*
** For `after_piece` of a walk back: gradients of x, weights and biases from d(sums), which stand where
** the gates of rows r0..r1-1 stood. Those of x are the first n columns; those of h too, but where a row
** has a block more that block instead of the last H of them. d(sums) of h go with h of the step before,
** and the last H with `other` [rows,H] if that is not NULL.
*/
void NI_R(ni_layer_gradients)(const NI_R(ni_walk) *w, size_t r0, size_t r1, const real *other);

#endif
