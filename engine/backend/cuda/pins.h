/* Pins: which configuration of a library computes a product, as it may be kept in a file between two starts of the program.
 *
 * A pins set maps a product's name ("conv 64x64x320 ... for 1,2,4") to a pin. Loaded from FOLDER/pins-IDENTITY.json, where the identity is
 * of the card and of the libraries' versions: pins are worth nothing to others. What a file says is only ever a proposal: whoever uses a
 * pin asks the library again whether it may run and what it promises of its sums. A file that is broken, too large or another's is ignored
 * with one line on stderr and written anew. Thread-safe. */
#ifndef DN_BACKEND_CUDA_PINS_H
#define DN_BACKEND_CUDA_PINS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define DN_CUDA_KNOBS_MAX 48u
#define DN_CUDA_ALGO_BYTES 64u
#define DN_CUDA_PIN_NAME 320u
#define DN_CUDA_PINS_MAX 4096u            /* pins of a file */
#define DN_CUDA_PINS_BYTES_MAX (4u << 20) /* of a file */

typedef struct dn_cuda_knob {
    int32_t type;
    int64_t value;
} dn_cuda_knob;

/* Of cuDNN: an engine and its knobs; of cuBLASLt: an algorithm as the library wrote it. */
typedef struct dn_cuda_pin {
    bool is_algo;
    int64_t engine;
    uint32_t knob_count;
    dn_cuda_knob knobs[DN_CUDA_KNOBS_MAX];
    uint8_t algo[DN_CUDA_ALGO_BYTES];
} dn_cuda_pin;

typedef struct dn_cuda_pins dn_cuda_pins;

/* folder NULL: pins of this process alone, kept nowhere. Fails for lack of memory only. identity: any text, shorter than 200 bytes. */
dn_status dn_cuda_pins_open(dn_cuda_pins **out, const char *folder, const char *identity, dn_error *error);
/* Saves first, if there is something new. NULL too. */
void dn_cuda_pins_close(dn_cuda_pins *pins);

bool dn_cuda_pins_find(dn_cuda_pins *pins, const char *name, dn_cuda_pin *out);
/* Replaces one of the same name. A set that is full forgets the new one. */
void dn_cuda_pins_put(dn_cuda_pins *pins, const char *name, const dn_cuda_pin *pin);
/* Writes the file beside itself and renames it, where something is new. What fails is told on stderr once: the program works without. */
void dn_cuda_pins_save(dn_cuda_pins *pins);

/* "engine 12 2=5 24=1" (knob=value), or "algo " and its bytes in hexadecimal: part of what a product says of itself. */
void dn_cuda_pin_print(const dn_cuda_pin *pin, char *out, size_t bytes);

/* The parts, for tests: a file's text to pins (DN_INVALID says what is wrong; nothing is kept of it then). */
dn_status dn_cuda_pins_parse(dn_cuda_pins *pins, const char *text, size_t bytes, dn_error *error);

#endif
