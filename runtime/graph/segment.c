/*
** Sequences in segments. Rows are sorted so that a step's rows lie together, hence those of a segment
** do too: its layout is a part of the whole one, and a value of whole sequences is seen at an offset.
** Values that only live within a segment have memory for the largest one, which is the first. States
** go over a border through their slots (ni_carry), forward and, as gradients, backward.
**
** With T steps in segments of L, borders take T/L states and a segment L steps of everything: L = the
** square root of T makes both grow like it (Chen et al. 2016, "Training deep nets with sublinear memory
** cost").
*/
#include <math.h>
#include <string.h>

#include "run.h"

neap_status ni_segments_open(neap_run *run) {
  if (!(run->flags & NEAP_RECOMPUTE)) return NEAP_OK;
  ni_segments *g = &run->segments;
  const neap_program *pr = run->pr;
  const char *why;
  neap_status rc = ni_schedule_segments(&run->plan, &why, pr);
  if (rc) return rc;
  size_t values = (size_t)pr->n_values, slots = (size_t)pr->n_slots + 1;
  g->whole = why ? ni_strdup(why) : NULL;
  g->data = ni_calloc(2 * values, sizeof *g->data);
  g->carry = ni_calloc(slots, sizeof *g->carry);
  g->border = ni_calloc(2 * slots, sizeof *g->border);
  if ((why && !g->whole) || !g->data || !g->carry || !g->border) return NEAP_EMEM;
  g->grad = g->data + values;
  g->slope = g->border + slots;
  g->start = -1;
  return NEAP_OK;
}

void ni_segments_close(neap_run *run) {
  ni_segments *g = &run->segments;
  ni_free(g->whole);
  ni_free(g->data);
  ni_free(g->carry);
  ni_free(g->border);
  ni_free(g->mem);
}

size_t ni_segments_bytes(const neap_run *run) {
  const ni_segments *g = &run->segments;
  return ni_bytes_of(g->whole) + ni_bytes_of(g->data) + ni_bytes_of(g->carry) +
         ni_bytes_of(g->border) + ni_bytes_of(g->mem);
}

static bool is_output(const neap_program *pr, int value) {
  for (int o = 0; o < pr->n_outputs; o++)
    if (pr->output[o].value == value) return true;
  return false;
}

bool ni_segments_local(const neap_run *run, int value) {
  const ni_value *v = &run->pr->value[value];
  int unit = run->plan.unit_of[v->node];
  return unit >= run->plan.from && unit < run->plan.to && v->type.space == run->plan.space &&
         !run->keep[value] && !is_output(run->pr, value);
}

/* The rows of steps t0..t1-1. */
static void cut(neap_run *run, size_t t0, size_t t1) {
  ni_segments *g = &run->segments;
  int space = run->plan.space;
  memcpy(g->rows, run->rows, sizeof g->rows);
  const ni_rows *all = &run->rows[space];
  uint32_t *off = g->mem, *len = off + g->steps + 1;
  uint32_t begin = all->off[t0], end = all->off[t1];
  for (size_t t = t0; t <= t1; t++) off[t - t0] = all->off[t] - begin;
  for (size_t p = 0; p < all->parents; p++) {
    size_t l = all->len[p] < t1 ? all->len[p] : t1;
    len[p] = (uint32_t)(l > t0 ? l - t0 : 0);
  }
  ni_rows *r = &g->rows[space];
  r->rows = end - begin;
  r->steps = t1 - t0;
  r->off = off;
  r->len = len;
  r->owner = all->owner + begin;
  r->whole = all->len;
  r->step = t0;
  r->row = begin;
  r->later = all->rows - end;
}

neap_status ni_segments_shape(neap_run *run) {
  ni_segments *g = &run->segments;
  const ni_rows *all = &run->rows[run->plan.space];
  g->steps = (size_t)ceil(sqrt((double)all->steps));
  if (!g->steps) g->steps = 1;
  g->count = all->steps ? (all->steps + g->steps - 1) / g->steps : 1;
  size_t words = g->steps + 1 + all->parents;
  if (words > g->cap) {
    ni_free(g->mem);
    g->cap = 0;
    g->mem = ni_alloc(words * sizeof *g->mem);
    if (!g->mem) return NEAP_EMEM;
    g->cap = words;
  }
  cut(run, 0, all->steps < g->steps ? all->steps : g->steps);
  return NEAP_OK;
}

void ni_segments_placed(neap_run *run) {
  ni_segments *g = &run->segments;
  for (int v = 0; v < run->pr->n_values; v++) {
    bool whole = run->view[v].type.space == run->plan.space && !ni_segments_local(run, v);
    g->data[v] = whole ? run->view[v].data : NULL;
    g->grad[v] = whole ? run->grad[v] : NULL;
  }
}

/* Points the views of whole sequences to where the row stands. */
static void point(neap_run *run, size_t row) {
  const ni_segments *g = &run->segments;
  for (int v = 0; v < run->pr->n_values; v++) {
    ni_view *view = &run->view[v];
    size_t size = view->type.dtype == NEAP_I32 ? sizeof(int32_t) : run->real;
    size_t at = row * view->width * size;
    if (g->data[v]) view->data = (char *)g->data[v] + at;
    if (!g->grad[v]) continue;
    run->grad[v] = (char *)g->grad[v] + at;
    if (view->grad) view->grad = run->grad[v];
  }
}

void ni_segment_enter(neap_run *run, ni_exec *x, size_t k) {
  ni_segments *g = &run->segments;
  const neap_program *pr = run->pr;
  const ni_rows *all = &run->rows[run->plan.space];
  size_t t0 = k * g->steps, t1 = t0 + g->steps;
  cut(run, t0, t1 < all->steps ? t1 : all->steps);
  point(run, g->rows[run->plan.space].row);
  for (int s = 0; s < pr->n_slots; s++) {
    if (!g->border[s]) continue;
    size_t size = pr->slot[s].dtype == NEAP_I32 ? sizeof(int32_t) : run->real;
    size_t bytes = all->parents * run->view[pr->slot[s].value].width * size;
    char *slope = g->slope[s];
    g->carry[s] = (ni_carry){
        .first = (char *)g->border[s] + k * bytes,
        .last = (char *)g->border[s] + (k + 1) * bytes,
        .dfirst = slope && k > 0 ? slope + k % 2 * bytes : NULL,
        .dlast = slope && k + 1 < g->count ? slope + (k + 1) % 2 * bytes : NULL};
  }
  x->rows = g->rows;
  x->carry = g->carry;
}

void ni_segment_leave(neap_run *run, ni_exec *x) {
  if (!run->segments.count) return;
  point(run, 0);
  x->rows = run->rows;
  x->carry = NULL;
}

void ni_segment_begin_backward(neap_run *run, size_t k) {
  const ni_segments *g = &run->segments;
  size_t parents = run->rows[run->plan.space].parents;
  for (int s = 0; s < run->pr->n_slots && k + 1 == g->count; s++)
    if (g->slope[s])
      memset(g->slope[s], 0,
             2 * parents * run->view[run->pr->slot[s].value].width * run->real);
  for (int v = 0; v < run->pr->n_values; v++) {
    if (run->view[v].type.space != run->plan.space || v == g->start) continue;
    run->touched[v] = 0;
    run->view[v].grad = NULL;
  }
}
