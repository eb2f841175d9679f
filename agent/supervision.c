/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/supervision.h"

const char *stop_reason_name(enum stop_reason r)
{
    switch (r) {
    case STOP_NONE:
        break;
    case STOP_SIGTERM:
        return "SIGTERM";
    case STOP_SIGINT:
        return "SIGINT";
    case STOP_JOB_EXIT:
        return "job_exit";
    case STOP_COMMAND:
        return "command";
    case STOP_KEEPER_GONE:
        return "keeper_gone";
    }
    return "none";
}
