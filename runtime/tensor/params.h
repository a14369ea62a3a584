/*
** Floor 2: named parameters in one vector. Functions follow neap_params_* in neap.h.
*/
#ifndef NI_PARAMS_H
#define NI_PARAMS_H

#include "../base/base.h"

#define NI_PARAM_NAME 255 /* bytes of the longest name */

typedef struct ni_param {
  char *name;
  uint64_t hash; /* ni_hash(name) */
  int rank;
  size_t dims[NEAP_MAX_RANK]; /* 1 past the rank */
  size_t size;                /* numbers */
  size_t start;               /* of its numbers in data and grad: a multiple of 16 */
  bool frozen;
} ni_param;

struct neap_params {
  atomic_int refs;
  ni_param *entries;
  size_t count, entries_cap;
  float *data;      /* extent floats, aligned to 64 bytes; those between parameters stay 0 */
  float *grad;      /* as data; NULL until asked for */
  size_t extent;    /* floats in use, a multiple of 16 */
  size_t cap;       /* floats in data and in grad; those past extent are 0 */
  size_t size;      /* numbers in all parameters together */
  uint64_t version; /* raised whenever values are written or moved */
};

neap_status ni_params_new(neap_params **p);
void ni_params_retain(neap_params *p);
void ni_params_release(neap_params *p);
neap_status ni_params_add(int *id, neap_params *p, const char *name, int rank, const size_t *dims);
int ni_params_find(const neap_params *p, const char *name);
int ni_params_count(const neap_params *p);
size_t ni_params_size(const neap_params *p);
/* For an id that does not exist: NULL, -1, 0 or false. */
const char *ni_params_name(const neap_params *p, int id);
int ni_params_rank(const neap_params *p, int id);
size_t ni_params_dim(const neap_params *p, int id, int axis);
float *ni_params_data(neap_params *p, int id);
float *ni_params_grad(neap_params *p, int id);
void ni_params_zero_grad(neap_params *p);
void ni_params_touch(neap_params *p);
void ni_params_freeze(neap_params *p, int id, bool frozen);
bool ni_params_frozen(const neap_params *p, int id);
neap_status ni_params_init(neap_params *p, int id, neap_init kind, double a, double b,
                           uint64_t seed);
neap_status ni_params_copy(neap_params *to, const neap_params *from);

#endif
