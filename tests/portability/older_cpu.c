/* An older x86 CPU at this one's speed: preloaded into a process, it answers CPUID without the newer instructions.
 *
 * OLDER_CPU: `avx512` hides VNNI and AMX (Skylake-X), `avx2` AVX-512 too (Haswell, Zen 3), `sse4` AVX and FMA too
 * (Nehalem). Libraries choose their kernels by CPUID, so what runs is what would run there, on real silicon.
 *
 * Linux lets a process make its own CPUID fault (arch_prctl(2), ARCH_SET_CPUID; Intel CPUs and KVM guests on them);
 * the handler below answers in the instruction's place. Threads and forks inherit the fault, a program that is
 * executed is preloaded again. /proc/cpuinfo is shown without the hidden flags. Exit code 77: not possible here.
 * tests/portability/older_cpu.py builds it. */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef ARCH_SET_CPUID
#define ARCH_SET_CPUID 0x1012
#endif

enum { AVX512 = 1, AVX2 = 2, SSE4 = 3 };
static int level;
static struct sigaction next_handler;

typedef int (*sigaction_function)(int, const struct sigaction *, struct sigaction *);

static sigaction_function real_sigaction(void) {
    static sigaction_function found;
    if (!found) found = (sigaction_function)dlsym(RTLD_NEXT, "sigaction");
    return found;
}

static long cpuid_allowed(int allowed) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, (long)allowed); }

#define BIT(n) (1u << (n))

/* Bits as in Intel's manual, volume 2A, table "Information Returned by CPUID". */
static void hide(uint32_t leaf, uint32_t subleaf, uint32_t r[4]) {
    uint32_t *a = &r[0], *b = &r[1], *c = &r[2], *d = &r[3];
    if (leaf == 7 && subleaf == 0) {
        *c &= ~BIT(11);                                /* AVX512_VNNI */
        *d &= ~(BIT(22) | BIT(24) | BIT(25));          /* AMX */
        if (level >= AVX2) {
            *b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
            *c &= ~(BIT(1) | BIT(6) | BIT(12) | BIT(14));
            *d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(23));
        }
        if (level >= SSE4) {
            *b &= ~(BIT(3) | BIT(5) | BIT(8));         /* BMI1, AVX2, BMI2 */
            *c &= ~(BIT(9) | BIT(10));                 /* VAES, VPCLMULQDQ */
        }
    } else if (leaf == 7 && subleaf == 1) {
        *a &= ~(BIT(4) | BIT(5) | BIT(21) | BIT(23));  /* AVX_VNNI, AVX512_BF16, AMX_FP16, AVX_IFMA */
        *d &= ~(BIT(4) | BIT(5) | BIT(8) | BIT(10) | BIT(19)); /* AVX_VNNI_INT8, ..., AVX10 */
    } else if (leaf == 1 && level >= SSE4) {
        *c &= ~(BIT(12) | BIT(28) | BIT(29));          /* FMA, AVX, F16C */
    } else if (leaf == 0x24 || leaf == 0x1d || leaf == 0x1e) {
        memset(r, 0, 4 * sizeof *r);                   /* AVX10, AMX tiles */
    }
}

static void answer(int signal_number, siginfo_t *info, void *context) {
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *at = (const uint8_t *)g[REG_RIP];
    if (info->si_code == SI_KERNEL && at[0] == 0x0f && at[1] == 0xa2) {
        uint32_t r[4], leaf = (uint32_t)g[REG_RAX], subleaf = (uint32_t)g[REG_RCX];
        cpuid_allowed(1);
        __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(subleaf));
        cpuid_allowed(0);
        hide(leaf, subleaf, r);
        g[REG_RAX] = r[0], g[REG_RBX] = r[1], g[REG_RCX] = r[2], g[REG_RDX] = r[3];
        g[REG_RIP] += 2;
    } else if (next_handler.sa_flags & SA_SIGINFO) {
        next_handler.sa_sigaction(signal_number, info, context);
    } else if (next_handler.sa_handler == SIG_DFL || next_handler.sa_handler == SIG_IGN) {
        const struct sigaction fatal = {.sa_handler = SIG_DFL};
        real_sigaction()(SIGSEGV, &fatal, NULL), raise(SIGSEGV);
    } else {
        next_handler.sa_handler(signal_number);
    }
}

/* Whoever installs a handler of faults (faulthandler and compilers do) stands behind this one. */
int sigaction(int number, const struct sigaction *new_action, struct sigaction *old_action) {
    if (number != SIGSEGV || !level) return real_sigaction()(number, new_action, old_action);
    if (old_action) *old_action = next_handler;
    if (new_action) next_handler = *new_action;
    return 0;
}

void (*signal(int number, void (*handler)(int)))(int) {
    const struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    struct sigaction before;
    return sigaction(number, &action, &before) ? SIG_ERR : before.sa_handler;
}

/* /proc/cpuinfo without the flags of hidden instructions, in memory. */
static int filtered_cpuinfo(void) {
    static const char *const from_avx512[] = {"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_", 0};
    static const char *const from_avx2[] = {"avx512", 0};
    static const char *const from_sse4[] = {"avx", "fma", "f16c", "bmi", "vaes", "vpclmul", 0};
    static const char *const *const hidden[] = {from_avx512, from_avx2, from_sse4};
    int out = memfd_create("cpuinfo", 0);
    FILE *in = fdopen((int)syscall(SYS_openat, AT_FDCWD, "/proc/cpuinfo", O_RDONLY), "r"), *to = fdopen(dup(out), "w");
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, in) > 0) {
        if (strncmp(line, "flags", 5)) { fputs(line, to); continue; }
        for (char *rest, *word = strtok_r(line, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest)) {
            int shown = 1;
            for (int i = 0; i < level; i++)
                for (const char *const *p = hidden[i]; *p; p++) shown &= strncmp(word, *p, strlen(*p)) != 0;
            if (shown) fprintf(to, "%s ", word);
        }
        fputc('\n', to);
    }
    free(line), fclose(in), fclose(to);
    lseek(out, 0, SEEK_SET);
    return out;
}

#define OPEN(name)                                                                            \
    int name(const char *path, int flags, ...) {                                              \
        va_list rest;                                                                         \
        va_start(rest, flags);                                                                \
        mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(rest, mode_t) : 0;           \
        va_end(rest);                                                                         \
        if (level && !strcmp(path, "/proc/cpuinfo")) return filtered_cpuinfo();       \
        return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);                         \
    }
OPEN(open)
OPEN(open64)

__attribute__((constructor)) static void begin(void) {
    const char *wanted = getenv("OLDER_CPU");
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (!wanted) return;
    if (sigaction(SIGSEGV, &action, NULL)) _exit(77);
    level = !strcmp(wanted, "avx512") ? AVX512 : !strcmp(wanted, "avx2") ? AVX2 : !strcmp(wanted, "sse4") ? SSE4 : 0;
    if (!level || cpuid_allowed(0)) {
        fprintf(stderr, "OLDER_CPU=%s: not one of avx512, avx2, sse4, or CPUID cannot be made to fault here\n", wanted);
        _exit(77);
    }
}
