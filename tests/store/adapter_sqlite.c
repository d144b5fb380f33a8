/* SQLite: the place is a folder. */
#include "tests/store/adapter_sqlite.h"

#include <stdlib.h>
#include <unistd.h>

#include "tests/store/contract.h"

char folder[64];

int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info, (void)type, (void)where;
    return remove(path);
}

bool make_test_folder(void)
{
    snprintf(folder, sizeof folder, "%s/denoised-store-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    return mkdtemp(folder) != NULL;
}

static bool create(store_options *place)
{
    place->folder = folder;
    return make_test_folder();
}

static void destroy(void)
{
    if (folder[0]) {
        nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    }
    folder[0] = 0;
}

const store_adapter ADAPTER_SQLITE = {"sqlite", create, store_open, destroy};
