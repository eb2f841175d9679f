/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where payloads go: the address of the intake, the route and the headers of
 * each kind of payload.
 *
 * Thread:  any; pure functions of their arguments.
 * Memory:  structs of the caller, fixed size.
 * Promise: plain http:// only where the user wrote it. The key stands in the
 *          headers built for one request and nowhere else.
 */
#ifndef RETRIEVER_FORWARDER_ENDPOINT_H
#define RETRIEVER_FORWARDER_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>

#include "forwarder/store.h"

#define ENDPOINT_URL_MAX 512
#define ENDPOINT_KEY_MAX 256

/** May @url be dd_url? "https://host[:port][/path]", no user, query or
 *  fragment. False: *why says what is wrong with it (static text). */
bool endpoint_check_url(const char *url, const char **why);
/** May @site be `site`: a host name such as "datadoghq.eu". */
bool endpoint_check_site(const char *site, const char **why);
/** May @key be sent as a header: printable ASCII, no blank, not too long. */
bool endpoint_check_key(const char *key, const char **why);

struct endpoint {
    char base[ENDPOINT_URL_MAX]; /* no slash at its end */
};

/** @dd_url, or https://api.<site> when that is empty. Returns 0, or -EINVAL
 *  when endpoint_check_...() would refuse it. */
int endpoint_init(struct endpoint *e, const char *site, const char *dd_url);

#define ENDPOINT_FULL_URL_MAX (ENDPOINT_URL_MAX + 64)
/** Write the URL of a kind of payload, or of the key's validation, to @url
 *  (ENDPOINT_FULL_URL_MAX bytes). */
void endpoint_url(const struct endpoint *e, enum payload_kind kind, char *url);
void endpoint_validate_url(const struct endpoint *e, char *url);

/** "series", "sketches", "events", "checks". */
const char *endpoint_kind_name(enum payload_kind kind);

#define ENDPOINT_N_HEADERS 8
struct endpoint_headers {
    const char *list[ENDPOINT_N_HEADERS]; /* NULL terminated */
    char key[ENDPOINT_KEY_MAX + 16];
    char version[80];
};

/** Headers of a payload's request. @h must stay where it is while list is used;
 *  wipe it afterwards with endpoint_headers_wipe(). @key passed
 *  endpoint_check_key(). */
void endpoint_headers(struct endpoint_headers *h, enum payload_kind kind,
                      enum payload_encoding encoding, const char *key,
                      const char *version, bool allow_arbitrary_tags);
/** The same for the validation of the key. */
void endpoint_validate_headers(struct endpoint_headers *h, const char *key,
                               const char *version);
void endpoint_headers_wipe(struct endpoint_headers *h);

#define ENDPOINT_MASK_MAX 12
/** The key for people: "*****" and its last five characters (fewer of a short
 *  key: never more than a quarter of it). @out: ENDPOINT_MASK_MAX bytes. */
void endpoint_mask_key(const char *key, char *out);

#endif
