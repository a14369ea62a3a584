/*
** Floor 4: runs. A run has the memory and the row layouts of one batch at a time; place.c lays it
** out, exec.c computes (compiled for float and double), run.c is the driver.
*/
#ifndef NI_RUN_H
#define NI_RUN_H

#include "state.h"
#include "program.h"

/* Memory of one space's layout, grown as needed. */
typedef struct ni_layout {
  uint32_t *mem;
  size_t cap;
  uint32_t *concat; /* [rows] position in the caller's order -> row */
  bool given;
} ni_layout;

/* A run that takes sequences in segments (segment.c). */
typedef struct ni_segments {
  char *whole;            /* the first node that cannot be */
  size_t count, steps;    /* segments, and steps of each but the last; count 0: there are none */
  ni_rows rows[NEAP_MAX_SPACES]; /* of the present one */
  uint32_t *mem;          /* of its layout */
  size_t cap;
  void **data, **grad;    /* by value of the space: where the whole sequences' begin; NULL: of one segment */
  ni_carry *carry;        /* by slot */
  void **border;          /* by slot: states at all borders, [count+1, parents, width] */
  void **slope;           /* by slot: gradients at two of them */
  int start;              /* the value that backward starts at */
} ni_segments;

struct neap_run {
  neap_program *pr;
  neap_pool *pool;
  unsigned flags;
  size_t max_rows, real; /* real: bytes of a number */
  uint64_t seed, tick;
  bool learning;
  ni_schedule plan;
  ni_view *view;         /* by value */
  ni_rows rows[NEAP_MAX_SPACES];
  ni_layout layout[NEAP_MAX_SPACES];
  void **fixed, **work;  /* by node */
  char *fixed_mem;
  char *arena;
  size_t arena_cap, fixed_bytes;
  struct ni_item *item;  /* scratch of place.c */
  size_t cap_items;
  uint8_t *keep;         /* by value: 1 its data stay readable, 2 its gradient too */
  uint8_t *given;        /* by value: input copied in */
  uint8_t *need;         /* by value: a gradient flows here */
  uint8_t *touched;      /* by value: gradient begun in this backward */
  uint8_t *local;        /* by value: what the loop around it does for it, NI_LOCAL_... */
  uint8_t *turned;       /* by value: its gradient takes the place of its data */
  int *same;             /* by value: whose gradient is its own too; itself: nobody's */
  int *pointed;          /* scratch of exec.c: values of the loop at hand */
  ni_view *own;          /* each thread's views in a loop: [threads][values] */
  void **grad;           /* by value: where the gradient lives */
  uint8_t *stale;        /* by node: 1 forward, 2 backward packing is old */
  int *param;            /* by node: id of the parameter it names, -1 */
  uint64_t packed_version;
  void *scalar;          /* by value: the numbers of scalars and constants, reals */
  double *params64, *grads64; /* NEAP_DOUBLE: own copies of the whole vectors */
  size_t extent64;            /* numbers in each */
  uint64_t params64_version;
  uint64_t sourced_version; /* of the parameters when views were last pointed at them */
  neap_state *state;
  uint64_t state_left;   /* its changes when forward left it */
  uint8_t *held;         /* its rows that held a value when forward began */
  size_t cap_held;
  ni_slot *slot;
  bool bound;            /* forward began with a state */
  ni_segments segments;
  int stream_space;      /* > 0 in a stream */
  size_t ahead;          /* of a stream: as in ni_exec */
  uint8_t *anew;         /* by slot: 1 begins at its initial state each time; NULL: none does */
  const uint8_t *none;   /* which of its rows are held: none */
  uint8_t *step_unit;    /* by unit, in a stream: 1 runs at each step; NULL in a run */
  bool marked;           /* need, local and same are known: they do not change with the batch */
  bool still_placed;     /* in a stream: what does not change with the steps has its place */
  char *still;           /* and lies in an arena of its own, so that rows may come and go */
  size_t still_cap;
  ni_call *call;         /* calls.c: the step of a stream */
  int n_calls;
  bool calls_ready, call_random;
  ni_exec call_exec;
  enum { NI_SHAPED, NI_PLACED, NI_RAN } phase;
  bool spent; /* backward has used up what forward kept */
  _Atomic int canceled;
  ni_fault fault;
};

/*
** Values inside a loop that no later step and nobody outside reads have memory for one step, row p
** of it for sorted position p: each thread points its own views at its step.
*/
enum {
  NI_LOCAL_DATA = 1,
  NI_LOCAL_GRAD = 2,
  NI_LOCAL_CLEAR = 4 /* gradients that only the loop adds to: cleared step by step */
};

/* Does it only tell what it would take? */
static inline bool ni_run_tells(const neap_run *run) { return run->flags & NEAP_TELL; }

/* ---- place.c ---- */

neap_status ni_run_batch(neap_run *run, size_t rows);
neap_status ni_run_lengths(neap_run *run, int space, const int32_t *lengths, size_t n);
/* A layout of n rows that step together; row i belongs to parent row source[i] (NULL: i). */
neap_status ni_run_steps_layout(neap_run *run, int space, const int32_t *source, size_t n);
/* Does anything that is computed lie in this space, or below it? */
bool ni_run_needs(const neap_run *run, int space);
/* Gives every value its place for the present shapes; in a stream only those of a step, unless
** still_placed is false. */
neap_status ni_run_place(neap_run *run);

/* ---- segment.c ---- */

neap_status ni_segments_open(neap_run *run);
void ni_segments_close(neap_run *run);
size_t ni_segments_bytes(const neap_run *run);
/* Is this value of one segment at a time in memory? */
bool ni_segments_local(const neap_run *run, int value);
/* How many there are of the sequences as they are now, and the rows of the largest. */
neap_status ni_segments_shape(neap_run *run);
/* After the values have their places. */
void ni_segments_placed(neap_run *run);
/* Turns a run and what its ops see to one segment, and back to whole sequences. */
void ni_segment_enter(neap_run *run, ni_exec *x, size_t k);
void ni_segment_leave(neap_run *run, ni_exec *x);
/* Before the backward of segment k: no value of it has a gradient yet. */
void ni_segment_begin_backward(neap_run *run, size_t k);

/* ---- calls.c: the step of a stream ---- */

neap_status ni_calls_open(neap_run *run);
/* After a step through exec.c: looks up what the next ones will need. */
void ni_calls_build(neap_run *run);
/* One step; false, with nothing changed, where exec.c must do it: something has changed since, or
** there is a fault to report. */
bool ni_calls_run(neap_run *run);

/* ---- exec.c, for float and double ---- */


neap_status ni_exec_forward_f32(neap_run *run, int only_step);
neap_status ni_exec_backward_f32(neap_run *run);
bool ni_exec_outputs_finite_f32(const neap_run *run);
neap_status ni_exec_forward_f64(neap_run *run, int only_step);
neap_status ni_exec_backward_f64(neap_run *run);
bool ni_exec_outputs_finite_f64(const neap_run *run);

/* ---- run.c ---- */

void ni_exec_set_up(ni_exec *x, neap_run *run);
/* What the random numbers of the next forward come from. */
uint64_t ni_exec_seed(const neap_run *run);
/* Is this a state of that scan that anybody needs? */
bool ni_run_carries(const neap_run *run, const ni_state_info *s, int scan);

neap_status ni_run_open(neap_run **run, neap_program *pr, const neap_run_options *options);
void ni_run_close(neap_run *run);
size_t ni_run_bytes(const neap_run *run);
neap_status ni_run_plan(size_t *bytes, neap_run *run);
neap_status ni_run_keep(neap_run *run, int value, int gradient);
neap_status ni_run_input(neap_run *run, int value, neap_layout layout, neap_dtype dtype,
                         const void *data, size_t count);
neap_status ni_run_scalar(neap_run *run, int value, double number);
/* Runs the units of a stream that run at each step (1) or only once (0). */
neap_status ni_run_stream(neap_run *run, int step);
neap_status ni_run_state(neap_run *run, neap_state *state);
neap_status ni_run_forward(neap_run *run);
/* Runs forward and backward once more, looking at every number: ENONFINITE names the first bad one. */
neap_status ni_run_find_nonfinite(neap_run *run, int value);
neap_status ni_run_backward(neap_run *run, int value, neap_layout layout, const float *grad,
                            size_t count, bool one);
neap_status ni_run_count(size_t *count, const neap_run *run, int value, neap_layout layout);
typedef enum ni_kind { NI_AS_F32, NI_AS_I32, NI_AS_F64, NI_AS_GRAD, NI_AS_GRAD64 } ni_kind;
neap_status ni_run_read(neap_run *run, int value, neap_layout layout, ni_kind kind, void *data,
                        size_t count);
neap_status ni_run_param_grad(neap_run *run, int id, double *data, size_t count);
neap_status ni_run_param_shift(neap_run *run, int id, size_t element, double shift);
/* "sequence 3, step 2" of a row of a space, counted from 1, in a per-thread buffer. */
const char *ni_run_row_text(const neap_run *run, int space, size_t row);

#endif
