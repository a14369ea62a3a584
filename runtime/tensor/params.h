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
  size_t rows, width;         /* dims[0] rows of so many numbers; none if it has no numbers */
  size_t bit;                 /* of its first row: a multiple of 64 */
  size_t part;               /* the first of its parts */
  bool frozen;
  bool lent; /* a host has the address of its gradient and may write anywhere */
} ni_param;

struct neap_params {
  atomic_int refs;
  ni_param *entries;
  size_t count, entries_cap;
  float *data;      /* extent floats, aligned to 64 bytes; those between parameters stay 0 */
  float *grad;      /* as data; NULL until asked for */
  uint64_t *used;   /* with grad: a bit for each row of it that may be other than 0 */
  size_t extent;    /* floats in use, a multiple of 16 */
  size_t words;     /* of the bits of all rows */
  size_t cap;       /* floats in data and in grad; those past extent are 0 */
  size_t size;      /* numbers in all parameters together */
  size_t parts;    /* of all parameters */
  uint64_t version; /* raised whenever values are written or moved */
  neap_pool *pool;  /* who goes through all numbers: zeroing, mixing, optimizers; NULL: the caller */
};

/* So many numbers of one parameter, fewer at its end: what a thread does at a time. The same however
** many threads there are, so that sums over parts are too. */
enum { NI_PART = 8192 };
typedef struct ni_part {
  const ni_param *e;
  size_t from, to;
} ni_part;

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
/* The same for who adds to these n rows along its first dimension alone, or (row NULL) to all. */
float *ni_params_grad_rows(neap_params *p, int id, const int32_t *row, size_t n);
/* Makes the gradient's memory: false if it is short. */
bool ni_params_grad_make(neap_params *p);
/* The gradient as it stands; NULL: there is none, all of it is 0. */
const float *ni_params_grad_seen(const neap_params *p, int id);
neap_status ni_params_read_grad(const neap_params *p, int id, float *data, size_t count);
/* The next numbers from .. to-1 of a parameter, after `to` (at first 0), whose rows have their bits
** set: false if there are no more. */
bool ni_params_span(const ni_param *e, const uint64_t *bits, size_t *from, size_t *to);
/* The same within a part; `to` is at first x->from. bits NULL: all of them are set. */
bool ni_part_span(const ni_part *x, const uint64_t *bits, size_t *from, size_t *to);
ni_part ni_params_part(const neap_params *p, size_t i);
neap_status ni_params_pool(neap_params *p, const neap_pool *pool);
void ni_params_zero_grad(neap_params *p);
void ni_params_touch(neap_params *p);
void ni_params_freeze(neap_params *p, int id, bool frozen);
bool ni_params_frozen(const neap_params *p, int id);
neap_status ni_params_init(neap_params *p, int id, neap_init kind, double a, double b,
                           uint64_t seed);
neap_status ni_params_copy(neap_params *to, const neap_params *from);
neap_status ni_params_mix(neap_params *to, const neap_params *from, double share);

#endif
