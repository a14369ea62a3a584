/*
** Floor 7: each call of neap.h with NULL and wrong arguments, with memory that runs out at each
** allocation in turn, and, once warm, with none at all; cancelling; states.
*/
#include "record.h"

#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

static char path[] = "/tmp/neap-api-XXXXXX";

/* ---- a set of everything ---- */

typedef struct fixture {
  neap_params *params;
  neap_program *pr, *fresh; /* of the same parameters: one that has run, one that has not */
  neap_model *model;
  neap_run *run;
  neap_stream *stream;
  neap_state *state;
  neap_optim *optim;
  neap_archive *archive;
  neap_tensor *tensor;
  int x, y, t; /* input, output, space of pr */
  int fx, ft;  /* input and space of fresh */
  size_t bytes;
  void *file;  /* the model saved */
} fixture;

static neap_status build(fixture *f) {
  *f = (fixture){.x = -1};
  const size_t dims[] = {2, 3};
  neap_run_options learn = {.flags = NEAP_LEARN};
  neap_status rc = neap_params_new(&f->params);
  if (!rc) rc = record_small(&f->pr, f->params);
  if (!rc) rc = neap_program_new(&f->fresh, f->params);
  if (!rc) rc = neap_program_space(&f->ft, f->fresh, "T", 0);
  neap_type x = {NEAP_F32, 1, 1, {3}};
  if (!rc) rc = neap_program_input(&f->fx, f->fresh, "x", &x);
  if (!rc) rc = neap_model_new(&f->model, f->params);
  if (!rc) rc = neap_model_add(f->model, "predict", f->pr);
  if (!rc) rc = neap_state_new(&f->state, f->pr, 2);
  if (!rc) rc = neap_run_open(&f->run, f->pr, &learn);
  if (!rc) rc = feed_any(f->run, f->pr);
  if (!rc) rc = neap_run_forward(f->run);
  if (!rc) rc = neap_stream_open(&f->stream, f->model, NULL);
  if (!rc) rc = neap_optim_new(&f->optim, f->params, NULL, 0, NULL);
  if (!rc) rc = neap_archive_new(&f->archive);
  if (!rc) rc = neap_tensor_new(&f->tensor, NEAP_F32, 2, dims);
  if (!rc) rc = neap_archive_add(f->archive, "t", f->tensor);
  if (!rc) rc = neap_model_save(f->model, path);
  if (rc) return rc;
  FILE *file = fopen(path, "rb");
  f->file = malloc(1 << 16);
  f->bytes = file && f->file ? fread(f->file, 1, 1 << 16, file) : 0;
  if (file) fclose(file);
  f->x = neap_program_find_input(f->pr, "x");
  f->y = neap_program_find_output(f->pr, "y");
  f->t = neap_program_find_space(f->pr, "T");
  return NEAP_OK;
}

static void tear_down(fixture *f) {
  free(f->file);
  neap_tensor_release(f->tensor);
  neap_params_release(f->params);
  neap_archive_release(f->archive);
  neap_model_release(f->model);
  neap_program_release(f->pr);
  neap_program_release(f->fresh);
  neap_run_close(f->run);
  neap_state_release(f->state);
  neap_stream_close(f->stream);
  neap_optim_release(f->optim);
}

static const float frame[3] = {0.5f, -1, 0.25f};

/* Everything still computes what it computes: the run and the stream on the same sequence. */
static bool works(fixture *f) {
  float y[4], first[2];
  int32_t two[] = {2, 2};
  neap_stream_reset(f->stream);
  size_t n = 0;
  const float *out = neap_stream_output_f32(f->stream, 0, &n);
  float *in = neap_stream_input_f32(f->stream, 0, &n);
  if (!in || !out) return false;
  memcpy(in, frame, sizeof frame);
  if (neap_stream_step(f->stream)) return false;
  memcpy(first, neap_stream_output_f32(f->stream, 0, &n), sizeof first);
  const float rows[12] = {0.5f, -1, 0.25f, 1, 2, -0.5f, 0.5f, -1, 0.25f, 0, 0, 0};
  float all[8];
  bool good = !neap_run_state(f->run, NULL) && !neap_run_batch(f->run, 2) &&
              !neap_run_lengths(f->run, f->t, two, 2) &&
              !neap_run_input_f32(f->run, f->x, NEAP_CONCAT, rows, 12) &&
              !neap_run_forward(f->run) &&
              !neap_run_read_f32(f->run, f->y, NEAP_CONCAT, all, 8);
  memcpy(y, all, sizeof y);
  char *text = NULL;
  good = good && memcmp(first, y, sizeof first) == 0 && memcmp(first, all + 4, sizeof first) == 0 &&
         !neap_program_json(&text, f->pr) && strstr(text, "\"tanh\"") &&
         neap_params_find(f->params, "w_hh") == 1 && neap_state_rows(f->state) > 0 &&
         neap_archive_count(f->archive) >= 1 && neap_model_program(f->model, "predict") == f->pr;
  neap_text_free(text);
  return good;
}

/* ---- wrong arguments ---- */

static void test_null(fixture *f) {
  neap_type type = {NEAP_F32, 1, 1, {3}};
  neap_tensor *tensor;
  neap_program *pr;
  neap_state *state_;
  neap_run *run;
  neap_stream *stream;
  neap_model *model;
  neap_archive *archive;
  neap_optim *optim;
  neap_pool *pool;
  char *text;
  int id;
  size_t n, dim = 2;
  float z[4] = {0};
  int32_t i[4] = {0};
#define NULL_FAILS(call) CHECK_FAILS(NEAP_EARG, "NULL", call)
  NULL_FAILS(neap_cpu_select(NULL));
  NULL_FAILS(neap_pool_new(NULL, 1));
  NULL_FAILS(neap_tensor_new(NULL, NEAP_F32, 0, NULL));
  NULL_FAILS(neap_tensor_new(&tensor, NEAP_F32, 1, NULL));
  NULL_FAILS(neap_tensor_part(NULL, f->tensor, 0));
  NULL_FAILS(neap_tensor_part(&tensor, NULL, 0));
  NULL_FAILS(neap_tensor_top(NULL, f->tensor, f->tensor));
  NULL_FAILS(neap_tensor_top(f->tensor, NULL, f->tensor));
  NULL_FAILS(neap_tensor_top(f->tensor, f->tensor, NULL));
  NULL_FAILS(neap_params_new(NULL));
  NULL_FAILS(neap_params_add(&id, NULL, "a", 1, &dim));
  NULL_FAILS(neap_params_add(&id, f->params, "a", 1, NULL));
  NULL_FAILS(neap_params_add(&id, f->params, NULL, 1, &dim));
  NULL_FAILS(neap_params_init(NULL, 0, NEAP_INIT_CONSTANT, 0, 0, 0));
  NULL_FAILS(neap_params_copy(NULL, f->params));
  NULL_FAILS(neap_params_copy(f->params, NULL));
  NULL_FAILS(neap_params_pool(NULL, NULL));
  NULL_FAILS(neap_params_mix(NULL, f->params, 0.5));
  NULL_FAILS(neap_params_mix(f->params, NULL, 0.5));
  NULL_FAILS(neap_program_new(NULL, f->params));
  NULL_FAILS(neap_program_new(&pr, NULL));
  CHECK(pr == NULL);
  NULL_FAILS(neap_program_space(&id, NULL, "T", 0));
  NULL_FAILS(neap_program_space(&id, f->fresh, NULL, 0));
  NULL_FAILS(neap_program_folded(&id, NULL, 1, 2));
  NULL_FAILS(neap_program_where(NULL, "a", "b"));
  NULL_FAILS(neap_program_input(&id, NULL, "a", &type));
  NULL_FAILS(neap_program_input(&id, f->fresh, NULL, &type));
  NULL_FAILS(neap_program_input(&id, f->fresh, "a", NULL));
  NULL_FAILS(neap_program_scalar(&id, NULL, "a", 0));
  NULL_FAILS(neap_program_scalar(&id, f->fresh, NULL, 0));
  NULL_FAILS(neap_program_param(&id, NULL, "a"));
  CHECK_FAILS(NEAP_EARG, "no parameter", neap_program_param(&id, f->fresh, NULL));
  NULL_FAILS(neap_program_constant(&id, NULL, 0));
  NULL_FAILS(neap_program_add(&id, NULL, NULL, "tanh", &id, 1, NULL, 0));
  NULL_FAILS(neap_program_add(&id, NULL, f->fresh, "tanh", NULL, 1, NULL, 0));
  NULL_FAILS(neap_program_add(&id, NULL, f->fresh, "tanh", &f->fx, 1, NULL, 1));
  CHECK_FAILS(NEAP_EARG, "no op ''", neap_program_add(&id, NULL, f->fresh, NULL, &id, 1, NULL, 0));
  NULL_FAILS(neap_program_scan_begin(NULL, 1));
  NULL_FAILS(neap_program_scan_state(&id, NULL, "h", &type, -1));
  NULL_FAILS(neap_program_scan_state(&id, f->fresh, "h", NULL, -1));
  NULL_FAILS(neap_program_scan_next(NULL, 0, 0));
  NULL_FAILS(neap_program_scan_end(NULL));
  NULL_FAILS(neap_program_output(NULL, "y", 0));
  NULL_FAILS(neap_program_output(f->fresh, NULL, 0));
  NULL_FAILS(neap_program_type(NULL, f->pr, 0));
  NULL_FAILS(neap_program_type(&type, NULL, 0));
  NULL_FAILS(neap_program_print(NULL, f->pr));
  NULL_FAILS(neap_program_print(&text, NULL));
  NULL_FAILS(neap_program_json(NULL, f->pr));
  NULL_FAILS(neap_program_json(&text, NULL));
  CHECK(text == NULL);
  NULL_FAILS(neap_program_parse(NULL, f->params, "{}", 2));
  NULL_FAILS(neap_program_parse(&pr, NULL, "{}", 2));
  NULL_FAILS(neap_program_parse(&pr, f->params, NULL, 2));
  CHECK(strstr(neap_program_differ(NULL, f->pr), "NULL"));
  NULL_FAILS(neap_state_new(NULL, f->pr, 1));
  NULL_FAILS(neap_state_new(&state_, NULL, 1));
  NULL_FAILS(neap_state_clone(NULL, f->state));
  NULL_FAILS(neap_state_clone(&state_, NULL));
  NULL_FAILS(neap_state_copy(NULL, f->state));
  NULL_FAILS(neap_state_copy(f->state, NULL));
  NULL_FAILS(neap_state_mark(NULL, 0));
  NULL_FAILS(neap_state_widen(NULL, 0, 1));
  NULL_FAILS(neap_state_reset(NULL, NULL, 0));
  NULL_FAILS(neap_state_gather(NULL, i, 1));
  NULL_FAILS(neap_state_gather(f->state, NULL, 1));
  NULL_FAILS(neap_run_open(NULL, f->pr, NULL));
  NULL_FAILS(neap_run_open(&run, NULL, NULL));
  NULL_FAILS(neap_run_batch(NULL, 1));
  NULL_FAILS(neap_run_lengths(NULL, 1, i, 1));
  NULL_FAILS(neap_run_lengths(f->run, 1, NULL, 1));
  NULL_FAILS(neap_run_input_f32(NULL, 0, NEAP_PADDED, z, 1));
  NULL_FAILS(neap_run_input_f32(f->run, f->x, NEAP_PADDED, NULL, 1));
  NULL_FAILS(neap_run_input_i32(NULL, 0, NEAP_PADDED, i, 1));
  NULL_FAILS(neap_run_input_i32(f->run, f->x, NEAP_PADDED, NULL, 1));
  NULL_FAILS(neap_run_scalar(NULL, 0, 0));
  NULL_FAILS(neap_run_state(NULL, f->state));
  NULL_FAILS(neap_run_plan(NULL, f->run));
  NULL_FAILS(neap_run_plan(&n, NULL));
  NULL_FAILS(neap_run_forward(NULL));
  NULL_FAILS(neap_run_backward(NULL, 0));
  NULL_FAILS(neap_run_backward_from(NULL, 0, NEAP_PADDED, z, 1));
  NULL_FAILS(neap_run_backward_from(f->run, f->y, NEAP_PADDED, NULL, 8));
  NULL_FAILS(neap_run_find_nonfinite(NULL, 0));
  NULL_FAILS(neap_run_keep(NULL, 0, 0));
  NULL_FAILS(neap_run_count(NULL, f->run, 0, NEAP_PADDED));
  NULL_FAILS(neap_run_count(&n, NULL, 0, NEAP_PADDED));
  NULL_FAILS(neap_run_read_f32(NULL, 0, NEAP_PADDED, z, 1));
  NULL_FAILS(neap_run_read_f32(f->run, f->y, NEAP_PADDED, NULL, 8));
  NULL_FAILS(neap_run_read_i32(NULL, 0, NEAP_PADDED, i, 1));
  NULL_FAILS(neap_run_read_i32(f->run, f->y, NEAP_PADDED, NULL, 8));
  NULL_FAILS(neap_run_read_f64(NULL, 0, NEAP_PADDED, NULL, 0));
  NULL_FAILS(neap_run_read_f64(f->run, f->y, NEAP_PADDED, NULL, 8));
  NULL_FAILS(neap_run_grad_f32(NULL, 0, NEAP_PADDED, z, 1));
  NULL_FAILS(neap_run_grad_f32(f->run, f->y, NEAP_PADDED, NULL, 8));
  NULL_FAILS(neap_run_param_grad_f64(NULL, 0, NULL, 0));
  NULL_FAILS(neap_run_param_grad_f64(f->run, 0, NULL, 1));
  NULL_FAILS(neap_run_param_shift_f64(NULL, 0, 0, 0));
  NULL_FAILS(neap_stream_open(NULL, f->model, NULL));
  NULL_FAILS(neap_stream_open(&stream, NULL, NULL));
  NULL_FAILS(neap_stream_open_program(NULL, f->pr, NULL));
  NULL_FAILS(neap_stream_open_program(&stream, NULL, NULL));
  CHECK(stream == NULL);
  NULL_FAILS(neap_stream_step(NULL));
  NULL_FAILS(neap_stream_steps(NULL, 1));
  CHECK(neap_stream_block(NULL) == 1 && neap_stream_sources(NULL) == 0);
  NULL_FAILS(neap_stream_finish(NULL));
  CHECK(!neap_stream_latency(NULL) && !neap_stream_given(NULL) && !neap_stream_pending(NULL));
  NULL_FAILS(neap_stream_scalar(NULL, 0, 0));
  NULL_FAILS(neap_stream_context_batch(NULL, 1));
  NULL_FAILS(neap_stream_context_lengths(NULL, 1, i, 1));
  NULL_FAILS(neap_stream_context_lengths(f->stream, 1, NULL, 1));
  NULL_FAILS(neap_stream_context_f32(NULL, 0, NEAP_PADDED, z, 1));
  NULL_FAILS(neap_stream_context_f32(f->stream, 0, NEAP_PADDED, NULL, 1));
  NULL_FAILS(neap_stream_context_i32(NULL, 0, NEAP_PADDED, i, 1));
  NULL_FAILS(neap_stream_context_i32(f->stream, 0, NEAP_PADDED, NULL, 1));
  NULL_FAILS(neap_stream_rows(NULL, i, i, 1));
  NULL_FAILS(neap_stream_rows(f->stream, NULL, NULL, 1));
  NULL_FAILS(neap_model_new(NULL, f->params));
  NULL_FAILS(neap_model_new(&model, NULL));
  NULL_FAILS(neap_model_add(NULL, "a", f->pr));
  NULL_FAILS(neap_model_add(f->model, NULL, f->pr));
  NULL_FAILS(neap_model_add(f->model, "a", NULL));
  NULL_FAILS(neap_model_set_text(NULL, "a", "b"));
  NULL_FAILS(neap_model_set_text(f->model, NULL, "b"));
  NULL_FAILS(neap_model_save(NULL, path));
  NULL_FAILS(neap_model_save(f->model, NULL));
  NULL_FAILS(neap_model_load(NULL, path));
  NULL_FAILS(neap_model_load(&model, NULL));
  NULL_FAILS(neap_model_load_memory(NULL, z, 4));
  NULL_FAILS(neap_model_load_memory(&model, NULL, 4));
  CHECK(model == NULL);
  NULL_FAILS(neap_archive_new(NULL));
  NULL_FAILS(neap_archive_add(NULL, "a", f->tensor));
  NULL_FAILS(neap_archive_add(f->archive, NULL, f->tensor));
  NULL_FAILS(neap_archive_add(f->archive, "a", NULL));
  NULL_FAILS(neap_archive_set_text(NULL, "a", "b"));
  NULL_FAILS(neap_archive_set_text(f->archive, NULL, "b"));
  NULL_FAILS(neap_archive_save(NULL, path));
  NULL_FAILS(neap_archive_save(f->archive, NULL));
  NULL_FAILS(neap_archive_load(NULL, path));
  NULL_FAILS(neap_archive_load(&archive, NULL));
  NULL_FAILS(neap_archive_load_memory(NULL, z, 4));
  NULL_FAILS(neap_archive_load_memory(&archive, NULL, 4));
  CHECK(archive == NULL);
  NULL_FAILS(neap_optim_new(NULL, f->params, NULL, 0, NULL));
  NULL_FAILS(neap_optim_new(&optim, NULL, NULL, 0, NULL));
  NULL_FAILS(neap_optim_step(NULL));
  NULL_FAILS(neap_optim_group(NULL, (const int[]){0}, 1, 1, 0));
  NULL_FAILS(neap_optim_group(f->optim, NULL, 1, 1, 0));
  NULL_FAILS(neap_optim_save(NULL, f->archive, ""));
  NULL_FAILS(neap_optim_save(f->optim, NULL, ""));
  NULL_FAILS(neap_optim_load(NULL, f->archive, ""));
  NULL_FAILS(neap_optim_load(f->optim, NULL, ""));
  CHECK_FAILS(NEAP_EARG, "0", neap_pool_new(&pool, 0));
  CHECK(pool == NULL && works(f));
  /* what has no status answers harmlessly, and releases accept NULL */
  CHECK(neap_tensor_size(NULL) == 0 && !neap_tensor_data(NULL) && neap_tensor_rank(NULL) == 0);
  CHECK(neap_tensor_dim(f->tensor, 2) == 0 && neap_tensor_dim(f->tensor, -1) == 0);
  CHECK(neap_params_find(NULL, "a") == -1 && neap_params_find(f->params, NULL) == -1);
  CHECK(neap_params_count(NULL) == 0 && neap_params_size(NULL) == 0);
  CHECK(!neap_params_name(f->params, 99) && !neap_params_data(f->params, -1));
  NULL_FAILS(neap_params_read_grad(NULL, 0, z, 1));
  NULL_FAILS(neap_params_read_grad(f->params, 0, NULL, 1));
  CHECK(!neap_params_grad(f->params, 99) && neap_params_rank(f->params, 99) == -1);
  CHECK(neap_params_dim(f->params, 0, 9) == 0 && neap_params_frozen(f->params, 99) == 0);
  CHECK(!neap_program_params(NULL) && neap_program_nodes(NULL) == 0);
  CHECK(!neap_program_space_name(f->pr, 9) && neap_program_space_parent(f->pr, -1) == -1);
  CHECK(neap_program_space_of(f->pr, f->t) == f->t && neap_program_space_factor(f->pr, f->t) == 1);
  CHECK(neap_program_space_of(f->pr, 9) == -1 && neap_program_space_factor(NULL, 0) == 0);
  CHECK(neap_program_find_space(NULL, "T") == -1 && neap_program_find_space(f->pr, NULL) == -1);
  CHECK(neap_program_find_input(f->pr, "no") == -1 && neap_program_find_output(NULL, "y") == -1);
  CHECK(!neap_program_input_name(f->pr, 9, &id) && id == -1);
  CHECK(!neap_program_output_name(f->pr, -1, &id) && !neap_program_reads_future(NULL));
  CHECK(!neap_op_describe(-1) && !neap_op_describe(9999));
  CHECK(neap_state_rows(NULL) == 0 && neap_state_slots(NULL) == 0 && !neap_state_data(f->state, 9));
  CHECK(!neap_state_slot(f->state, -1, NULL, NULL));
  CHECK(neap_run_steps(f->run, 9) == 0 && neap_run_rows(NULL, 0) == 0 && neap_run_bytes(NULL) == 0);
  CHECK(!neap_run_whole(NULL) && !neap_run_whole(f->run));
  CHECK(!neap_stream_input_f32(NULL, 0, &n) && n == 0);
  CHECK(!neap_stream_input_f32(f->stream, 1, NULL));
  CHECK(!neap_stream_input_name(NULL, 0) && !neap_stream_output_name(NULL, 0));
  CHECK(!neap_stream_input_name(f->stream, 9) && !neap_stream_output_name(f->stream, 9));
  CHECK(!neap_state_marked(NULL, 0) && !neap_state_marked(f->state, 99));
  CHECK(!neap_stream_input_i32(f->stream, 0, NULL) && !neap_stream_output_f32(f->stream, 1, NULL));
  CHECK(neap_stream_output_i32(f->stream, 1, &n) && n == 1 && !neap_stream_state(NULL));
  CHECK(!neap_model_program(f->model, "no") && !neap_model_program_name(f->model, 1));
  CHECK(!neap_model_params(NULL) && !neap_model_text(f->model, "no"));
  CHECK(neap_model_texts(NULL) == 0);
  CHECK(!neap_model_text_key(f->model, 0) && neap_model_programs(NULL) == 0);
  CHECK(!neap_archive_tensor(f->archive, "no") && !neap_archive_name(f->archive, 1));
  CHECK(!neap_archive_text(NULL, "a") && neap_archive_texts(f->archive) == 0);
  CHECK(neap_optim_reported(NULL).steps == 0 && neap_pool_threads(NULL) == 1);
  CHECK(strcmp(neap_status_name(NEAP_ESHAPE), "ESHAPE") == 0);
  CHECK(strcmp(neap_status_name((neap_status)99), "unknown") == 0);
  neap_run_seed(NULL, 1, 0), neap_run_learning(NULL, 1), neap_run_cancel(NULL);
  neap_params_zero_grad(NULL), neap_params_touch(NULL), neap_params_freeze(NULL, 0, 1);
  neap_stream_reset(NULL), neap_optim_rate(NULL, 1);
  fixture none = {0};
  tear_down(&none);
  neap_pool_release(NULL);
  neap_text_free(NULL);
}

static void test_wrong(fixture *f) {
  size_t dims[] = {2, SIZE_MAX / 2}, n;
  int id, outs[NEAP_MAX_OUTPUTS];
  const double nan = (double)NAN;
  float z[32] = {0};
  double d[64];
  int32_t i[4] = {0, 7, 1, 1};
  neap_tensor *tensor;
  neap_params *other;
  neap_program *pr;
  neap_run *run;
  neap_stream *stream;
  neap_state *state_;
  neap_model *model;
  neap_optim *optim;
  neap_archive *archive;
  neap_type type = {NEAP_F32, 1, 1, {3}};
  CHECK_FAILS(NEAP_EUNSUPPORTED, "no level \"mmx\"", neap_cpu_select("mmx"));
  CHECK_FAILS(NEAP_EARG, "rank", neap_tensor_new(&tensor, NEAP_F32, 5, dims));
  CHECK_FAILS(NEAP_EARG, "rank", neap_tensor_new(&tensor, NEAP_F32, -1, dims));
  CHECK_FAILS(NEAP_EARG, "9", neap_tensor_new(&tensor, (neap_dtype)9, 1, dims));
  CHECK_FAILS(NEAP_ERANGE, "", neap_tensor_new(&tensor, NEAP_F32, 2, dims));
  CHECK(tensor == NULL);
  /* parameters */
  CHECK_FAILS(NEAP_EARG, "another shape", neap_params_add(&id, f->params, "u", 1, dims));
  CHECK_FAILS(NEAP_EARG, "1 to 255 bytes", neap_params_add(&id, f->params, "", 1, dims));
  CHECK_FAILS(NEAP_EARG, "UTF-8", neap_params_add(&id, f->params, "a\xff", 1, dims));
  CHECK_FAILS(NEAP_ERANGE, "big", neap_params_add(&id, f->params, "big", 2, dims));
  CHECK_FAILS(NEAP_EARG, "9", neap_params_init(f->params, 9, NEAP_INIT_CONSTANT, 0, 0, 0));
  CHECK_FAILS(NEAP_EARG, "finite", neap_params_init(f->params, 0, NEAP_INIT_CONSTANT, nan, 0, 0));
  CHECK_FAILS(NEAP_EARG, "a <= b", neap_params_init(f->params, 0, NEAP_INIT_UNIFORM, 1, 0, 0));
  CHECK_FAILS(NEAP_EARG, "deviation", neap_params_init(f->params, 0, NEAP_INIT_NORMAL, 1, -1, 0));
  CHECK_FAILS(NEAP_EARG, "blocks", neap_params_init(f->params, 0, NEAP_INIT_ORTHOGONAL, 1, 3, 0));
  CHECK_FAILS(NEAP_EARG, "kind", neap_params_init(f->params, 0, (neap_init)7, 0, 0, 0));
  CHECK(neap_params_new(&other) == NEAP_OK);
  CHECK_FAILS(NEAP_EARG, "expected 5 parameters, came 0", neap_params_copy(f->params, other));
  CHECK_FAILS(NEAP_EARG, "expected 5 parameters, came 0", neap_params_mix(f->params, other, 0.5));
  CHECK_FAILS(NEAP_EARG, "expected a share in 0..1, came 2", neap_params_mix(f->params, other, 2));
  /* recording */
  CHECK_FAILS(NEAP_EARG, "in 0..1, got 5", neap_program_space(&id, f->fresh, "S", 5));
  CHECK_FAILS(NEAP_EARG, "another parent", neap_program_space(&id, f->fresh, "T", 1));
  CHECK_FAILS(NEAP_EARG, "1 to 255 bytes", neap_program_space(&id, f->fresh, "", 0));
  CHECK_FAILS(NEAP_EARG, "in 1..1, got 0", neap_program_folded(&id, f->fresh, 0, 2));
  CHECK_FAILS(NEAP_EARG, "in 1..1, got 2", neap_program_folded(&id, f->fresh, 2, 2));
  CHECK_FAILS(NEAP_ERANGE, "2 to 65536 steps for one of 'T', got 1",
              neap_program_folded(&id, f->fresh, f->ft, 1));
  CHECK(id == -1 && neap_program_spaces(f->fresh) == 2);
  CHECK_FAILS(NEAP_EARG, "'x' is taken", neap_program_input(&id, f->fresh, "x", &type));
  CHECK_FAILS(NEAP_EARG, "UTF-8", neap_program_input(&id, f->fresh, "\xc0", &type));
  type.space = 7;
  CHECK_FAILS(NEAP_EARG, "in space 7", neap_program_input(&id, f->fresh, "a", &type));
  type.space = 1, type.rank = 4;
  CHECK_FAILS(NEAP_ESHAPE, "4 feature dimensions", neap_program_input(&id, f->fresh, "a", &type));
  type.rank = 1, type.dim[0] = 0;
  CHECK_FAILS(NEAP_ESHAPE, "dimension 0", neap_program_input(&id, f->fresh, "a", &type));
  type.dim[0] = NEAP_LONGEST(1);
  CHECK_FAILS(NEAP_ESHAPE, "1 or more", neap_program_input(&id, f->fresh, "a", &type));
  type = (neap_type){(neap_dtype)3, 1, 0, {0}};
  CHECK_FAILS(NEAP_ETYPE, "f32 or i32", neap_program_input(&id, f->fresh, "a", &type));
  type = (neap_type){NEAP_F32, 1, 2, {70000, 70000}};
  CHECK_FAILS(NEAP_ESHAPE, "elements", neap_program_input(&id, f->fresh, "a", &type));
  CHECK_FAILS(NEAP_ENONFINITE, "finite", neap_program_scalar(&id, f->fresh, "a", -nan));
  CHECK_FAILS(NEAP_ENONFINITE, "finite", neap_program_constant(&id, f->fresh, nan));
  CHECK_FAILS(NEAP_EARG, "no parameter 'no'", neap_program_param(&id, f->fresh, "no"));
  int nodes = neap_program_nodes(f->fresh), two[] = {f->fx, f->fx};
  neap_attr attr = {"axes", 0}, bad = {"axis", nan};
  CHECK_FAILS(NEAP_EARG, "did you mean 'tanh'?",
              neap_program_add(outs, &id, f->fresh, "tahn", two, 1, NULL, 0));
  CHECK_FAILS(NEAP_EARG, "expected 1 input, got 2",
              neap_program_add(outs, &id, f->fresh, "tanh", two, 2, NULL, 0));
  CHECK_FAILS(NEAP_EARG, "NULL", neap_program_add(outs, &id, f->fresh, "tanh", two, -1, NULL, 0));
  CHECK_FAILS(NEAP_EARG, "did you mean 'axis'?",
              neap_program_add(outs, &id, f->fresh, "sum", two, 1, &attr, 1));
  CHECK_FAILS(NEAP_EARG, "finite", neap_program_add(outs, &id, f->fresh, "sum", two, 1, &bad, 1));
  CHECK_FAILS(NEAP_ESHAPE, "inner widths differ: x [T,B,3], w [2,2]",
              (neap_program_param(&two[1], f->fresh, "u"),
               neap_program_add(outs, &id, f->fresh, "matmul", two, 2, NULL, 0)));
  two[1] = 99;
  CHECK_FAILS(NEAP_EARG, "value 99", neap_program_add(outs, &id, f->fresh, "add", two, 2, NULL, 0));
  CHECK_FAILS(NEAP_ETYPE, "ids must be i32",
              neap_program_add(outs, &id, f->fresh, "one_hot", two, 1, &(neap_attr){"size", 3}, 1));
  CHECK(neap_program_nodes(f->fresh) == nodes + 1);
  CHECK_FAILS(NEAP_ESTATE, "no scan is open", neap_program_scan_end(f->fresh));
  CHECK_FAILS(NEAP_ESTATE, "no scan is open",
              neap_program_scan_state(&id, f->fresh, "h", &type, -1));
  CHECK_FAILS(NEAP_EARG, "sequence space", neap_program_scan_begin(f->fresh, 0));
  CHECK(neap_program_scan_begin(f->fresh, f->ft) == NEAP_OK);
  CHECK_FAILS(NEAP_ESTATE, "cannot hold a scan", neap_program_scan_begin(f->fresh, f->ft));
  type = (neap_type){NEAP_F32, 0, 1, {3}};
  CHECK_FAILS(NEAP_ESTATE, "inside a cell's step", neap_program_input(&id, f->fresh, "a", &type));
  CHECK_FAILS(NEAP_ESHAPE, "first state [B,3], got [T,B,3]",
              neap_program_scan_state(&id, f->fresh, "h", &type, f->fx));
  CHECK_FAILS(NEAP_EARG, "no value -2", neap_program_scan_state(&id, f->fresh, "h", &type, -2));
  CHECK(neap_program_scan_state(&id, f->fresh, "h", &type, -1) == NEAP_OK);
  CHECK_FAILS(NEAP_ESTATE, "what state 'h' becomes", neap_program_scan_end(f->fresh));
  CHECK_FAILS(NEAP_EARG, "is not a state", neap_program_scan_next(f->fresh, f->fx, f->fx));
  CHECK_FAILS(NEAP_EARG, "no value 99", neap_program_scan_next(f->fresh, id, 99));
  CHECK_FAILS(NEAP_EUNSUPPORTED, "mixes time",
              neap_program_add(outs, NULL, f->fresh, "reverse", &f->fx, 1, NULL, 0));
  CHECK_FAILS(NEAP_ESTATE, "still open", neap_run_open(&run, f->fresh, NULL));
  CHECK(neap_program_reads_future(f->fresh) == NULL);
  CHECK_FAILS(NEAP_ESTATE, "open scan", neap_model_add(f->model, "a", f->fresh));
  CHECK(neap_program_scan_next(f->fresh, id, f->fx) == NEAP_OK);
  CHECK(neap_program_scan_end(f->fresh) == NEAP_OK);
  CHECK_FAILS(NEAP_ESTATE, "closed", neap_program_scan_next(f->fresh, id, f->fx));
  CHECK(neap_program_output(f->fresh, "y", id) == NEAP_OK);
  CHECK_FAILS(NEAP_EARG, "'y' is taken", neap_program_output(f->fresh, "y", id));
  CHECK_FAILS(NEAP_EARG, "no value 77", neap_program_output(f->fresh, "z", 77));
  CHECK_FAILS(NEAP_EARG, "no value -1", neap_program_type(&type, f->fresh, -1));
  CHECK_FAILS(NEAP_EFORMAT, "program", neap_program_parse(&pr, f->params, "{}", 2));
  CHECK(pr == NULL && strstr(neap_program_differ(f->pr, f->fresh), "the first time"));
  /* a program that has run is what it is */
  CHECK_FAILS(NEAP_ESTATE, "has been run", neap_program_constant(&id, f->pr, 1));
  CHECK_FAILS(NEAP_ESTATE, "has been run", neap_program_output(f->pr, "late", 0));
  CHECK_FAILS(NEAP_ESTATE, "has been run", neap_program_scan_begin(f->pr, 1));
  CHECK_FAILS(NEAP_ESTATE, "has been run", neap_program_space(&id, f->pr, "S", 0));
  CHECK_FAILS(NEAP_ESTATE, "has been run", neap_program_folded(&id, f->pr, 1, 2));
  CHECK_FAILS(NEAP_ESTATE, "has been run",
              neap_program_add(outs, NULL, f->pr, "tanh", &f->y, 1, NULL, 0));
  CHECK(neap_program_param(&id, f->pr, "u") == NEAP_OK); /* is there already */
  /* runs */
  CHECK(feed_any(f->run, f->pr) == NEAP_OK);
  CHECK_FAILS(NEAP_EARG, "no value 99", neap_run_keep(f->run, 99, 0));
  CHECK_FAILS(NEAP_EARG, "no value -1", neap_run_input_f32(f->run, -1, NEAP_CONCAT, z, 9));
  CHECK_FAILS(NEAP_ESHAPE, "expected 9 elements, got 8",
              neap_run_input_f32(f->run, f->x, NEAP_CONCAT, z, 8));
  CHECK_FAILS(NEAP_ETYPE, "expected f32, got i32",
              neap_run_input_i32(f->run, f->x, NEAP_CONCAT, i, 4));
  CHECK_FAILS(NEAP_EARG, "is no input but", neap_run_input_f32(f->run, f->y, NEAP_CONCAT, z, 6));
  z[4] = INFINITY;
  CHECK_FAILS(NEAP_ENONFINITE, "'x': NaN or infinity in sequence 1, step 2",
              neap_run_input_f32(f->run, f->x, NEAP_CONCAT, z, 9));
  z[4] = 0;
  CHECK_FAILS(NEAP_EARG, "is no scalar but", neap_run_scalar(f->run, f->x, 1));
  CHECK_FAILS(NEAP_EARG, "sequence space in 1..1, got 2", neap_run_lengths(f->run, 2, i, 2));
  CHECK_FAILS(NEAP_ESHAPE, "expected 2 lengths for 'T'", neap_run_lengths(f->run, 1, i, 3));
  i[1] = -1;
  CHECK_FAILS(NEAP_ERANGE, "sequence 2 of 'T': expected a length of 0 or more, got -1", neap_run_lengths(f->run, 1, i, 2));
  CHECK_FAILS(NEAP_ERANGE, "the most allowed", neap_run_batch(f->run, (size_t)INT32_MAX + 1));
  CHECK(feed_any(f->run, f->pr) == NEAP_OK);
  CHECK_FAILS(NEAP_ESTATE, "forward has not run", neap_run_backward(f->run, f->y));
  CHECK_FAILS(NEAP_ESTATE, "forward has not run",
              neap_run_read_f32(f->run, f->y, NEAP_CONCAT, z, 6));
  CHECK_FAILS(NEAP_ESTATE, "forward has not run", neap_run_find_nonfinite(f->run, f->y));
  CHECK(neap_run_forward(f->run) == NEAP_OK);
  CHECK_FAILS(NEAP_ESHAPE, "expected a single number", neap_run_backward(f->run, f->y));
  CHECK_FAILS(NEAP_ESHAPE, "expected 6 elements",
              neap_run_backward_from(f->run, f->y, NEAP_CONCAT, z, 5));
  id = neap_program_find_output(f->pr, "n");
  CHECK_FAILS(NEAP_EARG, "depends on no parameter",
              neap_run_backward_from(f->run, id, NEAP_CONCAT, z, 3));
  CHECK_FAILS(NEAP_ETYPE, "it is i32", neap_run_read_f32(f->run, id, NEAP_CONCAT, z, 3));
  CHECK_FAILS(NEAP_ETYPE, "it is f32", neap_run_read_i32(f->run, f->y, NEAP_CONCAT, i, 6));
  CHECK_FAILS(NEAP_ESHAPE, "expected room for 6",
              neap_run_read_f32(f->run, f->y, NEAP_CONCAT, z, 5));
  CHECK_FAILS(NEAP_ESTATE, "was not kept", neap_run_read_f32(f->run, 4, NEAP_CONCAT, z, 6));
  CHECK_FAILS(NEAP_ESTATE, "was not kept", neap_run_grad_f32(f->run, f->y, NEAP_CONCAT, z, 6));
  CHECK_FAILS(NEAP_EARG, "no value 99", neap_run_count(&n, f->run, 99, NEAP_CONCAT));
  CHECK_FAILS(NEAP_ESTATE, "without NEAP_DOUBLE", neap_run_param_grad_f64(f->run, 0, d, 24));
  CHECK_FAILS(NEAP_ESTATE, "without NEAP_DOUBLE", neap_run_param_shift_f64(f->run, 0, 0, 1));
  neap_run_options two_rows = {.flags = NEAP_DOUBLE, .max_rows = 2};
  CHECK(neap_run_open(&run, f->pr, &two_rows) == NEAP_OK);
  CHECK_FAILS(NEAP_ESTATE, "not set", neap_run_forward(run));
  CHECK_FAILS(NEAP_ESTATE, "the rows of 'B' must be known", neap_run_lengths(run, 1, i, 2));
  CHECK_FAILS(NEAP_ESTATE, "the rows of 'T' are not set",
              neap_run_count(&n, run, f->y, NEAP_CONCAT));
  CHECK_FAILS(NEAP_ERANGE, "'B' has 3 rows, the most allowed are 2", neap_run_batch(run, 3));
  CHECK_FAILS(NEAP_ERANGE, "'T' has 3 rows, the most allowed are 2", feed_any(run, f->pr));
  CHECK_FAILS(NEAP_ESTATE, "lengths of 'T' are not set", neap_run_forward(run));
  CHECK(neap_run_lengths(run, 1, (const int32_t[]){1, 1}, 2) == NEAP_OK);
  CHECK_FAILS(NEAP_ESTATE, "input 'x' is not set", neap_run_forward(run));
  CHECK(neap_run_input_f32(run, f->x, NEAP_CONCAT, z, 6) == NEAP_OK);
  CHECK(neap_run_forward(run) == NEAP_OK);
  CHECK_FAILS(NEAP_ESTATE, "not opened for learning", neap_run_backward(run, f->y));
  CHECK_FAILS(NEAP_EARG, "no parameter 9", neap_run_param_grad_f64(run, 9, d, 1));
  CHECK_FAILS(NEAP_ESHAPE, "has 24 numbers", neap_run_param_grad_f64(run, 0, d, 23));
  CHECK_FAILS(NEAP_ERANGE, "element 24 of 'w_ih'", neap_run_param_shift_f64(run, 0, 24, 1));
  /* parameters that come later move the others: what stands on them must not notice */
  CHECK(neap_params_add(&id, f->params, "later", 1, (const size_t[]){5000}) == NEAP_OK);
  CHECK_FAILS(NEAP_ESTATE, "parameters were added", neap_run_forward(run));
  CHECK_FAILS(NEAP_ESTATE, "parameters were added", neap_run_param_shift_f64(run, 0, 0, 1));
  neap_run_close(run);
  for (int k = 0; k < 6; k++) z[k] = 1;
  CHECK(neap_run_backward_from(f->run, f->y, NEAP_CONCAT, z, 6) == NEAP_OK);
  CHECK_FAILS(NEAP_ESTATE, "forward again",
              neap_run_backward_from(f->run, f->y, NEAP_CONCAT, z, 6));
  CHECK(neap_program_param(&id, f->pr, "w_ih") == NEAP_OK);
  CHECK(neap_run_read_f32(f->run, id, NEAP_CONCAT, z, 24) == NEAP_OK);
  CHECK(memcmp(z, neap_params_data(f->params, 0), 96) == 0 && works(f));
  /* states of others */
  CHECK(neap_run_open(&run, f->fresh, NULL) == NEAP_OK);
  CHECK_FAILS(NEAP_ESHAPE, "other layers", neap_run_state(run, f->state));
  neap_run_close(run);
  CHECK(neap_state_new(&state_, f->fresh, 2) == NEAP_OK);
  CHECK_FAILS(NEAP_ESHAPE, "differ", neap_state_copy(state_, f->state));
  neap_state_release(state_);
  CHECK_FAILS(NEAP_ERANGE, "too many", neap_state_new(&state_, f->pr, (size_t)1 << 40));
  CHECK(state_ == NULL);
  CHECK_FAILS(NEAP_ERANGE, "row 2 is not in 0..1", neap_state_mark(f->state, 2));
  CHECK_FAILS(NEAP_EARG, "slot -1 is not in 0..", neap_state_widen(f->state, -1, 1));
  CHECK_FAILS(NEAP_EARG, "wide, came 99", neap_state_widen(f->state, 0, 99));
  CHECK_FAILS(NEAP_ERANGE, "row -1 is not in 0..1", neap_state_reset(f->state, &i[1], 1));
  CHECK_FAILS(NEAP_ERANGE, "row -1 is not in 0..1", neap_state_gather(f->state, i, 2));
  /* streams */
  CHECK_FAILS(NEAP_EARG, "no program 'no'",
              neap_stream_open(&stream, f->model, &(neap_stream_options){.program = "no"}));
  CHECK_FAILS(NEAP_ERANGE, "too many", neap_stream_open_program(
                                           &stream, f->pr,
                                           &(neap_stream_options){.rows = (size_t)1 << 40}));
  CHECK(stream == NULL && record_large(&pr, other) == NEAP_OK);
  CHECK(strstr(neap_program_reads_future(pr), "reads later steps"));
  CHECK(neap_program_space(&id, f->fresh, "T", 0) == NEAP_OK);
  neap_program_release(pr);
  CHECK_FAILS(NEAP_EARG, "no value 99", neap_stream_scalar(f->stream, 99, 1));
  CHECK_FAILS(NEAP_EARG, "stepped along", neap_stream_context_lengths(f->stream, 1, i, 1));
  CHECK_FAILS(NEAP_EARG, "belongs to the steps",
              neap_stream_context_f32(f->stream, f->x, NEAP_CONCAT, z, 3));
  CHECK_FAILS(NEAP_ERANGE, "source row 7", neap_stream_rows(f->stream, (int32_t[]){7}, NULL, 1));
  CHECK_FAILS(NEAP_ERANGE, "row 3", neap_stream_rows(f->stream, i, (int32_t[]){3}, 1));
  /* a block of steps */
  CHECK(neap_stream_block(f->stream) == 1 && neap_stream_steps(f->stream, 0) == NEAP_OK);
  CHECK_FAILS(NEAP_ERANGE, "2 steps, but it was opened with a block of 1",
              neap_stream_steps(f->stream, 2));
  CHECK_FAILS(NEAP_ERANGE, "at most", neap_stream_open(&stream, f->model,
                                                       &(neap_stream_options){.block = SIZE_MAX}));
  CHECK_FAILS(NEAP_ERANGE, "a look-ahead of 2147483647 steps and a block of 1",
              neap_stream_open(&stream, f->model, &(neap_stream_options){.lookahead = INT32_MAX}));
  CHECK(!stream && neap_stream_latency(f->stream) == 0);
  CHECK(neap_stream_finish(f->stream) == NEAP_OK && neap_stream_given(f->stream) == 0);
  CHECK(neap_stream_step(f->stream) == NEAP_OK && neap_stream_given(f->stream) == 1);
  CHECK(neap_stream_open(&stream, f->model, &(neap_stream_options){.block = 4}) == NEAP_OK);
  CHECK(neap_stream_block(stream) == 4);
  CHECK_FAILS(NEAP_ERANGE, "5 steps, but it was opened with a block of 4",
              neap_stream_steps(stream, 5));
  CHECK_FAILS(NEAP_ESTATE, "its rows stay 1", neap_stream_rows(stream, i, NULL, 1));
  CHECK_FAILS(NEAP_ESTATE, "its rows stay 1", neap_stream_context_batch(stream, 2));
  CHECK(neap_stream_step(stream) == NEAP_OK && neap_stream_steps(stream, 4) == NEAP_OK);
  neap_stream_close(stream);
  stream = NULL;
  /* models and files */
  CHECK(neap_program_new(&pr, other) == NEAP_OK);
  CHECK_FAILS(NEAP_EARG, "another set of parameters", neap_model_add(f->model, "a", pr));
  CHECK_FAILS(NEAP_EARG, "1 to 200 bytes", neap_model_add(f->model, "", f->pr));
  neap_program_release(pr);
  CHECK_FAILS(NEAP_EARG, "no program of the model uses 'later'", neap_model_save(f->model, path));
  CHECK_FAILS(NEAP_EIO, "/no/such/file", neap_model_load(&model, "/no/such/file"));
  CHECK_FAILS(NEAP_EFORMAT, "bytes", neap_model_load_memory(&model, z, 4));
  CHECK(model == NULL && neap_model_new(&model, other) == NEAP_OK);
  CHECK_FAILS(NEAP_EARG, "no program 'predict'", neap_stream_open(&stream, model, NULL));
  neap_model_release(model);
  neap_params_release(other);
  CHECK_FAILS(NEAP_EARG, "taken", neap_archive_add(f->archive, "t", f->tensor));
  CHECK_FAILS(NEAP_EARG, "UTF-8", neap_archive_set_text(f->archive, "a", "\xff"));
  CHECK_FAILS(NEAP_EIO, "/no/such/dir", neap_archive_save(f->archive, "/no/such/dir/file"));
  CHECK_FAILS(NEAP_EIO, "/no/such/file", neap_archive_load(&archive, "/no/such/file"));
  /* optimizers */
  neap_optim_options o = neap_optim_preset(NEAP_ADAM);
  o.rate = nan;
  CHECK_FAILS(NEAP_EARG, "rate", neap_optim_new(&optim, f->params, NULL, 0, &o));
  o = neap_optim_preset((neap_optim_kind)9);
  CHECK_FAILS(NEAP_EARG, "no kind 9", neap_optim_new(&optim, f->params, NULL, 0, &o));
  CHECK_FAILS(NEAP_EARG, "no parameter 7",
              neap_optim_new(&optim, f->params, (const int[]){7}, 1, NULL));
  CHECK(optim == NULL);
  CHECK_FAILS(NEAP_EARG, "no parameter 7", neap_optim_group(f->optim, (const int[]){7}, 1, 1, 0));
  CHECK_FAILS(NEAP_EARG, "got -1 and 0", neap_optim_group(f->optim, (const int[]){0}, 1, -1, 0));
  CHECK(neap_optim_name((neap_optim_kind)9, NULL) == NULL);
  CHECK(strcmp(neap_optim_name(NEAP_ADADELTA, NULL), "adadelta") == 0);
  CHECK_FAILS(NEAP_EFORMAT, "no state under 'p'", neap_optim_load(f->optim, f->archive, "p"));
  CHECK_FAILS(NEAP_EARG, "expected an id below", neap_params_read_grad(f->params, -1, z, 1));
  CHECK_FAILS(NEAP_ESHAPE, "came room for 1", neap_params_read_grad(f->params, 1, z, 1));
  neap_params_grad(f->params, 1)[3] = NAN;
  CHECK_FAILS(NEAP_ENONFINITE, "NaN in the gradient of 'w_hh' (element 3)",
              neap_optim_step(f->optim));
  neap_params_zero_grad(f->params);
  CHECK(neap_optim_step(f->optim) == NEAP_OK && works(f));
}

/* What no output needs is not asked for: neither the numbers of an input nor the lengths. */
static void test_unneeded(fixture *f) {
  recorder r;
  start(&r, f->params);
  int t = space(&r, "T", 0), u = space(&r, "U", 0), x = input(&r, "x", NEAP_F32, t, 3);
  OP1(&r, "mean_time", input(&r, "z", NEAP_F32, u, 3));
  output(&r, "y", OP1(&r, "neg", x));
  neap_run *run = NULL;
  neap_stream *s = NULL;
  size_t n;
  float y[3];
  CHECK(r.rc == NEAP_OK && neap_run_open(&run, r.pr, NULL) == NEAP_OK);
  CHECK(neap_run_batch(run, 1) == NEAP_OK && neap_run_lengths(run, t, (int32_t[]){1}, 1) == NEAP_OK);
  CHECK(neap_run_input_f32(run, x, NEAP_CONCAT, frame, 3) == NEAP_OK);
  CHECK(neap_run_forward(run) == NEAP_OK);
  CHECK(neap_run_read_f32(run, x + 1, NEAP_CONCAT, y, 3) != NEAP_OK);
  CHECK(neap_run_read_f32(run, neap_program_find_output(r.pr, "y"), NEAP_CONCAT, y, 3) == NEAP_OK);
  CHECK(y[0] == -frame[0] && y[1] == -frame[1] && y[2] == -frame[2]);
  CHECK(neap_stream_open_program(&s, r.pr, NULL) == NEAP_OK);
  float *in = neap_stream_input_f32(s, 0, &n);
  CHECK(in && n == 3 && neap_stream_step(s) == NEAP_OK);
  CHECK(strcmp(neap_stream_input_name(s, 0), "x") == 0 && !neap_stream_input_name(s, 1));
  CHECK(strcmp(neap_stream_output_name(s, 0), "y") == 0 && !neap_stream_output_name(s, 1));
  neap_stream_close(s);
  neap_run_close(run);
  neap_program_release(r.pr);
}

/* ---- memory that runs out ---- */

typedef neap_status (*call)(fixture *f);

static neap_status call_tensor(fixture *f) {
  neap_tensor *t;
  const size_t dims[] = {3, 4};
  (void)f;
  neap_status rc = neap_tensor_new(&t, NEAP_I32, 2, dims);
  neap_tensor_release(t);
  return rc;
}
static neap_status call_params(fixture *f) {
  neap_params *p;
  (void)f;
  neap_status rc = neap_params_new(&p);
  neap_params_release(p);
  return rc;
}
static neap_status call_add_param(fixture *f) {
  const size_t dims[] = {40, 50};
  neap_status rc = neap_params_add(NULL, f->params, "more", 2, dims);
  CHECK((neap_params_find(f->params, "more") < 0) == (rc != NEAP_OK));
  return rc;
}
static neap_status call_grad(fixture *f) {
  return neap_params_grad(f->params, 0) ? NEAP_OK : NEAP_EMEM;
}
static neap_status call_orthogonal(fixture *f) {
  return neap_params_init(f->params, 0, NEAP_INIT_ORTHOGONAL, 1, 0, 3);
}
static neap_status call_program(fixture *f) {
  neap_program *pr;
  neap_status rc = neap_program_new(&pr, f->params);
  neap_program_release(pr);
  return rc;
}
static neap_status call_space(fixture *f) { return neap_program_space(NULL, f->fresh, "S", f->ft); }
static neap_status call_folded(fixture *f) {
  int id;
  neap_status rc = neap_program_folded(&id, f->fresh, f->ft, 2);
  CHECK(neap_program_spaces(f->fresh) == 2 + !rc);
  return rc;
}
static neap_status call_where(fixture *f) { return neap_program_where(f->fresh, "a.lua:1", "net"); }
static neap_status call_input(fixture *f) {
  neap_type t = {NEAP_I32, 1, 0, {0}};
  neap_status rc = neap_program_input(NULL, f->fresh, "z", &t);
  CHECK(neap_program_inputs(f->fresh) == 1 + !rc);
  return rc;
}
static neap_status call_scalar(fixture *f) { return neap_program_scalar(NULL, f->fresh, "r", 0.5); }
static neap_status call_param(fixture *f) { return neap_program_param(NULL, f->fresh, "u"); }
static neap_status call_constant(fixture *f) { return neap_program_constant(NULL, f->fresh, 2); }
static neap_status call_add(fixture *f) { /* a spread is recorded, then the sum */
  int in[] = {f->fx, -1}, nodes;
  neap_type t = {NEAP_F32, 0, 1, {3}};
  neap_status rc = neap_program_input(&in[1], f->fresh, "b", &t);
  if (rc) return rc;
  nodes = neap_program_nodes(f->fresh);
  rc = neap_program_add(NULL, NULL, f->fresh, "add", in, 2, NULL, 0);
  CHECK(neap_program_nodes(f->fresh) == nodes + (rc ? 0 : 2));
  return rc;
}
static neap_status call_add_lstm(fixture *f) { /* with slots for its states */
  int in[3] = {f->fx, 0, 0};
  neap_status rc = neap_program_param(&in[1], f->fresh, "w_ih");
  if (!rc) rc = neap_program_param(&in[2], f->fresh, "w_hh");
  if (!rc) rc = neap_program_add(NULL, NULL, f->fresh, "lstm", in, 3, NULL, 0);
  neap_state *s;
  atomic_store(&allowed, -1);
  CHECK(neap_state_new(&s, f->fresh, 1) == NEAP_OK && neap_state_slots(s) == (rc ? 0 : 2));
  neap_state_release(s);
  return rc;
}
static neap_status call_scan(fixture *f) { /* a learned first state and a next that are spread */
  int first, h, one;
  neap_type t = {NEAP_F32, 0, 2, {2, 2}};
  neap_status rc = neap_program_param(&first, f->fresh, "u");
  if (!rc) rc = neap_program_scan_begin(f->fresh, f->ft);
  if (!rc) rc = neap_program_scan_state(&h, f->fresh, "h", &t, first);
  if (!rc) rc = neap_program_param(&one, f->fresh, "out");
  if (!rc) rc = neap_program_scan_next(f->fresh, h, one);
  return rc ? rc : neap_program_scan_end(f->fresh);
}
static neap_status call_output(fixture *f) {
  neap_status rc = neap_program_output(f->fresh, "o", f->fx);
  CHECK(neap_program_outputs(f->fresh) == !rc);
  return rc;
}
static neap_status call_text(fixture *f) {
  char *a = NULL, *b = NULL;
  neap_status rc = neap_program_print(&a, f->pr);
  if (!rc) rc = neap_program_json(&b, f->pr);
  neap_text_free(a);
  neap_text_free(b);
  return rc;
}
static neap_status call_parse(fixture *f) {
  char *text = NULL;
  neap_program *pr = NULL;
  neap_status rc = neap_program_json(&text, f->pr);
  if (!rc) rc = neap_program_parse(&pr, f->params, text, strlen(text));
  CHECK(!rc == (pr != NULL));
  neap_program_release(pr);
  neap_text_free(text);
  return rc;
}
static neap_status call_large(fixture *f) {
  neap_params *p;
  neap_program *pr = NULL;
  (void)f;
  neap_status rc = neap_params_new(&p);
  if (!rc) rc = record_large(&pr, p);
  neap_run_options o = {.flags = NEAP_LEARN};
  neap_run *run = NULL;
  if (!rc) rc = neap_run_open(&run, pr, &o);
  if (!rc) rc = feed_any(run, pr);
  if (!rc) rc = neap_run_forward(run);
  if (!rc) rc = neap_run_backward(run, neap_program_find_output(pr, "loss"));
  neap_run_close(run);
  neap_program_release(pr);
  neap_params_release(p);
  return rc;
}
static neap_status call_state(fixture *f) {
  neap_state *s = NULL, *c = NULL;
  neap_status rc = neap_state_new(&s, f->pr, 3);
  if (!rc) rc = neap_state_clone(&c, s);
  neap_state_release(s);
  neap_state_release(c);
  return rc;
}
static neap_status call_gather(fixture *f) {
  const int32_t from[] = {1, 0, 1, 1, 0};
  neap_status rc = neap_state_gather(f->state, from, 5);
  CHECK(neap_state_rows(f->state) == (rc ? 2 : 5));
  return rc;
}
static neap_status call_run(fixture *f) {
  neap_run *run;
  neap_run_options o = {.flags = NEAP_LEARN | NEAP_DOUBLE};
  neap_status rc = neap_run_open(&run, f->pr, &o);
  CHECK(!rc == (run != NULL));
  if (!rc) rc = feed_any(run, f->pr);
  if (!rc) rc = neap_run_forward(run);
  neap_run_close(run);
  return rc;
}
/* Sequences of 7 and 4 steps through the small program, forward and backward. */
static neap_status segments_run(neap_run *run, const fixture *f) {
  float x[3 * 11], g[2 * 11];
  const int32_t lengths[] = {7, 4};
  for (int i = 0; i < 33; i++) x[i] = 0.3f * (float)(i % 7) - 1;
  for (int i = 0; i < 22; i++) g[i] = 0.5f - 0.2f * (float)(i % 5);
  neap_status rc = neap_run_batch(run, 2);
  if (!rc) rc = neap_run_lengths(run, f->t, lengths, 2);
  if (!rc) rc = neap_run_input_f32(run, f->x, NEAP_CONCAT, x, 33);
  if (!rc) rc = neap_run_forward(run);
  return rc ? rc : neap_run_backward_from(run, f->y, NEAP_CONCAT, g, 22);
}
static neap_status call_recompute(fixture *f) {
  neap_run *run;
  neap_run_options o = {.flags = NEAP_LEARN | NEAP_RECOMPUTE};
  neap_status rc = neap_run_open(&run, f->pr, &o);
  CHECK(!rc == (run != NULL));
  if (!rc) rc = segments_run(run, f);
  neap_run_close(run);
  return rc;
}
static neap_status call_tell(fixture *f) {
  neap_run *run;
  neap_run_options o = {.flags = NEAP_LEARN | NEAP_RECOMPUTE | NEAP_TELL};
  const int32_t lengths[] = {7, 4};
  size_t told = 0;
  neap_status rc = neap_run_open(&run, f->pr, &o);
  if (!rc) rc = neap_run_batch(run, 2);
  if (!rc) rc = neap_run_lengths(run, f->t, lengths, 2);
  if (!rc) rc = neap_run_plan(&told, run);
  CHECK(!rc == (told > 0));
  neap_run_close(run);
  return rc;
}
static neap_status call_bigger(fixture *f) { /* than the batch before */
  static float x[3 * 120];
  int32_t lengths[40];
  for (int i = 0; i < 40; i++) lengths[i] = 3;
  neap_status rc = neap_run_batch(f->run, 40);
  if (!rc) rc = neap_run_lengths(f->run, f->t, lengths, 40);
  if (!rc) rc = neap_run_input_f32(f->run, f->x, NEAP_CONCAT, x, 360);
  return rc ? rc : neap_run_forward(f->run);
}
static neap_status call_keep(fixture *f) {
  neap_status rc = neap_run_keep(f->run, f->x, 1);
  if (!rc) rc = feed_any(f->run, f->pr);
  return rc ? rc : neap_run_forward(f->run);
}
static neap_status call_attach(fixture *f) {
  neap_status rc = neap_run_state(f->run, f->state);
  return rc ? rc : neap_run_forward(f->run);
}
static neap_status call_backward(fixture *f) {
  const float g[6] = {1, 1, 1, 1, 1, 1};
  return neap_run_backward_from(f->run, f->y, NEAP_CONCAT, g, 6);
}
static neap_status call_stream(fixture *f) {
  neap_stream *s;
  neap_status rc = neap_stream_open(&s, f->model, NULL);
  CHECK(!rc == (s != NULL));
  if (!rc) rc = neap_stream_step(s);
  neap_stream_close(s);
  return rc;
}
static neap_status call_block(fixture *f) {
  neap_stream *s;
  neap_status rc = neap_stream_open(&s, f->model, &(neap_stream_options){.rows = 2, .block = 8});
  CHECK(!rc == (s != NULL));
  long left = atomic_load(&allowed);
  for (size_t n = 0; !rc && n < 9; n += 2) rc = neap_stream_steps(s, n < 5 ? 8 - n : n);
  if (s) CHECK(!rc && atomic_load(&allowed) == left); /* all memory is taken at open */
  neap_stream_close(s);
  return rc;
}
static neap_status call_find(fixture *f) { /* the first backward: gradients are made */
  neap_params *p;
  neap_program *pr = NULL;
  neap_run *run = NULL;
  neap_run_options o = {.flags = NEAP_LEARN};
  (void)f;
  neap_status rc = neap_params_new(&p);
  if (!rc) rc = record_large(&pr, p);
  if (!rc) rc = neap_run_open(&run, pr, &o);
  if (!rc) rc = feed_any(run, pr);
  if (!rc) rc = neap_run_forward(run);
  if (!rc) rc = neap_run_find_nonfinite(run, neap_program_find_output(pr, "loss"));
  neap_run_close(run);
  neap_program_release(pr);
  neap_params_release(p);
  return rc;
}
static neap_status call_stream_program(fixture *f) {
  neap_stream *s;
  neap_status rc = neap_stream_open_program(&s, f->pr, &(neap_stream_options){.rows = 3});
  CHECK(!rc == (s != NULL));
  if (!rc) rc = neap_stream_step(s);
  neap_stream_close(s);
  return rc;
}

/* ids (i32) [D,B] -> a cell that attends to a memory m [U,B,2], begun with the row k of a table. */
static neap_status record_decoder(neap_program **pr, neap_params *p) {
  recorder r;
  start(&r, p);
  param(&r, "e", 5, 2);
  int u = space(&r, "U", 0), d = space(&r, "D", 0);
  int m = input(&r, "m", NEAP_F32, u, 2), k = input(&r, "k", NEAP_I32, 0, 0);
  int ids = input(&r, "ids", NEAP_I32, d, 0), first = OP2(&r, "embedding", k, weight(&r, "e"));
  if (!r.rc) r.rc = neap_program_scan_begin(r.pr, d);
  int h = state(&r, "h", NEAP_F32, 2, first), c = OP3(&r, "attend_dot", h, m, m);
  int h1 = OP1(&r, "tanh", OP2(&r, "add", c, OP2(&r, "embedding", ids, weight(&r, "e"))));
  next(&r, h, h1);
  if (!r.rc) r.rc = neap_program_scan_end(r.pr);
  output(&r, "h", h1);
  return done(&r, pr);
}

static neap_status give_context(neap_stream *s, neap_program *pr, int rows) {
  static const float m[40] = {0.5f, -1, 0.25f};
  static const int32_t lengths[] = {2, 1, 3, 0, 2}, k[5] = {1, 2};
  neap_status rc = neap_stream_context_batch(s, (size_t)rows);
  if (!rc) rc = neap_stream_context_lengths(s, neap_program_find_space(pr, "U"), lengths,
                                            (size_t)rows);
  size_t n = 0;
  for (int i = 0; i < rows; i++) n += 2 * (size_t)lengths[i];
  if (!rc)
    rc = neap_stream_context_f32(s, neap_program_find_input(pr, "m"), NEAP_CONCAT, m, n);
  if (!rc)
    rc = neap_stream_context_i32(s, neap_program_find_input(pr, "k"), NEAP_PADDED, k,
                                 (size_t)rows);
  if (!rc) CHECK(neap_stream_sources(s) == (size_t)rows);
  return rc ? rc : neap_stream_step(s);
}
static neap_status call_context(fixture *f) {
  neap_params *p;
  neap_program *pr = NULL;
  neap_stream *s = NULL;
  (void)f;
  neap_status rc = neap_params_new(&p);
  if (!rc) rc = record_decoder(&pr, p);
  if (!rc) rc = neap_stream_open_program(&s, pr, NULL);
  if (!rc) rc = give_context(s, pr, 2);
  if (!rc) rc = give_context(s, pr, 5);
  if (!rc) rc = neap_stream_rows(s, (int32_t[]){0, 0, 1, 4, 4, 4}, NULL, 6);
  if (!rc) rc = neap_stream_step(s);
  neap_stream_close(s);
  neap_program_release(pr);
  neap_params_release(p);
  return rc;
}
/* y = gru(x) + its twin from the end on: it can be streamed with a look-ahead only. */
static neap_status record_both(neap_program **pr, neap_params *p) {
  recorder r;
  start(&r, p);
  param(&r, "w", 6, 3), param(&r, "u", 6, 2);
  int x = input(&r, "x", NEAP_F32, space(&r, "T", 0), 3), w = weight(&r, "w"), u = weight(&r, "u");
  int back = OP1(&r, "reverse", OP3(&r, "gru", OP1(&r, "reverse", x), w, u));
  output(&r, "y", OP2(&r, "add", OP3(&r, "gru", x, w, u), back));
  return done(&r, pr);
}
static neap_status call_ahead(fixture *f) {
  neap_params *p;
  neap_program *pr = NULL;
  neap_stream *s = NULL;
  size_t n, given = 0;
  (void)f;
  neap_status rc = neap_params_new(&p);
  if (!rc) rc = record_both(&pr, p);
  if (!rc)
    rc = neap_stream_open_program(&s, pr, &(neap_stream_options){.block = 2, .lookahead = 3});
  CHECK(!rc == (s != NULL));
  long left = atomic_load(&allowed); /* all memory is taken at open */
  for (int k = 0; !rc && k < 4; k++) {
    float *x = neap_stream_input_f32(s, 0, &n);
    CHECK(n == 6 && neap_stream_latency(s) == 3);
    for (size_t i = 0; i < n; i++) x[i] = (float)(k + 1) / (float)(i + 2);
    rc = neap_stream_steps(s, 2);
    CHECK(neap_stream_given(s) == (k == 0 ? 0 : k == 1 ? 1 : 2));
    CHECK(neap_stream_pending(s) == (k == 0 ? 2 : 3));
    given += neap_stream_given(s);
  }
  while (!rc && neap_stream_pending(s)) {
    rc = neap_stream_finish(s);
    given += neap_stream_given(s);
    CHECK(neap_stream_given(s) == (given == 7 ? 2 : 1));
  }
  if (!rc) {
    CHECK(given == 8 && neap_stream_finish(s) == NEAP_OK && neap_stream_given(s) == 0);
    CHECK(neap_stream_steps(s, 2) == NEAP_OK && neap_stream_pending(s) == 2);
    neap_stream_reset(s);
    CHECK(neap_stream_pending(s) == 0 && atomic_load(&allowed) == left);
  }
  neap_stream_close(s);
  neap_program_release(pr);
  neap_params_release(p);
  return rc;
}
static neap_status call_rows(fixture *f) {
  const int32_t zeros[40] = {0}, one[] = {0};
  neap_status rc = neap_stream_rows(f->stream, zeros, NULL, 5);
  if (!rc) rc = neap_stream_step(f->stream);
  neap_state *state = neap_stream_state(f->stream);
  size_t rows = neap_state_rows(state);
  if (!rc && (rc = neap_stream_rows(f->stream, zeros, zeros, 40)) != NEAP_OK) {
    CHECK(neap_state_rows(state) == rows); /* nothing has changed: the next step is as before */
    CHECK(neap_stream_step(f->stream) == NEAP_OK);
  }
  if (!rc) rc = neap_stream_rows(f->stream, zeros, zeros, 3);
  if (!rc) rc = neap_stream_step(f->stream);
  if (!rc) rc = neap_stream_context_batch(f->stream, 3);
  if (!rc) rc = neap_stream_context_batch(f->stream, 1);
  atomic_store(&allowed, -1);
  if (rc) CHECK(neap_stream_context_batch(f->stream, 1) == NEAP_OK);
  CHECK(neap_stream_rows(f->stream, one, NULL, 1) == NEAP_OK);
  return rc;
}
static neap_status call_model(fixture *f) {
  neap_model *m;
  neap_status rc = neap_model_new(&m, f->params);
  if (!rc) rc = neap_model_add(m, "a", f->pr);
  if (!rc) rc = neap_model_set_text(m, "k", "v");
  if (!rc) rc = neap_model_set_text(m, "k", "w");
  neap_model_release(m);
  return rc;
}
static neap_status call_save(fixture *f) {
  neap_status rc = neap_model_save(f->model, path);
  neap_model *m;
  if (rc) return rc;
  rc = neap_model_load(&m, path);
  CHECK(!rc == (m != NULL));
  neap_model_release(m);
  return rc;
}
static neap_status call_memory(fixture *f) { /* the bytes are there before */
  neap_model *m;
  neap_archive *a;
  neap_status rc = neap_model_load_memory(&m, f->file, f->bytes);
  CHECK(!rc == (m != NULL));
  if (!rc) CHECK(neap_model_program(m, "predict") != NULL);
  neap_model_release(m);
  if (rc) return rc;
  rc = neap_archive_load_memory(&a, f->file, f->bytes);
  CHECK(!rc == (a != NULL));
  if (!rc) CHECK(neap_archive_count(a) == neap_params_count(f->params));
  neap_archive_release(a);
  return rc;
}
static neap_status call_archive(fixture *f) {
  neap_archive *a = NULL, *b = NULL;
  neap_status rc = neap_archive_new(&a);
  if (!rc) rc = neap_archive_add(a, "t", f->tensor);
  if (!rc) rc = neap_archive_set_text(a, "k", "v");
  if (!rc) rc = neap_archive_save(a, path);
  if (!rc) rc = neap_archive_load(&b, path);
  neap_archive_release(a);
  neap_archive_release(b);
  return rc;
}
static neap_status call_optim(fixture *f) {
  neap_optim *o;
  int id = 1;
  neap_status rc = neap_optim_new(&o, f->params, &id, 1, NULL);
  if (!rc) rc = neap_optim_step(o);
  if (!rc) rc = neap_optim_save(o, f->archive, "adam.");
  if (!rc) rc = neap_optim_load(o, f->archive, "adam.");
  neap_optim_release(o);
  return rc;
}
static neap_status call_pool(fixture *f) {
  neap_pool *p;
  (void)f;
  neap_status rc = neap_pool_new(&p, 3);
  CHECK(!rc == (p != NULL) && neap_pool_threads(p) == (rc ? 1 : 3));
  neap_pool_release(p);
  return rc;
}

static void test_memory(void) {
  static const struct {
    const char *name;
    call fn;
  } calls[] = {
      {"tensor", call_tensor}, {"params", call_params}, {"params add", call_add_param},
      {"params grad", call_grad}, {"orthogonal", call_orthogonal}, {"program", call_program},
      {"space", call_space}, {"folded", call_folded}, {"where", call_where}, {"input", call_input},
      {"scalar", call_scalar}, {"param", call_param}, {"constant", call_constant},
      {"add", call_add}, {"add lstm", call_add_lstm}, {"scan", call_scan},
      {"output", call_output}, {"print, json", call_text}, {"parse", call_parse},
      {"large", call_large}, {"state", call_state}, {"gather", call_gather}, {"run", call_run},
      {"recompute", call_recompute}, {"tell", call_tell},
      {"bigger batch", call_bigger}, {"keep", call_keep}, {"attach", call_attach},
      {"backward", call_backward}, {"find", call_find}, {"stream", call_stream},
      {"stream of a program", call_stream_program}, {"stream block", call_block},
      {"stream ahead", call_ahead}, {"stream context", call_context}, {"load from memory", call_memory},
      {"stream rows", call_rows},
      {"model", call_model}, {"save, load", call_save}, {"archive", call_archive},
      {"optim", call_optim}, {"pool", call_pool}};
  for (size_t c = 0; c < sizeof calls / sizeof *calls; c++) {
    neap_status rc = NEAP_EMEM;
    size_t before = neap_memory_live();
    for (long n = 0; rc && n < 1000; n++) {
      fixture f;
      check(build(&f) == NEAP_OK, calls[c].name, (int)n, "the set is built");
      atomic_store(&allowed, n);
      rc = calls[c].fn(&f);
      atomic_store(&allowed, -1);
      check(rc == NEAP_OK || (rc == NEAP_EMEM && strstr(neap_errmsg(), "memory")), calls[c].name,
            (int)n, "is OK, or EMEM with its message");
      check(works(&f), calls[c].name, (int)n, "earlier objects work");
      tear_down(&f);
      check(neap_memory_live() == before, calls[c].name, (int)n, "live bytes are back");
    }
    check(rc == NEAP_OK, calls[c].name, 1000, "succeeds in the end");
  }
}

/* ---- no memory at all, once warm ---- */

static void train(neap_run *run, neap_program *pr, neap_optim *o, bool warm) {
  const float ones[6] = {1, 1, 1, 1, 1, 1};
  int loss = neap_program_find_output(pr, "loss"), y = neap_program_find_output(pr, "y");
  neap_params_zero_grad(neap_program_params(pr));
  CHECK(neap_run_forward(run) == NEAP_OK);
  CHECK((loss >= 0 ? neap_run_backward(run, loss)
                   : neap_run_backward_from(run, y, NEAP_CONCAT, ones, 6)) == NEAP_OK);
  CHECK(neap_optim_step(o) == NEAP_OK);
  if (warm) CHECK(neap_run_batch(run, 2) == NEAP_OK && feed_any(run, pr) == NEAP_OK);
}

static void test_none(neap_status (*record)(neap_program **, neap_params *), unsigned flags,
                      int threads) {
  neap_params *p = NULL;
  neap_program *pr = NULL;
  neap_pool *pool = NULL;
  neap_run *run = NULL;
  neap_optim *o = NULL;
  CHECK(neap_params_new(&p) == NEAP_OK && record(&pr, p) == NEAP_OK);
  CHECK(neap_pool_new(&pool, threads) == NEAP_OK);
  neap_run_options options = {.flags = NEAP_LEARN | flags, .pool = pool};
  CHECK(neap_run_open(&run, pr, &options) == NEAP_OK && feed_any(run, pr) == NEAP_OK);
  CHECK(neap_optim_new(&o, p, NULL, 0, NULL) == NEAP_OK);
  train(run, pr, o, true);
  atomic_store(&allowed, 0);
  for (int k = 0; k < 3; k++) train(run, pr, o, true); /* the same shapes, planned anew */
  for (int k = 0; k < 3; k++) train(run, pr, o, false);
  CHECK(neap_run_batch(run, 1) == NEAP_OK); /* smaller ones */
  for (int s = 1; s < neap_program_spaces(pr); s++) {
    const int32_t one[] = {1};
    CHECK(neap_run_lengths(run, s, one, 1) == NEAP_OK);
  }
  const float x[3] = {1, 2, 3};
  const int32_t ids[1] = {1};
  int v;
  neap_type t;
  for (int i = 0; neap_program_input_name(pr, i, &v); i++)
    if (!neap_program_type(&t, pr, v) && t.space >= 0)
      CHECK((t.dtype == NEAP_F32 ? neap_run_input_f32(run, v, NEAP_PADDED, x, (size_t)t.dim[0])
                                 : neap_run_input_i32(run, v, NEAP_CONCAT, ids, 1)) == NEAP_OK);
  CHECK(neap_run_forward(run) == NEAP_OK);
  atomic_store(&allowed, -1);
  neap_optim_release(o);
  neap_run_close(run);
  neap_pool_release(pool);
  neap_program_release(pr);
  neap_params_release(p);
}

/* In segments: the numbers of whole sequences, what NEAP_TELL has told, and no memory once warm. */
static void test_segments(fixture *f) {
  float y[2][22], grad[2][16];
  int32_t n[2][11];
  int id = neap_params_find(f->params, "w_hh"), counter = neap_program_find_output(f->pr, "n");
  for (int k = 0; k < 2; k++) {
    neap_run *run;
    neap_run_options o = {.flags = NEAP_LEARN | (k ? NEAP_RECOMPUTE : 0)};
    CHECK(neap_run_open(&run, f->pr, &o) == NEAP_OK && !neap_run_whole(run));
    for (int again = 0; again < 3; again++) {
      neap_params_zero_grad(f->params);
      CHECK(segments_run(run, f) == NEAP_OK);
      atomic_store(&allowed, 0);
    }
    atomic_store(&allowed, -1);
    CHECK(neap_run_read_f32(run, f->y, NEAP_CONCAT, y[k], 22) == NEAP_OK);
    CHECK(neap_run_read_i32(run, counter, NEAP_CONCAT, n[k], 11) == NEAP_OK);
    memcpy(grad[k], neap_params_grad(f->params, id), sizeof grad[k]);
    neap_run *teller;
    size_t told = 0, held = 0;
    o.flags |= NEAP_TELL;
    const int32_t lengths[] = {7, 4};
    CHECK(neap_run_open(&teller, f->pr, &o) == NEAP_OK && neap_run_batch(teller, 2) == NEAP_OK);
    CHECK_FAILS(NEAP_ESTATE, "lengths of 'T' are not set", neap_run_plan(&told, teller));
    CHECK(neap_run_lengths(teller, f->t, lengths, 2) == NEAP_OK);
    CHECK(neap_run_plan(&told, teller) == NEAP_OK && neap_run_plan(&held, run) == NEAP_OK);
    CHECK(told == held && neap_run_bytes(run) == told && neap_run_bytes(teller) == told);
    CHECK_FAILS(NEAP_ESTATE, "NEAP_TELL", neap_run_forward(teller));
    neap_run_close(teller);
    neap_run_close(run);
  }
  CHECK(memcmp(y[0], y[1], sizeof y[0]) == 0 && memcmp(n[0], n[1], sizeof n[0]) == 0);
  CHECK(n[1][6] == 7 && n[1][10] == 4);
  for (int i = 0; i < 16; i++) CHECK(fabsf(grad[0][i] - grad[1][i]) < 1e-5f * (1 + fabsf(grad[0][i])));
}

static void test_none_stream(fixture *f) {
  size_t n;
  neap_stream *fresh; /* its memory was full of something else */
  CHECK(neap_stream_open(&fresh, f->model, NULL) == NEAP_OK);
  const float *y = neap_stream_output_f32(fresh, 0, &n);
  CHECK(n == 2 && y[0] == 0 && y[1] == 0 && neap_stream_output_i32(fresh, 1, &n)[0] == 0);
  neap_stream_close(fresh);
  neap_state *kept;
  CHECK(neap_state_clone(&kept, neap_stream_state(f->stream)) == NEAP_OK);
  float *x = neap_stream_input_f32(f->stream, 0, &n);
  atomic_store(&allowed, 0);
  for (int k = 0; k < 4; k++) { /* the first step too: all memory was taken at open */
    memcpy(x, frame, sizeof frame);
    CHECK(neap_stream_step(f->stream) == NEAP_OK);
    if (k == 1) CHECK(neap_state_copy(neap_stream_state(f->stream), kept) == NEAP_OK);
    if (k == 2) neap_stream_reset(f->stream);
    neap_params_touch(f->params); /* packed anew, in place */
    CHECK(neap_stream_input_f32(f->stream, 0, &n) == x);
  }
  atomic_store(&allowed, -1);
  neap_state_release(kept);
}

/* ---- cancelling ---- */

typedef struct canceller {
  neap_run *run;
  atomic_int stop;
} canceller;

/* A cancel before the run begins is forgotten, so it is said again and again. */
static void *keep_cancelling(void *arg) {
  canceller *c = arg;
  while (!atomic_load(&c->stop)) {
    neap_run_cancel(c->run);
    nanosleep(&(struct timespec){0, 200000}, NULL);
  }
  return NULL;
}

static neap_status cancelled(canceller *c, neap_status (*what)(neap_run *, neap_program *),
                             neap_program *pr) {
  pthread_t thread;
  atomic_store(&c->stop, 0);
  if (pthread_create(&thread, NULL, keep_cancelling, c)) return NEAP_EMEM;
  neap_status rc = what(c->run, pr);
  atomic_store(&c->stop, 1);
  pthread_join(thread, NULL);
  return rc;
}

enum { LONG = 400000 };
static neap_status forward(neap_run *run, neap_program *pr) {
  (void)pr;
  return neap_run_forward(run);
}
static neap_status backward(neap_run *run, neap_program *pr) {
  float *g = calloc(2 * LONG, sizeof *g);
  g[2 * LONG - 1] = 1;
  neap_status rc = neap_run_backward_from(run, neap_program_find_output(pr, "y"), NEAP_CONCAT, g,
                                          2 * LONG);
  free(g);
  return rc;
}

static void test_cancel(fixture *f) {
  float *x = calloc(3 * LONG, sizeof *x);
  const int32_t length = LONG;
  CHECK(neap_run_batch(f->run, 1) == NEAP_OK);
  CHECK(neap_run_lengths(f->run, f->t, &length, 1) == NEAP_OK);
  CHECK(neap_run_input_f32(f->run, f->x, NEAP_CONCAT, x, 3 * LONG) == NEAP_OK);
  canceller c = {.run = f->run};
  CHECK_FAILS(NEAP_ECANCELED, "canceled", cancelled(&c, forward, f->pr));
  CHECK_FAILS(NEAP_ESTATE, "forward has not run", backward(f->run, f->pr));
  CHECK(forward(f->run, f->pr) == NEAP_OK);
  CHECK_FAILS(NEAP_ECANCELED, "canceled", cancelled(&c, backward, f->pr));
  CHECK(forward(f->run, f->pr) == NEAP_OK && backward(f->run, f->pr) == NEAP_OK);
  free(x);
  CHECK(works(f));
}

/* ---- states ---- */

static void run_part(fixture *f, neap_state *s, size_t rows, const int32_t *lengths, const float *x,
                     size_t n, float *y) {
  CHECK(neap_run_state(f->run, s) == NEAP_OK && neap_run_batch(f->run, rows) == NEAP_OK);
  CHECK(neap_run_lengths(f->run, f->t, lengths, rows) == NEAP_OK);
  CHECK(neap_run_input_f32(f->run, f->x, NEAP_CONCAT, x, 3 * n) == NEAP_OK);
  CHECK(neap_run_forward(f->run) == NEAP_OK);
  CHECK(neap_run_read_f32(f->run, f->y, NEAP_CONCAT, y, 2 * n) == NEAP_OK);
}

static void test_state(fixture *f) {
  static const char *const names[] = {"net.lstm.h", "net.lstm.c", "net.cell.h", "net.cell.n"};
  neap_state *s = NULL, *c = NULL;
  neap_dtype dtype;
  size_t width;
  float x[15], whole[10], y[10];
  for (int k = 0; k < 15; k++) x[k] = 0.1f * (float)(k * k % 7) - 0.3f;
  CHECK(neap_state_new(&s, f->pr, 1) == NEAP_OK && neap_state_rows(s) == 1);
  CHECK(neap_state_slots(s) == 4);
  for (int k = 0; k < 4; k++) {
    CHECK(strcmp(neap_state_slot(s, k, &dtype, &width), names[k]) == 0);
    CHECK(dtype == (k == 3 ? NEAP_I32 : NEAP_F32) && width == (k == 3 ? 1 : 2));
  }
  /* five steps are two and three */
  run_part(f, NULL, 1, (int32_t[]){5}, x, 5, whole);
  run_part(f, s, 1, (int32_t[]){2}, x, 2, y);
  CHECK(((int32_t *)neap_state_data(s, 3))[0] == 2);
  CHECK(neap_state_clone(&c, s) == NEAP_OK);
  neap_state_retain(c); /* of two references one is given back */
  neap_state_release(c);
  CHECK(neap_state_rows(c) == 1 && ((int32_t *)neap_state_data(c, 3))[0] == 2);
  run_part(f, s, 1, (int32_t[]){3}, x + 6, 3, y + 4);
  CHECK(memcmp(whole, y, sizeof y) == 0 && ((int32_t *)neap_state_data(s, 3))[0] == 5);
  /* a run that fails leaves it as it was, a sequence without steps too */
  float *weight_of_y = neap_params_data(f->params, neap_params_find(f->params, "out"));
  float kept = *weight_of_y;
  *weight_of_y = INFINITY;
  neap_params_touch(f->params);
  CHECK_FAILS(NEAP_ENONFINITE, "infinity came up in out (small.lua:9)", neap_run_forward(f->run));
  *weight_of_y = kept;
  neap_params_touch(f->params);
  run_part(f, s, 1, (int32_t[]){0}, x, 0, y);
  CHECK(((int32_t *)neap_state_data(s, 3))[0] == 5);
  /* the clone is as the state was; from it the rest again, in two rows */
  CHECK(((int32_t *)neap_state_data(c, 3))[0] == 2);
  CHECK(neap_state_gather(c, (int32_t[]){0, 0}, 2) == NEAP_OK && neap_state_rows(c) == 2);
  float twice[18], two[12];
  memcpy(twice, x + 6, 36);
  memcpy(twice + 9, x + 6, 36);
  run_part(f, c, 2, (int32_t[]){3, 3}, twice, 6, two);
  CHECK(memcmp(two, whole + 4, 24) == 0 && memcmp(two + 6, whole + 4, 24) == 0);
  CHECK_FAILS(NEAP_ESHAPE, "it has 1 rows, the batch has 2",
              (neap_run_state(f->run, s), neap_run_forward(f->run)));
  CHECK_FAILS(NEAP_ESHAPE, "differ", neap_state_copy(s, c));
  /* one row anew */
  CHECK(neap_state_reset(c, (int32_t[]){1}, 1) == NEAP_OK);
  CHECK(((int32_t *)neap_state_data(c, 3))[0] == 5 && ((int32_t *)neap_state_data(c, 3))[1] == 0);
  memcpy(twice + 3, x, 36);
  run_part(f, c, 2, (int32_t[]){1, 3}, twice, 4, two);
  CHECK(memcmp(two + 2, whole, 24) == 0);
  /* written by hand and marked: a counter that begins at 7 */
  CHECK(neap_state_reset(c, NULL, 0) == NEAP_OK);
  ((int32_t *)neap_state_data(c, 3))[0] = 7;
  CHECK(!neap_state_marked(c, 0) && neap_state_mark(c, 0) == NEAP_OK && neap_state_marked(c, 0));
  run_part(f, c, 2, (int32_t[]){1, 1}, x, 2, two);
  CHECK(((int32_t *)neap_state_data(c, 3))[0] == 8 && ((int32_t *)neap_state_data(c, 3))[1] == 1);
  /* none at all, and a stream's own */
  CHECK(neap_state_gather(c, NULL, 0) == NEAP_OK && neap_state_rows(c) == 0);
  CHECK_FAILS(NEAP_ERANGE, "row 0", neap_state_mark(c, 0));
  neap_state_release(c);
  size_t n;
  neap_stream_reset(f->stream);
  for (int k = 0; k < 2; k++) {
    memcpy(neap_stream_input_f32(f->stream, 0, &n), x + 3 * k, 12);
    CHECK(neap_stream_step(f->stream) == NEAP_OK);
  }
  CHECK(neap_state_copy(s, neap_stream_state(f->stream)) == NEAP_OK);
  run_part(f, s, 1, (int32_t[]){3}, x + 6, 3, y + 4);
  CHECK(memcmp(whole + 4, y + 4, 24) == 0);
  neap_state_release(s);
}

/* Parts share memory, and hold it. */
static void test_part(fixture *f) {
  neap_tensor *t, *part, *deep;
  CHECK(neap_tensor_new(&t, NEAP_F32, 3, (const size_t[]){2, 3, 4}) == NEAP_OK);
  CHECK_FAILS(NEAP_ERANGE, "part 2 is not among 2", neap_tensor_part(&part, t, 2));
  CHECK(part == NULL && neap_tensor_part(&part, t, 1) == NEAP_OK);
  CHECK(neap_tensor_part(&deep, part, 2) == NEAP_OK);
  CHECK(neap_tensor_rank(part) == 2 && neap_tensor_dim(part, 0) == 3 && neap_tensor_size(part) == 12);
  CHECK(neap_tensor_rank(deep) == 1 && neap_tensor_dim(deep, 0) == 4);
  ((float *)neap_tensor_data(deep))[3] = 5;
  CHECK(((float *)neap_tensor_data(t))[23] == 5);
  neap_tensor_release(part);
  neap_tensor_release(t);
  ((float *)neap_tensor_data(deep))[0] = 6;
  CHECK(((float *)neap_tensor_data(deep))[3] == 5);
  CHECK(neap_tensor_part(&part, deep, 1) == NEAP_OK && neap_tensor_rank(part) == 0);
  neap_tensor_release(deep);
  CHECK_FAILS(NEAP_ESHAPE, "a number has no parts", neap_tensor_part(&deep, part, 0));
  neap_tensor_release(part);
  (void)f;
}

/* The largest of each row, found one after the other. */
static void test_top(fixture *f) {
  enum { R = 3, V = 23 };
  neap_tensor *x, *ids, *values;
  CHECK(neap_tensor_new(&x, NEAP_F32, 2, (const size_t[]){R, V}) == NEAP_OK);
  float *data = neap_tensor_data(x);
  for (int i = 0; i < R * V; i++) data[i] = (float)(i * 7 % 11) / 4; /* with equals */
  data[V + 2] = data[V + 5] = -INFINITY;
  data[V + 7] = NAN;
  for (size_t k = 0; k <= V; k++) {
    const size_t dims[] = {R, k};
    CHECK(neap_tensor_new(&ids, NEAP_I32, 2, dims) == NEAP_OK);
    CHECK(neap_tensor_new(&values, NEAP_F32, 2, dims) == NEAP_OK);
    CHECK(neap_tensor_top(ids, values, x) == NEAP_OK);
    for (int r = 0; r < R; r++) {
      bool taken[V] = {false};
      for (size_t i = 0; i < k; i++) {
        int best = -1;
        for (int v = 0; v < V; v++)
          if (!taken[v] && data[r * V + v] > (best < 0 ? -INFINITY : data[r * V + best])) best = v;
        CHECK(((int32_t *)neap_tensor_data(ids))[(size_t)r * k + i] == best);
        CHECK(((float *)neap_tensor_data(values))[(size_t)r * k + i] ==
              (best < 0 ? -INFINITY : data[r * V + best]));
        if (best >= 0) taken[best] = true;
      }
    }
    if (k == 4) {
      CHECK_FAILS(NEAP_ETYPE, "expected ids i32", neap_tensor_top(values, values, x));
      CHECK_FAILS(NEAP_ESHAPE, "expected ids [R,k]", neap_tensor_top(ids, x, x));
      const size_t more[] = {R, V + 1};
      neap_tensor *wide, *numbers;
      CHECK(neap_tensor_new(&wide, NEAP_I32, 2, more) == NEAP_OK);
      CHECK(neap_tensor_new(&numbers, NEAP_F32, 2, more) == NEAP_OK);
      CHECK_FAILS(NEAP_ESHAPE, "at most 23 of 23, came 24", neap_tensor_top(wide, numbers, x));
      neap_tensor_release(wide);
      neap_tensor_release(numbers);
    }
    neap_tensor_release(ids);
    neap_tensor_release(values);
  }
  neap_tensor_release(x);
  (void)f;
}

/* How often each of V is drawn as the random number goes from 0 to 1. */
static void drawn(double *share, int v, const float *x, double temperature, size_t top_k,
                  double top_p) {
  enum { N = 4000 };
  neap_tensor *rows, *ids;
  double random[N];
  CHECK(neap_tensor_new(&rows, NEAP_F32, 2, (const size_t[]){N, (size_t)v}) == NEAP_OK);
  CHECK(neap_tensor_new(&ids, NEAP_I32, 1, (const size_t[]){N}) == NEAP_OK);
  for (int r = 0; r < N; r++) {
    memcpy((float *)neap_tensor_data(rows) + (size_t)r * (size_t)v, x, (size_t)v * sizeof *x);
    random[r] = (r + 0.5) / N;
  }
  CHECK(neap_tensor_draw(ids, rows, temperature, top_k, top_p, random) == NEAP_OK);
  for (int i = 0; i <= v; i++) share[i] = 0; /* the last: nothing could be drawn */
  for (int r = 0; r < N; r++) {
    int32_t id = ((int32_t *)neap_tensor_data(ids))[r];
    share[id < 0 ? v : id] += 1.0 / N;
  }
  neap_tensor_release(rows);
  neap_tensor_release(ids);
}

static void test_draw(fixture *f) {
  (void)f;
  enum { V = 7 };
  const float x[V] = {0.5f, 2, -INFINITY, 1, NAN, 2, -3};
  double share[V + 1];
  const struct {
    double temperature;
    size_t top_k;
    double top_p;
    bool among[V];
  } cases[] = {
      {1, 0, 1, {1, 1, 0, 1, 0, 1, 1}},   {0.5, 0, 1, {1, 1, 0, 1, 0, 1, 1}},
      {3, 100, 1, {1, 1, 0, 1, 0, 1, 1}}, {1, 3, 1, {0, 1, 0, 1, 0, 1, 0}},
      {1, 1, 1, {0, 1, 0, 0, 0, 0, 0}},   {1, 0, 0.5, {0, 1, 0, 0, 0, 1, 0}},
      {1, 0, 0.01, {0, 1, 0, 0, 0, 0, 0}}, {1, 3, 0.9, {0, 1, 0, 1, 0, 1, 0}},
      {1, 3, 0.8, {0, 1, 0, 0, 0, 1, 0}},
  };
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
    double total = 0;
    for (int v = 0; v < V; v++)
      if (cases[c].among[v]) total += exp((double)x[v] / cases[c].temperature);
    drawn(share, V, x, cases[c].temperature, cases[c].top_k, cases[c].top_p);
    for (int v = 0; v <= V; v++) {
      double p = v < V && cases[c].among[v] ? exp((double)x[v] / cases[c].temperature) / total : 0;
      CHECK(fabs(share[v] - p) < 1e-3);
    }
  }
  const float none[] = {NAN, -INFINITY}, sure[] = {1, INFINITY, 5};
  for (size_t k = 0; k < 3; k++) {
    drawn(share, 2, none, 1, k, 1 - 0.2 * (double)k);
    CHECK(fabs(share[2] - 1) < 1e-9);
    drawn(share, 3, sure, 1, k, 1 - 0.2 * (double)k);
    CHECK(fabs(share[1] - 1) < 1e-9);
  }

  neap_tensor *rows, *flat, *ids;
  const double random[] = {0, 0.5}, wrong[] = {0, 1};
  CHECK(neap_tensor_new(&flat, NEAP_F32, 1, (const size_t[]){2}) == NEAP_OK);
  CHECK(neap_tensor_new(&rows, NEAP_F32, 2, (const size_t[]){2, 3}) == NEAP_OK);
  CHECK(neap_tensor_new(&ids, NEAP_I32, 1, (const size_t[]){2}) == NEAP_OK);
  memset(neap_tensor_data(rows), 0, 6 * sizeof(float));
  CHECK_FAILS(NEAP_EARG, "NULL", neap_tensor_draw(NULL, rows, 1, 0, 1, random));
  CHECK_FAILS(NEAP_EARG, "NULL", neap_tensor_draw(ids, NULL, 1, 0, 1, random));
  CHECK_FAILS(NEAP_EARG, "NULL", neap_tensor_draw(ids, rows, 1, 0, 1, NULL));
  CHECK_FAILS(NEAP_ETYPE, "ids i32", neap_tensor_draw(rows, rows, 1, 0, 1, random));
  CHECK_FAILS(NEAP_ETYPE, "x f32", neap_tensor_draw(ids, ids, 1, 0, 1, random));
  CHECK_FAILS(NEAP_ESHAPE, "x [R,V]", neap_tensor_draw(ids, flat, 1, 0, 1, random));
  CHECK_FAILS(NEAP_EARG, "above 0, came 0", neap_tensor_draw(ids, rows, 0, 0, 1, random));
  CHECK_FAILS(NEAP_EARG, "came nan", neap_tensor_draw(ids, rows, (double)NAN, 0, 1, random));
  CHECK_FAILS(NEAP_EARG, "came inf",
              neap_tensor_draw(ids, rows, (double)INFINITY, 0, 1, random));
  CHECK_FAILS(NEAP_EARG, "top_p above 0", neap_tensor_draw(ids, rows, 1, 0, 0, random));
  CHECK_FAILS(NEAP_EARG, "came 1.5", neap_tensor_draw(ids, rows, 1, 0, 1.5, random));
  CHECK_FAILS(NEAP_EARG, "row 1: expected", neap_tensor_draw(ids, rows, 1, 0, 1, wrong));
  neap_tensor_release(flat);
  neap_tensor_release(rows);
  neap_tensor_release(ids);
}

int main(void) {
  int fd = mkstemp(path);
  neap_allocator_set(rationed, NULL);
  void (*const tests[])(fixture *) = {test_null, test_wrong, test_unneeded, test_none_stream,
                                      test_segments, test_cancel, test_state, test_part, test_top,
                                      test_draw};
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
    fixture f;
    CHECK(build(&f) == NEAP_OK && works(&f));
    tests[i](&f);
    tear_down(&f);
    CHECK(neap_memory_live() == 0);
  }
  test_memory();
  for (int threads = 1; threads < 4; threads++) {
    test_none(record_small, 0, threads);
    test_none(record_large, 0, threads);
  }
  test_none(record_small, NEAP_DOUBLE | NEAP_CHECK, 1);
  test_none(record_large, NEAP_DOUBLE, 1);
  CHECK(neap_memory_live() == 0);
  close(fd);
  unlink(path);
  return report();
}
