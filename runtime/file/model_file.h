/*
** Floor 6: models in safetensors files. The parameters are its tensors; the metadata holds
**   neap              "1", the version of this layout
**   neap.order        the parameters' names in their order, one a line
**   neap.program.NAME the program's JSON
**   neap.text.KEY     a text of the caller's own
*/
#ifndef NI_MODEL_FILE_H
#define NI_MODEL_FILE_H

#include "../model/model.h"
#include "safetensors.h"

/* Names are looked up one by one: a bound that keeps a hostile file from taking long. */
#define NI_MODEL_TENSORS 10000

neap_status ni_model_save(const neap_model *m, const char *path);
neap_status ni_model_load(neap_model **m, const char *path);
neap_status ni_model_load_memory(neap_model **m, const void *data, size_t size);

#endif
