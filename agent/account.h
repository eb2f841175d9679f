/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Users and groups as an operator names them: a name, or a number that nobody
 * needs to have.
 *
 * Thread:  one; getpwnam() and getgrnam() keep what they find to themselves.
 * Memory:  none.
 * Promise: false = there is none, the number is untouched.
 */
#ifndef RETRIEVER_AGENT_ACCOUNT_H
#define RETRIEVER_AGENT_ACCOUNT_H

#include <stdbool.h>
#include <sys/types.h>

bool account_user(const char *text, uid_t *uid);
bool account_group(const char *text, gid_t *gid);

#endif
