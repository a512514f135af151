// SPDX-License-Identifier: MIT
#include "base/file.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static enum vkmoe_status fail_io(const char *path, const char *what)
{
    return moe_fail(VKMOE_E_IO, "%s: %s: %s", path, what, strerror(errno));
}

// Opens a regular file and gets its size; *fd is the caller's to close, -1 after a failure.
static enum vkmoe_status open_regular(const char *path, int *fd, uint64_t *size)
{
    enum vkmoe_status status = VKMOE_OK;
    struct stat info;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // waits for no pipe
    if (*fd < 0)
        return fail_io(path, "cannot open");
    if (fstat(*fd, &info) != 0)
        status = fail_io(path, "cannot read its size");
    else if (!S_ISREG(info.st_mode))
        status = moe_fail(VKMOE_E_IO, "%s: not a regular file", path);
    else
        *size = (uint64_t) info.st_size;
    if (status != VKMOE_OK) {
        close(*fd);
        *fd = -1;
    }
    return status;
}

static enum vkmoe_status map_all(const char *path, int fd, uint64_t size, struct moe_file_map *out)
{
    if (size > SIZE_MAX)
        return moe_fail(VKMOE_E_IO, "%s: %llu bytes do not fit this machine's addresses", path,
                        (unsigned long long) size);
    if (size == 0)
        return VKMOE_OK;
    void *data = mmap(NULL, (size_t) size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return fail_io(path, "cannot map");
    *out = (struct moe_file_map){data, (size_t) size};
    return VKMOE_OK;
}

enum vkmoe_status moe_file_map(const char *path, struct moe_file_map *out)
{
    int fd;
    uint64_t size;
    *out = (struct moe_file_map){0};
    enum vkmoe_status status = open_regular(path, &fd, &size);
    if (status == VKMOE_OK) {
        status = map_all(path, fd, size, out);
        close(fd);
    }
    return status;
}

void moe_file_unmap(struct moe_file_map *map)
{
    if (map->data)
        munmap((void *) map->data, map->size);
    *map = (struct moe_file_map){0};
}

// ---- pieces ----------------------------------------------------------------------------------

enum vkmoe_status moe_file_open(const vkmoe_host *host, const char *path, struct moe_file *out)
{
    enum vkmoe_status status;
    struct moe_file file = {.host = host, .fd = -1};
    size_t n = strlen(path) + 1;
    *out = (struct moe_file){0};
    TRY(moe_try_alloc(host, n, "path of a file", &file.path));
    memcpy(file.path, path, n);
    TRY(open_regular(path, &file.fd, &file.size));
    *out = file;
    return VKMOE_OK;

fail:
    moe_file_close(&file);
    return status;
}

void moe_file_close(struct moe_file *file)
{
    if (!file->host)
        return;
    if (file->fd >= 0)
        close(file->fd);
    moe_free(file->host, file->path);
    *file = (struct moe_file){0};
}

static enum vkmoe_status fail_short(const struct moe_file *file, uint64_t begin, uint64_t end)
{
    struct stat info;
    if (fstat(file->fd, &info) != 0)
        return fail_io(file->path, "cannot read its size");
    return moe_fail(VKMOE_E_IO,
                    "%s: bytes %llu to %llu: the file has %llu bytes now, %llu when it was opened",
                    file->path, (unsigned long long) begin, (unsigned long long) end,
                    (unsigned long long) info.st_size, (unsigned long long) file->size);
}

enum vkmoe_status moe_file_read_at(const struct moe_file *file, uint64_t offset, size_t size,
                                   void *dst)
{
    char *at = dst;
    uint64_t begin = offset;
    while (size > 0) {
        ssize_t n = pread(file->fd, at, moe_min(size, 1u << 30), (off_t) offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_io(file->path, "cannot read");
        if (n == 0)
            return fail_short(file, begin, offset + size);
        at += n;
        offset += (uint64_t) n;
        size -= (size_t) n;
    }
    return VKMOE_OK;
}

bool moe_has_suffix(const char *path, const char *suffix)
{
    size_t n = strlen(path), tail = strlen(suffix);
    return n >= tail && strcmp(path + n - tail, suffix) == 0;
}

struct moe_file_writer {
    const vkmoe_host *host;
    int fd;
    char path[PATH_MAX];      // where the finished file goes, links resolved
    char directory[PATH_MAX];
    char temporary[PATH_MAX]; // empty while there is none
};

// Resolves links in `path`, and refuses what a rename could not or should not replace.
static enum vkmoe_status resolve(struct moe_file_writer *writer, const char *path)
{
    struct stat info;
    if (stat(path, &info) == 0) {
        if (!S_ISREG(info.st_mode))
            return moe_fail(VKMOE_E_IO, "%s: cannot write: not a regular file", path);
        if (access(path, W_OK) != 0 || !realpath(path, writer->path))
            return fail_io(path, "cannot write");
        return VKMOE_OK;
    }
    if (errno != ENOENT)
        return fail_io(path, "cannot write");
    size_t size = strlen(path);
    if (size == 0 || path[size - 1] == '/')
        return moe_fail(VKMOE_E_IO, "%s: cannot write: not a file name", path);
    if (size >= sizeof writer->path)
        return moe_fail(VKMOE_E_IO, "%s: cannot write: the path is too long", path);
    memcpy(writer->path, path, size + 1);
    return VKMOE_OK;
}

// ---- temporary files -------------------------------------------------------------------------
// A process that is killed leaves its temporary file behind, and the next writer of the same target
// removes it. What tells a leftover from a file that is being written is a lock on it, held until
// the name is gone: the system gives it up when the process ends, however it ends. Where a file
// system has no locks, nothing is removed. A new file is unlocked for a moment; whoever took it for
// a leftover then either still holds the lock or has unlinked the file, and its creator takes the
// next number.

enum { NAME_PART = 100 }; // bytes of the target's name that its temporary files carry

static bool lock(int fd)
{
    return flock(fd, LOCK_EX | LOCK_NB) == 0;
}

static bool keeps_its_name(int fd)
{
    struct stat info;
    return (lock(fd) || errno != EWOULDBLOCK) && fstat(fd, &info) == 0 && info.st_nlink > 0;
}

// Is `entry` ".NAME.<process>.<number>.tmp"?
static bool is_temporary(const char *entry, const char *name)
{
    size_t size = strnlen(name, NAME_PART);
    if (entry[0] != '.' || strncmp(entry + 1, name, size) != 0)
        return false;
    entry += 1 + size;
    for (int i = 0; i < 2; i++) {
        size_t digits = entry[0] == '.' ? strspn(entry + 1, "0123456789") : 0;
        if (digits == 0)
            return false;
        entry += 1 + digits;
    }
    return strcmp(entry, ".tmp") == 0;
}

static void remove_leftover(const char *path)
{
    struct stat info, named;
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return;
    // Locked, the name cannot come to mean another file.
    if (lock(fd) && fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && stat(path, &named) == 0 &&
        info.st_dev == named.st_dev && info.st_ino == named.st_ino)
        unlink(path);
    close(fd);
}

static void remove_leftovers(const struct moe_file_writer *writer, const char *name)
{
    char path[PATH_MAX];
    DIR *directory = opendir(writer->directory);
    if (!directory)
        return; // it may be written but not read
    for (struct dirent *entry; (entry = readdir(directory));)
        if (is_temporary(entry->d_name, name) &&
            snprintf(path, sizeof path, "%s/%s", writer->directory, entry->d_name) <
                (int) sizeof path)
            remove_leftover(path);
    closedir(directory);
}

static enum vkmoe_status open_temporary(struct moe_file_writer *writer)
{
    const char *slash = strrchr(writer->path, '/');
    const char *name = slash ? slash + 1 : writer->path;
    int folder = (int) (name - writer->path); // with its slash
    if (folder == 0)
        snprintf(writer->directory, sizeof writer->directory, ".");
    else
        snprintf(writer->directory, sizeof writer->directory, "%.*s", folder, writer->path);
    remove_leftovers(writer, name);
    // Another writer in this process, or a leftover that could not be removed, has a number.
    for (unsigned i = 0; i < 1000; i++) {
        int n = snprintf(writer->temporary, sizeof writer->temporary, "%.*s.%.*s.%ld.%u.tmp",
                         folder, writer->path, NAME_PART, name, (long) getpid(), i);
        if (n < 0 || (size_t) n >= sizeof writer->temporary) {
            errno = ENAMETOOLONG;
            break;
        }
        writer->fd = open(writer->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (writer->fd >= 0 && keeps_its_name(writer->fd))
            return VKMOE_OK;
        if (writer->fd >= 0) {
            close(writer->fd);
            writer->fd = -1;
            errno = EEXIST;
        }
        if (errno != EEXIST)
            break;
    }
    writer->temporary[0] = '\0';
    return fail_io(writer->path, "cannot write");
}

enum vkmoe_status moe_file_create(const vkmoe_host *host, const char *path,
                                  struct moe_file_writer **out)
{
    enum vkmoe_status status;
    struct moe_file_writer *writer = NULL;
    *out = NULL;
    TRY(moe_try_alloc(host, sizeof *writer, "file writer", &writer));
    writer->host = host;
    writer->fd = -1;
    TRY(resolve(writer, path));
    TRY(open_temporary(writer));
    *out = writer;
    return VKMOE_OK;

fail:
    moe_file_discard(writer);
    return status;
}

enum vkmoe_status moe_file_write(struct moe_file_writer *writer, const void *data, size_t size)
{
    const char *at = data;
    while (size > 0) {
        ssize_t n = write(writer->fd, at, moe_min(size, 1u << 30));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return fail_io(writer->path, "cannot write");
        at += n;
        size -= (size_t) n;
    }
    return VKMOE_OK;
}

enum vkmoe_status moe_file_rewrite(struct moe_file_writer *writer, uint64_t offset,
                                   const void *data, size_t size)
{
    if (lseek(writer->fd, (off_t) offset, SEEK_SET) < 0)
        return fail_io(writer->path, "cannot seek");
    enum vkmoe_status status = moe_file_write(writer, data, size);
    if (status == VKMOE_OK && lseek(writer->fd, 0, SEEK_END) < 0)
        status = fail_io(writer->path, "cannot seek");
    return status;
}

const char *moe_file_temporary(const struct moe_file_writer *writer)
{
    return writer->temporary;
}

// The rename itself is durable only when the folder is.
static enum vkmoe_status sync_directory(const struct moe_file_writer *writer)
{
    int fd = open(writer->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return VKMOE_OK; // a folder that may be written but not read: nothing to be done
    int failed = fsync(fd) != 0 && errno != EINVAL;
    close(fd);
    return failed ? fail_io(writer->directory, "cannot sync") : VKMOE_OK;
}

enum vkmoe_status moe_file_commit(struct moe_file_writer *writer)
{
    enum vkmoe_status status = VKMOE_OK;
    if (fsync(writer->fd) != 0 && errno != EINVAL) {
        status = fail_io(writer->path, "cannot sync");
        goto fail;
    }
    if (rename(writer->temporary, writer->path) != 0) {
        status = fail_io(writer->path, "cannot finish");
        goto fail;
    }
    writer->temporary[0] = '\0';
    TRY(sync_directory(writer));

fail:
    moe_file_discard(writer);
    return status;
}

void moe_file_discard(struct moe_file_writer *writer)
{
    if (!writer)
        return;
    // The name first: without the lock on its file it may be another writer's by then.
    if (writer->temporary[0])
        unlink(writer->temporary);
    if (writer->fd >= 0)
        close(writer->fd);
    moe_free(writer->host, writer);
}
