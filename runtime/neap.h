/*
** neap: recurrent sequence models that live inside Lua and C.
** The one public header of the C runtime. It knows nothing of Lua.
**
** Errors     Every function that can fail returns a neap_status; what it makes goes through its
**            first argument, NULL on failure. neap_errmsg() has the text: who, what was expected,
**            what came, where. On failure nothing has changed.
** Ownership  _new makes a counted reference that _release gives back; _open makes an exclusive
**            object that _close ends. Both accept NULL. Objects hold what they need: release
**            in any order.
** Threads    A model whose weights nobody writes is read-only and shared by any number of threads;
**            a run or a stream belongs to one thread at a time.
** Counting   Everything here counts from 0: arguments too, and so do messages about them. Only the
**            rows, sequences and steps of data that a message names ("id 9 is not in 0..4,
**            sequence 1, step 3") count from 1, as people do.
*/
#ifndef NEAP_H
#define NEAP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define NEAP_API __attribute__((visibility("default")))
#define NEAP_PRINTF(a, b) __attribute__((format(printf, a, b)))
#else
#define NEAP_API
#define NEAP_PRINTF(a, b)
#endif

#define NEAP_VERSION "0.1.0"

/* ---- status ------------------------------------------------------------------------------ */

typedef enum neap_status {
  NEAP_OK = 0,
  NEAP_EMEM,         /* memory could not be had */
  NEAP_EARG,         /* an argument is wrong: NULL, unknown name or option, closed object */
  NEAP_ESHAPE,       /* shapes do not fit each other */
  NEAP_ETYPE,        /* f32 where i32 is needed, or the reverse */
  NEAP_ERANGE,       /* an id, index or length is out of its range */
  NEAP_EIO,          /* the operating system said no: missing file, full disk */
  NEAP_EFORMAT,      /* a file is damaged or is not what it says */
  NEAP_EUNSUPPORTED, /* cannot be done with this program, e.g. streaming one that reads the future */
  NEAP_ECANCELED,    /* neap_run_cancel was called */
  NEAP_ENONFINITE,   /* a NaN or an infinity came up */
  NEAP_ESTATE        /* called in the wrong order, e.g. backward before forward */
} neap_status;

/* The text of this thread's last error; "" before the first. Valid until the thread's next error. */
NEAP_API const char *neap_errmsg(void);
/* "EMEM", "ESHAPE", ... ; "OK" for NEAP_OK. */
NEAP_API const char *neap_status_name(neap_status status);
/* "0.1.0" */
NEAP_API const char *neap_version(void);

/* ---- memory, processor, threads ---------------------------------------------------------- */

/* Like lua_Alloc: nsize 0 frees, ptr NULL allocates, else resizes. Must be thread-safe. */
typedef void *(*neap_alloc_fn)(void *ud, void *ptr, size_t osize, size_t nsize);

/* Replaces the allocator. To be called before anything else is made. fn NULL: malloc again. */
NEAP_API void neap_allocator_set(neap_alloc_fn fn, void *ud);
/* Bytes now held by the library. */
NEAP_API size_t neap_memory_live(void);

/* "avx512", "avx2", "neon" or "generic": the kernels in use. */
NEAP_API const char *neap_cpu_level(void);
/* The type of processor that OpenBLAS takes its kernels for, such as "SkylakeX". */
NEAP_API const char *neap_blas_core(void);
/* Takes other kernels, for tests and comparisons. EUNSUPPORTED if this processor lacks them. */
NEAP_API neap_status neap_cpu_select(const char *level);

/* Sets how many threads OpenBLAS uses in this process (it takes all cores unasked). Only training
** calls BLAS. The library itself never changes this setting. */
NEAP_API void neap_blas_threads(int threads);

typedef struct neap_pool neap_pool;
/* Worker threads for runs. threads >= 1 counts the calling thread. EARG, EMEM. */
NEAP_API neap_status neap_pool_new(neap_pool **pool, int threads);
NEAP_API void neap_pool_release(neap_pool *pool);
NEAP_API int neap_pool_threads(const neap_pool *pool);

/* ---- tensors ----------------------------------------------------------------------------- */

#define NEAP_MAX_RANK 4

typedef enum neap_dtype { NEAP_F32 = 0, NEAP_I32 = 1 } neap_dtype;

typedef struct neap_tensor neap_tensor;
/* A contiguous row-major tensor of zeros. rank 0 to 4; a dimension may be 0. EARG, ERANGE, EMEM. */
NEAP_API neap_status neap_tensor_new(neap_tensor **t, neap_dtype dtype, int rank, const size_t *dims);
/* Part `index` along the first axis, of one rank less, in the same memory, which it holds: what is
** written to one is read in the other, and either may be released first. EARG, ESHAPE for rank 0,
** ERANGE, EMEM. */
NEAP_API neap_status neap_tensor_part(neap_tensor **t, neap_tensor *of, size_t index);
NEAP_API void neap_tensor_retain(neap_tensor *t);
NEAP_API void neap_tensor_release(neap_tensor *t);
NEAP_API neap_dtype neap_tensor_dtype(const neap_tensor *t);
NEAP_API int neap_tensor_rank(const neap_tensor *t);
NEAP_API size_t neap_tensor_dim(const neap_tensor *t, int axis);
/* Number of elements. */
NEAP_API size_t neap_tensor_size(const neap_tensor *t);
/* The k largest of each row of x [R,V], the largest first, of equals the first first: where they
** stand, from 0, into ids i32 [R,k], and what they are into values f32 [R,k]. NaN and -infinity are
** never among them: where a row has too few others, its last ids are -1 and values -infinity. What
** a search needs of the scores of all symbols. EARG, ETYPE, ESHAPE. */
NEAP_API neap_status neap_tensor_top(neap_tensor *ids, neap_tensor *values, const neap_tensor *x);
/* One of each row of x [R,V], ln P or logits, by chance: where it stands, from 0, into ids i32 [R].
** Its chance is that of softmax(x / temperature), among the top_k largest (0: all; Fan et al. 2018)
** and of these the fewest that have the share top_p of the probability (1: all; Holtzman et al.
** 2020). random: R numbers from [0,1). NaN and -infinity are never drawn; -1 where there is nothing
** else. EARG, EMEM, ETYPE, ESHAPE. */
NEAP_API neap_status neap_tensor_draw(neap_tensor *ids, const neap_tensor *x, double temperature,
                                      size_t top_k, double top_p, const double *random);
/* The elements: float or int32_t by dtype. */
NEAP_API void *neap_tensor_data(neap_tensor *t);

/* ---- parameters -------------------------------------------------------------------------- */

/* Named parameters in one vector, apart from the programs that name them. */
typedef struct neap_params neap_params;

NEAP_API neap_status neap_params_new(neap_params **p);
NEAP_API void neap_params_retain(neap_params *p);
NEAP_API void neap_params_release(neap_params *p);
/* Adds a parameter of zeros. EARG for a name that exists with another shape (the same shape: its
** id again, which is how weights are tied), ERANGE, EMEM. */
NEAP_API neap_status neap_params_add(int *id, neap_params *p, const char *name, int rank,
                                     const size_t *dims);
/* The id of a name, -1 if there is none. */
NEAP_API int neap_params_find(const neap_params *p, const char *name);
NEAP_API int neap_params_count(const neap_params *p);
/* Numbers in all parameters together. */
NEAP_API size_t neap_params_size(const neap_params *p);
NEAP_API const char *neap_params_name(const neap_params *p, int id);
NEAP_API int neap_params_rank(const neap_params *p, int id);
NEAP_API size_t neap_params_dim(const neap_params *p, int id, int axis);
/* The values; stays valid until the next _add. After writing call neap_params_touch. */
NEAP_API float *neap_params_data(neap_params *p, int id);
/* The gradient, summed by neap_run_backward until neap_params_zero_grad; stays valid until the next
** _add. Made at first use: NULL when memory is short. Of a table that only embeddings read, the
** rows of a batch are added to, cleared, and looked at by the optimizer; whoever has had the address
** may write anywhere, so from then on it is all rows. */
NEAP_API float *neap_params_grad(neap_params *p, int id);
/* Copies the gradient out, zeros if there is none yet. count: numbers of the parameter. EARG,
** ESHAPE. */
NEAP_API neap_status neap_params_read_grad(const neap_params *p, int id, float *data, size_t count);
NEAP_API void neap_params_zero_grad(neap_params *p);
/* Tells runs and streams that values were written, so that packed copies are made anew. */
NEAP_API void neap_params_touch(neap_params *p);
/* A frozen parameter gets no gradient and no update; gradients still flow through. A model file says
** what is frozen. */
NEAP_API void neap_params_freeze(neap_params *p, int id, int frozen);
NEAP_API int neap_params_frozen(const neap_params *p, int id);

typedef enum neap_init {
  NEAP_INIT_CONSTANT,  /* a */
  NEAP_INIT_UNIFORM,   /* between a and b */
  NEAP_INIT_NORMAL,    /* mean a, standard deviation b */
  NEAP_INIT_ORTHOGONAL /* rows (or columns, whichever are fewer) orthonormal, times a; blocks of b
                          rows each on their own when b > 0 (the gates of an LSTM) */
} neap_init;
/* Writes start values, drawn from seed and the parameter's name. EARG. */
NEAP_API neap_status neap_params_init(neap_params *p, int id, neap_init kind, double a, double b,
                                      uint64_t seed);
/* Copies all values. EARG if the sets differ. */
NEAP_API neap_status neap_params_copy(neap_params *to, const neap_params *from);
/* to += share * (from - to), all values: an average that moves. EARG if the sets differ or the
** share is not in 0..1. */
NEAP_API neap_status neap_params_mix(neap_params *to, const neap_params *from, double share);
/* Threads for what goes through all numbers of the set: zero_grad, an optimizer's step, copies and
** mixtures from it. NULL, as at first: the caller alone. The results are the same bits. The set keeps
** what it needs of the pool. */
NEAP_API neap_status neap_params_pool(neap_params *p, const neap_pool *pool);

/* ---- programs ---------------------------------------------------------------------------- */

/*
** A program is a list of recorded nodes. A value has a dtype, a row space and up to three feature
** dimensions. Row spaces are the symbols of a program: space 0 is the batch, B rows; a sequence
** space has, for each row of its parent space, a sequence of rows (T steps, ragged). At the border
** a value of a sequence space over the batch is [T,B,...]; one in no space (NEAP_NO_SPACE) is a
** plain tensor. A feature dimension is a number, or NEAP_LONGEST(space).
*/
typedef struct neap_program neap_program;

#define NEAP_NO_SPACE (-1)
#define NEAP_MAX_FEATURES 3
#define NEAP_MAX_SPACES 8
/* The feature dimension "longest sequence of this space": what neap's op padded makes. */
#define NEAP_LONGEST(space) (-1 - (int32_t)(space))

typedef struct neap_type {
  neap_dtype dtype;
  int space;
  int rank;                        /* feature dimensions */
  int32_t dim[NEAP_MAX_FEATURES];
} neap_type;

NEAP_API neap_status neap_program_new(neap_program **pr, neap_params *params);
NEAP_API void neap_program_retain(neap_program *pr);
NEAP_API void neap_program_release(neap_program *pr);
NEAP_API neap_params *neap_program_params(neap_program *pr);

/* A sequence space over parent (0 the batch, or another sequence space). A name that exists over
** the same parent gives its id again. EARG, EMEM. */
NEAP_API neap_status neap_program_space(int *space, neap_program *pr, const char *name, int parent);
/* The sequence space whose steps are `steps` (2 or more) of those of the sequence space `of` made
** one, the last of what is left: "T/2" over the parent of "T". Its lengths follow from those of "T".
** EARG, ERANGE, EMEM. */
NEAP_API neap_status neap_program_folded(int *space, neap_program *pr, int of, int steps);
/* Where the nodes recorded from now on come from: a script line ("file.lua:14") and a layer's
** path ("encoder.1"). NULL: none. EMEM. */
NEAP_API neap_status neap_program_where(neap_program *pr, const char *line, const char *layer);

/* An input of every run. EARG for a name taken, EMEM. */
NEAP_API neap_status neap_program_input(int *value, neap_program *pr, const char *name,
                                        const neap_type *type);
/* A number that may change between runs, such as a dropout rate. */
NEAP_API neap_status neap_program_scalar(int *value, neap_program *pr, const char *name,
                                         double preset);
/* A parameter of the program's set, by name. EARG if there is none. */
NEAP_API neap_status neap_program_param(int *value, neap_program *pr, const char *name);
/* A number baked into the program. */
NEAP_API neap_status neap_program_constant(int *value, neap_program *pr, double number);

typedef struct neap_attr {
  const char *name;
  double value;
} neap_attr;
#define NEAP_MAX_INPUTS 12
#define NEAP_MAX_OUTPUTS 4
/* Records one op. values receives the ids of its outputs (at most NEAP_MAX_OUTPUTS), *n_values how
** many. inputs may hold -1 for an optional input left out. EARG for an unknown op or attribute
** (the nearest known one is named), ESHAPE, ETYPE, EMEM. */
NEAP_API neap_status neap_program_add(int *values, int *n_values, neap_program *pr, const char *op,
                                      const int *inputs, int n_inputs, const neap_attr *attrs,
                                      int n_attrs);

/*
** A loop over the steps of a sequence space, for cells of the caller's own: begin, declare states,
** record the step with ordinary ops, say what each state becomes, end. Between begin and end, ops
** that mix time steps are refused. init -1: zeros. Nodes that do not need the state are run over
** all steps at once, before or after the loop.
*/
NEAP_API neap_status neap_program_scan_begin(neap_program *pr, int space);
/* A state of the open scan: its value at the start of each step. type->space is ignored. A dimension
** may be NEAP_LONGEST(another space). */
NEAP_API neap_status neap_program_scan_state(int *value, neap_program *pr, const char *name,
                                             const neap_type *type, int init);
/* What state is at the next step. ESHAPE, ETYPE. */
NEAP_API neap_status neap_program_scan_next(neap_program *pr, int state, int next);
/* Closes the scan. ESTATE if a state has no next. */
NEAP_API neap_status neap_program_scan_end(neap_program *pr);

/* Names a value as an output. EARG for a name taken. */
NEAP_API neap_status neap_program_output(neap_program *pr, const char *name, int value);

NEAP_API neap_status neap_program_type(neap_type *type, const neap_program *pr, int value);
NEAP_API int neap_program_nodes(const neap_program *pr);
NEAP_API int neap_program_spaces(const neap_program *pr);
NEAP_API const char *neap_program_space_name(const neap_program *pr, int space);
NEAP_API int neap_program_space_parent(const neap_program *pr, int space);
/* The space that a folded one is made of, and how many of its steps are one; itself and 1 if it is
** not folded; -1 and 0 if there is no such space. */
NEAP_API int neap_program_space_of(const neap_program *pr, int space);
NEAP_API int neap_program_space_factor(const neap_program *pr, int space);
NEAP_API int neap_program_find_space(const neap_program *pr, const char *name);
/* Ids of named inputs and outputs; -1 if there is none. */
NEAP_API int neap_program_find_input(const neap_program *pr, const char *name);
NEAP_API int neap_program_find_output(const neap_program *pr, const char *name);
NEAP_API int neap_program_inputs(const neap_program *pr);
NEAP_API const char *neap_program_input_name(const neap_program *pr, int index, int *value);
NEAP_API int neap_program_outputs(const neap_program *pr);
NEAP_API const char *neap_program_output_name(const neap_program *pr, int index, int *value);
/* Why this program cannot be streamed: NULL if it can; else which layer and line read the future. */
NEAP_API const char *neap_program_reads_future(const neap_program *pr);
/* The program as text, one node a line with shape and script line; or as the JSON that files
** carry. The caller frees with neap_text_free. EMEM. */
NEAP_API neap_status neap_program_print(char **text, const neap_program *pr);
NEAP_API neap_status neap_program_json(char **text, const neap_program *pr);
/* Rebuilds a program from its JSON, checking every node as if it were recorded. EFORMAT, EMEM. */
NEAP_API neap_status neap_program_parse(neap_program **pr, neap_params *params, const char *text,
                                        size_t length);
NEAP_API void neap_text_free(char *text);
/* NULL if both programs are the same but for script lines; else a text (this thread's buffer) that
** names both lines of the first difference. */
NEAP_API const char *neap_program_differ(const neap_program *a, const neap_program *b);

/* The op table, for printing and tests: name, attributes; NULL past the end. */
typedef struct neap_op_info {
  const char *name;
  int min_inputs, max_inputs, outputs;
  const char *attrs[8]; /* NULL-terminated */
  const char *formula;  /* what it computes, with shapes */
  int mixes_time, reads_future, differentiable;
} neap_op_info;
NEAP_API const neap_op_info *neap_op_describe(int index);

/* ---- state ------------------------------------------------------------------------------- */

/* What the recurrent layers of a program carry from one run to the next: for each slot a matrix
** [rows, width]. A value: read, set, cloned, reset by row, gathered. */
typedef struct neap_state neap_state;
NEAP_API neap_status neap_state_new(neap_state **s, const neap_program *pr, size_t rows);
NEAP_API neap_status neap_state_clone(neap_state **s, const neap_state *from);
/* Copies all rows; both must be of the same program and have the same rows. ESHAPE. */
NEAP_API neap_status neap_state_copy(neap_state *to, const neap_state *from);
NEAP_API void neap_state_retain(neap_state *s);
NEAP_API void neap_state_release(neap_state *s);
NEAP_API size_t neap_state_rows(const neap_state *s);
NEAP_API int neap_state_slots(const neap_state *s);
/* A slot with a dimension NEAP_LONGEST(space) has width 0 until a batch says it, and changes it with
** the batch while no row holds a value; later that fails with ESHAPE. */
NEAP_API const char *neap_state_slot(const neap_state *s, int slot, neap_dtype *dtype, size_t *width);
/* Gives such a slot its width before numbers are written into it. EARG for any other slot, ESHAPE if a
** row holds a value. */
NEAP_API neap_status neap_state_widen(neap_state *s, int slot, size_t width);
/* The slot's numbers [rows, width]; float or int32_t. They move: valid until the next run, step or
** change of rows. */
NEAP_API void *neap_state_data(neap_state *s, int slot);
/* 1 if a row holds a value; 0 if it starts from the program's own initial state (or is no row). */
NEAP_API int neap_state_marked(const neap_state *s, size_t row);
/* Marks a row as holding a value (after writing through neap_state_data). A row that does not
** starts from the program's own initial state. EARG, ERANGE. */
NEAP_API neap_status neap_state_mark(neap_state *s, size_t row);
/* Back to the initial state: rows NULL means all. ERANGE. */
NEAP_API neap_status neap_state_reset(neap_state *s, const int32_t *rows, size_t n);
/* Row i becomes what row from[i] was. n may differ from the rows until now. ERANGE, EMEM. */
NEAP_API neap_status neap_state_gather(neap_state *s, const int32_t *from, size_t n);

/* ---- runs -------------------------------------------------------------------------------- */

typedef struct neap_run neap_run;

enum {
  NEAP_LEARN = 1,   /* keep what backward needs; dropout is on */
  NEAP_DOUBLE = 2,  /* compute in double with plain kernels, for gradient checks */
  NEAP_CHECK = 4,   /* look for NaN and infinity after every node, not only in the outputs */
  NEAP_TELL = 8,    /* takes no memory for values: only to be asked what it would take */
  NEAP_RECOMPUTE = 16 /* sequences in segments, forward twice: see neap_run_whole */
};

typedef struct neap_run_options {
  unsigned flags;
  neap_pool *pool;  /* NULL: one thread. Held by the run. */
  uint64_t seed;    /* of dropout and sampling */
  size_t max_rows;  /* refuse batches with more rows in any space; 0: 2^31-1 */
} neap_run_options;

/* options NULL: all zero. From now on nothing more can be recorded into pr. EARG, ESTATE, EMEM. */
NEAP_API neap_status neap_run_open(neap_run **run, neap_program *pr, const neap_run_options *options);
NEAP_API void neap_run_close(neap_run *run);

/* Shapes first: the batch, then the lengths of each sequence space, parents before children, one
** for each row of the parent in the caller's order (for a nested space: the parent's rows sequence
** after sequence). Any order, 0 allowed. ERANGE, ESTATE, EMEM. */
NEAP_API neap_status neap_run_batch(neap_run *run, size_t rows);
NEAP_API neap_status neap_run_lengths(neap_run *run, int space, const int32_t *lengths, size_t n);

typedef enum neap_layout {
  NEAP_PADDED, /* [T,B,...]: time first; what is past a row's length is never read */
  NEAP_CONCAT  /* the sequences one after the other, no padding; the only layout of nested spaces */
} neap_layout;
/* Copies an input in. count: elements in data, checked. EARG, ESHAPE, ETYPE, ENONFINITE, EMEM. */
NEAP_API neap_status neap_run_input_f32(neap_run *run, int value, neap_layout layout,
                                        const float *data, size_t count);
NEAP_API neap_status neap_run_input_i32(neap_run *run, int value, neap_layout layout,
                                        const int32_t *data, size_t count);
/* Sets a neap_program_scalar; stays for later runs. */
NEAP_API neap_status neap_run_scalar(neap_run *run, int value, double number);
/* The state to start from and to leave the final state in; NULL: none. Held by the run. ESHAPE. */
NEAP_API neap_status neap_run_state(neap_run *run, neap_state *state);
/* Draws from the next forward on as a run of that seed does after `drawn` forwards. */
NEAP_API void neap_run_seed(neap_run *run, uint64_t seed, uint64_t drawn);
/* How many forwards it has drawn for; into seed, unless that is NULL, from which seed. */
NEAP_API uint64_t neap_run_drawn(const neap_run *run, uint64_t *seed);
NEAP_API void neap_run_learning(neap_run *run, int on); /* dropout on or off in a NEAP_LEARN run */

/* Runs all nodes. ESTATE if an input is missing, ERANGE for an id out of range, ECANCELED,
** ENONFINITE, EMEM. */
NEAP_API neap_status neap_run_forward(neap_run *run);
/* Adds d(value)/d(parameter) to the parameters' gradients. value: a single number. Needs
** NEAP_LEARN. Once for each forward: it uses up what forward kept. ESTATE, ESHAPE, ECANCELED. */
NEAP_API neap_status neap_run_backward(neap_run *run, int value);
/* The same from a gradient for each element of value (padded or concat as layout says). */
NEAP_API neap_status neap_run_backward_from(neap_run *run, int value, neap_layout layout,
                                            const float *grad, size_t count);
/* After a non-finite gradient: runs forward and backward once more and looks at every number.
** ENONFINITE names the first bad tensor, its layer, step and script line; OK: none was found. */
NEAP_API neap_status neap_run_find_nonfinite(neap_run *run, int value);
/* Keeps a value readable that is not an output, and with gradient its gradient too (also of
** outputs and inputs). To be called before the batch is set. EARG. */
NEAP_API neap_status neap_run_keep(neap_run *run, int value, int gradient);
/* Elements of a value at the run's present shapes, in that layout. */
NEAP_API neap_status neap_run_count(size_t *count, const neap_run *run, int value, neap_layout layout);
/* Copies a value, or its gradient, out; padding is 0. Outputs, inputs, parameters and what
** neap_run_keep was called for. ESTATE, ESHAPE, ETYPE. */
NEAP_API neap_status neap_run_read_f32(neap_run *run, int value, neap_layout layout, float *data,
                                       size_t count);
NEAP_API neap_status neap_run_read_i32(neap_run *run, int value, neap_layout layout, int32_t *data,
                                       size_t count);
NEAP_API neap_status neap_run_grad_f32(neap_run *run, int value, neap_layout layout, float *data,
                                       size_t count);
/* The same in double, for a NEAP_DOUBLE run (and, widened, for any other). */
NEAP_API neap_status neap_run_read_f64(neap_run *run, int value, neap_layout layout, double *data,
                                       size_t count);
/* A NEAP_DOUBLE run computes on its own copy of the parameters: read its gradient, move a value. */
NEAP_API neap_status neap_run_param_grad_f64(neap_run *run, int id, double *data, size_t count);
NEAP_API neap_status neap_run_param_shift_f64(neap_run *run, int id, size_t element, double shift);
/* Steps of a sequence space and rows of any space in the present batch. */
NEAP_API size_t neap_run_steps(const neap_run *run, int space);
NEAP_API size_t neap_run_rows(const neap_run *run, int space);
/* Bytes of the library's memory that the run holds. A batch that needs more than those before it
** makes the run take it. */
NEAP_API size_t neap_run_bytes(const neap_run *run);
/* Finds the places of all values for the batch and the lengths that were set, and tells what
** neap_run_bytes is from then on: nothing more is taken until the shapes change. A run opened with
** NEAP_TELL takes no memory for values and tells the same number as the run opened alike without.
** ESTATE if a shape is missing, EMEM. */
NEAP_API neap_status neap_run_plan(size_t *bytes, neap_run *run);
/*
** A NEAP_RECOMPUTE run takes sequences in segments of about the square root of their steps. Forward
** keeps the states of recurrent layers and cells at their borders only; backward goes from the last
** segment to the first and runs each forward once more. What grows with the number of steps T is
** then its square root, but for inputs, outputs that have an element at each step (and their
** gradients, in a NEAP_LEARN run), and kept values. Gradients are those of another run but for
** rounding, with the same random numbers; a training step takes about a third longer. Parts that need
** a whole sequence (a reversed layer, attention to it, what reads a mean over time again) and what they
** are made of are not taken in segments: neap_run_whole says which node is the first of them; NULL if
** there is none. Where nothing is left, neap_run_open fails: EUNSUPPORTED. One sequence space is taken
** in segments: the one with most of the program.
*/
NEAP_API const char *neap_run_whole(const neap_run *run);
/* From any thread or signal handler: the run ends with ECANCELED at its next time step or, in a
** large product, piece of some 10 to 50 ms. */
NEAP_API void neap_run_cancel(neap_run *run);

/* ---- streams ----------------------------------------------------------------------------- */

/*
** A stream runs a program one step at a time and carries its state. All memory is taken at open;
** a step allocates nothing, takes no lock and calls no BLAS.
*/
typedef struct neap_model neap_model;
typedef struct neap_stream neap_stream;

typedef struct neap_stream_options {
  const char *program; /* NULL: the model's "predict", or its only program */
  size_t rows;         /* rows stepped together; 0: 1 */
  uint64_t seed;
  size_t block;        /* steps that one call may make at most; 0: 1 */
  size_t lookahead;    /* steps of the future that the program may read; 0: none */
} neap_stream_options;

/* options NULL: all zero. EUNSUPPORTED if a layer reads the future. */
NEAP_API neap_status neap_stream_open(neap_stream **s, neap_model *model,
                                      const neap_stream_options *options);
/* The same for a program that is not in a model. */
NEAP_API neap_status neap_stream_open_program(neap_stream **s, neap_program *pr,
                                              const neap_stream_options *options);
NEAP_API void neap_stream_close(neap_stream *s);
/* The stream's own buffers, fixed for its life: input index (in the program's order of inputs that
** are read at each step), [rows, width]. NULL if there is none or it has the other dtype. */
NEAP_API float *neap_stream_input_f32(neap_stream *s, int index, size_t *count);
NEAP_API int32_t *neap_stream_input_i32(neap_stream *s, int index, size_t *count);
NEAP_API const float *neap_stream_output_f32(neap_stream *s, int index, size_t *count);
NEAP_API const int32_t *neap_stream_output_i32(neap_stream *s, int index, size_t *count);
/* Their names in the program; NULL past the end. */
NEAP_API const char *neap_stream_input_name(const neap_stream *s, int index);
NEAP_API const char *neap_stream_output_name(const neap_stream *s, int index);
/* ERANGE for an id out of range, ENONFINITE for NaN or infinity in an input, ESTATE if a context is
** missing: then nothing has changed, and the next step may be good. Outputs are not looked at, which
** would cost a small step as much again: numbers may grow past all bounds in a network without any,
** and neap_stream_reset begins anew. */
NEAP_API neap_status neap_stream_step(neap_stream *s);
/* The first n steps of a block at once, all or none, to the same bits as one by one: large layers
** read their input weights once for all of them. With a block of 2 or more at open, buffers are
** [block, rows, width] and stay as many rows; a context is refused. ERANGE for an id out of range
** or n over the block, ENONFINITE. */
NEAP_API neap_status neap_stream_steps(neap_stream *s, size_t n);
/* The block it was opened with; 1 if none. */
NEAP_API size_t neap_stream_block(const neap_stream *s);
/*
** A stream that looks ahead runs bidirectional layers too. It keeps the last `lookahead` steps it was
** given, and the outputs of a step come when so many later ones are there: outputs [block, rows,
** width] then hold those of neap_stream_given steps, the oldest first. Layers that go onward carry
** their state, to the bits of a stream without look-ahead. Layers that go backwards start anew in
** each call, from the last step that is there: what is farther in the future does not reach them,
** and with a look-ahead that reaches the sequence's end the bits are those of a run over all of it.
** At that end neap_stream_finish gives what is left. Refused (EUNSUPPORTED): what takes a whole
** sequence together, as a mean over time does, and a context.
*/
/* Steps that outputs come late: the look-ahead. */
NEAP_API size_t neap_stream_latency(const neap_stream *s);
/* Steps whose outputs the last neap_stream_step, _steps or _finish has given. */
NEAP_API size_t neap_stream_given(const neap_stream *s);
/* Steps whose outputs are still to come: they were given to a stream that looks ahead. */
NEAP_API size_t neap_stream_pending(const neap_stream *s);
/* No more input comes: gives the outputs of the oldest pending steps, a block of them at most. To be
** called until none are pending. Errors as neap_stream_steps. */
NEAP_API neap_status neap_stream_finish(neap_stream *s);
/* Sets a neap_program_scalar of the stream's program. EARG, ENONFINITE. */
NEAP_API neap_status neap_stream_scalar(neap_stream *s, int value, double number);
/* The stream's state; its rows follow a gather. Owned by the stream. */
NEAP_API neap_state *neap_stream_state(neap_stream *s);
/* All rows back to the initial state; no step is pending. */
NEAP_API void neap_stream_reset(neap_stream *s);

/*
** Decoding: a stream over one sequence space of a program whose other inputs (encoder outputs, the
** first state) are given once: neap_stream_context_batch, then the lengths and values of those
** inputs. Row r of the stream reads source row source[r] of the batch.
*/
/* Rows of the batch from now on; the stream has as many rows, each reading its own, and starts
** anew. Pointers to buffers of the stream end. ERANGE, EMEM. */
NEAP_API neap_status neap_stream_context_batch(neap_stream *s, size_t rows);
/* As many as that batch has now. */
NEAP_API size_t neap_stream_sources(const neap_stream *s);
NEAP_API neap_status neap_stream_context_lengths(neap_stream *s, int space, const int32_t *lengths,
                                                 size_t n);
NEAP_API neap_status neap_stream_context_f32(neap_stream *s, int value, neap_layout layout,
                                             const float *data, size_t count);
NEAP_API neap_status neap_stream_context_i32(neap_stream *s, int value, neap_layout layout,
                                             const int32_t *data, size_t count);
/* Rows from now on and the source row of each; state rows become what rows from[i] were (from
** NULL: all rows start anew). With another number of rows than before, pointers to buffers of the
** stream end and memory may be taken. ERANGE, EMEM. */
NEAP_API neap_status neap_stream_rows(neap_stream *s, const int32_t *source, const int32_t *from,
                                      size_t n);

/* ---- models ------------------------------------------------------------------------------ */

/* Parameters, named programs and a text of the caller's own (vocabularies, settings). */
NEAP_API neap_status neap_model_new(neap_model **m, neap_params *params);
NEAP_API void neap_model_retain(neap_model *m);
NEAP_API void neap_model_release(neap_model *m);
/* Adds or replaces. EARG if the program uses another set of parameters. */
NEAP_API neap_status neap_model_add(neap_model *m, const char *name, neap_program *pr);
/* A program by name; NULL if there is none. Owned by the model. */
NEAP_API neap_program *neap_model_program(neap_model *m, const char *name);
NEAP_API int neap_model_programs(const neap_model *m);
NEAP_API const char *neap_model_program_name(const neap_model *m, int index);
NEAP_API neap_params *neap_model_params(neap_model *m);
/* Text entries of the caller's own; set NULL removes. get: NULL if there is none. */
NEAP_API neap_status neap_model_set_text(neap_model *m, const char *key, const char *text);
NEAP_API const char *neap_model_text(const neap_model *m, const char *key);
NEAP_API int neap_model_texts(const neap_model *m);
NEAP_API const char *neap_model_text_key(const neap_model *m, int index);
/* Writes a safetensors file with the programs in its metadata: first to a temporary file beside
** it, then renamed, so that a full disk leaves the old one. EFORMAT for parameters that are no
** finite numbers, EIO, EMEM. */
NEAP_API neap_status neap_model_save(const neap_model *m, const char *path);
/* Strict: every tensor is used once, every number checked; a whole model or none. EIO, EFORMAT, EMEM. */
NEAP_API neap_status neap_model_load(neap_model **m, const char *path);
NEAP_API neap_status neap_model_load_memory(neap_model **m, const void *data, size_t size);

/* ---- plain tensors in files -------------------------------------------------------------- */

/* A set of named tensors, as a safetensors file: what PyTorch and others read and write. */
typedef struct neap_archive neap_archive;
NEAP_API neap_status neap_archive_new(neap_archive **a);
NEAP_API void neap_archive_release(neap_archive *a);
NEAP_API neap_status neap_archive_add(neap_archive *a, const char *name, neap_tensor *t);
NEAP_API neap_status neap_archive_set_text(neap_archive *a, const char *key, const char *text);
NEAP_API int neap_archive_count(const neap_archive *a);
NEAP_API const char *neap_archive_name(const neap_archive *a, int index);
NEAP_API neap_tensor *neap_archive_tensor(neap_archive *a, const char *name);
NEAP_API int neap_archive_texts(const neap_archive *a);
NEAP_API const char *neap_archive_text_key(const neap_archive *a, int index);
NEAP_API const char *neap_archive_text(const neap_archive *a, const char *key);
NEAP_API neap_status neap_archive_save(const neap_archive *a, const char *path);
NEAP_API neap_status neap_archive_load(neap_archive **a, const char *path);
NEAP_API neap_status neap_archive_load_memory(neap_archive **a, const void *data, size_t size);

/* ---- training ---------------------------------------------------------------------------- */

typedef struct neap_optim neap_optim;
typedef enum neap_optim_kind {
  NEAP_SGD,
  NEAP_RMSPROP,
  NEAP_ADAM,
  NEAP_ADAMW,
  NEAP_NESTEROV,
  NEAP_ADAGRAD,
  NEAP_ADADELTA
} neap_optim_kind;

typedef struct neap_optim_options {
  neap_optim_kind kind;
  double rate;
  double momentum;     /* SGD, RMSprop: 0; Nesterov: 0.9 */
  double decay;        /* RMSprop's alpha: 0.99; Adadelta's rho: 0.9 */
  double beta1, beta2; /* Adam: 0.9, 0.999 */
  double eps;          /* 1e-8 */
  double weight_decay; /* AdamW: decoupled; the others: added to the gradient */
  double clip_norm;    /* bound of the gradient's 2-norm over the group; 0: none */
  double clip_value;   /* bound of each element's size; 0: none */
  int lazy;            /* 1: where a batch gives no gradient (rows of a table that only embeddings
                          read and no id names), neither values nor the optimizer's memory of them
                          change, as if there were no decay; 0: as the formula says */
} neap_optim_options;

/* "sgd", "rmsprop", ..; NULL if there is no such kind. takes (may be NULL): its options beside
** those of all, "decay momentum eps". */
NEAP_API const char *neap_optim_name(neap_optim_kind kind, const char **takes);
/* The usual values of a kind. */
NEAP_API neap_optim_options neap_optim_preset(neap_optim_kind kind);
/* Owns the update of the parameters in ids (NULL: all of p, also later ones). EARG, EMEM. */
NEAP_API neap_status neap_optim_new(neap_optim **o, neap_params *p, const int *ids, int n,
                                    const neap_optim_options *options);
NEAP_API void neap_optim_release(neap_optim *o);
NEAP_API void neap_optim_rate(neap_optim *o, double rate);
/* The parameters in ids take `rate` times the optimizer's rate, and this weight decay (< 0: the
** optimizer's). Clipping stays over all. EARG, EMEM. */
NEAP_API neap_status neap_optim_group(neap_optim *o, const int *ids, int n, double rate,
                                      double weight_decay);
typedef struct neap_optim_report {
  double norm;                 /* gradient norm before clipping, of the last step */
  uint64_t steps;
  uint64_t clipped_norm;       /* steps in which the norm was clipped */
  uint64_t clipped_value;      /* steps in which some element was clipped */
  double rate;
} neap_optim_report;
/* Clips, updates, leaves gradients as they are. With a NaN or infinity in the gradient nothing is
** updated: ENONFINITE names the parameter. EMEM at the first step. */
NEAP_API neap_status neap_optim_step(neap_optim *o);
NEAP_API neap_optim_report neap_optim_reported(const neap_optim *o);
/* The optimizer's memory as an archive and back, to resume to the same bits. */
NEAP_API neap_status neap_optim_save(const neap_optim *o, neap_archive *a, const char *prefix);
NEAP_API neap_status neap_optim_load(neap_optim *o, neap_archive *a, const char *prefix);

#ifdef __cplusplus
}
#endif
#endif
