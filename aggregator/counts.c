/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/counts.h"

const char *transport_name(enum transport t)
{
    switch (t) {
    case TRANSPORT_UDP:
        return "udp";
    case TRANSPORT_UDS:
        return "uds";
    case TRANSPORT_UDS_STREAM:
        return "uds_stream";
    case TRANSPORT_TCP:
        return "tcp";
    case TRANSPORT_KERNEL:
        return "kernel";
    case TRANSPORT_N:
        break;
    }
    return "unknown";
}

const char *filter_name(enum filter_reason r)
{
    switch (r) {
    case FILTER_DISABLED:
        return "disabled";
    case FILTER_N:
        break;
    }
    return "unknown";
}
