/*
** The op table, types as text, errors met while running, shares of rows.
*/
#include <stdio.h>
#include <string.h>

#include "util.h"

/* ---- the table ---- */

#define OP(name, in_min, in_max, outs, flags, attrs, keep_in, keep_out, infer, work, fixed, code, \
           formula)                                                                               \
  extern const ni_code ni_code_##code##_f32, ni_code_##code##_f64;
#include "ops.h"
#undef OP

#define ni_infer_none NULL
#define ni_work_none NULL
#define ni_fixed_none NULL

const ni_op ni_ops[] = {
#define OP(name, in_min, in_max, outs, flags, attrs, keep_in, keep_out, infer, work, fixed, code, \
           formula)                                                                               \
  {#name,                                                                                         \
   in_min,                                                                                        \
   in_max,                                                                                        \
   outs,                                                                                          \
   flags,                                                                                         \
   attrs,                                                                                         \
   keep_in,                                                                                       \
   keep_out,                                                                                      \
   ni_infer_##infer,                                                                              \
   ni_work_##work,                                                                                \
   ni_fixed_##fixed,                                                                              \
   &ni_code_##code##_f32,                                                                         \
   &ni_code_##code##_f64,                                                                         \
   formula},
#include "ops.h"
#undef OP
};
const int ni_ops_count = sizeof ni_ops / sizeof ni_ops[0];

const ni_op *ni_op_find(const char *name) {
  for (int i = 0; i < ni_ops_count; i++)
    if (strcmp(ni_ops[i].name, name) == 0) return &ni_ops[i];
  return NULL;
}

/* ---- types as text ---- */

enum { BUFFERS = 8, LENGTH = 160 };

static void append(char *text, const char *before, const char *s) {
  size_t n = strlen(text);
  snprintf(text + n, LENGTH - n, "%s%s", before, s);
}

const char *ni_type_text(const ni_infer *i, const neap_type *t) {
  static _Thread_local char buffer[BUFFERS][LENGTH];
  static _Thread_local unsigned turn;
  char *text = buffer[turn++ % BUFFERS], number[16];
  const char *comma = "";
  text[0] = 0;
  append(text, t->dtype == NEAP_I32 ? "i32 " : "", "[");
  for (int s = t->space; s >= 0; s = i->space[s].parent, comma = ",")
    append(text, comma, i->space[s].name);
  for (int d = 0; d < t->rank; d++, comma = ",") {
    int32_t n = t->dim[d];
    append(text, comma, n < 0 ? "max " : "");
    snprintf(number, sizeof number, "%d", (int)n);
    append(text, "", n < 0 ? i->space[-1 - n].name : number);
  }
  append(text, "", "]");
  return text;
}

/* ---- running ---- */

void ni_exec_fault(const ni_exec *x, const ni_node *n, neap_status status, size_t row,
                   const char *format, ...) {
  ni_fault *f = x->fault;
  if (!f || atomic_exchange(&f->set, 1)) return;
  f->status = status;
  f->node = n;
  int space = x->view[n->out].type.space;
  f->row = row + (space < 0 ? 0 : x->rows[space].row);
  va_list args;
  va_start(args, format);
  vsnprintf(f->text, sizeof f->text, format, args);
  va_end(args);
}

typedef struct share {
  const ni_exec *x;
  const ni_node *n;
  size_t count, step;
  ni_share fn;
} share;

static void run_share(void *arg, size_t task) {
  const share *s = arg;
  size_t from = task * s->step, to = from + s->step;
  s->fn(s->x, s->n, from, to < s->count ? to : s->count);
}

void ni_exec_share(const ni_exec *x, const ni_node *n, size_t count, size_t grain, ni_share fn) {
  ni_exec_pieces(x, n, count, grain, count, fn);
}

void ni_exec_pieces(const ni_exec *x, const ni_node *n, size_t count, size_t grain, size_t most,
                    ni_share fn) {
  if (!count) return;
  if (!grain) grain = 1;
  size_t threads = (size_t)ni_pool_threads(x->pool);
  size_t grains = (count + grain - 1) / grain, each = (grains + threads - 1) / threads;
  if (each > most / grain) each = most > grain ? most / grain : 1;
  share s = {x, n, count, each * grain, fn};
  size_t tasks = (count + s.step - 1) / s.step;
  if (tasks == 1)
    fn(x, n, 0, count);
  else
    ni_pool_run(x->pool, tasks, run_share, &s);
}
