/*
** Floor 6: model files that are damaged or mean harm: cut, with bits flipped, with lengths that lie
** and programs that cannot be. Each is refused with a message or is a valid model, which then runs
** without a fault and gives all its memory back. Arguments: how many files and programs to make up,
** and the seed of it; without them, the rest is done too.
*/
#include "mutate.h"
#include "record.h"

#include <unistd.h>

#include "../../runtime/file/model_file.h"
#include "../../runtime/file/safetensors.h"

/* A program may ask for any amount of memory: this machine has a little. */
static void *bounded(void *ud, void *ptr, size_t osize, size_t nsize) {
  (void)ud, (void)osize;
  if (nsize == 0) {
    free(ptr);
    return NULL;
  }
  return nsize > (size_t)1 << 26 ? NULL : realloc(ptr, nsize);
}

/* ---- using whatever was loaded ---- */

static void read_all(neap_run *run, neap_program *pr, bool learn) {
  static float out[4096];
  int v;
  for (int i = 0; neap_program_output_name(pr, i, &v); i++) {
    size_t n;
    neap_type t;
    if (neap_program_type(&t, pr, v) || neap_run_count(&n, run, v, NEAP_CONCAT) || n > 4096)
      continue;
    if (t.dtype == NEAP_F32) neap_run_read_f32(run, v, NEAP_CONCAT, out, n);
    else neap_run_read_i32(run, v, NEAP_CONCAT, (int32_t *)(void *)out, n);
    memset(out, 0, sizeof out);
    if (learn && neap_run_backward(run, v)) neap_run_backward_from(run, v, NEAP_CONCAT, out, n);
    if (learn) neap_run_forward(run);
  }
}

static bool use_run(neap_program *pr, unsigned flags, neap_pool *pool) {
  neap_run_options o = {.flags = flags, .pool = pool};
  neap_run *run;
  if (neap_run_open(&run, pr, &o)) return false;
  bool ran = !feed_any(run, pr) && !neap_run_forward(run);
  if (ran) read_all(run, pr, flags & NEAP_LEARN);
  neap_run_close(run);
  return ran;
}

static void use_stream(neap_program *pr) {
  static const int32_t lengths[] = {2}, source[] = {0, 0, 0};
  static const float numbers[8];
  static const int32_t ids[8];
  neap_stream *s;
  if (neap_stream_open_program(&s, pr, NULL)) return;
  neap_stream_step(s);
  neap_stream_step(s);
  neap_stream_context_batch(s, 1);
  for (int i = 1; i < neap_program_spaces(pr); i++)
    neap_stream_context_lengths(s, i, lengths, 1);
  int v;
  for (int i = 0; neap_program_input_name(pr, i, &v); i++)
    for (size_t n = 0; n <= 8; n++)
      if (neap_stream_context_f32(s, v, NEAP_CONCAT, numbers, n))
        neap_stream_context_i32(s, v, NEAP_CONCAT, ids, n);
  neap_stream_step(s);
  neap_stream_rows(s, source, NULL, 3);
  neap_stream_step(s);
  neap_stream_rows(s, source, source, 2);
  neap_stream_step(s);
  neap_stream_close(s);
}

/* True if it ran a batch. What it saves as is read back as the same program. */
static bool use_program(neap_program *pr) {
  char *text;
  neap_program *again;
  CHECK(neap_program_print(&text, pr) == NEAP_OK);
  neap_text_free(text);
  CHECK(neap_program_json(&text, pr) == NEAP_OK);
  CHECK(neap_program_parse(&again, neap_program_params(pr), text, strlen(text)) == NEAP_OK);
  CHECK(again && neap_program_differ(pr, again) == NULL);
  neap_program_release(again);
  neap_text_free(text);
  neap_program_reads_future(pr);
  neap_pool *pool;
  CHECK(neap_pool_new(&pool, 2) == NEAP_OK);
  bool ran = use_run(pr, 0, NULL);
  use_run(pr, NEAP_LEARN, pool);
  use_run(pr, NEAP_DOUBLE, NULL);
  use_stream(pr);
  neap_pool_release(pool);
  return ran;
}

/* ---- files ---- */

static bytes small_file(void) {
  char path[] = "/tmp/neap-model-XXXXXX";
  bytes b = {malloc(1 << 16), 0};
  neap_params *p = NULL;
  neap_program *pr = NULL;
  neap_model *m = NULL;
  int fd = mkstemp(path);
  CHECK(fd >= 0 && neap_params_new(&p) == NEAP_OK && record_small(&pr, p) == NEAP_OK);
  CHECK(neap_model_new(&m, p) == NEAP_OK && neap_model_add(m, "predict", pr) == NEAP_OK);
  CHECK(neap_model_set_text(m, "words", "a\nb") == NEAP_OK);
  CHECK(neap_model_save(m, path) == NEAP_OK);
  FILE *f = fopen(path, "rb");
  if (f) {
    b.n = fread(b.p, 1, 1 << 16, f);
    fclose(f);
  }
  close(fd);
  unlink(path);
  neap_model_release(m);
  neap_program_release(pr);
  neap_params_release(p);
  return b;
}

static size_t header_of(bytes b) {
  size_t n = 0;
  for (int i = 8; i-- > 0;) n = n << 8 | b.p[i];
  return 8 + n;
}

/* Loads from a block of the exact size; true if it is a model, which is then used. */
static bool try_bytes(const unsigned char *p, size_t n, bool use) {
  unsigned char *exact = malloc(n ? n : 1);
  memcpy(exact, p, n);
  size_t before = neap_memory_live();
  neap_model *m = NULL;
  neap_status rc = neap_model_load_memory(&m, exact, n);
  CHECK(rc == NEAP_OK ? m != NULL : rc == NEAP_EFORMAT && !m && neap_errmsg()[0]);
  if (m && use)
    for (int i = 0; i < neap_model_programs(m); i++) {
      neap_program *pr = neap_model_program(m, neap_model_program_name(m, i));
      use_run(pr, NEAP_LEARN, NULL);
      use_stream(pr);
    }
  neap_model_release(m);
  free(exact);
  CHECK(neap_memory_live() == before);
  return rc == NEAP_OK;
}

static void test_truncation(bytes b) {
  for (size_t n = 0; n < b.n; n++) CHECK(!try_bytes(b.p, n, false));
  unsigned char *longer = malloc(b.n + 1);
  memcpy(longer, b.p, b.n);
  longer[b.n] = 0;
  CHECK(!try_bytes(longer, b.n + 1, false));
  free(longer);
}

/* Most flips in the header are refused; what passes (a number, a name) is used. */
static void test_flips(bytes b) {
  size_t header = header_of(b), passed_through = 0;
  for (size_t bit = 0; bit < 8 * header; bit++) {
    b.p[bit / 8] ^= (unsigned char)(1u << bit % 8);
    passed_through += try_bytes(b.p, b.n, true);
    b.p[bit / 8] ^= (unsigned char)(1u << bit % 8);
  }
  CHECK(passed_through > 0 && passed_through < 2 * header);
  for (size_t bit = 8 * header; bit < 8 * b.n; bit += 61) { /* any number is a weight */
    b.p[bit / 8] ^= (unsigned char)(1u << bit % 8);
    CHECK(try_bytes(b.p, b.n, true));
    b.p[bit / 8] ^= (unsigned char)(1u << bit % 8);
  }
}

static void test_lengths(bytes b) {
  unsigned char kept[8];
  memcpy(kept, b.p, 8);
  uint64_t length = header_of(b) - 8;
  const uint64_t lies[] = {0, 1, length - 1, length + 1, b.n - 8, b.n - 7, b.n, UINT32_MAX,
                           (uint64_t)1 << 63, UINT64_MAX, UINT64_MAX - 7};
  for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
    for (int k = 0; k < 8; k++) b.p[k] = (unsigned char)(lies[i] >> 8 * k);
    CHECK(!try_bytes(b.p, b.n, false));
  }
  memcpy(b.p, kept, 8);
}

/* By chance; few are a model still. */
static void test_mutated(bytes b, uint64_t seed, long count) {
  long good = 0;
  for (long i = 0; i < count; i++) {
    shake(seed, i);
    bytes e = mutated(b);
    good += try_bytes(e.p, e.n, true);
    free(e.p);
  }
  CHECK(good > 0 && good < count / 2);
}

/* ---- edits ---- */

/* s with `with` for each '. */
static char *quoted(const char *s, const char *with) {
  size_t k = strlen(with), n = 0;
  char *t = malloc(strlen(s) * k + 1);
  for (; *s; s++) {
    if (*s == '\'') memcpy(t + n, with, k), n += k;
    else t[n++] = *s;
  }
  t[n] = 0;
  return t;
}

/* The file with the first `from` of its header replaced. A ' stands for a quote of a program. */
static bytes edited(bytes b, const char *from, const char *to) {
  char *a = quoted(from, "\\\""), *c = quoted(to, "\\\"");
  size_t header = header_of(b), m = strlen(a), k = strlen(c), at = 8;
  while (at + m <= header && memcmp(b.p + at, a, m) != 0) at++;
  check(at + m <= header, __FILE__, __LINE__, from);
  bytes e = {malloc(b.n + k), b.n - m + k};
  memcpy(e.p, b.p, at);
  memcpy(e.p + at, c, k);
  memcpy(e.p + at + k, b.p + at + m, b.n - at - m);
  for (int i = 0; i < 8; i++) e.p[i] = (unsigned char)((header - 8 - m + k) >> 8 * i);
  free(a);
  free(c);
  return e;
}

static void test_edits(bytes b) {
  static const struct {
    const char *from, *to, *words;
  } edits[] = {
      {"'op':'tanh'", "'op':'tahn'", "no op 'tahn'; did you mean 'tanh'?"},
      {"'op':'tanh'", "'op':1", "expected a text 'op'"},
      {"'op':'tanh'", "'op':'add'", "add: expected 2 inputs, got 1"},
      {"\"neap\":\"1\"", "\"neap\":\"2\"", "expected version 1 of the layout, got '2'"},
      {"\"neap\":\"1\",", "", "carries no neap programs"},
      {"'neap':1", "'neap':7", "program"},
      {"\"neap.order\"", "\"neap.ordre\"", "neap.order is missing"},
      {"\"neap\":\"1\"", "\"neap\":\"1\",\"neap.frozen\":\"0\"",
       "neap.frozen: expected 0 or 1 for each tensor"},
      {"\"neap\":\"1\"", "\"neap\":\"1\",\"neap.frozen\":\"0x0000000\"", "neap.frozen: expected"},
      {"\"neap\":\"1\"", "\"neap\":\"1\",\"neap.frozen\":\"0101010101\"", "neap.frozen: expected"},
      /* tensors */
      {"\"w_hh\":{", "\"w_hx\":{", "tensor 'w_hh' is missing"},
      {"w_ih\\nw_hh\\n", "w_ih\\n", "neap.order does not name 'w_hh'"},
      {"w_ih\\nw_hh\\n", "w_ih\\nw_ih\\n", "'w_ih' stands twice"},
      {"w_ih\\nw_hh\\n", "w_ih\\n\\nw_hh\\n", "tensor '' is missing"},
      {"\"shape\":[8,2]", "\"shape\":[2,8]", "weight_hh"},
      {"\"shape\":[8,3]", "\"shape\":[3,8]", "weight_ih must be [8,3], not [3,8]"},
      {"\"shape\":[8,3]", "\"shape\":[24]", "weight_ih"},
      {"\"shape\":[8,3]", "\"shape\":[2,2,2,3]", "has 4 dimensions"},
      {"\"dtype\":\"F32\"", "\"dtype\":\"I32\"", "must be of floats"},
      {"\"neap.program.predict\"", "\"neap.pogram.predict\"", "no program of the model uses"},
      /* nodes */
      {"'op':'tanh','in':[", "'op':'tanh','in':[99,", "program"},
      {"'op':'tanh','in':[", "'op':'tanh','in':[-1,", "tanh"},
      {"'op':'lstm','in':[", "'op':'lstm','in':[99,", "program"},
      {"'op':'cast','in':[", "'op':'cast','in':{},'x':[",
       "a list of at most 12 inputs"},
      {"'op':'cast','in':[",
       "'op':'cast','in':[0,0,0,0,0,0,0,0,0,0,0,0,", "at most 12 inputs"},
      {"'attr':{'dtype':0}", "'attr':{'dtype':2}", "dtype"},
      {"'attr':{'dtype':0}", "'attr':{'dtyp':0}", "did you mean 'dtype'?"},
      {"'attr':{'dtype':0}", "'attr':{'dtype':'0'}", "program"},
      {"'attr':{'dtype':0}", "'attr':[0]", "bad options"},
      {"'attr':{'dtype':0}", "'attr':{}", "option 'dtype' is missing"},
      {"'op':'constant','number':1", "'op':'constant'",
       "a number is missing"},
      {"'op':'constant','number':1",
       "'op':'constant','number':1e999", "number"},
      {"'op':'param','name':'u'",
       "'op':'param','name':'out'", "'out' stands twice"},
      {"'op':'param','name':'u'",
       "'op':'param','name':'uu'", "there is no parameter 'uu'"},
      {"'op':'param','name':'u'", "'op':'param'",
       "there is no parameter ''"},
      /* types */
      {"'dims':[3]", "'dims':[2147483647]", "weight_ih"},
      {"'dims':[3]", "'dims':[2147483648]", "program"},
      {"'dims':[3]", "'dims':[65536,65536]", "more than 2147483647 elements"},
      {"'dims':[3]", "'dims':[0]", "program"},
      {"'dims':[3]", "'dims':[-2]", "program"},
      {"'dims':[3]", "'dims':[1,1,1,3]", "more than 3 dimensions"},
      {"'dims':[3]", "'dims':3", "expected a list 'dims'"},
      {"'dtype':'f32'", "'dtype':'f16'", "unknown dtype 'f16'"},
      {"'space':1,'dims':[3]", "'space':0,'dims':[3]", "sequence"},
      {"'space':1,'dims':[3]", "'space':2,'dims':[3]", "in space 2"},
      {"'parent':0", "'parent':1", "expected the parent of 'T' in 0..0, got 1"},
      {"'spaces':[{", "'spaces':[{'name':'T','parent':0},{",
       "stands twice"},
      /* scans */
      {"'scans':[{'space':1", "'scans':[{'space':0", "program"},
      {"'scans':[{'space':1", "'scans':[{'space':5", "sequence space"},
      {"'scans':[", "'scans':[],'snacs':[", "scan 0 is missing"},
      {"'next':[", "'next':[],'text':[", "does not say what state"},
      {"'next':[", "'next':[0,0],'text':[", "value 0 is not a state"},
      {"'next':[", "'next':[7],'text':[", "come in pairs"},
      {"'next':[", "'next':[7,99],'text':[", "there is no value 99"},
      {"'scan':0", "'scan':1", "program"},
      {",'scan':0", "", "no scan is open"},
      {"'in':[-1]", "'in':[0]", "expected a first state"},
      {"'in':[-1]", "'in':[7]", "program"},
      /* outputs */
      {"{'name':'n','value':", "{'name':'y','value':",
       "the name 'y' is taken"},
      {"{'name':'n','value':", "{'name':'n','value':9", "program"},
      {"'outputs':[", "'outputs':{},'x':[", "expected a list 'outputs'"},
  };
  for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
    bytes e = edited(b, edits[i].from, edits[i].to);
    check(!try_bytes(e.p, e.n, true), __FILE__, __LINE__, edits[i].to);
    check(strstr(neap_errmsg(), edits[i].words) != NULL, __FILE__, __LINE__, edits[i].words);
    free(e.p);
  }
}

/* A file with more of something than a model may have. */
static void test_crowds(void) {
  static const struct {
    const char *head, *each, *tail, *words;
    int most;
  } crowds[] = {
      {"{\"__metadata__\":{\"neap\":\"1\",\"neap.order\":\"\"}",
       ",\"t%d\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}", "}",
       "at most 10000 tensors, came 10001", 10001},
      {"{\"__metadata__\":{\"neap\":\"1\",\"neap.order\":\"\"", ",\"neap.text.%d\":\"\"", "}}",
       "at most 10000 texts", 10001},
      {"{\"__metadata__\":{\"neap\":\"1\",\"neap.order\":\"\"",
       ",\"neap.program.%d\":\"{\\\"neap\\\":1,\\\"spaces\\\":[],\\\"nodes\\\":[],"
       "\\\"scans\\\":[],\\\"outputs\\\":[]}\"", "}}", "at most 1000 programs", 1001},
  };
  for (size_t i = 0; i < sizeof crowds / sizeof *crowds; i++) {
    ni_text t = {0};
    ni_text_addn(&t, "\0\0\0\0\0\0\0\0", 8);
    ni_text_add(&t, "%s", crowds[i].head);
    const char *at = strstr(crowds[i].each, "%d");
    for (int k = 0; k < crowds[i].most; k++)
      ni_text_add(&t, "%.*s%d%s", (int)(at - crowds[i].each), crowds[i].each, k, at + 2);
    ni_text_add(&t, "%s", crowds[i].tail);
    for (int k = 0; k < 8; k++) t.s[k] = (char)((t.n - 8) >> 8 * k & 255);
    CHECK(!try_bytes((unsigned char *)t.s, t.n, false));
    check(strstr(neap_errmsg(), crowds[i].words) != NULL, __FILE__, __LINE__, crowds[i].words);
    ni_text_free(&t);
  }
}

/* ---- programs ---- */

/* A ' stands for a quote. */
static void refuse_program(int line, const char *nodes, const char *words) {
  char *text = quoted(nodes, "\"");
  neap_params *p = NULL;
  neap_program *pr = NULL;
  size_t before = neap_memory_live();
  CHECK(neap_params_new(&p) == NEAP_OK);
  neap_status rc = neap_program_parse(&pr, p, text, strlen(text));
  check(rc == NEAP_EFORMAT && !pr, __FILE__, line, "is refused");
  check(strstr(neap_errmsg(), words) != NULL, __FILE__, line, words);
  neap_program_release(pr);
  neap_params_release(p);
  CHECK(neap_memory_live() == before);
  free(text);
}
#define REFUSE(nodes, scans, words)                                                           \
  refuse_program(__LINE__,                                                                    \
                 "{'neap':1,'spaces':[{'name':'T','parent':0},{'name':'U','parent':1}],"  \
                 "'nodes':[" nodes "],'scans':[" scans "],'outputs':[]}", words)
#define INPUT(name, dtype, space, dims)                                                       \
  "{'op':'input','name':'" name "','dtype':'" dtype "','space':" space          \
  ",'dims':[" dims "]},"
#define STATE                                                                                 \
  "{'op':'state','name':'h','dtype':'f32','space':1,'dims':[2],'in':[-1],'scan':0},"

static void test_programs(void) {
  /* a step whose rows are not of its own sequence would be computed in the wrong places */
  REFUSE(INPUT("q", "f32", "0", "2") STATE
         "{'op':'attend_dot','in':[0,1,1],'scan':0}", "{'space':1,'next':[1,1]}",
         "cannot attend to its own sequence");
  REFUSE(STATE "{'op':'spread','in':[0],'attr':{'space':2},'scan':0}",
         "{'space':1,'next':[0,0]}", "cannot leave its own sequence");
  REFUSE(STATE "{'op':'spread','in':[0],'attr':{'space':1},'scan':0}",
         "{'space':1,'next':[0,0]}", "cannot leave its own sequence");
  REFUSE(STATE "{'op':'last','in':[0],'scan':0}", "{'space':1,'next':[0,0]}",
         "mixes time steps");
  REFUSE(STATE "{'op':'constant','number':1},{'op':'constant','number':1,'scan':0}",
         "{'space':1,'next':[0,0]}", "scan 0 is missing or torn");
  /* rows too wide to count */
  REFUSE(INPUT("i", "i32", "0", "65536")
         "{'op':'one_hot','in':[0],'attr':{'size':65536}}", "", "2147483647 elements");
  REFUSE(INPUT("a", "f32", "0", "65536,1") INPUT("b", "f32", "0", "1,65536")
         "{'op':'bmm','in':[0,1]}", "", "2147483647 elements");
  REFUSE(INPUT("a", "f32", "0", "65536,1") INPUT("b", "f32", "0", "1,65536")
         "{'op':'add','in':[0,1]}", "", "2147483647 elements");
  REFUSE(INPUT("a", "f32", "0", "2147483647")
         "{'op':'reshape','in':[0],'attr':{'rank':3,'d0':2147483647,'d1':2147483647,"
         "'d2':4}}", "", "elements in a row must stay");
  REFUSE(INPUT("a", "f32", "1", "") "{'op':'reshape','in':[0],'attr':{'rank':1,'d0':-2}}",
         "", "elements in a row must stay");
  /* sequences that follow from others */
#define FOLDED(space) \
  "{'neap':1,'spaces':[{'name':'T','parent':0}," space "],'nodes':[],'scans':[],'outputs':[]}"
  refuse_program(__LINE__, FOLDED("{'name':'T/2','parent':0,'of':1,'factor':1}"), "2 to 65536, came 1");
  refuse_program(__LINE__, FOLDED("{'name':'T/2','parent':0,'of':1,'factor':65537}"),
                 "2 to 65536, came 65537");
  refuse_program(__LINE__, FOLDED("{'name':'T/2','parent':0,'of':1}"), "factor");
  refuse_program(__LINE__, FOLDED("{'name':'T/2','parent':0,'of':2,'factor':2}"), "in 1..1, got 2");
  refuse_program(__LINE__, FOLDED("{'name':'T/2','parent':0,'of':0,'factor':2}"), "1 to 7, came 0");
  refuse_program(__LINE__, FOLDED("{'name':'T/3','parent':0,'of':1,'factor':2}"), "'T/3'");
  refuse_program(__LINE__, FOLDED("{'name':'T/2','parent':1,'of':1,'factor':2}"), "'T/2'");
  refuse_program(__LINE__, FOLDED("{'name':'T/2','parent':0,'of':1,'factor':2},"
                                  "{'name':'T/2','parent':0,'of':1,'factor':2}"), "stands twice");
  refuse_program(__LINE__, FOLDED("{'name':'T/2','parent':0},"
                                  "{'name':'T/2','parent':0,'of':1,'factor':2}"), "is taken");
  refuse_program(__LINE__, "[]", "neap");
  refuse_program(__LINE__, "{", "byte 1");
  char *deep = malloc(200001);
  memset(deep, '[', 200000);
  deep[200000] = 0;
  refuse_program(__LINE__, deep, "at most 32 levels");
  free(deep);
}

/* As many of something as there may be, and one more. */
static void test_many(void) {
  static const struct {
    const char *head, *each, *tail, *words;
    int most;
  } many[] = {
      {"{\"neap\":1,\"spaces\":[],\"scans\":[],\"outputs\":[],\"nodes\":[",
       "{\"op\":\"constant\",\"number\":1,\"line\":\"a lengthy name of a file.lua:%d\"}", "]}",
       "at most 16384 nodes", 16384},
      {"{\"neap\":1,\"spaces\":[],\"scans\":[],\"nodes\":[{\"op\":\"constant\",\"number\":1}],"
       "\"outputs\":[", "{\"name\":\"a lengthy name of an output %d\",\"value\":0}", "]}",
       "at most 1024 outputs", 1024},
      {"{\"neap\":1,\"spaces\":[],\"scans\":[],\"outputs\":[],\"nodes\":[",
       "{\"op\":\"input\",\"name\":\"x%d\",\"dtype\":\"f32\",\"space\":-1,\"dims\":[]}", "]}",
       "at most 1024 inputs", 1024},
      {"{\"neap\":1,\"scans\":[],\"nodes\":[],\"outputs\":[],\"spaces\":[",
       "{\"name\":\"space %d\",\"parent\":0}", "]}", "at most 8 spaces", 7},
  };
  for (size_t i = 0; i < sizeof many / sizeof *many; i++)
    for (int more = 0; more < 2; more++) {
      ni_text t = {0};
      neap_params *p;
      neap_program *pr;
      ni_text_add(&t, "%s", many[i].head);
      for (int k = 0; k < many[i].most + more; k++) {
        const char *at = strstr(many[i].each, "%d");
        ni_text_add(&t, "%s%.*s%d%s", k ? "," : "", (int)(at - many[i].each), many[i].each, k,
                    at + 2);
      }
      ni_text_add(&t, "%s", many[i].tail);
      CHECK(neap_params_new(&p) == NEAP_OK);
      CHECK(neap_program_parse(&pr, p, t.s, t.n) == (more ? NEAP_EFORMAT : NEAP_OK));
      CHECK(!more || strstr(neap_errmsg(), many[i].words));
      neap_run *run;
      if (pr) {
        CHECK(neap_run_open(&run, pr, NULL) == NEAP_OK && feed_any(run, pr) == NEAP_OK);
        CHECK(neap_run_forward(run) == NEAP_OK);
        neap_run_close(run);
      }
      neap_program_release(pr);
      neap_params_release(p);
      ni_text_free(&t);
    }
}

/* Scans that each need the one before. */
static void test_chain(void) {
  neap_params *p = NULL;
  recorder r;
  CHECK(neap_params_new(&p) == NEAP_OK);
  start(&r, p);
  int t = space(&r, "T", 0), x = input(&r, "x", NEAP_F32, t, 1);
  for (int i = 0; i < 300 && !r.rc; i++) {
    r.rc = neap_program_scan_begin(r.pr, t);
    int h = state(&r, "h", NEAP_F32, 1, -1), y = OP1(&r, "tanh", OP2(&r, "add", h, x));
    next(&r, h, y);
    if (!r.rc) r.rc = neap_program_scan_end(r.pr);
    x = OP1(&r, "neg", y);
  }
  output(&r, "y", x);
  CHECK(r.rc == NEAP_OK && use_program(r.pr));
  neap_program_release(r.pr);
  neap_params_release(p);
}

/* ---- made-up programs: numbers, ops and lines of a good one changed ---- */

static char *splice(char *s, size_t at, size_t drop, const char *with) {
  size_t n = strlen(s), k = strlen(with);
  char *t = malloc(n - drop + k + 1);
  memcpy(t, s, at);
  memcpy(t + at, with, k);
  memcpy(t + at + k, s + at + drop, n - at - drop + 1);
  free(s);
  return t;
}

static char *change_number(char *s) {
  static const int odd[] = {-3, -2, -1, 100, 46341, 65536, INT32_MAX};
  size_t n = strlen(s), at = roll(n);
  while (at && !(strchr("[,:", s[at - 1]) && strchr("-0123456789", s[at]))) at--;
  if (!at) return s;
  char text[24];
  int value = roll(4) ? (int)roll(36) : odd[roll(sizeof odd / sizeof *odd)];
  snprintf(text, sizeof text, roll(20) ? "%d" : "%d.5", value);
  return splice(s, at, strspn(s + at, "-+.e0123456789"), text);
}

static char *change_op(char *s) {
  static const char *const sources[] = {"input", "state", "param", "constant", "scalar"};
  char *op = strstr(s + roll(strlen(s)), "\"op\":\"");
  if (!op) return s;
  const char *name = roll(10) ? neap_op_describe((int)roll((size_t)ni_ops_count))->name
                              : sources[roll(5)];
  size_t at = (size_t)(op - s) + 6;
  s = splice(s, at, strcspn(s + at, "\""), name);
  char *attr = strstr(s + at, ",\"attr\":{"), *line = strchr(s + at, '\n');
  if (attr && line && attr < line) /* another op has other options */
    s = splice(s, (size_t)(attr - s), strcspn(attr, "}") + 1, "");
  return s;
}

/* Drops a node, or has it twice; or takes it out of its scan, or into one. */
static char *change_line(char *s) {
  char *from = strchr(s + roll(strlen(s)), '\n'), *to = from ? strchr(from + 1, '\n') : NULL;
  if (!to) return s;
  size_t at = (size_t)(from - s), n = (size_t)(to - from);
  char *twice = strndup(from, n), *scan = strstr(twice, ",\"scan\":");
  switch (roll(3)) {
    case 0: s = splice(s, at, n, ""); break;
    case 1: s = splice(s, at, 0, twice); break;
    default:
      if (scan) s = splice(s, at + (size_t)(scan - twice), 9, "");
      else s = splice(s, at + 2, 0, "\"scan\":0,");
  }
  free(twice);
  return s;
}

static void test_made_up(neap_status (*record)(neap_program **, neap_params *), uint64_t seed,
                         long count) {
  neap_params *p = NULL;
  neap_program *pr = NULL;
  char *text = NULL;
  CHECK(neap_params_new(&p) == NEAP_OK && record(&pr, p) == NEAP_OK);
  CHECK(neap_program_json(&text, pr) == NEAP_OK && use_program(pr));
  neap_program_release(pr);
  CHECK(neap_params_grad(p, 0) != NULL); /* so that it is not counted below */
  long good = 0, ran = 0;
  for (long i = 0; i < count; i++) {
    shake(seed, i);
    char *s = strdup(text);
    for (size_t k = roll(3) + 1; k-- > 0;) {
      size_t what = roll(10);
      s = what < 6 ? change_number(s) : what < 8 ? change_op(s) : change_line(s);
    }
    size_t before = neap_memory_live();
    neap_status rc = neap_program_parse(&pr, p, s, strlen(s));
    check(rc == NEAP_OK || (rc == NEAP_EFORMAT && !pr && neap_errmsg()[0]), __FILE__, __LINE__, s);
    if (!rc) good++, ran += use_program(pr);
    neap_program_release(pr);
    check(neap_memory_live() == before, __FILE__, __LINE__, s);
    free(s);
  }
  check(good > count / 50 && ran > count / 100, __FILE__, __LINE__, "some are valid and run");
  neap_text_free(text);
  neap_params_release(p);
}

int main(int argc, char **argv) {
  long count = argc > 1 ? atol(argv[1]) : 5000;
  uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
  neap_allocator_set(bounded, NULL);
  bytes b = small_file();
  CHECK(b.n > 0 && try_bytes(b.p, b.n, true));
  if (argc <= 1) {
    test_truncation(b);
    test_lengths(b);
    test_edits(b);
    test_crowds();
    test_flips(b);
    test_programs();
    test_many();
    test_chain();
  }
  test_mutated(b, seed, count);
  free(b.p);
  test_made_up(record_small, seed, count);
  test_made_up(record_large, seed, count);
  CHECK(neap_memory_live() == 0);
  return report();
}
