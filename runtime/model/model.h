/*
** Floor 5: parameters, named programs and texts together; streams over them.
*/
#ifndef NI_MODEL_H
#define NI_MODEL_H

#include "../graph/run.h"

typedef struct ni_model_program {
  char *name;
  neap_program *program;
} ni_model_program;

typedef struct ni_model_text {
  char *key, *text;
} ni_model_text;

struct neap_model {
  _Atomic int refs;
  neap_params *params;
  ni_model_program *program;
  int n_programs;
  size_t cap_programs;
  ni_model_text *text;
  int n_texts;
  size_t cap_texts;
};

#define NI_MODEL_PROGRAMS 1000
#define NI_MODEL_TEXTS 10000

neap_status ni_model_new(neap_model **m, neap_params *params);
void ni_model_retain(neap_model *m);
void ni_model_release(neap_model *m);
neap_status ni_model_add(neap_model *m, const char *name, neap_program *pr);
neap_program *ni_model_program_of(const neap_model *m, const char *name);
neap_status ni_model_set_text(neap_model *m, const char *key, const char *text);
const char *ni_model_text_of(const neap_model *m, const char *key);

/* stream.c */
struct neap_stream {
  neap_run *run;
  neap_state *state;
  int space;
  size_t rows;
  ni_layout before; /* memory of the layout that the present one has replaced */
  bool own_context; /* inputs besides those of a step: the caller gives a context */
  bool still_done;  /* what does not change with the steps has been computed */
  size_t block;     /* 2 or more: the run is one of whole sequences, with buffers outside of it */
  int32_t *lengths; /* [rows] */
  char **buffer;    /* by value; NULL: none */
  char *buffers;
  uint8_t *back;    /* by slot: its layer goes backwards; then zeros by row. NULL: no look-ahead */
  size_t ahead;     /* steps to look ahead: inputs [ahead, rows, ..] stand after their buffers */
  size_t pending;   /* of them: those that are there */
  size_t given;     /* steps whose outputs the last call gave */
};
neap_status ni_stream_open(neap_stream **s, neap_program *pr, const neap_stream_options *o);
void ni_stream_close(neap_stream *s);
/* The index-th input of a step, or output; -1 if there is none. */
int ni_stream_input(const neap_stream *s, int index);
int ni_stream_output(const neap_stream *s, int index);
void *ni_stream_buffer(const neap_stream *s, int value, neap_dtype dtype, size_t *count);
neap_status ni_stream_step(neap_stream *s);
neap_status ni_stream_steps(neap_stream *s, size_t n);
neap_status ni_stream_finish(neap_stream *s);
neap_status ni_stream_batch(neap_stream *s, size_t rows);
neap_status ni_stream_lengths(neap_stream *s, int space, const int32_t *lengths, size_t n);
neap_status ni_stream_context(neap_stream *s, int value, neap_layout layout, neap_dtype dtype,
                              const void *data, size_t count);
neap_status ni_stream_rows(neap_stream *s, const int32_t *source, const int32_t *from, size_t n);

#endif
