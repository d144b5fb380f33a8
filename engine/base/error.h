/* One error value for the whole engine: a status that some caller acts on, and one sentence for a person.
 *
 * Fallible functions return dn_status, take their outputs first (left untouched on failure) and a caller-owned
 * `dn_error *` last, which may be NULL. Nothing is allocated on failure, nothing is global. */
#ifndef DN_BASE_ERROR_H
#define DN_BASE_ERROR_H

typedef enum dn_status {
    DN_OK = 0,
    DN_INVALID = -1,     /* the input (file, option, request) breaks a rule: tell the person which */
    DN_IO = -2,          /* the operating system refused: errno text is in the message */
    DN_NO_MEMORY = -3,   /* an allocation failed or a limit in base/limits.h would be passed */
    DN_UNSUPPORTED = -4, /* well formed, but this build or device cannot do it */
    DN_CANCELLED = -5,   /* the caller asked to stop */
    DN_NUMERIC = -6,     /* NaN or infinity where a number was due */
    DN_INTERNAL = -7,    /* a bug: an invariant did not hold */
    DN_DEVICE_LOST = -8  /* a GPU that answers no more, or that this process broke: only a new process can use it again */
} dn_status;

typedef struct dn_error {
    dn_status status;
    char message[512];
} dn_error;

/* Fill *error (if not NULL) and return status, so that `return dn_fail(error, DN_IO, ...)` reads as one thought. */
dn_status dn_fail(dn_error *error, dn_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Short stable name of a status ("invalid", "io", ...). */
const char *dn_status_name(dn_status status);

#endif
