# The CUDA back end, a library of its own: libdenoised_cuda.so where nvcc is installed, and everywhere the same sources over an emulated GPU
# (tests/cuda/emulator), for tests. Nothing here is linked into the program.
NVCC ?= $(or $(shell command -v nvcc 2>/dev/null),$(wildcard /usr/local/cuda/bin/nvcc))
CUDA_HOME ?= $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
CXX := $(if $(filter default undefined,$(origin CXX)),g++,$(CXX))

# What the library shares with the program, as position-independent code: an archive, of which the linker takes what is asked for.
pic = $(patsubst %.c,$(OUT)/pic/%.o,$(1))
PIC_SRC := $(sort $(wildcard engine/base/*.c engine/plan/*.c))
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
# As a library that the program can open: DENOISED_BACKEND_DIR=$(OUT)/emulated. Never installed.
$(OUT)/emulated/libdenoised_cuda.so: $(EMULATED_OBJ) $(OUT)/libpic.a
	@echo "  LD $@"
	@$(CXX) -shared $(filter-out -pie,$(LINK)) -o $@ $(EMULATED_OBJ) $(OUT)/libpic.a -lcjson -lm -lpthread
# Tests of its parts: C, with the emulated back end linked in.
$(OUT)/tests/cuda/%: LINKED = $(OUT)/libcuda_emulated.a $(OUT)/libdenoised.a
$(OUT)/tests/cuda/%: LIBS += -lstdc++
$(OUT)/tests/cuda/%.o: FLAGS = $(EMULATE)

# ---- For GPUs.
ifneq ($(NVCC),)
# Real code for the cards that data centres have, and PTX that any later one compiles for itself.
CUDA_ARCHS ?= 80 90
CUDA_CODE := $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) -gencode arch=compute_90,code=compute_90
CUDA_OBJ := $(patsubst %.c,$(OUT)/nvidia/%.o,$(CUDA_SRC) $(NVIDIA_SRC)) $(patsubst %.cu,$(OUT)/nvidia/%.o,$(KERNELS))
$(OUT)/nvidia/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC $< (CUDA)"
	@$(CC) $(CFLAGS) $(CUDA_BASE) -isystem $(CUDA_HOME)/include $(FLAGS) -c -o $@ $<
# Kernels whose bytes must be the CPU's are compiled without fused multiply-adds: programs*.cu.
$(OUT)/nvidia/%.o: %.cu $(CUDA_HEADERS)
	@mkdir -p $(@D)
	@echo "  NVCC $<"
	@$(NVCC) -std=c++17 -O3 -I. -Iengine $(CUDA_CODE) -Xcompiler -fPIC,-fvisibility=hidden $(if $(findstring programs,$<),-fmad=false) -c -o $@ $<
$(OUT)/libdenoised_cuda.so: $(CUDA_OBJ) $(OUT)/libpic.a
	@echo "  LD $@"
	@$(CXX) -shared $(filter-out -pie -fsanitize=%,$(LINK)) -o $@ $(CUDA_OBJ) $(OUT)/libpic.a -L$(CUDA_HOME)/lib64 -lcudart_static -l:libcublasLt.so.13 \
	  -l:libcudnn.so.9 -lcjson -lrt -ldl -lm -lpthread
endif
