/* One SQLite connection with its prepared statements: bind, step, reset, and remember the first error.
 *
 * Owns the connection. Every statement of the store stands in sql_statements.h and is prepared once per connection, at its first
 * use. A connection belongs to one thread at a time. After an error `code` is set and further calls do nothing, so that a
 * sequence of calls is checked once, at its end. */
#ifndef SERVER_STORE_SQL_H
#define SERVER_STORE_SQL_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "server/store/sql_statements.h"

#define SQL_NAME(name, text) name,
typedef enum sql_id { SQL_STATEMENTS(SQL_NAME) SQL_COUNT } sql_id;
#undef SQL_NAME

typedef struct sql {
    sqlite3 *db;
    sqlite3_stmt *statements[SQL_COUNT];
    int code; /* extended result code of the first error; 0: none */
    char text[200]; /* what SQLite says about it */
} sql;

/* Opens with the connection settings of the store (durability, checks, limits). A writer may create the file; the file itself is
 * changed first by sql_use_wal, once it is known to be ours. */
dn_status sql_open(sql *out, const char *path, bool writer, dn_error *error);
/* For integrity_check, which leaves out the rules of the schema (CHECK) on a connection that may not write: one that may, and does not.
 * Where the file cannot be written, read-only after all. */
dn_status sql_open_checker(sql *out, const char *path, dn_error *error);
/* Prepares every statement: a schema that is damaged where it names its columns is found before anything relies on it. DN_INVALID. */
dn_status sql_prepare_all(sql *c, const char *path, dn_error *error);
dn_status sql_use_wal(sql *c, const char *path, dn_error *error);
void sql_close(sql *c);

/* format: one letter for each parameter: i (int64_t), t (const char *, NULL: null), b (const void *, size_t). Text and blobs are
 * borrowed until the statement is reset. */
bool sql_run(sql *c, sql_id id, const char *format, ...); /* steps to the end and resets */
sqlite3_stmt *sql_row(sql *c, sql_id id, const char *format, ...); /* the first row, or NULL: none, or an error */
bool sql_next(sql *c, sqlite3_stmt *statement); /* the next row of sql_row's */
void sql_end(sqlite3_stmt *statement); /* resets; NULL is fine */
int64_t sql_integer(sql *c, sql_id id, int64_t otherwise, const char *format,
                    ...); /* first column of the first row; null, none, error: otherwise */
bool sql_text(sql *c, const char *text); /* unprepared SQL: open and migrations */

void sql_fail(sql *c, int code, const char *text); /* records an error found outside SQLite (no memory) */
void sql_clear(sql *c); /* forgets the error */

/* A column as text: "" when null, and when out of memory (then sql_fail is called); valid until the statement moves. */
const char *sql_column(sql *c, sqlite3_stmt *statement, int column);
/* A copy of the column; NULL when null or out of memory (then sql_fail is called). */
char *sql_column_copy(sql *c, sqlite3_stmt *statement, int column);

#endif
