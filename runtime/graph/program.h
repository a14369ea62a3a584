/*
** Floor 4: programs. A program is a list of nodes in the order they were recorded; a scan marks
** the nodes of one cell's step. What is run once, before, in or after a loop is derived from who
** needs whom (schedule.c), never written down.
*/
#ifndef NI_PROGRAM_H
#define NI_PROGRAM_H

#include "../op/op.h"
#include "../tensor/params.h"

/* Planning takes the square of them: a bound that no model reaches, but a hostile file. */
#define NI_MAX_NODES 16384
#define NI_MAX_FOLD 65536 /* steps that are made one */
#define NI_MAX_NAMED 1024 /* inputs; outputs */
#define NI_MAX_WHERE 1000 /* bytes of a line's or a layer's name */

typedef struct ni_value {
  neap_type type;
  int node;
} ni_value;

/* A state of a scan: the value at the start of a step, where it starts, what it becomes. */
typedef struct ni_state_info {
  int value, init, next, scan, slot;
} ni_state_info;

typedef struct ni_scan {
  int space;
  const char *line;
} ni_scan;

typedef struct ni_slot_info {
  char *name;
  neap_dtype dtype;
  size_t width; /* 0: as wide as the longest sequence of another space, which each batch says */
  int space;    /* the sequence space it runs along */
  int value;    /* that is as wide */
} ni_slot_info;

typedef struct ni_named {
  const char *name;
  int value;
} ni_named;

typedef struct ni_string {
  uint64_t hash; /* ni_hash(s) */
  char *s;
} ni_string;

struct neap_program {
  _Atomic int refs;
  _Atomic bool fixed; /* a run stands on it: nothing more is recorded */
  neap_params *params;
  ni_space space[NEAP_MAX_SPACES];
  int n_spaces;
  ni_node *node;
  int n_nodes;
  size_t cap_nodes;
  ni_value *value;
  int n_values;
  size_t cap_values;
  ni_scan *scan;
  int n_scans;
  size_t cap_scans;
  int open_scan; /* -1 */
  ni_state_info *state;
  int n_states;
  size_t cap_states;
  ni_slot_info *slot;
  int n_slots;
  size_t cap_slots;
  ni_named *input, *output; /* inputs include scalars */
  int n_inputs, n_outputs;
  size_t cap_inputs, cap_outputs;
  ni_string *string; /* every name and line once */
  int n_strings;
  size_t cap_strings;
  const char *line, *layer; /* of the nodes recorded now */
};

/* The nodes that have no code. */
extern const ni_op ni_op_input, ni_op_scalar, ni_op_param, ni_op_constant, ni_op_state;

neap_status ni_program_new(neap_program **pr, neap_params *params);
void ni_program_retain(neap_program *pr);
void ni_program_release(neap_program *pr);
neap_status ni_program_space(int *space, neap_program *pr, const char *name, int parent);
neap_status ni_program_folded(int *space, neap_program *pr, int of, int steps);
neap_status ni_program_where(neap_program *pr, const char *line, const char *layer);
neap_status ni_program_input(int *value, neap_program *pr, const char *name, const neap_type *type);
neap_status ni_program_scalar(int *value, neap_program *pr, const char *name, double preset);
neap_status ni_program_param(int *value, neap_program *pr, const char *name);
neap_status ni_program_constant(int *value, neap_program *pr, double number);
neap_status ni_program_add(int *values, int *n_values, neap_program *pr, const char *op,
                           const int *inputs, int n_inputs, const neap_attr *attrs, int n_attrs);
neap_status ni_program_scan_begin(neap_program *pr, int space);
neap_status ni_program_scan_state(int *value, neap_program *pr, const char *name,
                                  const neap_type *type, int init);
neap_status ni_program_scan_next(neap_program *pr, int state, int next);
neap_status ni_program_scan_end(neap_program *pr);
neap_status ni_program_output(neap_program *pr, const char *name, int value);
int ni_program_find_output(const neap_program *pr, const char *name);
int ni_program_find_input(const neap_program *pr, const char *name);

/* True if space `of` is `space` or stands below it. */
bool ni_program_below(const neap_program *pr, int of, int space);
/* The type of a value as text; see ni_type_text. */
const char *ni_program_type_text(const neap_program *pr, const neap_type *t);
/* " (file.lua:14)" or "" in a per-thread buffer: the end of a message. */
const char *ni_program_at(const ni_node *n);
/* "lstm of layer net.2" or "lstm" in a per-thread buffer. */
const char *ni_program_who(const ni_node *n);

/* text.c */
neap_status ni_program_print(char **text, const neap_program *pr);
neap_status ni_program_json(char **text, const neap_program *pr);
neap_status ni_program_parse(neap_program **pr, neap_params *params, const char *text, size_t n);
const char *ni_program_differ(const neap_program *a, const neap_program *b);

/* schedule.c */

/* One thing to run: a node, or (node -1) the loop of a scan with the nodes that must run in it. */
typedef struct ni_unit {
  int node, scan;
  int *inner;
  int n_inner;
} ni_unit;

typedef struct ni_schedule {
  ni_unit *unit;
  int n_units;
  int space, from, to; /* units from..to-1 run once for each segment of this space; 0, 0, 0: none */
  int *inner;   /* storage of all inner lists */
  int *unit_of; /* by node: its unit; -1: nobody needs it */
} ni_schedule;
neap_status ni_schedule_new(ni_schedule *s, const neap_program *pr);
void ni_schedule_free(ni_schedule *s);
/*
** Orders the units so that those that can be given a sequence in segments, step after step, stand
** together: from..to-1, along the space that has most of them. What needs a whole sequence (and all
** that it is made of) stands before them, what comes of whole sequences after. why (per-thread buffer):
** what the first of those was; NULL if there was none. EUNSUPPORTED, EMEM.
*/
neap_status ni_schedule_segments(ni_schedule *s, const char **why, const neap_program *pr);
/* The sequence space a stream steps along; -1 with a message if there is none. */
int ni_schedule_stream_space(const neap_program *pr);
/* Why a stream along `space` cannot be (per-thread buffer); NULL if it can. */
neap_status ni_schedule_future(const char **why, const neap_program *pr, int space);
/* The same for a stream that looks ahead: what runs backwards may be in it. back[slot] becomes 1 for
** the states of such layers. */
neap_status ni_schedule_ahead(const char **why, uint8_t *back, const neap_program *pr, int space);

#endif
