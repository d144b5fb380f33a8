/* What a worker gives up for good when it starts. It reads weights and pictures of strangers: whoever should take it over by one of them finds
 * a process that can start no other, reach no network, and leaves no core.
 *
 * A list of what is refused, not of what is allowed: a library that does something new goes on working. Without seccomp (an old kernel,
 * an emulator) the rest holds. Refused calls fail with EPERM; nothing is killed. Pure system calls; before any thread starts. */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "server/worker.h"

#define FILE_BYTES_MAX (4ull << 30) /* a worker writes lines to a log, and no other file */

#if defined __x86_64__
#define MACHINE AUDIT_ARCH_X86_64
#define NUMBERS_END 0x40000000u /* from here on the numbers of x32, which would pass by the list */
#elif defined __aarch64__
#define MACHINE AUDIT_ARCH_AARCH64
#define NUMBERS_END 0xffffffffu
#endif

#ifdef MACHINE
#define REFUSED BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)
#define REFUSE(name) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##name, 0, 1), REFUSED

static void refuse_calls(void)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MACHINE, 1, 0),
        REFUSED,
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, NUMBERS_END, 0, 1),
        REFUSED,
        REFUSE(execve),
        REFUSE(execveat),
        REFUSE(socket),
        REFUSE(connect),
        REFUSE(bind),
        REFUSE(listen),
        REFUSE(accept),
        REFUSE(accept4),
        REFUSE(process_vm_readv),
        REFUSE(process_vm_writev),
        REFUSE(mount),
        REFUSE(umount2),
        REFUSE(pivot_root),
        REFUSE(chroot),
        REFUSE(unshare),
        REFUSE(setns),
        REFUSE(bpf),
        REFUSE(perf_event_open),
        REFUSE(userfaultfd),
        REFUSE(io_uring_setup),
        REFUSE(add_key),
        REFUSE(request_key),
        REFUSE(keyctl),
        REFUSE(init_module),
        REFUSE(finit_module),
        REFUSE(kexec_load),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {.len = sizeof rules / sizeof rules[0], .filter = rules};
    /* Older kernels would pay for a filter with slower memory, unless told that no code of strangers runs here. */
    syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program);
}
#else
static void refuse_calls(void)
{
}
#endif

void worker_confine(void)
{
    const struct rlimit none = {0, 0}, file = {FILE_BYTES_MAX, FILE_BYTES_MAX};
    setrlimit(RLIMIT_CORE, &none);
    setrlimit(RLIMIT_FSIZE, &file);
    signal(SIGXFSZ, SIG_IGN); /* a log that is longer than that loses this process' lines, and nothing else happens */
    prctl(PR_SET_DUMPABLE, 0);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0) {
        refuse_calls();
    }
}
