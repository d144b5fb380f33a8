# The CUDA back end, a library of its own: libdenoised_cuda.so where nvcc is installed, and everywhere the same sources over an emulated GPU
# (tests/cuda/emulator), for tests. Nothing here is linked into the program.
NVCC ?= $(or $(shell command -v nvcc 2>/dev/null),$(wildcard /usr/local/cuda/bin/nvcc))
CUDA_HOME ?= $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
ifneq ($(filter default undefined,$(origin CXX)),)
CXX := $(foreach word,$(CC),$(patsubst %clang,%clang++,$(patsubst %gcc,%g++,$(word))))
endif

# What the library shares with the program, as position-independent code: an archive, of which the linker takes what is asked for.
pic = $(patsubst %.c,$(OUT)/pic/%.o,$(1))
PIC_SRC := $(sort $(wildcard engine/base/*.c engine/plan/*.c) engine/backend/program_check.c)
CUDA_SRC := $(sort $(wildcard engine/backend/cuda/*.c))
NVIDIA_SRC := $(sort $(wildcard engine/backend/cuda/nvidia/*.c))
EMULATOR_C := $(sort $(wildcard tests/cuda/emulator/*.c))
EMULATOR_CXX := $(sort $(wildcard tests/cuda/emulator/*.cpp))
KERNELS := $(sort $(wildcard engine/backend/cuda/kernels/*.cu))
CUDA_HEADERS := $(wildcard engine/backend/cuda/*.h engine/backend/cuda/kernels/*) $(wildcard tests/cuda/emulator/*.h tests/cuda/emulator/include/*)
PIC := -fPIC -fvisibility=hidden
CUDA_BASE = $(filter-out -fPIE,$(BASE)) $(PIC)

# What says of which sources the library is.
TABLE_OBJ := $(OUT)/emulated/engine/backend/cuda/backend.o $(OUT)/nvidia/engine/backend/cuda/backend.o
$(TABLE_OBJ): FLAGS = -DDN_SOURCES=\"$(SOURCES)\"
$(TABLE_OBJ): $(OUT)/sources.stamp

$(OUT)/libpic.a: $(call pic,$(PIC_SRC))
	@rm -f $@
	@ar rcs $@ $^
$(OUT)/pic/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC $< (shared)"
	@$(CC) $(CFLAGS) $(CUDA_BASE) -c -o $@ $<

# ---- Over the emulator. Its headers stand in for CUDA's, so no toolkit is needed.
EMULATE := -Itests/cuda/emulator/include -DDN_CUDA_EMULATED
EMULATED_OBJ := $(patsubst %.c,$(OUT)/emulated/%.o,$(CUDA_SRC) $(EMULATOR_C)) $(patsubst %.cu,$(OUT)/emulated/%.o,$(KERNELS)) \
                $(patsubst %.cpp,$(OUT)/emulated/%.o,$(EMULATOR_CXX))
$(OUT)/emulated/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC $< (emulated)"
	@$(CC) $(CFLAGS) $(CUDA_BASE) $(EMULATE) $(FLAGS) -c -o $@ $<
# Kernels: fused multiply-adds as on the GPU do not matter to their tests but for registers' programs, which must have none.
EMULATED_CXX = $(CXX) -std=c++17 -x c++ $(filter-out -std=% -Wstrict-prototypes -Wmissing-prototypes -Werror=implicit -Werror=incompatible-pointer-types \
  -Werror=int-conversion -Wpedantic -Wconversion -Wshadow,$(CFLAGS) $(CUDA_BASE)) $(EMULATE) -Itests/cuda/emulator
$(OUT)/emulated/%.o: %.cu $(CUDA_HEADERS)
	@mkdir -p $(@D)
	@echo "  CXX $< (emulated)"
	@$(EMULATED_CXX) -c -o $@ $<
$(OUT)/emulated/%.o: %.cpp $(CUDA_HEADERS)
	@mkdir -p $(@D)
	@echo "  CXX $< (emulated)"
	@$(EMULATED_CXX) -c -o $@ $<
$(OUT)/libcuda_emulated.a: $(EMULATED_OBJ)
	@rm -f $@
	@ar rcs $@ $^
# It shows one function; what it takes from static libraries stays its own.
CUDA_EXPORTS := -Wl,--version-script=engine/backend/cuda/exports.map
# As a library that the program can open: DENOISED_BACKEND_DIR=$(OUT)/emulated. Never installed.
$(OUT)/emulated/libdenoised_cuda.so: $(EMULATED_OBJ) $(OUT)/libpic.a
	@echo "  LD $@"
	@$(CXX) -shared $(filter-out -pie,$(LINK)) $(CUDA_EXPORTS) -o $@ $(EMULATED_OBJ) $(OUT)/libpic.a -lcjson -lm -lpthread
# Tests of its parts: C, with the emulated back end linked in.
$(OUT)/tests/cuda/%: LINKED = $(OUT)/libcuda_emulated.a $(OUT)/libdenoised.a
$(OUT)/tests/cuda/%: LIBS += -lstdc++
$(OUT)/tests/cuda/%.o: FLAGS = $(EMULATE)

# ---- Programs of `make gpu-test` (tests/gpu). Most take a device by name, whatever it is; gpu_card is linked with the back end's parts, here over
# the emulator.
GPU_PROGRAMS := $(patsubst %.c,$(OUT)/%,$(sort $(wildcard tests/gpu/gpu_*.c)))
$(OUT)/tests/gpu/%: LINKED = $(OUT)/libdenoised.a
$(OUT)/tests/gpu/gpu_card: LINKED = $(OUT)/libcuda_emulated.a $(OUT)/libdenoised.a
$(OUT)/tests/gpu/gpu_card: LIBS += -lstdc++
$(OUT)/tests/gpu/gpu_card.o: FLAGS = $(EMULATE)
.SECONDARY: $(GPU_PROGRAMS:%=%.o)

# ---- For GPUs. What is missing to build the library, or why it is not wanted; "": nothing.
CUDA_PLACES := $(CUDA_HOME)/include $(CUDA_HOME)/lib64 /usr/include /usr/include/$(MACHINE)-linux-gnu /usr/lib/$(MACHINE)-linux-gnu
cuda_file = $(firstword $(wildcard $(addsuffix /$(1),$(CUDA_PLACES))))
ifeq ($(CUDA),0)
NO_CUDA := CUDA=0
else ifneq ($(SANITIZER),)
NO_CUDA := sanitizers look at the emulated one
else ifneq ($(MACHINE),$(shell uname -m))
NO_CUDA := it is not built across machines, and this program is for $(MACHINE)
else ifeq ($(NVCC),)
NO_CUDA := no nvcc
else ifeq ($(shell command -v $(lastword $(CXX)) 2>/dev/null),)
NO_CUDA := no $(lastword $(CXX)), which nvcc needs
else ifeq ($(call cuda_file,cudnn.h),)
NO_CUDA := no cudnn.h (libcudnn9-dev-cuda-13)
else ifeq ($(call cuda_file,libcublasLt.so.13),)
NO_CUDA := no libcublasLt.so.13: another CUDA than 13
else ifeq ($(call cuda_file,libnvrtc.so.13),)
NO_CUDA := no libnvrtc.so.13 (cuda-nvrtc-13-0)
endif

ifneq ($(NO_CUDA),)
.PHONY: no-cuda-library
build: no-cuda-library
no-cuda-library:
	@echo "  no CUDA library: $(NO_CUDA)"
	@rm -f build/libdenoised_cuda.so
else
build: build/libdenoised_cuda.so
build/libdenoised_cuda.so: $(OUT)/libdenoised_cuda.so
	@cp -f $< $@.tmp && mv -f $@.tmp $@
INSTALL_CUDA = install -D -m 0755 build/libdenoised_cuda.so $(DESTDIR)$(PREFIX)/lib/denoised/libdenoised_cuda.so
CHECK_CUDA = tests/tidy/hardened.sh build/libdenoised_cuda.so denoised_backend
# Real code for the cards that data centres have, and PTX that any later one compiles for itself.
CUDA_ARCHS ?= 80 90
CUDA_CODE := $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) -gencode arch=compute_90,code=compute_90
CUDA_OBJ := $(patsubst %.c,$(OUT)/nvidia/%.o,$(CUDA_SRC) $(NVIDIA_SRC)) $(patsubst %.cu,$(OUT)/nvidia/%.o,$(KERNELS))
$(OUT)/nvidia/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC $< (CUDA)"
	@$(CC) $(CFLAGS) $(CUDA_BASE) -isystem $(CUDA_HOME)/include $(FLAGS) -c -o $@ $<
# Kernels whose bytes must be the CPU's are compiled without fused multiply-adds: programs*.cu, embedding.cu.
# What the assembler says of registers and stacks goes beside the object, for tests/cuda/kernels_compile_test.py.
$(OUT)/nvidia/%.o: %.cu $(CUDA_HEADERS) deploy/cuda.mk
	@mkdir -p $(@D)
	@echo "  NVCC $<"
	@$(NVCC) -std=c++17 -O3 -I. -Iengine $(CUDA_CODE) $(addprefix -Xcompiler=,-fPIC -fvisibility=hidden $(filter-out -fPIE,$(HARD))) -Xptxas -v $(if $(filter programs%.cu embedding.cu,$(notdir $<)),-fmad=false) -c -o $@ $< 2>$@.log || { cat $@.log >&2; exit 1; }
	@grep -A 3 warning $@.log >&2 || true
# What kernels' launches take of the C++ library (guards of statics) is linked in, so that none needs to be installed. NVRTC is called by cuDNN
# alone, which opens it when it compiles attention: named here, it is missed at the start and by its name.
$(OUT)/libdenoised_cuda.so: $(CUDA_OBJ) $(OUT)/libpic.a
	@echo "  LD $@"
	@$(CXX) -shared -static-libstdc++ -static-libgcc $(filter-out -pie,$(LINK)) $(CUDA_EXPORTS) -Wl,-z,defs -o $@ $(CUDA_OBJ) $(OUT)/libpic.a \
	  -L$(CUDA_HOME)/lib64 -lcudart_static -l:libcublasLt.so.13 \
	  -l:libcudnn.so.9 -Wl,--no-as-needed -l:libnvrtc.so.13 -Wl,--as-needed -lcjson -lrt -ldl -lm -lpthread

# Plans of cuDNN without a GPU: a driver that loads code and runs none lies in a folder that one test alone looks into.
DEVICELESS_OBJ := $(patsubst %.c,$(OUT)/nvidia/%.o,$(NVIDIA_SRC) $(wildcard engine/backend/cuda/compile*.c) engine/backend/cuda/spec.c \
                  engine/backend/cuda/pins.c tests/cuda/deviceless.c)
$(OUT)/nvidia/deviceless: $(DEVICELESS_OBJ) $(OUT)/libdenoised.a
	@echo "  LD $@"
	@$(CC) $(LINK) -o $@ $^ -L$(CUDA_HOME)/lib64 -lcudart_static -l:libcublasLt.so.13 -l:libcudnn.so.9 -lcjson -lpng16 -lz -lrt -ldl -lm
$(OUT)/nvidia/mock/libcuda.so.1: tests/cuda/mock/driver.py
	@mkdir -p $(@D)
	@python3 $< $(CUDA_HOME)/lib64/stubs/libcuda.so >$(@D)/driver.c
	@$(CC) -O1 -fPIC -shared -Wl,-soname,libcuda.so.1 -o $@ $(@D)/driver.c

# gpu_card again, and the tests of kernels, for a card: their heap is memory that it sees too.
NVIDIA_LIBS := -L$(CUDA_HOME)/lib64 -lcudart_static -l:libcublasLt.so.13 -l:libcudnn.so.9 -lrt -ldl
KERNEL_TESTS := $(patsubst tests/cuda/%.c,$(OUT)/gpu/%,$(sort $(wildcard tests/cuda/test_kernels*.c)))
$(OUT)/libcuda_nvidia.a: $(CUDA_OBJ)
	@rm -f $@
	@ar rcs $@ $^
$(KERNEL_TESTS:$(OUT)/gpu/%=$(OUT)/nvidia/tests/cuda/%.o): FLAGS = -include tests/gpu/shared_heap.h
$(KERNEL_TESTS): $(OUT)/gpu/%: $(OUT)/nvidia/tests/cuda/%.o $(OUT)/nvidia/tests/gpu/schedule.o $(OUT)/libcuda_nvidia.a $(OUT)/libdenoised.a
$(OUT)/gpu/gpu_card: $(OUT)/nvidia/tests/gpu/gpu_card.o $(OUT)/libcuda_nvidia.a $(OUT)/libdenoised.a
$(KERNEL_TESTS) $(OUT)/gpu/gpu_card:
	@mkdir -p $(@D)
	@echo "  LD $@"
	@$(CXX) -static-libstdc++ -static-libgcc $(LINK) -o $@ $^ $(NVIDIA_LIBS) $(LIBS)
.SECONDARY: $(KERNEL_TESTS:$(OUT)/gpu/%=$(OUT)/nvidia/tests/cuda/%.o) $(OUT)/nvidia/tests/gpu/gpu_card.o $(OUT)/nvidia/tests/gpu/schedule.o
# All that a GPU's machine needs besides the sources.
GPU_BUILT := $(KERNEL_TESTS) $(OUT)/gpu/gpu_card
GPU_LIBRARY := $(OUT)/libdenoised_cuda.so
tests-build: build/libdenoised_cuda.so $(OUT)/nvidia/deviceless $(OUT)/nvidia/mock/libcuda.so.1
endif

.PHONY: gpu-build gpu-pack gpu-test
gpu-build: $(GPU_PROGRAMS) $(GPU_BUILT) $(GPU_LIBRARY) $(OUT)/denoised
# To be carried to a machine that can build nothing.
gpu-pack: gpu-build
	@python3 tests/gpu/pack.py $(OUT) build/gpu-pack
# What has been built is taken where nothing can be: a machine with a GPU may have no compiler.
gpu-test:
	@$(MAKE) --no-print-directory gpu-build || echo "This cannot be built here: what is in $(OUT) is tried"
	@python3 tests/gpu/run.py --out $(OUT) $(GPU_TEST)
