/* Measures durable enqueues beside the disk's own fdatasync rate, probed before, between and after in the same run.
 *
 *     bench_store [FOLDER] [SECONDS]
 *
 * 64 threads each post one job and wait until it is committed (synchronous=FULL). Floors: three times the disk's rate, and 500 a
 * second. Then one thread claims and ends jobs in a deep queue. The folder (build/ by default) must be on a real disk. */
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "server/store/store.h"

enum { CLIENTS = 64, LATENCIES_MAX = 1 << 20, PROBE_BYTES = 4096 };

static store *st;
static double until;
static atomic_uint made, next_id;
static float latencies_ms[LATENCIES_MAX];

static void make_id(char out[27])
{
    unsigned value = atomic_fetch_add(&next_id, 1);
    memset(out, 'a', 26);
    out[26] = 0;
    for (int i = 25; value; i--, value /= 26) {
        out[i] = (char)('a' + value % 26);
    }
}

static store_request *post(unsigned client)
{
    static const char request[] = "{\"model\":\"m\",\"class_label\":7,\"class_name\":\"Sneaker\",\"guidance_scale\":2.0,\"steps\":20,"
                                  "\"sampler\":\"dpmpp_2m\",\"seed\":\"42\",\"n\":1,\"priority\":0}";
    store_request *r = store_request_create(STORE_ENQUEUE, NULL, NULL);
    r->jobs = calloc(1, sizeof *r->jobs);
    r->job_count = 1;
    snprintf(r->client, sizeof r->client, "client%u", client);
    make_id(r->jobs[0].id);
    snprintf(r->jobs[0].model, sizeof r->jobs[0].model, "m");
    r->jobs[0].cost = 40;
    r->jobs[0].n = 1;
    r->jobs[0].request_json = strdup(request);
    return r;
}

static void *client(void *number)
{
    while (dn_now_seconds() < until) {
        store_request *r = post(*(unsigned *)number);
        double start = dn_now_seconds();
        if (store_call(st, r) != STORE_OK) {
            fprintf(stderr, "bench_store: refused: %s\n", r->detail);
            exit(1);
        }
        unsigned at = atomic_fetch_add(&made, 1);
        if (at < LATENCIES_MAX) {
            latencies_ms[at] = (float)((dn_now_seconds() - start) * 1e3);
        }
        store_request_free(r);
    }
    return NULL;
}

/* fdatasyncs of one overwritten page in a second: what the disk gives to one writer. */
static double disk_rate(const char *folder, double seconds)
{
    char path[256], page[PROBE_BYTES];
    memset(page, 7, sizeof page);
    snprintf(path, sizeof path, "%s/probe", folder);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), count = 0;
    double start = dn_now_seconds(), spent = 0;
    bool fine = fd >= 0 && write(fd, page, sizeof page) == sizeof page && fsync(fd) == 0;
    for (; fine && spent < seconds; count++) {
        page[0] = (char)count;
        fine = pwrite(fd, page, sizeof page, 0) == sizeof page && fdatasync(fd) == 0;
        spent = dn_now_seconds() - start;
    }
    close(fd);
    return fine ? count / spent : 0;
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double enqueue_rate(double seconds)
{
    pthread_t threads[CLIENTS];
    unsigned numbers[CLIENTS];
    double start = dn_now_seconds();
    unsigned before = atomic_load(&made);
    until = start + seconds;
    for (unsigned i = 0; i < CLIENTS; i++) {
        numbers[i] = i;
        pthread_create(&threads[i], NULL, client, &numbers[i]);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        pthread_join(threads[i], NULL);
    }
    return (atomic_load(&made) - before) / (dn_now_seconds() - start);
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info, (void)type, (void)where;
    return remove(path);
}

/* Claims and ends single jobs of the deep queue that the clients left; the time of one claim, p50 and p99. */
static void claim_times(double seconds)
{
    static float times[LATENCIES_MAX];
    size_t count = 0;
    for (double end = dn_now_seconds() + seconds; dn_now_seconds() < end && count < LATENCIES_MAX; count++) {
        store_request *r = store_request_create(STORE_CLAIM, NULL, NULL);
        r->claim_max = 1;
        r->device = "cpu";
        double start = dn_now_seconds();
        if (store_call(st, r) != STORE_OK || r->claimed_count != 1) {
            store_request_free(r);
            break;
        }
        times[count] = (float)((dn_now_seconds() - start) * 1e3);
        store_request_free(r);
    }
    if (count) {
        qsort(times, count, sizeof *times, by_size);
        printf("claim from a queue of %u: %.1f/s, p50 %.1f ms, p99 %.1f ms\n", atomic_load(&made), (double)count / seconds,
               (double)times[count / 2], (double)times[count * 99 / 100]);
    }
}

int main(int argc, char **argv)
{
    char folder[200];
    double seconds = argc > 2 ? atof(argv[2]) : 4, disk = 0, rate = 0;
    snprintf(folder, sizeof folder, "%s/bench-store-XXXXXX", argc > 1 ? argv[1] : "build");
    store_options options = {.folder = folder};
    dn_error error;
    if (!mkdtemp(folder) || store_open(&st, &options, &error) != DN_OK) {
        fprintf(stderr, "bench_store: cannot open a store under %s\n", folder);
        return 1;
    }
    for (int round = 0; round < 3; round++) {
        disk += disk_rate(folder, seconds / 6) / 4;
        rate += enqueue_rate(seconds / 3) / 3;
    }
    disk += disk_rate(folder, seconds / 6) / 4;
    unsigned count = atomic_load(&made) < LATENCIES_MAX ? atomic_load(&made) : LATENCIES_MAX;
    qsort(latencies_ms, count, sizeof *latencies_ms, by_size);
    printf("disk: %.0f fdatasync/s\n", disk);
    printf("durable enqueues, %d clients: %.0f/s, acknowledged in p50 %.1f ms, p99 %.1f ms\n", CLIENTS, rate,
           (double)latencies_ms[count / 2], (double)latencies_ms[count * 99 / 100]);
    printf("%s: %.1f times the disk's rate (floor 3), %.0f/s (floor 500)\n", rate >= 3 * disk && rate >= 500 ? "held" : "BELOW",
           rate / disk, rate);
    claim_times(1);
    store_close(st);
    nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    return rate >= 3 * disk && rate >= 500 ? 0 : 1;
}
