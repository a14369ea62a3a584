/*
** Floor 6: named tensors and texts in a safetensors file. Functions follow neap_archive_* in
** neap.h.
**
** The file: N as 8 little-endian bytes, N bytes of JSON, then the tensors' bytes, row-major and
** little-endian:
**   {"__metadata__": {text: text}, name: {"dtype": "F32", "shape": [...], "data_offsets": [a, b]}}
** Offsets count from behind the JSON. Loading is strict: the tensors cover the rest of the file
** without hole or overlap, and every size agrees with its shape.
*/
#ifndef NI_SAFETENSORS_H
#define NI_SAFETENSORS_H

#include "../tensor/tensor.h"

#define NI_ARCHIVE_NAME 511 /* bytes of the longest name or key */

typedef struct ni_archive_entry {
  char *name;
  neap_tensor *tensor;
} ni_archive_entry;

typedef struct ni_archive_text_entry {
  char *key, *text;
} ni_archive_text_entry;

struct neap_archive {
  ni_archive_entry *entries; /* in the order added, or that of the file's JSON */
  size_t count, entries_cap;
  ni_archive_text_entry *texts;
  size_t n_texts, texts_cap;
};

neap_status ni_archive_new(neap_archive **a);
void ni_archive_release(neap_archive *a);
/* Retains the tensor. EARG for a name taken, too long or not valid. */
neap_status ni_archive_add(neap_archive *a, const char *name, neap_tensor *t);
/* Adds or replaces a text in UTF-8; text NULL removes it. */
neap_status ni_archive_set_text(neap_archive *a, const char *key, const char *text);
int ni_archive_count(const neap_archive *a);
const char *ni_archive_name(const neap_archive *a, int index);
neap_tensor *ni_archive_tensor(const neap_archive *a, const char *name);
int ni_archive_texts(const neap_archive *a);
const char *ni_archive_text_key(const neap_archive *a, int index);
const char *ni_archive_text_at(const neap_archive *a, int index);
const char *ni_archive_text(const neap_archive *a, const char *key);

/* Writes in an order that depends on names and dtypes alone: texts by key; F32 before I32, then by
** name. An ordinary file is replaced only by a whole one; a device or pipe is written to. */
neap_status ni_archive_save(const neap_archive *a, const char *path);
/* Floats of any width become f32, integers and booleans i32 (EFORMAT if one does not fit). */
neap_status ni_archive_load(neap_archive **a, const char *path);
neap_status ni_archive_load_memory(neap_archive **a, const void *data, size_t size);

#endif
