/* What a hostile tenant runs. Statically linked, put into containers by the tests. Each command prints one
 * line for whatever worked that must not, or what it was asked to count; nothing else. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static int is(const char *a, const char *b) { return !strcmp(a, b); }

/* System calls that make, enter or leave namespaces, mount, load code, reach the kernel's insides. All with
 * arguments that would do something, or at least not fail for being malformed before the permission. */
static void calls(void) {
    static char zero[4096];
    struct { const char *name; long number, a, b, c, d, e; } all[] = {
        {"unshare user", SYS_unshare, CLONE_NEWUSER},
        {"unshare mount", SYS_unshare, CLONE_NEWNS},
        {"unshare net", SYS_unshare, CLONE_NEWNET},
        {"setns", SYS_setns, open("/proc/1/ns/net", O_RDONLY), 0},
        {"mount", SYS_mount, (long)"none", (long)"/tmp", (long)"tmpfs", 0, 0},
        {"bind mount", SYS_mount, (long)"/", (long)"/tmp", 0, 4096, 0},
        {"umount", SYS_umount2, (long)"/proc/kcore", 2},
        {"pivot_root", SYS_pivot_root, (long)"/", (long)"/"},
        {"open_tree", 428, AT_FDCWD, (long)"/", 1},
        {"fsopen", 430, (long)"tmpfs", 0},
        {"mount_setattr", 442, AT_FDCWD, (long)"/", 0, (long)zero, 32},
        {"open_by_handle_at", SYS_open_by_handle_at, open("/", O_RDONLY), (long)zero, O_RDONLY},
        {"init_module", SYS_init_module, (long)zero, sizeof zero, (long)""},
        {"finit_module", SYS_finit_module, open("/bin/busybox", O_RDONLY), (long)"", 0},
        {"delete_module", SYS_delete_module, (long)"loop", 0},
        {"kexec_load", SYS_kexec_load, 0, 0, 0, 0},
        {"bpf", SYS_bpf, 0, (long)zero, 72},
        {"perf_event_open", SYS_perf_event_open, (long)zero, 0, -1, -1, 0},
        {"userfaultfd", SYS_userfaultfd, 0},
        {"add_key", SYS_add_key, (long)"user", (long)"stolen", (long)"x", 1, -3},
        {"keyctl", SYS_keyctl, 0, -3, 1},
        {"request_key", SYS_request_key, (long)"user", (long)"stolen", 0, 0},
        {"swapon", SYS_swapon, (long)"/bin/busybox", 0},
        {"quotactl", SYS_quotactl, 0, 0, 0, 0},
        {"iopl", SYS_iopl, 3},
        {"ioperm", SYS_ioperm, 0x80, 1, 1},
        {"syslog", SYS_syslog, 3, (long)zero, sizeof zero},
        {"settimeofday", SYS_settimeofday, (long)zero, 0},
        {"sethostname", SYS_sethostname, (long)"stolen", 6},
        {"io_uring_setup", 425, 8, (long)zero},
        {"fanotify_init", SYS_fanotify_init, 0, 0},
        {"mknod block", SYS_mknod, (long)"/tmp/disk", S_IFBLK | 0600, 0xfe00},
        {"mknod mem", SYS_mknod, (long)"/tmp/mem", S_IFCHR | 0600, 0x101},
        {"packet socket", SYS_socket, AF_PACKET, SOCK_RAW, 0x300},
        {"raw socket", SYS_socket, AF_INET, SOCK_RAW, IPPROTO_RAW},
        {"vsock", SYS_socket, 40, SOCK_STREAM, 0},
        {"crypto socket", SYS_socket, 38, SOCK_SEQPACKET, 0},
        {"ptrace host", SYS_ptrace, 16, 2, 0, 0},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        /* In a child: some of it would end the caller's way back. */
        pid_t child = fork();
        if (child == 0) _exit(syscall(all[i].number, all[i].a, all[i].b, all[i].c, all[i].d, all[i].e) >= 0);
        int status = 0;
        waitpid(child, &status, 0);
        if (WIFEXITED(status) && WEXITSTATUS(status)) printf("%s\n", all[i].name);
    }
}

/* The i386 system call table, reached from a 64-bit program. */
static long call32(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
    return (int)result;
}

/* Makes subvolumes and snapshots of the container's own root by every number and every ABI. */
static void subvolumes(void) {
    int root = open("/", O_RDONLY | O_DIRECTORY);
    struct { const char *name; uint32_t request; } all[] = {
        {"create", 0x5000940e}, {"create_v2", 0x50009418}, {"snapshot", 0x50009401}, {"snapshot_v2", 0x50009417},
    };
    /* struct btrfs_ioctl_vol_args(_v2), 4096 bytes, below 4 GiB so that 32-bit calls reach it. */
    char *args = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    for (int i = 0; i < 4; i++) {
        for (int abi = 0; abi < 3; abi++) {
            int v2 = i % 2;
            memset(args, 0, 4096);
            *(int64_t *)args = root;
            snprintf(args + (v2 ? 56 : 8), 64, "nested-%d-%d", i, abi);
            pid_t child = fork();
            if (child == 0) {
                long result = -1;
                if (abi == 0) result = syscall(SYS_ioctl, root, all[i].request, args);
                if (abi == 1) result = call32(54, root, all[i].request, (long)args);
                if (abi == 2) result = syscall(0x40000000 + 514, root, all[i].request, args);
                _exit(result >= 0);
            }
            int status = 0;
            waitpid(child, &status, 0);
            if (WIFEXITED(status) && WEXITSTATUS(status)) printf("%s abi %d\n", all[i].name, abi);
        }
    }
}

/* Sends from an address that is not the container's, by what needs no capability. */
static void spoof(const char *source, const char *to) {
    int one = 1, socket_ = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_port = htons(999)}, target = from;
    inet_pton(AF_INET, source, &from.sin_addr);
    inet_pton(AF_INET, to, &target.sin_addr);
    setsockopt(socket_, IPPROTO_IP, 15 /* IP_FREEBIND */, &one, sizeof one);
    if (!setsockopt(socket_, IPPROTO_IP, 19 /* IP_TRANSPARENT */, &one, sizeof one)) printf("transparent\n");
    if (!bind(socket_, (void *)&from, sizeof from) &&
        sendto(socket_, "x", 1, 0, (void *)&target, sizeof target) > 0) printf("sent as %s\n", source);
}

/* A QUIC packet of a version that nobody has: whoever speaks QUIC answers it (RFC 9000, 6.1). */
static void quic(const char *to, int port) {
    unsigned char packet[1200] = {0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8, 1, 2, 3, 4, 5, 6, 7, 8, 8, 1, 2, 3, 4, 5, 6, 7, 8};
    int socket_ = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, to, &target.sin_addr);
    struct timeval limit = {1, 0};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    connect(socket_, (void *)&target, sizeof target);
    if (send(socket_, packet, sizeof packet, 0) > 0 && recv(socket_, packet, sizeof packet, 0) > 0) printf("answered\n");
}

/* Takes as much as it gets of something that the whole kernel shares, prints how much, and keeps it. */
static void take(const char *what, long most) {
    long taken = 0;
    while (taken < most) {
        aio_context_t context = 0;
        int failed = is(what, "inotify") ? inotify_init() < 0
            : is(what, "pty") ? open("/dev/ptmx", O_RDWR | O_NOCTTY) < 0
            : is(what, "aio") ? syscall(SYS_io_setup, 1000, &context) < 0
            : 1;
        if (failed) break;
        taken++;
    }
    printf("%ld\n", taken);
    fflush(stdout);
}

/* Makes empty files until there is no room; prints how many. */
static void inodes(const char *folder, long most) {
    char name[256];
    long made = 0;
    for (; made < most; made++) {
        snprintf(name, sizeof name, "%s/%ld", folder, made);
        int file = open(name, O_CREAT | O_WRONLY, 0600);
        if (file < 0) break;
        close(file);
    }
    printf("%ld %s\n", made, made < most ? strerror(errno) : "no limit");
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (is(what, "calls")) calls();
    else if (is(what, "subvolumes")) subvolumes();
    else if (is(what, "spoof") && argc > 3) spoof(argv[2], argv[3]);
    else if (is(what, "quic") && argc > 3) quic(argv[2], atoi(argv[3]));
    else if (is(what, "take") && argc > 3) {
        take(argv[2], atol(argv[3]));
        if (argc > 4) pause();
    } else if (is(what, "inodes") && argc > 3) inodes(argv[2], atol(argv[3]));
    else return 2;
    return 0;
}
