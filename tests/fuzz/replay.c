// SPDX-License-Identifier: MIT
// Runs a target over the files of folders: replay FOLDER... A file named good-* must be accepted,
// one named bad-* refused.
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

// The file's bytes in memory of just this size, so that the sanitizers see a read beyond.
static uint8_t *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0) {
        perror(path);
        exit(1);
    }
    *size = (size_t) ftell(file);
    uint8_t *data = malloc(*size ? *size : 1);
    rewind(file);
    if (!data || fread(data, 1, *size, file) != *size) {
        perror(path);
        exit(1);
    }
    fclose(file);
    return data;
}

// Number of files that were not taken as their name says.
static int replay_file(const char *folder, const char *name)
{
    char path[1024];
    size_t size;
    bool good = strncmp(name, "good-", 5) == 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!good && strncmp(name, "bad-", 4) != 0) {
        printf("%s: is it good- or bad-?\n", path);
        return 1;
    }
    printf("%s\n", path);
    fflush(stdout); // the last line names the file that ended the process
    uint8_t *data = read_file(path, &size);
    bool accepted = fuzz_run(data, size);
    free(data);
    if (accepted != good)
        printf("%s: %s\n", path, accepted ? "accepted" : "refused");
    return accepted != good;
}

int main(int argc, char **argv)
{
    int n_files = 0, n_wrong = 0;
    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        if (!dir) {
            perror(argv[i]);
            return 1;
        }
        for (struct dirent *entry; (entry = readdir(dir)); ) {
            if (entry->d_name[0] == '.')
                continue;
            n_wrong += replay_file(argv[i], entry->d_name);
            n_files++;
        }
        closedir(dir);
    }
    printf("%d files, %d wrong\n", n_files, n_wrong);
    return n_files == 0 || n_wrong > 0;
}
