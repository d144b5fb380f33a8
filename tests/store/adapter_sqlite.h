/* The SQLite store under the contract suite: a folder of its own for each test, in memory where there is /dev/shm (hundreds of opens
 * would otherwise wait for the disk). */
#ifndef DN_TESTS_STORE_ADAPTER_SQLITE_H
#define DN_TESTS_STORE_ADAPTER_SQLITE_H

#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>

extern char folder[64]; /* "" none */

/* Another new folder; the last one is the caller's to remove. */
bool make_test_folder(void);
int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where); /* for nftw */

#endif
