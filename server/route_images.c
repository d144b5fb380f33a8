/* GET /jobs/{id}/images/{i}.png: the file as it lies on disk, if it still is what its row says, with its sha256 as ETag; immutable once
 * there. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/negotiate.h"
#include "base/sha256.h"
#include "server/log.h"
#include "server/service.h"

/* What the row promises is what goes out, or nothing: a file that a disk has changed is an error, never a wrong picture. */
static bool is_whole(int fd, const store_image *image)
{
    char piece[1 << 16], sha256[DN_SHA256_HEX_BYTES];
    unsigned char digest[DN_SHA256_BYTES];
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || (uint64_t)info.st_size != image->view.bytes) {
        return false;
    }
    dn_sha256 hash;
    dn_sha256_init(&hash);
    off_t at = 0;
    for (ssize_t got; (got = pread(fd, piece, sizeof piece, at)) > 0; at += got) {
        dn_sha256_update(&hash, piece, (size_t)got);
    }
    dn_sha256_final(&hash, digest);
    dn_sha256_hex(sha256, digest);
    return at == info.st_size && strcmp(sha256, image->view.sha256) == 0;
}

/* Its file, opened and found whole; -1: it is not there, or not what its row says, and the log has it. */
static int open_whole(service *s, const store_image *image, const char **fault)
{
    char *path = store_path(s->store, "images", image->file);
    int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    free(path);
    if (fd >= 0 && is_whole(fd, image)) {
        return fd;
    }
    log_say(LOG_ERROR, "http", "images/%s is %s", image->file, fd < 0 ? "missing or cannot be opened" : "damaged");
    *fault = fd < 0 ? "the image's file could not be read" : "the image's file is damaged";
    if (fd >= 0) {
        close(fd);
    }
    return -1;
}

unsigned char *route_image_bytes(service *s, const store_image *image)
{
    const char *fault;
    const size_t bytes = (size_t)image->view.bytes;
    int fd = open_whole(s, image, &fault);
    unsigned char *out = fd < 0 ? NULL : malloc(bytes + 1);
    size_t got = 0;
    for (ssize_t piece = 1; out != NULL && got < bytes && piece > 0; got += piece > 0 ? (size_t)piece : 0) {
        piece = pread(fd, out + got, bytes - got, (off_t)got);
    }
    if (fd >= 0) {
        close(fd);
    }
    if (got < bytes) {
        free(out);
        return NULL;
    }
    return out;
}

static void add_tag(http_request *request, const store_image *image)
{
    http_add_header(request, "ETag", "\"%s\"", image->view.sha256);
    http_add_header(request, "Cache-Control", "private, immutable, max-age=31536000");
}

void route_png(http_request *request, job_view *held, uint32_t index)
{
    service *s = request->application;
    const store_image *image = NULL;
    for (size_t i = 0; i < held->image_count; i++) {
        if (held->images[i].index == index) {
            image = &held->images[i];
        }
    }
    if (image == NULL && api_state_ended(held->job.state)) {
        http_refuse(request, API_NOT_FOUND, "the job ended before this image was made");
        return;
    }
    if (image == NULL) {
        http_add_header(request, "Retry-After", "%u", job_retry_after(held));
        http_refuse(request, API_NOT_READY, "this image has not been made yet");
        return;
    }
    if (api_etag_matches(http_header(request, "If-None-Match"), image->view.sha256)) {
        add_tag(request, image);
        http_answer_empty(request, 304);
        return;
    }
    const char *fault;
    int fd = open_whole(s, image, &fault);
    if (fd < 0) {
        http_refuse(request, API_INTERNAL, fault);
        return;
    }
    add_tag(request, image);
    http_answer_file(request, "image/png", fd, image->view.bytes);
}

void route_job_image(http_request *request)
{
    service *s = request->application;
    job_view held;
    uint32_t index = 0;
    store_result result = job_view_get(&held, s, route_reach(request), request->segment[0]);
    if (result != STORE_OK) {
        route_missing(request, result);
        return;
    }
    if (!api_image_name_parse(request->segment[1], &index) || index >= held.job.n) {
        http_refuse(request, API_NOT_FOUND, "this job has no image of that number");
    } else {
        route_png(request, &held, index);
    }
    job_view_done(&held);
}
