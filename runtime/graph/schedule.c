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

/* ---- segments ---- */

static _Thread_local char text[400];

typedef struct cutting {
  const neap_program *pr;
  const ni_schedule *s;
  int space;
  bool *early, *within, *late; /* by unit */
  const ni_node *bad;          /* the first that needs the whole sequence, and why */
  const char *why;
} cutting;

/* The nodes of a unit: k from 0 until NULL. States are among its values, not its nodes. */
static const ni_node *node_of(const cutting *c, int u, int k) {
  const ni_unit *unit = &c->s->unit[u];
  if (unit->node >= 0) return k == 0 ? &c->pr->node[unit->node] : NULL;
  return k < unit->n_inner ? &c->pr->node[unit->inner[k]] : NULL;
}

/* Calls visit for each value that a unit reads from outside, with the node that reads it. */
static void reads_of(cutting *c, int u, void (*visit)(cutting *, int, int, const ni_node *)) {
  const ni_unit *unit = &c->s->unit[u];
  const ni_node *n;
  for (int k = 0; (n = node_of(c, u, k)) != NULL; k++)
    for (int i = 0; i < n->n_in; i++)
      if (n->in[i] >= 0 && c->s->unit_of[c->pr->value[n->in[i]].node] != u)
        visit(c, u, n->in[i], n);
  for (int i = 0; unit->node < 0 && i < c->pr->n_states; i++) {
    const ni_state_info *t = &c->pr->state[i];
    if (t->scan != unit->scan) continue;
    n = &c->pr->node[c->pr->value[t->value].node];
    if (t->init >= 0) visit(c, u, t->init, n);
    if (c->s->unit_of[c->pr->value[t->next].node] != u) visit(c, u, t->next, n);
  }
}

static bool in_space(const cutting *c, int value) {
  return ni_program_below(c->pr, c->pr->value[value].type.space, c->space);
}

/* Why a node cannot be given its sequence in segments; NULL if it can. */
static const char *needs_whole(const cutting *c, const ni_node *n) {
  bool touches = false;
  for (int k = 0; k < n->n_in + n->n_out; k++) {
    int v = k < n->n_in ? n->in[k] : n->out + k - n->n_in;
    if (v < 0) continue;
    const neap_type *t = &c->pr->value[v].type;
    if (t->space != c->space && in_space(c, v)) return "runs along a nested sequence";
    for (int d = 0; d < t->rank; d++)
      if (t->dim[d] < 0 && ni_program_below(c->pr, -1 - t->dim[d], c->space))
        return "is as wide as the sequence is long";
    touches |= in_space(c, v); /* to write it is enough: a folded one is made of another's steps */
  }
  if (touches && n->op->flags & NI_FUTURE && !(n->op->flags & NI_FOLDS)) return "reads later steps";
  if (strncmp(n->op->name, "attend", 6) == 0 && in_space(c, n->in[1]))
    return "attends to the whole sequence";
  return NULL;
}

static void blame(cutting *c, const ni_node *n, const char *why) {
  if (!c->why) c->bad = n, c->why = why;
}

static void mark_early(cutting *c, int u, int v, const ni_node *n) {
  (void)u, (void)n;
  c->early[c->s->unit_of[c->pr->value[v].node]] = true;
}

/* What early units are made of is early too. */
static int spread_early(cutting *c) {
  int count = 0;
  for (int u = c->s->n_units; u-- > 0;) {
    if (c->early[u]) reads_of(c, u, mark_early);
    count += c->early[u];
  }
  return count;
}

static void mark_late(cutting *c, int u, int v, const ni_node *n) {
  (void)n;
  int from = c->s->unit_of[c->pr->value[v].node];
  if (!c->within[u]) c->late[u] |= c->within[from] || c->late[from];
}

/* A unit of the segments that reads what only the whole sequence gives: that must be there before. */
static void find_knot(cutting *c, int u, int v, const ni_node *n) {
  int from = c->s->unit_of[c->pr->value[v].node];
  if (!c->within[u] || c->early[from]) return;
  if (!c->late[from] && !(c->within[from] && c->pr->value[v].type.space != c->space)) return;
  blame(c, n, "reads what the whole sequence gives");
  c->early[from] = true;
}

/* Sorts out who runs when; how many run in segments. */
static int cut(cutting *c) {
  int units = c->s->n_units, found = 0;
  c->bad = NULL, c->why = NULL;
  memset(c->early, 0, (size_t)units * 3 * sizeof *c->early);
  for (int u = 0; u < units; u++) {
    const ni_node *n;
    const char *why;
    for (int k = 0; !c->early[u] && (n = node_of(c, u, k)) != NULL; k++) {
      if (!(why = needs_whole(c, n))) continue;
      blame(c, n, why);
      c->early[u] = true;
    }
  }
  for (int before = -1, now = spread_early(c); before != now;) {
    before = now;
    for (int u = 0; u < units; u++) {
      const ni_node *n;
      c->within[u] = c->late[u] = false;
      for (int k = 0; !c->early[u] && (n = node_of(c, u, k)) != NULL; k++) {
        for (int i = 0; i < n->n_in; i++) c->within[u] |= n->in[i] >= 0 && in_space(c, n->in[i]);
        for (int o = 0; o < n->n_out; o++) c->within[u] |= in_space(c, n->out + o);
        if (n->op->flags & NI_SOURCE) c->within[u] = false;
      }
      reads_of(c, u, mark_late);
    }
    for (int u = 0; u < units; u++) reads_of(c, u, find_knot);
    now = spread_early(c);
  }
  for (int u = 0; u < units; u++) found += c->within[u];
  return found;
}

neap_status ni_schedule_segments(ni_schedule *s, const char **why, const neap_program *pr) {
  *why = NULL;
  size_t n = (size_t)s->n_units + 1;
  ni_unit *sorted = ni_alloc(n * sizeof *sorted);
  int *moved = ni_alloc(n * sizeof *moved);
  bool *marks = ni_calloc(3 * n, sizeof *marks);
  neap_status rc = sorted && moved && marks ? NEAP_OK : NEAP_EMEM;
  if (rc) goto done;
  cutting c = {.pr = pr, .s = s, .early = marks, .within = marks + s->n_units,
               .late = marks + 2 * s->n_units};
  int best = 0, first = 0;
  for (int i = 1; i < pr->n_spaces; i++) {
    if (pr->space[i].parent != 0) continue;
    c.space = i;
    if (!first) first = i;
    int found = cut(&c);
    if (found > best) best = found, s->space = i;
  }
  if (first) c.space = s->space ? s->space : first, cut(&c);
  if (c.why) {
    snprintf(text, sizeof text, "%s %s%s", ni_program_who(c.bad), c.why, ni_program_at(c.bad));
    *why = text;
  }
  if (!best) {
    rc = ni_fail(NEAP_EUNSUPPORTED, "recompute: %s%s", c.why ? "nothing can run in segments: "
                 : "the program has no sequence", c.why ? text : "");
    goto done;
  }
  int at = 0;
  for (int part = 0; part < 3; part++) {
    if (part == 1) s->from = at;
    if (part == 2) s->to = at;
    for (int u = 0; u < s->n_units; u++)
      if ((c.within[u] ? 1 : c.late[u] ? 2 : 0) == part) {
        moved[u] = at;
        sorted[at++] = s->unit[u];
      }
  }
  memcpy(s->unit, sorted, (size_t)s->n_units * sizeof *sorted);
  for (int i = 0; i < pr->n_nodes; i++)
    if (s->unit_of[i] >= 0) s->unit_of[i] = moved[s->unit_of[i]];
done:
  ni_free(sorted);
  ni_free(moved);
  ni_free(marks);
  return rc;
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
  return found < 1 ? found : pr->space[found].of; /* steps come as they are given */
}

/* ---- what reads the future ---- */

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
