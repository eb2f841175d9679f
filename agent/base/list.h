/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An intrusive, circular, doubly linked list.
 *
 *   for (struct list *n = list_first(&all); n != NULL; n = list_next(&all, n)) {
 *       struct conn *c = LIST_ENTRY(n, struct conn, link);
 *
 * To remove the present entry inside such a loop, take its successor first.
 *
 * Thread:  one owner.
 * Memory:  the nodes lie in the entries; a list bounds nothing, its owner does.
 * Promise: every operation is O(1); a node that was removed may be removed again.
 */
#ifndef RETRIEVER_AGENT_BASE_LIST_H
#define RETRIEVER_AGENT_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

/* A head and a node are the same thing; both must be initialised. */
struct list {
    struct list *prev, *next;
};

/** The entry that @node is the member @member of. */
#define LIST_ENTRY(node, type, member)                                         \
    ((type *)(void *)((char *)(node)-offsetof(type, member)))

static inline void list_init(struct list *l)
{
    l->prev = l;
    l->next = l;
}

static inline bool list_empty(const struct list *head)
{
    return head->next == head;
}

static inline void list_add_tail(struct list *head, struct list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

static inline void list_add_head(struct list *head, struct list *node)
{
    list_add_tail(head->next, node);
}

static inline void list_remove(struct list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

/** NULL when empty. */
static inline struct list *list_first(const struct list *head)
{
    return list_empty(head) ? NULL : head->next;
}

/** NULL behind the last one. */
static inline struct list *list_next(const struct list *head,
                                     const struct list *node)
{
    return node->next == head ? NULL : node->next;
}

/** Unlink and return the first node; NULL when empty. */
static inline struct list *list_pop(struct list *head)
{
    struct list *node = list_first(head);

    if (node != NULL)
        list_remove(node);
    return node;
}

#endif
