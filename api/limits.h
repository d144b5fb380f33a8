/* Every limit of the wire, named, with its unit. GET /capabilities shows them; api/openapi.yaml repeats them (a test compares). */
#ifndef API_LIMITS_H
#define API_LIMITS_H

#define API_BODY_BYTES_MAX 65536
#define API_BODY_IMAGE_BYTES_MAX 2097152     /* bodies that may carry a picture */
#define API_JSON_TOKENS_MAX 2000
#define API_STEPS_MAX 1000
#define API_N_MAX 64
#define API_GUIDANCE_MAX 100.0               /* |guidance_scale| */
#define API_CLASS_MIXTURE_MAX 8              /* classes of one mixture */
#define API_CLASS_WEIGHT_MAX 10.0            /* |weight| of a class in a mixture */
#define API_PRIORITY_MAX 10                  /* -10..10 */
#define API_DEADLINE_MS_MAX 604800000        /* a week */
#define API_WAIT_SECONDS_MAX 300
#define API_WAIT_PNG_SECONDS 50              /* how long image/png waits when Prefer says nothing */
#define API_BATCH_JOBS_MAX 64                /* jobs in one JSON array */
#define API_LIST_LIMIT_MAX 100
#define API_LIST_LIMIT 20
#define API_KEY_BYTES_MAX 255                /* Idempotency-Key */
#define API_QUEUE_JOBS_MAX 10000
#define API_QUEUE_EVALUATIONS_MAX 200000000  /* network rows waiting in all */
#define API_CLIENT_JOBS_MAX 1000             /* pending jobs of one client */
#define API_STREAMS_MAX 512                  /* unless the daemon is told otherwise (--streams-max) */
#define API_CLIENT_STREAMS_MAX 100
#define API_MODEL_NAME_BYTES_MAX 64
#define API_WEBHOOK_BYTES_MAX 2048           /* a URL */
#define API_PROMPT_BYTES_MAX 4000            /* of a dialect, in which a class is named by words */
#define API_ID_BYTES 26                      /* ^[a-z2-7]{26}$ */

/* The same as GET /capabilities names them: a unit in each name. */
#define API_LIMITS(X)                                            \
    X("body_bytes_max", API_BODY_BYTES_MAX)                      \
    X("body_image_bytes_max", API_BODY_IMAGE_BYTES_MAX)          \
    X("json_tokens_max", API_JSON_TOKENS_MAX)                    \
    X("steps_max", API_STEPS_MAX)                                \
    X("n_max", API_N_MAX)                                        \
    X("guidance_scale_max", API_GUIDANCE_MAX)                    \
    X("class_weight_max", API_CLASS_WEIGHT_MAX)                  \
    X("class_mixture_max", API_CLASS_MIXTURE_MAX)                \
    X("priority_max", API_PRIORITY_MAX)                          \
    X("deadline_ms_max", API_DEADLINE_MS_MAX)                    \
    X("wait_seconds_max", API_WAIT_SECONDS_MAX)                  \
    X("wait_png_seconds", API_WAIT_PNG_SECONDS)                  \
    X("batch_jobs_max", API_BATCH_JOBS_MAX)                      \
    X("list_jobs_max", API_LIST_LIMIT_MAX)                       \
    X("list_jobs_default", API_LIST_LIMIT)                       \
    X("idempotency_key_bytes_max", API_KEY_BYTES_MAX)            \
    X("queue_jobs_max", API_QUEUE_JOBS_MAX)                      \
    X("queue_evaluations_max", API_QUEUE_EVALUATIONS_MAX)        \
    X("client_jobs_max", API_CLIENT_JOBS_MAX)                    \
    X("streams_max", API_STREAMS_MAX)                            \
    X("client_streams_max", API_CLIENT_STREAMS_MAX)              \
    X("model_name_bytes_max", API_MODEL_NAME_BYTES_MAX)          \
    X("webhook_bytes_max", API_WEBHOOK_BYTES_MAX)                \
    X("prompt_bytes_max", API_PROMPT_BYTES_MAX)

#endif
