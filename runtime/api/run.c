/*
** Floor 7: runs and streams.
*/
#include "../model/model.h"

#define NEED(p, who) \
  if (!(p)) return ni_fail(NEAP_EARG, who ": expected an object, came NULL")
#define NEED_DATA(p, n, who) \
  if ((n) && !(p)) return ni_fail(NEAP_EARG, who ": expected data, came NULL")

NEAP_API neap_status neap_run_open(neap_run **run, neap_program *pr, const neap_run_options *o) {
  NEED(run, "run");
  *run = NULL;
  NEED(pr, "run");
  return ni_run_open(run, pr, o);
}
NEAP_API void neap_run_close(neap_run *run) { ni_run_close(run); }
NEAP_API neap_status neap_run_batch(neap_run *run, size_t rows) {
  NEED(run, "batch");
  return ni_run_batch(run, rows);
}
NEAP_API neap_status neap_run_lengths(neap_run *run, int space, const int32_t *lengths, size_t n) {
  NEED(run, "lengths");
  NEED_DATA(lengths, n, "lengths");
  return ni_run_lengths(run, space, lengths, n);
}
NEAP_API neap_status neap_run_keep(neap_run *run, int value, int gradient) {
  NEED(run, "keep");
  return ni_run_keep(run, value, gradient);
}
NEAP_API neap_status neap_run_input_f32(neap_run *run, int value, neap_layout layout,
                                        const float *data, size_t count) {
  NEED(run, "input");
  NEED_DATA(data, count, "input");
  return ni_run_input(run, value, layout, NEAP_F32, data, count);
}
NEAP_API neap_status neap_run_input_i32(neap_run *run, int value, neap_layout layout,
                                        const int32_t *data, size_t count) {
  NEED(run, "input");
  NEED_DATA(data, count, "input");
  return ni_run_input(run, value, layout, NEAP_I32, data, count);
}
NEAP_API neap_status neap_run_scalar(neap_run *run, int value, double number) {
  NEED(run, "scalar");
  return ni_run_scalar(run, value, number);
}
NEAP_API neap_status neap_run_state(neap_run *run, neap_state *state) {
  NEED(run, "state");
  return ni_run_state(run, state);
}
NEAP_API void neap_run_seed(neap_run *run, uint64_t seed, uint64_t drawn) {
  if (run) run->seed = seed, run->tick = drawn;
}
NEAP_API uint64_t neap_run_drawn(const neap_run *run, uint64_t *seed) {
  if (seed) *seed = run ? run->seed : 0;
  return run ? run->tick : 0;
}
NEAP_API void neap_run_learning(neap_run *run, int on) {
  if (run) run->learning = on != 0;
}
NEAP_API neap_status neap_run_forward(neap_run *run) {
  NEED(run, "forward");
  return ni_run_forward(run);
}
NEAP_API neap_status neap_run_backward(neap_run *run, int value) {
  NEED(run, "backward");
  return ni_run_backward(run, value, NEAP_PADDED, NULL, 0, true);
}
NEAP_API neap_status neap_run_backward_from(neap_run *run, int value, neap_layout layout,
                                            const float *grad, size_t count) {
  NEED(run, "backward");
  NEED_DATA(grad, count, "backward");
  return ni_run_backward(run, value, layout, grad, count, false);
}
NEAP_API neap_status neap_run_find_nonfinite(neap_run *run, int value) {
  NEED(run, "find");
  return ni_run_find_nonfinite(run, value);
}
NEAP_API neap_status neap_run_count(size_t *count, const neap_run *run, int value,
                                    neap_layout layout) {
  NEED(count, "count");
  *count = 0;
  NEED(run, "count");
  return ni_run_count(count, run, value, layout);
}
NEAP_API neap_status neap_run_read_f32(neap_run *run, int value, neap_layout layout, float *data,
                                       size_t count) {
  NEED(run, "read");
  NEED_DATA(data, count, "read");
  return ni_run_read(run, value, layout, NI_AS_F32, data, count);
}
NEAP_API neap_status neap_run_read_i32(neap_run *run, int value, neap_layout layout, int32_t *data,
                                       size_t count) {
  NEED(run, "read");
  NEED_DATA(data, count, "read");
  return ni_run_read(run, value, layout, NI_AS_I32, data, count);
}
NEAP_API neap_status neap_run_grad_f32(neap_run *run, int value, neap_layout layout, float *data,
                                       size_t count) {
  NEED(run, "grad");
  NEED_DATA(data, count, "grad");
  return ni_run_read(run, value, layout, NI_AS_GRAD, data, count);
}
NEAP_API neap_status neap_run_read_f64(neap_run *run, int value, neap_layout layout, double *data,
                                       size_t count) {
  NEED(run, "read");
  NEED_DATA(data, count, "read");
  return ni_run_read(run, value, layout, NI_AS_F64, data, count);
}
NEAP_API neap_status neap_run_param_grad_f64(neap_run *run, int id, double *data, size_t count) {
  NEED(run, "param grad");
  NEED_DATA(data, count, "param grad");
  return ni_run_param_grad(run, id, data, count);
}
NEAP_API neap_status neap_run_param_shift_f64(neap_run *run, int id, size_t element, double shift) {
  NEED(run, "param shift");
  return ni_run_param_shift(run, id, element, shift);
}
NEAP_API size_t neap_run_steps(const neap_run *run, int space) {
  return run && space >= 0 && space < run->pr->n_spaces ? run->rows[space].steps : 0;
}
NEAP_API size_t neap_run_rows(const neap_run *run, int space) {
  return run && space >= 0 && space < run->pr->n_spaces ? run->rows[space].rows : 0;
}
NEAP_API size_t neap_run_bytes(const neap_run *run) { return run ? ni_run_bytes(run) : 0; }
NEAP_API neap_status neap_run_plan(size_t *bytes, neap_run *run) {
  NEED(bytes, "plan");
  *bytes = 0;
  NEED(run, "plan");
  return ni_run_plan(bytes, run);
}
NEAP_API const char *neap_run_whole(const neap_run *run) { return run ? run->segments.whole : NULL; }
NEAP_API void neap_run_cancel(neap_run *run) {
  if (run) atomic_store(&run->canceled, 1);
}

/* ---- streams ---- */

NEAP_API neap_status neap_stream_open_program(neap_stream **s, neap_program *pr,
                                              const neap_stream_options *o) {
  NEED(s, "stream");
  *s = NULL;
  NEED(pr, "stream");
  return ni_stream_open(s, pr, o);
}
NEAP_API neap_status neap_stream_open(neap_stream **s, neap_model *model,
                                      const neap_stream_options *o) {
  NEED(s, "stream");
  *s = NULL;
  NEED(model, "stream");
  const char *name = o && o->program ? o->program : "predict";
  neap_program *pr = ni_model_program_of(model, name);
  if (!pr && (!o || !o->program) && model->n_programs == 1) pr = model->program[0].program;
  if (!pr) return ni_fail(NEAP_EARG, "stream: the model has no program '%s'", name);
  return ni_stream_open(s, pr, o);
}
NEAP_API void neap_stream_close(neap_stream *s) { ni_stream_close(s); }

static void *buffer(const neap_stream *s, int index, neap_dtype dtype, size_t *count, bool input) {
  if (count) *count = 0;
  if (!s) return NULL;
  int value = input ? ni_stream_input(s, index) : ni_stream_output(s, index);
  return ni_stream_buffer(s, value, dtype, count);
}
NEAP_API float *neap_stream_input_f32(neap_stream *s, int index, size_t *count) {
  return buffer(s, index, NEAP_F32, count, true);
}
NEAP_API int32_t *neap_stream_input_i32(neap_stream *s, int index, size_t *count) {
  return buffer(s, index, NEAP_I32, count, true);
}
NEAP_API const float *neap_stream_output_f32(neap_stream *s, int index, size_t *count) {
  return buffer(s, index, NEAP_F32, count, false);
}
NEAP_API const int32_t *neap_stream_output_i32(neap_stream *s, int index, size_t *count) {
  return buffer(s, index, NEAP_I32, count, false);
}
NEAP_API const char *neap_stream_input_name(const neap_stream *s, int index) {
  int value = s ? ni_stream_input(s, index) : -1;
  const neap_program *pr = value < 0 ? NULL : s->run->pr;
  return pr ? pr->node[pr->value[value].node].name : NULL;
}
NEAP_API const char *neap_stream_output_name(const neap_stream *s, int index) {
  return s ? neap_program_output_name(s->run->pr, index, NULL) : NULL;
}
NEAP_API neap_status neap_stream_step(neap_stream *s) {
  NEED(s, "stream step");
  return ni_stream_step(s);
}
NEAP_API neap_status neap_stream_steps(neap_stream *s, size_t n) {
  NEED(s, "stream steps");
  return ni_stream_steps(s, n);
}
NEAP_API size_t neap_stream_latency(const neap_stream *s) { return s ? s->ahead : 0; }
NEAP_API size_t neap_stream_given(const neap_stream *s) { return s ? s->given : 0; }
NEAP_API size_t neap_stream_pending(const neap_stream *s) { return s ? s->pending : 0; }
NEAP_API neap_status neap_stream_finish(neap_stream *s) {
  NEED(s, "stream finish");
  return ni_stream_finish(s);
}
NEAP_API size_t neap_stream_block(const neap_stream *s) { return s && s->block ? s->block : 1; }
NEAP_API neap_status neap_stream_scalar(neap_stream *s, int value, double number) {
  NEED(s, "stream scalar");
  s->still_done = false;
  return ni_run_scalar(s->run, value, number);
}
NEAP_API neap_state *neap_stream_state(neap_stream *s) { return s ? s->state : NULL; }
NEAP_API void neap_stream_reset(neap_stream *s) {
  if (!s) return;
  ni_state_reset(s->state, NULL, 0);
  s->pending = 0;
}
NEAP_API neap_status neap_stream_context_batch(neap_stream *s, size_t rows) {
  NEED(s, "stream context");
  return ni_stream_batch(s, rows);
}
NEAP_API size_t neap_stream_sources(const neap_stream *s) {
  return s ? s->run->rows[0].rows : 0;
}
NEAP_API neap_status neap_stream_context_lengths(neap_stream *s, int space, const int32_t *lengths,
                                                 size_t n) {
  NEED(s, "stream context");
  NEED_DATA(lengths, n, "stream context");
  return ni_stream_lengths(s, space, lengths, n);
}
NEAP_API neap_status neap_stream_context_f32(neap_stream *s, int value, neap_layout layout,
                                             const float *data, size_t count) {
  NEED(s, "stream context");
  NEED_DATA(data, count, "stream context");
  return ni_stream_context(s, value, layout, NEAP_F32, data, count);
}
NEAP_API neap_status neap_stream_context_i32(neap_stream *s, int value, neap_layout layout,
                                             const int32_t *data, size_t count) {
  NEED(s, "stream context");
  NEED_DATA(data, count, "stream context");
  return ni_stream_context(s, value, layout, NEAP_I32, data, count);
}
NEAP_API neap_status neap_stream_rows(neap_stream *s, const int32_t *source, const int32_t *from,
                                      size_t n) {
  NEED(s, "stream rows");
  return ni_stream_rows(s, source, from, n);
}
