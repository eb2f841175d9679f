/* SPDX-License-Identifier: Apache-2.0 */
/* Apart from loader.c, since a build without kernel programs explains, too. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "bpf/loader.h"

void loader_explain(struct loader_cause *out, const char *what, int err)
{
    const char *reason = "refused";
    const char *remedy = "";

    if (err < 0)
        err = -err;
    (void)snprintf(out->why, sizeof(out->why), "%s: %s", what, strerror(err));
    switch (err) {
    case EPERM:
    case EACCES:
        reason = "no_privilege";
        remedy = "grant CAP_BPF and CAP_PERFMON (before Linux 5.8 "
                 "CAP_SYS_ADMIN); a sandbox may forbid bpf(2) to everybody";
        break;
    case ENOSYS:
        reason = "no_bpf";
        remedy = "this kernel, or sandbox, has no bpf(2)";
        break;
    case ESRCH:
        reason = "no_btf";
        remedy = "this kernel has no BTF (CONFIG_DEBUG_INFO_BTF)";
        break;
    case ENOMEM:
        reason = "no_memory";
        remedy = "raise the memory limit";
        break;
    case EINVAL:
        reason = "old_kernel";
        remedy = "this kernel is too old for it";
        break;
    default:
        break;
    }
    (void)snprintf(out->remedy, sizeof(out->remedy), "%s", remedy);
    (void)snprintf(out->reason, sizeof(out->reason), "%s", reason);
}
