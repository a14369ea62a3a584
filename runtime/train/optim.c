#include "optim.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../kernel/kernel.h"

/*
** A rule: n numbers w by their gradient g * scale, with what it remembers of each in m and v. wd:
** weight decay, added to the gradient unless a rule says otherwise; t: the step, from 1.
*/
typedef struct numbers {
  size_t n;
  float *w, *m, *v;
  const float *g;
  float scale, rate, wd;
  double t;
} numbers;

static float slope(const numbers *x, size_t i) { return x->g[i] * x->scale + x->wd * x->w[i]; }

/* m = mu*m + g; w -= rate*m (Polyak 1964, as PyTorch writes it) */
static void sgd(const neap_optim_options *c, const numbers *x) {
  float mu = (float)c->momentum;
  for (size_t i = 0; i < x->n; i++) {
    float step = slope(x, i);
    if (x->m) step = x->m[i] = mu * x->m[i] + step;
    x->w[i] -= x->rate * step;
  }
}

/* The same, a step ahead: w -= rate * (g + mu*m) (Nesterov 1983; Sutskever et al. 2013) */
static void nesterov(const neap_optim_options *c, const numbers *x) {
  float mu = (float)c->momentum;
  for (size_t i = 0; i < x->n; i++) {
    float g = slope(x, i);
    x->m[i] = mu * x->m[i] + g;
    x->w[i] -= x->rate * (g + mu * x->m[i]);
  }
}

/* v = d*v + (1-d)*g^2; w -= rate * g / (sqrt(v) + eps), through momentum as in PyTorch */
static void rmsprop(const neap_optim_options *c, const numbers *x) {
  float d = (float)c->decay, eps = (float)c->eps, mu = (float)c->momentum;
  for (size_t i = 0; i < x->n; i++) {
    float g = slope(x, i);
    x->v[i] = d * x->v[i] + (1 - d) * g * g;
    x->m[i] = mu * x->m[i] + g / (sqrtf(x->v[i]) + eps);
    x->w[i] -= x->rate * x->m[i];
  }
}

/* Kingma and Ba 2015; AdamW's decay stands beside the gradient (Loshchilov and Hutter 2019). */
static void adam(const neap_optim_options *c, const numbers *x) {
  bool decoupled = c->kind == NEAP_ADAMW;
  ni_kernel_f32()->adam(x->n, x->w, x->g, x->scale, x->m, x->v, x->rate, (float)c->beta1,
                        (float)c->beta2, (float)(1 - pow(c->beta1, x->t)),
                        (float)(1 - pow(c->beta2, x->t)), (float)c->eps, decoupled ? 0 : x->wd,
                        decoupled ? x->wd : 0);
}

/* v += g^2; w -= rate * g / (sqrt(v) + eps) (Duchi et al. 2011) */
static void adagrad(const neap_optim_options *c, const numbers *x) {
  float eps = (float)c->eps;
  for (size_t i = 0; i < x->n; i++) {
    float g = slope(x, i);
    x->v[i] += g * g;
    x->w[i] -= x->rate * g / (sqrtf(x->v[i]) + eps);
  }
}

/* v = d*v + (1-d)*g^2; step = sqrt((m + eps)/(v + eps)) * g; m = d*m + (1-d)*step^2; w -= rate*step
** (Zeiler 2012) */
static void adadelta(const neap_optim_options *c, const numbers *x) {
  float d = (float)c->decay, eps = (float)c->eps;
  for (size_t i = 0; i < x->n; i++) {
    float g = slope(x, i);
    x->v[i] = d * x->v[i] + (1 - d) * g * g;
    float step = sqrtf(x->m[i] + eps) / sqrtf(x->v[i] + eps) * g;
    x->m[i] = d * x->m[i] + (1 - d) * step * step;
    x->w[i] -= x->rate * step;
  }
}

/* The rules; takes: their options beside those of all. */
static const struct {
  const char *name, *takes;
  void (*rule)(const neap_optim_options *c, const numbers *x);
  neap_optim_options preset;
} kinds[] = {
    [NEAP_SGD] = {"sgd", "momentum", sgd, {.rate = 1e-2}},
    [NEAP_RMSPROP] = {"rmsprop", "decay momentum eps", rmsprop,
                      {.rate = 1e-2, .decay = 0.99, .eps = 1e-8}},
    [NEAP_ADAM] = {"adam", "beta1 beta2 eps", adam,
                   {.rate = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8}},
    [NEAP_ADAMW] = {"adamw", "beta1 beta2 eps", adam,
                    {.rate = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8,
                     .weight_decay = 1e-2}},
    [NEAP_NESTEROV] = {"nesterov", "momentum", nesterov, {.rate = 1e-2, .momentum = 0.9}},
    [NEAP_ADAGRAD] = {"adagrad", "eps", adagrad, {.rate = 1e-2, .eps = 1e-10}},
    [NEAP_ADADELTA] = {"adadelta", "decay eps", adadelta, {.rate = 1, .decay = 0.9, .eps = 1e-6}},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

const char *ni_optim_name(neap_optim_kind kind, const char **takes) {
  bool known = (int)kind >= 0 && (int)kind < KINDS;
  if (takes) *takes = known ? kinds[kind].takes : NULL;
  return known ? kinds[kind].name : NULL;
}

neap_optim_options ni_optim_preset(neap_optim_kind kind) {
  neap_optim_options o = {.kind = kind};
  if (ni_optim_name(kind, NULL)) o = kinds[kind].preset;
  o.kind = kind;
  return o;
}

static neap_status check(const neap_optim_options *o) {
  struct {
    const char *name;
    double value, low, high;
  } bound[] = {{"rate", o->rate, 0, 1e6},         {"momentum", o->momentum, 0, 1},
               {"decay", o->decay, 0, 1},         {"beta1", o->beta1, 0, 1},
               {"beta2", o->beta2, 0, 1},         {"eps", o->eps, 0, 1},
               {"weight_decay", o->weight_decay, 0, 1e6}, {"clip_norm", o->clip_norm, 0, 1e30},
               {"clip_value", o->clip_value, 0, 1e30}};
  if (!ni_optim_name(o->kind, NULL))
    return ni_fail(NEAP_EARG, "optimizer: there is no kind %d", (int)o->kind);
  for (size_t i = 0; i < sizeof bound / sizeof bound[0]; i++)
    if (!(bound[i].value >= bound[i].low && bound[i].value <= bound[i].high))
      return ni_fail(NEAP_EARG, "optimizer: expected %s in %g..%g, got %g", bound[i].name,
                     bound[i].low, bound[i].high, bound[i].value);
  return NEAP_OK;
}

neap_status ni_optim_new(neap_optim **out, neap_params *p, const int *ids, int n,
                         const neap_optim_options *options) {
  *out = NULL;
  neap_optim_options o = options ? *options : ni_optim_preset(NEAP_ADAM);
  neap_status rc = check(&o);
  if (rc) return rc;
  for (int i = 0; ids && i < n; i++)
    if (ids[i] < 0 || ids[i] >= ni_params_count(p))
      return ni_fail(NEAP_EARG, "optimizer: there is no parameter %d", ids[i]);
  neap_optim *opt = ni_calloc(1, sizeof *opt);
  if (!opt) return NEAP_EMEM;
  opt->o = o;
  opt->report.rate = o.rate;
  if (ids) {
    opt->ids = ni_alloc(((size_t)n + 1) * sizeof *opt->ids);
    if (!opt->ids) {
      ni_free(opt);
      return NEAP_EMEM;
    }
    memcpy(opt->ids, ids, (size_t)n * sizeof *ids);
    opt->n_ids = n;
  }
  opt->params = p;
  ni_params_retain(p);
  *out = opt;
  return NEAP_OK;
}

void ni_optim_release(neap_optim *o) {
  if (!o) return;
  ni_params_release(o->params);
  ni_free(o->ids);
  ni_free(o->m);
  ni_free(o->v);
  ni_free(o->begun);
  ni_free(o->sums);
  ni_free(o->mine);
  ni_free(o->group);
  ni_free(o);
}

/* SGD without momentum has nothing to remember. */
static bool remembers(const neap_optim *o) { return o->o.kind != NEAP_SGD || o->o.momentum > 0; }

/* Room for the optimizer's memory of every parameter there is now. */
static neap_status reserve(neap_optim *o) {
  size_t extent = o->params->extent, words = o->params->words;
  if (!o->mine || o->params->parts > o->parts || o->params->count > o->count) {
    double *sums = ni_alloc(o->params->parts * sizeof *sums + 1);
    bool *mine = ni_alloc(o->params->count * sizeof *mine + 1);
    if (!sums || !mine) {
      ni_free(sums);
      ni_free(mine);
      return NEAP_EMEM;
    }
    ni_free(o->sums);
    ni_free(o->mine);
    o->sums = sums;
    o->mine = mine;
    o->parts = o->params->parts;
    o->count = o->params->count;
  }
  if (extent <= o->extent || !remembers(o)) return NEAP_OK;
  float *m = ni_calloc(extent, sizeof *m), *v = ni_calloc(extent, sizeof *v);
  uint64_t *begun = ni_calloc(words, sizeof *begun);
  if (!m || !v || !begun) {
    ni_free(m);
    ni_free(v);
    ni_free(begun);
    return NEAP_EMEM;
  }
  if (o->extent) {
    memcpy(m, o->m, o->extent * sizeof *m);
    memcpy(v, o->v, o->extent * sizeof *v);
    memcpy(begun, o->begun, o->words * sizeof *begun);
  }
  ni_free(o->m);
  ni_free(o->v);
  ni_free(o->begun);
  o->m = m;
  o->v = v;
  o->begun = begun;
  o->extent = extent;
  o->words = words;
  return NEAP_OK;
}

/* The i-th parameter that this optimizer updates; NULL past the end, frozen ones left out. */
static const ni_param *member(const neap_optim *o, int *i) {
  int n = o->ids ? o->n_ids : ni_params_count(o->params);
  while (*i < n) {
    const ni_param *p = &o->params->entries[o->ids ? o->ids[*i] : *i];
    (*i)++;
    if (!p->frozen) return p;
  }
  return NULL;
}

/* What is particular to a parameter: its share of the rate, its weight decay. */
static ni_group group_of(const neap_optim *o, const ni_param *e) {
  size_t id = (size_t)(e - o->params->entries);
  ni_group g = id < o->n_groups ? o->group[id] : (ni_group){1, -1};
  if (g.weight_decay < 0) g.weight_decay = o->o.weight_decay;
  return g;
}

neap_status ni_optim_group(neap_optim *o, const int *ids, int n, double rate, double weight_decay) {
  size_t count = o->n_groups;
  if (!(rate >= 0 && rate <= 1e6) || !(weight_decay <= 1e6))
    return ni_fail(NEAP_EARG, "optimizer: group: expected a share of the rate and a weight decay "
                   "up to 1e6, got %g and %g", rate, weight_decay);
  for (int i = 0; i < n; i++) {
    if (ids[i] < 0 || ids[i] >= ni_params_count(o->params))
      return ni_fail(NEAP_EARG, "optimizer: group: there is no parameter %d", ids[i]);
    if ((size_t)ids[i] >= count) count = (size_t)ids[i] + 1;
  }
  ni_group *all = ni_alloc((count + 1) * sizeof *all);
  if (!all) return NEAP_EMEM;
  for (size_t i = 0; i < count; i++) all[i] = i < o->n_groups ? o->group[i] : (ni_group){1, -1};
  for (int i = 0; i < n; i++) all[ids[i]] = (ni_group){rate, weight_decay};
  ni_free(o->group);
  o->group = all;
  o->n_groups = count;
  return NEAP_OK;
}

/* The n numbers of the vector from `at` on. */
static void update(neap_optim *o, size_t at, size_t n, float scale, ni_group group) {
  numbers x = {.n = n, .w = o->params->data + at, .m = o->m ? o->m + at : NULL,
               .v = o->v ? o->v + at : NULL, .g = o->params->grad + at, .scale = scale,
               .rate = (float)(o->o.rate * group.rate), .wd = (float)group.weight_decay,
               .t = (double)o->report.steps};
  kinds[o->o.kind].rule(&o->o, &x);
}

/*
** Which rows a step must go through: NULL for all of them. Where the gradient is 0 and so is what
** the optimizer remembers, every rule without decay leaves a number as it is, to the bit; but for
** an eps of 0, which makes it 0/0.
*/
static const uint64_t *rows_to_update(const neap_optim *o, double weight_decay) {
  const neap_optim_options *c = &o->o;
  if (c->lazy) return o->params->used;
  if (weight_decay > 0 || (strstr(kinds[c->kind].takes, "eps") && c->eps <= 0)) return NULL;
  return o->begun ? o->begun : o->params->used;
}

/* Sum of squares of a part's gradient: blocks of it, whole ones even where few rows are used, so
** that the order of the sum is always the same. */
static void sum_part(void *arg, size_t task) {
  enum { BLOCK = 512 };
  const neap_optim *o = arg;
  const neap_params *p = o->params;
  ni_part x = ni_params_part(p, task);
  const float *g = p->grad + x.e->start;
  double sum = 0;
  size_t at = x.from, from, to = x.from;
  while (o->mine[x.e - p->entries] && ni_part_span(&x, p->used, &from, &to)) {
    if (at < from / BLOCK * BLOCK) at = from / BLOCK * BLOCK;
    for (; at < to; at += BLOCK) {
      size_t n = x.to - at < BLOCK ? x.to - at : BLOCK;
      sum += (double)ni_kernel_f32()->dot(n, g + at, g + at);
    }
  }
  o->sums[task] = sum;
}

typedef struct step_job {
  neap_optim *o;
  float scale;
} step_job;

static void update_part(void *arg, size_t task) {
  const step_job *j = arg;
  neap_optim *o = j->o;
  ni_part x = ni_params_part(o->params, task);
  if (!o->mine[x.e - o->params->entries]) return;
  ni_group group = group_of(o, x.e);
  const uint64_t *some = rows_to_update(o, group.weight_decay);
  for (size_t from, to = x.from; ni_part_span(&x, some, &from, &to);)
    update(o, x.e->start + from, to - from, j->scale, group);
}

neap_status ni_optim_step(neap_optim *o) {
  neap_params *p = o->params;
  const ni_param *e;
  size_t from, to;
  if (p->extent && !ni_params_grad_make(p)) return NEAP_EMEM;
  neap_status rc = reserve(o);
  if (rc) return rc;
  memset(o->mine, 0, p->count * sizeof *o->mine);
  for (int i = 0; (e = member(o, &i)) != NULL;) o->mine[e - p->entries] = true;
  unsigned mode = ni_denormals_flush(); /* as the pool's threads have it */
  ni_pool_run(p->pool, p->parts, sum_part, o);
  double square = 0;
  bool cut = false;
  for (int i = 0; (e = member(o, &i)) != NULL;) {
    const float *g = p->grad + e->start;
    double sum = 0;
    for (size_t k = 0; k * NI_PART < e->size; k++) sum += o->sums[e->part + k];
    float most = 0;
    if (!isfinite(sum)) {
      for (size_t k = 0; k < e->size; k++)
        if (!isfinite(g[k])) {
          ni_denormals_restore(mode);
          return ni_fail(NEAP_ENONFINITE,
                         "optimizer: %s in the gradient of '%s' (element %zu); nothing was updated",
                         isnan(g[k]) ? "NaN" : "infinity", e->name, k);
        }
      sum = 0; /* finite, but its square is not: sum again in double */
      for (size_t k = 0; k < e->size; k++) sum += (double)g[k] * (double)g[k];
    }
    if (o->o.clip_value > 0) {
      for (to = 0; ni_params_span(e, p->used, &from, &to);)
        for (size_t k = from; k < to; k++) most = fmaxf(most, fabsf(g[k]));
      cut |= (double)most > o->o.clip_value;
    }
    square += sum;
  }
  if (cut) {
    float c = (float)o->o.clip_value;
    square = 0;
    for (int i = 0; (e = member(o, &i)) != NULL;) {
      float *g = p->grad + e->start;
      for (to = 0; ni_params_span(e, p->used, &from, &to);)
        for (size_t k = from; k < to; k++) {
          g[k] = g[k] > c ? c : g[k] < -c ? -c : g[k];
          square += (double)g[k] * (double)g[k];
        }
    }
    o->report.clipped_value++;
  }
  o->report.norm = sqrt(square);
  float scale = 1;
  if (o->o.clip_norm > 0 && o->report.norm > o->o.clip_norm) {
    scale = (float)(o->o.clip_norm / o->report.norm);
    o->report.clipped_norm++;
  }
  o->report.steps++;
  o->report.rate = o->o.rate;
  for (size_t i = 0; o->begun && i < o->words; i++) o->begun[i] |= p->used[i];
  ni_pool_run(p->pool, p->parts, update_part, &(step_job){o, scale});
  ni_denormals_restore(mode);
  ni_params_touch(p);
  return NEAP_OK;
}

/* ---- resuming ---- */

static neap_status put(neap_archive *a, const char *prefix, const char *what, const ni_param *e,
                       const float *data) {
  neap_tensor *t;
  size_t dim = e->size;
  neap_status rc = ni_tensor_new(&t, NEAP_F32, 1, &dim);
  if (rc) return rc;
  memcpy(t->data, data + e->start, e->size * sizeof *data);
  ni_text name = {0};
  ni_text_add(&name, "%s%s.%s", prefix, what, e->name);
  rc = name.failed ? NEAP_EMEM : ni_archive_add(a, name.s, t);
  ni_text_free(&name);
  ni_tensor_release(t);
  return rc;
}

neap_status ni_optim_save(const neap_optim *o, neap_archive *a, const char *prefix) {
  const neap_params *p = o->params;
  int n = o->ids ? o->n_ids : ni_params_count(p);
  neap_status rc = NEAP_OK;
  for (int i = 0; i < n && !rc; i++) {
    const ni_param *e = &p->entries[o->ids ? o->ids[i] : i];
    if (e->start + e->size > o->extent) continue; /* nothing to remember, or not yet */
    rc = put(a, prefix, "m", e, o->m);
    if (!rc) rc = put(a, prefix, "v", e, o->v);
  }
  if (rc) return rc;
  ni_text t = {0}, key = {0};
  ni_text_add(&t, "%llu %llu %llu", (unsigned long long)o->report.steps,
              (unsigned long long)o->report.clipped_norm,
              (unsigned long long)o->report.clipped_value);
  ni_text_add(&key, "%ssteps", prefix);
  rc = t.failed || key.failed ? NEAP_EMEM : ni_archive_set_text(a, key.s, t.s);
  ni_text_free(&t);
  ni_text_free(&key);
  return rc;
}

neap_status ni_optim_load(neap_optim *o, neap_archive *a, const char *prefix) {
  const neap_params *p = o->params;
  ni_text key = {0};
  ni_text_add(&key, "%ssteps", prefix);
  bool failed = key.failed;
  const char *steps = failed ? NULL : ni_archive_text(a, key.s);
  ni_text_free(&key);
  if (failed) return NEAP_EMEM;
  unsigned long long n_steps, norm, value;
  if (!steps || sscanf(steps, "%llu %llu %llu", &n_steps, &norm, &value) != 3)
    return ni_fail(NEAP_EFORMAT, "optimizer: the file has no state under '%s'", prefix);
  neap_status rc = reserve(o);
  if (rc) return rc;
  int n = !remembers(o) ? 0 : o->ids ? o->n_ids : ni_params_count(p);
  const neap_tensor **found = ni_calloc(2 * (size_t)n + 1, sizeof *found);
  if (!found) return NEAP_EMEM;
  for (int i = 0; i < 2 * n && !rc; i++) { /* first look, then take: all or nothing */
    const ni_param *e = &p->entries[o->ids ? o->ids[i / 2] : i / 2];
    ni_text name = {0};
    ni_text_add(&name, "%s%s.%s", prefix, i % 2 ? "v" : "m", e->name);
    const neap_tensor *t = name.failed ? NULL : ni_archive_tensor(a, name.s);
    if (t && t->dtype == NEAP_F32 && t->size == e->size) found[i] = t;
    else if (name.failed) rc = NEAP_EMEM;
    else if (n_steps > 0)
      rc = ni_fail(NEAP_EFORMAT, "optimizer: expected '%s' with %zu numbers", name.s, e->size);
    ni_text_free(&name);
  }
  for (int i = 0; i < 2 * n && !rc; i++) {
    const ni_param *e = &p->entries[o->ids ? o->ids[i / 2] : i / 2];
    if (found[i])
      memcpy((i % 2 ? o->v : o->m) + e->start, found[i]->data, e->size * sizeof(float));
  }
  ni_free(found);
  if (rc) return rc;
  for (int i = 0; i < n; i++) {
    const ni_param *e = &p->entries[o->ids ? o->ids[i] : i];
    const float *m = o->m + e->start, *v = o->v + e->start;
    for (size_t k = 0; k < e->size; k++) {
      size_t bit = e->bit + k / e->width;
      if (m[k] != 0 || v[k] != 0) o->begun[bit / 64] |= (uint64_t)1 << bit % 64;
    }
  }
  o->report.steps = n_steps;
  o->report.clipped_norm = norm;
  o->report.clipped_value = value;
  return NEAP_OK;
}
