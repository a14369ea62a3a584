#include "model.h"

#include <string.h>

neap_status ni_model_new(neap_model **out, neap_params *params) {
  neap_model *m = *out = ni_calloc(1, sizeof *m);
  if (!m) return NEAP_EMEM;
  m->refs = 1;
  m->params = params;
  ni_params_retain(params);
  return NEAP_OK;
}

void ni_model_retain(neap_model *m) {
  if (m) atomic_fetch_add(&m->refs, 1);
}

void ni_model_release(neap_model *m) {
  if (!m || atomic_fetch_sub(&m->refs, 1) != 1) return;
  for (int i = 0; i < m->n_programs; i++) {
    ni_free(m->program[i].name);
    ni_program_release(m->program[i].program);
  }
  for (int i = 0; i < m->n_texts; i++) {
    ni_free(m->text[i].key);
    ni_free(m->text[i].text);
  }
  ni_free(m->program);
  ni_free(m->text);
  ni_params_release(m->params);
  ni_free(m);
}

neap_status ni_model_add(neap_model *m, const char *name, neap_program *pr) {
  neap_status rc = ni_name_check("model", name, 200);
  if (rc) return rc;
  if (pr->params != m->params)
    return ni_fail(NEAP_EARG, "model: program '%s' uses another set of parameters", name);
  if (pr->open_scan >= 0) return ni_fail(NEAP_ESTATE, "model: program '%s' has an open scan", name);
  for (int i = 0; i < m->n_programs; i++)
    if (strcmp(m->program[i].name, name) == 0) {
      ni_program_retain(pr);
      ni_program_release(m->program[i].program);
      m->program[i].program = pr;
      return NEAP_OK;
    }
  if (m->n_programs >= NI_MODEL_PROGRAMS)
    return ni_fail(NEAP_ERANGE, "model: expected at most %d programs", NI_MODEL_PROGRAMS);
  if (!ni_grow((void **)&m->program, &m->cap_programs, (size_t)m->n_programs, sizeof *m->program))
    return NEAP_EMEM;
  char *copy = ni_strdup(name);
  if (!copy) return NEAP_EMEM;
  ni_program_retain(pr);
  m->program[m->n_programs++] = (ni_model_program){copy, pr};
  return NEAP_OK;
}

neap_program *ni_model_program_of(const neap_model *m, const char *name) {
  for (int i = 0; i < m->n_programs; i++)
    if (strcmp(m->program[i].name, name) == 0) return m->program[i].program;
  return NULL;
}

neap_status ni_model_set_text(neap_model *m, const char *key, const char *text) {
  neap_status rc = ni_name_check("model", key, 200);
  if (rc) return rc;
  int at = 0;
  while (at < m->n_texts && strcmp(m->text[at].key, key) != 0) at++;
  if (!text) {
    if (at == m->n_texts) return NEAP_OK;
    ni_free(m->text[at].key);
    ni_free(m->text[at].text);
    m->text[at] = m->text[--m->n_texts];
    return NEAP_OK;
  }
  if (at == m->n_texts && at >= NI_MODEL_TEXTS)
    return ni_fail(NEAP_ERANGE, "model: expected at most %d texts", NI_MODEL_TEXTS);
  char *copy = ni_strdup(text), *name = NULL;
  if (!copy) return NEAP_EMEM;
  if (at == m->n_texts) {
    name = ni_strdup(key);
    if (!name ||
        !ni_grow((void **)&m->text, &m->cap_texts, (size_t)m->n_texts, sizeof *m->text)) {
      ni_free(copy);
      ni_free(name);
      return NEAP_EMEM;
    }
    m->text[m->n_texts++] = (ni_model_text){name, copy};
    return NEAP_OK;
  }
  ni_free(m->text[at].text);
  m->text[at].text = copy;
  return NEAP_OK;
}

const char *ni_model_text_of(const neap_model *m, const char *key) {
  for (int i = 0; i < m->n_texts; i++)
    if (strcmp(m->text[i].key, key) == 0) return m->text[i].text;
  return NULL;
}
