/*
** A strict reader of JSON (RFC 8259): UTF-8 only, no duplicate keys, no U+0000, bounded nesting.
** A value is an int, the root 0; a member of an object is its key's string, and the value of key k
** is k + 1.
*/
#ifndef NI_JSON_H
#define NI_JSON_H

#include "base.h"

#define NI_JSON_DEPTH 32

typedef enum ni_json_kind {
  NI_JSON_OBJECT,
  NI_JSON_ARRAY,
  NI_JSON_STRING,
  NI_JSON_NUMBER,
  NI_JSON_TRUE,
  NI_JSON_FALSE,
  NI_JSON_NULL
} ni_json_kind;

typedef struct ni_json {
  char *text; /* a copy, its strings unescaped in place */
  void *tokens;
  int count;
} ni_json;

/* Parses an object or array of at most max_tokens values and keys. EFORMAT names the byte. */
neap_status ni_json_parse(ni_json *doc, const char *text, size_t n, size_t max_tokens);
void ni_json_free(ni_json *doc);

ni_json_kind ni_json_kind_of(const ni_json *doc, int v);
/* Where v stands in the text, in bytes. */
size_t ni_json_byte(const ni_json *doc, int v);
/* Members or elements of v; 0 if it is neither object nor array. */
int ni_json_size(const ni_json *doc, int v);
/* The first key or element of v, and the one after v; -1 if there is none. */
int ni_json_first(const ni_json *doc, int v);
int ni_json_next(const ni_json *doc, int v);
/* The value of a key of object v; -1 if there is none or v is no object. */
int ni_json_find(const ni_json *doc, int v, const char *key);

/* A string's text, good until ni_json_free; NULL if v is no string. */
const char *ni_json_string(const ni_json *doc, int v);
/* Without fraction, exponent or "-0", within the bounds. EFORMAT. */
neap_status ni_json_integer(int64_t *x, const ni_json *doc, int v, int64_t min, int64_t max);
/* Any finite number. EFORMAT. */
neap_status ni_json_double(double *x, const ni_json *doc, int v);

#endif
