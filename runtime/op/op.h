/*
** Floor 3: what one node does. An op is one line in ops.h, an infer function, and code compiled
** for float and for double.
**
** A value's elements are rows * width: rows of its row space (1 without a space), each with the
** product of its feature dimensions. Most ops treat rows one by one, so the same code runs on a
** whole sequence, on one time step inside a loop, on one thread's share, and in a stream.
*/
#ifndef NI_OP_H
#define NI_OP_H

#include "../base/base.h"
#include "../kernel/kernel.h"
#include "../tensor/tensor.h"

#define NI_MAX_ATTRS 7

typedef struct ni_node {
  const struct ni_op *op;
  int n_in, n_out;
  int in[NEAP_MAX_INPUTS];   /* value ids; -1: left out */
  int out;                   /* outputs are the values out .. out + n_out - 1 */
  int index;                 /* of this node in its program */
  int scan;                  /* the scan it was recorded in, -1 */
  int slot;                  /* first state slot of a recurrent node, -1 */
  double attr[NI_MAX_ATTRS]; /* in the order of op->attrs */
  const char *name;          /* of an input, scalar, parameter or state */
  const char *line, *layer;  /* where it was recorded; NULL if not known */
} ni_node;

/* ---- recording: types ---- */

typedef struct ni_space {
  char *name;
  int parent;     /* -1 for the batch */
  int of, factor; /* its sequences are those of `of`, each `factor` steps made one; (itself, 1) if
                     their lengths are given */
} ni_space;

/* What an infer function sees and fills. Message prefixes and script lines are added by the
** caller: ni_fail(NEAP_ESHAPE, "inner widths differ: x %s, w %s", ...) is enough. */
typedef struct ni_infer {
  const struct ni_op *op;
  int n_in;
  const neap_type *in[NEAP_MAX_INPUTS]; /* NULL: left out */
  double *attr;                         /* presets filled in; may be normalised */
  const ni_space *space;
  int n_spaces;
  neap_type out[NEAP_MAX_OUTPUTS];
  int n_out;                            /* preset to op->outs */
} ni_infer;

/* A type as text, "[T,B,64]", "[B]", "i32 [T,B]", in one of eight per-thread buffers. */
const char *ni_type_text(const ni_infer *i, const neap_type *t);

/* ---- running: rows ---- */

/*
** The rows of one space in the present batch. Sequences are sorted by falling length (stable), so
** step t is the contiguous block off[t] .. off[t+1]-1 of those still alive, in the same order.
** Element s of the sequence of parent row p is row off[s] + rank[p].
** The batch: steps 1, off {0,B}, no perm.
**
** In a segment of the sequences (segment.c) these are the rows of some steps one after the other: off
** and len count what is here, perm and rank are those of the whole.
*/
typedef struct ni_rows {
  size_t rows, steps, parents;
  const uint32_t *off;   /* [steps+1] */
  const uint32_t *perm;  /* [parents] sorted position -> parent row */
  const uint32_t *rank;  /* [parents] parent row -> sorted position */
  const uint32_t *len;   /* [parents] length of each parent row's sequence */
  const uint32_t *owner; /* [rows] row -> parent row */
  const uint32_t *state; /* [parents] sorted position -> row of the attached state */
  const uint32_t *whole; /* [parents] in a segment: lengths of the whole sequences; else NULL */
  size_t step, row;      /* how many came before these, in earlier segments */
  size_t later;          /* rows in later segments */
} ni_rows;

static inline size_t ni_whole_length(const ni_rows *r, size_t parent) {
  return r->whole ? r->whole[parent] : r->len[parent];
}
/* Is the last step of this sequence here? */
static inline bool ni_ends_here(const ni_rows *r, size_t parent) {
  return r->len[parent] && r->step + r->len[parent] == ni_whole_length(r, parent);
}

typedef struct ni_view {
  void *data;   /* real or int32_t */
  void *grad;   /* real; NULL: no gradient wanted */
  size_t width; /* elements in a row */
  neap_type type;
} ni_view;

/* One slot of an attached state. */
typedef struct ni_slot {
  void *data;          /* [rows, width] float or int32_t: what the run starts from */
  void *next;          /* the same, where the final state goes; taken over when the run succeeds */
  const uint8_t *held; /* [rows]: rows that hold a value; others start from the program's init */
  size_t width;
} ni_slot;

/* One slot between two segments: [parents, width] at sorted positions, reals or int32_t. */
typedef struct ni_carry {
  void *first;         /* what a segment starts from; NULL: the sequences of this slot are whole */
  void *last;          /* what it leaves: the next one's first */
  void *dfirst, *dlast; /* their gradients, to be set and given; NULL: at the sequences' ends */
} ni_carry;

typedef struct ni_exec {
  const ni_view *view;    /* by value id */
  const ni_rows *rows;    /* by space */
  void *const *fixed;     /* by node index: what prepare packs; lives as long as the run */
  void *const *work;      /* by node index: kept from forward to backward */
  ni_slot *slot;          /* by slot; NULL: no state attached */
  neap_pool *pool;        /* for whole ops and backward_const only */
  uint64_t seed;          /* of this run and batch */
  bool learning;          /* dropout on */
  bool keeps;             /* backward may follow */
  int stream;             /* > 0: the space whose sequences are one step long */
  const ni_carry *carry;  /* by slot, in a segment; else NULL */
  bool again;             /* this forward of a segment is the one before its backward */
  size_t ahead;           /* so many steps at the end come later again: states are left before them */
  _Atomic int *canceled;
  struct ni_fault *fault; /* the first error met while running */
} ni_exec;

typedef struct ni_fault {
  _Atomic int set;
  neap_status status;
  const ni_node *node;
  size_t row;
  char text[160];
} ni_fault;
/* Notes an error at a row of the node's space, e.g. "id 57 is not in 0..41"; the first one wins.
** The op then goes on with something harmless (id 0). */
void ni_exec_fault(const ni_exec *x, const ni_node *n, neap_status status, size_t row,
                   const char *format, ...) NEAP_PRINTF(5, 6);

static inline int ni_space_of(const ni_exec *x, int value) { return x->view[value].type.space; }
/* Rows of a value: 1 if it is in no space. */
static inline size_t ni_rows_of(const ni_exec *x, int value) {
  int s = x->view[value].type.space;
  return s < 0 ? 1 : x->rows[s].rows;
}

/* Where a value's first element stands in the whole sequences: what its random numbers count from. */
static inline size_t ni_first_element(const ni_exec *x, int value) {
  int s = x->view[value].type.space;
  return s < 0 ? 0 : x->rows[s].row * x->view[value].width;
}
/* The slot's borders; NULL where sequences are whole. */
static inline const ni_carry *ni_carry_of(const ni_exec *x, int slot) {
  return x->carry && slot >= 0 && x->carry[slot].first ? &x->carry[slot] : NULL;
}
/* Does a segment start from what the one before it has left? */
static inline bool ni_goes_on(const ni_exec *x, int space) { return x->again || x->rows[space].step; }

/* Splits rows (or columns) 0..n-1 into shares for the pool: fn(x, node, from, to). Shares are
** multiples of `grain`. For whole ops and backward_const. */
typedef void (*ni_share)(const ni_exec *x, const ni_node *n, size_t from, size_t to);
void ni_exec_share(const ni_exec *x, const ni_node *n, size_t count, size_t grain, ni_share fn);
/* The same in pieces of at most `most`: a run that is canceled does not begin the next one. */
void ni_exec_pieces(const ni_exec *x, const ni_node *n, size_t count, size_t grain, size_t most,
                    ni_share fn);
/* How many rows a piece may have if each takes so many multiplications: 10 to 50 ms of work, but
** not so few rows that the weights would be read too often. */
static inline size_t ni_piece(size_t cost) {
  size_t rows = ((size_t)1 << 29) / (cost + 1);
  return rows < 128 ? 128 : rows;
}

/* ---- code ---- */

/*
** What a stream does for one node at each step, with everything looked up that stays the same. All
** rows hold a state, in the order of the rows.
*/
typedef struct ni_call {
  void (*fn)(struct ni_call *);
  const ni_exec *x;
  const ni_node *n;
  size_t rows;
  unsigned reads; /* bit k: somebody reads output k */
  void *to;       /* for the function's own use from here on */
  ni_slot *slot;
  size_t bytes;
  void (*kernel)(size_t rows, const NI_R(ni_step) *step);
  NI_R(ni_step) step;
} ni_call;

/*
** forward    computes rows r0..r1-1 of the outputs (for a value in no space: 0..1).
** backward   adds rows r0..r1-1 to the gradients of those inputs that are in the output's space.
** backward_const  adds to the gradients of the other inputs (parameters: summed over all rows),
**            called once after backward; in a loop, after the whole loop. NULL: none.
**            Every input is served in exactly one of the two. A view's grad NULL: skip it. Gradients
**            are always added to, never set.
** prepare    packs parameters into fixed[node]; called once before forward (backward false) or
**            before backward (true), again only when a non-row input changed. NULL: nothing.
** bind       sets call->fn, which does what forward would, for a stream; float only. NULL: forward.
** Ops with NI_WHOLE get forward and backward once, over all rows, and may use the pool there; all
** others are called with any shares of rows, from several threads at once.
*/
typedef struct ni_code {
  void (*forward)(const ni_exec *x, const ni_node *n, size_t r0, size_t r1);
  void (*backward)(const ni_exec *x, const ni_node *n, size_t r0, size_t r1);
  void (*backward_const)(const ni_exec *x, const ni_node *n);
  void (*prepare)(const ni_exec *x, const ni_node *n, bool backward);
  void (*bind)(ni_call *call);
} ni_code;

enum {
  NI_WHOLE = 1,      /* not row by row */
  NI_TIME = 2,       /* mixes time steps or changes the row space: refused inside a step */
  NI_FUTURE = 4,     /* reads later steps: refused in a stream */
  NI_NOGRAD = 8,     /* no gradient flows through */
  NI_ALIGN = 16,     /* inputs of an ancestor space are spread to the deepest one first */
  NI_SOURCE = 32,    /* no code: input, scalar, param, constant, state */
  NI_RECURRENT = 64, /* owns state slots, one for each of its outputs after the first */
  NI_RANDOM = 128,   /* draws numbers */
  NI_FOLDS = 256,    /* adds up over time: may be given a sequence in segments, first to last */
  NI_TURNS = 512,    /* the gradient of input 0 may lie where its data do: it is set then */
  NI_PICKS = 1024    /* of input 1's gradient adds to the rows that the ids of input 0 name */
};

typedef struct ni_op {
  const char *name;
  int in_min, in_max, outs;
  unsigned flags;
  const char *attrs;    /* "axis from=0 to": names, with a preset where one may be left out */
  unsigned keep_in;     /* bit i: backward reads the data of input i */
  unsigned keep_out;    /* bit i: backward reads the data of output i */
  neap_status (*infer)(ni_infer *i);
  size_t (*work)(const ni_exec *x, const ni_node *n);  /* reals kept for this batch; NULL: 0 */
  size_t (*fixed)(const ni_exec *x, const ni_node *n, bool backward); /* reals packed; NULL: 0 */
  const ni_code *code_f32, *code_f64;
  const char *formula;
} ni_op;

extern const ni_op ni_ops[];
extern const int ni_ops_count;
const ni_op *ni_op_find(const char *name); /* NULL if unknown */

/* ---- shared by the recurrent ops and the scan (rows.c); slot: index into x->slot ---- */

#include "../kernel/real.h"

/*
** The first state of sorted positions p0..p1-1 of `space` into dst [parents, width] (position p at
** dst + p*width): what the segment before this one has left; else from the attached state where the
** row holds a value, else from the value init (in the parent space; -1: zeros).
*/
void NI_R(ni_state_first)(const ni_exec *x, int space, int slot, int init, size_t p0, size_t p1,
                          size_t width, real *dst);
/* Adds dfirst (the gradient of that) to init's gradient, for rows that came from it; hands it to the
** segment before this one. */
void NI_R(ni_state_first_back)(const ni_exec *x, int space, int slot, int init, size_t p0,
                               size_t p1, size_t width, const real *dfirst);
/* Leaves row src (of sorted position p) for the next segment, and in the attached state. */
void NI_R(ni_state_last)(const ni_exec *x, int space, int slot, size_t p, size_t width,
                         const real *src);

#endif
