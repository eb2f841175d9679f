/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the text of a key must look like, beyond its type and bounds.
 *
 * Thread:  any; pure.
 * Memory:  none.
 * Promise: NULL = good; else static text that completes "<value> ...". The text
 *          has no control characters and is valid UTF-8 (checked before). The
 *          empty string is never asked about.
 */
#ifndef RETRIEVER_AGENT_CONFIG_CHECK_H
#define RETRIEVER_AGENT_CONFIG_CHECK_H

#include <stdbool.h>

const char *check_api_key(const char *text);
const char *check_site(const char *text);
const char *check_url(const char *text);
const char *check_proxy(const char *text);
const char *check_no_proxy(const char *text);
const char *check_tls_version(const char *text);
const char *check_hostname(const char *text);
const char *check_instance(const char *text);
const char *check_tag(const char *text);
const char *check_bind_host(const char *text);
const char *check_absolute(const char *text);
const char *check_socket_path(const char *text);
/** A socket that the mode of its file keeps for its user: no abstract one. */
const char *check_private_socket(const char *text);
const char *check_host_port(const char *text);
const char *check_socket_url(const char *text);
const char *check_user(const char *text);
const char *check_eol(const char *text);
const char *check_namespace(const char *text);
const char *check_aggregate(const char *text);
const char *check_percentile(const char *text);

/** The parts of a list item that config_resolve.c needs. Both return false for
 *  what their check refuses. */
bool check_aggregate_bit(const char *text, unsigned *bit);
bool check_percentile_value(const char *text, unsigned *percent);

#endif
