#include "state.h"

#include <string.h>

neap_status ni_state_reserve(neap_state *s, size_t rows) {
  if (rows <= s->cap_rows) return NEAP_OK;
  size_t cap = rows;
  uint8_t *held = ni_calloc(cap, 2);
  void **fresh = ni_calloc((size_t)s->n_slots * 2 + 1, sizeof *fresh);
  bool ok = held && fresh;
  for (int i = 0; i < s->n_slots && ok; i++) {
    size_t bytes;
    ok = ni_mul(cap, s->slot[i].width * 4, &bytes);
    if (!ok) ni_fail(NEAP_EMEM, "state: %zu rows are too many", rows);
    for (int k = 0; k < 2 && ok; k++) ok = (fresh[2 * i + k] = ni_calloc(bytes, 1)) != NULL;
  }
  if (!ok) {
    for (int i = 0; fresh && i < 2 * s->n_slots; i++) ni_free(fresh[i]);
    ni_free(fresh);
    ni_free(held);
    return NEAP_EMEM;
  }
  if (s->held) memcpy(held, s->held, s->rows);
  ni_free(s->held);
  s->held = held;
  s->was = held + cap;
  for (int i = 0; i < s->n_slots; i++) {
    ni_state_slot *l = &s->slot[i];
    if (l->data) memcpy(fresh[2 * i], l->data, s->rows * l->width * 4);
    ni_free(l->data);
    ni_free(l->next);
    l->data = fresh[2 * i];
    l->next = fresh[2 * i + 1];
  }
  ni_free(fresh);
  s->cap_rows = cap;
  return NEAP_OK;
}

neap_status ni_state_widen(neap_state *s, int slot, size_t width) {
  ni_state_slot *l = &s->slot[slot];
  if (l->width == width) return NEAP_OK;
  if (!l->widens)
    return ni_fail(NEAP_EARG, "state: '%s' is %zu wide, came %zu", l->name, l->width, width);
  if (memchr(s->held, 1, s->rows))
    return ni_fail(NEAP_ESHAPE, "state: '%s' is of %zu steps, the batch has %zu: reset it first",
                   l->name, l->width, width);
  size_t bytes;
  if (!ni_mul(s->cap_rows * width, 4, &bytes)) return ni_fail(NEAP_EMEM, "state: too large");
  void *data = ni_calloc(bytes, 1), *next = ni_calloc(bytes, 1);
  if (!data || !next) {
    ni_free(data);
    ni_free(next);
    return NEAP_EMEM;
  }
  ni_free(l->data);
  ni_free(l->next);
  l->data = data;
  l->next = next;
  l->width = width;
  s->changes++;
  return NEAP_OK;
}

static neap_status make(neap_state **out, int n_slots) {
  *out = NULL;
  neap_state *s = ni_calloc(1, sizeof *s);
  if (!s) return NEAP_EMEM;
  s->refs = 1;
  s->slot = ni_calloc((size_t)n_slots + 1, sizeof *s->slot);
  if (!s->slot) {
    ni_free(s);
    return NEAP_EMEM;
  }
  s->n_slots = n_slots;
  *out = s;
  return NEAP_OK;
}

neap_status ni_state_new(neap_state **out, const neap_program *pr, size_t rows) {
  neap_state *s;
  *out = NULL;
  if (rows > INT32_MAX) return ni_fail(NEAP_ERANGE, "state: %zu rows are too many", rows);
  neap_status rc = make(&s, pr->n_slots);
  if (rc) return rc;
  for (int i = 0; i < pr->n_slots && !rc; i++) {
    const ni_slot_info *from = &pr->slot[i];
    s->slot[i] = (ni_state_slot){ni_strdup(from->name), from->dtype, from->width, !from->width,
                                 from->space, NULL, NULL};
    if (!s->slot[i].name) rc = NEAP_EMEM;
  }
  if (!rc) rc = ni_state_reserve(s, rows ? rows : 1);
  if (rc) {
    ni_state_release(s);
    return rc;
  }
  s->rows = rows;
  *out = s;
  return NEAP_OK;
}

neap_status ni_state_clone(neap_state **out, const neap_state *from) {
  neap_state *s;
  neap_status rc = make(&s, from->n_slots);
  *out = NULL;
  if (rc) return rc;
  for (int i = 0; i < from->n_slots && !rc; i++) {
    s->slot[i] = from->slot[i];
    s->slot[i].data = s->slot[i].next = NULL;
    s->slot[i].name = ni_strdup(from->slot[i].name);
    if (!s->slot[i].name) rc = NEAP_EMEM;
  }
  if (!rc) rc = ni_state_reserve(s, from->rows ? from->rows : 1);
  if (rc) {
    ni_state_release(s);
    return rc;
  }
  s->rows = from->rows;
  memcpy(s->held, from->held, from->rows);
  for (int i = 0; i < s->n_slots; i++)
    memcpy(s->slot[i].data, from->slot[i].data, from->rows * from->slot[i].width * 4);
  *out = s;
  return NEAP_OK;
}

neap_status ni_state_copy(neap_state *to, const neap_state *from) {
  bool fits = to->rows == from->rows && to->n_slots == from->n_slots;
  for (int i = 0; fits && i < to->n_slots; i++)
    fits = to->slot[i].width == from->slot[i].width && to->slot[i].dtype == from->slot[i].dtype;
  if (!fits) return ni_fail(NEAP_ESHAPE, "state copy: the states differ in rows or slots");
  to->changes++;
  memcpy(to->held, from->held, from->rows);
  for (int i = 0; i < to->n_slots; i++)
    memcpy(to->slot[i].data, from->slot[i].data, from->rows * from->slot[i].width * 4);
  return NEAP_OK;
}

void ni_state_retain(neap_state *s) {
  if (s) atomic_fetch_add(&s->refs, 1);
}

void ni_state_release(neap_state *s) {
  if (!s || atomic_fetch_sub(&s->refs, 1) != 1) return;
  for (int i = 0; i < s->n_slots; i++) {
    ni_free(s->slot[i].name);
    ni_free(s->slot[i].data);
    ni_free(s->slot[i].next);
  }
  ni_free(s->slot);
  ni_free(s->held);
  ni_free(s);
}

neap_status ni_state_mark(neap_state *s, size_t row) {
  if (row >= s->rows)
    return ni_fail(NEAP_ERANGE, "state: row %zu is not in 0..%zu", row, s->rows ? s->rows - 1 : 0);
  s->held[row] = 1;
  s->changes++;
  return NEAP_OK;
}

static neap_status check_rows(const char *who, const neap_state *s, const int32_t *rows, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (rows[i] < 0 || (size_t)rows[i] >= s->rows)
      return ni_fail(NEAP_ERANGE, "%s: row %d is not in 0..%zu", who, (int)rows[i],
                     s->rows ? s->rows - 1 : 0);
  return NEAP_OK;
}

neap_status ni_state_reset(neap_state *s, const int32_t *rows, size_t n) {
  neap_status rc = rows ? check_rows("state reset", s, rows, n) : NEAP_OK;
  if (rc) return rc;
  if (!rows) n = s->rows;
  s->changes++;
  for (size_t i = 0; i < n; i++) {
    size_t r = rows ? (size_t)rows[i] : i;
    s->held[r] = 0;
    for (int k = 0; k < s->n_slots; k++)
      memset((char *)s->slot[k].data + r * s->slot[k].width * 4, 0, s->slot[k].width * 4);
  }
  return NEAP_OK;
}

neap_status ni_state_gather(neap_state *s, const int32_t *from, size_t n) {
  neap_status rc = check_rows("state gather", s, from, n);
  if (rc) return rc;
  if ((rc = ni_state_reserve(s, n)) != NEAP_OK) return rc;
  for (size_t i = 0; i < n; i++) s->was[i] = s->held[from[i]];
  memcpy(s->held, s->was, n);
  s->changes++;
  for (int k = 0; k < s->n_slots; k++) {
    ni_state_slot *l = &s->slot[k];
    size_t bytes = l->width * 4;
    for (size_t i = 0; i < n; i++)
      memcpy((char *)l->next + i * bytes, (char *)l->data + (size_t)from[i] * bytes, bytes);
    void *t = l->data;
    l->data = l->next;
    l->next = t;
  }
  s->rows = n;
  return NEAP_OK;
}

static void flip_data(neap_state *s) {
  for (int k = 0; k < s->n_slots; k++) {
    void *t = s->slot[k].data;
    s->slot[k].data = s->slot[k].next;
    s->slot[k].next = t;
  }
}

void ni_state_commit(neap_state *s, const ni_rows *rows, size_t ahead, bool stream) {
  s->changes++;
  if (stream) {
    memset(s->held, 1, s->rows);
    flip_data(s);
    return;
  }
  memcpy(s->was, s->held, s->rows);
  for (int k = 0; k < s->n_slots; k++) {
    ni_state_slot *l = &s->slot[k];
    const ni_rows *at = &rows[l->space];
    size_t bytes = l->width * 4;
    for (size_t r = 0; r < s->rows; r++)
      if (r < at->parents && at->len[r] > ahead)
        s->held[r] = 1;
      else
        memcpy((char *)l->next + r * bytes, (char *)l->data + r * bytes, bytes);
  }
  flip_data(s);
}

void ni_state_flip(neap_state *s) {
  for (size_t r = 0; r < s->rows; r++) {
    uint8_t t = s->held[r];
    s->held[r] = s->was[r];
    s->was[r] = t;
  }
  flip_data(s);
}
