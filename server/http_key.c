/* Who a request comes from: its key, what that may do, and whether it may do it now. Any thread that serves the request. */
#include <stdio.h>
#include <string.h>

#include "server/http_internal.h"

bool http_check_key(http_request *request)
{
    auth *keys = request->server->options.auth;
    unsigned retry = 0;
    request->who = (auth_identity){.client = "local", .scopes = AUTH_SUBMIT | AUTH_READ};
    if (!http_check_origin(request)) {
        return false;
    }
    if (keys == NULL || request->route->scopes == 0 || !auth_required(keys)) {
        return true;
    }
    snprintf(request->client, sizeof request->client, "-");
    const http_dialect *dialect = http_dialect_of(request);
    const char *authorization = http_header(request, "Authorization");
    const bool basic = dialect != NULL && dialect->basic;
    if (!auth_check(keys, authorization, &request->who) && !(basic && auth_check_basic(keys, authorization, &request->who))) {
        http_refuse(request, API_UNAUTHORIZED,
                    basic ? "an API key is needed: as the password, with any user name, or Authorization: Bearer SECRET"
                          : "an API key is needed: Authorization: Bearer SECRET");
        return false;
    }
    memcpy(request->client, request->who.client, sizeof request->client);
    if ((request->who.scopes & request->route->scopes) == 0) {
        http_refuse(request, API_FORBIDDEN, "this key's scopes do not allow this");
        return false;
    }
    if (!auth_allow_request(keys, &request->who, &retry)) {
        http_add_header(request, "Retry-After", "%u", retry);
        http_refuse(request, API_QUOTA, "this key's rate is used up");
        return false;
    }
    return true;
}
