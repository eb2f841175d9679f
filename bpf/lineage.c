/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three orders over one array of nodes: chains by tgid, the list of the dead by age
 * (and that of the unused), and the tree. A tgid that is seen with another start
 * has been given to somebody else: the one before is dead, whoever failed to say
 * so.
 */
#include "bpf/lineage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define N_CHAINS 4096u /* power of two */
#define SAME_START_NS UINT64_C(10000000)

struct lineage {
    struct list chains[N_CHAINS];
    struct list unused; /* by age */
    struct list dead;   /* by age, oldest first */
    struct lineage_node *nodes;
    size_t n_nodes;
    uint64_t n_refused;
};

static struct list *chain_of(const struct lineage *l, uint32_t tgid)
{
    return (struct list *)&l->chains[tgid & (N_CHAINS - 1)];
}

static bool same_start(uint64_t a_ns, uint64_t b_ns)
{
    return (a_ns > b_ns ? a_ns - b_ns : b_ns - a_ns) < SAME_START_NS;
}

int lineage_create(struct lineage **out, size_t max_nodes)
{
    struct lineage *l = calloc(1, sizeof(*l));

    if (l == NULL)
        return -ENOMEM;
    l->nodes = calloc(max_nodes, sizeof(*l->nodes));
    if (l->nodes == NULL) {
        free(l);
        return -ENOMEM;
    }
    for (size_t i = 0; i < N_CHAINS; i++)
        list_init(&l->chains[i]);
    list_init(&l->unused);
    list_init(&l->dead);
    for (size_t i = 0; i < max_nodes; i++)
        list_add_tail(&l->unused, &l->nodes[i].age);
    *out = l;
    return 0;
}

void lineage_close(struct lineage *l)
{
    if (l == NULL)
        return;
    free(l->nodes);
    free(l);
}

const struct lineage_node *lineage_find(const struct lineage *l,
                                        struct lineage_id id)
{
    struct list *chain = chain_of(l, id.tgid);

    for (struct list *i = list_first(chain); i != NULL;
         i = list_next(chain, i)) {
        struct lineage_node *n = LIST_ENTRY(i, struct lineage_node, by_id);

        if (n->id.tgid == id.tgid && same_start(n->id.start_ns, id.start_ns))
            return n;
    }
    return NULL;
}

const struct lineage_node *lineage_alive(const struct lineage *l, uint32_t tgid)
{
    struct list *chain = chain_of(l, tgid);

    for (struct list *i = list_first(chain); i != NULL;
         i = list_next(chain, i)) {
        struct lineage_node *n = LIST_ENTRY(i, struct lineage_node, by_id);

        if (n->id.tgid == tgid && n->died_ns == 0)
            return n;
    }
    return NULL;
}

const struct lineage_node *lineage_find_root(const struct lineage_node *n)
{
    for (int hops = 0; n != NULL && hops < LINEAGE_MAX_HOPS; hops++) {
        if (n->role == FAMILY_AGENT)
            return n;
        n = n->parent;
    }
    return NULL;
}

uint32_t lineage_family(const struct lineage *l, struct lineage_id id,
                        uint32_t ppid, uint32_t family)
{
    const struct lineage_node *n = lineage_find(l, id);
    const struct lineage_node *parent = lineage_alive(l, ppid);

    if (family != 0)
        return family;
    if (n != NULL && n->died_ns == 0)
        return n->family;
    return parent != NULL ? parent->family : 0;
}

static void adopt(struct lineage_node *n, struct lineage_node *parent)
{
    list_remove(&n->sibling);
    n->parent = parent;
    if (parent != NULL)
        list_add_tail(&parent->children, &n->sibling);
}

static void bury(struct lineage *l, struct lineage_node *n, uint64_t now_ns)
{
    struct list *child;

    if (n->died_ns != 0)
        return;
    n->died_ns = now_ns != 0 ? now_ns : 1;
    while ((child = list_first(&n->children)) != NULL) {
        struct lineage_node *c =
            LIST_ENTRY(child, struct lineage_node, sibling);

        adopt(c, n->parent != c ? n->parent : NULL);
    }
    list_add_tail(&l->dead, &n->age);
}

/* Of a dead one, which has no children. It keeps its parent to the end, so that
 * its root is found, unless that one is forgotten first. */
static void forget(struct lineage *l, struct lineage_node *n)
{
    list_remove(&n->sibling);
    list_remove(&n->by_id);
    list_remove(&n->age);
    memset(n, 0, sizeof(*n));
    list_add_tail(&l->unused, &n->age);
    l->n_nodes--;
}

static struct lineage_node *add(struct lineage *l, struct lineage_id id)
{
    struct list *i;
    struct lineage_node *n;

    if (list_empty(&l->unused) && !list_empty(&l->dead))
        forget(l, LIST_ENTRY(list_first(&l->dead), struct lineage_node, age));
    i = list_pop(&l->unused);
    if (i == NULL) {
        l->n_refused++;
        return NULL;
    }
    n = LIST_ENTRY(i, struct lineage_node, age);
    memset(n, 0, sizeof(*n));
    n->id = id;
    list_init(&n->age);
    list_init(&n->children);
    list_init(&n->sibling);
    list_init(&n->by_id);
    list_add_head(chain_of(l, id.tgid), &n->by_id);
    l->n_nodes++;
    return n;
}

/* The node of this process, new if need be. */
static struct lineage_node *node_of(struct lineage *l, struct lineage_id id,
                                    uint64_t now_ns)
{
    struct lineage_node *n = (struct lineage_node *)lineage_find(l, id);
    struct lineage_node *before;

    if (n != NULL)
        return n;
    before = (struct lineage_node *)lineage_alive(l, id.tgid);
    if (before != NULL)
        bury(l, before, now_ns);
    return add(l, id);
}

const struct lineage_node *lineage_root(struct lineage *l, struct lineage_id id,
                                        uint32_t family,
                                        const struct family_rule *rule,
                                        uint64_t now_ns)
{
    struct lineage_node *n = node_of(l, id, now_ns);

    if (n == NULL)
        return NULL;
    n->family = family;
    n->rule = rule;
    n->role = FAMILY_AGENT;
    return n;
}

const struct lineage_node *lineage_member(struct lineage *l,
                                          struct lineage_id id, uint32_t ppid,
                                          uint32_t family,
                                          const struct family_facts *facts,
                                          uint64_t now_ns)
{
    struct lineage_node *n = node_of(l, id, now_ns);
    struct lineage_node *parent = (struct lineage_node *)lineage_alive(l, ppid);
    const struct lineage_node *root;

    if (n == NULL || n->died_ns != 0)
        return n;
    n->family = family;
    if (parent != NULL && parent != n && parent != n->parent)
        adopt(n, parent);
    if (n->role == FAMILY_AGENT)
        return n;
    root = lineage_find_root(n);
    n->role = family_rule_role(root != NULL ? root->rule : NULL, facts);
    return n;
}

void lineage_exit(struct lineage *l, struct lineage_id id, uint64_t now_ns)
{
    struct lineage_node *n = (struct lineage_node *)lineage_find(l, id);

    if (n != NULL)
        bury(l, n, now_ns);
}

void lineage_expire(struct lineage *l, uint64_t now_ns)
{
    struct list *i;

    while ((i = list_first(&l->dead)) != NULL) {
        struct lineage_node *n = LIST_ENTRY(i, struct lineage_node, age);

        if (now_ns - n->died_ns < LINEAGE_KEEP_NS)
            return;
        forget(l, n);
    }
}

size_t lineage_n_nodes(const struct lineage *l)
{
    return l->n_nodes;
}

uint64_t lineage_n_refused(const struct lineage *l)
{
    return l->n_refused;
}
