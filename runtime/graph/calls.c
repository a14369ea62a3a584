/*
** The step of a stream as a flat list of calls: what exec.c looks up at each step (rows, shares,
** first states, who is in which loop) is looked up once, after a step that exec.c has done. A call
** reads the present state and leaves the next one beside it, so a step that fails has changed
** nothing.
*/
#include <math.h>
#include <string.h>

#include "run.h"

static void forward(ni_call *c) { c->n->op->code_f32->forward(c->x, c->n, 0, c->rows); }

static void prepare_forward(ni_call *c) {
  c->n->op->code_f32->prepare(c->x, c->n, false);
  forward(c);
}

/* Up to FEW numbers are looked at sooner than the kernel is called. exec.c has the message. */
static void check(ni_call *c) {
  enum { FEW = 8 };
  const float *x = c->to;
  size_t n = c->bytes / sizeof *x, i = 0;
  if (n > FEW)
    i = ni_kernel_f32()->finite_first(n, x);
  else
    while (i < n && isfinite(x[i])) i++;
  if (i < n) atomic_store_explicit(&c->x->fault->set, 1, memory_order_relaxed);
}

static void state_in(ni_call *c) { memcpy(c->to, c->slot->data, c->bytes); }
static void state_out(ni_call *c) { memcpy(c->slot->next, c->to, c->bytes); }

neap_status ni_calls_open(neap_run *run) {
  size_t most = (size_t)(run->pr->n_nodes + run->pr->n_inputs) + 2 * (size_t)run->pr->n_states + 1;
  run->call = ni_calloc(most, sizeof *run->call);
  return run->call ? NEAP_OK : NEAP_EMEM;
}

static void add_node(neap_run *run, const ni_node *n, const uint8_t *read) {
  if (n->op->flags & NI_SOURCE) return;
  ni_call *c = &run->call[run->n_calls++];
  const ni_code *code = n->op->code_f32;
  *c = (ni_call){.fn = forward, .x = &run->call_exec, .n = n,
                 .rows = ni_rows_of(&run->call_exec, n->out)};
  for (int k = 0; k < n->n_out; k++)
    if (read[n->out + k]) c->reads |= 1u << k;
  if (code->prepare && run->stale[n->index] & 1)
    c->fn = prepare_forward; /* what it packs is no parameter */
  else if (code->bind)
    code->bind(c);
  if (n->op->flags & NI_RANDOM) run->call_random = true;
}

/* One state of a loop, into its value before a step or out of what it has become. */
static void add_state(neap_run *run, const ni_state_info *s, bool out) {
  const ni_view *v = &run->view[out ? s->next : s->value];
  size_t rows = run->rows[run->stream_space].rows;
  run->call[run->n_calls++] = (ni_call){.fn = out ? state_out : state_in, .to = v->data,
                                        .slot = &run->slot[s->slot], .bytes = rows * v->width * 4};
}

void ni_calls_build(neap_run *run) {
  const neap_program *pr = run->pr;
  const neap_state *state = run->state;
  run->calls_ready = run->call_random = false;
  run->n_calls = 0;
  if (!run->call || (state && memchr(state->held, 0, state->rows))) return;
  uint8_t *read = run->touched; /* scratch here: a stream has no backward */
  memset(read, 0, (size_t)pr->n_values);
  for (int i = 0; i < pr->n_nodes; i++)
    for (int k = 0; k < pr->node[i].n_in; k++)
      if (pr->node[i].in[k] >= 0) read[pr->node[i].in[k]] = 1;
  for (int o = 0; o < pr->n_outputs; o++) read[pr->output[o].value] = 1;
  for (int i = 0; i < pr->n_states; i++) read[pr->state[i].next] = 1;
  ni_exec_set_up(&run->call_exec, run);
  for (int i = 0; i < pr->n_inputs; i++) {
    const ni_view *v = &run->view[pr->input[i].value];
    if (v->type.space == run->stream_space && v->type.dtype == NEAP_F32 && v->data)
      run->call[run->n_calls++] =
        (ni_call){.fn = check, .x = &run->call_exec, .to = v->data,
                  .bytes = run->rows[run->stream_space].rows * v->width * sizeof(float)};
  }
  for (int u = 0; u < run->plan.n_units; u++) {
    const ni_unit *unit = &run->plan.unit[u];
    if (!run->step_unit[u]) continue;
    if (unit->node >= 0) {
      add_node(run, &pr->node[unit->node], read);
      continue;
    }
    if (pr->scan[unit->scan].space != run->stream_space) return;
    for (int i = 0; i < pr->n_states; i++)
      if (ni_run_carries(run, &pr->state[i], unit->scan)) add_state(run, &pr->state[i], false);
    for (int k = 0; k < unit->n_inner; k++) add_node(run, &pr->node[unit->inner[k]], read);
    for (int i = 0; i < pr->n_states; i++)
      if (ni_run_carries(run, &pr->state[i], unit->scan)) add_state(run, &pr->state[i], true);
  }
  run->calls_ready = true;
}

bool ni_calls_run(neap_run *run) {
  neap_state *s = run->state;
  if (!run->calls_ready || run->packed_version != run->pr->params->version ||
      s->changes != run->state_left)
    return false;
  if (run->call_random) run->call_exec.seed = ni_exec_seed(run);
  unsigned mode = ni_denormals_flush();
  for (ni_call *c = run->call, *end = c + run->n_calls; c < end; c++) c->fn(c);
  ni_denormals_restore(mode);
  if (atomic_load_explicit(&run->fault.set, memory_order_relaxed)) return false;
  for (int i = 0; i < s->n_slots; i++) {
    void *data = s->slot[i].data;
    run->slot[i].data = s->slot[i].data = s->slot[i].next;
    run->slot[i].next = s->slot[i].next = data;
  }
  run->state_left = ++s->changes;
  run->tick++;
  return true;
}
