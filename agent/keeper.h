/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper: the parent process. It holds what must outlive a worker (shared
 * memory, sockets, and in `exec` the job), starts a worker again at once when one
 * dies, hands signals on as words in shared memory, and prints the receipt, which
 * it has composed when no worker can. It parses nothing and talks to the service
 * manager alone.
 *
 * Thread:  one; with `keeper: off` the watch runs as a second thread of the one
 *          process, beside worker_main().
 * Memory:  everything is made by keeper_prepare(); the regions are capped by
 *          memory_limit and store_max_bytes.
 * Promise: the job's life and exit code never depend on the worker. A worker that
 *          does not end by the deadline is killed and the receipt is written
 *          from the regions.
 */
#ifndef RETRIEVER_AGENT_KEEPER_H
#define RETRIEVER_AGENT_KEEPER_H

#include <dirent.h>
#include <sys/types.h>

#include "agent/identity.h"
#include "agent/job.h"
#include "agent/notify.h"
#include "agent/seconds.h"
#include "agent/worker.h"

/* Descriptors by number. */
struct fd_set_of {
    bool *has;
    size_t n;
};

/* An upgrade under way (keeper_upgrade.c). */
enum upgrade_step { UPGRADE_NONE, UPGRADE_TRIAL, UPGRADE_HANDOVER };

struct upgrade {
    char *program; /* path that an upgrade executes */
    enum upgrade_step step;
    uint64_t until_ns; /* latest end of the step */
    pid_t trial;       /* 0 = none */
    int answer_fd;     /* of the trial; -1 = none, or at its end */
    char answer[160];
    size_t n_answer;
};

/* Workers that die of faults one after the other (keeper_salvage.c). */
#define SALVAGE_FAULTS 3
struct salvage {
    uint64_t faults_ns[SALVAGE_FAULTS]; /* ring */
    uint32_t n_faults;
    pid_t pid; /* of the process that saves what it can; 0 = none */
    uint32_t n_tries;
    uint64_t until_ns;
    struct region fresh; /* what the next worker will begin with */
    int seconds;         /* memfd: what it must not use again */
};

/* This process is the trial of somebody's upgrade (keeper_inherit.c). */
struct trial {
    bool on;
    int answer_fd;
    int run_dir; /* the other one's; -1 = none */
};

/* What another image of the program left (keeper_inherit.c). */
struct inheritance {
    bool present;
    bool last; /* this image is the way back: there is no further one */
    struct handover record;
    struct handover_files files;
    int exe; /* the other image's file and modules */
    int http_module, httpd_module;
    pid_t old_worker;    /* a child of ours, too; 0 = it has ended */
    uint64_t take_by_ns; /* without the baton by then: back */
    uint64_t gone_by_ns; /* the old worker is killed then; 0 = not told yet */
};

struct keeper {
    struct config config;
    struct identity identity;
    int claim_fd;           /* on that identity; < 0 = none */
    struct seconds seconds; /* what lives of that identity took */
    struct notify notify;   /* run: the service manager */
    bool told_ready;
    struct sockets sockets;
    struct region ingest, store;
    struct landing landing;
    struct stamps stamps; /* what earlier lives used */
    struct supervision *sup;
    struct worker_env env;
    bool exec_mode;
    bool can_work; /* the memory of a worker could be had */
    int signal_fd;

    struct fd_set_of kept; /* descriptors that are not a worker's */
    DIR *open_fds;         /* /proc/self/fd: a dead worker may have used up all
                              descriptors, and none would be left to look */
    bool has_pidfd;        /* workers watch us by it */
    bool shares_table;     /* the present worker was cloned with CLONE_FILES */
    pid_t worker;          /* 0 = none */
    bool has_served;       /* a worker of this life that has ended did */
    bool worker_over;      /* it ended in order: no further one */
    bool worker_stays;     /* killed, and still there */
    uint32_t n_tokens;     /* restarts that may follow at once */
    uint64_t tokens_ns;    /* when the tokens were counted */
    uint64_t restart_ns;   /* 0 = no restart is due */

    struct salvage salvage;
    struct upgrade upgrade;
    struct trial trial;
    struct inheritance inherited;
    struct loader_cause tap_cause;  /* why there is no ring */
    struct handover_files handover; /* for the next image */

    struct job job;
    int exit_status; /* of `run` */
    bool over;
    _Atomic uint32_t inside_done; /* keeper: off: worker_main() returned */
};

/** First of all: descriptors 0 to 2 lead somewhere, whatever the caller closed. */
void keeper_hold_standard_fds(void);

/** Ignored signals stay ignored over an execve(), and the kernel reports no
 *  child's end to who ignores SIGCHLD. Returns true when it was ignored. */
bool keeper_expect_children(void);

/** Load the configuration into @k. `run`: every error is printed. Returns 0 or an
 *  exit status (the process should end with it). In exec mode always 0: what is
 *  wrong is a warning. */
int keeper_configure(struct keeper *k, struct config_sources *src);

/** Bind the sockets; in `run` adopt and keep them with the service manager. Returns 0 or an exit status (exec: always 0). */
int keeper_listen(struct keeper *k);

/** From now on signals are read from a descriptor. Returns 0 or -errno. */
int keeper_watch_signals(struct keeper *k);

/** Make what a worker needs: memory, run_path, modules. Returns 0 or -errno. */
int keeper_prepare(struct keeper *k);

/** Serve until the end, the job included. Returns the exit status of `run`. */
int keeper_run(struct keeper *k);

void keeper_fini(struct keeper *k);

#endif
