/*
** The C module "neap.core": one file for each bound type, a client of neap.h like any other.
**
** Boxes    A userdata holds one pointer. It is made closed, then filled, so that __gc and __close
**          always find it consistent; what an object needs it holds by C refcounts.
** Errors   Wrong use raises at the script's line; what the world did wrong (a missing file, a
**          damaged one) returns nil, message, code.
** Counting Lua counts from 1, neap.h and stored ids from 0: the change is made here.
*/
#ifndef NB_CORE_H
#define NB_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lauxlib.h>
#include <lua.h>

#include "../../runtime/neap.h"

/* ---- parts: each adds its functions to the module table on top of the stack ---- */

void nb_open_tensor(lua_State *L);
void nb_open_data(lua_State *L);
void nb_open_sound(lua_State *L);
void nb_open_program(lua_State *L);
void nb_open_run(lua_State *L);
void nb_open_model(lua_State *L);

/* ---- errors ---- */

/* Pushes "file.lua:14: " of the innermost Lua function that is not the library's own; "" if none
** is known. */
void nb_where(lua_State *L);
/* Pushes what stands at a stack index as text for "came %s": a string in quotes, else a number's
** text or the type's name. */
const char *nb_push_came(lua_State *L, int index);
/* Raises there. Formats as lua_pushfstring does: %s %d %I %f %c %%. */
int nb_raise(lua_State *L, const char *format, ...);
/* Raises about an argument, in the words of luaL_argerror and luaL_typeerror. */
int nb_raise_argument(lua_State *L, int arg, const char *problem);
int nb_raise_type(lua_State *L, int arg, const char *expected);
/* Nothing on NEAP_OK, else raises neap_errmsg(). */
void nb_check(lua_State *L, neap_status status);
/* Seconds that have passed since some moment. */
double nb_clock(void);
/* For `return nb_result(L, status)`: on NEAP_OK the value on top of the stack; nil, message and
** code for NEAP_EIO and NEAP_EFORMAT; all else raises. */
int nb_result(lua_State *L, neap_status status);

/* ---- arguments ---- */

lua_Number nb_number(lua_State *L, int arg);
lua_Integer nb_integer(lua_State *L, int arg);
/* An integer from low to high. */
lua_Integer nb_integer_in(lua_State *L, int arg, lua_Integer low, lua_Integer high);
/* The number of a value, space or parameter. */
int nb_id(lua_State *L, int arg);
const char *nb_string(lua_State *L, int arg, size_t *length);
/* The same, or the preset for nil or nothing. */
lua_Number nb_number_or(lua_State *L, int arg, lua_Number preset);
lua_Integer nb_integer_or(lua_State *L, int arg, lua_Integer preset);
const char *nb_string_or(lua_State *L, int arg, const char *preset);
/* Which of the NULL-ended names; preset (NULL: none) for nil or nothing. */
int nb_choice(lua_State *L, int arg, const char *preset, const char *const *names);
void nb_table(lua_State *L, int arg);
/* Of the strings in the table at `names` the one nearest to name, pushed; nil if none is near. */
void nb_push_nearest(lua_State *L, const char *name, int names);

/* The table of options at arg, or nothing: a name that is not in the NULL-ended list raises and
** names the nearest one. */
void nb_options(lua_State *L, int arg, const char *who, const char *const *names);
double nb_option_number(lua_State *L, int arg, const char *who, const char *name, double preset);
lua_Integer nb_option_integer(lua_State *L, int arg, const char *who, const char *name,
                              lua_Integer preset);
bool nb_option_boolean(lua_State *L, int arg, const char *who, const char *name, bool preset);
/* Lives as long as the table holds it. */
const char *nb_option_string(lua_State *L, int arg, const char *who, const char *name,
                             const char *preset);

/* ---- boxes ---- */

typedef struct nb_type {
  const char *name;  /* of the metatable: "neap.tensor" */
  const char *label; /* in messages: "tensor" */
  void (*release)(void *object);
} nb_type;

/* Makes the metatable: methods (and close), __gc, __close; meta may replace __index. Leaves it on
** the stack; its field "methods" is where Lua modules add theirs. */
void nb_type_new(lua_State *L, const nb_type *type, const luaL_Reg *methods, const luaL_Reg *meta);
/* Pushes a closed box. */
void **nb_box(lua_State *L, const nb_type *type);
/* The object in the box at arg; raises for another type and for a closed one. To be asked for again
** after anything that may run the collector: a finalizer of the script's may have closed it. */
void *nb_object(lua_State *L, int arg, const nb_type *type);
/* The same; NULL for nil or nothing. */
void *nb_object_or_null(lua_State *L, int arg, const nb_type *type);
/* Tells Lua's collector of memory that hangs on the object just made. It may run. */
void nb_outside(lua_State *L, size_t bytes);
/* The same of what the library has taken since neap_memory_live() gave `before`. */
void nb_outside_since(lua_State *L, size_t before);

/* ---- tensors (tensor.c) ---- */

extern const nb_type nb_tensor_type;
neap_tensor *nb_tensor(lua_State *L, int arg);
/* Raises unless the dtype is that. */
neap_tensor *nb_tensor_of(lua_State *L, int arg, neap_dtype dtype);
/* Pushes a new one of zeros. The collector may run: fetch pointers to other objects afterwards. */
neap_tensor *nb_tensor_new(lua_State *L, neap_dtype dtype, int rank, const size_t *dims);
/* Pushes one that exists and takes over the caller's reference, also when it raises. */
void nb_tensor_push(lua_State *L, neap_tensor *t);
/* A table of at most NEAP_MAX_RANK dimensions; gives the rank. */
int nb_dims(lua_State *L, int arg, int low, size_t dims[NEAP_MAX_RANK]);
/* "f32" or "i32"; f32 for nothing. */
neap_dtype nb_dtype(lua_State *L, int arg);
/* Pushes "f32 [2,3]". */
const char *nb_push_shape(lua_State *L, const neap_tensor *t);

/* ---- parameters, programs, states (program.c) ---- */

extern const nb_type nb_params_type, nb_program_type, nb_state_type, nb_pool_type;
neap_program *nb_program(lua_State *L, int arg);
neap_state *nb_state_or_null(lua_State *L, int arg);
/* A table of row numbers from 1 as int32 from 0, kept alive on the stack. */
int32_t *nb_row_list(lua_State *L, int arg, const char *who, size_t most, size_t *n);

#endif
