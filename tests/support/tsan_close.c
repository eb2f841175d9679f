/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ThreadSanitizer takes a descriptor's number for the descriptor. libuv closes by
 * syscall(SYS_close), which the sanitizer does not see. Where another thread then
 * gets that number from a call that it does not see either (bpf(), openat2()), the
 * first use seems to race with libuv's accept4(). So the program under
 * ThreadSanitizer has this syscall(), found before libc's, which reports closes.
 */
#include <dlfcn.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of <sanitizer/linux_syscall_hooks.h>, which Debian's GCC comes without. */
void __sanitizer_syscall_pre_impl_close(long fd);
void __sanitizer_syscall_post_impl_close(long res, long fd);

static long (*real)(long number, ...);

/* Before there are threads. */
__attribute__((constructor)) static void find_real(void)
{
    real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
}

__attribute__((visibility("default"))) long syscall(long number, ...)
{
    long a[6], res;
    va_list ap;

    va_start(ap, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(ap, long);
    va_end(ap);
    if (number == SYS_close)
        __sanitizer_syscall_pre_impl_close((int)a[0]);
    res = real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (number == SYS_close)
        __sanitizer_syscall_post_impl_close(res, (int)a[0]);
    return res;
}
