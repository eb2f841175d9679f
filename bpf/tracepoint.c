/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/tracepoint.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>

void tracepoint_want(struct bpf_object *o, const char *name, bool want)
{
    struct bpf_program *p = bpf_object__find_program_by_name(o, name);

    if (p != NULL)
        (void)bpf_program__set_autoload(p, want);
}

int tracepoint_attach(struct tracepoint_links *l, struct bpf_object *o,
                      struct loader_cause *cause)
{
    struct bpf_program *p;

    bpf_object__for_each_program(p, o)
    {
        struct bpf_link *link;

        if (!bpf_program__autoload(p) ||
            bpf_program__expected_attach_type(p) == BPF_TRACE_ITER)
            continue;
        link = l->n < TRACEPOINT_MAX_LINKS ? bpf_program__attach(p) : NULL;
        if (link == NULL) {
            loader_explain(cause, "a program could not be attached", errno);
            tracepoint_detach(l);
            return LOADER_REFUSED;
        }
        l->link[l->n++] = link;
    }
    return 0;
}

void tracepoint_detach(struct tracepoint_links *l)
{
    for (size_t i = 0; i < l->n; i++)
        (void)bpf_link__destroy(l->link[i]);
    l->n = 0;
}
