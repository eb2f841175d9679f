/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths of cgroups as runtimes write them, and what they say. Sources: the public
 * documentation of each runtime, and paths seen on hosts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bpf/cgroup_name.h"
#include "bpf/hierarchy.h"

#define ID "0123456789abcdef0123456789abcdef0123456789ABCDEF0123456789abcdef"
#define ID2 "ffffffffffffffffffffffffffffffff00000000000000000000000000000000"
#define UID "3d274242-8ee0-11e9-a8a6-1e68d864ef1a"
#define UID_ "3d274242_8ee0_11e9_a8a6_1e68d864ef1a"
#define TASK "34dc0b5e626f2c5c4c5170e34b10e765"

static const struct {
    const char *what, *path, *tags, *own;
} corpus[] = {
    {"docker, cgroupfs", "/docker/" ID, "container_id:" ID, "/docker/" ID},
    {"docker, systemd", "/system.slice/docker-" ID ".scope", "container_id:" ID,
     "/system.slice/docker-" ID ".scope"},
    {"nested below a container", "/docker/" ID "/a/b/", "container_id:" ID,
     "/docker/" ID},
    {"systemd in a container", "/docker/" ID "/system.slice/nginx.service",
     "container_id:" ID, "/docker/" ID},
    {"a container in a container: the inner one", "/docker/" ID "/docker/" ID2,
     "container_id:" ID2, "/docker/" ID "/docker/" ID2},
    {"containerd without a runtime's name", "/default/" ID, "container_id:" ID,
     "/default/" ID},
    {"nerdctl", "/system.slice/nerdctl-" ID ".scope", "container_id:" ID,
     "/system.slice/nerdctl-" ID ".scope"},
    {"podman, rootless",
     "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" ID
     ".scope/container",
     "container_id:" ID,
     "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" ID
     ".scope"},
    {"the monitor of podman is no container",
     "/machine.slice/libpod-conmon-" ID ".scope",
     "unit:libpod-conmon-" ID ".scope",
     "/machine.slice/libpod-conmon-" ID ".scope"},
    {"Kubernetes, cgroupfs", "/kubepods/burstable/pod" UID "/" ID,
     "container_id:" ID ",kube_pod_uid:" UID,
     "/kubepods/burstable/pod" UID "/" ID},
    {"Kubernetes, systemd, containerd",
     "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" UID_
     ".slice/cri-containerd-" ID ".scope",
     "container_id:" ID ",kube_pod_uid:" UID,
     "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" UID_
     ".slice/cri-containerd-" ID ".scope"},
    {"Kubernetes, CRI-O, guaranteed",
     "/kubepods.slice/kubepods-pod" UID_ ".slice/crio-" ID ".scope",
     "container_id:" ID ",kube_pod_uid:" UID,
     "/kubepods.slice/kubepods-pod" UID_ ".slice/crio-" ID ".scope"},
    {"Kubernetes, drivers that disagree",
     "/system.slice/containerd.service/kubepods-besteffort-pod" UID_
     ".slice:cri-containerd:" ID,
     "container_id:" ID,
     "/system.slice/containerd.service/kubepods-besteffort-pod" UID_
     ".slice:cri-containerd:" ID},
    {"a pod as such", "/kubepods/besteffort/pod" UID, "kube_pod_uid:" UID,
     "/kubepods/besteffort/pod" UID},
    {"a static pod", "/kubepods/pod" TASK "/" ID,
     "container_id:" ID ",kube_pod_uid:" TASK, "/kubepods/pod" TASK "/" ID},
    {"ECS", "/ecs/" TASK "/" ID, "container_id:" ID, "/ecs/" TASK "/" ID},
    {"Fargate", "/ecs/" TASK "/" TASK "-2300785684",
     "container_id:" TASK "-2300785684", "/ecs/" TASK "/" TASK "-2300785684"},
    {"Garden", "/garden/6f265890-5165-7fab-6b52-18d1",
     "unit:6f265890-5165-7fab-6b52-18d1",
     "/garden/6f265890-5165-7fab-6b52-18d1"},
    {"Garden, whole id", "/garden/" UID, "container_id:" UID, "/garden/" UID},
    {"lxc", "/lxc/web/system.slice/cron.service", "container_id:web",
     "/lxc/web"},
    {"lxc 4", "/lxc.payload.web/init.scope", "container_id:web",
     "/lxc.payload.web"},
    {"the monitor of lxc is no container", "/lxc.monitor.web",
     "unit:lxc.monitor.web", "/lxc.monitor.web"},
    {"nspawn", "/machine.slice/machine-build\\x2dbox.scope/payload",
     "container_id:build-box", "/machine.slice/machine-build\\x2dbox.scope"},
    {"nspawn as a service", "/machine.slice/systemd-nspawn@db.service",
     "container_id:db", "/machine.slice/systemd-nspawn@db.service"},
    {"a service", "/system.slice/cron.service", "unit:cron.service",
     "/system.slice/cron.service"},
    {"a service with cgroups of its own", "/system.slice/docker.service/x",
     "unit:docker.service", "/system.slice/docker.service"},
    {"a session", "/user.slice/user-0.slice/session-1.scope",
     "unit:session-1.scope", "/user.slice/user-0.slice/session-1.scope"},
    {"a slice", "/system.slice", "unit:system.slice", "/system.slice"},
    {"the root", "/", "unit:root", ""},
    {"nothing", "", "unit:root", ""},
    {"63 digits are no id", "/docker/" TASK "0123456789abcdef0123456789abcde",
     "unit:" TASK "0123456789abcdef0123456789abcde",
     "/docker/" TASK "0123456789abcdef0123456789abcde"},
    {"words of the line format", "/a,b|c#d\x01\x7f e", "unit:a_b_c_d___e",
     "/a,b|c#d\x01\x7f e"},
    {"prefixes alone", "/docker-.scope/.scope/pod/machine-.scope/lxc",
     "unit:machine-.scope", "/docker-.scope/.scope/pod/machine-.scope"},
};

static void each_runtime_is_known(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(corpus) / sizeof(corpus[0]); i++) {
        struct cgroup_name name;
        char tags[CGROUP_TAGS_MAX];

        cgroup_name(&name, corpus[i].path);
        if (strcmp(cgroup_name_tags(tags, &name), corpus[i].tags) != 0)
            fail_msg("%s: %s", corpus[i].what, tags);
        if (name.n_path != strlen(corpus[i].own))
            fail_msg("%s: path of %zu", corpus[i].what, name.n_path);
    }
}

static void any_bytes_are_a_path(void **state)
{
    unsigned int seed = 1;
    static const char *const bits[] = {"/",    "pod",   ".scope", "docker-",
                                       ID,     UID_,    ":",      "lxc",
                                       "\\x2", "\\x00", "\xff",   "kubepods-",
                                       ",|#",  ".slice"};

    (void)state;
    for (int round = 0; round < 20000; round++) {
        char path[2000] = "";
        struct cgroup_name name;
        char tags[CGROUP_TAGS_MAX];
        size_t n = 0;

        while (n < 1500 && (seed = seed * 1103515245u + 12345u) % 41 != 0) {
            const char *bit = bits[(seed >> 16) % 14];

            memcpy(path + n, bit, strlen(bit) + 1);
            n += strlen(bit);
        }
        cgroup_name(&name, path);
        (void)cgroup_name_tags(tags, &name);
        assert_true(name.n_path <= n);
        assert_true(name.kind != CGROUP_UNKNOWN);
        assert_null(strpbrk(name.id, "|#\n, "));
    }
}

static const char mountinfo[] =
    "22 1 0:20 / /proc rw - proc proc rw\n"
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup "
    "rw,cpu,cpuacct\n"
    "33 31 0:32 /docker/x /sys/fs/cgroup/me\\040mory rw master:7 - cgroup "
    "cgroup "
    "rw,memory\n"
    "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup "
    "rw,xattr,name=systemd\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    "42 31 0:38 / /elsewhere rw - cgroup2 cgroup2 rw\n"
    "43 31 0:39 / /cut";
static const char cgroup[] = "9:name=systemd:/\n4:memory:/docker/x\n"
                             "2:cpu,cpuacct:/\n0::/\n";

static void mounts_are_read(void **state)
{
    struct hierarchies all;
    char name[400];

    (void)state;
    hierarchies_parse(&all, mountinfo, cgroup);
    assert_int_equal(all.n, 4);
    assert_true(hierarchy_is(&all.all[0], "cpu"));
    assert_true(hierarchy_is(&all.all[0], "cpuacct"));
    assert_false(hierarchy_is(&all.all[0], "cp"));
    assert_int_equal(all.all[0].id, 2);
    assert_string_equal(all.all[1].mount, "/sys/fs/cgroup/me mory");
    assert_string_equal(all.all[1].root, "/docker/x");
    assert_int_equal(all.all[1].id, 4);
    assert_int_equal(all.all[2].id, 9);
    assert_true(all.all[3].v2);
    assert_string_equal(all.all[3].mount, "/sys/fs/cgroup/unified");

    assert_true(hierarchy_file(&all.all[1], "/docker/x/y", "f", name, 400));
    assert_string_equal(name, "/sys/fs/cgroup/me mory/y/f");
    assert_false(hierarchy_file(&all.all[1], "/docker/xy", "f", name, 400));
    assert_false(hierarchy_file(&all.all[3], "/../x", "f", name, 400));
    assert_false(hierarchy_file(&all.all[3], "/x", "f", name, 10));
}

static void cut_mounts_do_no_harm(void **state)
{
    (void)state;
    for (size_t n = 0; n < sizeof(mountinfo); n++) {
        char *cut = strndup(mountinfo, n);
        struct hierarchies all;

        hierarchies_parse(&all, cut, cgroup);
        assert_true(all.n <= 4);
        hierarchies_parse(&all, mountinfo, cut);
        free(cut);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_runtime_is_known),
        cmocka_unit_test(any_bytes_are_a_path),
        cmocka_unit_test(mounts_are_read),
        cmocka_unit_test(cut_mounts_do_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
