/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The kernel as our programs see it: of each structure the fields that are read,
 * nothing else. Their places are put in by the loader from the running kernel's
 * BTF (preserve_access_index), so order and gaps here mean nothing. Values of
 * enumerations that depend on the kernel's configuration are never written here:
 * the loader looks them up.
 *
 * Thread:  none; types only.
 * Memory:  none.
 * Promise: included by *.bpf.c alone.
 */
#ifndef RETRIEVER_BPF_CORE_TYPES_H
#define RETRIEVER_BPF_CORE_TYPES_H

#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)),           \
                             apply_to = record)

struct kernfs_node {
    __u64 id;
};

struct cgroup_root {
    int hierarchy_id;
};

struct cgroup {
    struct kernfs_node *kn;
    struct cgroup_root *root;
};

struct cgroup_subsys_state {
    struct cgroup *cgroup;
};

struct css_set {
    struct cgroup_subsys_state *subsys[16];
    struct cgroup *dfl_cgrp;
};

struct cfs_rq {
    __u64 throttled_clock_self_time; /* since Linux 6.6 */
};

struct sched_entity {
    struct cfs_rq *cfs_rq;
    __u64 sum_exec_runtime;
    __u64 prev_sum_exec_runtime; /* before the present turn */
};

struct ns_common {
    unsigned int inum;
};

struct pid_namespace {
    struct ns_common ns;
};

struct upid {
    int nr;
    struct pid_namespace *ns;
};

struct pid {
    unsigned int level;
    struct upid numbers[1]; /* of level 0 to level */
};

typedef struct {
    int counter;
} atomic_t;

struct signal_struct {
    atomic_t live; /* threads */
    unsigned int flags;
    int group_exit_code;
};

struct bpf_local_storage;

struct mm_struct {
    unsigned long env_start;
    unsigned long env_end;
};

struct task_struct {
    unsigned int __state;
    int on_cpu;
    struct sched_entity se;
    unsigned long nvcsw;
    unsigned long nivcsw;
    struct bpf_local_storage *bpf_storage;
    int pid;
    int tgid;
    int exit_code;
    unsigned int flags;
    struct task_struct *group_leader;
    struct task_struct *real_parent;
    struct pid *thread_pid;
    struct signal_struct *signal;
    struct mm_struct *mm;
    __u64 start_time;
    __u64 start_boottime;
    struct css_set *cgroups;
    char comm[16];
};

/* ---- Sockets and packets ------------------------------------------------ */

struct net {
    struct ns_common ns;
};

typedef struct {
    struct net *net;
} possible_net_t;

struct net_device {
    possible_net_t nd_net;
};

typedef struct {
    __s64 counter;
} atomic64_t;

struct sock_common {
    unsigned short skc_family;
    atomic64_t skc_cookie;
};

struct sock {
    struct sock_common __sk_common;
};

struct unix_sock {
    struct sock *peer;
};

struct sk_buff {
    struct net_device *dev;
    int skb_iif;
    __u16 transport_header;
    __u16 network_header;
    unsigned char *head;
};

#pragma clang attribute pop

#endif
