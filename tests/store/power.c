/*
 * To be preloaded: notes on descriptor 900 what has become durable.
 *
 *   F <inode> <bytes> <path>          a file was synced up to there
 *   D <path>\t<inode> <name>\t...     a directory was synced with these names
 *
 * What is noted was there before the sync began; it is noted when that ended.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NOTES = 900, LONGEST = 1 << 16 };

static int noted(int fd, const char *name)
{
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    char link[64], path[PATH_MAX + 1], note[LONGEST];
    struct stat found;
    int length = 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t end = readlink(link, path, PATH_MAX);
    if (end > 0 && fstat(fd, &found) == 0) {
        path[end] = 0;
        if (S_ISDIR(found.st_mode)) {
            DIR *directory = opendir(path);
            struct dirent *one;
            length = snprintf(note, LONGEST, "D %s", path);
            while (directory && (one = readdir(directory)) && length < LONGEST - 400)
                length += snprintf(note + length, LONGEST - length, "\t%lu %s",
                                   (unsigned long)one->d_ino, one->d_name);
            if (directory)
                closedir(directory);
        } else
            length = snprintf(note, LONGEST, "F %lu %lld %s",
                              (unsigned long)found.st_ino,
                              (long long)found.st_size, path);
        note[length++] = '\n';
    }
    int result = sync(fd);
    if (result == 0 && length > 0 && write(NOTES, note, length) < 0)
        return result; /* nobody listens */
    return result;
}

int fsync(int fd) { return noted(fd, "fsync"); }
int fdatasync(int fd) { return noted(fd, "fdatasync"); }
