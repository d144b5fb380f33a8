/* IDX data sets: small ones made here, plain and packed, whole and damaged; and a real one where it is installed. */
#include <stdint.h>
#include <unistd.h>
#include <zlib.h>

#include "base/file.h"
#include "format/idx.h"
#include "tests/test.h"

#define FOLDER "build/test_format_idx"
#define IMAGES FOLDER "/train-images-idx3-ubyte"
#define LABELS FOLDER "/train-labels-idx1-ubyte"
#define INSTALLED "/usr/share/datasets/fashion-mnist"

/* Three pictures of 3 wide and 2 high, pixel values 1 to 18. */
static const unsigned char images[] = {0, 0, 8, 3, 0, 0, 0, 3, 0,  0,  0,  2,  0,  0,  0,  3,  1,
                                       2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18};
static const unsigned char labels[] = {0, 0, 8, 1, 0, 0, 0, 3, 4, 0, 2};

static void put(const char *path, const unsigned char *bytes, size_t count, int packed)
{
    char zipped[200];
    snprintf(zipped, sizeof zipped, "%s.gz", path);
    unlink(path);
    unlink(zipped);
    dn_make_folder(FOLDER, NULL);
    if (!packed) {
        dn_file_write(path, bytes, count, false, NULL);
        return;
    }
    gzFile stream = gzopen(zipped, "wb");
    gzwrite(stream, bytes, (unsigned)count);
    gzclose(stream);
}

static void pictures_and_labels_are_read(void)
{
    for (int packed = 0; packed < 2; packed++) {
        dn_error error = {0};
        dn_dataset *dataset = NULL;
        put(IMAGES, images, sizeof images, packed);
        put(LABELS, labels, sizeof labels, packed);
        CHECK_OK(dn_dataset_open(&dataset, FOLDER, DN_SPLIT_TRAIN, 0, &error), error);
        CHECK(dataset->count == 3 && dataset->width == 3 && dataset->height == 2 && dataset->channels == 1 && dataset->class_count == 5);
        CHECK(memcmp(dataset->pixels, images + 16, 18) == 0 && memcmp(dataset->labels, labels + 8, 3) == 0);
        dn_dataset_free(dataset);
    }
    dn_dataset_free(NULL);
}

static void pictures_are_padded_in_the_middle(void)
{
    static const unsigned char expected[25] = {0, 0, 0, 0, 0, 0, 7, 8, 9, 0, 0, 10, 11, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    dn_error error = {0};
    dn_dataset *dataset = NULL;
    put(IMAGES, images, sizeof images, 0);
    put(LABELS, labels, sizeof labels, 0);
    CHECK_OK(dn_dataset_open(&dataset, FOLDER, DN_SPLIT_TRAIN, 5, &error), error);
    CHECK(dataset->width == 5 && dataset->height == 5 && memcmp(dataset->pixels + 25, expected, 25) == 0);
    dn_dataset_free(dataset);
    dataset = NULL;
    CHECK(dn_dataset_open(&dataset, FOLDER, DN_SPLIT_TRAIN, 2, &error) == DN_INVALID && strstr(error.message, "do not fit"));
    CHECK(dn_dataset_open(&dataset, FOLDER, DN_SPLIT_TRAIN, 100000, &error) == DN_INVALID && !dataset);
}

static void colour_is_read(void)
{
    unsigned char colour[20 + 12] = {0, 0, 8, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3};
    const unsigned char one_label[] = {0, 0, 8, 1, 0, 0, 0, 1, 9};
    dn_error error = {0};
    dn_dataset *dataset = NULL;
    for (unsigned char i = 0; i < 12; i++) {
        colour[20 + i] = i;
    }
    put(IMAGES, colour, sizeof colour, 1);
    put(LABELS, one_label, sizeof one_label, 0);
    CHECK_OK(dn_dataset_open(&dataset, FOLDER, DN_SPLIT_TRAIN, 4, &error), error);
    CHECK(dataset->channels == 3 && dataset->pixels[(1 * 4 + 1) * 3 + 2] == 2 && dataset->pixels[(2 * 4 + 2) * 3] == 9);
    CHECK(dataset->class_count == 10);
    dn_dataset_free(dataset);
    dataset = NULL;
    colour[19] = 2;
    put(IMAGES, colour, 20 + 8, 0);
    CHECK(dn_dataset_open(&dataset, FOLDER, DN_SPLIT_TRAIN, 0, &error) == DN_INVALID && strstr(error.message, "channels"));
}

static void check_refused(const char *path, const char *rule)
{
    dn_error error = {0};
    dn_dataset *dataset = NULL;
    dn_status status = dn_dataset_open(&dataset, FOLDER, DN_SPLIT_TRAIN, 0, &error);
    CHECK_MSG(status == DN_INVALID && !dataset && strstr(error.message, path) && strstr(error.message, rule), "\"%s\" is not \"%s\"",
              error.message, rule);
}

static void every_cut_is_refused(void)
{
    put(LABELS, labels, sizeof labels, 0);
    for (size_t cut = 0; cut < sizeof images; cut++) {
        put(IMAGES, images, cut, (int)(cut % 2));
        check_refused("train-images", "ends too early");
    }
    put(IMAGES, images, sizeof images, 0);
    for (size_t cut = 0; cut < sizeof labels; cut++) {
        put(LABELS, labels, cut, 0);
        check_refused("train-labels", "ends too early");
    }
}

static void damaged_gzip_is_refused(void)
{
    unsigned char *bytes = NULL;
    size_t count = 0;
    dn_error error = {0};
    put(LABELS, labels, sizeof labels, 0);
    put(IMAGES, images, sizeof images, 1);
    CHECK_OK(dn_file_read(&bytes, &count, IMAGES ".gz", 1000, &error), error);
    for (size_t cut = 2; cut < count; cut++) {
        dn_dataset *dataset = NULL;
        CHECK_OK(dn_file_write(IMAGES ".gz", bytes, cut, false, &error), error);
        CHECK_MSG(dn_dataset_open(&dataset, FOLDER, DN_SPLIT_TRAIN, 0, &error) == DN_INVALID && !dataset, "%zu of %zu bytes", cut, count);
    }
    bytes[count - 6] ^= 1; /* the checksum */
    CHECK_OK(dn_file_write(IMAGES ".gz", bytes, count, false, &error), error);
    check_refused("train-images", "damaged");
    free(bytes);
}

static void wrong_headers_are_refused(void)
{
    static const struct {
        size_t at;
        unsigned char value;
        const char *rule;
    } faults[] = {
        {0, 1, "not an IDX"}, {1, 1, "not an IDX"}, {2, 9, "not an IDX"}, {2, 0x0D, "not an IDX"}, {3, 1, "not an IDX"},
        {3, 2, "not an IDX"}, {3, 5, "not an IDX"}, {7, 0, "nothing"},    {7, 2, "bytes behind"},  {7, 4, "ends too early"},
        {4, 255, "larger"},   {8, 255, "larger"},   {12, 255, "larger"},  {15, 0, "nothing"},      {11, 1, "bytes behind"},
    };
    put(LABELS, labels, sizeof labels, 0);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        unsigned char changed[sizeof images];
        memcpy(changed, images, sizeof images);
        changed[faults[i].at] = faults[i].value;
        put(IMAGES, changed, sizeof changed, 0);
        check_refused("train-images", faults[i].rule);
    }
    put(IMAGES, labels, sizeof labels, 0);
    check_refused("train-images", "not an IDX");
}

static void counts_must_agree(void)
{
    const unsigned char two[] = {0, 0, 8, 1, 0, 0, 0, 2, 1, 1};
    dn_error error = {0};
    dn_dataset *dataset = NULL;
    put(IMAGES, images, sizeof images, 0);
    put(LABELS, two, sizeof two, 0);
    check_refused("train-labels", "2 labels for 3 pictures");
    unlink(LABELS);
    CHECK(dn_dataset_open(&dataset, FOLDER, DN_SPLIT_TRAIN, 0, &error) == DN_IO && strstr(error.message, "train-labels"));
    CHECK(dn_dataset_open(&dataset, FOLDER "/none", DN_SPLIT_TEST, 0, &error) == DN_IO && strstr(error.message, "t10k-images"));
}

static void the_installed_data_set_opens(void)
{
    dn_error error = {0};
    dn_dataset *dataset = NULL;
    if (access(INSTALLED, F_OK) != 0) {
        SKIP("%s is not installed", INSTALLED);
    }
    CHECK_OK(dn_dataset_open(&dataset, INSTALLED, DN_SPLIT_TEST, 32, &error), error);
    CHECK(dataset->count == 10000 && dataset->width == 32 && dataset->class_count == 10);
    size_t classes[10] = {0};
    for (uint32_t i = 0; i < dataset->count; i++) {
        classes[dataset->labels[i]]++;
    }
    for (int i = 0; i < 10; i++) {
        CHECK(classes[i] == 1000);
    }
    dn_dataset_free(dataset);
}

int main(void)
{
    RUN(pictures_and_labels_are_read);
    RUN(pictures_are_padded_in_the_middle);
    RUN(colour_is_read);
    RUN(every_cut_is_refused);
    RUN(damaged_gzip_is_refused);
    RUN(wrong_headers_are_refused);
    RUN(counts_must_agree);
    RUN(the_installed_data_set_opens);
    return test_end();
}
