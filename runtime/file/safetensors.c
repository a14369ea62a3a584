/*
** The safetensors container (format: the README of huggingface/safetensors).
*/
#include "safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/json.h"

#define METADATA "__metadata__"
#define LONGEST_HEADER 100000000 /* the format's own bound */
#define MOST_TOKENS 1000000      /* in the JSON: about 70,000 tensors */

/* ---- the set ---- */

neap_status ni_archive_new(neap_archive **a) {
  *a = ni_calloc(1, sizeof **a);
  return *a ? NEAP_OK : NEAP_EMEM;
}

void ni_archive_release(neap_archive *a) {
  if (!a)
    return;
  for (size_t i = 0; i < a->count; i++) {
    ni_free(a->entries[i].name);
    ni_tensor_release(a->entries[i].tensor);
  }
  for (size_t i = 0; i < a->n_texts; i++) {
    ni_free(a->texts[i].key);
    ni_free(a->texts[i].text);
  }
  ni_free(a->entries);
  ni_free(a->texts);
  ni_free(a);
}

/* Adds without looking whether the name is taken. */
static neap_status append(neap_archive *a, const char *name, neap_tensor *t) {
  char *copy = ni_strdup(name);
  if (!copy || !ni_grow((void **)&a->entries, &a->entries_cap, a->count, sizeof *a->entries)) {
    ni_free(copy);
    return NEAP_EMEM;
  }
  ni_tensor_retain(t);
  a->entries[a->count++] = (ni_archive_entry){copy, t};
  return NEAP_OK;
}

neap_status ni_archive_add(neap_archive *a, const char *name, neap_tensor *t) {
  neap_status status = ni_name_check("archive", name, NI_ARCHIVE_NAME);
  if (status)
    return status;
  if (strcmp(name, METADATA) == 0 || ni_archive_tensor(a, name))
    return ni_fail(NEAP_EARG, "archive: expected a new name, came \"%s\", which is taken", name);
  return append(a, name, t);
}

static size_t find_text(const neap_archive *a, const char *key) {
  size_t i = 0;
  while (i < a->n_texts && strcmp(a->texts[i].key, key) != 0)
    i++;
  return i;
}

static neap_status append_text(neap_archive *a, const char *key, const char *text) {
  ni_archive_text_entry e = {ni_strdup(key), ni_strdup(text)};
  if (!e.key || !e.text ||
      !ni_grow((void **)&a->texts, &a->texts_cap, a->n_texts, sizeof *a->texts)) {
    ni_free(e.key);
    ni_free(e.text);
    return NEAP_EMEM;
  }
  a->texts[a->n_texts++] = e;
  return NEAP_OK;
}

neap_status ni_archive_set_text(neap_archive *a, const char *key, const char *text) {
  neap_status status = ni_name_check("archive", key, NI_ARCHIVE_NAME);
  if (status)
    return status;
  size_t n = text ? strlen(text) : 0, good = ni_utf8(text, n), i = find_text(a, key);
  if (good < n)
    return ni_fail(NEAP_EARG, "archive: \"%s\": expected UTF-8, came a bad byte 0x%02x at byte %zu",
                   key, (unsigned char)text[good], good);
  if (i == a->n_texts)
    return text ? append_text(a, key, text) : NEAP_OK;
  char *copy = text ? ni_strdup(text) : NULL;
  if (text && !copy)
    return NEAP_EMEM;
  ni_free(a->texts[i].text);
  a->texts[i].text = copy;
  if (!text) {
    ni_free(a->texts[i].key);
    a->n_texts--;
    memmove(a->texts + i, a->texts + i + 1, (a->n_texts - i) * sizeof *a->texts);
  }
  return NEAP_OK;
}

int ni_archive_count(const neap_archive *a) { return (int)a->count; }

const char *ni_archive_name(const neap_archive *a, int index) {
  return index >= 0 && (size_t)index < a->count ? a->entries[index].name : NULL;
}

neap_tensor *ni_archive_tensor(const neap_archive *a, const char *name) {
  for (size_t i = 0; i < a->count; i++)
    if (strcmp(a->entries[i].name, name) == 0)
      return a->entries[i].tensor;
  return NULL;
}

int ni_archive_texts(const neap_archive *a) { return (int)a->n_texts; }

const char *ni_archive_text_key(const neap_archive *a, int index) {
  return index >= 0 && (size_t)index < a->n_texts ? a->texts[index].key : NULL;
}

const char *ni_archive_text_at(const neap_archive *a, int index) {
  return index >= 0 && (size_t)index < a->n_texts ? a->texts[index].text : NULL;
}

const char *ni_archive_text(const neap_archive *a, const char *key) {
  size_t i = find_text(a, key);
  return i < a->n_texts ? a->texts[i].text : NULL;
}

/* ---- numbers in bytes ---- */

static uint64_t little(const unsigned char *p, size_t width) {
  uint64_t x = 0;
  for (size_t i = 0; i < width; i++)
    x |= (uint64_t)p[i] << 8 * i;
  return x;
}

static float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/* IEEE 754 binary16: 5 bits of exponent, 10 of fraction. */
static float half(uint32_t h) {
  uint32_t sign = (h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3FF;
  if (exponent == 31)
    return float_of(sign | 0x7F800000 | fraction << 13);
  if (exponent > 0)
    return float_of(sign | (exponent + 112) << 23 | fraction << 13);
  float small = (float)fraction * 0x1p-24f;
  return sign ? -small : small;
}

typedef enum code { BOOL, U8, I8, I16, U16, F16, BF16, I32, U32, F32, F64, I64, U64 } code;

static const struct {
  const char *name;
  size_t width;
  neap_dtype dtype; /* in memory */
} codes[] = {
    [BOOL] = {"BOOL", 1, NEAP_I32}, [U8] = {"U8", 1, NEAP_I32},   [I8] = {"I8", 1, NEAP_I32},
    [I16] = {"I16", 2, NEAP_I32},   [U16] = {"U16", 2, NEAP_I32}, [F16] = {"F16", 2, NEAP_F32},
    [BF16] = {"BF16", 2, NEAP_F32}, [I32] = {"I32", 4, NEAP_I32}, [U32] = {"U32", 4, NEAP_I32},
    [F32] = {"F32", 4, NEAP_F32},   [F64] = {"F64", 8, NEAP_F32}, [I64] = {"I64", 8, NEAP_I32},
    [U64] = {"U64", 8, NEAP_I32},
};
#define CODES (sizeof codes / sizeof *codes)

/* One number of a float type; false if it is finite there and infinite in f32. */
static bool decode_float(code c, const unsigned char *p, float *x) {
  uint64_t bits = little(p, codes[c].width);
  double wide;
  switch (c) {
  case F16:
    *x = half((uint32_t)bits);
    return true;
  case BF16:
    *x = float_of((uint32_t)bits << 16);
    return true;
  default:
    memcpy(&wide, &bits, sizeof wide);
    /* Halfway between the largest float and the next power of two; from there on it rounds up. */
    if (isfinite(wide) && fabs(wide) >= 0x1.ffffffp127)
      return false;
    *x = (float)wide;
    return true;
  }
}

/* One number of an integer type; false if it is no i32 (for BOOL: neither 0 nor 1). */
static bool decode_integer(code c, const unsigned char *p, int32_t *x) {
  size_t width = codes[c].width;
  uint64_t bits = little(p, width);
  bool is_signed = c == I8 || c == I16 || c == I64;
  if (is_signed && bits >> (8 * width - 1))
    bits |= width < 8 ? UINT64_MAX << 8 * width : 0;
  *x = (int32_t)(uint32_t)bits;
  if (c == BOOL)
    return bits <= 1;
  return is_signed ? (uint64_t)(int64_t)*x == bits : bits <= INT32_MAX;
}

/* ---- loading ---- */

/* One tensor as the JSON tells of it. */
typedef struct item {
  const char *name;
  size_t json; /* byte in the file */
  code code;
  int rank;
  size_t dims[NEAP_MAX_RANK];
  size_t begin, end;
} item;

typedef struct loader {
  const char *who; /* the file */
  const unsigned char *data;
  size_t size;
  size_t start; /* of the tensors' bytes */
  ni_json doc;
  item *items;
  size_t count;
  neap_archive *archive;
} loader;

/* The byte of a JSON value, counted in the file. */
static size_t byte_of(const loader *l, int v) { return 8 + ni_json_byte(&l->doc, v); }

/* Names come back as EARG, with the same rules; in a file they are damage. */
static neap_status check_name(const loader *l, int key) {
  neap_status status = ni_name_check("name", ni_json_string(&l->doc, key), NI_ARCHIVE_NAME);
  return status ? ni_fail_before(NEAP_EFORMAT, "%s: byte %zu", l->who, byte_of(l, key)) : NEAP_OK;
}

static neap_status read_metadata(loader *l, int v) {
  const ni_json *doc = &l->doc;
  if (ni_json_kind_of(doc, v) != NI_JSON_OBJECT)
    return ni_fail(NEAP_EFORMAT, "%s: byte %zu: expected an object of texts in \"" METADATA "\"",
                   l->who, byte_of(l, v));
  for (int key = ni_json_first(doc, v); key >= 0; key = ni_json_next(doc, key)) {
    const char *text = ni_json_string(doc, key + 1);
    neap_status status = check_name(l, key);
    if (status)
      return status;
    if (!text)
      return ni_fail(NEAP_EFORMAT, "%s: byte %zu: expected a text for \"%.100s\"", l->who,
                     byte_of(l, key + 1), ni_json_string(doc, key));
    status = append_text(l->archive, ni_json_string(doc, key), text);
    if (status)
      return status;
  }
  return NEAP_OK;
}

/* An array of at least min and at most max integers, each at least 0. */
static neap_status read_sizes(const loader *l, int v, int min, int max, size_t *sizes, int *n) {
  int count = v < 0 || ni_json_kind_of(&l->doc, v) != NI_JSON_ARRAY ? -1 : ni_json_size(&l->doc, v);
  if (count < min || count > max)
    return ni_fail(NEAP_EFORMAT, "expected an array of %d to %d sizes, came %s", min, max,
                   count < 0 ? "none" : count < min ? "fewer" : "more");
  *n = 0;
  for (int e = ni_json_first(&l->doc, v); e >= 0; e = ni_json_next(&l->doc, e)) {
    int64_t size;
    neap_status status = ni_json_integer(&size, &l->doc, e, 0, PTRDIFF_MAX);
    if (status)
      return status;
    sizes[(*n)++] = (size_t)size;
  }
  return NEAP_OK;
}

/* Messages are completed by read_header. */
static neap_status read_item(const loader *l, int v, item *it) {
  const ni_json *doc = &l->doc;
  int dtype = ni_json_find(doc, v, "dtype"), n;
  const char *name = dtype < 0 ? NULL : ni_json_string(doc, dtype);
  if (ni_json_size(doc, v) != 3 || !name)
    return ni_fail(NEAP_EFORMAT, "expected an object of dtype, shape and data_offsets");
  size_t c = 0, offsets[2];
  while (c < CODES && strcmp(codes[c].name, name) != 0)
    c++;
  if (c == CODES)
    return ni_fail(NEAP_EFORMAT, "dtype: expected a type that neap reads, came \"%.40s\"", name);
  it->code = (code)c;
  neap_status status = read_sizes(l, ni_json_find(doc, v, "shape"), 0, NEAP_MAX_RANK, it->dims,
                                  &it->rank);
  if (status)
    return ni_fail_before(status, "shape");
  status = read_sizes(l, ni_json_find(doc, v, "data_offsets"), 2, 2, offsets, &n);
  if (status)
    return ni_fail_before(status, "data_offsets");
  it->begin = offsets[0];
  it->end = offsets[1];
  size_t size, bytes, room = l->size - l->start;
  status = ni_shape_size(&size, "shape", it->rank, it->dims);
  if (status)
    return NEAP_EFORMAT;
  if (it->begin > it->end || it->end > room)
    return ni_fail(NEAP_EFORMAT, "data_offsets: expected a range within %zu bytes, came %zu to %zu",
                   room, it->begin, it->end);
  if (!ni_mul(size, codes[c].width, &bytes) || bytes != it->end - it->begin)
    return ni_fail(NEAP_EFORMAT, "data_offsets: expected %zu numbers of %zu bytes, came %zu bytes",
                   size, codes[c].width, it->end - it->begin);
  return NEAP_OK;
}

static int compare_places(const void *arg, size_t a, size_t b) {
  const item *x = (const item *)arg + a, *y = (const item *)arg + b;
  if (x->begin != y->begin)
    return x->begin < y->begin ? -1 : 1;
  return x->end < y->end ? -1 : x->end > y->end;
}

/* No hole, no overlap, nothing left over. */
static neap_status check_cover(const loader *l) {
  size_t at = 0, room = l->size - l->start;
  size_t *order = ni_calloc(l->count, sizeof *order);
  if (!order)
    return NEAP_EMEM;
  for (size_t i = 0; i < l->count; i++)
    order[i] = i;
  ni_sort(order, l->count, compare_places, l->items);
  neap_status status = NEAP_OK;
  for (size_t i = 0; !status && i < l->count; i++) {
    const item *it = &l->items[order[i]];
    if (it->begin != at)
      status = ni_fail(NEAP_EFORMAT,
                       "%s: byte %zu: \"%.100s\": expected to begin at offset %zu, came %zu: %s",
                       l->who, it->json, it->name, at, it->begin,
                       it->begin < at ? "tensors overlap" : "a hole");
    at = it->end;
  }
  if (!status && at != room)
    status = ni_fail(NEAP_EFORMAT, "%s: byte %zu: expected the end, came %zu bytes of no tensor",
                     l->who, l->start + at, room - at);
  ni_free(order);
  return status;
}

static neap_status read_header(loader *l) {
  if (l->size < 8)
    return ni_fail(NEAP_EFORMAT, "%s: expected at least 8 bytes, came %zu", l->who, l->size);
  uint64_t n = little(l->data, 8);
  size_t most = l->size - 8 < LONGEST_HEADER ? l->size - 8 : LONGEST_HEADER;
  const char *json = (const char *)l->data + 8;
  if (n > most && (l->size == 8 || json[0] != '{')) /* what came as a number is none */
    return ni_fail(NEAP_EFORMAT, "%s: no safetensors file: expected the length of a header, then "
                   "'{', came other bytes", l->who);
  if (n > most)
    return ni_fail(NEAP_EFORMAT,
                   "%s: not all of a safetensors file, or none: byte 0: expected a header of at "
                   "most %zu bytes, came %" PRIu64, l->who, most, n);
  l->start = 8 + (size_t)n;
  if (n == 0 || json[0] != '{')
    return ni_fail(NEAP_EFORMAT, "%s: byte 8: expected a header that begins with '{', came %s",
                   l->who, n == 0 ? "none" : "another");
  neap_status status = ni_json_parse(&l->doc, json, (size_t)n, MOST_TOKENS);
  if (status)
    return ni_fail_before(status, "%s: header, from byte 8 on", l->who);
  l->items = ni_calloc((size_t)ni_json_size(&l->doc, 0), sizeof *l->items);
  if (!l->items)
    return NEAP_EMEM;
  for (int key = ni_json_first(&l->doc, 0); key >= 0; key = ni_json_next(&l->doc, key)) {
    const char *name = ni_json_string(&l->doc, key);
    if (strcmp(name, METADATA) == 0) {
      status = read_metadata(l, key + 1);
      if (status)
        return status;
      continue;
    }
    item *it = &l->items[l->count++];
    it->name = name;
    it->json = byte_of(l, key);
    status = check_name(l, key);
    if (status)
      return status;
    status = read_item(l, key + 1, it);
    if (status)
      return ni_fail_before(status, "%s: byte %zu: \"%.100s\"", l->who, it->json, name);
  }
  return check_cover(l);
}

static neap_status read_tensor(loader *l, const item *it) {
  neap_tensor *t;
  const size_t width = codes[it->code].width;
  const unsigned char *p = l->data + l->start + it->begin;
  neap_status status = ni_tensor_new(&t, codes[it->code].dtype, it->rank, it->dims);
  if (status)
    return status;
  bool good = true;
  size_t i = 0;
  if (it->code == F32 || it->code == I32) {
    uint32_t *to = t->data;
    for (; i < t->size; i++)
      to[i] = (uint32_t)little(p + 4 * i, 4);
  } else if (t->dtype == NEAP_F32) {
    float *to = t->data;
    for (; i < t->size && good; i++)
      good = decode_float(it->code, p + width * i, to + i);
  } else {
    int32_t *to = t->data;
    for (; i < t->size && good; i++)
      good = decode_integer(it->code, p + width * i, to + i);
  }
  if (!good)
    status = ni_fail(NEAP_EFORMAT,
                     "%s: byte %zu: \"%.100s\": expected %s that fit %s, came another: element %zu",
                     l->who, l->start + it->begin + width * (i - 1), it->name, codes[it->code].name,
                     t->dtype == NEAP_F32 ? "f32" : it->code == BOOL ? "0 or 1" : "i32", i - 1);
  else
    status = append(l->archive, it->name, t);
  ni_tensor_release(t);
  return status;
}

static neap_status load(neap_archive **a, const char *who, const void *data, size_t size) {
  loader l = {.who = who, .data = data, .size = size};
  *a = NULL;
  neap_status status = ni_archive_new(&l.archive);
  if (!status)
    status = read_header(&l);
  for (size_t i = 0; !status && i < l.count; i++)
    status = read_tensor(&l, &l.items[i]);
  ni_free(l.items);
  ni_json_free(&l.doc);
  if (status)
    ni_archive_release(l.archive);
  else
    *a = l.archive;
  return status;
}

neap_status ni_archive_load_memory(neap_archive **a, const void *data, size_t size) {
  return load(a, "memory", data, size);
}

/* The end of a long path, so that a message has room for its reason. */
static const char *tail(const char *path) {
  size_t n = strlen(path);
  return n > 400 ? path + n - 400 : path;
}

static neap_status fail_io(const char *path, const char *expected) {
  return ni_fail(NEAP_EIO, "%s: expected %s: %s", tail(path), expected, strerror(errno));
}

neap_status ni_archive_load(neap_archive **a, const char *path) {
  struct stat about;
  void *data = NULL;
  neap_status status;
  *a = NULL;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a fifo does not keep us waiting */
  FILE *f = fd < 0 ? NULL : fdopen(fd, "rb");
  if (!f) {
    status = fail_io(path, "a file to read");
    if (fd >= 0)
      close(fd);
    return status;
  }
  if (fstat(fileno(f), &about) != 0) {
    status = fail_io(path, "a size");
  } else if (!S_ISREG(about.st_mode)) {
    status = ni_fail(NEAP_EIO, "%s: expected a file, came a directory, fifo or device", tail(path));
  } else if ((uintmax_t)about.st_size > PTRDIFF_MAX) {
    status = ni_fail(NEAP_EIO, "%s: expected a file that fits memory, came %jd bytes", tail(path),
                     (intmax_t)about.st_size);
  } else {
    size_t size = (size_t)about.st_size;
    data = ni_alloc(size);
    if (!data)
      status = NEAP_EMEM;
    else if (fread(data, 1, size, f) == size)
      status = load(a, tail(path), data, size);
    else if (ferror(f))
      status = fail_io(path, "to read on");
    else
      status = ni_fail(NEAP_EIO, "%s: expected %zu bytes, came fewer", tail(path), size);
  }
  ni_free(data);
  fclose(f);
  return status;
}

/* ---- saving ---- */

static int compare_entries(const void *arg, size_t a, size_t b) {
  const ni_archive_entry *x = (const ni_archive_entry *)arg + a;
  const ni_archive_entry *y = (const ni_archive_entry *)arg + b;
  if (x->tensor->dtype != y->tensor->dtype)
    return x->tensor->dtype == NEAP_F32 ? -1 : 1;
  return strcmp(x->name, y->name);
}

static int compare_texts(const void *arg, size_t a, size_t b) {
  const ni_archive_text_entry *texts = arg;
  return strcmp(texts[a].key, texts[b].key);
}

/* The indices 0 to n-1 in order. */
static size_t *sorted(size_t n, int (*compare)(const void *, size_t, size_t), const void *arg) {
  size_t *order = ni_calloc(n, sizeof *order);
  if (!order)
    return NULL;
  for (size_t i = 0; i < n; i++)
    order[i] = i;
  ni_sort(order, n, compare, arg);
  return order;
}

static void print_texts(ni_text *t, const neap_archive *a, const size_t *order) {
  ni_text_add(t, "\"" METADATA "\":{");
  for (size_t i = 0; i < a->n_texts; i++) {
    ni_text_add(t, i > 0 ? "," : "");
    ni_text_json(t, a->texts[order[i]].key);
    ni_text_add(t, ":");
    ni_text_json(t, a->texts[order[i]].text);
  }
  ni_text_add(t, "}");
}

/* The JSON, without its padding. */
static void print_header(ni_text *t, const neap_archive *a, const size_t *entries,
                         const size_t *texts) {
  size_t at = 0;
  ni_text_add(t, "{");
  if (a->n_texts > 0)
    print_texts(t, a, texts);
  for (size_t i = 0; i < a->count; i++) {
    const ni_archive_entry *e = &a->entries[entries[i]];
    const neap_tensor *x = e->tensor;
    ni_text_add(t, t->n > 1 ? "," : "");
    ni_text_json(t, e->name);
    ni_text_add(t, ":{\"dtype\":\"%s\",\"shape\":[", x->dtype == NEAP_F32 ? "F32" : "I32");
    for (int k = 0; k < x->rank; k++)
      ni_text_add(t, k > 0 ? ",%zu" : "%zu", x->dims[k]);
    ni_text_add(t, "],\"data_offsets\":[%zu,%zu]}", at, at + 4 * x->size);
    at += 4 * x->size;
  }
  ni_text_add(t, "}");
}

static bool write_tensor(FILE *f, const neap_tensor *t) {
  const unsigned char *from = t->data;
  unsigned char bytes[4096];
  for (size_t i = 0; i < t->size;) {
    size_t n = 0;
    for (; n < sizeof bytes && i < t->size; n += 4, i++) {
      uint32_t x;
      memcpy(&x, from + 4 * i, sizeof x);
      for (int k = 0; k < 4; k++)
        bytes[n + k] = (unsigned char)(x >> 8 * k);
    }
    if (fwrite(bytes, 1, n, f) != n)
      return false;
  }
  return true;
}

static bool write_all(FILE *f, const neap_archive *a, const ni_text *header, const size_t *order) {
  unsigned char length[8];
  for (int i = 0; i < 8; i++)
    length[i] = (unsigned char)((uint64_t)header->n >> 8 * i);
  if (fwrite(length, 1, 8, f) != 8 || fwrite(header->s, 1, header->n, f) != header->n)
    return false;
  for (size_t i = 0; i < a->count; i++)
    if (!write_tensor(f, a->entries[order[i]].tensor))
      return false;
  return true;
}

/* Where path leads in the end if it is a link (there may be nothing yet), else path itself. NULL with
** errno for links in circles and for a path that is too long. */
static const char *follow(const char *path, char to[PATH_MAX]) {
  const char *at = path;
  char link[PATH_MAX];
  for (int hops = 0; hops < 40; hops++) {
    ssize_t n = readlink(at, link, sizeof link - 1);
    if (n < 0)
      return at;
    link[n] = '\0';
    const char *slash = link[0] == '/' ? NULL : strrchr(at, '/');
    size_t folder = slash ? (size_t)(slash - at) + 1 : 0;
    if (folder + (size_t)n >= PATH_MAX) {
      errno = ENAMETOOLONG;
      return NULL;
    }
    memmove(to, at, folder);
    memcpy(to + folder, link, (size_t)n + 1);
    at = to;
  }
  errno = ELOOP;
  return NULL;
}

/* Writes a file beside the one that path leads to and renames it; what is no ordinary file must not
** be replaced. */
static neap_status write_file(const char *path, const neap_archive *a, const ni_text *header,
                              const size_t *order) {
  struct stat about;
  char led[PATH_MAX];
  bool direct = stat(path, &about) == 0 && !S_ISREG(about.st_mode);
  const char *to = direct ? path : follow(path, led);
  if (!to)
    return fail_io(path, "a file to write");
  ni_text beside = {0};
  ni_text_add(&beside, "%s.tmp-%ld", to, (long)getpid());
  if (beside.failed) {
    ni_text_free(&beside);
    return NEAP_EMEM;
  }
  neap_status status = NEAP_OK;
  FILE *f = fopen(direct ? path : beside.s, "wb");
  if (!f) {
    status = fail_io(path, "a file to write");
  } else {
    bool good = write_all(f, a, header, order) && fflush(f) == 0 &&
                (direct || fsync(fileno(f)) == 0);
    int error = errno;
    if (fclose(f) != 0 && good) {
      good = false;
      error = errno;
    }
    errno = error;
    if (!good)
      status = fail_io(path, "to write on");
    else if (!direct && rename(beside.s, to) != 0)
      status = fail_io(path, "to put the new file in its place");
    if (status && !direct)
      remove(beside.s);
  }
  ni_text_free(&beside);
  return status;
}

neap_status ni_archive_save(const neap_archive *a, const char *path) {
  ni_text header = {0};
  size_t *entries = sorted(a->count, compare_entries, a->entries);
  size_t *texts = sorted(a->n_texts, compare_texts, a->texts);
  neap_status status = entries && texts ? NEAP_OK : NEAP_EMEM;
  if (!status) {
    print_header(&header, a, entries, texts);
    ni_text_addn(&header, "       ", (8 - header.n % 8) % 8);
    if (header.failed)
      status = NEAP_EMEM;
    else if (header.n > LONGEST_HEADER)
      status = ni_fail(NEAP_ERANGE, "%s: expected names and texts of at most %d bytes, came %zu",
                       tail(path), LONGEST_HEADER, header.n);
    else
      status = write_file(path, a, &header, entries);
  }
  ni_text_free(&header);
  ni_free(entries);
  ni_free(texts);
  return status;
}
