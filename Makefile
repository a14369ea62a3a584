# neap. GNU make; everything that is made lies in build/. `make help` lists the targets.

CC ?= cc
CFLAGS ?= -O2 -g
AR ?= ar
INSTALL ?= install
LUA ?= lua5.4
LUA_INCDIR ?= $(firstword $(wildcard /usr/include/lua5.4 /usr/local/include/lua5.4 /usr/include/lua54) \
                          /usr/include)
LUA_LIBS ?= -llua5.4
BLAS_LIBS ?= -lopenblas
EDIT_LIBS ?= -ledit
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
SHAREDIR ?= $(PREFIX)/share/neap
INST_LUADIR ?= $(PREFIX)/share/lua/5.4
INST_LIBDIR ?= $(LIBDIR)/lua/5.4
BUILD ?= build
JOBS ?= $(shell nproc 2>/dev/null || echo 1)
# address,undefined or thread: what the sanitizer builds use, each in a BUILD of its own.
SAN ?=
# For how long `make fuzz` goes on, and its first seed (if not given, the clock's).
SECONDS ?= 60
SEED ?=
export CC LUA

VERSION := $(shell sed -n 's/^.define NEAP_VERSION "\(.*\)"/\1/p' runtime/neap.h)
SONAME := libneap.so.0

WARN := -Wall -Wextra -Wno-missing-field-initializers -Wshadow -Wundef -Wwrite-strings -Wredundant-decls -Wmissing-prototypes \
        -Wstrict-prototypes -Wold-style-definition -Wdouble-promotion $(if $(WERROR),-Werror)
# Results are the same bits whatever the compiler fuses; nothing reads errno or traps of libm.
FLAGS := -std=gnu11 -fPIC -pthread -ffp-contract=off -fno-math-errno -fno-trapping-math $(WARN)
ifneq ($(SAN),)
FLAGS += -fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer
# At -O2 the checks in unrolled kernels take the compiler minutes a file.
HOT := -O1
WARM := -O1
else
HOT := -O2
# Loops of ops gain by vectors, but not by being unrolled and written out for each case.
WARM := -O2 -ftree-vectorize $(shell $(CC) -Werror -fvect-cost-model=dynamic -x c -c /dev/null \
                               -o /dev/null 2>/dev/null && echo -fvect-cost-model=dynamic)
# What reads, records and plans, and double, which is for gradient checks: what is small will do.
COLD := -Os
NO_UNDEFINED := -Wl,--no-undefined
endif
# Addresses that the loader fills in take 24 bytes each, or a bit where the linker can (glibc 2.36).
PACKED := -Wl,-z,pack-relative-relocs
PACKED := $(shell $(CC) -shared $(PACKED),--fatal-warnings -x c /dev/null -o /dev/null 2>/dev/null && \
                  echo $(PACKED))
LIBS := $(BLAS_LIBS) -lm -lpthread

# ---- what there is ----

RUNTIME := $(wildcard $(patsubst %,runtime/%/*.c,base kernel tensor op graph model train file api))
# Files that compute are compiled twice: for float, and with NI_F64 for double.
REAL_SOURCES := $(filter runtime/kernel/generic.c runtime/kernel/dispatch.c \
                         runtime/graph/exec.c, $(RUNTIME)) \
                $(filter-out runtime/op/table.c, $(wildcard runtime/op/*.c))
CORE := $(filter-out bindings/core/line.c, $(wildcard bindings/core/*.c))
SPECS := $(wildcard spec/c/*_test.c)
EMBED := $(wildcard scripts/embed/*.c)
EMBED_LUA := $(if $(EMBED),$(shell grep -l '<lua\.h>' $(EMBED)))
MODULES := $(wildcard bindings/neap/*.lua bindings/neap/*/*.lua)
# For people, as they lie in the checkout; the demo builds on the checkout itself.
SHARED := README.md LICENSE $(wildcard docs/*.md) $(EMBED) \
          $(filter-out %/demo.lua, $(wildcard scripts/examples/*.lua))

OBJ := $(BUILD)/obj
RUNTIME_O := $(RUNTIME:%.c=$(OBJ)/%.o) $(REAL_SOURCES:%.c=$(OBJ)/%_f64.o)
CORE_O := $(CORE:%.c=$(OBJ)/%.o)
SPECS_X := $(SPECS:spec/c/%.c=$(BUILD)/spec/%)
EMBED_X := $(EMBED:scripts/embed/%.c=$(BUILD)/embed/%)

.PHONY: all tests deps test test-long arm64 test-arm64 bench bench-programs demo docs asan fuzz tsan lint install install-lua uninstall clean help
.DELETE_ON_ERROR:
.SUFFIXES:

all: $(BUILD)/libneap.a $(BUILD)/libneap.so $(BUILD)/neap/core.so $(BUILD)/neap/line.so \
     $(BUILD)/neap.pc $(EMBED_X)

# ---- objects ----

# Says what the system lacks before the compiler does.
$(BUILD)/deps.ok: scripts/tools/deps
	@mkdir -p $(@D)
	@scripts/tools/deps --check build && touch $@

# Other flags make everything anew.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(CFLAGS) $(CPPFLAGS) $(FLAGS) $(LEAN) $(HOT) $(WARM) $(COLD) $(LUA_INCDIR)' | cmp -s - $@ || \
	  echo '$(CC) $(CFLAGS) $(CPPFLAGS) $(FLAGS) $(LEAN) $(HOT) $(WARM) $(COLD) $(LUA_INCDIR)' > $@
FORCE:

# A line for each thing made; V=1 shows the commands.
say = $(if $(V),,@echo '  $(1) $@' &&)

COMPILE = $(call say,CC) $(CC) $(CPPFLAGS) $(CFLAGS) $(FLAGS) $(OWN) -MMD -MP -c -o $@ $<

$(OBJ)/%.o: %.c $(BUILD)/flags | $(BUILD)/deps.ok
	@mkdir -p $(@D)
	$(COMPILE)
$(OBJ)/%_f64.o: %.c $(BUILD)/flags | $(BUILD)/deps.ok
	@mkdir -p $(@D)
	$(COMPILE) -DNI_F64 $(COLD)

# Nothing unwinds through the library; debuggers have their own tables (-g).
LEAN := -fvisibility=hidden -fno-asynchronous-unwind-tables
$(OBJ)/runtime/%: OWN = $(LEAN)
$(OBJ)/runtime/file/% $(OBJ)/runtime/api/% $(OBJ)/runtime/tensor/% $(OBJ)/runtime/base/json.o \
$(OBJ)/runtime/graph/place.o $(OBJ)/runtime/graph/program.o $(OBJ)/runtime/graph/schedule.o \
$(OBJ)/runtime/graph/segment.o $(OBJ)/runtime/graph/text.o: OWN = $(LEAN) $(COLD)
$(OBJ)/runtime/op/% $(OBJ)/runtime/tensor/params.o: OWN = $(LEAN) $(WARM)
$(OBJ)/runtime/kernel/%: OWN = $(LEAN) $(HOT) $(CPU)
$(OBJ)/runtime/kernel/generic.o: OWN = $(LEAN) $(WARM)
$(OBJ)/bindings/%: OWN = -Iruntime -I$(LUA_INCDIR)
ifneq ($(findstring x86_64,$(shell $(CC) -dumpmachine 2>/dev/null)),)
$(OBJ)/runtime/kernel/avx2.o: CPU = -mavx2 -mfma
$(OBJ)/runtime/kernel/avx512.o: CPU = -mavx512f -mavx512dq -mavx512vl -mavx512bw -mfma
endif

# ---- products ----

$(BUILD)/libneap.a: $(RUNTIME_O)
	@rm -f $@
	$(call say,AR) $(AR) rcs $@ $^

$(BUILD)/libneap.so: $(RUNTIME_O)
	$(call say,LD) $(CC) $(CFLAGS) $(FLAGS) -shared -Wl,-soname,$(SONAME) $(NO_UNDEFINED) $(PACKED) $(LDFLAGS) -o $@ $^ $(LIBS)
	@ln -sf $(@F) $(@D)/$(SONAME)

# The Lua module holds the library itself and exports nothing but luaopen_*.
$(BUILD)/neap/core.so: $(CORE_O) $(BUILD)/libneap.a bindings/core/exports.map
	@mkdir -p $(@D)
	$(call say,LD) $(CC) $(CFLAGS) $(FLAGS) -shared -Wl,--version-script=bindings/core/exports.map $(PACKED) $(LDFLAGS) \
	  -o $@ $(CORE_O) $(BUILD)/libneap.a $(LIBS) -ldl

$(BUILD)/neap/line.so: $(OBJ)/bindings/core/line.o bindings/core/exports.map
	@mkdir -p $(@D)
	$(call say,LD) $(CC) $(CFLAGS) $(FLAGS) -shared -Wl,--version-script=bindings/core/exports.map $(PACKED) $(LDFLAGS) \
	  -o $@ $< $(EDIT_LIBS) -lpthread

$(BUILD)/neap.pc: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(LIBDIR)' 'includedir=$${prefix}/include' '' \
	  'Name: neap' 'Description: recurrent sequence models' 'Version: $(VERSION)' \
	  'Cflags: -I$${includedir}' 'Libs: -L$${libdir} -Wl,-rpath,$${libdir} -lneap' 'Libs.private: $(LIBS)' > $@

HOST = $(call say,CC) $(CC) $(CPPFLAGS) $(CFLAGS) $(FLAGS) -Iruntime -MMD -MP -MF $@.d -MT $@ $(LDFLAGS) -o $@ $< \
       $(BUILD)/libneap.a

$(BUILD)/embed/%: scripts/embed/%.c $(BUILD)/libneap.a
	@mkdir -p $(@D)
	$(HOST) $(LIBS)
$(EMBED_LUA:scripts/embed/%.c=$(BUILD)/embed/%): $(BUILD)/embed/%: scripts/embed/%.c $(BUILD)/libneap.a
	@mkdir -p $(@D)
	$(HOST) -I$(LUA_INCDIR) $(LUA_LIBS) $(LIBS)

$(BUILD)/spec/%: spec/c/%.c $(BUILD)/libneap.a
	@mkdir -p $(@D)
	$(HOST) $(LIBS)

# What it counts the library's calls of.
$(BUILD)/spec/wrap_test: private override LDFLAGS += -Wl,--wrap=pthread_mutex_lock,--wrap=cblas_sgemm \
  -Wl,--wrap=ni_blas_is_fast,--wrap=ni_kernel_f32

tests: $(SPECS_X)

# For `neap bench`: what the machine can do, and other software (where it is installed).
$(BUILD)/bench/limits: scripts/bench/limits.c
	@mkdir -p $(@D)
	$(call say,CC) $(CC) -O2 $(WARN) -o $@ $< -lpthread
$(BUILD)/bench/onednn: scripts/bench/onednn.cpp
	@mkdir -p $(@D)
	$(call say,CXX) $(CXX) -O2 -fopenmp -o $@ $< -ldnnl
ONEDNN := $(wildcard /usr/include/dnnl.hpp /usr/local/include/dnnl.hpp)
bench-programs: $(BUILD)/bench/limits $(if $(ONEDNN),$(BUILD)/bench/onednn)
bench:
	@scripts/tools/deps build
	@$(MAKE_ALL) all bench-programs
	@scripts/neap bench --limits --peers

# ---- the ways in ----

# A make of its own, so that it sees what deps has just installed; on all processors unless -j says.
MAKE_ALL = $(MAKE) --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(JOBS))

deps:
	@scripts/tools/deps build
test:
	@scripts/tools/deps build test
	@$(MAKE_ALL) all tests
	@scripts/tools/test --build $(BUILD)
test-long:
	@scripts/tools/deps build test demo
	@$(MAKE_ALL) all tests
	@scripts/tools/test --build $(BUILD) --long
demo:
	@scripts/tools/deps build demo
	@$(MAKE_ALL) all
	@scripts/neap run scripts/examples/demo.lua
docs:
	@scripts/tools/deps build docs
	@$(MAKE_ALL) all
	@scripts/neap run scripts/tools/ops.lua > $(BUILD)/ops.md && mv $(BUILD)/ops.md docs/ops.md
	@ldoc --quiet --fatalwarnings -c docs/config.ld -d $(abspath $(BUILD))/docs .
	@echo '$(BUILD)/docs/index.html'

asan:
	@scripts/tools/deps build test
	@$(MAKE_ALL) BUILD=build/asan SAN=address,undefined CFLAGS='-O1 -g' all tests
	@scripts/tools/test --build build/asan --asan
# What takes its cases from a seed: files that are damaged, programs that are made up.
FUZZ := model_file_test file_test
fuzz:
	@scripts/tools/deps build
	@$(MAKE_ALL) BUILD=build/asan SAN=address,undefined CFLAGS='-O1 -g' $(FUZZ:%=build/asan/spec/%)
	@scripts/tools/fuzz $(SECONDS) "$(SEED)" $(FUZZ:%=build/asan/spec/%)
tsan:
	@scripts/tools/deps build
	@$(MAKE_ALL) BUILD=build/tsan SAN=thread CFLAGS='-O1 -g' tests
	@scripts/tools/test --build build/tsan --tsan
lint:
	@scripts/tools/deps build ci
	@$(MAKE_ALL) BUILD=build/lint CC=clang WERROR=1 all tests

# For aarch64, by Debian's cross compiler; what it needs of Debian for aarch64 lies in a folder.
ARM64 := build/arm64
ARM64_LIB := /usr/lib/aarch64-linux-gnu/openblas-pthread
ARM64_MAKE = $(MAKE_ALL) BUILD=$(ARM64) CC=aarch64-linux-gnu-gcc LUA=$(CURDIR)/$(ARM64)/lua5.4 \
  LUA_INCDIR=$(ARM64)/debian/usr/include/lua5.4 LDFLAGS='--sysroot=$(ARM64)/debian -L=$(ARM64_LIB)' \
  CPPFLAGS='--sysroot=$(ARM64)/debian -I=/usr/include/aarch64-linux-gnu/openblas-pthread'
# Run a program for aarch64 in an emulator, and Lua.
$(ARM64)/run: Makefile
	@mkdir -p $(@D)
	@printf '#!/bin/sh\nexec qemu-aarch64 -L "%s" -E LD_LIBRARY_PATH=%s "$$@"\n' \
	  '$(CURDIR)/$(ARM64)/debian' $(ARM64_LIB) > $@ && chmod +x $@
$(ARM64)/lua5.4: $(ARM64)/run
	@printf '#!/bin/sh\nexec "%s" "%s/usr/bin/lua5.4" "$$@"\n' '$(CURDIR)/$(ARM64)/run' \
	  '$(CURDIR)/$(ARM64)/debian' > $@ && chmod +x $@
arm64: $(ARM64)/lua5.4
	@scripts/tools/deps arm64
	@scripts/tools/deps --unpack $(ARM64)/debian arm64 build test
	@$(ARM64_MAKE) all
# Beside it stands this machine's own library, whose warnings are no errors here.
test-arm64: arm64
	@scripts/tools/deps build test
	@$(MAKE_ALL) WERROR= all
	@$(ARM64_MAKE) tests
	@scripts/tools/test --build $(ARM64) --arm64

install-lua: all
	for f in $(MODULES:bindings/%=%); do \
	  $(INSTALL) -D -m 644 bindings/$$f $(DESTDIR)$(INST_LUADIR)/$$f || exit 1; done
	$(INSTALL) -D -m 755 $(BUILD)/neap/core.so $(DESTDIR)$(INST_LIBDIR)/neap/core.so
	$(INSTALL) -D -m 755 $(BUILD)/neap/line.so $(DESTDIR)$(INST_LIBDIR)/neap/line.so
install: install-lua
	$(INSTALL) -D -m 644 runtime/neap.h $(DESTDIR)$(PREFIX)/include/neap.h
	$(INSTALL) -D -m 644 $(BUILD)/libneap.a $(DESTDIR)$(LIBDIR)/libneap.a
	$(INSTALL) -D -m 755 $(BUILD)/libneap.so $(DESTDIR)$(LIBDIR)/libneap.so.$(VERSION)
	ln -sf libneap.so.$(VERSION) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libneap.so
	$(INSTALL) -D -m 644 $(BUILD)/neap.pc $(DESTDIR)$(LIBDIR)/pkgconfig/neap.pc
	$(INSTALL) -D -m 755 scripts/neap $(DESTDIR)$(PREFIX)/bin/neap
	for f in $(SHARED); do $(INSTALL) -D -m 644 $$f $(DESTDIR)$(SHAREDIR)/$$f || exit 1; done
uninstall:
	rm -rf $(DESTDIR)$(INST_LUADIR)/neap $(DESTDIR)$(INST_LIBDIR)/neap $(DESTDIR)$(SHAREDIR)
	rm -f $(DESTDIR)$(PREFIX)/include/neap.h $(DESTDIR)$(LIBDIR)/libneap.a \
	  $(DESTDIR)$(LIBDIR)/libneap.so $(DESTDIR)$(LIBDIR)/$(SONAME) \
	  $(DESTDIR)$(LIBDIR)/libneap.so.$(VERSION) $(DESTDIR)$(LIBDIR)/pkgconfig/neap.pc \
	  $(DESTDIR)$(PREFIX)/bin/neap

clean:
	rm -rf build $(BUILD)

help:
	@printf '%-12s %s\n' \
	  all 'the C library, the Lua modules, the C hosts (default)' \
	  deps 'installs what building needs (Debian)' \
	  test 'installs what is missing, builds, runs the specs' \
	  test-long 'the specs that take longer' \
	  demo 'installs what is missing, builds, trains three models on real data and runs one in C' \
	  bench 'builds, and times this machine beside what other software is installed' \
	  docs 'docs/ops.md and the manual, $(BUILD)/docs/index.html' \
	  asan 'the specs under AddressSanitizer and UndefinedBehaviorSanitizer' \
	  fuzz 'damaged model files under the same, for SECONDS=60, from SEED' \
	  tsan 'the thread specs under ThreadSanitizer' \
	  lint 'clang, warnings as errors' \
	  arm64 'installs a cross compiler, builds everything for aarch64 into $(ARM64)' \
	  test-arm64 'the C specs and those about numbers, for aarch64, emulated' \
	  install 'to PREFIX ($(PREFIX)), below DESTDIR' \
	  install-lua 'only the Lua modules, to INST_LUADIR and INST_LIBDIR' \
	  uninstall 'what install put there' \
	  clean 'removes build/'
	@echo 'variables: CC CFLAGS CPPFLAGS LDFLAGS WERROR SAN V BUILD JOBS LUA LUA_INCDIR LUA_LIBS'
	@echo '           BLAS_LIBS EDIT_LIBS PREFIX LIBDIR INST_LUADIR INST_LIBDIR DESTDIR'

-include $(RUNTIME_O:.o=.d) $(CORE_O:.o=.d) $(OBJ)/bindings/core/line.d \
         $(SPECS_X:=.d) $(EMBED_X:=.d)
