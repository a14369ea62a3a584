/*
** A host without Lua: loads a model file and runs it on lines of text, where a task of the library
** has saved it with its symbols; or runs one of its programs on rows of numbers. It needs nothing
** but libneap and jsmn.h, a reader of JSON in one header, and is meant to be copied.
*/
#define _POSIX_C_SOURCE 200809L /* getline */

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JSMN_STATIC
#include <jsmn.h>

#include "neap.h"

static const char usage[] =
    "run_model MODEL.safetensors [--length N] < input > output\n"
    "run_model MODEL.safetensors [--program NAME] [--stream] [--hex] [--ids] < input > output\n"
    "run_model MODEL.safetensors --info\n"
    "  --length   how many symbols are written at most\n"
    "  --program  which program (without it: predict, or the only one)\n"
    "  --stream   step by step, as the rows come in; else a sequence at a time\n"
    "  --hex      numbers as the 8 hexadecimal digits of their bits\n"
    "  --ids      numbers also where the model knows symbols, as with the three above\n"
    "  --info     says what the model holds, and runs nothing\n"
    "A model that knows symbols reads text, a sequence a line: letters, or words with blanks\n"
    "between them. It answers with a line: the class and its probability; the tags; what it\n"
    "writes; the text and how it goes on. A model that hears sound reads names of WAV files, one a\n"
    "line, of 16 bits, one channel and the model's rate.\n"
    "Input for a program that reads numbers: a row a line, an empty line ends a sequence.\n"
    "Input for one that reads ids, which count from 0: a sequence a line.\n"
    "Output: a line for each step and output, its name and its numbers; outputs without steps\n"
    "come at the end of the sequence; an empty line ends it.\n";

typedef struct host {
  neap_model *model;
  neap_program *program;
  neap_run *run;       /* one of the two */
  neap_stream *stream;
  int input, space;    /* the input that is fed and the sequence it is in */
  bool ids, hex;
  size_t width;        /* numbers in a row of the input */
  void *rows;          /* float or int32_t: of the present sequence or, in a stream, line */
  size_t n, cap;       /* numbers there are and there is room for */
  void **out;          /* of a run: each output of the present sequence */
} host;

/* Both print "run_model: why" and are the program's exit status. */
static int fail(const char *why) {
  fprintf(stderr, "run_model: %s\n", why);
  return 1;
}
static int fail_at(size_t line, const char *why) {
  fprintf(stderr, "run_model: line %zu: %s\n", line, why);
  return 1;
}

static size_t width_of(const neap_type *t) {
  size_t n = 1;
  for (int i = 0; i < t->rank; i++) n *= (size_t)(t->dim[i] > 0 ? t->dim[i] : 1);
  return n;
}

/* ---- what the model holds ---- */

static void print_type(const neap_program *pr, const char *kind, const char *name, int value) {
  neap_type t;
  if (neap_program_type(&t, pr, value)) return;
  printf("  %s %s: %s [", kind, name, t.dtype == NEAP_F32 ? "f32" : "i32");
  const char *comma = "";
  for (int s = t.space; s >= 0; s = neap_program_space_parent(pr, s), comma = ",")
    printf("%s%s", comma, neap_program_space_name(pr, s));
  for (int i = 0; i < t.rank; i++, comma = ",")
    if (t.dim[i] >= 0) printf("%s%d", comma, (int)t.dim[i]);
    else printf("%slongest %s", comma, neap_program_space_name(pr, -1 - t.dim[i]));
  printf("]\n");
}

static void print_info(neap_model *m) {
  const char *name;
  int value;
  for (int i = 0; (name = neap_model_program_name(m, i)) != NULL; i++) {
    const neap_program *pr = neap_model_program(m, name);
    const char *future = neap_program_reads_future(pr);
    printf("program %s: %d nodes, %s%s\n", name, neap_program_nodes(pr),
           future ? "no stream: " : "can be streamed", future ? future : "");
    for (int k = 0; (name = neap_program_input_name(pr, k, &value)) != NULL; k++)
      print_type(pr, "input", name, value);
    for (int k = 0; (name = neap_program_output_name(pr, k, &value)) != NULL; k++)
      print_type(pr, "output", name, value);
  }
  neap_params *p = neap_model_params(m);
  printf("parameters: %d, %zu numbers\n", neap_params_count(p), neap_params_size(p));
  for (int id = 0; id < neap_params_count(p); id++) {
    printf("  %s [", neap_params_name(p, id));
    for (int k = 0; k < neap_params_rank(p, id); k++)
      printf(k ? ",%zu" : "%zu", neap_params_dim(p, id, k));
    printf("]\n");
  }
  for (int i = 0; (name = neap_model_text_key(m, i)) != NULL; i++) printf("text %s\n", name);
}

/* ---- making ready ---- */

/* The one input that has rows. A number, such as a dropout rate, keeps its preset. */
static int find_input(host *h) {
  const char *name;
  neap_type t;
  int value;
  h->input = -1;
  for (int i = 0; (name = neap_program_input_name(h->program, i, &value)) != NULL; i++) {
    if (neap_program_type(&t, h->program, value) || t.space < 0) continue;
    if (h->input >= 0) return fail("the program reads several inputs; this host feeds one");
    if (neap_program_space_parent(h->program, t.space) != 0)
      return fail("the program's input is no plain sequence; this host feeds nothing else");
    h->input = value;
    h->space = t.space;
    h->ids = t.dtype == NEAP_I32;
    h->width = width_of(&t);
  }
  return h->input < 0 ? fail("the program reads no sequence") : 0;
}

static int make_ready(host *h, const char *name, bool stream) {
  h->program = neap_model_program(h->model, name ? name : "predict");
  if (!h->program && !name && neap_model_programs(h->model) == 1)
    h->program = neap_model_program(h->model, neap_model_program_name(h->model, 0));
  if (!h->program) return fail("the model has no such program: see --info");
  if (find_input(h)) return 1;
  neap_status rc = stream ? neap_stream_open_program(&h->stream, h->program, NULL)
                          : neap_run_open(&h->run, h->program, NULL);
  if (rc) return fail(neap_errmsg());
  h->out = calloc((size_t)neap_program_outputs(h->program) + 1, sizeof *h->out);
  return h->out ? 0 : fail("out of memory");
}

/* ---- running ---- */

static void print_row(const host *h, const char *name, neap_dtype dtype, const void *row,
                      size_t n) {
  printf("%s", name);
  for (size_t i = 0; i < n; i++) {
    uint32_t bits;
    memcpy(&bits, (const char *)row + 4 * i, 4);
    if (h->hex) printf(" %08x", (unsigned)bits);
    else if (dtype == NEAP_I32) printf(" %d", (int)((const int32_t *)row)[i]);
    else printf(" %.9g", (double)((const float *)row)[i]);
  }
  printf("\n");
}

/* Prints the outputs that have steps at one step, or (step < 0) those that have none. */
static void print_outputs(host *h, long step) {
  const char *name;
  int value;
  for (int i = 0; (name = neap_program_output_name(h->program, i, &value)) != NULL; i++) {
    neap_type t;
    size_t n;
    const char *data;
    neap_program_type(&t, h->program, value);
    if ((step >= 0) != (t.space == h->space)) continue;
    if (h->stream) {
      data = t.dtype == NEAP_F32 ? (const void *)neap_stream_output_f32(h->stream, i, &n)
                                 : (const void *)neap_stream_output_i32(h->stream, i, &n);
    } else {
      data = h->out[i];
      neap_run_count(&n, h->run, value, NEAP_CONCAT);
      if (step >= 0) n = width_of(&t), data += (size_t)step * n * 4;
    }
    print_row(h, name, t.dtype, data, n);
  }
}

static int read_outputs(host *h) {
  int value;
  for (int i = 0; neap_program_output_name(h->program, i, &value); i++) {
    neap_type t;
    size_t n;
    neap_program_type(&t, h->program, value);
    neap_status rc = neap_run_count(&n, h->run, value, NEAP_CONCAT);
    if (rc) return fail(neap_errmsg());
    void *out = realloc(h->out[i], n * 4 + 1);
    if (!out) return fail("out of memory");
    h->out[i] = out;
    rc = t.dtype == NEAP_F32 ? neap_run_read_f32(h->run, value, NEAP_CONCAT, out, n)
                             : neap_run_read_i32(h->run, value, NEAP_CONCAT, out, n);
    if (rc) return fail(neap_errmsg());
  }
  return 0;
}

static int run_sequence(host *h) {
  int32_t length = (int32_t)(h->n / h->width);
  neap_status rc = neap_run_batch(h->run, 1);
  if (!rc) rc = neap_run_lengths(h->run, h->space, &length, 1);
  if (!rc)
    rc = h->ids ? neap_run_input_i32(h->run, h->input, NEAP_CONCAT, h->rows, h->n)
                : neap_run_input_f32(h->run, h->input, NEAP_CONCAT, h->rows, h->n);
  if (!rc) rc = neap_run_forward(h->run);
  if (rc) return fail(neap_errmsg());
  if (read_outputs(h)) return 1;
  for (long t = 0; t < length; t++) print_outputs(h, t);
  h->n = 0;
  return 0;
}

/* Steps through the rows that have come in. */
static int step_rows(host *h) {
  size_t n;
  void *in = h->ids ? (void *)neap_stream_input_i32(h->stream, 0, &n)
                    : (void *)neap_stream_input_f32(h->stream, 0, &n);
  if (!in || n != h->width) return fail("the stream steps along another sequence");
  for (size_t at = 0; at < h->n; at += n) {
    memcpy(in, (char *)h->rows + at * 4, n * 4);
    if (neap_stream_step(h->stream)) return fail(neap_errmsg());
    print_outputs(h, 0);
  }
  h->n = 0;
  fflush(stdout);
  return 0;
}

static int end_sequence(host *h) {
  if (h->run && run_sequence(h)) return 1;
  print_outputs(h, -1);
  if (h->stream) neap_stream_reset(h->stream);
  printf("\n");
  return 0;
}

/* Appends the numbers of a line to the rows. */
static int read_line(host *h, const char *s, size_t line) {
  size_t before = h->n;
  for (char *end;; s = end, h->n++) {
    if (h->n == h->cap) {
      size_t cap = h->cap * 2 + 256;
      void *rows = realloc(h->rows, cap * 4);
      if (!rows) return fail("out of memory");
      h->rows = rows;
      h->cap = cap;
    }
    errno = 0;
    long id = 0;
    if (h->ids) ((int32_t *)h->rows)[h->n] = (int32_t)(id = strtol(s, &end, 10));
    else ((float *)h->rows)[h->n] = strtof(s, &end);
    if (h->ids && (errno || id > INT32_MAX || id < INT32_MIN))
      return fail_at(line, "an id is too large");
    if (end == s) break;
  }
  if (s[strspn(s, " \t\r\n")]) return fail_at(line, "expected numbers, came something else");
  size_t n = h->n - before;
  if (h->ids ? n % h->width == 0 : n == h->width) return 0;
  fprintf(stderr, "run_model: line %zu: expected %zu numbers a row, came %zu\n", line, h->width, n);
  return 1;
}

static int feed(host *h, FILE *in) {
  char *text = NULL;
  size_t cap = 0, line = 0;
  bool open = false; /* a sequence has begun */
  int bad = 0;
  while (!bad && getline(&text, &cap, in) >= 0) {
    line++;
    bool blank = !text[strspn(text, " \t\r\n")];
    if (!blank) {
      bad = read_line(h, text, line) || (h->stream && step_rows(h));
      open = true;
    }
    if (!bad && open && (blank || h->ids)) {
      bad = end_sequence(h);
      open = false;
    }
  }
  free(text);
  if (!bad && open) bad = end_sequence(h);
  if (!bad && ferror(in)) bad = fail("the input cannot be read on");
  return bad;
}

/* ---- symbols, as the file's text "task" has them ---- */

typedef struct vocab {
  char **symbol;
  int n, unk, start, stop; /* ids from 0; -1: none */
  bool lower;              /* capitals are taken as small letters */
  bool letters;            /* each symbol is one character; else symbols are words */
  bool pieces;             /* each symbol is words with blanks between, or nothing */
  int *merge;              /* or subwords: pairs of ids that become one, in this order; */
  int merges, bytes;       /* how many ids they are; that of the symbol of byte 0, or -1 */
} vocab;

#define MAX_INPUTS 8

typedef struct task {
  char *kind;
  int inputs;
  struct {
    char *name;
    vocab v;
    bool nested; /* reads the letters of each word */
  } input[MAX_INPUTS];
  long rate, hop; /* or it hears sound: samples a second, samples in a step */
  vocab output;
  int own;   /* symbols of the output itself; behind them stand those of a line that it does not */
  long copy; /* know and may copy, at most so many; -1: it copies none */
  long max_length;
  bool words; /* a line is words with blanks between, not letters */
} task;

typedef struct json {
  const char *text;
  jsmntok_t *token;
  int n;
} json;

/* The token behind i and all that is in it. */
static int json_next(const json *j, int i) {
  int end = j->token[i].end;
  do i++;
  while (i < j->n && j->token[i].start < end);
  return i;
}

/* The value of a key, -1 if there is none. */
static int json_find(const json *j, int object, const char *key) {
  if (object < 0 || j->token[object].type != JSMN_OBJECT) return -1;
  for (int i = object + 1, k = 0; k < j->token[object].size && i + 1 < j->n; k++) {
    size_t n = (size_t)(j->token[i].end - j->token[i].start);
    if (n == strlen(key) && memcmp(j->text + j->token[i].start, key, n) == 0) return i + 1;
    i = json_next(j, i + 1);
  }
  return -1;
}

/* A string, its escapes resolved, to be freed; NULL if it is none or memory is short. */
static char *json_string(const json *j, int i) {
  if (i < 0 || j->token[i].type != JSMN_STRING) return NULL;
  const char *s = j->text + j->token[i].start, *end = j->text + j->token[i].end;
  char *out = malloc((size_t)(end - s) + 1), *to = out;
  while (out && s < end) {
    if (*s != '\\' || end - s < 2) {
      *to++ = *s++;
      continue;
    }
    static const char from[] = "bfnrt", into[] = "\b\f\n\r\t";
    const char *known = strchr(from, s[1]);
    unsigned code;
    if (s[1] == 'u' && end - s >= 6 && sscanf(s + 2, "%4x", &code) == 1) {
      if (code < 0x80) *to++ = (char)code;
      else if (code < 0x800) *to++ = (char)(0xC0 | code >> 6);
      else *to++ = (char)(0xE0 | code >> 12), *to++ = (char)(0x80 | (code >> 6 & 0x3F));
      if (code >= 0x80) *to++ = (char)(0x80 | (code & 0x3F));
      s += 6;
    } else {
      *to++ = known ? into[known - from] : s[1];
      s += 2;
    }
  }
  if (out) *to = '\0';
  return out;
}

static long json_integer(const json *j, int i, long otherwise) {
  return i >= 0 && j->token[i].type == JSMN_PRIMITIVE
             ? strtol(j->text + j->token[i].start, NULL, 10) : otherwise;
}

static bool json_is(const json *j, int i, const char *text) {
  size_t n = i < 0 ? 0 : (size_t)(j->token[i].end - j->token[i].start);
  return i >= 0 && n == strlen(text) && memcmp(j->text + j->token[i].start, text, n) == 0;
}
static bool json_true(const json *j, int i) { return i >= 0 && j->text[j->token[i].start] == 't'; }

/* Bytes of the UTF-8 character at s, at most n. */
static size_t letter(const char *s, size_t n) {
  size_t k = 1;
  while (k < n && ((unsigned char)s[k] & 0xC0) == 0x80) k++;
  return k;
}

/* The merges of a vocabulary, if it is one of subwords; false if something is wrong with them. */
static bool read_merges(vocab *v, const json *j, int object) {
  int list = json_find(j, object, "merges");
  v->bytes = (int)json_integer(j, json_find(j, object, "bytes"), 0) - 1;
  if (list < 0) return true;
  int n = j->token[list].size;
  if (j->token[list].type != JSMN_ARRAY || !(v->merge = calloc((size_t)n + 1, sizeof *v->merge)) ||
      (v->bytes < 0 ? v->unk < 0 : v->bytes > v->n - 256))
    return false;
  for (int i = list + 1; v->merges < n && i < j->n; i = json_next(j, i)) {
    long id = json_integer(j, i, 0) - 1;
    if (id < 0 || id >= v->n) return false;
    v->merge[v->merges++] = (int)id;
  }
  return n % 2 == 0;
}

/* False if there is none. */
static bool read_vocab(vocab *v, const json *j, int object, long more) {
  int list = json_find(j, object, "symbols");
  if (list < 0 || j->token[list].type != JSMN_ARRAY) return false;
  v->symbol = calloc((size_t)j->token[list].size + (size_t)more + 1, sizeof *v->symbol);
  for (int i = list + 1; v->symbol && v->n < j->token[list].size && i < j->n; i = json_next(j, i))
    if (!(v->symbol[v->n++] = json_string(j, i))) return false;
  if (!v->symbol || v->n == 0) return false;
  v->unk = (int)json_integer(j, json_find(j, object, "unk"), 0) - 1; /* Lua counts from 1 */
  v->start = (int)json_integer(j, json_find(j, object, "start"), 0) - 1;
  v->stop = (int)json_integer(j, json_find(j, object, "stop"), 0) - 1;
  v->lower = json_true(j, json_find(j, object, "lower"));
  if (!read_merges(v, j, object)) return false;
  v->pieces = json_is(j, json_find(j, object, "split"), "pieces");
  v->letters = !v->merge && !v->pieces;
  for (int i = 0; i < v->n; i++) {
    size_t n = strlen(v->symbol[i]);
    if (i != v->unk && i != v->start && i != v->stop && letter(v->symbol[i], n) < n)
      v->letters = false;
  }
  return true;
}

static void free_vocab(vocab *v) {
  for (int i = 0; i < v->n; i++) free(v->symbol[i]);
  free(v->symbol);
  free(v->merge);
}

static void free_task(task *t) {
  for (int i = 0; i < t->inputs; i++) {
    free(t->input[i].name);
    free_vocab(&t->input[i].v);
  }
  free_vocab(&t->output);
  free(t->kind);
}

static bool read_inputs(task *t, const json *j, int object) {
  int list = json_find(j, object, "list");
  if (list < 0 || j->token[list].type != JSMN_ARRAY) return false;
  for (int i = list + 1, k = 0; k < j->token[list].size; i = json_next(j, i), k++) {
    if (t->inputs == MAX_INPUTS) return false;
    int at = t->inputs++;
    t->input[at].name = json_string(j, json_find(j, i, "name"));
    t->input[at].nested = json_true(j, json_find(j, i, "nested"));
    vocab *v = &t->input[at].v;
    t->rate = json_integer(j, json_find(j, i, "rate"), 0);
    t->hop = json_integer(j, json_find(j, i, "size"), 0);
    if (t->rate > 0 && t->hop > 0 && j->token[list].size == 1) return t->input[at].name != NULL;
    if (!t->input[at].name || !read_vocab(v, j, json_find(j, i, "vocab"), 0)) return false;
    if (t->input[at].nested || !v->letters) t->words = true;
  }
  return t->inputs > 0;
}

/* What the model was trained for, where that is text to symbols; else false. */
static bool read_task(task *t, const neap_model *m) {
  json j = {neap_model_text(m, "task"), NULL, 0};
  jsmn_parser parser;
  if (!j.text) return false;
  jsmn_init(&parser);
  j.n = jsmn_parse(&parser, j.text, strlen(j.text), NULL, 0);
  if (j.n <= 0 || !(j.token = calloc((size_t)j.n, sizeof *j.token))) return false;
  jsmn_init(&parser);
  j.n = jsmn_parse(&parser, j.text, strlen(j.text), j.token, (unsigned)j.n);
  t->kind = j.n > 0 ? json_string(&j, json_find(&j, 0, "kind")) : NULL;
  t->copy = json_integer(&j, json_find(&j, 0, "copy"), -1);
  bool ok = t->kind != NULL && t->copy >= -1 && t->copy <= 65536;
  if (ok && strcmp(t->kind, "language_model") == 0) {
    ok = read_vocab(&t->output, &j, json_find(&j, 0, "vocab"), 0);
    t->words = !t->output.letters;
  } else if (ok) {
    ok = read_inputs(t, &j, json_find(&j, 0, "input")) &&
         read_vocab(&t->output, &j, json_find(&j, 0, "output"), t->copy < 0 ? 0 : t->copy);
  }
  t->own = t->output.n;
  t->max_length = json_integer(&j, json_find(&j, 0, "max_length"), 100);
  free(j.token);
  return ok;
}

static void print_symbol(const vocab *v, int id, const char *between) {
  printf("%s%s", between, id >= 0 && id < v->n ? v->symbol[id] : "?");
}

/* Prints a symbol of a text; before: what stands between it and the one before. Gives what stands
** between it and the next. */
static const char *print_text(const vocab *v, int id, const char *before) {
  if (v->pieces && id >= 0 && id < v->n && !*v->symbol[id]) return before;
  if (!v->merge || id < 0 || id >= v->n) {
    print_symbol(v, id, before);
    return v->letters ? "" : " ";
  }
  if (v->bytes >= 0 && id >= v->bytes && id < v->bytes + 256) {
    printf("%s%c", before, id - v->bytes);
    return "";
  }
  size_t n = strlen(v->symbol[id]);
  bool ends = n > 0 && v->symbol[id][n - 1] == ' '; /* the end of a word */
  printf("%s%.*s", before, (int)(n - ends), v->symbol[id]);
  return ends ? " " : "";
}

/* ---- lines of text ---- */

typedef struct ints {
  int32_t *at;
  size_t n, cap;
} ints;

static bool push(ints *list, int32_t x) {
  if (list->n == list->cap) {
    size_t cap = list->cap * 2 + 64;
    int32_t *at = realloc(list->at, cap * sizeof *at);
    if (!at) return false;
    list->at = at;
    list->cap = cap;
  }
  list->at[list->n++] = x;
  return true;
}

static char small(const vocab *v, char c) {
  return v->lower && c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/* The id of a symbol; -1 if it is none. */
static int find_symbol(const vocab *v, const char *s, size_t n) {
  for (int id = 0; id < v->n; id++) {
    const char *symbol = v->symbol[id];
    size_t k = 0;
    while (k < n && symbol[k] == small(v, s[k])) k++;
    if (k == n && !symbol[n]) return id;
  }
  return -1;
}

/* Appends the ids of a word's subwords: those of its characters and of the blank that ends it, then
** the merges one after the other. */
static int push_subwords(ints *ids, const vocab *v, const char *s, size_t n) {
  size_t begin = ids->n;
  for (size_t k = 0, step; k <= n; k += step) {
    step = k < n ? letter(s + k, n - k) : 1;
    int id = k < n ? find_symbol(v, s + k, step) : find_symbol(v, " ", 1);
    if (id < 0 && (v->bytes < 0 || k == n)) id = v->unk;
    if (id < 0 && k == n) return fail("the blank that ends a word is no symbol");
    for (size_t b = 0; b < (id < 0 ? step : 1); b++)
      if (!push(ids, id < 0 ? v->bytes + (unsigned char)small(v, s[k + b]) : id))
        return fail("out of memory");
  }
  for (int m = 0; m < v->merges; m += 2) {
    size_t to = begin;
    for (size_t k = begin; k < ids->n; k++, to++) {
      ids->at[to] = ids->at[k];
      const int *pair = v->merge + m;
      if (k + 1 == ids->n || ids->at[k] != pair[0] || ids->at[k + 1] != pair[1]) continue;
      char joined[512];
      int length = snprintf(joined, sizeof joined, "%s%s", v->symbol[pair[0]], v->symbol[pair[1]]);
      int id = length < (int)sizeof joined ? find_symbol(v, joined, (size_t)length) : -1;
      if (id < 0) return fail("a merge of its subwords makes no symbol");
      ids->at[to] = id;
      k++;
    }
    ids->n = to;
  }
  return 0;
}

/* Appends the id of a symbol. */
static int push_symbol(ints *ids, const vocab *v, const char *s, size_t n, size_t line) {
  int id = find_symbol(v, s, n);
  if (id < 0 && (id = v->unk) < 0) {
    fprintf(stderr, "run_model: line %zu: the model does not know \"%.*s\"\n", line, (int)n, s);
    return 1;
  }
  return push(ids, id) ? 0 : fail("out of memory");
}

/* The symbols of a line: ids of a vocabulary or, of a nested input, of all words' letters, and how
** many each word has. */
static int encode(ints *ids, ints *lengths, const vocab *v, bool words, bool nested, const char *s,
                  size_t line) {
  ids->n = lengths->n = 0;
  for (;;) {
    if (words) s += strspn(s, " \t");
    size_t n = words ? strcspn(s, " \t") : *s ? letter(s, strlen(s)) : 0, before = ids->n;
    if (n == 0) return 0;
    if (v->merge && !nested) {
      if (push_subwords(ids, v, s, n)) return 1;
      while (lengths->n < ids->n) /* steps are subwords */
        if (!push(lengths, 1)) return fail("out of memory");
      s += n;
      continue;
    }
    for (size_t k = 0, step; k < n; k += step) {
      step = nested ? letter(s + k, n - k) : n;
      if (push_symbol(ids, v, s + k, step, line)) return 1;
    }
    if (!push(lengths, (int32_t)(ids->n - before))) return fail("out of memory");
    s += n;
  }
}

/* The symbols of a line as what may be written: ids of the output, and of those that it does not know,
** which are put behind its own as long as there is room. */
static int encode_source(ints *ids, task *t, const char *s) {
  vocab *v = &t->output;
  while (v->n > t->own) free(v->symbol[--v->n]);
  ids->n = 0;
  for (size_t n;; s += n) {
    if (t->words) s += strspn(s, " \t");
    n = t->words ? strcspn(s, " \t") : *s ? letter(s, strlen(s)) : 0;
    if (n == 0) return 0;
    vocab own = *v;
    own.n = t->own;
    int id = find_symbol(&own, s, n);
    for (int k = t->own; id < 0 && k < v->n; k++)
      if (strlen(v->symbol[k]) == n && memcmp(v->symbol[k], s, n) == 0) id = k;
    if (id < 0 && v->n < t->own + t->copy) {
      if (!(v->symbol[v->n] = strndup(s, n))) return fail("out of memory");
      id = v->n++;
    }
    if (!push(ids, id < 0 ? v->unk : id)) return fail("out of memory");
  }
}

/* Feeds a line to all inputs of a run. */
static int feed_text(host *h, task *t, const char *s, size_t line) {
  const char *name;
  int value;
  bool known[NEAP_MAX_SPACES] = {false};
  ints ids = {0}, lengths = {0};
  neap_status rc = neap_run_batch(h->run, 1);
  int bad = 0;
  for (int i = 0; !bad && !rc && (name = neap_program_input_name(h->program, i, &value)); i++) {
    neap_type type;
    int k = 0;
    if ((rc = neap_program_type(&type, h->program, value)) || type.space < 0) continue;
    while (k < t->inputs && strcmp(t->input[k].name, name) != 0) k++;
    if (k == t->inputs && t->copy >= 0 && strcmp(name, "source") == 0) {
      if ((bad = encode_source(&ids, t, s)) == 0)
        rc = neap_run_input_i32(h->run, value, NEAP_CONCAT, ids.at, ids.n);
      continue;
    }
    if (k == t->inputs) bad = fail("the program reads an input that the task does not know");
    else bad = encode(&ids, &lengths, &t->input[k].v, t->words, t->input[k].nested, s, line);
    if (bad) break;
    int steps = t->input[k].nested ? neap_program_space_parent(h->program, type.space) : type.space;
    int32_t n = (int32_t)lengths.n;
    if (steps < 0) bad = fail("the program's nested input has no sequence around it");
    if (bad) break;
    if (!known[steps]) rc = neap_run_lengths(h->run, steps, &n, 1);
    known[steps] = true;
    if (!rc && steps != type.space)
      rc = neap_run_lengths(h->run, type.space, lengths.at, lengths.n);
    if (!rc) rc = neap_run_input_i32(h->run, value, NEAP_CONCAT, ids.at, ids.n);
  }
  if (!bad && !rc) rc = neap_run_forward(h->run);
  free(ids.at);
  free(lengths.at);
  return bad ? bad : rc ? fail_at(line, neap_errmsg()) : 0;
}

/* The bytes of a file, to be freed; NULL if it cannot be read. */
static unsigned char *read_file(const char *path, size_t *size) {
  FILE *in = fopen(path, "rb");
  unsigned char *bytes = NULL;
  size_t cap = 0;
  *size = 0;
  while (in && !ferror(in) && !feof(in)) {
    unsigned char *more = realloc(bytes, cap = 2 * cap + 65536);
    if (!more) break;
    bytes = more;
    *size += fread(bytes + *size, 1, cap - *size, in);
  }
  bool good = in && feof(in);
  if (in) fclose(in);
  if (good) return bytes;
  free(bytes);
  return NULL;
}

static size_t number(const unsigned char *b, int bytes) {
  size_t x = 0;
  while (bytes-- > 0) x = x << 8 | b[bytes];
  return x;
}

/* The samples of a WAV file, -1 to 1, and zeros up to a whole number of steps: n numbers, to be
** freed; NULL after a message. */
static float *read_wav(const char *path, const task *t, size_t *n, size_t line) {
  size_t size, at = 12, chunk, rate = 0;
  unsigned char *b = read_file(path, &size);
  float *x = NULL;
  const char *why = !b ? "cannot be read" : "expected a WAV file of 16 bits and one channel";
  if (!b || size < 12 || memcmp(b, "RIFF", 4) != 0 || memcmp(b + 8, "WAVE", 4) != 0) size = 0;
  for (; size >= 8 && at <= size - 8; at += 8 + chunk + chunk % 2) {
    const unsigned char *in = b + at + 8;
    chunk = number(b + at + 4, 4);
    if (chunk > size - 8 - at) break;
    if (memcmp(b + at, "fmt ", 4) == 0 && chunk >= 16 && number(in, 2) == 1 &&
        number(in + 2, 2) == 1 && number(in + 14, 2) == 16)
      rate = number(in + 4, 4);
    if (memcmp(b + at, "data", 4) != 0 || !rate) continue;
    why = chunk < 2 ? "no samples in it" : "out of memory";
    size_t samples = chunk / 2, hop = (size_t)t->hop;
    *n = (samples + hop - 1) / hop * hop;
    if (rate != (size_t)t->rate) why = NULL;
    else if (samples) x = calloc(*n, sizeof *x);
    for (size_t i = 0; x && i < samples; i++) {
      long s = (long)number(in + 2 * i, 2);
      x[i] = (float)(s < 32768 ? s : s - 65536) / 32768;
    }
    break;
  }
  free(b);
  if (!x) fprintf(stderr, "run_model: line %zu: %s: ", line, path);
  if (!x && why) fprintf(stderr, "%s\n", why);
  else if (!x) fprintf(stderr, "expected %ld samples a second, came %zu\n", t->rate, rate);
  return x;
}

/* Feeds the sound file that a line names. */
static int feed_sound(host *h, const task *t, const char *path, size_t line) {
  size_t n;
  neap_type type;
  float *x = read_wav(path, t, &n, line);
  if (!x) return 1;
  int value = neap_program_find_input(h->program, t->input[0].name);
  int32_t steps = (int32_t)(n / (size_t)t->hop);
  neap_status rc = value < 0 ? NEAP_EARG : neap_program_type(&type, h->program, value);
  if (!rc) rc = neap_run_batch(h->run, 1);
  if (!rc) rc = neap_run_lengths(h->run, type.space, &steps, 1);
  if (!rc) rc = neap_run_input_f32(h->run, value, NEAP_CONCAT, x, n);
  if (!rc) rc = neap_run_forward(h->run);
  free(x);
  return value < 0 ? fail("the program lacks the input of its task")
       : rc ? fail_at(line, neap_errmsg()) : 0;
}

/* An output by its name: its numbers, to be freed, of either type; NULL after a message. */
static void *read_output(const host *h, const char *name, size_t *n) {
  neap_type t;
  int value = neap_program_find_output(h->program, name);
  neap_status rc = value < 0 ? NEAP_EARG : neap_program_type(&t, h->program, value);
  if (!rc) rc = neap_run_count(n, h->run, value, NEAP_CONCAT);
  void *out = rc ? NULL : malloc(*n * 4 + 1);
  if (out)
    rc = t.dtype == NEAP_F32 ? neap_run_read_f32(h->run, value, NEAP_CONCAT, out, *n)
                             : neap_run_read_i32(h->run, value, NEAP_CONCAT, out, *n);
  if (out && !rc) return out;
  free(out);
  fail(value < 0 ? "the model lacks an output of its task" : rc ? neap_errmsg() : "out of memory");
  return NULL;
}

/* A class and its probability. */
static int classify(host *h, const task *t) {
  size_t n, classes;
  int32_t *class = read_output(h, "class", &n);
  float *scores = class ? read_output(h, "scores", &classes) : NULL;
  if (scores && n == 1 && class[0] >= 0 && (size_t)class[0] < classes) {
    print_symbol(&t->output, class[0], "");
    printf("\t%.4f", (double)scores[class[0]]);
  }
  int bad = !scores;
  free(class);
  free(scores);
  return bad;
}

/* A tag for each symbol; -1 fills up where what a sequence reads as is shorter. */
static int tag(host *h, const task *t) {
  size_t n;
  int32_t *tags = read_output(h, "tags", &n);
  for (size_t i = 0; tags && i < n; i++)
    if (tags[i] >= 0) print_symbol(&t->output, tags[i], i > 0 ? " " : "");
  int bad = !tags;
  free(tags);
  return bad;
}

static int index_of_output(const neap_program *pr, const char *name) {
  const char *other;
  for (int i = 0; (other = neap_program_output_name(pr, i, NULL)) != NULL; i++)
    if (strcmp(other, name) == 0) return i;
  return -1;
}

/* The decoder writes, the likeliest symbol at each step, looking back on what the encoder gave. */
static int decode(host *h, const task *t) {
  const neap_program *decoder = neap_model_program(h->model, "decode");
  const char *name;
  int from = neap_program_find_space(h->program, "S"), value;
  int space = neap_program_find_space(decoder, "S");
  if (from < 0 || space < 0) return fail("the model lacks the sequence that its encoder reads");
  int32_t length = (int32_t)neap_run_steps(h->run, from);
  neap_status rc = neap_stream_context_batch(h->stream, 1);
  if (!rc) rc = neap_stream_context_lengths(h->stream, space, &length, 1);
  for (int i = 0; !rc && (name = neap_program_output_name(h->program, i, NULL)) != NULL; i++) {
    size_t n;
    value = neap_program_find_input(decoder, name);
    if (value < 0) continue; /* something that the script watched */
    float *numbers = read_output(h, name, &n);
    if (!numbers) return 1;
    rc = neap_stream_context_f32(h->stream, value, NEAP_CONCAT, numbers, n);
    free(numbers);
  }
  if (rc) return fail(neap_errmsg());
  int32_t *previous = neap_stream_input_i32(h->stream, 0, NULL);
  const int32_t *best = neap_stream_output_i32(h->stream, index_of_output(decoder, "best"), NULL);
  if (!previous || !best) return fail("the model lacks a part of its decoder");
  *previous = t->output.start;
  const char *between = "";
  for (long k = 0; k < t->max_length; k++) {
    if (neap_stream_step(h->stream)) return fail(neap_errmsg());
    if (*best == t->output.stop) break;
    between = print_text(&t->output, *best, between);
    *previous = *best;
  }
  return 0;
}

/* A language model goes on after the line, the likeliest symbol at each step, to the line's end. */
static int write_on(host *h, const task *t, const char *s, size_t line) {
  ints ids = {0}, lengths = {0};
  const vocab *v = &t->output;
  size_t n = 0;
  int32_t *in = neap_stream_input_i32(h->stream, 0, NULL);
  const float *logits = neap_stream_output_f32(h->stream, 0, &n);
  int bad = !in || n != (size_t)v->n ? fail("the program is not that of a language model")
                                     : encode(&ids, &lengths, v, t->words, false, s, line);
  neap_stream_reset(h->stream);
  const char *between = v->letters || strchr(" \t", s[strlen(s) - 1]) ? "" : " ";
  if (!bad) printf("%s", s);
  for (size_t k = 0; !bad && k < ids.n + (size_t)t->max_length && ids.n > 0; k++) {
    size_t best = 0;
    if (k >= ids.n) {
      for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
      if (strcmp(v->symbol[best], "\n") == 0) break;
      between = print_text(v, (int)best, between);
    }
    *in = k < ids.n ? ids.at[k] : (int32_t)best;
    if (neap_stream_step(h->stream)) bad = fail(neap_errmsg());
  }
  free(ids.at);
  free(lengths.at);
  return bad;
}

/* Opens what the task needs. */
static int make_ready_for_text(host *h, const task *t) {
  bool writes = strcmp(t->kind, "async_seq2seq") == 0, goes_on = t->inputs == 0;
  h->program = neap_model_program(h->model, writes ? "encode" : "predict");
  neap_program *steps = neap_model_program(h->model, writes ? "decode" : "predict");
  if (!h->program || !steps) return fail("the model lacks a program of its task: see --info");
  neap_status rc = goes_on ? NEAP_OK : neap_run_open(&h->run, h->program, NULL);
  if (!rc && (writes || goes_on)) rc = neap_stream_open_program(&h->stream, steps, NULL);
  return rc ? fail(neap_errmsg()) : 0;
}

/* A line out for each line in. */
static int run_text(host *h, task *t, FILE *in) {
  char *text = NULL;
  size_t cap = 0, line = 0;
  int bad = make_ready_for_text(h, t);
  while (!bad && getline(&text, &cap, in) >= 0) {
    text[strcspn(text, "\r\n")] = '\0';
    line++;
    if (*text && t->inputs == 0) bad = write_on(h, t, text, line);
    else if (*text && t->rate) bad = feed_sound(h, t, text, line);
    else if (*text) bad = feed_text(h, t, text, line);
    if (*text && !bad && t->inputs > 0)
      bad = strcmp(t->kind, "seq2class") == 0 ? classify(h, t)
          : strcmp(t->kind, "async_seq2seq") == 0 ? decode(h, t) : tag(h, t);
    if (!bad) printf("\n");
    fflush(stdout);
  }
  free(text);
  if (!bad && ferror(in)) bad = fail("the input cannot be read on");
  return bad;
}

int main(int argc, char **argv) {
  const char *path = NULL, *program = NULL;
  bool info = false, stream = false, numbers = false;
  long length = 0;
  host h = {0};
  task t = {0};
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--help") == 0) return fputs(usage, stdout) < 0;
    else if (strcmp(argv[i], "--info") == 0) info = true;
    else if (strcmp(argv[i], "--stream") == 0) stream = true;
    else if (strcmp(argv[i], "--hex") == 0) h.hex = true;
    else if (strcmp(argv[i], "--ids") == 0) numbers = true;
    else if (strcmp(argv[i], "--length") == 0) {
      char *end = argv[i];
      if (++i == argc || (length = strtol(argv[i], &end, 10)) <= 0 || *end)
        return fprintf(stderr, "run_model: --length: expected a whole number from 1, came %s\n",
                       i < argc ? argv[i] : "nothing"), 2;
    }
    else if (strcmp(argv[i], "--program") == 0 && i + 1 < argc) program = argv[++i];
    else if (argv[i][0] != '-' && !path) path = argv[i];
    else return fprintf(stderr, "run_model: unexpected %s\n%s", argv[i], usage), 2;
  }
  if (!path) return fprintf(stderr, "run_model: expected a model file\n%s", usage), 2;
  int bad = neap_model_load(&h.model, path) ? fail(neap_errmsg()) : 0;
  if (!bad && info) print_info(h.model);
  else if (!bad && !(numbers || program || stream || h.hex) && read_task(&t, h.model)) {
    if (length) t.max_length = length;
    bad = run_text(&h, &t, stdin);
  } else if (!bad) bad = make_ready(&h, program, stream) || feed(&h, stdin);
  if (!bad && (fflush(stdout) != 0 || ferror(stdout))) bad = fail("the output cannot be written");
  free_task(&t);
  for (int i = 0; h.out && i < neap_program_outputs(h.program); i++) free(h.out[i]);
  neap_stream_close(h.stream);
  neap_run_close(h.run);
  neap_model_release(h.model);
  free(h.rows);
  free(h.out);
  return bad;
}
