/* One file of torch tensors that must be refused, for the programs that make such files. Include once a program. */
#ifndef DN_TESTS_HOSTILE_TORCH_REFUSED_H
#define DN_TESTS_HOSTILE_TORCH_REFUSED_H

#include <unistd.h>

#include "base/file.h"
#include "format/tensors.h"
#include "tests/engine/torch_writer.h"
#include "tests/hostile/heap_peak.h"
#include "tests/test.h"

#define SPARE_BYTES (64u << 20)

#define FLOATS 6

static char path[64];
static zip_maker zip;
static unsigned count_of_cases;
static const float values[FLOATS] = {1.0f, -2.0f, 3.5f, 0.0f, 5.25f, -6.0f};

/* The bytes as a file: refused with this status and exactly these words behind the file's name. */
static void check_refused(dn_status expected, const char *says, const char *what)
{
    dn_error error = {DN_OK, ""};
    dn_tensors *tensors = NULL;
    CHECK(dn_file_write(path, zip.out.bytes, zip.out.used, false, &error) == DN_OK);
    heap_peak_begin();
    dn_status status = dn_tensors_open(&tensors, path, &error);
    const size_t most = heap_peak(), name_bytes = strlen(path);
    dn_tensors_close(tensors);
    count_of_cases++;
    CHECK_MSG(status == expected && strncmp(error.message, path, name_bytes) == 0 && strncmp(error.message + name_bytes, ": ", 2) == 0 &&
                  strcmp(error.message + name_bytes + 2, says) == 0,
              "%s: %s, \"%s\", not \"%s\"", what, dn_status_name(status), error.message, says);
    CHECK_MSG(most <= zip.out.used + SPARE_BYTES, "%s: %zu bytes of memory for a file of %zu", what, most, zip.out.used);
}

#endif
