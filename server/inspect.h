/* `denoised inspect`, its parts: what a model folder is and what it would cost, as facts, and the facts as text or JSON. Private to the
 * command. One thread. */
#ifndef DN_SERVER_INSPECT_H
#define DN_SERVER_INSPECT_H

#include "api/model_description.h"
#include "engine.h"

#define INSPECT_TYPES 10 /* of dn_dtype */
#define INSPECT_GFLOP_MAX 4000.0 /* a row: beyond it measuring would take minutes, or days */

/* A component's stored tensors, all its files together. */
typedef struct inspect_weights {
    char path[1024]; /* the file, or the index of several */
    uint32_t shards; /* files */
    uint32_t tensors;
    uint64_t numbers, bytes;
    uint64_t numbers_of[INSPECT_TYPES];
    uint64_t needed; /* numbers that the plan asks for; fewer: some are stored twice, or not needed to denoise */
} inspect_weights;

typedef struct inspect_facts {
    dn_engine *engine;
    api_model *description;
    inspect_weights weights;
    size_t packed_bytes, lane_bytes, arena_bytes, row_bytes; /* arena of one row; what each further row adds */
    size_t kept_bytes, tick_bytes; /* vectors of times and conditions, at most; arena of rows_max rows, once measured */
    char form[256]; /* how a GPU runs it; "": on a CPU, or nothing was packed */
    double gflop; /* a row */
    double gflop_half; /* of these in 16 bits */
    bool measured; /* not with --quick, nor beyond INSPECT_GFLOP_MAX */
    double row_seconds, rows_seconds; /* a tick of one row, a tick of `rows` rows by the row */
    uint32_t rows, rows_max; /* rows_max: what a worker would put into one tick */
    bool has_codec;
    dn_codec_info codec;
    size_t codec_bytes;
    double decode_seconds;
} inspect_facts;

/* options with describe_only: nothing of the weights but their headers is read, nothing is run. Refusals say which file, key or tensor. */
dn_status inspect_gather(inspect_facts *out, const char *path, const dn_engine_options *options, dn_error *error);
void inspect_done(inspect_facts *facts);

void inspect_print_text(const inspect_facts *facts);
/* malloc'd; NULL: out of memory. */
char *inspect_json(const inspect_facts *facts);
char *inspect_error_json(const dn_error *error);

#endif
