/* W3C Trace Context, as far as it is kept here: the trace a request belongs to, and its flags. Pure.
 * https://www.w3.org/TR/trace-context/ (level 1); tracestate is not kept. */
#ifndef API_TRACEPARENT_H
#define API_TRACEPARENT_H

#include <stdbool.h>

#define API_TRACE_BYTES 36 /* "<32 hex digits>-<2 hex digits>" and NUL: trace id and flags, as the store keeps them */
#define API_TRACEPARENT_BYTES 56

/* Whether the header is one that is to be honoured; out is its trace ("" otherwise). A version from the future may say more after what
 * this one says; version ff, ids of zeros, upper case and everything else that the standard calls invalid is as if it were not there. */
bool api_traceparent_read(char out[API_TRACE_BYTES], const char *header);
/* The header that goes on with a trace: version 00, a span of its own (never zeros), the flags as they came. */
void api_traceparent_write(char out[API_TRACEPARENT_BYTES], const char *trace, const unsigned char span[8]);
/* The trace id alone, for logs; "" of "". */
void api_trace_id(char out[33], const char *trace);

#endif
