/* The way from a pickle's bytes to named tensors: runs the machine, then walks the dictionaries it built and joins their keys.
 * A pickle of a few bytes can describe an endless tree, by naming itself: visits and depth have limits of their own. One call owns
 * the machine. One thread. */
#include "format/pickle.h"

#include <stdio.h>

#include "format/pickle_values.h"

#define WALK_DEPTH_MAX 16u
#define WALK_VISITS_MAX (1u << 20)

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

/* Writes a key behind the name's first `used` bytes; 0 when it is no key for a name (an object), its length otherwise. */
static size_t append_key(walk *w, size_t used, const dn_pickle_value *key, bool *plain)
{
    size_t room = sizeof w->name - used;
    int bytes = 0;
    *plain = true;
    if (key->kind == DN_PICKLE_INT)
        bytes = snprintf(w->name + used, room, "%lld", (long long)key->integer);
    else if (key->kind == DN_PICKLE_TEXT && key->text.bytes < room) {
        for (uint32_t i = 0; i < key->text.bytes; i++)
            *plain = *plain && key->text.at[i] >= 0x20 && key->text.at[i] <= 0x7E;
        bytes = snprintf(w->name + used, room, "%.*s", (int)key->text.bytes, key->text.at);
        *plain = *plain && bytes > 0;
    } else
        *plain = key->kind != DN_PICKLE_TEXT;
    return bytes > 0 && (size_t)bytes < room ? (size_t)bytes : 0;
}

static dn_status walk_dictionary(walk *w, uint32_t dictionary, size_t used, unsigned depth)
{
    const dn_pickle_cell *cells = w->p->cells.items;
    dn_status status = DN_OK;
    if (depth > WALK_DEPTH_MAX)
        return dn_fail(w->p->error, DN_INVALID, "%s: pickle: dictionaries nested deeper than %u", w->p->path, WALK_DEPTH_MAX);
    for (uint32_t c = dn_pickle_at(w->p, dictionary)->items.first; c != DN_PICKLE_NONE && status == DN_OK; c = cells[c].next) {
        dn_pickle_kind kind = dn_pickle_at(w->p, cells[c].value)->kind;
        bool plain = true;
        if (++w->visits > WALK_VISITS_MAX)
            return dn_fail(w->p->error, DN_INVALID, "%s: pickle: more than %u names", w->p->path, WALK_VISITS_MAX);
        if (kind != DN_PICKLE_TENSOR && kind != DN_PICKLE_DICT)
            continue;
        size_t bytes = append_key(w, used, dn_pickle_at(w->p, cells[c].key), &plain);
        if (!plain || used + bytes + 2 >= sizeof w->name)
            return dn_fail(w->p->error, DN_INVALID, "%s: pickle: a name that is empty, not printable, or longer than %u bytes", w->p->path,
                           DN_TENSOR_NAME_BYTES_MAX - 3);
        if (bytes == 0) /* keys that are objects lead to no name */
            continue;
        if (kind == DN_PICKLE_TENSOR) {
            status = hand_out(w, cells[c].value);
        } else {
            w->name[used + bytes] = '.';
            status = walk_dictionary(w, cells[c].value, used + bytes + 1, depth + 1);
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
