/*
** Floor 7: parameters, programs, states.
*/
#include "../graph/state.h"

#define NEED(p, who) \
  if (!(p)) return ni_fail(NEAP_EARG, who ": expected an object, came NULL")

NEAP_API neap_status neap_params_new(neap_params **p) {
  NEED(p, "params");
  return ni_params_new(p);
}
NEAP_API void neap_params_retain(neap_params *p) { ni_params_retain(p); }
NEAP_API void neap_params_release(neap_params *p) { ni_params_release(p); }
NEAP_API neap_status neap_params_add(int *id, neap_params *p, const char *name, int rank,
                                     const size_t *dims) {
  int unused;
  NEED(p, "params add");
  if (rank > 0 && !dims) return ni_fail(NEAP_EARG, "params add: expected dimensions, came NULL");
  return ni_params_add(id ? id : &unused, p, name, rank, dims);
}
NEAP_API int neap_params_find(const neap_params *p, const char *name) {
  return p && name ? ni_params_find(p, name) : -1;
}
NEAP_API int neap_params_count(const neap_params *p) { return p ? ni_params_count(p) : 0; }
NEAP_API size_t neap_params_size(const neap_params *p) { return p ? ni_params_size(p) : 0; }
NEAP_API const char *neap_params_name(const neap_params *p, int id) {
  return p ? ni_params_name(p, id) : NULL;
}
NEAP_API int neap_params_rank(const neap_params *p, int id) {
  return p ? ni_params_rank(p, id) : -1;
}
NEAP_API size_t neap_params_dim(const neap_params *p, int id, int axis) {
  return p ? ni_params_dim(p, id, axis) : 0;
}
NEAP_API float *neap_params_data(neap_params *p, int id) {
  return p ? ni_params_data(p, id) : NULL;
}
NEAP_API float *neap_params_grad(neap_params *p, int id) {
  return p ? ni_params_grad(p, id) : NULL;
}
NEAP_API neap_status neap_params_read_grad(const neap_params *p, int id, float *data, size_t count) {
  NEED(p, "params");
  if (count && !data) return ni_fail(NEAP_EARG, "params: expected data, came NULL");
  return ni_params_read_grad(p, id, data, count);
}
NEAP_API void neap_params_zero_grad(neap_params *p) {
  if (p) ni_params_zero_grad(p);
}
NEAP_API void neap_params_touch(neap_params *p) {
  if (p) ni_params_touch(p);
}
NEAP_API void neap_params_freeze(neap_params *p, int id, int frozen) {
  if (p) ni_params_freeze(p, id, frozen != 0);
}
NEAP_API int neap_params_frozen(const neap_params *p, int id) {
  return p ? ni_params_frozen(p, id) : 0;
}
NEAP_API neap_status neap_params_init(neap_params *p, int id, neap_init kind, double a, double b,
                                      uint64_t seed) {
  NEED(p, "params init");
  return ni_params_init(p, id, kind, a, b, seed);
}
NEAP_API neap_status neap_params_copy(neap_params *to, const neap_params *from) {
  NEED(to, "params copy");
  NEED(from, "params copy");
  return ni_params_copy(to, from);
}
NEAP_API neap_status neap_params_mix(neap_params *to, const neap_params *from, double share) {
  NEED(to, "params mix");
  NEED(from, "params mix");
  return ni_params_mix(to, from, share);
}
NEAP_API neap_status neap_params_pool(neap_params *p, const neap_pool *pool) {
  NEED(p, "params pool");
  return ni_params_pool(p, pool);
}

/* ---- programs ---- */

NEAP_API neap_status neap_program_new(neap_program **pr, neap_params *params) {
  NEED(pr, "program");
  *pr = NULL;
  NEED(params, "program");
  return ni_program_new(pr, params);
}
NEAP_API void neap_program_retain(neap_program *pr) { ni_program_retain(pr); }
NEAP_API void neap_program_release(neap_program *pr) { ni_program_release(pr); }
NEAP_API neap_params *neap_program_params(neap_program *pr) { return pr ? pr->params : NULL; }
NEAP_API neap_status neap_program_space(int *space, neap_program *pr, const char *name,
                                        int parent) {
  int unused;
  NEED(pr, "space");
  return ni_program_space(space ? space : &unused, pr, name, parent);
}
NEAP_API neap_status neap_program_where(neap_program *pr, const char *line, const char *layer) {
  NEED(pr, "where");
  return ni_program_where(pr, line, layer);
}
NEAP_API neap_status neap_program_input(int *value, neap_program *pr, const char *name,
                                        const neap_type *type) {
  int unused;
  NEED(pr, "input");
  NEED(type, "input");
  return ni_program_input(value ? value : &unused, pr, name, type);
}
NEAP_API neap_status neap_program_scalar(int *value, neap_program *pr, const char *name,
                                         double preset) {
  int unused;
  NEED(pr, "scalar");
  return ni_program_scalar(value ? value : &unused, pr, name, preset);
}
NEAP_API neap_status neap_program_param(int *value, neap_program *pr, const char *name) {
  int unused;
  NEED(pr, "param");
  return ni_program_param(value ? value : &unused, pr, name);
}
NEAP_API neap_status neap_program_constant(int *value, neap_program *pr, double number) {
  int unused;
  NEED(pr, "constant");
  return ni_program_constant(value ? value : &unused, pr, number);
}
NEAP_API neap_status neap_program_add(int *values, int *n_values, neap_program *pr, const char *op,
                                      const int *inputs, int n_inputs, const neap_attr *attrs,
                                      int n_attrs) {
  NEED(pr, "program add");
  if ((n_inputs > 0 && !inputs) || (n_attrs > 0 && !attrs) || n_inputs < 0 || n_attrs < 0)
    return ni_fail(NEAP_EARG, "program add: expected lists of inputs and options, came NULL");
  return ni_program_add(values, n_values, pr, op, inputs, n_inputs, attrs, n_attrs);
}
NEAP_API neap_status neap_program_folded(int *space, neap_program *pr, int of, int steps) {
  int unused;
  NEED(pr, "folded");
  return ni_program_folded(space ? space : &unused, pr, of, steps);
}
NEAP_API neap_status neap_program_scan_begin(neap_program *pr, int space) {
  NEED(pr, "scan");
  return ni_program_scan_begin(pr, space);
}
NEAP_API neap_status neap_program_scan_state(int *value, neap_program *pr, const char *name,
                                             const neap_type *type, int init) {
  int unused;
  NEED(pr, "scan state");
  NEED(type, "scan state");
  return ni_program_scan_state(value ? value : &unused, pr, name, type, init);
}
NEAP_API neap_status neap_program_scan_next(neap_program *pr, int state, int next) {
  NEED(pr, "scan next");
  return ni_program_scan_next(pr, state, next);
}
NEAP_API neap_status neap_program_scan_end(neap_program *pr) {
  NEED(pr, "scan end");
  return ni_program_scan_end(pr);
}
NEAP_API neap_status neap_program_output(neap_program *pr, const char *name, int value) {
  NEED(pr, "output");
  return ni_program_output(pr, name, value);
}
NEAP_API neap_status neap_program_type(neap_type *type, const neap_program *pr, int value) {
  NEED(pr, "type");
  NEED(type, "type");
  if (value < 0 || value >= pr->n_values)
    return ni_fail(NEAP_EARG, "type: there is no value %d", value);
  *type = pr->value[value].type;
  return NEAP_OK;
}
NEAP_API int neap_program_nodes(const neap_program *pr) { return pr ? pr->n_nodes : 0; }
NEAP_API int neap_program_spaces(const neap_program *pr) { return pr ? pr->n_spaces : 0; }
NEAP_API const char *neap_program_space_name(const neap_program *pr, int space) {
  return pr && space >= 0 && space < pr->n_spaces ? pr->space[space].name : NULL;
}
NEAP_API int neap_program_space_parent(const neap_program *pr, int space) {
  return pr && space >= 0 && space < pr->n_spaces ? pr->space[space].parent : -1;
}
NEAP_API int neap_program_space_of(const neap_program *pr, int space) {
  return pr && space >= 0 && space < pr->n_spaces ? pr->space[space].of : -1;
}
NEAP_API int neap_program_space_factor(const neap_program *pr, int space) {
  return pr && space >= 0 && space < pr->n_spaces ? pr->space[space].factor : 0;
}
NEAP_API int neap_program_find_space(const neap_program *pr, const char *name) {
  for (int i = 0; pr && name && i < pr->n_spaces; i++)
    if (__builtin_strcmp(pr->space[i].name, name) == 0) return i;
  return -1;
}
NEAP_API int neap_program_find_input(const neap_program *pr, const char *name) {
  return pr && name ? ni_program_find_input(pr, name) : -1;
}
NEAP_API int neap_program_find_output(const neap_program *pr, const char *name) {
  return pr && name ? ni_program_find_output(pr, name) : -1;
}
NEAP_API int neap_program_inputs(const neap_program *pr) { return pr ? pr->n_inputs : 0; }
NEAP_API const char *neap_program_input_name(const neap_program *pr, int index, int *value) {
  if (value) *value = -1;
  if (!pr || index < 0 || index >= pr->n_inputs) return NULL;
  if (value) *value = pr->input[index].value;
  return pr->input[index].name;
}
NEAP_API int neap_program_outputs(const neap_program *pr) { return pr ? pr->n_outputs : 0; }
NEAP_API const char *neap_program_output_name(const neap_program *pr, int index, int *value) {
  if (value) *value = -1;
  if (!pr || index < 0 || index >= pr->n_outputs) return NULL;
  if (value) *value = pr->output[index].value;
  return pr->output[index].name;
}
NEAP_API const char *neap_program_reads_future(const neap_program *pr) {
  if (!pr) return NULL;
  const char *why;
  int space = ni_schedule_stream_space(pr);
  if (space < 1 || ni_schedule_future(&why, pr, space)) return ni_message();
  return why;
}
NEAP_API neap_status neap_program_print(char **text, const neap_program *pr) {
  NEED(text, "print");
  *text = NULL;
  NEED(pr, "print");
  return ni_program_print(text, pr);
}
NEAP_API neap_status neap_program_json(char **text, const neap_program *pr) {
  NEED(text, "json");
  *text = NULL;
  NEED(pr, "json");
  return ni_program_json(text, pr);
}
NEAP_API neap_status neap_program_parse(neap_program **pr, neap_params *params, const char *text,
                                        size_t length) {
  NEED(pr, "parse");
  *pr = NULL;
  NEED(params, "parse");
  NEED(text, "parse");
  return ni_program_parse(pr, params, text, length);
}
NEAP_API void neap_text_free(char *text) { ni_free(text); }
NEAP_API const char *neap_program_differ(const neap_program *a, const neap_program *b) {
  return a && b ? ni_program_differ(a, b) : "one of them is NULL";
}

NEAP_API const neap_op_info *neap_op_describe(int index) {
  static _Thread_local neap_op_info info;
  static _Thread_local char names[8][24];
  if (index < 0 || index >= ni_ops_count) return NULL;
  const ni_op *op = &ni_ops[index];
  info = (neap_op_info){op->name, op->in_min, op->in_max, op->outs, {NULL}, op->formula,
                        (op->flags & NI_TIME) != 0, (op->flags & NI_FUTURE) != 0,
                        !(op->flags & NI_NOGRAD)};
  int n = 0;
  for (const char *p = op->attrs; *p && n < 7; n++) {
    size_t len = 0;
    while (p[len] && p[len] != ' ' && len < 23) len++;
    __builtin_memcpy(names[n], p, len);
    names[n][len] = 0;
    info.attrs[n] = names[n];
    p += len;
    while (*p && *p != ' ') p++;
    while (*p == ' ') p++;
  }
  return &info;
}

/* ---- states ---- */

NEAP_API neap_status neap_state_new(neap_state **s, const neap_program *pr, size_t rows) {
  NEED(s, "state");
  *s = NULL;
  NEED(pr, "state");
  return ni_state_new(s, pr, rows);
}
NEAP_API neap_status neap_state_clone(neap_state **s, const neap_state *from) {
  NEED(s, "state clone");
  *s = NULL;
  NEED(from, "state clone");
  return ni_state_clone(s, from);
}
NEAP_API neap_status neap_state_copy(neap_state *to, const neap_state *from) {
  NEED(to, "state copy");
  NEED(from, "state copy");
  return ni_state_copy(to, from);
}
NEAP_API void neap_state_retain(neap_state *s) { ni_state_retain(s); }
NEAP_API void neap_state_release(neap_state *s) { ni_state_release(s); }
NEAP_API size_t neap_state_rows(const neap_state *s) { return s ? s->rows : 0; }
NEAP_API int neap_state_slots(const neap_state *s) { return s ? s->n_slots : 0; }
NEAP_API const char *neap_state_slot(const neap_state *s, int slot, neap_dtype *dtype,
                                     size_t *width) {
  if (!s || slot < 0 || slot >= s->n_slots) return NULL;
  if (dtype) *dtype = s->slot[slot].dtype;
  if (width) *width = s->slot[slot].width;
  return s->slot[slot].name;
}
NEAP_API void *neap_state_data(neap_state *s, int slot) {
  return s && slot >= 0 && slot < s->n_slots ? s->slot[slot].data : NULL;
}
NEAP_API neap_status neap_state_widen(neap_state *s, int slot, size_t width) {
  NEED(s, "state widen");
  if (slot < 0 || slot >= s->n_slots)
    return ni_fail(NEAP_EARG, "state widen: slot %d is not in 0..%d", slot, s->n_slots - 1);
  return ni_state_widen(s, slot, width);
}
NEAP_API int neap_state_marked(const neap_state *s, size_t row) {
  return s && row < s->rows && s->held[row];
}
NEAP_API neap_status neap_state_mark(neap_state *s, size_t row) {
  NEED(s, "state mark");
  return ni_state_mark(s, row);
}
NEAP_API neap_status neap_state_reset(neap_state *s, const int32_t *rows, size_t n) {
  NEED(s, "state reset");
  return ni_state_reset(s, rows, n);
}
NEAP_API neap_status neap_state_gather(neap_state *s, const int32_t *from, size_t n) {
  NEED(s, "state gather");
  if (n && !from) return ni_fail(NEAP_EARG, "state gather: expected rows, came NULL");
  return ni_state_gather(s, from, n);
}
