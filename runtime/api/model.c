/*
** Floor 7: models, archives, optimizers.
*/
#include "../file/model_file.h"
#include "../train/optim.h"

#define NEED(p, who) \
  if (!(p)) return ni_fail(NEAP_EARG, who ": expected an object, came NULL")

NEAP_API neap_status neap_model_new(neap_model **m, neap_params *params) {
  NEED(m, "model");
  *m = NULL;
  NEED(params, "model");
  return ni_model_new(m, params);
}
NEAP_API void neap_model_retain(neap_model *m) { ni_model_retain(m); }
NEAP_API void neap_model_release(neap_model *m) { ni_model_release(m); }
NEAP_API neap_status neap_model_add(neap_model *m, const char *name, neap_program *pr) {
  NEED(m, "model add");
  NEED(pr, "model add");
  return ni_model_add(m, name, pr);
}
NEAP_API neap_program *neap_model_program(neap_model *m, const char *name) {
  return m && name ? ni_model_program_of(m, name) : NULL;
}
NEAP_API int neap_model_programs(const neap_model *m) { return m ? m->n_programs : 0; }
NEAP_API const char *neap_model_program_name(const neap_model *m, int index) {
  return m && index >= 0 && index < m->n_programs ? m->program[index].name : NULL;
}
NEAP_API neap_params *neap_model_params(neap_model *m) { return m ? m->params : NULL; }
NEAP_API neap_status neap_model_set_text(neap_model *m, const char *key, const char *text) {
  NEED(m, "model text");
  return ni_model_set_text(m, key, text);
}
NEAP_API const char *neap_model_text(const neap_model *m, const char *key) {
  return m && key ? ni_model_text_of(m, key) : NULL;
}
NEAP_API int neap_model_texts(const neap_model *m) { return m ? m->n_texts : 0; }
NEAP_API const char *neap_model_text_key(const neap_model *m, int index) {
  return m && index >= 0 && index < m->n_texts ? m->text[index].key : NULL;
}
NEAP_API neap_status neap_model_save(const neap_model *m, const char *path) {
  NEED(m, "save");
  NEED(path, "save");
  return ni_model_save(m, path);
}
NEAP_API neap_status neap_model_load(neap_model **m, const char *path) {
  NEED(m, "load");
  *m = NULL;
  NEED(path, "load");
  return ni_model_load(m, path);
}
NEAP_API neap_status neap_model_load_memory(neap_model **m, const void *data, size_t size) {
  NEED(m, "load");
  *m = NULL;
  NEED(data, "load");
  return ni_model_load_memory(m, data, size);
}

/* ---- archives ---- */

NEAP_API neap_status neap_archive_new(neap_archive **a) {
  NEED(a, "archive");
  return ni_archive_new(a);
}
NEAP_API void neap_archive_release(neap_archive *a) { ni_archive_release(a); }
NEAP_API neap_status neap_archive_add(neap_archive *a, const char *name, neap_tensor *t) {
  NEED(a, "archive add");
  NEED(t, "archive add");
  NEED(name, "archive add");
  return ni_archive_add(a, name, t);
}
NEAP_API neap_status neap_archive_set_text(neap_archive *a, const char *key, const char *text) {
  NEED(a, "archive text");
  NEED(key, "archive text");
  return ni_archive_set_text(a, key, text);
}
NEAP_API int neap_archive_count(const neap_archive *a) { return a ? ni_archive_count(a) : 0; }
NEAP_API const char *neap_archive_name(const neap_archive *a, int index) {
  return a ? ni_archive_name(a, index) : NULL;
}
NEAP_API neap_tensor *neap_archive_tensor(neap_archive *a, const char *name) {
  return a && name ? ni_archive_tensor(a, name) : NULL;
}
NEAP_API int neap_archive_texts(const neap_archive *a) { return a ? ni_archive_texts(a) : 0; }
NEAP_API const char *neap_archive_text_key(const neap_archive *a, int index) {
  return a ? ni_archive_text_key(a, index) : NULL;
}
NEAP_API const char *neap_archive_text(const neap_archive *a, const char *key) {
  return a && key ? ni_archive_text(a, key) : NULL;
}
NEAP_API neap_status neap_archive_save(const neap_archive *a, const char *path) {
  NEED(a, "save");
  NEED(path, "save");
  return ni_archive_save(a, path);
}
NEAP_API neap_status neap_archive_load(neap_archive **a, const char *path) {
  NEED(a, "load");
  *a = NULL;
  NEED(path, "load");
  return ni_archive_load(a, path);
}
NEAP_API neap_status neap_archive_load_memory(neap_archive **a, const void *data, size_t size) {
  NEED(a, "load");
  *a = NULL;
  NEED(data, "load");
  return ni_archive_load_memory(a, data, size);
}

/* ---- optimizers ---- */

NEAP_API const char *neap_optim_name(neap_optim_kind kind, const char **takes) {
  return ni_optim_name(kind, takes);
}
NEAP_API neap_optim_options neap_optim_preset(neap_optim_kind kind) {
  return ni_optim_preset(kind);
}
NEAP_API neap_status neap_optim_new(neap_optim **o, neap_params *p, const int *ids, int n,
                                    const neap_optim_options *options) {
  NEED(o, "optimizer");
  *o = NULL;
  NEED(p, "optimizer");
  return ni_optim_new(o, p, ids, n, options);
}
NEAP_API void neap_optim_release(neap_optim *o) { ni_optim_release(o); }
NEAP_API void neap_optim_rate(neap_optim *o, double rate) {
  if (o && rate >= 0) o->o.rate = o->report.rate = rate;
}
NEAP_API neap_status neap_optim_group(neap_optim *o, const int *ids, int n, double rate,
                                      double weight_decay) {
  NEED(o, "optimizer group");
  if (n > 0) NEED(ids, "optimizer group");
  return ni_optim_group(o, ids, n, rate, weight_decay);
}
NEAP_API neap_status neap_optim_step(neap_optim *o) {
  NEED(o, "optimizer step");
  return ni_optim_step(o);
}
NEAP_API neap_optim_report neap_optim_reported(const neap_optim *o) {
  return o ? o->report : (neap_optim_report){0};
}
NEAP_API neap_status neap_optim_save(const neap_optim *o, neap_archive *a, const char *prefix) {
  NEED(o, "optimizer save");
  NEED(a, "optimizer save");
  return ni_optim_save(o, a, prefix ? prefix : "");
}
NEAP_API neap_status neap_optim_load(neap_optim *o, neap_archive *a, const char *prefix) {
  NEED(o, "optimizer load");
  NEED(a, "optimizer load");
  return ni_optim_load(o, a, prefix ? prefix : "");
}
