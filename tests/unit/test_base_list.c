/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/base/list.h"

struct item {
    int n;
    struct list link;
};

static int number(const struct list *head)
{
    int all = 0;

    for (struct list *l = list_first(head); l != NULL; l = list_next(head, l))
        all = all * 10 + LIST_ENTRY(l, struct item, link)->n;
    return all;
}

static void entries_keep_their_order(void **state)
{
    struct list head;
    struct item a = {.n = 1}, b = {.n = 2}, c = {.n = 3};

    (void)state;
    list_init(&head);
    assert_true(list_empty(&head));
    assert_null(list_first(&head));
    list_add_tail(&head, &b.link);
    list_add_tail(&head, &c.link);
    list_add_head(&head, &a.link);
    assert_int_equal(number(&head), 123);
    list_remove(&b.link);
    assert_int_equal(number(&head), 13);
    list_remove(&b.link); /* harmless */
    assert_int_equal(number(&head), 13);
    assert_ptr_equal(list_pop(&head), &a.link);
    assert_ptr_equal(list_pop(&head), &c.link);
    assert_null(list_pop(&head));
}

static void entry_may_be_removed_while_walking(void **state)
{
    struct list head;
    struct item items[6];
    struct list *next;

    (void)state;
    list_init(&head);
    for (int i = 0; i < 6; i++) {
        items[i].n = i + 1;
        list_add_tail(&head, &items[i].link);
    }
    for (struct list *l = list_first(&head); l != NULL; l = next) {
        next = list_next(&head, l);
        if (LIST_ENTRY(l, struct item, link)->n % 2 == 0)
            list_remove(l);
    }
    assert_int_equal(number(&head), 135);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_keep_their_order),
        cmocka_unit_test(entry_may_be_removed_while_walking),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
