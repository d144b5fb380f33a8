/* AUTOMATIC1111's API over the one queue: what its routes share (route_sdapi*.c). Bodies are translated by api/sdapi_*, the registry of
 * calls is sdapi_calls.h. Refusals below /sdapi/v1/ and /internal/ have FastAPI's shapes: sdapi_refusal is their dialect's. */
#ifndef SERVER_SDAPI_H
#define SERVER_SDAPI_H

#include "api/sdapi_request.h"
#include "server/sdapi_calls.h"
#include "server/service.h"

/* How long a call waits for its pictures unless Prefer: wait says otherwise. webui has no limit; a client that is cut off finds its job. */
#define SDAPI_WAIT_SECONDS 3600

http_refusal sdapi_refusal;
void sdapi_refuse(http_request *request, const api_sdapi_refusal *refusal);

/* The name of the model that a client's text means (title, name or hash); NULL: none. */
const char *sdapi_find_model(service *s, const char *text);
/* The client's model: chosen, or the default. */
const char *sdapi_model_of(http_request *request);
/* The body of a request, which must be JSON of one object; false: refused and answered. *root is the caller's. */
bool sdapi_read_object(http_request *request, cJSON **root);

#endif
