// SPDX-License-Identifier: MIT
// Files for reading, mapped or piece by piece, and files that appear only when they are complete.
#ifndef MOE_BASE_FILE_H
#define MOE_BASE_FILE_H

#include <vkmoe/vkmoe.h>

// A regular file's bytes, read only. Another process that shortens the file breaks the mapping.
struct moe_file_map {
    const unsigned char *data; // NULL when the file is empty
    size_t size;
};

// VKMOE_E_IO: with the path and the system's reason.
enum vkmoe_status moe_file_map(const char *path, struct moe_file_map *out);
void moe_file_unmap(struct moe_file_map *map); // a zeroed map is fine

// A regular file to copy bytes from. What another process cuts off fails to be read, and is no
// signal as in a mapping: for files of strangers and of any size.
struct moe_file {
    const vkmoe_host *host; // NULL: not open
    char *path;
    int fd;
    uint64_t size; // when it was opened
};

// VKMOE_E_IO: with the path and the system's reason.
enum vkmoe_status moe_file_open(const vkmoe_host *host, const char *path, struct moe_file *out);
void moe_file_close(struct moe_file *file); // a zeroed one is fine

// Copies bytes that lie within file->size. VKMOE_E_IO: cannot be read, or the file is shorter than
// it was; *dst is undefined then.
// Threads: any number of calls at a time.
enum vkmoe_status moe_file_read_at(const struct moe_file *file, uint64_t offset, size_t size,
                                   void *dst);

// Does a path, or any text, end with `suffix`?
bool moe_has_suffix(const char *path, const char *suffix);

// Writes to a hidden temporary file beside `path`. Nothing is seen at `path` before commit, and
// then all of it, even after a crash. Where `path` is a link, the file it names is replaced. What a
// killed process leaves behind, the next writer for the same `path` removes, if the folder can be
// read and its file system has locks.
struct moe_file_writer;

// Fails now when the finished file could not be put at `path`: so create before long work.
enum vkmoe_status moe_file_create(const vkmoe_host *host, const char *path,
                                  struct moe_file_writer **out);

enum vkmoe_status moe_file_write(struct moe_file_writer *writer, const void *data, size_t size);

// Overwrites bytes that were written before; the end of the file stays where it is.
enum vkmoe_status moe_file_rewrite(struct moe_file_writer *writer, uint64_t offset,
                                   const void *data, size_t size);

// Where the bytes are until commit, for whoever looks at them before. The writer's.
const char *moe_file_temporary(const struct moe_file_writer *writer);

// Makes the file durable and puts it in place. The writer is gone afterwards, also on failure.
enum vkmoe_status moe_file_commit(struct moe_file_writer *writer);

// Removes the temporary file. NULL is fine.
void moe_file_discard(struct moe_file_writer *writer);

#endif
