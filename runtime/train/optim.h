/*
** Floor 6: clipping and the update of a group of parameters.
*/
#ifndef NI_OPTIM_H
#define NI_OPTIM_H

#include "../file/safetensors.h"
#include "../tensor/params.h"

typedef struct ni_group {
  double rate;         /* times the optimizer's */
  double weight_decay; /* < 0: the optimizer's */
} ni_group;

struct neap_optim {
  neap_params *params;
  int *ids; /* NULL: all */
  int n_ids;
  neap_optim_options o;
  neap_optim_report report;
  float *m, *v;    /* laid out as the parameters' vector; NULL: none are needed */
  uint64_t *begun; /* a bit for each row of them that may be other than 0 */
  size_t extent, words;
  double *sums; /* of squares, by part of the parameters */
  size_t parts;
  bool *mine; /* by parameter: does this step update it? */
  size_t count;
  ni_group *group; /* by parameter; none past n_groups */
  size_t n_groups;
};

const char *ni_optim_name(neap_optim_kind kind, const char **takes);
neap_status ni_optim_group(neap_optim *o, const int *ids, int n, double rate, double weight_decay);

neap_optim_options ni_optim_preset(neap_optim_kind kind);
neap_status ni_optim_new(neap_optim **o, neap_params *p, const int *ids, int n,
                         const neap_optim_options *options);
void ni_optim_release(neap_optim *o);
neap_status ni_optim_step(neap_optim *o);
neap_status ni_optim_save(const neap_optim *o, neap_archive *a, const char *prefix);
neap_status ni_optim_load(neap_optim *o, neap_archive *a, const char *prefix);

#endif
