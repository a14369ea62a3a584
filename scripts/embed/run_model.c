/*
** A host without Lua: loads a model file and runs one of its programs on sequences given as text.
** It needs nothing but neap.h and libneap, and is meant to be copied.
*/
#define _POSIX_C_SOURCE 200809L /* getline */

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "neap.h"

static const char usage[] =
    "run_model MODEL.safetensors [--info] [--program NAME] [--stream] [--hex] < input > output\n"
    "  --info     says what the model holds, and runs nothing\n"
    "  --program  which program (without it: predict, or the only one)\n"
    "  --stream   step by step, as the rows come in; else a sequence at a time\n"
    "  --hex      numbers as the 8 hexadecimal digits of their bits\n"
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

int main(int argc, char **argv) {
  const char *path = NULL, *program = NULL;
  bool info = false, stream = false;
  host h = {0};
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--help") == 0) return fputs(usage, stdout) < 0;
    else if (strcmp(argv[i], "--info") == 0) info = true;
    else if (strcmp(argv[i], "--stream") == 0) stream = true;
    else if (strcmp(argv[i], "--hex") == 0) h.hex = true;
    else if (strcmp(argv[i], "--program") == 0 && i + 1 < argc) program = argv[++i];
    else if (argv[i][0] != '-' && !path) path = argv[i];
    else return fprintf(stderr, "run_model: unexpected %s\n%s", argv[i], usage), 2;
  }
  if (!path) return fprintf(stderr, "run_model: expected a model file\n%s", usage), 2;
  int bad = neap_model_load(&h.model, path) ? fail(neap_errmsg()) : 0;
  if (!bad && info) print_info(h.model);
  else if (!bad) bad = make_ready(&h, program, stream) || feed(&h, stdin);
  if (!bad && (fflush(stdout) != 0 || ferror(stdout))) bad = fail("the output cannot be written");
  for (int i = 0; h.out && i < neap_program_outputs(h.program); i++) free(h.out[i]);
  neap_stream_close(h.stream);
  neap_run_close(h.run);
  neap_model_release(h.model);
  free(h.rows);
  free(h.out);
  return bad;
}
