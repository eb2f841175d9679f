/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/account.h"

#include <grp.h>
#include <pwd.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/num.h"

/* The greatest number stands for "as it is" where owners are set. */
static bool is_number(const char *text, uint64_t *id)
{
    return num_parse_u64(text, id) == 0 && *id < UINT32_MAX;
}

bool account_user(const char *text, uid_t *uid)
{
    const struct passwd *pw = getpwnam(text);
    uint64_t id;

    if (pw == NULL && !is_number(text, &id))
        return false;
    *uid = pw != NULL ? pw->pw_uid : (uid_t)id;
    return true;
}

bool account_group(const char *text, gid_t *gid)
{
    const struct group *gr = getgrnam(text);
    uint64_t id;

    if (gr == NULL && !is_number(text, &id))
        return false;
    *gid = gr != NULL ? gr->gr_gid : (gid_t)id;
    return true;
}
