// SPDX-License-Identifier: MIT
#include "base/file.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static enum vkmoe_status fail_io(const char *path, const char *what)
{
    return moe_fail(VKMOE_E_IO, "%s: %s: %s", path, what, strerror(errno));
}

enum vkmoe_status moe_file_map(const char *path, struct moe_file_map *out)
{
    *out = (struct moe_file_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_io(path, "cannot open");
    enum vkmoe_status status = VKMOE_OK;
    struct stat info;
    if (fstat(fd, &info) != 0)
        status = fail_io(path, "cannot read its size");
    else if (!S_ISREG(info.st_mode))
        status = moe_fail(VKMOE_E_IO, "%s: not a regular file", path);
    else if ((uint64_t) info.st_size > SIZE_MAX)
        status = moe_fail(VKMOE_E_IO, "%s: %lld bytes do not fit this machine's addresses", path,
                          (long long) info.st_size);
    else if (info.st_size > 0) {
        void *data = mmap(NULL, (size_t) info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED)
            status = fail_io(path, "cannot map");
        else
            *out = (struct moe_file_map){data, (size_t) info.st_size};
    }
    close(fd);
    return status;
}

void moe_file_unmap(struct moe_file_map *map)
{
    if (map->data)
        munmap((void *) map->data, map->size);
    *map = (struct moe_file_map){0};
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

static enum vkmoe_status open_temporary(struct moe_file_writer *writer)
{
    const char *slash = strrchr(writer->path, '/');
    const char *name = slash ? slash + 1 : writer->path;
    int folder = (int) (name - writer->path); // with its slash
    if (folder == 0)
        snprintf(writer->directory, sizeof writer->directory, ".");
    else
        snprintf(writer->directory, sizeof writer->directory, "%.*s", folder, writer->path);
    // Two writers in one process, or a leftover of an earlier one, take the next number.
    for (unsigned i = 0; i < 1000; i++) {
        int n = snprintf(writer->temporary, sizeof writer->temporary, "%.*s.%.100s.%ld.%u.tmp",
                         folder, writer->path, name, (long) getpid(), i);
        if (n < 0 || (size_t) n >= sizeof writer->temporary) {
            errno = ENAMETOOLONG;
            break;
        }
        writer->fd = open(writer->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (writer->fd >= 0)
            return VKMOE_OK;
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
    int fd = writer->fd;
    if (fsync(fd) != 0 && errno != EINVAL) {
        status = fail_io(writer->path, "cannot sync");
        goto fail;
    }
    writer->fd = -1;
    if (close(fd) != 0 || rename(writer->temporary, writer->path) != 0) {
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
    if (writer->fd >= 0)
        close(writer->fd);
    if (writer->temporary[0])
        unlink(writer->temporary);
    moe_free(writer->host, writer);
}
