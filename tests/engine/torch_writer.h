/* Writes small torch files byte by byte, honest ones and others: pickles from single instructions, zips with the places of their
 * headers remembered, so that a test can change what it likes. */
#ifndef DN_TESTS_TORCH_WRITER_H
#define DN_TESTS_TORCH_WRITER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define WRITER_ENTRIES_MAX 256

typedef struct bytes_maker {
    unsigned char *bytes;
    size_t used, capacity;
} bytes_maker;

static inline void put_bytes(bytes_maker *m, const void *bytes, size_t count)
{
    if (m->used + count > m->capacity) {
        m->capacity = (m->used + count) * 2;
        m->bytes = realloc(m->bytes, m->capacity);
    }
    if (count > 0)
        memcpy(m->bytes + m->used, bytes, count);
    m->used += count;
}

static inline void put_number(bytes_maker *m, uint64_t value, size_t count)
{
    put_bytes(m, &value, count); /* little-endian machines alone run these tests */
}

static inline void put_op(bytes_maker *m, unsigned char op)
{
    put_bytes(m, &op, 1);
}

static inline void put_text(bytes_maker *m, const char *text)
{
    put_op(m, 'X');
    put_number(m, strlen(text), 4);
    put_bytes(m, text, strlen(text));
}

static inline void put_integer(bytes_maker *m, int64_t value)
{
    put_op(m, 0x8a);
    put_op(m, 8);
    put_number(m, (uint64_t)value, 8);
}

static inline void put_global(bytes_maker *m, const char *module, const char *name)
{
    put_op(m, 'c');
    put_bytes(m, module, strlen(module));
    put_op(m, '\n');
    put_bytes(m, name, strlen(name));
    put_op(m, '\n');
}

static inline void put_storage(bytes_maker *m, const char *type, const char *key, int64_t count)
{
    put_op(m, '(');
    put_text(m, "storage");
    put_global(m, "torch", type);
    put_text(m, key);
    put_text(m, "cpu");
    put_integer(m, count);
    put_op(m, 't');
    put_op(m, 'Q');
}

static inline void put_tuple(bytes_maker *m, const int64_t *numbers, size_t count)
{
    put_op(m, '(');
    for (size_t i = 0; i < count; i++)
        put_integer(m, numbers[i]);
    put_op(m, 't');
}

/* The tensor in storage data/KEY of `stored` floats. */
static inline void put_tensor(bytes_maker *m, const char *key, int64_t stored, int64_t first, size_t rank, const int64_t *dims,
                              const int64_t *strides)
{
    put_global(m, "torch._utils", "_rebuild_tensor_v2");
    put_op(m, '(');
    put_storage(m, "FloatStorage", key, stored);
    put_integer(m, first);
    put_tuple(m, dims, rank);
    put_tuple(m, strides, rank);
    put_op(m, 0x89);
    put_global(m, "collections", "OrderedDict");
    put_op(m, ')');
    put_op(m, 'R');
    put_op(m, 't');
    put_op(m, 'R');
}

static inline void begin_pickle(bytes_maker *m)
{
    m->used = 0;
    put_bytes(m, "\x80\x02}", 3);
}

typedef struct zip_maker {
    bytes_maker out;
    struct {
        char name[600];
        uint64_t local, central, bytes; /* offsets of its two headers */
        uint64_t data;
        uint32_t crc;
    } entries[WRITER_ENTRIES_MAX];
    size_t count;
    uint64_t directory, end64, end; /* offsets */
    uint16_t method, flags; /* of what is added from now on; bit 3: with a descriptor */
    bool zip64;
} zip_maker;

static inline void begin_zip(zip_maker *z)
{
    z->out.used = 0;
    z->count = 0;
    z->method = 0;
    z->flags = 0x0808;
    z->zip64 = true;
}

/* Offset of `local` aside, what both headers say from the flags on. */
static inline void put_common(bytes_maker *m, uint16_t flags, uint16_t method, uint32_t crc, uint64_t bytes)
{
    put_number(m, flags, 2);
    put_number(m, method, 2);
    put_number(m, 0, 4);
    put_number(m, crc, 4);
    put_number(m, bytes, 4);
    put_number(m, bytes, 4);
}

static inline void add_entry(zip_maker *z, const char *name, const void *bytes, size_t count)
{
    size_t i = z->count++;
    bool later = z->flags & 8;
    snprintf(z->entries[i].name, sizeof z->entries[i].name, "%s", name);
    z->entries[i].local = z->out.used;
    z->entries[i].bytes = count;
    z->entries[i].crc = (uint32_t)crc32(0, bytes, (unsigned)count);
    put_number(&z->out, 0x04034b50, 4);
    put_number(&z->out, 0, 2);
    put_common(&z->out, z->flags, z->method, later ? 0 : z->entries[i].crc, later ? 0 : count);
    put_number(&z->out, strlen(name), 2);
    put_number(&z->out, 8, 2);
    put_bytes(&z->out, name, strlen(name));
    put_bytes(&z->out, "FB\x04\x00ZZZZ", 8);
    z->entries[i].data = z->out.used;
    put_bytes(&z->out, bytes, count);
    if (later) {
        put_number(&z->out, 0x08074b50, 4);
        put_number(&z->out, z->entries[i].crc, 4);
        put_number(&z->out, count, 4);
        put_number(&z->out, count, 4);
    }
}

static inline void put_central(zip_maker *z, size_t i)
{
    z->entries[i].central = z->out.used;
    put_number(&z->out, 0x02014b50, 4);
    put_number(&z->out, 0, 4);
    put_common(&z->out, z->flags, z->method, z->entries[i].crc, z->entries[i].bytes);
    put_number(&z->out, strlen(z->entries[i].name), 2);
    put_number(&z->out, 0, 4);
    put_number(&z->out, 0, 8);
    put_number(&z->out, z->entries[i].local, 4);
    put_bytes(&z->out, z->entries[i].name, strlen(z->entries[i].name));
}

static inline void end_zip(zip_maker *z)
{
    z->directory = z->out.used;
    for (size_t i = 0; i < z->count; i++)
        put_central(z, i);
    uint64_t bytes = z->out.used - z->directory;
    z->end64 = z->out.used;
    if (z->zip64) {
        put_number(&z->out, 0x06064b50, 4);
        put_number(&z->out, 44, 8);
        put_number(&z->out, 0x031e, 4);
        put_number(&z->out, 0, 8);
        put_number(&z->out, z->count, 8);
        put_number(&z->out, z->count, 8);
        put_number(&z->out, bytes, 8);
        put_number(&z->out, z->directory, 8);
        put_number(&z->out, 0x07064b50, 4);
        put_number(&z->out, 0, 4);
        put_number(&z->out, z->end64, 8);
        put_number(&z->out, 1, 4);
    }
    z->end = z->out.used;
    put_number(&z->out, 0x06054b50, 4);
    put_number(&z->out, 0, 4);
    put_number(&z->out, z->count, 2);
    put_number(&z->out, z->count, 2);
    put_number(&z->out, bytes, 4);
    put_number(&z->out, z->directory, 4);
    put_number(&z->out, 0, 2);
}

/* A whole file: the pickle, and storages "0", "1", ... of `floats` each. */
static inline void make_torch_file(zip_maker *z, const bytes_maker *pickle, const float *const *storages, const size_t *counts,
                                   size_t storage_count)
{
    begin_zip(z);
    add_entry(z, "archive/data.pkl", pickle->bytes, pickle->used);
    for (size_t i = 0; i < storage_count; i++) {
        char name[64];
        snprintf(name, sizeof name, "archive/data/%zu", i);
        add_entry(z, name, storages[i], counts[i] * sizeof(float));
    }
    add_entry(z, "archive/version", "3\n", 2);
    end_zip(z);
}

#endif
