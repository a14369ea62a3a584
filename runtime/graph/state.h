/*
** What the recurrent layers of a program carry from one run to the next. Each slot has two
** buffers: a run reads one and leaves its final state in the other, and only a run that succeeds
** makes that one current: after a failure nothing has changed, and until something else changes
** the state, the one before it is still there.
*/
#ifndef NI_STATE_H
#define NI_STATE_H

#include "program.h"

typedef struct ni_state_slot {
  char *name;
  neap_dtype dtype;
  size_t width;
  bool widens; /* as wide as each batch says */
  int space;
  void *data, *next; /* [cap_rows, width] */
} ni_state_slot;

struct neap_state {
  _Atomic int refs;
  size_t rows, cap_rows;
  uint8_t *held, *was; /* [cap_rows]: rows that hold a value, now and before the last commit */
  uint64_t changes;    /* counted, so that a run knows whether the state is as it left it */
  ni_state_slot *slot;
  int n_slots;
};

neap_status ni_state_new(neap_state **s, const neap_program *pr, size_t rows);
neap_status ni_state_clone(neap_state **s, const neap_state *from);
neap_status ni_state_copy(neap_state *to, const neap_state *from);
void ni_state_retain(neap_state *s);
void ni_state_release(neap_state *s);
/* Makes room for rows in every slot, all or nothing; the rows stay as many as they are. */
neap_status ni_state_reserve(neap_state *s, size_t rows);
/* Gives a slot another width, if no row holds a value. ESHAPE; EARG if it always has the same. */
neap_status ni_state_widen(neap_state *s, int slot, size_t width);
neap_status ni_state_mark(neap_state *s, size_t row);
neap_status ni_state_reset(neap_state *s, const int32_t *rows, size_t n);
neap_status ni_state_gather(neap_state *s, const int32_t *from, size_t n);
/* Takes over next for the rows whose length in slot->space was more than `ahead`. */
void ni_state_commit(neap_state *s, const ni_rows *rows, size_t ahead, bool stream);
/* Back to what was before the last commit, which must be the last change; and forth again. */
void ni_state_flip(neap_state *s);

#endif
