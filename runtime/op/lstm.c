/*
** LSTM (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000), blocks i f g o:
**   c = f*c' + i*g,  h = o*tanh(c).
** Kept for backward: the activated gates, c, tanh(c), the first states; h is the output. Backward
** turns the gates into d(sums) in place.
*/
#include <string.h>

#include "recurrent.h"

enum { C, TANH_C };
enum { FIRST_H, FIRST_C, DH, DC };
static const ni_cell cell = {.gates = 4, .blocks = 4, .fused = true, .first = 4, .slab = {true, true},
                             .always = {true}, .narrow = 4};

#ifndef NI_F64
neap_status ni_infer_lstm(ni_infer *i) { return ni_layer_infer(i, &cell, 2); }
size_t ni_work_lstm(const ni_exec *x, const ni_node *n) { return ni_layer_of(x, n, &cell).work; }
size_t ni_fixed_lstm(const ni_exec *x, const ni_node *n, bool backward) {
  ni_layer l = ni_layer_of(x, n, &cell);
  return backward ? l.fixed_back : l.fixed;
}
#endif

static void prepare(const ni_exec *x, const ni_node *n, bool backward) {
  ni_layer l = ni_layer_of(x, n, &cell);
  NI_R(ni_layer_prepare)(x, n, &l, backward, l.n);
}

static int slot(const ni_node *n, int j) { return n->slot < 0 ? -1 : n->slot + j; }

static void begin(const NI_R(ni_walk) *w, size_t p0, size_t p1) {
  real *work = w->x->work[w->n->index];
  NI_R(ni_state_first)(w->x, w->l.space, slot(w->n, 0), ni_layer_input(w->n, 5), p0, p1, w->l.h,
                       work + w->l.narrow[FIRST_H]);
  NI_R(ni_state_first)(w->x, w->l.space, slot(w->n, 1), ni_layer_input(w->n, 6), p0, p1, w->l.h,
                       work + w->l.narrow[FIRST_C]);
}

static void step(const NI_R(ni_walk) *w, size_t t, size_t p0, size_t p1, size_t u0, size_t u1) {
  const ni_exec *x = w->x;
  const ni_layer *l = &w->l;
  size_t m = ni_layer_alive(l, t, p0, p1), row = l->rows->off[t] + p0;
  if (m == 0) return;
  real *work = x->work[w->n->index], *y = x->view[w->n->out].data, *c = work + l->slab[C];
  NI_R(ni_step) s = NI_R(ni_layer_step)(x, w->n, l);
  s.from = u0;
  s.to = u1;
  s.x = (const real *)x->view[w->n->in[0]].data + row * l->inputs;
  s.sums = NI_R(ni_layer_gates)(w, row);
  s.gates = x->keeps ? NI_R(ni_layer_gates)(w, row) : NULL;
  s.tanh_c = x->keeps ? work + l->slab[TANH_C] + row * l->h : NULL;
  s.before = NI_R(ni_layer_before)(l, t, p0, y, work + l->narrow[FIRST_H]);
  s.c_before = NI_R(ni_layer_before)(l, t, p0, c, work + l->narrow[FIRST_C]);
  s.c = c + row * l->h;
  s.h = y + row * l->h;
  s.downwards = t & 1;
  NI_R(ni_kernel)()->lstm(m, &s);
}

static void end(const NI_R(ni_walk) *w, size_t p0, size_t p1) {
  real *work = w->x->work[w->n->index];
  NI_R(ni_layer_last)(w->x, w->n, &w->l, 0, p0, p1, w->x->view[w->n->out].data,
                      work + w->l.narrow[FIRST_H]);
  NI_R(ni_layer_last)(w->x, w->n, &w->l, 1, p0, p1, work + w->l.slab[C],
                      work + w->l.narrow[FIRST_C]);
}

/* The product that leads from d(sums) of step t + 1 to dh of step t, then step t itself: so a share
** of the units reads of others only what they wrote one step of the walk before. */
static void step_back(const NI_R(ni_walk) *w, size_t i, size_t p0, size_t p1, size_t u0, size_t u1) {
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  const ni_layer *l = &w->l;
  size_t h = l->h, t = l->rows->steps - 1 - i, later = ni_layer_alive(l, t + 1, p0, p1);
  real *work = w->x->work[w->n->index], *fixed = w->x->fixed[w->n->index];
  real *dh = work + l->narrow[DH], *dc = work + l->narrow[DC];
  if (later > 0)
    k->gemm(later, u1 - u0, l->n, work + l->gates + (l->rows->off[t + 1] + p0) * l->row, l->row,
            fixed + l->u_back[0] + u0 * l->n, NULL, false, dh + p0 * h + u0, h);
  if (i == l->rows->steps) return;
  size_t m = NI_R(ni_layer_step_back)(w, t, p0, p1, u0, u1, work + l->narrow[FIRST_H], dh);
  NI_R(ni_layer_last_back)(w, 1, p0 + later, p0 + m, u0, u1, dc);
  size_t row = l->rows->off[t] + p0;
  const real *cp = NI_R(ni_layer_before)(l, t, p0, work + l->slab[C], work + l->narrow[FIRST_C]);
  for (size_t r = 0; r < m; r++)
    k->lstm_back(u1 - u0, h, work + l->gates + (row + r) * l->row + u0, cp + r * h + u0,
                 work + l->slab[TANH_C] + (row + r) * h + u0, dh + (p0 + r) * h + u0,
                 dc + (p0 + r) * h + u0);
}

static void end_back(const NI_R(ni_walk) *w, size_t p0, size_t p1) {
  const ni_layer *l = &w->l;
  real *work = w->x->work[w->n->index], *dh = work + l->narrow[DH], *dc = work + l->narrow[DC];
  size_t ran = ni_layer_alive(l, 0, p0, p1);
  NI_R(ni_layer_last_back)(w, 0, p0 + ran, p1, 0, l->h, dh); /* of empty sequences */
  NI_R(ni_layer_last_back)(w, 1, p0 + ran, p1, 0, l->h, dc);
  NI_R(ni_state_first_back)(w->x, l->space, slot(w->n, 0), ni_layer_input(w->n, 5), p0, p1, l->h, dh);
  NI_R(ni_state_first_back)(w->x, l->space, slot(w->n, 1), ni_layer_input(w->n, 6), p0, p1, l->h, dc);
}

static void after_piece(const NI_R(ni_walk) *w, size_t r0, size_t r1) {
  NI_R(ni_layer_gradients)(w, r0, r1, NULL);
}

static void forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  NI_R(ni_walk) w = {x, n, ni_layer_of(x, n, &cell), .begin = begin, .step = step, .end = end};
  if (!w.l.direct) w.before_piece = NI_R(ni_layer_sums);
  NI_R(ni_layer_walk)(&w);
}

static void backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  NI_R(ni_walk) w = {x, n, ni_layer_of(x, n, &cell), .back = true, .step = step_back,
                     .end = end_back, .after_piece = after_piece};
  NI_R(ni_layer_walk)(&w);
}

#ifdef NI_F64
#define bind NULL
#else

static void bound(ni_call *c) {
  c->step.before = c->slot[0].data;
  c->step.also = c->slot[0].next;
  c->step.c_before = c->slot[1].data;
  c->step.c = c->slot[1].next;
  c->step.downwards = !c->step.downwards;
  c->kernel(c->rows, &c->step);
  if (c->reads & 6) ni_layer_bound_last(c, 2);
}

static void bind(ni_call *c) {
  ni_layer l = ni_layer_of(c->x, c->n, &cell);
  if (!ni_layer_bind(c, &l)) return;
  c->kernel = ni_kernel_f32()->lstm;
  c->fn = bound;
}

#endif

const ni_code NI_R(ni_code_lstm) = {forward, backward, NULL, prepare, bind};
