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

ifneq ($(filter-out address undefined thread,$(SANITIZER)),)
$(error SANITIZER must be address, undefined or thread)
endif

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wformat=2 -Wconversion -Wno-sign-conversion -Wstrict-prototypes -Wmissing-prototypes \
        -Wvla -Wdouble-promotion -Wimplicit-fallthrough -Wnull-dereference -Wtrampolines -Wbidi-chars=any
HARD := -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -fstack-clash-protection -fstack-protector-strong -fno-delete-null-pointer-checks \
        -fno-strict-overflow -fno-strict-aliasing -ftrivial-auto-var-init=zero -fexceptions -fno-common -fPIE
ERROR := -Werror=format-security -Werror=implicit -Werror=incompatible-pointer-types -Werror=int-conversion
ARCH := $(shell uname -m)
ifeq ($(ARCH),x86_64)
HARD += -fcf-protection=full
endif
# Contraction is off everywhere (noise and samplers must agree between machines); kernel files turn it on themselves.
CFLAGS ?= -O2 -g
BASE := -std=c11 -D_GNU_SOURCE -DDN_COMMIT=\"$(COMMIT)\" -I. -Iengine $(WARN) $(ERROR) -ffp-contract=off -ffile-prefix-map=$(CURDIR)=. -MMD -MP -pthread $(EXTRA_CFLAGS)
LINK := -pthread -pie -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,-z,separate-code -Wl,--as-needed -Wl,--build-id=sha1
ifeq ($(SANITIZER),)
BASE += $(HARD)
else
BASE += -fsanitize=$(SANITIZER) -fno-omit-frame-pointer -fPIE -fno-common $(if $(filter undefined,$(SANITIZER)),-fno-sanitize-recover=undefined)
LINK := -pthread -pie -fsanitize=$(SANITIZER)
endif
LIBS := -lmicrohttpd -lsqlite3 -lcjson -lpng16 -lz -lm -ldl

ENGINE_SRC := $(sort $(shell find engine -name '*.c' ! -name '*.inc.c'))
API_SRC := $(sort $(shell find api -name '*.c' -not -name '*.inc.c'))
SERVER_SRC := $(sort $(shell find server -name '*.c'))
TEST_SRC := $(sort $(shell find tests -name 'test_*.c'))
BENCH_SRC := $(sort $(shell find tests/bench -name 'bench_*.c' 2>/dev/null))
obj = $(patsubst %.c,$(OUT)/%.o,$(1))
ENGINE_OBJ := $(call obj,$(ENGINE_SRC))
SERVICE_OBJ := $(call obj,$(API_SRC) $(SERVER_SRC))
MAIN_OBJ := $(OUT)/server/main.o
TESTS := $(patsubst %.c,$(OUT)/%,$(TEST_SRC))
BENCHES := $(patsubst %.c,$(OUT)/%,$(BENCH_SRC))

.PHONY: help
help:
	@sed -n 's/^## //p' Makefile

## make run          install what it needs, build, serve the built-in model on 127.0.0.1:$PORT (8080)
## make test         install what the tests need, build, run every test
## make build        build/denoised
## make check        format, static analysis, include law, hardened flags
## make bench        measure; results beside their floors
## make SANITIZER=address|undefined|thread test
## make image-test   build the container image without Docker and try it
## make install      DESTDIR= PREFIX=/usr/local
## make clean

include deploy/deps.mk

.PHONY: build
build: build/denoised $(OUT)/libdenoised.a

build/denoised: $(OUT)/denoised
	@cp -f $< $@.tmp && mv -f $@.tmp $@

# The link flag that keeps the program itself from being opened with dlopen; never on the CUDA library.
$(OUT)/denoised: $(SERVICE_OBJ) $(OUT)/libdenoised.a
	$(CC) $(LINK) $(if $(SANITIZER),,-Wl,-z,nodlopen) -o $@ $(SERVICE_OBJ) $(OUT)/libdenoised.a $(LIBS)

$(OUT)/libdenoised.a: $(ENGINE_OBJ)
	@rm -f $@
	@ar rcs $@ $(ENGINE_OBJ)

# Kernels for several instruction sets live in one binary, each in its own file with its own flags.
KERNEL := -O3 -ffp-contract=fast -fno-trapping-math -fno-math-errno -fno-stack-protector -fno-stack-clash-protection
$(OUT)/engine/backend/cpu/%_sse2.o: FLAGS = $(KERNEL) -msse2
$(OUT)/engine/backend/cpu/%_avx2.o: FLAGS = $(KERNEL) -mavx2 -mfma
$(OUT)/engine/backend/cpu/%_avx512.o: FLAGS = $(KERNEL) -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma -mprefer-vector-width=512

$(OUT)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC $<"
	@$(CC) $(CFLAGS) $(BASE) $(FLAGS) -c -o $@ $<

# A test links what its room may see: engine tests the engine alone, api tests the engine and api, the rest everything.
$(OUT)/libapi.a: $(call obj,$(API_SRC))
	@rm -f $@
	@ar rcs $@ $^
$(OUT)/libserver.a: $(filter-out $(MAIN_OBJ),$(call obj,$(SERVER_SRC)))
	@rm -f $@
	@ar rcs $@ $^
$(OUT)/tests/engine/% $(OUT)/tests/bench/bench_engine%: LINKED = $(OUT)/libdenoised.a
$(OUT)/tests/api/%: LINKED = $(OUT)/libapi.a $(OUT)/libdenoised.a
$(OUT)/tests/%: LINKED = $(OUT)/libserver.a $(OUT)/libapi.a $(OUT)/libdenoised.a
.SECONDEXPANSION:
$(OUT)/tests/%: $(OUT)/tests/%.o $$(LINKED)
	@$(CC) $(LINK) -o $@ $< $(LINKED) $(LIBS)

.PHONY: tests-build
tests-build: $(TESTS)

clean:
	rm -rf build

-include $(shell find build -name '*.d' 2>/dev/null)
