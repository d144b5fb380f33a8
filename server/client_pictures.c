/* What a job has made: fetched, held against its SHA-256, written whole or not at all, and shown (client.h). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/sha256.h"
#include "format/png_image.h"
#include "server/client.h"

#define SHEET_GAP 2u /* pixels */
#define PATH_ROOM 4400

/* ---- On the screen */

bool client_pictures_add(client_pictures *p, uint32_t index, const unsigned char *png, size_t bytes)
{
    uint8_t *pixels = NULL;
    uint32_t width = 0, height = 0, channels = 0;
    if (index >= CLIENT_IMAGES_MAX || dn_png_decode(&pixels, &width, &height, &channels, png, bytes, DN_IMAGE_SIDE_MAX, NULL) != DN_OK)
        return false;
    if (width != p->width || height != p->height || channels != p->channels)
        for (uint32_t i = 0; i < CLIENT_IMAGES_MAX; i++) {
            free(p->pixels[i]);
            p->pixels[i] = NULL;
        }
    free(p->pixels[index]);
    p->pixels[index] = pixels;
    p->width = width;
    p->height = height;
    p->channels = channels;
    p->count = index >= p->count ? index + 1 : p->count;
    return true;
}

/* Places without a picture are black. */
void client_pictures_show(client_pictures *p, const terminal *screen)
{
    const uint8_t *pictures[CLIENT_IMAGES_MAX];
    uint8_t *sheet = NULL;
    uint32_t columns = 1, width = 0, height = 0;
    if (p->width == 0 || screen->way == TERMINAL_NONE)
        return;
    uint8_t *black = calloc((size_t)p->width * p->height, p->channels);
    while (columns * columns < p->count)
        columns++;
    for (uint32_t i = 0; i < p->count; i++)
        pictures[i] = p->pixels[i] != NULL ? p->pixels[i] : black;
    if (black != NULL && dn_contact_sheet(&sheet, &width, &height, pictures, p->count, p->width, p->height, p->channels, columns,
                                          p->count > 1 ? SHEET_GAP : 0, NULL) == DN_OK)
        terminal_show(screen, sheet, width, height, p->channels, screen->moves ? p->lines : 0, &p->lines);
    free(sheet);
    free(black);
}

void client_pictures_done(client_pictures *p)
{
    for (uint32_t i = 0; i < CLIENT_IMAGES_MAX; i++)
        free(p->pixels[i]);
    *p = (client_pictures){0};
}

int client_look(const client *c, terminal *out, const char *show, bool taken, const char *output)
{
    terminal_way way;
    taken = taken || (output != NULL && strcmp(output, "-") == 0);
    const char *wrong = NULL;
    if (!terminal_way_parse(show, &way))
        wrong = "must be one of " TERMINAL_WAYS;
    else if (taken && way != TERMINAL_AUTO && way != TERMINAL_NONE)
        wrong = "standard output holds something else";
    if (wrong != NULL) {
        fprintf(stderr, "denoised %s: --show: %s (see denoised %s --help)\n", c->command, wrong, c->command);
        return DN_EXIT_USAGE;
    }
    terminal_look(out, STDOUT_FILENO, taken ? TERMINAL_NONE : way);
    const char *warning = terminal_warning(out, way);
    if (warning != NULL)
        fprintf(stderr, "denoised %s: %s\n", c->command, warning);
    return DN_OPTIONS_GO_ON;
}

/* ---- In files */

static bool is_folder(const char *path)
{
    struct stat info;
    const size_t bytes = strlen(path);
    return (bytes > 0 && path[bytes - 1] == '/') || (stat(path, &info) == 0 && S_ISDIR(info.st_mode));
}

int client_output_check(const client *c, const char *output, uint32_t n, bool json)
{
    const char *wrong = NULL;
    if (output == NULL || is_folder(output))
        return DN_OPTIONS_GO_ON;
    if (strcmp(output, "-") == 0 && json)
        wrong = "--output - and --json: both want standard output";
    else if (strcmp(output, "-") == 0 && isatty(STDOUT_FILENO))
        wrong = "--output -: standard output is a terminal, and a PNG is no text; send it to a file or a program";
    else if (n > 1)
        wrong = "--output: one file cannot hold several pictures; give a folder, with / at its end";
    if (wrong == NULL)
        return DN_OPTIONS_GO_ON;
    fprintf(stderr, "denoised %s: %s\n", c->command, wrong);
    return DN_EXIT_USAGE;
}

static int write_picture(const client *c, const char *path, const client_answer *png)
{
    dn_error error;
    if (strcmp(path, "-") != 0)
        return dn_file_write(path, png->body, png->bytes, false, &error) == DN_OK ? DN_EXIT_OK : dn_command_failed(c->command, &error);
    if (fwrite(png->body, 1, png->bytes, stdout) == png->bytes && fflush(stdout) == 0)
        return DN_EXIT_OK;
    fprintf(stderr, "denoised %s: standard output: %s\n", c->command, strerror(errno));
    return DN_EXIT_IO;
}

static int fetch(client *c, const char *id, uint32_t index, const char *sha256, client_answer *png)
{
    char path[96], hex[DN_SHA256_HEX_BYTES];
    unsigned char digest[DN_SHA256_BYTES];
    snprintf(path, sizeof path, "/jobs/%s/images/%u.png", id, index);
    int status = client_call(c, "GET", path, NULL, NULL, png);
    if (status != DN_OPTIONS_GO_ON)
        return status;
    if (png->status != 200) {
        status = client_refused(c, png);
    } else {
        dn_sha256_of(digest, png->body != NULL ? png->body : "", png->bytes);
        dn_sha256_hex(hex, digest);
        status = strcmp(hex, sha256) == 0 ? DN_EXIT_OK : DN_EXIT_IO;
        if (status != DN_EXIT_OK)
            fprintf(stderr, "denoised %s: picture %u came with other bytes than the daemon promised; nothing was written: try again\n",
                    c->command, index);
    }
    if (status != DN_EXIT_OK)
        client_answer_done(png);
    return status;
}

static void note_file(cJSON *files, const cJSON *image, const char *path, size_t bytes)
{
    cJSON *file = cJSON_CreateObject();
    cJSON_AddStringToObject(file, "file", path);
    cJSON_AddNumberToObject(file, "index", client_number(image, "index", 0));
    cJSON_AddStringToObject(file, "seed", client_text(image, "seed"));
    cJSON_AddNumberToObject(file, "bytes", (double)bytes);
    cJSON_AddStringToObject(file, "sha256", client_text(image, "sha256"));
    cJSON_AddItemToArray(files, file);
}

static bool name_file(char path[PATH_ROOM], const char *output, const char *id, uint32_t index)
{
    int length;
    if (output == NULL)
        length = snprintf(path, PATH_ROOM, "%s-%u.png", id, index);
    else if (is_folder(output))
        length = snprintf(path, PATH_ROOM, "%s%s%s-%u.png", output, output[strlen(output) - 1] == '/' ? "" : "/", id, index);
    else
        length = snprintf(path, PATH_ROOM, "%s", output);
    return length < PATH_ROOM;
}

static int collect_one(client *c, const cJSON *job, const cJSON *image, const char *output, bool save, client_pictures *shown, cJSON *files)
{
    char path[PATH_ROOM];
    client_answer png;
    const char *id = client_text(job, "id");
    const double number = client_number(image, "index", -1);
    if (!(number >= 0 && number < CLIENT_IMAGES_MAX) || client_check_id(c, id) != DN_OPTIONS_GO_ON)
        return DN_EXIT_PROTOCOL;
    const uint32_t index = (uint32_t)number;
    if (!name_file(path, output, id, index)) {
        fprintf(stderr, "denoised %s: --output: the path is too long\n", c->command);
        return DN_EXIT_USAGE;
    }
    int status = fetch(c, id, index, client_text(image, "sha256"), &png);
    if (status != DN_EXIT_OK)
        return status;
    if (save)
        status = write_picture(c, path, &png);
    if (status == DN_EXIT_OK && save)
        note_file(files, image, path, png.bytes);
    if (status == DN_EXIT_OK)
        client_pictures_add(shown, index, (const unsigned char *)png.body, png.bytes);
    client_answer_done(&png);
    return status;
}

int client_collect(client *c, const cJSON *job, const client_wish *wish, client_pictures *shown)
{
    const cJSON *image, *file, *images = cJSON_GetObjectItemCaseSensitive(job, "images");
    dn_error error;
    int status = DN_EXIT_OK;
    if (wish->save && wish->output != NULL && is_folder(wish->output) && dn_make_folder(wish->output, &error) != DN_OK)
        return dn_command_failed(c->command, &error);
    cJSON *whole = cJSON_CreateObject(), *files = cJSON_AddArrayToObject(whole, "files");
    cJSON_AddItemReferenceToObject(whole, "job", (cJSON *)job);
    cJSON_ArrayForEach(image, images)
    {
        if (status == DN_EXIT_OK && (wish->save || wish->screen->way != TERMINAL_NONE))
            status = collect_one(c, job, image, wish->output, wish->save, shown, files);
    }
    if (status == DN_EXIT_OK)
        client_pictures_show(shown, wish->screen);
    cJSON_ArrayForEach(file, files)
    {
        if (!wish->json && strcmp(client_text(file, "file"), "-") != 0)
            printf("%s\n", client_text(file, "file"));
    }
    char *text = wish->json ? cJSON_PrintUnformatted(whole) : NULL;
    if (text != NULL)
        printf("%s\n", text);
    cJSON_free(text);
    cJSON_Delete(whole);
    return status == DN_EXIT_OK && fflush(stdout) != 0 ? DN_EXIT_IO : status;
}
