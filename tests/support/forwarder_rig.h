/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A forwarder over a real store and the real HTTP module, and its intake: a
 * scripted server on the same loop.
 *
 * Thread:  one.
 * Memory:  one struct rig per test, made by rig_setup() as cmocka's state.
 * Promise: rig_teardown() fails the test unless the loop is left empty, no
 *          payload is taken, and the store's ledger balances.
 */
#ifndef RETRIEVER_TESTS_SUPPORT_FORWARDER_RIG_H
#define RETRIEVER_TESTS_SUPPORT_FORWARDER_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include "forwarder/forwarder.h"
#include "tests/support/http_stub.h"

#define RIG_MS UINT64_C(1000000)
#define RIG_KEY "0123456789abcdef0123456789abcdef"
#define RIG_MAX_SEEN 512

/* What the intake does with a POST. */
enum rig_mode { RIG_ANSWER, RIG_STALL, RIG_RESET };

struct rig {
    uv_loop_t loop;
    struct stub stub;
    struct region r;
    struct store *s;
    struct forwarder_config cfg;
    struct forwarder *f;
    int module;
    int good_module; /* between rig_start_without_module() and its mending */
    uint64_t n_put;  /* samples */
    bool closed, idle, settled;
    int n_idle;
    /* the intake */
    enum rig_mode mode;
    int status;          /* of POSTs */
    int validate_status; /* of the validation */
    const char *headers;
    const char *good_key;  /* another one gets 403; NULL = any */
    char poison;           /* bodies of this letter get a 500 */
    size_t max_body;       /* larger ones get a 413; 0 = no limit */
    const char *fail_path; /* this route alone fails */
    unsigned n_posts, n_validations;
    char seen[RIG_MAX_SEEN]; /* first byte of each body, in order */
    char last_key[64];
};

int rig_setup(void **state);
int rig_teardown(void **state);

/** The forwarder begins, with RIG_KEY. */
void rig_start(struct rig *f);
void rig_close_forwarder(struct rig *f);

/** Begins with a module that cannot be loaded, and returns when that was tried. */
void rig_start_without_module(struct rig *f);
/** From now on it can. */
void rig_mend_module(struct rig *f);

/** A payload of three bytes @fill and ten samples. */
void rig_put(struct rig *f, char fill);
void rig_put_kind(struct rig *f, enum payload_kind kind, char fill);
/** Events, one per letter of @letters and each of one sample, which a 413 can
 *  split: "[a,b,c]". */
void rig_put_items(struct rig *f, const char *letters);
/** Payloads in the store. */
uint32_t rig_n_held(struct rig *f);
struct forwarder_stats rig_stats(struct rig *f);

/** Turn the loop until all of now is settled. */
void rig_wait_settled(struct rig *f);
/** Turn the loop until the intake has seen @n POSTs. */
void rig_wait_posts(struct rig *f, unsigned n);
/** Begin a drain of @ms; rig_on_idle() marks its end. */
void rig_drain_for(struct rig *f, unsigned ms);

void rig_on_idle(void *arg);  /* of a struct rig */
void rig_set_flag(void *arg); /* of a bool */

#endif
