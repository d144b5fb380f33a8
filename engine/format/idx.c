/* Reads MNIST's file format through zlib, which passes plain files on as they are. Owns a descriptor and buffers only while
 * it reads; the data set belongs to the caller. Invariant of a data set: as many labels as pictures, at least one, and both
 * files ended where their headers said. One call, one thread. */
#include "format/idx.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "base/file.h"
#include "base/limits.h"

#define IDX_RANK_MAX 4u
#define IDX_TYPE_UNSIGNED_BYTE 0x08u
#define IDX_BYTES_MAX (4ull << 30) /* of one file, unpacked */
#define PIXELS_BYTES_MAX (8ull << 30) /* of a data set, padded */
#define READ_PIECE_BYTES (1u << 20)

typedef struct idx_array {
    uint32_t rank;
    uint32_t dims[IDX_RANK_MAX];
    size_t bytes;
    uint8_t *values; /* malloc'd */
} idx_array;

/* Exactly count bytes, or an error that names the file. */
static dn_status read_exactly(gzFile stream, void *out, size_t count, const char *path, dn_error *error)
{
    unsigned char *at = out;
    while (count > 0) {
        unsigned piece = count < READ_PIECE_BYTES ? (unsigned)count : READ_PIECE_BYTES;
        int got = gzread(stream, at, piece);
        if (got < 0) {
            return dn_fail(error, DN_INVALID, "%s: damaged: %s", path, gzerror(stream, &got));
        }
        if (got == 0) {
            return dn_fail(error, DN_INVALID, "%s: ends too early", path);
        }
        at += got;
        count -= (size_t)got;
    }
    return DN_OK;
}

static uint32_t big_endian(const unsigned char bytes[4])
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static dn_status read_header(idx_array *array, gzFile stream, uint32_t rank_min, uint32_t rank_max, const char *path, dn_error *error)
{
    unsigned char magic[4], dim[4];
    dn_status status = read_exactly(stream, magic, sizeof magic, path, error);
    if (status != DN_OK) {
        return status;
    }
    if (magic[0] != 0 || magic[1] != 0 || magic[2] != IDX_TYPE_UNSIGNED_BYTE || magic[3] < rank_min || magic[3] > rank_max) {
        return dn_fail(error, DN_INVALID, "%s: not an IDX file of unsigned bytes with %u to %u dimensions (magic %02x%02x%02x%02x)", path,
                       rank_min, rank_max, magic[0], magic[1], magic[2], magic[3]);
    }
    array->rank = magic[3];
    array->bytes = 1;
    for (uint32_t i = 0; i < array->rank; i++) {
        status = read_exactly(stream, dim, sizeof dim, path, error);
        if (status != DN_OK) {
            return status;
        }
        array->dims[i] = big_endian(dim);
        if (__builtin_mul_overflow(array->bytes, array->dims[i], &array->bytes) || array->bytes > IDX_BYTES_MAX) {
            return dn_fail(error, DN_INVALID, "%s: larger than %llu bytes", path, IDX_BYTES_MAX);
        }
    }
    return array->bytes > 0 ? DN_OK : dn_fail(error, DN_INVALID, "%s: holds nothing", path);
}

static dn_status read_body(idx_array *array, gzFile stream, const char *path, dn_error *error)
{
    array->values = malloc(array->bytes);
    if (!array->values) {
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory for %zu bytes", path, array->bytes);
    }
    dn_status status = read_exactly(stream, array->values, array->bytes, path, error);
    if (status != DN_OK) {
        return status;
    }
    unsigned char extra;
    int got = gzread(stream, &extra, 1); /* also makes zlib check the sum at the end */
    if (got > 0) {
        return dn_fail(error, DN_INVALID, "%s: bytes behind the data", path);
    }
    return got == 0 ? DN_OK : dn_fail(error, DN_INVALID, "%s: damaged: %s", path, gzerror(stream, &got));
}

static dn_status read_array(idx_array *array, uint32_t rank_min, uint32_t rank_max, const char *path, dn_error *error)
{
    int fd = -1;
    unsigned long long size = 0;
    dn_status status = dn_file_open(&fd, &size, path, error);
    if (status != DN_OK) {
        return status;
    }
    gzFile stream = gzdopen(fd, "rb");
    if (!stream) {
        close(fd);
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", path);
    }
    status = read_header(array, stream, rank_min, rank_max, path, error);
    if (status == DN_OK) {
        status = read_body(array, stream, path, error);
    }
    int code = gzclose_r(stream);
    if (status == DN_OK && code != Z_OK) {
        status = dn_fail(error, DN_INVALID, "%s: damaged or ends too early", path);
    }
    return status;
}

/* FOLDER/NAME, or FOLDER/NAME.gz where the plain file is not there. */
static dn_status find_file(char path[PATH_MAX], const char *folder, const char *name, dn_error *error)
{
    const char *const endings[] = {"", ".gz"};
    for (size_t i = 0; i < 2; i++) {
        int wanted = snprintf(path, PATH_MAX, "%s/%s%s", folder, name, endings[i]);
        if (wanted < 0 || wanted >= PATH_MAX) {
            return dn_fail(error, DN_INVALID, "%.100s...: path too long", folder);
        }
        if (access(path, F_OK) == 0) {
            return DN_OK;
        }
    }
    return dn_fail(error, DN_IO, "%s/%s[.gz]: %s", folder, name, strerror(errno));
}

static dn_status check_shape(const idx_array *images, uint32_t pad_to, const char *path, dn_error *error)
{
    uint32_t height = images->dims[1], width = images->dims[2];
    uint32_t channels = images->rank == 4 ? images->dims[3] : 1;
    if (channels != 1 && channels != 3) {
        return dn_fail(error, DN_INVALID, "%s: %u channels (1 or 3 are allowed)", path, channels);
    }
    if (height > DN_IMAGE_SIDE_MAX || width > DN_IMAGE_SIDE_MAX || pad_to > DN_IMAGE_SIDE_MAX) {
        return dn_fail(error, DN_INVALID, "%s: pictures larger than %u pixels a side", path, DN_IMAGE_SIDE_MAX);
    }
    if (pad_to != 0 && (pad_to < height || pad_to < width)) {
        return dn_fail(error, DN_INVALID, "%s: pictures of %ux%u do not fit %ux%u", path, width, height, pad_to, pad_to);
    }
    return DN_OK;
}

/* Lays the pictures into the middle of pad_to x pad_to zeros; the odd pixel goes right and down. */
static dn_status fill_pixels(dn_dataset *dataset, idx_array *images, uint32_t pad_to, const char *path, dn_error *error)
{
    uint32_t height = images->dims[1], width = images->dims[2];
    dataset->count = images->dims[0];
    dataset->channels = images->rank == 4 ? images->dims[3] : 1;
    dataset->height = pad_to ? pad_to : height;
    dataset->width = pad_to ? pad_to : width;
    if (dataset->height == height && dataset->width == width) {
        dataset->pixels = images->values;
        images->values = NULL;
        return DN_OK;
    }
    size_t row_bytes = (size_t)width * dataset->channels;
    size_t padded_row_bytes = (size_t)dataset->width * dataset->channels;
    size_t padded_bytes = padded_row_bytes * dataset->height;
    if (padded_bytes > PIXELS_BYTES_MAX / dataset->count) {
        return dn_fail(error, DN_INVALID, "%s: larger than %llu bytes when padded", path, PIXELS_BYTES_MAX);
    }
    dataset->pixels = calloc(dataset->count, padded_bytes);
    if (!dataset->pixels) {
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", path);
    }
    size_t corner =
        (size_t)((dataset->height - height) / 2) * padded_row_bytes + (size_t)((dataset->width - width) / 2) * dataset->channels;
    const uint8_t *from = images->values;
    for (uint32_t i = 0; i < dataset->count; i++) {
        uint8_t *to = dataset->pixels + i * padded_bytes + corner;
        for (uint32_t y = 0; y < height; y++) {
            memcpy(to + y * padded_row_bytes, from, row_bytes);
            from += row_bytes;
        }
    }
    return DN_OK;
}

void dn_dataset_free(dn_dataset *dataset)
{
    if (!dataset) {
        return;
    }
    free(dataset->pixels);
    free(dataset->labels);
    free(dataset);
}

static void take_labels(dn_dataset *dataset, idx_array *labels)
{
    dataset->labels = labels->values;
    labels->values = NULL;
    for (uint32_t i = 0; i < dataset->count; i++) {
        uint32_t classes = (uint32_t)dataset->labels[i] + 1;
        dataset->class_count = classes > dataset->class_count ? classes : dataset->class_count;
    }
}

dn_status dn_dataset_open(dn_dataset **out, const char *folder, dn_split split, uint32_t pad_to, dn_error *error)
{
    char images_path[PATH_MAX], labels_path[PATH_MAX];
    idx_array images = {0}, labels = {0};
    bool train = split == DN_SPLIT_TRAIN;
    dn_dataset *dataset = calloc(1, sizeof *dataset);
    dn_status status = dataset ? DN_OK : dn_fail(error, DN_NO_MEMORY, "%s: out of memory", folder);
    if (status == DN_OK) {
        status = find_file(images_path, folder, train ? "train-images-idx3-ubyte" : "t10k-images-idx3-ubyte", error);
    }
    if (status == DN_OK) {
        status = find_file(labels_path, folder, train ? "train-labels-idx1-ubyte" : "t10k-labels-idx1-ubyte", error);
    }
    if (status == DN_OK) {
        status = read_array(&images, 3, 4, images_path, error);
    }
    if (status == DN_OK) {
        status = read_array(&labels, 1, 1, labels_path, error);
    }
    if (status == DN_OK && images.dims[0] != labels.dims[0]) {
        status = dn_fail(error, DN_INVALID, "%s: %u labels for %u pictures", labels_path, labels.dims[0], images.dims[0]);
    }
    if (status == DN_OK) {
        status = check_shape(&images, pad_to, images_path, error);
    }
    if (status == DN_OK) {
        status = fill_pixels(dataset, &images, pad_to, images_path, error);
    }
    if (status == DN_OK) {
        take_labels(dataset, &labels);
        *out = dataset;
        dataset = NULL;
    }
    free(images.values);
    free(labels.values);
    dn_dataset_free(dataset);
    return status;
}
