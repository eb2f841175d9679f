/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/privilege.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What CAP_SYS_ADMIN stands for. */
#define NARROWER                                                               \
    (PRIVILEGE(CAP_BPF) | PRIVILEGE(CAP_PERFMON) |                             \
     PRIVILEGE(CAP_CHECKPOINT_RESTORE))

/* The kernel's words are of 32 bits each. */
static uint64_t whole(uint32_t low, uint32_t high)
{
    return (uint64_t)high << 32 | low;
}

int privilege_keep(uint64_t capabilities)
{
    /* pid 0: this thread. No C library wraps these two. */
    struct __user_cap_header_struct head = {.version =
                                                _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];
    uint64_t missing;

    if (syscall(SYS_capget, &head, sets) != 0)
        return -errno;
    missing =
        capabilities & ~whole(sets[0].permitted, sets[1].permitted) & NARROWER;
    if (missing != 0)
        capabilities |= PRIVILEGE(CAP_SYS_ADMIN);
    for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
        uint32_t keep = (uint32_t)(capabilities >> 32 * i);

        sets[i].permitted &= keep;
        sets[i].effective &= keep;
        sets[i].inheritable &= keep;
    }
    return syscall(SYS_capset, &head, sets) == 0 ? 0 : -errno;
}

bool privilege_has(uint64_t capabilities)
{
    struct __user_cap_header_struct head = {.version =
                                                _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];

    return syscall(SYS_capget, &head, sets) == 0 &&
           (capabilities & ~whole(sets[0].effective, sets[1].effective)) == 0;
}
