/* Runs inside test containers, statically linked. Prints what the kernel answered. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *answer(long result) {
    static char text[64];
    if (result >= 0) return "ok";
    snprintf(text, sizeof text, "errno %d", errno);
    return text;
}

/* The i386 system call table, reached from a 64-bit program. */
static long call32(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
    result = (int)result;
    if (result < 0 && result > -4096) { errno = -result; return -1; }
    return result;
}

static int on_term_code;
static void on_term(int signal) { (void)signal; _exit(on_term_code); }

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    long number = argc > 2 ? strtol(argv[2], 0, 0) : 0;
    if (!strcmp(what, "ioctl")) {
        int folder = open("/tmp", O_RDONLY);
        printf("%s\n", answer(syscall(SYS_ioctl, folder, number, 0)));
    } else if (!strcmp(what, "ioctl-high")) { /* garbage in the half that the kernel ignores */
        int folder = open("/tmp", O_RDONLY);
        printf("%s\n", answer(syscall(SYS_ioctl, folder, number | 0x7700000000L, 0)));
    } else if (!strcmp(what, "ioctl32")) {
        int folder = open("/tmp", O_RDONLY);
        printf("%s\n", answer(call32(54, folder, number, 0)));
    } else if (!strcmp(what, "ioctl-x32")) {
        int folder = open("/tmp", O_RDONLY);
        printf("%s\n", answer(syscall(0x40000000 + 514, folder, number, 0)));
    } else if (!strcmp(what, "syscall")) {
        long args[5] = {0};
        for (int i = 0; i < 5 && i + 3 < argc; i++) args[i] = strtol(argv[i + 3], 0, 0);
        printf("%s\n", answer(syscall(number, args[0], args[1], args[2], args[3], args[4])));
    } else if (!strcmp(what, "unshare")) {
        printf("%s\n", answer(unshare(number)));
    } else if (!strcmp(what, "socket")) {
        printf("%s\n", answer(socket(number, SOCK_STREAM, 0)));
    } else if (!strcmp(what, "ping")) {
        printf("%s\n", answer(socket(AF_INET, SOCK_DGRAM, 1 /* ICMP */)));
    } else if (!strcmp(what, "raw")) {
        printf("%s\n", answer(socket(AF_INET, SOCK_RAW, 1)));
    } else if (!strcmp(what, "memory")) { /* touches that many MiB */
        for (long i = 0; i < number; i++) {
            char *block = malloc(1 << 20);
            if (!block) return 3;
            memset(block, 7, 1 << 20);
        }
        return 0;
    } else if (!strcmp(what, "hold")) { /* touches that many MiB and keeps them */
        for (long i = 0; i < number; i++) {
            char *block = malloc(1 << 20);
            if (!block) return 3;
            memset(block, 7, 1 << 20);
        }
        printf("holding\n");
        fflush(stdout);
        for (;;) pause();
    } else if (!strcmp(what, "forks")) { /* how many children fit, at most that many */
        long children = 0;
        while (children < number) {
            pid_t child = fork();
            if (child == 0) { pause(); _exit(0); }
            if (child < 0) break;
            children++;
        }
        printf("%ld\n", children);
        fflush(stdout);
        pause();
    } else if (!strcmp(what, "term")) { /* exits with that code on SIGTERM */
        on_term_code = number;
        signal(SIGTERM, on_term);
        printf("ready\n");
        fflush(stdout);
        for (;;) pause();
    } else if (!strcmp(what, "deaf")) { /* ignores what asks it to end */
        signal(SIGTERM, SIG_IGN);
        printf("ready\n");
        fflush(stdout);
        for (;;) pause();
    } else {
        fprintf(stderr, "unknown probe\n");
        return 2;
    }
    return 0;
}
