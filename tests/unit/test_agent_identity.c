/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/identity.h"

#define ID64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define NEXT64                                                                 \
    "f123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void assert_id(const char *cgroup, const char *mounts, const char *want)
{
    char id[IDENTITY_ID_MAX] = "";

    assert_true(identity_container_id(cgroup, mounts, id));
    assert_string_equal(id, want);
}

static void container_ids_are_found_in_control_groups(void **state)
{
    (void)state;
    assert_id("12:memory:/docker/" ID64 "\n", "", ID64);
    assert_id("0::/system.slice/docker-" ID64 ".scope\n", "", ID64);
    assert_id("0::/kubepods.slice/kubepods-burstable.slice/"
              "cri-containerd-" ID64 ".scope",
              "", ID64);
    assert_id("4:x:/\n1:name=systemd:/ecs/"
              "0123456789abcdef0123456789abcdef-1234567890\n",
              "", "0123456789abcdef0123456789abcdef-1234567890");
    assert_id("1:cpu:/garden/34dc0b5e-626f-2c5c-4c51-70e34b10e765\n", "",
              "34dc0b5e-626f-2c5c-4c51-70e34b10e765");
}

static void container_ids_are_found_in_mounts(void **state)
{
    (void)state;
    assert_id("0::/\n",
              "1 2 8:1 /var/lib/docker/containers/" ID64
              "/hostname /etc/hostname rw - ext4 /dev/sda1 rw\n",
              ID64);
    assert_id("0::/\n",
              "3 4 8:1 /var/lib/containerd/sandboxes/" NEXT64
              "/hostname /etc/hostname rw\n"
              "5 6 8:1 /x/containers/" ID64 "/rootfs/hostname /etc/hostname\n",
              ID64);
}

static void other_paths_hold_no_container(void **state)
{
    static const char *const cgroups[] = {
        "",
        "\n",
        "0::/\n",
        "0::/user.slice/user-1000.slice/session-2.scope\n",
        "0::/docker/0123456789abcdef",
        "::::////",
        "1:a:/" ID64 "x",
    };
    static const char *const mounts[] = {
        "",
        "1 2 8:1 / / rw\n",
        "1 2 8:1 /var/lib/sandboxes/" ID64 "/hostname /etc/hostname\n",
        "1 2 8:1 /a/" ID64 "/resolv.conf /etc/resolv.conf\n",
        "/" ID64,
        "/a/" ID64 "/",
        "////hostname",
    };
    char id[IDENTITY_ID_MAX] = "untouched";

    (void)state;
    for (size_t i = 0; i < sizeof(cgroups) / sizeof(cgroups[0]); i++)
        assert_false(identity_container_id(cgroups[i], "", id));
    for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++)
        assert_false(identity_container_id("0::/\n", mounts[i], id));
    assert_string_equal(id, "untouched");
}

static struct identity find(const char *host, const char *instance, bool exec,
                            const char *const *env)
{
    char host_text[64], instance_text[64], none[] = "";
    struct config c = {.hostname = host_text,
                       .instance = instance_text,
                       .hostname_file = none};
    /* A root without /proc: no container of the machine is seen. */
    struct identity_places p = {.root = "/nonexistent",
                                .env = (char *const *)env};
    struct identity id;

    (void)snprintf(host_text, sizeof(host_text), "%s", host);
    (void)snprintf(instance_text, sizeof(instance_text), "%s", instance);
    assert_int_equal(identity_find_in(&id, &c, exec, &p), 0);
    return id;
}

static void a_host_needs_no_instance(void **state)
{
    static const char *const env[] = {"K_REVISION=r", NULL};
    struct identity id = find("web-1", "auto", true, env);

    (void)state;
    assert_string_equal(id.host, "web-1");
    assert_string_equal(id.instance_tag, "");
    id = find("web-1", "blue", false, env);
    assert_string_equal(id.instance_tag, "retriever_instance:blue");
}

static void the_task_stands_in_for_a_host(void **state)
{
    static const char *const ecs[] = {
        "ECS_CONTAINER_METADATA_URI_V4=http://169.254.170.2/v4/"
        "0123456789abcdef0123456789abcdef-77",
        NULL};
    static const char *const job[] = {"CLOUD_RUN_EXECUTION=job-x",
                                      "CLOUD_RUN_TASK_INDEX=3",
                                      "CLOUD_RUN_TASK_ATTEMPT=1", NULL};
    static const char *const service[] = {"K_REVISION=web-00007", NULL};
    static const char *const pod[] = {"KUBERNETES_SERVICE_HOST=10.0.0.1",
                                      "HOSTNAME=web-6f9-abc de", NULL};
    struct identity a = find("", "auto", true, ecs);
    struct identity b;

    (void)state;
    assert_string_equal(a.host, "");
    assert_string_equal(a.instance_tag, "retriever_instance:"
                                        "0123456789abcdef0123456789abcdef-77");
    a = find("", "auto", true, job);
    assert_string_equal(a.instance_tag, "retriever_instance:job-x-3-1");
    a = find("", "auto", true, pod);
    assert_string_equal(a.instance_tag, "retriever_instance:web-6f9-abc_de");
    a = find("", "auto", true, service);
    b = find("", "auto", true, service);
    assert_memory_equal(a.instance_tag, "retriever_instance:web-00007-", 29);
    assert_string_not_equal(a.instance_tag, b.instance_tag);
    a = find("", "none", true, service);
    assert_string_equal(a.instance_tag, "");
}

static void without_anything_each_life_is_its_own(void **state)
{
    static const char *const env[] = {NULL};
    struct identity a = find("none", "auto", false, env);
    struct identity b = find("none", "auto", false, env);

    (void)state;
    assert_string_equal(a.host, "");
    assert_memory_equal(a.instance_tag, IDENTITY_TAG_NAME,
                        strlen(IDENTITY_TAG_NAME));
    assert_int_equal(strlen(a.instance_tag), strlen(IDENTITY_TAG_NAME) + 16);
    assert_string_not_equal(a.instance_tag, b.instance_tag);
}

static void a_host_name_can_come_from_a_file(void **state)
{
    static const char *const env[] = {NULL};
    char path[] = "/tmp/test-identity-XXXXXX";
    char empty[] = "", word[] = "auto";
    struct config c = {.hostname = empty,
                       .instance = word,
                       .hostname_file = path};
    struct identity_places p = {.root = "/nonexistent",
                                .env = (char *const *)env};
    struct identity id;
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, " db-7\n", 6), 6);
    (void)close(fd);
    assert_int_equal(identity_find_in(&id, &c, false, &p), 0);
    assert_string_equal(id.host, "db-7");
    (void)unlink(path);
    identity_fini(&id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(container_ids_are_found_in_control_groups),
        cmocka_unit_test(container_ids_are_found_in_mounts),
        cmocka_unit_test(other_paths_hold_no_container),
        cmocka_unit_test(a_host_needs_no_instance),
        cmocka_unit_test(the_task_stands_in_for_a_host),
        cmocka_unit_test(without_anything_each_life_is_its_own),
        cmocka_unit_test(a_host_name_can_come_from_a_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
