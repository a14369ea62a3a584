/*
** First and last states of sequences: from an attached state, else from the program. A state holds
** floats, also where a run computes in double.
*/
#include <string.h>

#include "op.h"

/* The attached row of sorted position p if it holds a value, else NULL. */
static const float *held(const ni_exec *x, int space, int slot, size_t p, size_t width) {
  if (!x->slot || slot < 0) return NULL;
  size_t row = x->rows[space].state[p];
  return x->slot[slot].held[row] ? (const float *)x->slot[slot].data + row * width : NULL;
}

void NI_R(ni_state_first)(const ni_exec *x, int space, int slot, int init, size_t p0, size_t p1,
                          size_t width, real *dst) {
  const uint32_t *perm = x->rows[space].perm;
  const real *from = init < 0 ? NULL : x->view[init].data;
  const ni_carry *c = ni_carry_of(x, slot);
  size_t at = p0 * width, bytes = (p1 - p0) * width * sizeof(real);
  if (c && ni_goes_on(x, space)) {
    memcpy(dst + at, (real *)c->first + at, bytes);
    return;
  }
  for (size_t p = p0; p < p1; p++) {
    const float *h = held(x, space, slot, p, width);
    real *to = dst + p * width;
    if (h)
      for (size_t i = 0; i < width; i++) to[i] = (real)h[i];
    else if (from)
      memcpy(to, from + perm[p] * width, width * sizeof(real));
    else
      memset(to, 0, width * sizeof(real));
  }
  if (c) memcpy((real *)c->first + at, dst + at, bytes);
}

void NI_R(ni_state_first_back)(const ni_exec *x, int space, int slot, int init, size_t p0,
                               size_t p1, size_t width, const real *dfirst) {
  real *to = init < 0 ? NULL : x->view[init].grad;
  const ni_carry *c = ni_carry_of(x, slot);
  if (c && c->dfirst) {
    size_t at = p0 * width;
    memcpy((real *)c->dfirst + at, dfirst + at, (p1 - p0) * width * sizeof(real));
    return;
  }
  for (size_t p = p0; to && p < p1; p++) {
    if (held(x, space, slot, p, width)) continue;
    real *sum = to + x->rows[space].perm[p] * width;
    for (size_t i = 0; i < width; i++) sum[i] += dfirst[p * width + i];
  }
}

void NI_R(ni_state_last)(const ni_exec *x, int space, int slot, size_t p, size_t width,
                         const real *src) {
  const ni_carry *c = ni_carry_of(x, slot);
  if (c) memcpy((real *)c->last + p * width, src, width * sizeof(real));
  if (!x->slot || slot < 0 || x->again) return;
  float *to = (float *)x->slot[slot].next + x->rows[space].state[p] * width;
  for (size_t i = 0; i < width; i++) to[i] = (float)src[i];
}
