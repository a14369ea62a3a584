#include "model_file.h"

#include <string.h>

/* Every parameter is used by some program, or the message lists those that are not. */
static neap_status check_used(const neap_model *m) {
  ni_text t = {0};
  int count = ni_params_count(m->params);
  bool *used = ni_calloc((size_t)count + 1, sizeof *used);
  if (!used) return NEAP_EMEM;
  for (int i = 0; i < m->n_programs; i++) {
    const neap_program *pr = m->program[i].program;
    for (int k = 0; k < pr->n_nodes; k++)
      if (pr->node[k].op == &ni_op_param) used[ni_params_find(m->params, pr->node[k].name)] = true;
  }
  for (int i = 0; i < count; i++)
    if (!used[i])
      ni_text_add(&t, "%s'%s'", t.n ? ", " : "", ni_params_name(m->params, i));
  neap_status rc = t.failed ? NEAP_EMEM : NEAP_OK;
  if (!rc && t.n) rc = ni_fail(NEAP_EFORMAT, "no program of the model uses %s", t.s);
  ni_text_free(&t);
  ni_free(used);
  return rc;
}

static neap_status set(neap_archive *a, const char *prefix, const char *key, const char *text) {
  ni_text t = {0};
  ni_text_add(&t, "%s%s", prefix, key);
  neap_status rc = t.failed ? NEAP_EMEM : ni_archive_set_text(a, t.s, text);
  ni_text_free(&t);
  return rc;
}

neap_status ni_model_save(const neap_model *m, const char *path) {
  neap_archive *a = NULL;
  ni_text order = {0}, frozen = {0};
  bool any = false;
  neap_status rc = check_used(m);
  if (!rc && ni_params_count(m->params) > NI_MODEL_TENSORS)
    rc = ni_fail(NEAP_EARG, "a model file holds at most %d parameters", NI_MODEL_TENSORS);
  if (rc) return rc == NEAP_EMEM ? rc : ni_fail_before(NEAP_EARG, "save '%s'", path);
  rc = ni_archive_new(&a);
  for (int i = 0; i < ni_params_count(m->params) && !rc; i++) {
    const ni_param *e = &m->params->entries[i];
    neap_tensor *t;
    size_t bad = ni_kernel_f32()->finite_first(e->size, m->params->data + e->start);
    if (bad < e->size)
      rc = ni_fail(NEAP_EFORMAT, "save '%s': parameter %s: number %zu is %f: a model has finite ones",
                   path, e->name, bad + 1, (double)m->params->data[e->start + bad]);
    else
      rc = ni_tensor_new(&t, NEAP_F32, e->rank, e->dims);
    if (rc) break;
    memcpy(t->data, m->params->data + e->start, e->size * sizeof(float));
    rc = ni_archive_add(a, e->name, t);
    ni_tensor_release(t);
    ni_text_add(&order, "%s%s", i ? "\n" : "", e->name);
    ni_text_addn(&frozen, e->frozen ? "1" : "0", 1); /* a digit for each name in the order */
    any |= e->frozen;
  }
  if (!rc && (order.failed || frozen.failed)) rc = NEAP_EMEM;
  if (!rc) rc = ni_archive_set_text(a, "neap", "1");
  if (!rc) rc = ni_archive_set_text(a, "neap.order", order.s ? order.s : "");
  if (!rc && any) rc = ni_archive_set_text(a, "neap.frozen", frozen.s);
  for (int i = 0; i < m->n_programs && !rc; i++) {
    char *json;
    rc = ni_program_json(&json, m->program[i].program);
    if (!rc) rc = set(a, "neap.program.", m->program[i].name, json);
    ni_free(json);
  }
  for (int i = 0; i < m->n_texts && !rc; i++)
    rc = set(a, "neap.text.", m->text[i].key, m->text[i].text);
  if (!rc) rc = ni_archive_save(a, path);
  ni_text_free(&order);
  ni_text_free(&frozen);
  ni_archive_release(a);
  return rc;
}

static neap_status add_param(neap_params *p, const neap_archive *a, const char *name) {
  const neap_tensor *t = ni_archive_tensor(a, name);
  int id;
  if (!t) return ni_fail(NEAP_EFORMAT, "model: tensor '%s' is missing", name);
  if (t->dtype != NEAP_F32)
    return ni_fail(NEAP_EFORMAT, "model: tensor '%s' must be of floats", name);
  if (ni_params_find(p, name) >= 0)
    return ni_fail(NEAP_EFORMAT, "model: '%s' stands twice in neap.order", name);
  size_t bad = ni_kernel_f32()->finite_first(t->size, t->data);
  if (bad < t->size)
    return ni_fail(NEAP_EFORMAT, "model: tensor '%s': number %zu is %f", name, bad + 1,
                   (double)((const float *)t->data)[bad]);
  neap_status rc = ni_params_add(&id, p, name, t->rank, t->dims);
  if (rc) return rc;
  memcpy(ni_params_data(p, id), t->data, t->size * sizeof(float));
  ni_params_touch(p);
  return NEAP_OK;
}

static neap_status build(neap_model **out, const neap_archive *a) {
  neap_params *p = NULL;
  neap_model *m = NULL;
  const char *version = ni_archive_text(a, "neap"), *order = ni_archive_text(a, "neap.order");
  const char *frozen = ni_archive_text(a, "neap.frozen");
  if (!version)
    return ni_fail(NEAP_EFORMAT,
                   "model: this safetensors file carries no neap programs, only tensors");
  if (strcmp(version, "1") != 0)
    return ni_fail(NEAP_EFORMAT, "model: expected version 1 of the layout, got '%.20s'", version);
  if (!order) return ni_fail(NEAP_EFORMAT, "model: neap.order is missing");
  if (ni_archive_count(a) > NI_MODEL_TENSORS)
    return ni_fail(NEAP_EFORMAT, "model: expected at most %d tensors, came %d", NI_MODEL_TENSORS,
                   ni_archive_count(a));
  neap_status rc = ni_params_new(&p);
  for (const char *s = order; !rc && *s;) {
    size_t n = strcspn(s, "\n");
    char *name = ni_strndup(s, n);
    rc = name ? add_param(p, a, name) : NEAP_EMEM;
    ni_free(name);
    s += n + (s[n] == '\n');
  }
  if (!rc && ni_params_count(p) != ni_archive_count(a)) {
    ni_text t = {0};
    for (int i = 0; i < ni_archive_count(a); i++)
      if (ni_params_find(p, ni_archive_name(a, i)) < 0)
        ni_text_add(&t, "%s'%s'", t.n ? ", " : "", ni_archive_name(a, i));
    rc = t.failed ? NEAP_EMEM : ni_fail(NEAP_EFORMAT, "model: neap.order does not name %s", t.s);
    ni_text_free(&t);
  }
  for (int i = 0; !rc && frozen && (frozen[i] || i < ni_params_count(p)); i++)
    if (i < ni_params_count(p) && (frozen[i] == '0' || frozen[i] == '1'))
      ni_params_freeze(p, i, frozen[i] == '1');
    else rc = ni_fail(NEAP_EFORMAT, "model: neap.frozen: expected 0 or 1 for each tensor");
  if (!rc) rc = ni_model_new(&m, p);
  for (int i = 0; i < ni_archive_texts(a) && !rc; i++) {
    const char *key = ni_archive_text_key(a, i), *text = ni_archive_text_at(a, i);
    if (strncmp(key, "neap.program.", 13) == 0) {
      neap_program *pr;
      rc = ni_program_parse(&pr, p, text, strlen(text));
      if (rc && rc != NEAP_EMEM) ni_fail_before(rc, "model: %.100s", key + 13);
      if (!rc) rc = ni_model_add(m, key + 13, pr);
      if (pr) ni_program_release(pr);
    } else if (strncmp(key, "neap.text.", 10) == 0) {
      rc = ni_model_set_text(m, key + 10, text);
    }
  }
  if (!rc) rc = check_used(m);
  ni_params_release(p);
  if (rc) {
    ni_model_release(m);
    return rc == NEAP_EMEM ? rc : NEAP_EFORMAT;
  }
  *out = m;
  return NEAP_OK;
}

neap_status ni_model_load(neap_model **m, const char *path) {
  neap_archive *a;
  *m = NULL;
  neap_status rc = ni_archive_load(&a, path);
  if (rc) return rc;
  rc = build(m, a);
  ni_archive_release(a);
  return rc && rc != NEAP_EMEM ? ni_fail_before(rc, "'%s'", path) : rc;
}

neap_status ni_model_load_memory(neap_model **m, const void *data, size_t size) {
  neap_archive *a;
  *m = NULL;
  neap_status rc = ni_archive_load_memory(&a, data, size);
  if (rc) return rc;
  rc = build(m, a);
  ni_archive_release(a);
  return rc;
}
