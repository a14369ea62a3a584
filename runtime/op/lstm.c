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
static const ni_cell cell = {.gates = 4, .fused = true, .first = 4, .wide = {1, 1}, .narrow = 4};

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

static void walk(const ni_exec *x, const ni_node *n, size_t p0, size_t p1) {
  ni_layer l = ni_layer_of(x, n, &cell);
  NI_R(ni_step) step = NI_R(ni_layer_step)(x, n, &l);
  real *work = x->work[n->index], *y = x->view[n->out].data;
  real *c = work + l.wide[C], *tc = work + l.wide[TANH_C];
  real *h0 = work + l.narrow[FIRST_H], *c0 = work + l.narrow[FIRST_C];
  NI_R(ni_state_first)(x, l.space, slot(n, 0), ni_layer_input(n, 5), p0, p1, l.h, h0);
  NI_R(ni_state_first)(x, l.space, slot(n, 1), ni_layer_input(n, 6), p0, p1, l.h, c0);
  for (size_t t = 0, m; (m = ni_layer_alive(&l, t, p0, p1)) > 0; t++) {
    if (ni_layer_stop(x)) return;
    size_t row = l.rows->off[t] + p0;
    step.x = (const real *)x->view[n->in[0]].data + row * l.inputs;
    step.sums = work + l.gates + row * l.n;
    step.gates = x->keeps ? work + l.gates + row * l.n : NULL;
    step.kept = x->keeps ? tc + row * l.h : NULL;
    step.before = NI_R(ni_layer_before)(&l, t, p0, y, h0);
    step.c_before = NI_R(ni_layer_before)(&l, t, p0, c, c0);
    step.c = c + row * l.h;
    step.h = y + row * l.h;
    step.downwards = t & 1;
    NI_R(ni_kernel)()->lstm(m, &step);
  }
  NI_R(ni_layer_last)(x, n, &l, 0, p0, p1, y, h0);
  NI_R(ni_layer_last)(x, n, &l, 1, p0, p1, c, c0);
}

static void walk_back(const ni_exec *x, const ni_node *n, size_t p0, size_t p1) {
  const NI_R(ni_kernels) *k = NI_R(ni_kernel)();
  ni_layer l = ni_layer_of(x, n, &cell);
  const real *fixed = x->fixed[n->index], *y = x->view[n->out].data, *dy = x->view[n->out].grad;
  real *work = x->work[n->index], *dh = work + l.narrow[DH], *dc = work + l.narrow[DC];
  const real *c = work + l.wide[C], *tc = work + l.wide[TANH_C];
  size_t alive = 0;
  for (size_t t = l.rows->steps; t-- > 0;) {
    size_t m = ni_layer_alive(&l, t, p0, p1), row = l.rows->off[t] + p0;
    if (m == 0) continue;
    if (ni_layer_stop(x)) return;
    NI_R(ni_layer_last_back)(x, n, &l, 0, p0 + alive, p0 + m, dh);
    NI_R(ni_layer_last_back)(x, n, &l, 1, p0 + alive, p0 + m, dc);
    alive = m;
    real *d = dh + p0 * l.h, *g = work + l.gates + row * l.n;
    const real *cp = NI_R(ni_layer_before)(&l, t, p0, c, work + l.narrow[FIRST_C]);
    if (dy) k->add(m * l.h, d, dy + row * l.h, d);
    for (size_t i = 0; i < m; i++)
      k->lstm_back(l.h, g + i * l.n, cp + i * l.h, tc + (row + i) * l.h, d + i * l.h,
                   dc + (p0 + i) * l.h);
    memcpy(work + l.before + row * l.h,
           NI_R(ni_layer_before)(&l, t, p0, y, work + l.narrow[FIRST_H]), m * l.h * sizeof(real));
    k->gemm(m, l.h, l.n, g, l.n, fixed + l.u_back[0], NULL, false, d, l.h);
  }
  NI_R(ni_layer_last_back)(x, n, &l, 0, p0 + alive, p1, dh);
  NI_R(ni_layer_last_back)(x, n, &l, 1, p0 + alive, p1, dc);
  NI_R(ni_state_first_back)(x, l.space, slot(n, 0), ni_layer_input(n, 5), p0, p1, l.h, dh);
  NI_R(ni_state_first_back)(x, l.space, slot(n, 1), ni_layer_input(n, 6), p0, p1, l.h, dc);
}

static void forward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  ni_layer l = ni_layer_of(x, n, &cell);
  NI_R(ni_layer_sums)(x, n, &l);
  NI_R(ni_layer_walk)(x, n, &l, walk);
}

static void backward(const ni_exec *x, const ni_node *n, size_t r0, size_t r1) {
  (void)r0, (void)r1;
  ni_layer l = ni_layer_of(x, n, &cell);
  real *work = x->work[n->index];
  NI_R(ni_layer_walk)(x, n, &l, walk_back);
  NI_R(ni_layer_gradients)(x, n, &l, work + l.gates, work + l.gates, NULL);
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
