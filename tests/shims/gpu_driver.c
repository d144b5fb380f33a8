/* A driver of NVIDIA's for tests, to be found as libcuda.so.1: it answers the questions of engine/backend/gpu_driver.c as the environment
 * says. DRIVER_INIT: what cuInit answers; DRIVER_VERSION (13000); DRIVER_GPUS (2); DRIVER_CAPABILITY: major version of them all (9);
 * DRIVER_FIRST: of the first alone. No state; any thread. */
#include <stdio.h>
#include <stdlib.h>

static int said(const char *name, int standard)
{
    const char *text = getenv(name);
    return text != NULL ? atoi(text) : standard;
}

int cuInit(unsigned flags);
int cuDriverGetVersion(int *out);
int cuDeviceGetCount(int *out);
int cuDeviceGet(int *out, int ordinal);
int cuDeviceGetName(char *out, int bytes, int device);
int cuDeviceTotalMem_v2(size_t *out, int device);
int cuDeviceGetAttribute(int *out, int attribute, int device);

int cuInit(unsigned flags)
{
    return flags == 0 ? said("DRIVER_INIT", 0) : 1;
}

int cuDriverGetVersion(int *out)
{
    *out = said("DRIVER_VERSION", 13000);
    return 0;
}

int cuDeviceGetCount(int *out)
{
    *out = said("DRIVER_GPUS", 2);
    return 0;
}

int cuDeviceGet(int *out, int ordinal)
{
    *out = ordinal;
    return 0;
}

int cuDeviceGetName(char *out, int bytes, int device)
{
    snprintf(out, (size_t)bytes, "Imagined GPU %d", device);
    return 0;
}

int cuDeviceTotalMem_v2(size_t *out, int device)
{
    *out = (size_t)(device + 1) << 30;
    return 0;
}

int cuDeviceGetAttribute(int *out, int attribute, int device)
{
    int major = said("DRIVER_CAPABILITY", 9);
    *out = attribute == 75 ? (device == 0 ? said("DRIVER_FIRST", major) : major) : 0;
    return 0;
}
