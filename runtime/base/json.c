/*
** jsmn finds the tokens. It forgives missing commas and colons, junk behind the root, odd literals
** and control characters; so a walk over the tokens afterwards checks the text itself.
*/
#include "json.h"

#include <limits.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define JSMN_STATIC
#define JSMN_STRICT
#define JSMN_PARENT_LINKS
#include <jsmn.h>

/* A number is put right where strtod reads it; longer ones are nobody's measurement. */
#define LONGEST_NUMBER 63

static jsmntok_t *token(const ni_json *doc, int v) { return (jsmntok_t *)doc->tokens + v; }

/* ---- checking ---- */

typedef struct reader {
  ni_json *doc;
  size_t n, at; /* length of the text, and the byte now read */
  int next;     /* token */
  size_t *keys; /* of all objects */
  size_t n_keys;
} reader;

static neap_status wrong(const char *s, size_t n, size_t at, const char *expected) {
  if (at >= n)
    return ni_fail(NEAP_EFORMAT, "json: byte %zu: expected %s, came the end", at, expected);
  if (s[at] > ' ' && s[at] < 0x7F)
    return ni_fail(NEAP_EFORMAT, "json: byte %zu: expected %s, came '%c'", at, expected, s[at]);
  return ni_fail(NEAP_EFORMAT, "json: byte %zu: expected %s, came 0x%02x", at, expected,
                 (unsigned char)s[at]);
}

static neap_status refuse(const reader *r, size_t at, const char *expected) {
  return wrong(r->doc->text, r->n, at, expected);
}

/* Deep nesting is refused before jsmn sees it: closing a bracket takes it a time of the depth. */
static neap_status check_depth(const char *s, size_t n) {
  size_t depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < n; i++) {
    if (quoted) {
      if (s[i] == '\\')
        i++;
      else if (s[i] == '"')
        quoted = false;
    } else if (s[i] == '"') {
      quoted = true;
    } else if (s[i] == '{' || s[i] == '[') {
      if (++depth > NI_JSON_DEPTH)
        return ni_fail(NEAP_EFORMAT, "json: byte %zu: expected at most %d levels, came more", i,
                       NI_JSON_DEPTH);
    } else if ((s[i] == '}' || s[i] == ']') && depth > 0) {
      depth--;
    }
  }
  return NEAP_OK;
}

static void skip(reader *r) {
  const char *s = r->doc->text;
  while (s[r->at] == ' ' || s[r->at] == '\t' || s[r->at] == '\n' || s[r->at] == '\r')
    r->at++;
}

static bool digit(char c) { return c >= '0' && c <= '9'; }

/* A number from s on, or NULL; returns its end. */
static const char *number(const char *s) {
  if (*s == '-')
    s++;
  if (!digit(*s))
    return NULL;
  if (*s++ != '0')
    while (digit(*s))
      s++;
  if (*s == '.') {
    if (!digit(*++s))
      return NULL;
    while (digit(*s))
      s++;
  }
  if (*s == 'e' || *s == 'E') {
    s++;
    if (*s == '+' || *s == '-')
      s++;
    if (!digit(*s))
      return NULL;
    while (digit(*s))
      s++;
  }
  return s;
}

static neap_status check_literal(reader *r, const jsmntok_t *t) {
  const char *s = r->doc->text + t->start;
  size_t n = (size_t)(t->end - t->start);
  bool good = (n == 4 && (memcmp(s, "true", 4) == 0 || memcmp(s, "null", 4) == 0)) ||
              (n == 5 && memcmp(s, "false", 5) == 0) || number(s) == s + n;
  if (!good)
    return refuse(r, (size_t)t->start, "a value");
  if (n > LONGEST_NUMBER)
    return ni_fail(NEAP_EFORMAT, "json: byte %d: expected a number of at most %d bytes, came %zu",
                   t->start, LONGEST_NUMBER, n);
  r->at = (size_t)t->end;
  return NEAP_OK;
}

/* The four hex digits of a \u at s; -1 if they are not. */
static long hex4(const char *s) {
  long x = 0;
  for (int i = 0; i < 4; i++) {
    char c = s[i];
    int d = digit(c)               ? c - '0'
            : c >= 'a' && c <= 'f' ? c - 'a' + 10
            : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                   : -1;
    if (d < 0)
      return -1;
    x = x * 16 + d;
  }
  return x;
}

static char *put_utf8(char *w, long c) {
  int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  static const unsigned char lead[] = {0, 0xC0, 0xE0, 0xF0};
  *w++ = (char)(lead[more] | (c >> 6 * more));
  while (more-- > 0)
    *w++ = (char)(0x80 | (c >> 6 * more & 0x3F));
  return w;
}

/* Unescapes in place, which never lengthens a string. */
static neap_status check_string(reader *r, jsmntok_t *t) {
  char *text = r->doc->text, *w = text + t->start;
  size_t i = (size_t)t->start, end = (size_t)t->end;
  while (i < end) {
    static const char escape[] = "\"\\/bfnrt", meaning[] = "\"\\/\b\f\n\r\t";
    if ((unsigned char)text[i] < 0x20)
      return refuse(r, i, "no bare control character in a string");
    if (text[i] != '\\') {
      *w++ = text[i++];
      continue;
    }
    const char *e = strchr(escape, text[i + 1]);
    if (e && *e) {
      *w++ = meaning[e - escape];
      i += 2;
      continue;
    }
    /* The closing quote is no hex digit, so hex4 never reads past it. */
    long c = text[i + 1] == 'u' ? hex4(text + i + 2) : -1;
    size_t used = 6;
    if (c >= 0xD800 && c < 0xDC00 && text[i + 6] == '\\' && text[i + 7] == 'u') {
      long low = hex4(text + i + 8);
      if (low >= 0xDC00 && low < 0xE000) {
        c = 0x10000 + (c - 0xD800) * 0x400 + (low - 0xDC00);
        used = 12;
      }
    }
    if (c <= 0 || (c >= 0xD800 && c < 0xE000))
      return refuse(r, i, "an escape for a character other than U+0000 or half a pair");
    w = put_utf8(w, c);
    i += used;
  }
  *w = '\0'; /* at most the closing quote */
  t->end = (int)(w - text);
  r->at = end + 1;
  return NEAP_OK;
}

static neap_status check_value(reader *r);

/* expected is only built into a message, so plain words do. */
static neap_status take(reader *r, char c, const char *expected) {
  skip(r);
  if (r->doc->text[r->at] != c)
    return refuse(r, r->at, expected);
  r->at++;
  return NEAP_OK;
}

static neap_status check_members(reader *r, const jsmntok_t *t) {
  const char *s = r->doc->text;
  bool object = t->type == JSMN_OBJECT;
  neap_status status = NEAP_OK;
  r->at++;
  for (int i = 0; !status; i++) {
    skip(r);
    if (s[r->at] == (object ? '}' : ']') && (i == 0 || i == t->size)) {
      r->at++;
      return NEAP_OK;
    }
    if (i > 0)
      status = take(r, ',', object ? "',' or '}'" : "',' or ']'");
    if (object && !status) {
      skip(r);
      if (s[r->at] != '"')
        return refuse(r, r->at, "a key");
      r->keys[r->n_keys++] = (size_t)r->next;
      status = check_value(r);
      if (!status)
        status = take(r, ':', "':'");
    }
    if (!status)
      status = check_value(r);
  }
  return status;
}

static neap_status check_value(reader *r) {
  skip(r);
  jsmntok_t *t = r->next < r->doc->count ? token(r->doc, r->next) : NULL;
  if (!t || (size_t)t->start != r->at + (t->type == JSMN_STRING))
    return refuse(r, r->at, "a value");
  r->next++;
  if (t->type == JSMN_STRING)
    return check_string(r, t);
  if (t->type == JSMN_PRIMITIVE)
    return check_literal(r, t);
  return check_members(r, t);
}

static int compare_keys(const void *arg, size_t a, size_t b) {
  const ni_json *doc = arg;
  const jsmntok_t *x = token(doc, (int)a), *y = token(doc, (int)b);
  if (x->parent != y->parent)
    return x->parent < y->parent ? -1 : 1;
  return strcmp(doc->text + x->start, doc->text + y->start);
}

static neap_status check(ni_json *doc, size_t n) {
  reader r = {.doc = doc, .n = n};
  r.keys = ni_calloc((size_t)doc->count / 2 + 1, sizeof *r.keys);
  if (!r.keys)
    return NEAP_EMEM;
  neap_status status = check_value(&r);
  if (!status) {
    skip(&r);
    if (r.at != n)
      status = refuse(&r, r.at, "nothing more");
  }
  if (!status)
    ni_sort(r.keys, r.n_keys, compare_keys, doc);
  for (size_t i = 1; !status && i < r.n_keys; i++) {
    const jsmntok_t *t = token(doc, (int)r.keys[i]);
    if (compare_keys(doc, r.keys[i - 1], r.keys[i]) == 0)
      status = ni_fail(NEAP_EFORMAT, "json: byte %d: expected each key once, came \"%.100s\" again",
                       t->start - 1, doc->text + t->start);
  }
  ni_free(r.keys);
  return status;
}

neap_status ni_json_parse(ni_json *doc, const char *text, size_t n, size_t max_tokens) {
  *doc = (ni_json){0};
  size_t good = ni_utf8(text, n);
  if (n >= INT_MAX)
    return ni_fail(NEAP_EFORMAT, "json: expected less than %d bytes, came %zu", INT_MAX, n);
  if (good < n)
    return wrong(text, n, good, "UTF-8");
  neap_status status = check_depth(text, n);
  if (status)
    return status;
  jsmn_parser parser;
  jsmn_init(&parser);
  int count = jsmn_parse(&parser, text, n, NULL, 0);
  if (count >= 0 && (size_t)count > max_tokens)
    return ni_fail(NEAP_EFORMAT, "json: expected at most %zu values and keys, came %d", max_tokens,
                   count);
  if (count > 0) {
    doc->text = ni_strndup(text, n);
    doc->tokens = ni_calloc((size_t)count, sizeof(jsmntok_t));
    if (!doc->text || !doc->tokens) {
      ni_json_free(doc);
      return NEAP_EMEM;
    }
    jsmn_init(&parser);
    count = jsmn_parse(&parser, text, n, doc->tokens, (unsigned)count);
  }
  if (count <= 0) {
    status = wrong(text, n, count == JSMN_ERROR_INVAL ? parser.pos : n, "a value");
  } else {
    doc->count = count;
    status = check(doc, n);
  }
  if (status)
    ni_json_free(doc);
  return status;
}

void ni_json_free(ni_json *doc) {
  ni_free(doc->text);
  ni_free(doc->tokens);
  *doc = (ni_json){0};
}

/* ---- walking ---- */

ni_json_kind ni_json_kind_of(const ni_json *doc, int v) {
  const jsmntok_t *t = token(doc, v);
  if (t->type == JSMN_OBJECT)
    return NI_JSON_OBJECT;
  if (t->type == JSMN_ARRAY)
    return NI_JSON_ARRAY;
  if (t->type == JSMN_STRING)
    return NI_JSON_STRING;
  switch (doc->text[t->start]) {
  case 't':
    return NI_JSON_TRUE;
  case 'f':
    return NI_JSON_FALSE;
  case 'n':
    return NI_JSON_NULL;
  default:
    return NI_JSON_NUMBER;
  }
}

size_t ni_json_byte(const ni_json *doc, int v) {
  const jsmntok_t *t = token(doc, v);
  return (size_t)t->start - (t->type == JSMN_STRING);
}

static bool holds(const jsmntok_t *t) { return t->type == JSMN_OBJECT || t->type == JSMN_ARRAY; }

int ni_json_size(const ni_json *doc, int v) {
  const jsmntok_t *t = token(doc, v);
  return holds(t) ? t->size : 0;
}

int ni_json_first(const ni_json *doc, int v) { return ni_json_size(doc, v) > 0 ? v + 1 : -1; }

int ni_json_next(const ni_json *doc, int v) {
  int parent = token(doc, v)->parent;
  if (parent < 0)
    return -1;
  if (token(doc, parent)->type == JSMN_OBJECT)
    v++; /* a key: past its value */
  const jsmntok_t *t = token(doc, v++);
  if (holds(t))
    while (v < doc->count && token(doc, v)->start < t->end)
      v++;
  return v < doc->count && token(doc, v)->parent == parent ? v : -1;
}

int ni_json_find(const ni_json *doc, int v, const char *key) {
  if (token(doc, v)->type != JSMN_OBJECT)
    return -1;
  for (int k = ni_json_first(doc, v); k >= 0; k = ni_json_next(doc, k))
    if (strcmp(ni_json_string(doc, k), key) == 0)
      return k + 1;
  return -1;
}

/* ---- values ---- */

const char *ni_json_string(const ni_json *doc, int v) {
  const jsmntok_t *t = token(doc, v);
  return t->type == JSMN_STRING ? doc->text + t->start : NULL;
}

/* Copies a number's text; what else v is goes into a message. */
static neap_status number_text(char s[LONGEST_NUMBER + 1], const ni_json *doc, int v,
                               const char *expected) {
  static const char *const kinds[] = {"an object", "an array", "a string", "", "true",
                                      "false",     "null"};
  const jsmntok_t *t = token(doc, v);
  ni_json_kind kind = ni_json_kind_of(doc, v);
  if (kind != NI_JSON_NUMBER)
    return ni_fail(NEAP_EFORMAT, "json: byte %zu: expected %s, came %s", ni_json_byte(doc, v),
                   expected, kinds[kind]);
  size_t n = (size_t)(t->end - t->start);
  memcpy(s, doc->text + t->start, n);
  s[n] = '\0';
  return NEAP_OK;
}

neap_status ni_json_integer(int64_t *x, const ni_json *doc, int v, int64_t min, int64_t max) {
  char s[LONGEST_NUMBER + 1];
  *x = 0;
  neap_status status = number_text(s, doc, v, "an integer");
  if (status)
    return status;
  const char *d = s + (*s == '-');
  bool good = strcmp(s, "-0") != 0;
  int64_t sum = 0;
  for (; digit(*d) && good; d++)
    good = !__builtin_mul_overflow(sum, 10, &sum) &&
           !__builtin_add_overflow(sum, *s == '-' ? '0' - *d : *d - '0', &sum);
  if (!good || *d || sum < min || sum > max)
    return ni_fail(NEAP_EFORMAT, "json: byte %zu: expected an integer from %lld to %lld, came %s",
                   ni_json_byte(doc, v), (long long)min, (long long)max, s);
  *x = sum;
  return NEAP_OK;
}

/* strtod reads the locale's decimal point, so this thread takes the "C" locale for the moment. */
neap_status ni_json_double(double *x, const ni_json *doc, int v) {
  char s[LONGEST_NUMBER + 1];
  *x = 0;
  neap_status status = number_text(s, doc, v, "a number");
  if (status)
    return status;
  locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
  if (c == (locale_t)0)
    return ni_fail(NEAP_EMEM, "json: expected the C locale, came none");
  locale_t before = uselocale(c);
  double read = strtod(s, NULL);
  uselocale(before);
  freelocale(c);
  if (!isfinite(read))
    return ni_fail(NEAP_EFORMAT, "json: byte %zu: expected a finite number, came %s",
                   ni_json_byte(doc, v), s);
  *x = read;
  return NEAP_OK;
}
