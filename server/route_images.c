/* GET /jobs/{id}/images/{i}.png: the file as it lies on disk, with its sha256 as ETag; immutable once there. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/service.h"

/* True when If-None-Match names this tag or everything. */
static bool matches(const char *header, const char *sha256)
{
    return header != NULL && (strcmp(header, "*") == 0 || strstr(header, sha256) != NULL);
}

void route_png(http_request *request, job_view *held, uint32_t index)
{
    service *s = request->application;
    const store_image *image = NULL;
    struct stat info;
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
    http_add_header(request, "ETag", "\"%s\"", image->view.sha256);
    http_add_header(request, "Cache-Control", "private, immutable, max-age=31536000");
    if (matches(http_header(request, "If-None-Match"), image->view.sha256)) {
        http_answer_empty(request, 304);
        return;
    }
    char *path = store_path(s->store, "images", image->file);
    int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    free(path);
    if (fd < 0 || fstat(fd, &info) != 0) {
        if (fd >= 0) {
            close(fd);
        }
        http_refuse(request, API_INTERNAL, "the image's file could not be read");
        return;
    }
    http_answer_file(request, "image/png", fd, (uint64_t)info.st_size);
}

/* "12.png" to 12: plain digits, no leading zero, no sign. */
static bool parse_index(const char *segment, uint32_t *index)
{
    size_t digits = strspn(segment, "0123456789");
    if (digits == 0 || digits > 4 || strcmp(segment + digits, ".png") != 0 || (segment[0] == '0' && digits > 1)) {
        return false;
    }
    *index = (uint32_t)strtoul(segment, NULL, 10);
    return true;
}

void route_job_image(http_request *request)
{
    service *s = request->application;
    job_view held;
    uint32_t index = 0;
    store_result result = job_view_get(&held, s, request->client, request->segment[0]);
    if (result != STORE_OK) {
        route_missing(request, result);
        return;
    }
    if (!parse_index(request->segment[1], &index) || index >= held.job.n) {
        http_refuse(request, API_NOT_FOUND, "this job has no image of that number");
    } else {
        route_png(request, &held, index);
    }
    job_view_done(&held);
}
