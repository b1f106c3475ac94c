/* A world that misbehaves: put between a node and its kernel by LD_PRELOAD, steered by a file that
 * the test writes and both map (support/world.rs has the other end, field for field). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile struct {
    int64_t wall_secs;          /* added to the wall clock */
    int64_t is_stuck;           /* the first reactor does not come back from a read */
    int64_t is_hasty;           /* the kernel gives peers up after seconds */
    int64_t user_timeout_ms;    /* what the node asked for */
    int64_t keepalive_secs;
    int64_t keepalive_interval_secs;
} *world;

__attribute__((constructor)) static void enter(void) {
    int fd = open(getenv("WORLD"), O_RDWR | O_CLOEXEC);
    void *at = mmap(0, sizeof *world, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || at == MAP_FAILED)
        abort();
    close(fd);
    world = at;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && clock == CLOCK_REALTIME && world)
        time->tv_sec += world->wall_secs;
    return result;
}

ssize_t recv(int fd, void *buffer, size_t length, int flags) {
    char name[16] = "";
    while (world && world->is_stuck && prctl(PR_GET_NAME, name) == 0 && !strcmp(name, "reactor-0"))
        usleep(1000);
    return syscall(SYS_recvfrom, fd, buffer, length, flags, 0, 0);
}

int setsockopt(int fd, int level, int option, const void *value, socklen_t length) {
    int asked = 0, given;
    if (level == IPPROTO_TCP && length == sizeof asked && world) {
        memcpy(&asked, value, sizeof asked);
        given = asked;
        if (option == TCP_USER_TIMEOUT)
            world->user_timeout_ms = asked, given = 2000;
        else if (option == TCP_KEEPIDLE)
            world->keepalive_secs = asked, given = 1;
        else if (option == TCP_KEEPINTVL)
            world->keepalive_interval_secs = asked, given = 1;
        if (world->is_hasty && given != asked)
            return syscall(SYS_setsockopt, fd, level, option, &given, length);
    }
    return syscall(SYS_setsockopt, fd, level, option, value, length);
}
