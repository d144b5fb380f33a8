/* Opening an emulated GPU: what it says of itself, what it refuses and how it says so, and several cards in one process. */
#include <pthread.h>

#include "tests/cuda/program_draws.h"

static void a_device_says_what_it_is(void)
{
    dn_device *device = NULL;
    CHECK(dn_emulator_configure("memory=3G,capability=100"));
    CHECK(dn_cuda_device_open(&device, NULL, NULL) == DN_OK);
    CHECK_MSG(strcmp(device->text, "cuda:0 Emulated GPU") == 0, "%s", device->text);
    CHECK_MSG(strcmp(device->isa, "sm_100") == 0, "%s", device->isa);
    CHECK_MSG(strncmp(device->identity, "Emulated GPU, sm_100, ", 22) == 0 && strlen(device->identity) > 30, "%s", device->identity);
    CHECK(device->memory == (size_t)3 << 30 && !device->fast && device->ordinal == 0);
    int main_priority = 0, background = 0;
    CHECK(cudaStreamGetPriority(device->main, &main_priority) == cudaSuccess);
    CHECK(cudaStreamGetPriority(device->background, &background) == cudaSuccess && main_priority < background);
    dn_cuda_device_close(device);
    dn_device_options options = {.fast = true};
    CHECK(dn_cuda_device_open(&device, &options, NULL) == DN_OK && device->fast);
    dn_cuda_device_close(device);
    dn_cuda_device_close(NULL);
    CHECK(dn_emulator_configure(NULL) && nothing_lives());
}

static void what_cannot_be_opened_is_told(void)
{
    static const struct {
        const char *settings;
        uint32_t index;
        dn_status status;
        const char *message;
    } cases[] = {
        {"driver=0", 0, DN_UNSUPPORTED, "there is no NVIDIA driver: install one that offers CUDA 13.0 or later"},
        {"driver=12040", 0, DN_UNSUPPORTED, "the NVIDIA driver offers CUDA 12.4, and CUDA 13.0 or later is needed: install a newer driver"},
        {"devices=0", 0, DN_UNSUPPORTED, "no NVIDIA GPU is visible: no CUDA-capable device is detected"},
        {"devices=2", 2, DN_INVALID, "there is no GPU 2: this machine has 2, numbered from 0"},
        {"devices=2", 65536, DN_INVALID, "there is no GPU 65536: this machine has 2, numbered from 0"},
        {"devices=2", UINT32_MAX, DN_INVALID, "there is no GPU 2147483647: this machine has 2, numbered from 0"},
        {"capability=75", 0, DN_UNSUPPORTED, "cuda:0 Emulated GPU has compute capability 7.5, and 8.0 or later is needed"},
        {"fault=stream:2:oom", 0, DN_NO_MEMORY,
         "out of memory while making a stream: 8192 MB of the 8192 MB of cuda:0 Emulated GPU are free"},
        {"fault=stream:1:lost", 0, DN_DEVICE_LOST, "cuda:0 Emulated GPU is lost: unknown error (cudaErrorUnknown) while making a stream"},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        dn_device *device = NULL;
        dn_device_options options = {.index = cases[c].index};
        dn_error error = {0};
        CHECK(dn_emulator_configure(cases[c].settings));
        dn_status status = dn_cuda_device_open(&device, &options, &error);
        CHECK_MSG(status == cases[c].status && !device, "%s: %d", cases[c].settings, status);
        CHECK_MSG(strcmp(error.message, cases[c].message) == 0, "%s: %s", cases[c].settings, error.message);
        CHECK_MSG(nothing_lives(), "%s", cases[c].settings);
    }
    CHECK(dn_emulator_configure("driver=13020")); /* a later minor version will do */
    dn_device *device = NULL;
    CHECK(dn_cuda_device_open(&device, NULL, NULL) == DN_OK);
    dn_cuda_device_close(device);
    CHECK(dn_emulator_configure(NULL));
}

static void errors_mean_what_they_should(void)
{
    static const struct {
        cudaError_t code;
        dn_status status;
    } cases[] = {
        {cudaSuccess, DN_OK},
        {cudaErrorMemoryAllocation, DN_NO_MEMORY},
        {cudaErrorInvalidValue, DN_INTERNAL},
        {cudaErrorStreamCaptureInvalidated, DN_INTERNAL},
        {cudaErrorLaunchOutOfResources, DN_INTERNAL},
        {cudaErrorNoKernelImageForDevice, DN_UNSUPPORTED},
        {cudaErrorSystemDriverMismatch, DN_UNSUPPORTED},
        {cudaErrorNotSupported, DN_UNSUPPORTED},
        {cudaErrorIllegalAddress, DN_DEVICE_LOST},
        {cudaErrorMisalignedAddress, DN_DEVICE_LOST},
        {cudaErrorECCUncorrectable, DN_DEVICE_LOST},
        {cudaErrorLaunchTimeout, DN_DEVICE_LOST},
        {cudaErrorDevicesUnavailable, DN_DEVICE_LOST},
        {cudaErrorUnknown, DN_DEVICE_LOST},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        dn_device *device = NULL;
        dn_error error = {0};
        CHECK(dn_cuda_device_open(&device, NULL, NULL) == DN_OK);
        CHECK_MSG(dn_cuda_check(device, cases[c].code, "testing", &error) == cases[c].status, "%d: %s", cases[c].code, error.message);
        CHECK(cases[c].status == DN_OK || strstr(error.message, "while testing"));
        bool gone = cases[c].status == DN_DEVICE_LOST;
        CHECK(dn_cuda_enter(device, NULL) == (gone ? DN_DEVICE_LOST : DN_OK));
        CHECK(dn_cuda_check(device, cudaErrorMemoryAllocation, "more", NULL) == (gone ? DN_DEVICE_LOST : DN_NO_MEMORY));
        if (gone) {
            dn_error later = {0};
            CHECK(dn_cuda_check(device, cudaErrorAssert, "testing again", &later) == DN_DEVICE_LOST &&
                  strcmp(error.message, later.message) == 0);
        }
        dn_cuda_device_close(device);
    }
}

/* An error that CUDA does not keep is not told again to whoever comes next. */
static void an_error_is_told_once(void)
{
    dn_device *device = NULL;
    void *memory = NULL;
    CHECK(dn_cuda_device_open(&device, NULL, NULL) == DN_OK);
    CHECK(dn_cuda_alloc(device, &memory, (size_t)1 << 50, NULL) == DN_NO_MEMORY);
    CHECK(cudaPeekAtLastError() == cudaSuccess);
    CHECK(dn_cuda_check(device, cudaMemset(NULL, 0, 1), "clearing nothing", NULL) == DN_INTERNAL);
    CHECK(cudaPeekAtLastError() == cudaSuccess);
    CHECK(dn_cuda_alloc(device, &memory, 1000, NULL) == DN_OK && dn_emulator_on_device(memory, 1000) && (uintptr_t)memory % 256 == 0);
    dn_cuda_release(device, memory);
    dn_cuda_release(device, NULL);
    dn_cuda_device_close(device);
    CHECK(nothing_lives());
}

/* Whatever device the thread that calls had last. */
typedef struct card {
    dn_device *device;
    bool good;
} card;

static void *use_card(void *payload)
{
    card *c = payload;
    dn_buffer *buffer = NULL;
    float values[200], want[200];
    double scalar = 0.0;
    dn_op ops[2] = {{.kind = DN_OP_NOISE, .seed = 5}, {.kind = DN_OP_NORM}};
    bool good = dn_cuda_buffer_create(&buffer, c->device, 200, NULL) == DN_OK;
    dn_program program = {.registers = buffer, .elements = 200, .ops = ops, .op_count = 2, .scalars = &scalar};
    good = good && dn_cuda_execute(c->device, &program, 1, NULL) == DN_OK && dn_cuda_buffer_read(buffer, 0, values, 200, NULL) == DN_OK;
    dn_noise_normal(want, 200, 0, 5, DN_STREAM_START, 0);
    c->good = good && memcmp(values, want, sizeof want) == 0 && scalar > 0.0;
    dn_cuda_buffer_free(buffer);
    return NULL;
}

static void several_cards_are_apart(void)
{
    card cards[3] = {{0}};
    pthread_t threads[3];
    CHECK(dn_emulator_configure("devices=3,memory=128M"));
    for (uint32_t i = 0; i < 3; i++) {
        dn_device_options options = {.index = 2 - i};
        CHECK(dn_cuda_device_open(&cards[i].device, &options, NULL) == DN_OK && cards[i].device->ordinal == (int)(2 - i));
    }
    for (int i = 0; i < 3; i++)
        use_card(&cards[i]); /* this thread's device is another one each time */
    CHECK(cards[0].good && cards[1].good && cards[2].good);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, use_card, &cards[i]) == 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    CHECK(cards[0].good && cards[1].good && cards[2].good);
    /* One card that is lost takes no other with it. */
    CHECK(dn_emulator_configure("devices=3,memory=128M,fault=launch:1:failure"));
    for (int i = 0; i < 3; i++)
        use_card(&cards[i]);
    CHECK(!cards[0].good && cards[0].device->lost && cards[1].good && cards[2].good);
    for (int i = 0; i < 3; i++)
        dn_cuda_device_close(cards[i].device);
    CHECK(nothing_lives() && dn_emulator_configure(NULL));
}

int main(void)
{
    RUN(a_device_says_what_it_is);
    RUN(what_cannot_be_opened_is_told);
    RUN(errors_mean_what_they_should);
    RUN(an_error_is_told_once);
    RUN(several_cards_are_apart);
    return test_end();
}
