/*
** Models, archives of tensors, optimizers.
*/
#include <string.h>

#include "core.h"

static void release_model(void *p) { neap_model_release(p); }
static void release_archive(void *p) { neap_archive_release(p); }
static void release_optim(void *p) { neap_optim_release(p); }

static const nb_type model_type = {"neap.model", "model", release_model};
static const nb_type archive_type = {"neap.archive", "archive", release_archive};
static const nb_type optim_type = {"neap.optim", "optimizer", release_optim};

static neap_model *model_of(lua_State *L) { return nb_object(L, 1, &model_type); }
static neap_archive *archive_of(lua_State *L, int arg) { return nb_object(L, arg, &archive_type); }
static neap_optim *optim_of(lua_State *L) { return nb_object(L, 1, &optim_type); }

/* ---- models ---- */

static int model_new(lua_State *L) {
  nb_object(L, 1, &nb_params_type);
  void **box = nb_box(L, &model_type);
  neap_model *m;
  nb_check(L, neap_model_new(&m, nb_object(L, 1, &nb_params_type)));
  *box = m;
  return 1;
}

static int model_load(lua_State *L) {
  const char *path = nb_string(L, 1, NULL);
  void **box = nb_box(L, &model_type);
  size_t before = neap_memory_live();
  neap_model *m;
  neap_status rc = neap_model_load(&m, path);
  if (!rc) *box = m, nb_outside_since(L, before);
  return nb_result(L, rc);
}

static int model_load_string(lua_State *L) {
  size_t n;
  const char *data = nb_string(L, 1, &n);
  void **box = nb_box(L, &model_type);
  size_t before = neap_memory_live();
  neap_model *m;
  neap_status rc = neap_model_load_memory(&m, data, n);
  if (!rc) *box = m, nb_outside_since(L, before);
  return nb_result(L, rc);
}

static int model_add(lua_State *L) {
  nb_check(L, neap_model_add(model_of(L), nb_string(L, 2, NULL), nb_program(L, 3)));
  return 0;
}

static int model_program(lua_State *L) {
  model_of(L);
  const char *name = nb_string(L, 2, NULL);
  void **box = nb_box(L, &nb_program_type);
  neap_program *pr = neap_model_program(model_of(L), name);
  if (!pr) return 0;
  neap_program_retain(pr);
  *box = pr;
  return 1;
}

static int model_programs(lua_State *L) {
  model_of(L);
  lua_newtable(L);
  for (int i = 0; i < neap_model_programs(model_of(L)); i++) {
    lua_pushstring(L, neap_model_program_name(model_of(L), i));
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int model_params(lua_State *L) {
  model_of(L);
  void **box = nb_box(L, &nb_params_type);
  neap_params *p = neap_model_params(model_of(L));
  neap_params_retain(p);
  *box = p;
  return 1;
}

static int model_set_text(lua_State *L) {
  size_t n;
  const char *text = lua_isnoneornil(L, 3) ? NULL : nb_string(L, 3, &n);
  if (text && strlen(text) != n) return nb_raise(L, "model text: a zero byte cannot be kept");
  nb_check(L, neap_model_set_text(model_of(L), nb_string(L, 2, NULL), text));
  return 0;
}

static int model_text(lua_State *L) {
  lua_pushstring(L, neap_model_text(model_of(L), nb_string(L, 2, NULL)));
  return 1;
}

static int model_texts(lua_State *L) {
  model_of(L);
  lua_newtable(L);
  for (int i = 0; i < neap_model_texts(model_of(L)); i++) {
    lua_pushstring(L, neap_model_text_key(model_of(L), i));
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int model_save(lua_State *L) {
  neap_status rc = neap_model_save(model_of(L), nb_string(L, 2, NULL));
  lua_pushboolean(L, 1);
  return nb_result(L, rc);
}

static const luaL_Reg model_methods[] = {
    {"add", model_add},           {"program", model_program}, {"programs", model_programs},
    {"params", model_params},     {"set_text", model_set_text}, {"text", model_text},
    {"texts", model_texts},       {"save", model_save},       {NULL, NULL}};

/* ---- archives ---- */

static int archive_new(lua_State *L) {
  void **box = nb_box(L, &archive_type);
  neap_archive *a;
  nb_check(L, neap_archive_new(&a));
  *box = a;
  return 1;
}

static int archive_load(lua_State *L) {
  const char *path = nb_string(L, 1, NULL);
  void **box = nb_box(L, &archive_type);
  neap_archive *a;
  neap_status rc = neap_archive_load(&a, path);
  if (!rc) *box = a;
  return nb_result(L, rc);
}

static int archive_add(lua_State *L) {
  nb_check(L, neap_archive_add(archive_of(L, 1), nb_string(L, 2, NULL), nb_tensor(L, 3)));
  return 0;
}

static int archive_names(lua_State *L) {
  archive_of(L, 1);
  lua_newtable(L);
  for (int i = 0; i < neap_archive_count(archive_of(L, 1)); i++) {
    lua_pushstring(L, neap_archive_name(archive_of(L, 1), i));
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int archive_texts(lua_State *L) {
  archive_of(L, 1);
  lua_newtable(L);
  for (int i = 0; i < neap_archive_texts(archive_of(L, 1)); i++) {
    lua_pushstring(L, neap_archive_text_key(archive_of(L, 1), i));
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int archive_tensor(lua_State *L) {
  neap_tensor *t = neap_archive_tensor(archive_of(L, 1), nb_string(L, 2, NULL));
  if (!t) return 0;
  neap_tensor_retain(t);
  nb_tensor_push(L, t);
  return 1;
}

static int archive_set_text(lua_State *L) {
  nb_check(L, neap_archive_set_text(archive_of(L, 1), nb_string(L, 2, NULL),
                                    nb_string_or(L, 3, NULL)));
  return 0;
}

static int archive_text(lua_State *L) {
  lua_pushstring(L, neap_archive_text(archive_of(L, 1), nb_string(L, 2, NULL)));
  return 1;
}

static int archive_save(lua_State *L) {
  neap_status rc = neap_archive_save(archive_of(L, 1), nb_string(L, 2, NULL));
  lua_pushboolean(L, 1);
  return nb_result(L, rc);
}

static const luaL_Reg archive_methods[] = {
    {"add", archive_add},           {"names", archive_names}, {"tensor", archive_tensor},
    {"texts", archive_texts},       {"text", archive_text},   {"set_text", archive_set_text},
    {"save", archive_save},         {NULL, NULL}};

/* ---- optimizers ---- */

enum { MOST_KINDS = 32 };

/* The names of all kinds, NULL after the last. */
static void kinds_of(const char *names[MOST_KINDS + 1]) {
  int n = 0;
  while (n < MOST_KINDS && (names[n] = neap_optim_name((neap_optim_kind)n, NULL)) != NULL) n++;
  names[n] = NULL;
}

/* optim_kinds() -> { { name =, takes = }, .. } */
static int optim_kinds(lua_State *L) {
  const char *names[MOST_KINDS + 1], *takes;
  kinds_of(names);
  lua_newtable(L);
  for (int i = 0; names[i]; i++) {
    neap_optim_name((neap_optim_kind)i, &takes);
    lua_newtable(L);
    lua_pushstring(L, names[i]), lua_setfield(L, -2, "name");
    lua_pushstring(L, takes), lua_setfield(L, -2, "takes");
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* The ids of a list of names, kept alive by the stack. */
static int *ids_of(lua_State *L, int arg, neap_params *p, const char *who, int *n) {
  nb_table(L, arg);
  *n = (int)lua_rawlen(L, arg);
  int *ids = lua_newuserdatauv(L, ((size_t)*n + 1) * sizeof *ids, 0);
  for (int i = 0; i < *n; i++) {
    lua_rawgeti(L, arg, i + 1);
    const char *name = nb_string(L, -1, NULL);
    if ((ids[i] = neap_params_find(p, name)) < 0)
      nb_raise(L, "%s: there is no parameter '%s'", who, name);
    lua_pop(L, 1);
  }
  return ids;
}

/* optim(params, kind, options, names or nil) */
static int optim_new(lua_State *L) {
  static const char *const names[] = {"rate",         "momentum",  "decay",      "beta1", "beta2",
                                      "eps",          "weight_decay", "clip_norm", "clip_value", "lazy",
                                      NULL};
  const char *kinds[MOST_KINDS + 1];
  kinds_of(kinds);
  if (lua_type(L, 1) != LUA_TUSERDATA)
    nb_raise(L, "optimizer: expected the params of a model or program, came %s",
             nb_push_came(L, 1));
  neap_params *p = nb_object(L, 1, &nb_params_type);
  neap_optim_kind kind = (neap_optim_kind)nb_choice(L, 2, NULL, kinds);
  neap_optim_options o = neap_optim_preset(kind);
  nb_options(L, 3, kinds[kind], names);
  if (lua_istable(L, 3)) {
    struct {
      const char *name;
      double *to;
    } field[] = {{"rate", &o.rate},   {"momentum", &o.momentum}, {"decay", &o.decay},
                 {"beta1", &o.beta1}, {"beta2", &o.beta2},       {"eps", &o.eps},
                 {"weight_decay", &o.weight_decay}, {"clip_norm", &o.clip_norm},
                 {"clip_value", &o.clip_value}};
    for (size_t i = 0; i < sizeof field / sizeof field[0]; i++)
      *field[i].to = nb_option_number(L, 3, kinds[kind], field[i].name, *field[i].to);
    o.lazy = nb_option_boolean(L, 3, kinds[kind], "lazy", false);
  }
  int *ids = NULL, n = 0;
  if (!lua_isnoneornil(L, 4)) ids = ids_of(L, 4, p, kinds[kind], &n);
  void **box = nb_box(L, &optim_type);
  neap_optim *opt;
  size_t before = neap_memory_live();
  /* scripts call that option clip */
  if (neap_optim_new(&opt, nb_object(L, 1, &nb_params_type), ids, n, &o) != NEAP_OK)
    nb_raise(L, "%s", luaL_gsub(L, neap_errmsg(), "clip_norm", "clip"));
  *box = opt;
  nb_outside_since(L, before);
  return 1;
}

/* group(params, names, rate, weight_decay) */
static int optim_group(lua_State *L) {
  int n;
  int *ids = ids_of(L, 3, nb_object(L, 2, &nb_params_type), "optimizer: group", &n);
  nb_check(L, neap_optim_group(optim_of(L), ids, n, nb_number(L, 4), nb_number(L, 5)));
  return 0;
}

static int optim_step(lua_State *L) {
  size_t before = neap_memory_live();
  nb_check(L, neap_optim_step(optim_of(L))); /* the first takes what it remembers */
  nb_outside_since(L, before);
  return 0;
}

/* rate() -> number; rate(number) sets it */
static int optim_rate(lua_State *L) {
  neap_optim *o = optim_of(L);
  if (!lua_isnoneornil(L, 2)) {
    double rate = nb_number(L, 2);
    if (!(rate >= 0)) return nb_raise(L, "optimizer: expected a rate of 0 or more, got %f", rate);
    neap_optim_rate(o, rate);
    lua_pushnumber(L, rate);
    return 1;
  }
  lua_pushnumber(L, neap_optim_reported(o).rate);
  return 1;
}

static int optim_report(lua_State *L) {
  neap_optim_report r = neap_optim_reported(optim_of(L));
  lua_newtable(L);
  lua_pushnumber(L, r.norm), lua_setfield(L, -2, "norm");
  lua_pushnumber(L, r.rate), lua_setfield(L, -2, "rate");
  lua_pushinteger(L, (lua_Integer)r.steps), lua_setfield(L, -2, "steps");
  lua_pushinteger(L, (lua_Integer)r.clipped_norm), lua_setfield(L, -2, "clipped_norm");
  lua_pushinteger(L, (lua_Integer)r.clipped_value), lua_setfield(L, -2, "clipped_value");
  return 1;
}

static int optim_save(lua_State *L) {
  nb_check(L, neap_optim_save(optim_of(L), archive_of(L, 2), nb_string_or(L, 3, "")));
  return 0;
}

static int optim_load(lua_State *L) {
  neap_status rc = neap_optim_load(optim_of(L), archive_of(L, 2), nb_string_or(L, 3, ""));
  lua_pushboolean(L, 1);
  return nb_result(L, rc);
}

static const luaL_Reg optim_methods[] = {{"step", optim_step},     {"rate", optim_rate},
                                         {"report", optim_report}, {"save", optim_save},
                                         {"load", optim_load},     {"group", optim_group},
                                         {NULL, NULL}};

static const luaL_Reg functions[] = {{"model", model_new},
                                     {"load_model", model_load},
                                     {"load_model_string", model_load_string},
                                     {"archive", archive_new},
                                     {"load_archive", archive_load},
                                     {"optim", optim_new},
                                     {"optim_kinds", optim_kinds},
                                     {NULL, NULL}};

void nb_open_model(lua_State *L) {
  static const luaL_Reg no_meta[] = {{NULL, NULL}};
  nb_type_new(L, &model_type, model_methods, no_meta);
  nb_type_new(L, &archive_type, archive_methods, no_meta);
  nb_type_new(L, &optim_type, optim_methods, no_meta);
  lua_pop(L, 3);
  luaL_setfuncs(L, functions, 0);
}
