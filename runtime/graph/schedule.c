/*
** What runs when. A node recorded in a cell's step belongs into the loop only if it needs the
** state and the next state needs it. What needs no state is hoisted: it runs over all steps at
** once before the loop. What no next state needs is sunk: it runs over all steps after it.
*/
#include <stdio.h>
#include <string.h>

#include "program.h"

/* mark[node] = 1 for every node that reads, directly or not, a state of the scan. */
static void mark_forward(const neap_program *pr, int scan, uint8_t *mark) {
  memset(mark, 0, (size_t)pr->n_nodes);
  for (int i = 0; i < pr->n_states; i++)
    if (pr->state[i].scan == scan) mark[pr->value[pr->state[i].value].node] = 1;
  for (int i = 0; i < pr->n_nodes; i++) {
    const ni_node *n = &pr->node[i];
    if (n->op == &ni_op_state) continue;
    for (int k = 0; k < n->n_in && !mark[i]; k++)
      if (n->in[k] >= 0) mark[i] = mark[pr->value[n->in[k]].node];
  }
}

/* mark[node] = 1 for every node that some marked node reads. Inputs always stand before. */
static void mark_backward(const neap_program *pr, uint8_t *mark) {
  for (int i = pr->n_nodes - 1; i >= 0; i--) {
    if (!mark[i]) continue;
    for (int k = 0; k < pr->node[i].n_in; k++)
      if (pr->node[i].in[k] >= 0) mark[pr->value[pr->node[i].in[k]].node] = 1;
  }
}

/* Everything an output or a needed scan's next state needs. A scan needs none but earlier ones. */
static void mark_needed(const neap_program *pr, uint8_t *need) {
  memset(need, 0, (size_t)pr->n_nodes);
  for (int i = 0; i < pr->n_outputs; i++) need[pr->value[pr->output[i].value].node] = 1;
  mark_backward(pr, need);
  for (int k = pr->n_scans; k-- > 0;) {
    bool any = false; /* one state of a scan needed: all are, they run together */
    for (int i = 0; i < pr->n_states; i++)
      any |= pr->state[i].scan == k && need[pr->value[pr->state[i].value].node];
    for (int i = 0; any && i < pr->n_states; i++) {
      const ni_state_info *s = &pr->state[i];
      if (s->scan != k) continue;
      need[pr->value[s->value].node] = 1;
      if (s->next >= 0) need[pr->value[s->next].node] = 1; /* -1: the scan is still open */
    }
    if (any) mark_backward(pr, need);
  }
}

neap_status ni_schedule_new(ni_schedule *s, const neap_program *pr) {
  memset(s, 0, sizeof *s);
  size_t n = (size_t)pr->n_nodes;
  uint8_t *need = ni_calloc(3, n + 1), *fwd = need ? need + n : NULL, *bwd = need ? fwd + n : NULL;
  int *loop = ni_alloc((n + 1) * sizeof *loop); /* by node: the scan whose loop it is in, -1 */
  bool *done = ni_calloc((size_t)pr->n_values + 1, sizeof *done);
  s->unit = ni_calloc(n + 1, sizeof *s->unit);
  s->inner = ni_alloc((n + 1) * sizeof *s->inner);
  s->unit_of = ni_alloc((n + 1) * sizeof *s->unit_of);
  if (!need || !loop || !done || !s->unit || !s->inner || !s->unit_of) {
    ni_schedule_free(s);
    ni_free(need), ni_free(loop), ni_free(done);
    return NEAP_EMEM;
  }
  mark_needed(pr, need);
  for (size_t i = 0; i < n; i++) loop[i] = s->unit_of[i] = -1;
  for (int k = 0; k < pr->n_scans; k++) {
    mark_forward(pr, k, fwd);
    memset(bwd, 0, n);
    for (int i = 0; i < pr->n_states; i++)
      if (pr->state[i].scan == k) bwd[pr->value[pr->state[i].next].node] = 1;
    mark_backward(pr, bwd);
    for (size_t i = 0; i < n; i++)
      if (need[i] && fwd[i] && bwd[i] && pr->node[i].op != &ni_op_state) loop[i] = k;
    for (int i = 0; i < pr->n_states; i++) {
      size_t at = (size_t)pr->value[pr->state[i].value].node;
      if (pr->state[i].scan == k && need[at]) loop[at] = k;
    }
  }
  int inner = 0;
  for (bool progress = true; progress;) {
    progress = false;
    for (int i = 0; i < pr->n_nodes; i++) {
      const ni_node *node = &pr->node[i];
      if (!need[i] || s->unit_of[i] >= 0) continue;
      bool ready = true;
      if (loop[i] < 0) {
        for (int k = 0; k < node->n_in; k++) ready &= node->in[k] < 0 || done[node->in[k]];
        if (!ready) continue;
        s->unit[s->n_units] = (ni_unit){i, -1, NULL, 0};
        for (int k = 0; k < node->n_out; k++) done[node->out + k] = true;
        s->unit_of[i] = s->n_units++;
        progress = true;
        continue;
      }
      int scan = loop[i];
      for (int j = 0; j < pr->n_nodes && ready; j++) {
        if (loop[j] != scan) continue;
        for (int k = 0; k < pr->node[j].n_in; k++) {
          int v = pr->node[j].in[k];
          ready &= v < 0 || done[v] || loop[pr->value[v].node] == scan;
        }
      }
      for (int j = 0; j < pr->n_states && ready; j++)
        if (pr->state[j].scan == scan)
          ready &= done[pr->state[j].next] || loop[pr->value[pr->state[j].next].node] == scan;
      if (!ready) continue;
      ni_unit *u = &s->unit[s->n_units];
      *u = (ni_unit){-1, scan, s->inner + inner, 0};
      for (int j = 0; j < pr->n_nodes; j++) {
        if (loop[j] != scan) continue;
        if (pr->node[j].op != &ni_op_state) u->inner[u->n_inner++] = j;
        for (int k = 0; k < pr->node[j].n_out; k++) done[pr->node[j].out + k] = true;
        s->unit_of[j] = s->n_units;
      }
      inner += u->n_inner;
      s->n_units++;
      progress = true;
    }
  }
  ni_free(need), ni_free(loop), ni_free(done);
  return NEAP_OK;
}

void ni_schedule_free(ni_schedule *s) {
  ni_free(s->unit);
  ni_free(s->inner);
  ni_free(s->unit_of);
  memset(s, 0, sizeof *s);
}

int ni_schedule_stream_space(const neap_program *pr) {
  int found = -1;
  for (int i = 0; i < pr->n_outputs && found < 1; i++) {
    int s = pr->value[pr->output[i].value].type.space;
    if (s > 0) found = s;
  }
  for (int i = 0; i < pr->n_inputs && found < 1; i++) {
    int s = pr->value[pr->input[i].value].type.space;
    if (s > 0 && pr->space[s].parent == 0) found = s;
  }
  if (found < 1) ni_fail(NEAP_EUNSUPPORTED, "stream: the program has no sequence to step along");
  return found;
}

/* ---- what reads the future ---- */

static _Thread_local char text[400];

static neap_status future(const char **reason, const neap_program *pr, int space, bool ahead) {
  *reason = NULL;
  if (pr->space[space].parent != 0) {
    *reason = "the sequence it would step along is a nested one";
    return NEAP_OK;
  }
  uint8_t *need = ni_alloc((size_t)pr->n_nodes + 1);
  if (!need) return NEAP_EMEM;
  mark_needed(pr, need);
  bool alone = true; /* no other sequence: batch rows and stream rows are the same */
  for (int i = 1; i < pr->n_spaces; i++) alone &= i == space;
  const ni_node *bad = NULL;
  const char *why = NULL;
  for (int i = 0; i < pr->n_nodes && !why; i++) {
    const ni_node *n = bad = &pr->node[i];
    if (!need[i]) continue;
    bool reads = false;
    for (int k = 0; k < n->n_in; k++)
      if (n->in[k] >= 0) reads |= ni_program_below(pr, pr->value[n->in[k]].type.space, space);
    if (n->n_in && n->in[0] >= 0 && reads && (n->op->flags & NI_FUTURE) &&
        !(ahead && strcmp(n->op->name, "reverse") == 0))
      why = "reads later steps";
    if (reads && strncmp(n->op->name, "attend", 6) == 0 &&
        ni_program_below(pr, pr->value[n->in[1]].type.space, space))
      why = "attends to the whole sequence";
    if (reads && !alone && strcmp(n->op->name, "last") == 0) why = "takes the last step";
    for (int k = 0; k < n->n_out; k++) {
      int s = pr->value[n->out + k].type.space;
      if (s != space && ni_program_below(pr, s, space)) why = "runs along a nested sequence";
    }
  }
  ni_free(need);
  if (!why) return NEAP_OK;
  snprintf(text, sizeof text, "%s %s%s", ni_program_who(bad), why, ni_program_at(bad));
  *reason = text;
  return NEAP_OK;
}

neap_status ni_schedule_future(const char **reason, const neap_program *pr, int space) {
  return future(reason, pr, space, false);
}

/* Ways through time, as bits. */
enum { ONWARD = 1, BACK = 2 };

/* Which ways the sequences go that a cell's step is given. */
static int ways_of_scan(const neap_program *pr, int scan, int space, const uint8_t *ways) {
  int w = 0;
  for (int i = 0; i < pr->n_nodes; i++)
    for (int k = 0; pr->node[i].scan == scan && k < pr->node[i].n_in; k++) {
      int v = pr->node[i].in[k];
      if (v >= 0 && pr->value[v].type.space == space && pr->node[pr->value[v].node].scan != scan)
        w |= ways[v];
    }
  return w;
}

neap_status ni_schedule_ahead(const char **reason, uint8_t *back, const neap_program *pr,
                              int space) {
  neap_status rc = future(reason, pr, space, true);
  if (rc || *reason) return rc;
  uint8_t *need = ni_calloc(1, (size_t)pr->n_nodes + (size_t)pr->n_values + 1);
  if (!need) return NEAP_EMEM;
  uint8_t *ways = need + pr->n_nodes;
  mark_needed(pr, need);
  const ni_node *bad = NULL;
  const char *why = NULL;
  for (int i = 0; i < pr->n_nodes && !why; i++) {
    const ni_node *n = bad = &pr->node[i];
    int w = 0;
    for (int k = 0; k < n->n_in; k++) {
      if (n->in[k] < 0) continue;
      const ni_node *from = &pr->node[pr->value[n->in[k]].node];
      w |= ways[n->in[k]];
      if (need[i] && pr->value[n->in[k]].type.space != space && ways[n->in[k]])
        bad = from, why = "takes whole sequences together";
    }
    if (n->op == &ni_op_input && pr->value[n->out].type.space == space) w = ONWARD;
    if (n->op == &ni_op_state) w = ways_of_scan(pr, n->scan, space, ways);
    if (strcmp(n->op->name, "reverse") == 0) w = w >> 1 | (w & 1) << 1;
    if (need[i] && w == (ONWARD | BACK)) why = "mixes both ways through time";
    for (int k = 0; k < n->n_out; k++) ways[n->out + k] = (uint8_t)w;
    for (int k = 1; n->slot >= 0 && k < n->n_out; k++) back[n->slot + k - 1] = w == BACK;
  }
  for (int i = 0; i < pr->n_states; i++) back[pr->state[i].slot] = ways[pr->state[i].value] == BACK;
  for (int o = 0; o < pr->n_outputs && !why; o++) {
    int v = pr->output[o].value;
    bad = &pr->node[pr->value[v].node];
    if (ways[v] && pr->value[v].type.space != space) why = "takes whole sequences together";
    if (ways[v] & BACK) why = "is an output that runs backwards";
  }
  if (why) {
    snprintf(text, sizeof text, "%s %s%s", ni_program_who(bad), why, ni_program_at(bad));
    *reason = text;
  }
  ni_free(need);
  return NEAP_OK;
}
