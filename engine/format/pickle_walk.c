/* The way from a pickle's bytes to named tensors: runs the machine, then walks the dictionaries it built and joins their keys.
 * A pickle of a few bytes can describe an endless tree, by naming itself: visits and depth have limits of their own. One call owns
 * the machine. One thread. */
#include "format/pickle.h"

#include <stdio.h>

#include "format/pickle_values.h"

#define WALK_DEPTH_MAX 16u
#define WALK_VISITS_MAX (1u << 20)
#define UNNAMED SIZE_MAX

typedef struct walk {
    dn_pickle *p;
    dn_pickle_found *found;
    void *payload;
    uint32_t visits;
    char name[DN_TENSOR_NAME_BYTES_MAX];
} walk;

static dn_status hand_out(walk *w, uint32_t value)
{
    const dn_pickle_built *built = (const dn_pickle_built *)w->p->tensors.items + dn_pickle_at(w->p, value)->tensor;
    const dn_pickle_value *key = dn_pickle_at(w->p, built->key);
    char storage[DN_TENSOR_NAME_BYTES_MAX];
    snprintf(storage, sizeof storage, "%.*s", (int)key->text.bytes, key->text.at);
    dn_pickle_tensor tensor = built->tensor;
    tensor.name = w->name;
    tensor.storage = storage;
    return w->found(w->payload, &tensor, w->p->error);
}

/* Writes a key behind the name's first `used` bytes and returns its end; UNNAMED when it is empty, not printable or too long. */
static size_t extend_name(walk *w, size_t used, const dn_pickle_value *key)
{
    int bytes = 0;
    if (used == UNNAMED)
        return UNNAMED;
    size_t room = sizeof w->name - used;
    if (key->kind == DN_PICKLE_INT) {
        bytes = snprintf(w->name + used, room, "%lld", (long long)key->integer);
    } else if (key->text.bytes < room) {
        for (uint32_t i = 0; i < key->text.bytes; i++)
            if (key->text.at[i] < 0x20 || key->text.at[i] > 0x7E)
                return UNNAMED;
        bytes = snprintf(w->name + used, room, "%.*s", (int)key->text.bytes, key->text.at);
    }
    return bytes > 0 && (size_t)bytes + 1 < room ? used + (size_t)bytes : UNNAMED;
}

/* used: bytes of the name so far; UNNAMED below a key that makes no name, where tensors are refused and all else is passed over. */
static dn_status walk_dictionary(walk *w, uint32_t dictionary, size_t used, unsigned depth)
{
    const dn_pickle_cell *cells = w->p->cells.items;
    dn_status status = DN_OK;
    if (depth > WALK_DEPTH_MAX)
        return dn_fail(w->p->error, DN_INVALID, "%s: pickle: dictionaries nested deeper than %u", w->p->path, WALK_DEPTH_MAX);
    for (uint32_t c = dn_pickle_at(w->p, dictionary)->items.first; c != DN_PICKLE_NONE && status == DN_OK; c = cells[c].next) {
        const dn_pickle_value *key = dn_pickle_at(w->p, cells[c].key);
        dn_pickle_kind kind = dn_pickle_at(w->p, cells[c].value)->kind;
        if (++w->visits > WALK_VISITS_MAX)
            return dn_fail(w->p->error, DN_INVALID, "%s: pickle: more than %u names", w->p->path, WALK_VISITS_MAX);
        if ((kind != DN_PICKLE_TENSOR && kind != DN_PICKLE_DICT) || (key->kind != DN_PICKLE_INT && key->kind != DN_PICKLE_TEXT))
            continue; /* keys that are objects lead to no name */
        size_t end = extend_name(w, used, key);
        if (kind == DN_PICKLE_DICT) {
            if (end != UNNAMED)
                w->name[end++] = '.';
            status = walk_dictionary(w, cells[c].value, end, depth + 1);
        } else if (end == UNNAMED) {
            status =
                dn_fail(w->p->error, DN_INVALID, "%s: pickle: a tensor under a name that is empty, not printable, or longer than %u bytes",
                        w->p->path, DN_TENSOR_NAME_BYTES_MAX - 2);
        } else {
            status = hand_out(w, cells[c].value);
        }
    }
    return status;
}

dn_status dn_pickle_tensors(const unsigned char *bytes, size_t count, const char *path, dn_pickle_found *found, void *payload,
                            dn_error *error)
{
    if (count > DN_PICKLE_BYTES_MAX)
        return dn_fail(error, DN_INVALID, "%s: pickle: longer than %u bytes", path, DN_PICKLE_BYTES_MAX);
    dn_pickle p = {.start = bytes, .at = bytes, .end = bytes + count, .path = path, .error = error};
    uint32_t root = 0;
    dn_status status = dn_pickle_run(&p, &root);
    if (status == DN_OK && dn_pickle_at(&p, root)->kind != DN_PICKLE_DICT)
        status = dn_fail(error, DN_UNSUPPORTED,
                         "%s: holds no dictionary of tensors but some other object; save the network's state_dict() instead", path);
    if (status == DN_OK)
        status = walk_dictionary(&(walk){.p = &p, .found = found, .payload = payload}, root, 0, 1);
    dn_pickle_done(&p);
    return status;
}
