/* A disk that fails at the N-th change below a folder: preloaded into a command, it counts writes, syncs, renames,
 * links, truncations, creations and removals over all the command's processes, and at the N-th
 *   kill   ends the command's main process and the process that made the call, by SIGKILL, before the call;
 *   full   answers ENOSPC to it and to every later call that needs space;
 *   io     answers EIO to it, once.
 * FAULT_ROOT: the folder. FAULT_COUNTER: a file of 8 bytes that holds the count. FAULT_AT: N, 0 only counts.
 * FAULT_KIND: kill | full | io. FAULT_MAIN: process id of the command. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OTHER = 0, NEEDS_SPACE = 1 };

static const char *root, *kind;
static size_t root_length;
static long at;
static pid_t main_pid;
static volatile uint64_t *counter;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("FAULT_COUNTER");
    root = getenv("FAULT_ROOT");
    kind = getenv("FAULT_KIND");
    if (!path || !root || !kind) return;
    root_length = strlen(root);
    at = getenv("FAULT_AT") ? atol(getenv("FAULT_AT")) : 0;
    main_pid = getenv("FAULT_MAIN") ? (pid_t)atol(getenv("FAULT_MAIN")) : 0;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *page = mmap(NULL, sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (page != MAP_FAILED) counter = page;
}

static int below(int directory, const char *path) {
    char whole[2 * PATH_MAX];
    if (!path) return 0;
    if (path[0] != '/') {
        char place[64], base[PATH_MAX];
        if (directory == AT_FDCWD) snprintf(place, sizeof place, "/proc/self/cwd");
        else snprintf(place, sizeof place, "/proc/self/fd/%d", directory);
        ssize_t n = readlink(place, base, sizeof base - 1);
        if (n < 0) return 0;
        base[n] = 0;
        snprintf(whole, sizeof whole, "%s/%s", base, path);
        path = whole;
    }
    return strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

static int open_below(int fd) {
    char place[64], path[PATH_MAX];
    snprintf(place, sizeof place, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(place, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return path[0] == '/' && below(AT_FDCWD, path);
}

/* 0: go on; otherwise the errno that the call fails with. */
static int fault(int touches, int space) {
    if (!counter || !touches) return 0;
    long n = (long)__sync_add_and_fetch(counter, 1);
    if (!at || n < at) return 0;
    if (strcmp(kind, "kill") == 0) {
        if (n != at) return 0;
        if (main_pid) syscall(SYS_kill, main_pid, SIGKILL);
        syscall(SYS_kill, getpid(), SIGKILL);
    }
    if (strcmp(kind, "io") == 0) return n == at ? EIO : 0;
    return space == NEEDS_SPACE ? ENOSPC : 0;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define CALL(result, name, touches, space, ...) \
    REAL(name); \
    if (counter) { \
        int saved = errno, failed = fault(touches, space); \
        errno = saved; \
        if (failed) { errno = failed; return (result)-1; } \
    } \
    return real(__VA_ARGS__)

ssize_t write(int fd, const void *b, size_t n) { CALL(ssize_t, write, open_below(fd), NEEDS_SPACE, fd, b, n); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { CALL(ssize_t, pwrite, open_below(fd), NEEDS_SPACE, fd, b, n, o); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { CALL(ssize_t, pwrite64, open_below(fd), NEEDS_SPACE, fd, b, n, o); }
ssize_t writev(int fd, const struct iovec *v, int n) { CALL(ssize_t, writev, open_below(fd), NEEDS_SPACE, fd, v, n); }
int fsync(int fd) { CALL(int, fsync, open_below(fd), NEEDS_SPACE, fd); }
int fdatasync(int fd) { CALL(int, fdatasync, open_below(fd), NEEDS_SPACE, fd); }
int ftruncate(int fd, off_t n) { CALL(int, ftruncate, open_below(fd), n ? NEEDS_SPACE : OTHER, fd, n); }
int ftruncate64(int fd, off64_t n) { CALL(int, ftruncate64, open_below(fd), n ? NEEDS_SPACE : OTHER, fd, n); }
int rename(const char *a, const char *b) { CALL(int, rename, below(AT_FDCWD, b), OTHER, a, b); }
int renameat(int d, const char *a, int e, const char *b) { CALL(int, renameat, below(e, b), OTHER, d, a, e, b); }
int renameat2(int d, const char *a, int e, const char *b, unsigned f) { CALL(int, renameat2, below(e, b), OTHER, d, a, e, b, f); }
int link(const char *a, const char *b) { CALL(int, link, below(AT_FDCWD, b), NEEDS_SPACE, a, b); }
int linkat(int d, const char *a, int e, const char *b, int f) { CALL(int, linkat, below(e, b), NEEDS_SPACE, d, a, e, b, f); }
int unlink(const char *a) { CALL(int, unlink, below(AT_FDCWD, a), OTHER, a); }
int unlinkat(int d, const char *a, int f) { CALL(int, unlinkat, below(d, a), OTHER, d, a, f); }
int rmdir(const char *a) { CALL(int, rmdir, below(AT_FDCWD, a), OTHER, a); }
int mkdir(const char *a, mode_t m) { CALL(int, mkdir, below(AT_FDCWD, a), NEEDS_SPACE, a, m); }
int mkdirat(int d, const char *a, mode_t m) { CALL(int, mkdirat, below(d, a), NEEDS_SPACE, d, a, m); }

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
int open(const char *p, int flags, ...) { MODE(flags) CALL(int, open, (flags & (O_CREAT | O_TRUNC)) && below(AT_FDCWD, p), NEEDS_SPACE, p, flags, mode); }
int open64(const char *p, int flags, ...) { MODE(flags) CALL(int, open64, (flags & (O_CREAT | O_TRUNC)) && below(AT_FDCWD, p), NEEDS_SPACE, p, flags, mode); }
int openat(int d, const char *p, int flags, ...) { MODE(flags) CALL(int, openat, (flags & (O_CREAT | O_TRUNC)) && below(d, p), NEEDS_SPACE, d, p, flags, mode); }
int openat64(int d, const char *p, int flags, ...) { MODE(flags) CALL(int, openat64, (flags & (O_CREAT | O_TRUNC)) && below(d, p), NEEDS_SPACE, d, p, flags, mode); }
