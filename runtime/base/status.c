/*
** Messages, and the rules for names that people and files give.
*/
#include "base.h"

#include <stdio.h>
#include <string.h>

static _Thread_local char message[1024];

/* Arguments may point into the present message, so the new one is built beside it. */
neap_status ni_fail(neap_status status, const char *format, ...) {
  char text[sizeof message] = "";
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  memcpy(message, text, sizeof text);
  return status;
}

neap_status ni_fail_before(neap_status status, const char *format, ...) {
  char text[sizeof message] = "";
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  return ni_fail(status, "%s: %s", text, message);
}

const char *ni_message(void) { return message; }

#define LONGEST_NAME 63

/* Levenshtein 1966; one row of the table is kept. */
static size_t distance(const char *a, size_t na, const char *b, size_t nb) {
  size_t row[LONGEST_NAME + 1];
  for (size_t j = 0; j <= nb; j++)
    row[j] = j;
  for (size_t i = 0; i < na; i++) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < nb; j++) {
      size_t best = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      if (row[j] + 1 < best)
        best = row[j] + 1;
      if (diagonal + 1 < best)
        best = diagonal + 1;
      row[j + 1] = best;
    }
  }
  return row[nb];
}

const char *ni_nearest(const char *name, const char *const *names, size_t n) {
  const char *nearest = NULL;
  size_t length = strlen(name), best = length / 3 + 2;
  if (length > LONGEST_NAME)
    return NULL;
  for (size_t i = 0; i < n; i++) {
    size_t other = strlen(names[i]);
    if (other > LONGEST_NAME)
      continue;
    size_t d = distance(name, length, names[i], other);
    if (d < best && d < length) {
      best = d;
      nearest = names[i];
    }
  }
  return nearest;
}

/* Table 3-7 of the Unicode standard: no overlong form, no surrogate, nothing past U+10FFFF. */
size_t ni_utf8(const char *s, size_t n) {
  const unsigned char *u = (const unsigned char *)s;
  size_t i = 0;
  while (i < n) {
    unsigned c = u[i], low = 0x80, high = 0xBF;
    size_t more;
    if (c < 0x80) {
      i++;
      continue;
    } else if (c >= 0xC2 && c <= 0xDF) {
      more = 1;
    } else if (c >= 0xE0 && c <= 0xEF) {
      more = 2;
      if (c == 0xE0)
        low = 0xA0;
      else if (c == 0xED)
        high = 0x9F;
    } else if (c >= 0xF0 && c <= 0xF4) {
      more = 3;
      if (c == 0xF0)
        low = 0x90;
      else if (c == 0xF4)
        high = 0x8F;
    } else {
      return i;
    }
    if (n - i <= more || u[i + 1] < low || u[i + 1] > high)
      return i;
    for (size_t k = 2; k <= more; k++)
      if ((u[i + k] & 0xC0) != 0x80)
        return i;
    i += more + 1;
  }
  return n;
}

neap_status ni_name_check(const char *who, const char *name, size_t max) {
  if (!name)
    return ni_fail(NEAP_EARG, "%s: expected a name, came NULL", who);
  size_t n = strlen(name);
  if (n < 1 || n > max)
    return ni_fail(NEAP_EARG, "%s: expected a name of 1 to %zu bytes, came %zu bytes: \"%.40s\"",
                   who, max, n, name);
  if (ni_utf8(name, n) != n)
    return ni_fail(NEAP_EARG, "%s: expected a name in UTF-8, came a bad byte 0x%02x at byte %zu",
                   who, (unsigned char)name[ni_utf8(name, n)], ni_utf8(name, n));
  for (size_t i = 0; i < n; i++) {
    unsigned char c = (unsigned char)name[i];
    /* U+0080 to U+009F are control characters too; in UTF-8 they are C2 80 to C2 9F. */
    bool control = c < 0x20 || c == 0x7F || (c == 0xC2 && (unsigned char)name[i + 1] < 0xA0);
    if (control)
      return ni_fail(NEAP_EARG,
                     "%s: expected a name without control characters, came 0x%02x at byte %zu", who,
                     c, i);
  }
  return NEAP_OK;
}
