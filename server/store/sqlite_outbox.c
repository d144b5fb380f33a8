/* The outbox: deliveries about jobs that have ended, kept until they are made or given up. A row is written in the transaction that
 * ends its job, so that no end goes untold whatever happens afterwards; it is done with when it has been delivered, or when its next
 * time is never. Only the daemon that holds the lock delivers, so rows need no lease; what was sent but not yet marked is sent again. */
#include <stdlib.h>
#include <string.h>

#include "api/generate_request.h"
#include "server/store/sqlite_store.h"

#define NEVER_MS INT64_MAX

void store_outbox_add(store *s, const store_job *ended)
{
    api_request request;
    const char *json = ended->request_json;
    if (!json || !strstr(json, "\"webhook\":")) {
        return;
    }
    const dn_status read = api_request_read(&request, json, strlen(json));
    if (read == DN_NO_MEMORY) {
        sql_fail(&s->writer, SQLITE_NOMEM, "out of memory"); /* the job ends another time: it must not end untold */
    }
    if (read != DN_OK || !request.webhook[0]) {
        return;
    }
    sql_run(&s->writer, SQL_OUTBOX_ADD, "iti", ended->row, request.webhook, store_now(s));
}

store_result store_do_delivery(store *s, store_request *r)
{
    if (r->delivered) {
        sql_run(&s->writer, SQL_OUTBOX_DELIVERED, "ii", r->delivery_row, store_now(s));
    } else {
        sql_run(&s->writer, SQL_OUTBOX_FAILED, "iit", r->delivery_row, r->next_try_ms ? r->next_try_ms : NEVER_MS, r->error_detail);
    }
    return STORE_OK;
}

/* ---- Reading: any thread */

void store_deliveries_free(store_delivery *deliveries, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(deliveries[i].url);
        free(deliveries[i].event);
        free(deliveries[i].data);
    }
    free(deliveries);
}

static bool read_delivery(sql *c, sqlite3_stmt *statement, store_delivery *out)
{
    *out = (store_delivery){
        .row = sqlite3_column_int64(statement, 0),
        .url = sql_column_copy(c, statement, 2),
        .event = sql_column_copy(c, statement, 3),
        .data = sql_column_copy(c, statement, 4),
        .attempt = (uint32_t)sqlite3_column_int(statement, 5),
        .finished_ms = sqlite3_column_int64(statement, 6),
    };
    strncat(out->id, sql_column(c, statement, 1), sizeof out->id - 1);
    strncat(out->trace, sql_column(c, statement, 7), sizeof out->trace - 1);
    return out->url && out->event && out->data;
}

store_result store_deliveries(store *s, uint32_t limit, store_delivery **out, size_t *count)
{
    store_delivery *deliveries = calloc(limit + 1u, sizeof *deliveries);
    size_t used = 0;
    if (!deliveries) {
        return STORE_UNKNOWN;
    }
    sql *c = store_borrow(s);
    sqlite3_stmt *statement = sql_row(c, SQL_OUTBOX_DUE, "ii", store_now(s), (int64_t)limit);
    for (bool more = statement != NULL; more && used < limit; more = sql_next(c, statement)) {
        more = read_delivery(c, statement, &deliveries[used++]);
        if (!more) {
            sql_fail(c, SQLITE_NOMEM, "out of memory");
            break;
        }
    }
    sql_end(statement);
    if (!store_give_back(s, c)) {
        store_deliveries_free(deliveries, used);
        return STORE_UNKNOWN;
    }
    *out = deliveries;
    *count = used;
    return STORE_OK;
}

store_result store_delivery_of(store *s, const char *id, store_delivery_state *out)
{
    *out = (store_delivery_state){0};
    sql *c = store_borrow(s);
    sqlite3_stmt *statement = sql_row(c, SQL_OUTBOX_OF, "t", id);
    const bool found = statement != NULL;
    if (found) {
        out->attempts = (uint32_t)sqlite3_column_int(statement, 0);
        out->delivered = sqlite3_column_int(statement, 1);
        out->given_up = !out->delivered && sqlite3_column_int64(statement, 2) == NEVER_MS;
        strncat(out->error, sql_column(c, statement, 3), sizeof out->error - 1);
    }
    sql_end(statement);
    if (!store_give_back(s, c)) {
        return STORE_UNKNOWN;
    }
    return found ? STORE_OK : STORE_NONE;
}
