# denoised: build, test, run. `make` prints help. Every variant builds in its own folder under build/.
SHELL := /bin/bash
CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
PREFIX ?= /usr/local
PORT ?= 8080
SANITIZER ?=
VARIANT := $(if $(SANITIZER),$(SANITIZER),release)
OUT := build/$(VARIANT)
COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

ifneq ($(filter-out address undefined thread fuzz,$(SANITIZER)),)
$(error SANITIZER must be address, undefined or thread)
endif

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wformat=2 -Wconversion -Wno-sign-conversion -Wstrict-prototypes -Wmissing-prototypes \
        -Wvla -Wdouble-promotion -Wimplicit-fallthrough -Wnull-dereference -Wtrampolines -Wbidi-chars=any
# All of the OpenSSF guide that gcc 12 has: -fstrict-flex-arrays, -fzero-init-padding-bits and -fhardened came later. -Wno-sign-conversion: sizes
# and counts meet in every loop. Kernels leave out what costs them in their inner loops (KERNEL below): they have no buffers on the stack.
HARD := -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -fstack-clash-protection -fstack-protector-strong -fno-delete-null-pointer-checks \
        -fno-strict-overflow -fno-strict-aliasing -ftrivial-auto-var-init=zero -fexceptions -fno-common -fPIE
ERROR := -Werror=format-security -Werror=implicit -Werror=incompatible-pointer-types -Werror=int-conversion
# The machine that the compiler makes programs for; each has its instruction sets, other machines the generic one. Kernels for several
# instruction sets live in one binary, each in its own files (*_avx2.c) with its own flags. MACHINE=generic tries that one anywhere.
MACHINE := $(if $(filter fuzz,$(SANITIZER)),generic,$(or $(filter x86_64 aarch64,$(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))),generic))
ISAS_x86_64 := sse2 avx2 avx512 bf16 fp16
ISAS_aarch64 := neon
ISAS_generic := generic
OTHER_ISAS := $(filter-out $(ISAS_$(MACHINE)),$(ISAS_x86_64) $(ISAS_aarch64) $(ISAS_generic))
ifeq ($(MACHINE),x86_64)
HARD += -fcf-protection=full
HAS_KERNELS := -DDN_CPU_X86_64
else ifeq ($(MACHINE),aarch64)
HARD += -mbranch-protection=standard
HAS_KERNELS := -DDN_CPU_AARCH64
endif
# Contraction is off everywhere (noise and samplers must agree between machines); kernel files turn it on themselves.
CFLAGS ?= -O2 -g
BASE := -std=c11 -D_GNU_SOURCE -DDN_COMMIT=\"$(COMMIT)\" -I. -Iengine $(WARN) $(ERROR) -ffp-contract=off -ffile-prefix-map=$(CURDIR)=. -MMD -MP -pthread $(EXTRA_CFLAGS)
LINK := -pthread -pie -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,-z,separate-code -Wl,--as-needed -Wl,--no-copy-dt-needed-entries \
        -Wl,--build-id=sha1
ifeq ($(SANITIZER),)
BASE += $(HARD)
else ifeq ($(SANITIZER),fuzz)
# What `make fuzz` builds with clang: every branch counted for libFuzzer, the first fault the end.
# Kernels are written in gcc's C and parse nothing: the generic ones, as gcc makes them; SHA-256 likewise, which would take most of the time.
FUZZ := -fsanitize=address,undefined -fno-sanitize-recover=undefined
PLAIN := $(BASE)
BASE += $(FUZZ) -fsanitize=fuzzer-no-link -fno-omit-frame-pointer -fPIE -fno-common -w
LINK := -pthread -pie $(FUZZ)
else
BASE += -fsanitize=$(SANITIZER) -fno-omit-frame-pointer -fPIE -fno-common $(if $(filter undefined,$(SANITIZER)),-fno-sanitize-recover=undefined)
LINK := -pthread -pie -fsanitize=$(SANITIZER)
endif
LIBS := -lmicrohttpd -lsqlite3 -lcjson -lpng16 -lz -lcurl -lm -ldl

# What the build identity of engines says of the sources: all that may change an image's bytes, and how it was compiled. A commit
# would not do: it is unknown in an image or a tarball, and says nothing of changes that are not committed.
SOURCES := $(shell { cat Makefile deploy/cuda.mk $$(find engine api -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' | LC_ALL=C sort); echo '$(CC) $(CFLAGS) $(EXTRA_CFLAGS) $(VARIANT)'; \
  $(CC) -dumpfullversion; } 2>/dev/null | sha256sum | cut -c1-16)

# engine/backend/cuda is a library of its own (deploy/cuda.mk), which no CPU-only build compiles.
ALL_ENGINE_SRC := $(sort $(shell find engine -name '*.c' ! -name '*.inc.c' ! -path 'engine/backend/cuda/*'))
ENGINE_SRC := $(filter-out $(addsuffix .c,$(addprefix %_,$(OTHER_ISAS))),$(ALL_ENGINE_SRC))
API_SRC := $(sort $(shell find api -name '*.c' -not -name '*.inc.c'))
# What fault points do: in the program for tests that passes them, never in the program.
FAULT_SRC := server/fault.c
SERVER_SRC := $(filter-out $(FAULT_SRC),$(sort $(shell find server -name '*.c')))
TEST_SRC := $(sort $(shell find tests -name 'test_*.c' 2>/dev/null))
BENCH_SRC := $(sort $(shell find tests/bench -name 'bench_*.c' 2>/dev/null))
obj = $(patsubst %.c,$(OUT)/%.o,$(1))
ENGINE_OBJ := $(call obj,$(ENGINE_SRC))
SERVICE_OBJ := $(call obj,$(API_SRC) $(SERVER_SRC))
MAIN_OBJ := $(OUT)/server/main.o
FAULTS_OBJ := $(patsubst %.c,$(OUT)/faults/%.o,$(API_SRC) $(SERVER_SRC) $(FAULT_SRC))
FUZZ_TARGETS := $(sort $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c)))
REPLAYS := $(addprefix $(OUT)/tests/fuzz/replay_,$(FUZZ_TARGETS))
TESTS := $(patsubst %.c,$(OUT)/%,$(TEST_SRC)) $(REPLAYS)
BENCHES := $(patsubst %.c,$(OUT)/%,$(BENCH_SRC))

.PHONY: help
help:
	@sed -n 's/^## //p' Makefile

## make run          install what it needs, build, serve the built-in model on 127.0.0.1:$PORT (8080)
## make test         install what the tests need, build, run every test
## make build        build/denoised; with nvcc and cuDNN build/libdenoised_cuda.so, the CUDA library (CUDA=0: without)
## make fuzz         TARGET= SECONDS= (60): one fuzz entry under clang's libFuzzer with sanitizers
## make fuzz-test    1,000,000 executions over all of them, where clang is installed
## make api-fuzz     CASES= (5000): requests that api/openapi.yaml allows and forbids, and whether the answers are as it says
## make cuda-test    the CUDA back end over an emulated GPU; with SANITIZER=, as CI runs it
## make check        format, static analysis, include law, hardened flags
## make torture      for MINUTES (60): kills, power cuts, faults, seeds, fuzzing, ONLY=kills,... of them; adds up in $TORTURE_DIR (torture/)
## make gpu-test     what an NVIDIA GPU can show in ten minutes: right to the bit, as fast as it should be (tests/gpu/README.md)
## make soak         for MINUTES (60): half the capacity and a fault every 30 s; what it does to memory and files
## make screenshots  pictures of the page in build/screenshots, where Debian's chromium and chromium-driver are installed
## make bench        measure; results beside their floors
## make SANITIZER=address|undefined|thread test
## make image-test   build the container image without Docker and try it
## make arm-test     build for AArch64 and try it under emulation, where Debian's cross compiler and qemu-user are installed
## make install      DESTDIR= PREFIX=/usr/local
## make clean

include deploy/deps.mk

.PHONY: build
build: build/denoised $(OUT)/libdenoised.a

build/denoised: $(OUT)/denoised
	@cp -f $< $@.tmp && mv -f $@.tmp $@

# The link flag that keeps the program itself from being opened with dlopen; never on the CUDA library.
$(OUT)/denoised: $(SERVICE_OBJ) $(OUT)/libdenoised.a
	@echo "  LD $@"
	@$(CC) $(LINK) $(if $(SANITIZER),,-Wl,-z,nodlopen) -o $@ $(SERVICE_OBJ) $(OUT)/libdenoised.a $(LIBS)

$(OUT)/libdenoised.a: $(ENGINE_OBJ)
	@rm -f $@
	@ar rcs $@ $(ENGINE_OBJ)

KERNEL := -O3 -ffp-contract=fast -fno-trapping-math -fno-math-errno -fno-stack-protector -fno-stack-clash-protection \
          -ftrivial-auto-var-init=uninitialized
$(OUT)/engine/backend/cpu/%_sse2.o: FLAGS = $(KERNEL) -msse2
$(OUT)/engine/backend/cpu/%_avx2.o: FLAGS = $(KERNEL) -mavx2 -mfma
AVX512 := -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma -mprefer-vector-width=512
$(OUT)/engine/backend/cpu/%_avx512.o: FLAGS = $(KERNEL) $(AVX512)
$(OUT)/engine/backend/cpu/%_bf16.o: FLAGS = $(KERNEL) $(AVX512) -mavx512bf16
$(OUT)/engine/backend/cpu/%_fp16.o: FLAGS = $(KERNEL) $(AVX512) -mavx512fp16
$(OUT)/engine/backend/cpu/isa.o $(OUT)/engine/backend/cpu/half.o $(OUT)/engine/train/backward.o: FLAGS = $(HAS_KERNELS)
$(OUT)/engine/backend/cpu/%_neon.o $(OUT)/engine/backend/cpu/%_generic.o: FLAGS = $(KERNEL)
$(OUT)/engine/train/%_neon.o $(OUT)/engine/train/%_generic.o: FLAGS = $(KERNEL)
$(OUT)/engine/train/%_sse2.o: FLAGS = $(KERNEL) -msse2
$(OUT)/engine/train/%_avx2.o: FLAGS = $(KERNEL) -mavx2 -mfma
$(OUT)/engine/train/%_avx512.o: FLAGS = $(KERNEL) $(AVX512)

$(OUT)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC $<"
	@$(COMPILE) $(FLAGS) -c -o $@ $<
COMPILE = $(CC) $(CFLAGS) $(BASE)
ifeq ($(SANITIZER),fuzz)
$(OUT)/engine/backend/cpu/%_generic.o $(OUT)/engine/train/%_generic.o $(OUT)/engine/base/sha256.o: COMPILE = gcc $(CFLAGS) $(PLAIN)
endif

# The program with its fault points (server/fault.h), for tests that kill it at them.
$(OUT)/denoised-faults: $(FAULTS_OBJ) $(OUT)/libdenoised.a
	@echo "  LD $@"
	@$(CC) $(LINK) -o $@ $(FAULTS_OBJ) $(OUT)/libdenoised.a $(LIBS)
$(OUT)/faults/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC $< (with fault points)"
	@$(CC) $(CFLAGS) $(BASE) $(FLAGS) -DDN_FAULT_POINTS -c -o $@ $<

# What states the sources or the commit is compiled again when they change.
SOURCES_OBJ := $(OUT)/engine/batch/engine_identity.o $(OUT)/engine/backend/gpu_library.o
$(SOURCES_OBJ): FLAGS = -DDN_SOURCES=\"$(SOURCES)\"
$(SOURCES_OBJ): $(OUT)/sources.stamp
COMMIT_OBJ := server/command_serve.o server/command_version.o
$(addprefix $(OUT)/,$(COMMIT_OBJ)) $(addprefix $(OUT)/faults/,$(COMMIT_OBJ)): $(OUT)/commit.stamp
$(OUT)/sources.stamp: STAMPED = $(SOURCES)
$(OUT)/commit.stamp: STAMPED = $(COMMIT)
$(OUT)/%.stamp: always
	@mkdir -p $(@D)
	@echo '$(STAMPED)' | cmp -s - $@ || echo '$(STAMPED)' >$@
.PHONY: always
always:

# The daemon's description lies in the program.
$(OUT)/api/openapi.o $(OUT)/faults/api/openapi.o: api/openapi.json
$(OUT)/server/store/sqlite_migrate.o $(OUT)/faults/server/store/sqlite_migrate.o: $(wildcard migrations/sqlite/*.sql)

# So does the page, as it is and compressed.
WEB := $(wildcard server/web/*.html server/web/*.css server/web/*.js server/web/*.svg)
$(OUT)/server/web_parts.o $(OUT)/faults/server/web_parts.o: FLAGS = -Wa,-I$(OUT)
$(OUT)/server/web_parts.o $(OUT)/faults/server/web_parts.o: $(WEB) $(WEB:server/%=$(OUT)/%.gz)
$(OUT)/web/%.gz: server/web/%
	@mkdir -p $(@D)
	@gzip -9nc $< >$@

$(OUT)/server/command_manual.o $(OUT)/faults/server/command_manual.o: server/manual.roff

# A test links what its room may see: engine tests the engine alone, api tests the engine and api, the rest everything.
$(OUT)/libapi.a: $(call obj,$(API_SRC))
	@rm -f $@
	@ar rcs $@ $^
$(OUT)/libserver.a: $(filter-out $(MAIN_OBJ),$(call obj,$(SERVER_SRC)))
	@rm -f $@
	@ar rcs $@ $^
$(OUT)/tests/engine/% $(OUT)/tests/bench/bench_engine%: LINKED = $(OUT)/libdenoised.a
$(OUT)/tests/api/%: LINKED = $(OUT)/libapi.a $(OUT)/libdenoised.a
# The simulator runs the store and the dispatcher on a machine of its own making: what they ask of the system goes there (tests/sim).
SIM_OBJ := $(call obj,$(filter-out tests/sim/test_%,$(wildcard tests/sim/*.c)))
SIM_WRAPPED := clock_gettime close closedir dirfd eventfd eventfd_read eventfd_write fdopendir flock fstat fsync getrandom kill mkdir \
  open openat opendir pidfd_open poll posix_fallocate posix_spawn posix_spawn_file_actions_adddup2 pthread_cond_broadcast \
  pthread_cond_signal pthread_cond_timedwait pthread_cond_wait pthread_create pthread_join pthread_mutex_lock pthread_mutex_unlock pwrite read \
  readdir recv rename renameat send socketpair stat statfs statvfs unlink unlinkat waitpid write hub_milestone
$(OUT)/tests/sim/%: LINKED = $(SIM_OBJ) $(OUT)/libserver.a $(OUT)/libapi.a $(OUT)/libdenoised.a
$(OUT)/tests/sim/%: WRAPS = $(SIM_WRAPPED:%=-Wl,--wrap=%)
$(OUT)/tests/%: LINKED = $(OUT)/libserver.a $(OUT)/libapi.a $(OUT)/libdenoised.a
# What the tests of the store share, the contract suite among it.
$(OUT)/tests/store/libstoretests.a: $(call obj,$(filter-out $(TEST_SRC),$(wildcard tests/store/*.c)))
	@rm -f $@
	@ar rcs $@ $^
$(OUT)/tests/store/%: LINKED = $(OUT)/tests/store/libstoretests.a $(OUT)/libserver.a $(OUT)/libapi.a $(OUT)/libdenoised.a
.SECONDEXPANSION:
$(OUT)/tests/%: $(OUT)/tests/%.o $$(LINKED)
	@$(CC) $(LINK) $(WRAPS) -o $@ $< $(LINKED) $(LIBS)

include deploy/cuda.mk

# A fuzz entry with the driver that needs no fuzzer (tests/fuzz/replay.c), and with libFuzzer (SANITIZER=fuzz).
FUZZ_LIBS = $(OUT)/libserver.a $(OUT)/libapi.a $(OUT)/libdenoised.a
$(REPLAYS): $(OUT)/tests/fuzz/replay_%: $(OUT)/tests/fuzz/fuzz_%.o $(OUT)/tests/fuzz/replay.o $(FUZZ_LIBS)
	@$(CC) $(LINK) -o $@ $^ $(LIBS)
$(OUT)/fuzz_%: $(OUT)/tests/fuzz/fuzz_%.o $(FUZZ_LIBS)
	@$(CC) $(LINK) -fsanitize=fuzzer -o $@ $^ $(LIBS)
.SECONDARY: $(FUZZ_TARGETS:%=$(OUT)/tests/fuzz/fuzz_%.o)
CLANG ?= clang
SECONDS ?= 60
FUZZERS := $(addprefix build/fuzz/fuzz_,$(or $(TARGET),$(FUZZ_TARGETS)))
.PHONY: fuzz fuzz-build fuzz-test
fuzz-build:
	@$(MAKE) --no-print-directory -j2 SANITIZER=fuzz CC="$(CLANG)" CFLAGS="-O1 -g" OUT=build/fuzz $(FUZZERS)
fuzz:
	@sh deploy/packages.sh install build fuzz
	@$(MAKE) --no-print-directory fuzz-build
	@tests/fuzz/run.sh "$(TARGET)" -max_total_time=$(SECONDS)
fuzz-test:
	@tests/fuzz/million.sh

.PHONY: deps run test torture soak tests-build check bench screenshots install examples arm-test image-test clean
deps:
	@sh deploy/packages.sh install build runtime try

run: deps
	@$(MAKE) --no-print-directory build
	exec build/denoised serve --listen 127.0.0.1:$(PORT) --data ./data --model fashion-mnist=models/fashion-mnist

# Objects of tests are kept: a change compiles what it changed.
.SECONDARY: $(call obj,$(TEST_SRC) $(BENCH_SRC)) $(SIM_OBJ)
# Libraries that tests load before the program.
SHIMS := $(patsubst %.c,$(OUT)/%.so,$(sort $(wildcard tests/shims/*.c)))
$(OUT)/tests/shims/%.so: tests/shims/%.c
	@mkdir -p $(@D)
	@$(CC) -std=c11 -D_GNU_SOURCE -O2 -fPIC -shared $(WARN) -o $@ $<
# Of these, a CUDA library that says of itself what this build is, and one that wants a cuDNN which no machine has.
$(OUT)/tests/shims/gpu_library.so $(OUT)/tests/shims/gpu_lacks_cudnn.so: tests/shims/gpu_library.c engine/backend/library.h engine/backend/backend.h $(OUT)/sources.stamp
	@mkdir -p $(@D)
	@$(CC) -shared -Wl,-soname,libcudnn.so.9.of-tests -o $@.needed -x c /dev/null
	@$(CC) -std=c11 -D_GNU_SOURCE -O2 -fPIC -shared $(WARN) -I. -Iengine -DDN_SOURCES=\"$(SOURCES)\" -o $@ $< \
	  $(if $(findstring lacks,$@),-Wl$(comma)--no-as-needed $@.needed)
	@rm -f $@.needed
comma := ,
SHIMS += $(OUT)/tests/shims/gpu_lacks_cudnn.so
$(OUT)/tests/engine/test_devices: $(addprefix $(OUT)/tests/shims/,gpu_driver.so gpu_library.so gpu_lacks_cudnn.so)

tests-build: $(TESTS) $(GPU_PROGRAMS) $(GPU_BUILT) $(OUT)/emulated/libdenoised_cuda.so $(SHIMS) $(OUT)/denoised $(OUT)/denoised-faults build/denoised $(OUT)/examples/generate

SCRIPTS := $(sort $(shell find tests -name '*_test.py' -o -name '*_test.sh' 2>/dev/null))
# Under a sanitizer the first error ends the program, and leaks count.
export ASAN_OPTIONS = abort_on_error=0:detect_leaks=1
export UBSAN_OPTIONS = print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS = halt_on_error=1:second_deadlock_stack=1
test:
	@sh deploy/packages.sh install build runtime test
	@sh deploy/packages.sh install clients || echo "Tests that need these packages are skipped"
	@$(MAKE) --no-print-directory venv
	@$(MAKE) --no-print-directory -j2 tests-build
	@DENOISED=$(CURDIR)/$(OUT)/denoised TEST_VARIANT=$(VARIANT) tests/run.sh $(TESTS) $(SCRIPTS)

# What of it is the CUDA back end's over the emulated GPU: the programs alone, so that CI can run them under sanitizers too.
.PHONY: cuda-test
CUDA_TESTS := $(filter $(OUT)/tests/cuda/%,$(TESTS))
cuda-test:
	@sh deploy/packages.sh install build test
	@$(MAKE) --no-print-directory -j2 $(CUDA_TESTS)
	@TEST_VARIANT=$(VARIANT) tests/run.sh $(CUDA_TESTS)

# build/venv, with what tests/clients and tests/browser need of PyPI; none where there is no index of packages.
.PHONY: venv
venv:
	@tests/clients/venv.sh

# The daemon against its description: CASES requests by chance (make test has some that are always the same).
CASES ?= 5000
.PHONY: api-fuzz
api-fuzz: build
	@sh deploy/packages.sh install clients
	@$(MAKE) --no-print-directory venv
	@DENOISED=$(CURDIR)/$(OUT)/denoised build/venv/bin/python3 tests/clients/schemathesis_test.py --cases $(CASES)

# Hours of what `make test` does for minutes; the counts survive `make clean`.
MINUTES ?= 60
ONLY ?=
TORTURE_DIR ?= torture
TORTURE_JOBS ?= 1
torture:
	@sh deploy/packages.sh install build runtime test
	@$(MAKE) --no-print-directory -j2 tests-build
	@TEST_VARIANT=$(VARIANT) tests/torture/run.sh --out $(OUT) --dir $(TORTURE_DIR) --minutes $(MINUTES) --only "$(ONLY)" --jobs $(TORTURE_JOBS)

soak:
	@sh deploy/packages.sh install build runtime test
	@$(MAKE) --no-print-directory build $(OUT)/denoised
	@nice -n 19 python3 tests/torture/soak.py --out $(OUT) --dir $(TORTURE_DIR) --minutes $(MINUTES)

check:
	@sh deploy/packages.sh install build check
	@$(MAKE) --no-print-directory build
	@echo "format"; clang-format --dry-run -Werror $(ALL_ENGINE_SRC) $(CUDA_SRC) $(NVIDIA_SRC) $(EMULATOR_C) $(API_SRC) $(SERVER_SRC) $(FAULT_SRC) $(TEST_SRC) $(BENCH_SRC)
	@echo "house rules"; python3 tests/tidy/tidy.py
	@echo "hardened flags"; tests/tidy/hardened.sh build/denoised
	@$(or $(CHECK_CUDA),echo "no CUDA library to check: $(NO_CUDA)")
	@echo "warnings are errors"; $(MAKE) --no-print-directory OUT=build/werror EXTRA_CFLAGS=-Werror build/werror/denoised build/werror/libcuda_emulated.a
	@echo "static analysis"; cppcheck --quiet --std=c11 --enable=warning,portability --inline-suppr --suppressions-list=tests/tidy/cppcheck.txt \
	  --error-exitcode=1 -D_GNU_SOURCE -I. -Iengine -j2 engine api server
	@echo "checked"

screenshots: build
	@DENOISED=$(CURDIR)/$(OUT)/denoised python3 tests/browser/screenshots.py

bench: build $(BENCHES)
	@tests/bench/run.sh $(OUT)

examples: $(OUT)/examples/generate
$(OUT)/examples/generate: $(OUT)/examples/generate.o $(OUT)/libdenoised.a
	@$(CC) $(LINK) -o $@ $< $(OUT)/libdenoised.a -lcjson -lpng16 -lz -lm -ldl

install: build
	install -D -m 0755 build/denoised $(DESTDIR)$(PREFIX)/bin/denoised
	$(INSTALL_CUDA)
	install -D -m 0644 $(OUT)/libdenoised.a $(DESTDIR)$(PREFIX)/lib/libdenoised.a
	install -d $(DESTDIR)$(PREFIX)/include/denoised
	cd engine && cp --parents $$(find . -name '*.h' ! -path './backend/cpu/*' ! -path './backend/cuda/*') $(abspath $(DESTDIR)$(PREFIX))/include/denoised/
	install -d $(DESTDIR)$(PREFIX)/share/denoised
	cp -r models $(DESTDIR)$(PREFIX)/share/denoised/
	install -d $(addprefix $(DESTDIR)$(PREFIX)/share/,man/man1 bash-completion/completions zsh/site-functions fish/vendor_completions.d)
	build/denoised manual >$(DESTDIR)$(PREFIX)/share/man/man1/denoised.1
	build/denoised completions bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/denoised
	build/denoised completions zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_denoised
	build/denoised completions fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/denoised.fish
	install -D -m 0644 LICENSE $(DESTDIR)$(PREFIX)/share/doc/denoised/LICENSE

arm-test:
	@tests/arm/run.sh

image-test:
	@sh deploy/packages.sh install image
	@deploy/image-test.sh

clean:
	rm -rf build

-include $(shell find build -path build/image -prune -o -type f -name '*.d' -print 2>/dev/null)
