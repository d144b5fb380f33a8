/* Input pictures, inputs/<job>-init.png and -mask.png: kept while their job waits or runs, for nothing reads them afterwards.
 *
 * While the daemon runs, a file without a job is one whose job is about to be accepted; only a start may call it a stray. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/store/sqlite_store.h"

static bool is_done_with(sql *c, const char *name, bool strays)
{
    char id[API_ID_BYTES + 1] = "";
    size_t length = strlen(name);
    memcpy(id, name, length < API_ID_BYTES ? length : API_ID_BYTES);
    if (strays && strstr(name, ".tmp")) {
        return true;
    }
    const int64_t state = api_id_valid(id) ? sql_integer(c, SQL_JOB_STATE, -1, "t", id) : API_STATE_QUEUED;
    return !c->code && (state < 0 ? strays : api_state_ended((api_state)state));
}

void store_sweep_inputs(store *s, sql *c, bool strays)
{
    char *path = store_path(s, "inputs", "");
    DIR *listing = path ? opendir(path) : NULL;
    for (struct dirent *entry; listing && (entry = readdir(listing));) {
        if (entry->d_name[0] != '.' && is_done_with(c, entry->d_name, strays)) {
            unlinkat(dirfd(listing), entry->d_name, 0);
        }
    }
    if (listing) {
        closedir(listing);
    }
    free(path);
}
