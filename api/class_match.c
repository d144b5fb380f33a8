/* See class_match.h. A prompt's words are put into a small table by their stems, so that a model's names (thousands) are each looked up by
 * their first word, whatever the prompt's length. */
#include "api/class_match.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "api/class_label.h"
#include "api/limits.h"
#include "api/text.h"

#define WORDS_MAX 1024 /* of a prompt: more are not read */
#define NAME_WORDS_MAX 32 /* of a class name */
#define BUCKETS 256
#define LISTED_MAX 5 /* classes that a refusal lists */
#define WINDOW_WORDS 5 /* of the prompt that are compared for suggestions, alone and in pairs */
#define NEAR_BYTES 64
#define COMPARED_MAX 20000 /* names and words: bounds a refusal's time, and has room for the thousand classes of ImageNet */

typedef struct word {
    const char *at;
    uint16_t bytes, stem; /* stem: bytes of it without a plural's ending */
    bool joined_before, joined_after; /* by a hyphen to its neighbour */
    int next; /* of the same bucket; -1: the last */
} word;

typedef struct prompt_words {
    word words[WORDS_MAX];
    int count;
    int buckets[BUCKETS];
} prompt_words;

/* A class that is named, and by what. */
typedef struct match {
    uint32_t index;
    const char *name;
    size_t name_bytes;
} match;

/* ---- Words */

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (unsigned char)c >= 0x80;
}

static unsigned char lower(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

static bool ends_with(const char *at, size_t bytes, const char *ending)
{
    const size_t count = strlen(ending);
    return bytes >= count && strncasecmp(at + bytes - count, ending, count) == 0;
}

/* "sneakers", "dresses", "boxes" and "brushes" lose their endings; "dress" and "bus" do not. */
static size_t stem_of(const char *at, size_t bytes)
{
    static const char *const hissing[] = {"sses", "xes", "zes", "ches", "shes"};
    for (size_t i = 0; i < sizeof hissing / sizeof hissing[0]; i++) {
        if (bytes > 4 && ends_with(at, bytes, hissing[i])) {
            return bytes - 2;
        }
    }
    return bytes > 3 && ends_with(at, bytes, "s") && !ends_with(at, bytes, "ss") ? bytes - 1 : bytes;
}

/* Words of text[0 .. bytes), at most `room`; what does not fit is left out. */
static int split(word *out, int room, const char *text, size_t bytes)
{
    int count = 0;
    for (size_t i = 0; i < bytes && count < room;) {
        const size_t begin = i;
        while (i < bytes && is_letter(text[i])) {
            i++;
        }
        if (i == begin) {
            i++;
            continue;
        }
        word w = {.at = text + begin, .bytes = (uint16_t)(i - begin), .next = -1};
        w.stem = (uint16_t)stem_of(w.at, w.bytes);
        w.joined_before = begin > 1 && text[begin - 1] == '-' && is_letter(text[begin - 2]);
        w.joined_after = i + 1 < bytes && text[i] == '-' && is_letter(text[i + 1]);
        out[count++] = w;
    }
    return count;
}

/* FNV-1a of a word's stem. */
static unsigned bucket_of(const word *w)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < w->stem; i++) {
        hash = (hash ^ lower(w->at[i])) * 16777619u;
    }
    return (hash ^ hash >> 16) % BUCKETS;
}

static bool is_filler(const word *w)
{
    static const char *const fillers[] = {
        "a",         "an",         "the",      "of",     "in",           "on",     "at",         "with",
        "and",       "or",         "for",      "to",     "some",         "one",    "single",     "this",
        "that",      "my",         "is",       "it",     "its",          "please", "draw",       "make",
        "create",    "generate",   "show",     "me",     "very",         "photo",  "photograph", "picture",
        "image",     "drawing",    "painting", "sketch", "illustration", "render", "rendering",  "high",
        "quality",   "best",       "detailed", "4k",     "8k",           "hd",     "realistic",  "photorealistic",
        "beautiful", "cute",       "close",    "up",     "closeup",      "white",  "plain",      "background",
        "style",     "masterpiece"};
    for (size_t i = 0; i < sizeof fillers / sizeof fillers[0]; i++) {
        if (strlen(fillers[i]) == w->bytes && strncasecmp(fillers[i], w->at, w->bytes) == 0) {
            return true;
        }
    }
    return false;
}

static bool are_fillers(const word *words, int count)
{
    int i = 0;
    while (i < count && is_filler(&words[i])) {
        i++;
    }
    return i == count;
}

static void read_prompt(prompt_words *p, const char *prompt)
{
    p->count = split(p->words, WORDS_MAX, prompt, strlen(prompt));
    memset(p->buckets, -1, sizeof p->buckets);
    for (int i = p->count - 1; i >= 0; i--) {
        int *bucket = &p->buckets[bucket_of(&p->words[i])];
        p->words[i].next = *bucket;
        *bucket = i;
    }
}

/* ---- Names in it */

/* Whether the name's words stand at `begin`; *exact: as they are. */
static bool stands_at(const prompt_words *p, int begin, const word *name, int count, bool *exact)
{
    const word *at = p->words + begin;
    if (begin + count > p->count || at[0].joined_before || at[count - 1].joined_after) {
        return false;
    }
    *exact = true;
    for (int i = 0; i < count; i++) {
        if (at[i].stem != name[i].stem || strncasecmp(at[i].at, name[i].at, name[i].stem) != 0) {
            return false;
        }
        *exact &= at[i].bytes == name[i].bytes;
    }
    return true;
}

/* Two walks over the model's names: the first finds for every word of the prompt the best name over it, the second keeps the classes
 * whose names are the best over each of their words. */
typedef struct finder {
    const prompt_words *prompt;
    bool keeps; /* the second walk */
    int best[WORDS_MAX]; /* a name's worth: twice its words, and one more without a plural's ending; 0: no name */
    match kept[LISTED_MAX + 1]; /* classes, each once */
    int count;
} finder;

static void keep_class(finder *f, match found)
{
    for (int i = 0; i < f->count; i++) {
        if (f->kept[i].index == found.index) {
            return;
        }
    }
    if (f->count <= LISTED_MAX) {
        f->kept[f->count++] = found;
    }
}

static void find_name(finder *f, uint32_t index, const char *name, size_t bytes)
{
    word words[NAME_WORDS_MAX];
    const int count = split(words, NAME_WORDS_MAX, name, bytes);
    bool exact;
    for (int at = count > 0 ? f->prompt->buckets[bucket_of(&words[0])] : -1; at >= 0; at = f->prompt->words[at].next) {
        if (!stands_at(f->prompt, at, words, count, &exact) || (count != f->prompt->count && are_fillers(words, count))) {
            continue;
        }
        const int worth = 2 * count + exact;
        bool best = true;
        for (int i = at; i < at + count; i++) {
            best &= worth >= f->best[i];
            f->best[i] = worth > f->best[i] ? worth : f->best[i];
        }
        if (f->keeps && best) {
            keep_class(f, (match){index, name, bytes});
        }
    }
}

/* A synonym whole, and its parts between slashes. */
static void find_synonym(finder *f, uint32_t index, const char *name, size_t bytes)
{
    find_name(f, index, name, bytes);
    for (size_t begin = 0; memchr(name, '/', bytes) != NULL && begin < bytes;) {
        const char *slash = memchr(name + begin, '/', bytes - begin);
        const size_t end = slash != NULL ? (size_t)(slash - name) : bytes;
        find_name(f, index, name + begin, end - begin);
        begin = end + 1;
    }
}

static void walk_names(finder *f, const api_model *model)
{
    for (uint32_t i = 0; i < model->class_count; i++) {
        const char *rest = model->class_names[i], *name;
        size_t bytes;
        while (api_next_synonym(&rest, &name, &bytes)) {
            find_synonym(f, i, name, bytes);
        }
    }
}

/* ---- Refusals */

static const char *own_name(const char *field)
{
    const char *slash = strrchr(field, '/');
    return slash ? slash + 1 : field;
}

/* `"Sneaker" (class:7), "Bag" (class:8)`; names too long to be shown are shown by their index alone. */
static void list_classes(char *out, size_t capacity, const match *m, int count, const char *last)
{
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; i < count && used < capacity; i++) {
        const char *between = i == 0 ? "" : i + 1 < count ? ", " : last;
        int made = m[i].name_bytes <= NEAR_BYTES ? snprintf(out + used, capacity - used, "%s\"%.*s\" (class:%u)", between,
                                                            (int)m[i].name_bytes, m[i].name, m[i].index)
                                                 : snprintf(out + used, capacity - used, "%sclass:%u", between, m[i].index);
        used += made > 0 ? (size_t)made : 0;
    }
}

static bool refuse_several(const match *m, int count, const char *field, api_problem *problem)
{
    char list[LISTED_MAX * (NEAR_BYTES + 24)];
    const bool more = count > LISTED_MAX;
    list_classes(list, sizeof list, m, more ? LISTED_MAX : count, more ? ", " : " or ");
    return api_refuse(problem, API_INVALID_FIELD, field, "%s names several classes: send one of %s%s", own_name(field), list,
                      more ? ", ..." : "");
}

typedef struct near_list {
    match kept[LISTED_MAX];
    unsigned distance[LISTED_MAX];
    unsigned compared;
} near_list;

static void keep_near(near_list *n, match next, unsigned distance)
{
    const uint32_t index = next.index;
    for (int i = 0; i < LISTED_MAX; i++) {
        if (n->kept[i].name != NULL && n->kept[i].index == next.index && n->distance[i] <= distance) {
            return;
        }
        if (n->kept[i].name == NULL || distance < n->distance[i]) {
            match moved = n->kept[i];
            unsigned moved_distance = n->distance[i];
            n->kept[i] = next;
            n->distance[i] = distance;
            /* What was behind it moves on, unless it is the same class. */
            if (moved.name == NULL || moved.index == index) {
                return;
            }
            next = moved;
            distance = moved_distance;
        }
    }
}

/* The distance of a name, or of its part before a slash, from the nearest of the prompt's words, alone and in pairs, fillers left out. */
static unsigned distance_of(near_list *n, char windows[][NEAR_BYTES + 1], int count, const char *name, size_t bytes)
{
    unsigned least = (unsigned)-1;
    const char *slash = memchr(name, '/', bytes);
    if (slash != NULL) {
        least = distance_of(n, windows, count, name, (size_t)(slash - name));
    }
    for (int i = 0; i < count && n->compared < COMPARED_MAX; i++) {
        const unsigned distance = api_name_nearness(windows[i], strlen(windows[i]), name, bytes, n->distance[LISTED_MAX - 1]);
        least = distance < least ? distance : least;
        n->compared++;
    }
    return least;
}

static int make_windows(char windows[][NEAR_BYTES + 1], const prompt_words *p)
{
    const word *words[WINDOW_WORDS];
    int told = 0, count = 0;
    for (int i = 0; i < p->count && told < WINDOW_WORDS; i++) {
        if (!is_filler(&p->words[i])) {
            words[told++] = &p->words[i];
        }
    }
    for (int i = 0; i < told; i++) {
        if (words[i]->bytes <= NEAR_BYTES) {
            snprintf(windows[count++], NEAR_BYTES + 1, "%.*s", words[i]->stem, words[i]->at);
        }
        if (i + 1 < told && words[i]->bytes + words[i + 1]->bytes < NEAR_BYTES) {
            snprintf(windows[count++], NEAR_BYTES + 1, "%.*s %.*s", words[i]->bytes, words[i]->at, words[i + 1]->stem, words[i + 1]->at);
        }
    }
    return count;
}

static bool refuse_none(const prompt_words *p, const api_model *model, const char *field, api_problem *problem)
{
    char windows[2 * WINDOW_WORDS][NEAR_BYTES + 1], list[LISTED_MAX * (NEAR_BYTES + 24)];
    near_list n = {.compared = 0};
    int near = 0;
    memset(n.distance, -1, sizeof n.distance); /* nothing is as far */
    const int count = make_windows(windows, p);
    for (uint32_t i = 0; count > 0 && i < model->class_count && n.compared < COMPARED_MAX; i++) {
        const char *rest = model->class_names[i], *name;
        size_t bytes;
        while (api_next_synonym(&rest, &name, &bytes)) {
            const unsigned distance = distance_of(&n, windows, count, name, bytes);
            if (distance != (unsigned)-1) {
                keep_near(&n, (match){.index = i, .name = name, .name_bytes = bytes}, distance);
            }
        }
    }
    while (near < LISTED_MAX && n.kept[near].name != NULL) {
        near++;
    }
    list_classes(list, sizeof list, n.kept, near, " and ");
    return api_refuse(problem, API_INVALID_FIELD, field,
                      "%s names no class of this model%s%s; GET /models/%s has all, by name or as class:N", own_name(field),
                      near > 0 ? "; the nearest are " : "", list, model->name);
}

/* ---- The prompt */

bool api_prompt_is_blank(const char *prompt)
{
    return prompt[strspn(prompt, " \t\r\n")] == '\0';
}

/* "class:7" and "class:NAME"; NULL: it is none. Points behind the colon and the blanks after it. */
static const char *after_class(const char *prompt)
{
    prompt += strspn(prompt, " \t\r\n");
    if (strncasecmp(prompt, "class:", 6) != 0) {
        return NULL;
    }
    return prompt + 6 + strspn(prompt + 6, " \t");
}

static bool match_index(uint32_t *index, const api_model *model, const char *digits, const char *field, api_problem *problem)
{
    uint64_t value = 0;
    for (; *digits >= '0' && *digits <= '9' && value <= UINT32_MAX; digits++) {
        value = value * 10 + (uint64_t)(*digits - '0');
    }
    if (value >= model->class_count) {
        return model->class_count == 0
                   ? api_refuse(problem, API_UNSUPPORTED_OPTION, field, "%s names a class, and this model has none", own_name(field))
                   : api_refuse(problem, API_INVALID_FIELD, field, "%s must name a class from class:0 to class:%u", own_name(field),
                                model->class_count - 1);
    }
    *index = (uint32_t)value;
    return true;
}

bool api_match_class(uint32_t *index, const api_model *model, const char *prompt, const char *field, api_problem *problem)
{
    prompt_words words;
    finder f = {.prompt = &words};
    if (strlen(prompt) > API_PROMPT_BYTES_MAX) {
        return api_refuse(problem, API_INVALID_FIELD, field, "%s must have at most %d bytes", own_name(field), API_PROMPT_BYTES_MAX);
    }
    const char *told = after_class(prompt);
    const size_t digits = told != NULL ? strspn(told, "0123456789") : 0;
    if (digits > 0 && api_prompt_is_blank(told + digits)) {
        return match_index(index, model, told, field, problem);
    }
    read_prompt(&words, told != NULL ? told : prompt);
    walk_names(&f, model);
    f.keeps = true;
    walk_names(&f, model);
    if (f.count > 1) {
        return refuse_several(f.kept, f.count, field, problem);
    }
    if (f.count == 0) {
        return refuse_none(&words, model, field, problem);
    }
    *index = f.kept[0].index;
    return true;
}
