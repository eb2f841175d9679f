/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start and end. The sockets come first: from then on the kernel keeps what
 * clients send, however long the rest takes. In `exec` the job is started next
 * (job.c), before anything that can fail or take time.
 */
#include "agent/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/cli.h"
#include "agent/keeper_private.h"
#include "agent/stamps.h"
#include "agent/wiring.h"
#include "aggregator/agg.h"
#include "bpf/loader.h"
#include "forwarder/store.h"

#define MODULE "keeper"

extern char **environ;

/* Started with one of them closed, the next descriptor of ours would take its
 * number, and the log would be written into it. The job does not see these. */
void keeper_hold_standard_fds(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

bool keeper_expect_children(void)
{
    const struct sigaction usual = {.sa_handler = SIG_DFL};
    struct sigaction was;

    return sigaction(SIGCHLD, &usual, &was) == 0 && was.sa_handler == SIG_IGN;
}

/* ---- Configuration ----------------------------------------------------- */

static void start_log(const struct config *c)
{
    const struct log_opts opts = {.level = (enum log_level)c->log_level,
                                  .json = c->log_json,
                                  .file = c->log_file};
    int rc = log_init(&opts);

    if (rc != 0)
        log_warn(MODULE,
                 "log file was not opened, stderr is used: %s "
                 "log_file=%s",
                 strerror(-rc), c->log_file);
}

static void report(enum log_level level, const struct string_list *lines)
{
    for (size_t i = 0; i < lines->n; i++)
        log_write(NULL, level, "config", "%s", lines->items[i]);
}

/* Asked of the kernel at once, though programs are loaded much later: who requires
 * them wants to hear it now. */
static int check_kernel(const struct keeper *k)
{
    struct loader_cause cause = {.why = ""};

    if (k->config.ebpf != EBPF_ON || loader_probe(&cause, NULL) == 0)
        return 0;
    if (k->exec_mode) {
        log_warn(MODULE, "ebpf.enabled: true, but %s; %s", cause.why,
                 cause.remedy);
        return 0;
    }
    log_error(MODULE,
              "ebpf.enabled: true, but %s; %s; or set it to auto, and all "
              "that needs no kernel programs is served",
              cause.why, cause.remedy);
    return EXIT_USAGE;
}

int keeper_configure(struct keeper *k, struct config_sources *src)
{
    struct config_report rep = {0};
    int status = 0;
    int rc;

    src->env = environ;
    src->exec_mode = k->exec_mode;
    rc = config_load(&k->config, src, &rep);
    if (rc != 0) {
        log_error(MODULE, "configuration was not loaded: %s", strerror(-rc));
        return EXIT_FAILED;
    }
    start_log(&k->config);
    report(k->exec_mode ? LOG_LEVEL_WARN : LOG_LEVEL_ERROR, &rep.errors);
    report(LOG_LEVEL_WARN, &rep.warnings);
    report(LOG_LEVEL_DEBUG, &rep.notes);
    if (rep.errors.n > 0 && !k->exec_mode) {
        fprintf(stderr,
                "retriever run: %zu error%s in the configuration, "
                "nothing was started\n",
                rep.errors.n + rep.n_dropped,
                rep.errors.n + rep.n_dropped == 1 ? "" : "s");
        status = EXIT_USAGE;
    } else if ((status = check_kernel(k)) == 0 && !k->trial.on) {
        log_info(MODULE, "retriever %s starts", RETRIEVER_VERSION);
    }
    config_report_fini(&rep);
    return status;
}

int keeper_listen(struct keeper *k)
{
    const struct notify *manager = k->exec_mode ? NULL : &k->notify;
    const struct inheritance *in = &k->inherited;
    unsigned n_failed = 0;
    int rc;

    if (manager != NULL && notify_init(&k->notify) != 0)
        log_warn(MODULE,
                 "NOTIFY_SOCKET is neither a path nor an abstract name: "
                 "the service manager is told nothing");
    rc = in->present
             ? sockets_reopen(&k->sockets, &k->config, &in->record.sockets,
                              manager, &n_failed)
             : sockets_open(&k->sockets, &k->config, manager, &n_failed);
    if (rc != 0)
        log_error(MODULE, "there are more listeners than %d", SOCKETS_MAX);
    if (k->exec_mode)
        return 0;
    /* What an upgrade cannot listen to was said: it serves the rest. */
    if (rc != 0 || (n_failed != 0 && !in->present))
        return EXIT_FAILED;
    sockets_keep(&k->sockets, manager);
    return 0;
}

/* ---- What outlives a worker -------------------------------------------- */

static int map_supervision(struct keeper *k)
{
    struct supervision *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (s == MAP_FAILED)
        return -errno;
    k->sup = s;
    s->started_ns = keeper_now_ns();
    process_clock_init(&s->clock, &clock_real);
    s->life_start_s =
        process_clock_now(&s->clock, &clock_real) / CLOCK_NS_PER_S;
    s->to_worker = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->to_keeper = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->keeper_pidfd = -1;
    s->keeper_pid = getpid();
    if (k->inherited.present) {
        const struct handover *h = &k->inherited.record;

        s->started_ns = h->started_ms * MS_NS;
        s->n_upgrades = h->n_upgrades;
        k->has_served = true; /* as the image before */
        if (k->inherited.last) {
            s->n_upgrades--;
            s->fell_back_ns = keeper_now_ns();
        }
        atomic_init(&s->worker_deaths, h->worker_deaths);
    }
    if (s->to_worker < 0 || s->to_keeper < 0)
        return -errno;
#ifdef SYS_pidfd_open
    if (k->config.keeper)
        s->keeper_pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
#endif
    k->has_pidfd = s->keeper_pidfd >= 0;
    return 0;
}

int keeper_make_ingest(const struct keeper *k, struct region *r)
{
    const struct config *c = &k->config;
    size_t agg[AGG_N_RANGES];
    const struct region_opts opts = {
        .name = "retriever-ingest",
        .budget_bytes = c->memory_limit_bytes,
        .reserve = agg,
        .n_ranges = AGG_N_RANGES,
    };

    agg_reserve(agg, c->dogstatsd_context_limit, c->memory_limit_bytes);
    return region_create(r, &opts);
}

static int make_regions(struct keeper *k)
{
    const struct config *c = &k->config;
    size_t store[STORE_N_RANGES];
    /* The bodies are capped by the store itself; its table comes on top. */
    const struct region_opts store_opts = {
        .name = "retriever-store",
        .budget_bytes = SIZE_MAX / 2,
        .reserve = store,
        .n_ranges = STORE_N_RANGES,
    };
    int rc;

    store_reserve(store, wiring_store_memory_bytes(c));
    rc = keeper_make_ingest(k, &k->ingest);
    if (rc == 0)
        rc = region_create(&k->store, &store_opts);
    return rc;
}

void keeper_allow_landing(struct keeper *k)
{
    region_allow(&k->ingest, k->landing.map, k->landing.map_bytes);
}

static uint32_t max_conns(const struct keeper *k)
{
    for (uint32_t i = 0; i < k->sockets.n; i++) {
        if (k->sockets.entries[i].kind == SOCKET_UNIXSTREAM)
            return k->config.stream_max_connections;
    }
    return 0;
}

static int make_landing(struct keeper *k)
{
    const struct landing_opts opts = {
        .buffer_bytes = k->config.dogstatsd_buffer_bytes,
        .max_frame_bytes = k->config.stream_max_frame_bytes,
        .n_conns = max_conns(k),
    };
    int rc = landing_create(&k->landing, &opts);

    if (rc != 0)
        return rc;
    keeper_allow_landing(k);
    keeper_open_ring(k);
    if (k->inherited.present)
        keeper_inherit_conns(k);
    return 0;
}

/* An upgrade needs a process that stays while another image comes. */
static int make_handover(struct keeper *k)
{
    if (k->exec_mode || !k->config.keeper)
        return 0;
    keeper_find_program(k);
    return handover_files_create(&k->handover);
}

/* Opened now and loaded by descriptor later: an upgrade of the package in
 * between cannot mix versions. Beside the program first, so that a build folder
 * runs without an installation. */
int keeper_open_module(const char *file)
{
    char path[PATH_MAX + 64];
    char exe[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    char *slash;
    int fd = -1;

    exe[n > 0 ? n : 0] = '\0';
    slash = strrchr(exe, '/');
    if (slash != NULL) {
        *slash = '\0';
        (void)snprintf(path, sizeof(path), "%s/%s", exe, file);
        fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    if (fd < 0) {
        (void)snprintf(path, sizeof(path), "%s/%s", RETRIEVER_MODULE_DIR, file);
        fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    return fd;
}

static void open_modules(struct keeper *k)
{
    if (k->inherited.last) { /* what lies beside us may be the new version's */
        k->env.http_module = k->inherited.http_module;
        k->env.httpd_module = k->inherited.httpd_module;
        return;
    }
    k->env.http_module = keeper_open_module("retriever-http.so");
    if (k->env.http_module < 0)
        log_warn(MODULE, "retriever-http.so was found neither beside the "
                         "program nor in " RETRIEVER_MODULE_DIR
                         ": nothing can be delivered");
    k->env.httpd_module = -1;
    if (k->config.health_port == 0)
        return;
    k->env.httpd_module = keeper_open_module("retriever-httpd.so");
    if (k->env.httpd_module < 0)
        log_warn(MODULE, "retriever-httpd.so was found neither beside the "
                         "program nor in " RETRIEVER_MODULE_DIR
                         ": health_port is not served");
}

static void fill_env(struct keeper *k)
{
    struct worker_env *e = &k->env;

    e->config = &k->config;
    e->ingest_region = &k->ingest;
    e->store_region = &k->store;
    e->landing = &k->landing;
    e->sockets = &k->sockets;
    e->sup = k->sup;
    e->stamps = &k->stamps;
    e->seconds = &k->seconds;
    e->exec_mode = k->exec_mode;
    e->host = k->identity.host;
    e->instance_tag = k->identity.instance_tag;
    e->handover = k->handover.baton != NULL ? &k->handover : NULL;
    if (k->inherited.present) {
        e->has_start = true;
        e->start.counts = k->inherited.record.ingest;
        e->inherited = &k->inherited.record;
        e->inherited_files = &k->inherited.files;
    }
    e->no_api_key = k->config.api_key[0] == '\0' ? "no API key is set" : NULL;
    if (getrandom(e->seed, sizeof(e->seed), GRND_NONBLOCK) !=
        (ssize_t)sizeof(e->seed)) {
        e->seed[0] = keeper_now_ns();
        e->seed[1] = (uint64_t)clock_wall_ns(&clock_real);
    }
    if (k->inherited.present)
        e->life = k->inherited.record.life;
    else if (getrandom(&e->life, sizeof(e->life), GRND_NONBLOCK) !=
             (ssize_t)sizeof(e->life))
        e->life = keeper_now_ns() ^ (uint64_t)clock_wall_ns(&clock_real);
}

int keeper_watch_signals(struct keeper *k)
{
    sigset_t all;

    (void)sigfillset(&all);
    if (!k->config.keeper)
        (void)sigdelset(&all, SIGXCPU); /* the reader's (priority.h) */
    k->signal_fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    return k->signal_fd >= 0 ? 0 : -errno;
}

/* An identity that is drawn by lot is nobody else's. Before the identity is claimed:
 * whoever finds that claimed finds this open, too. */
static void open_seconds(struct keeper *k)
{
    int rc;

    if (strcmp(k->identity.instance_from, "random") == 0)
        return;
    rc = seconds_open(&k->seconds, identity_hash(&k->identity, &k->config),
                      k->env.life, clock_wall_ns(&clock_real) / CLOCK_NS_PER_S);
    if (rc != 0 && k->env.run_dir < 0)
        log_info(MODULE,
                 "used seconds are remembered nowhere: a life that starts "
                 "within the same second replaces points; see run_path "
                 "cause=%s",
                 strerror(-rc));
}

/* Who shares our seconds overwrites nothing. Who does not is another user's, or sees
 * another /dev/shm. */
void keeper_claim_identity(struct keeper *k)
{
    k->claim_fd = identity_claim(&k->identity, &k->config);
    /* Behind an upgrade it may be held by our own worker of before. */
    if (k->claim_fd == -EADDRINUSE && !k->inherited.present &&
        !seconds_is_shared(&k->seconds))
        log_warn(
            MODULE,
            "another agent on this host sends under the same identity: of a "
            "series that both send, one overwrites the other's values at the "
            "intake; give one of them another `instance` or `hostname` "
            "host=%s instance=%s",
            k->identity.host, k->identity.instance_tag);
}

void keeper_leave_identity(struct keeper *k)
{
    if (k->claim_fd >= 0)
        (void)close(k->claim_fd);
    k->claim_fd = -1;
}

int keeper_prepare(struct keeper *k)
{
    int rc = keeper_claim_fds(k, max_conns(k));

    if (rc != 0)
        return rc;
    rc = map_supervision(k);
    if (rc == 0)
        rc = make_regions(k);
    if (rc == 0)
        rc = make_landing(k);
    if (rc == 0)
        rc = make_handover(k);
    if (rc == 0)
        rc = identity_find(&k->identity, &k->config, k->exec_mode);
    if (rc != 0) {
        log_error(MODULE, "shared memory was not made: %s", strerror(-rc));
        return rc;
    }
    rc = keeper_open_run_path(k);
    if (rc != 0)
        return rc;
    open_modules(k);
    fill_env(k);
    open_seconds(k);
    keeper_claim_identity(k); /* before what is not a worker's is noted */
    k->open_fds = opendir("/proc/self/fd");
    rc = k->open_fds != NULL ? fd_set_snapshot(&k->kept) : -errno;
    if (rc != 0)
        log_error(MODULE, "/proc/self/fd was not read: %s", strerror(-rc));
    for (uint32_t i = 0; rc == 0 && i < k->landing.n_conns; i++) {
        int fd = k->landing.conns[i].fd; /* of the image before: a worker's */

        if (fd >= 0 && (size_t)fd < k->kept.n)
            k->kept.has[fd] = false;
    }
    k->can_work = rc == 0;
    return rc;
}

void keeper_fini(struct keeper *k)
{
    if (keeper_is_offered(k))
        sockets_leave(&k->sockets); /* the old worker serves them */
    sockets_close(&k->sockets);
    landing_close(&k->landing);
    region_close(&k->ingest);
    region_close(&k->store);
    fd_set_fini(&k->kept);
    handover_files_close(&k->handover);
    handover_fini(&k->inherited.record);
    free(k->upgrade.program);
    if (k->open_fds != NULL)
        closedir(k->open_fds);
    keeper_leave_identity(k);
    seconds_close(&k->seconds);
    identity_fini(&k->identity);
    stamps_fini(&k->stamps);
    config_fini(&k->config);
    /* What it has open is ours, too. It must not keep sockets from a successor. */
    if (k->worker_stays)
        (void)close_range(3, ~0u, 0);
}

/* ---- Running ----------------------------------------------------------- */

static void *watch_thread(void *arg)
{
    keeper_watch(arg);
    return NULL;
}

/* keeper: off. One process: signals go to the watch as before, since they are
 * blocked in every thread. A crash ends everything, and so does a worker that
 * hangs at the deadline. */
static void run_inside(struct keeper *k)
{
    uint64_t one = 1;
    pthread_t watch;
    int status;

    k->env.job_pid = (uint32_t)k->job.pid; /* the watch changes it */
    if (pthread_create(&watch, NULL, watch_thread, k) != 0) {
        k->exit_status = EXIT_FAILED;
        return;
    }
    status = worker_main(&k->env);
    atomic_store(&k->inside_done, 1);
    (void)!write(k->sup->to_keeper, &one, sizeof(one));
    (void)pthread_join(watch, NULL);
    k->exit_status = status; /* the watch may have set it at the deadline */
}

int keeper_run(struct keeper *k)
{
    k->exit_status = EXIT_FAILED;
    if (!k->can_work) {
        k->worker_over = true;
        keeper_watch(k);
    } else if (k->config.keeper) {
        k->restart_ns = keeper_now_ns();
        keeper_watch(k);
    } else {
        run_inside(k);
    }
    return k->exit_status;
}

static int start(struct keeper *k, struct config_sources *src)
{
    int status = keeper_inherit(k);
    int rc;

    if (status == 0)
        status = keeper_configure(k, src);
    if (status != 0)
        return status;
    status = keeper_listen(k);
    if (status == 0 && (rc = keeper_watch_signals(k)) != 0) {
        log_error(MODULE, "signals cannot be received: %s", strerror(-rc));
        status = EXIT_FAILED;
    }
    if (status == 0 && keeper_prepare(k) != 0)
        status = EXIT_FAILED;
    if (status != 0 && !k->inherited.present)
        fprintf(stderr, "retriever run: nothing was started, the log "
                        "says why\n");
    return status;
}

int cmd_run(int argc, char **argv)
{
    static struct keeper k = {.claim_fd = -1,
                              .seconds = {.fd = -1},
                              .signal_fd = -1,
                              .upgrade = {.answer_fd = -1},
                              .handover = {-1, -1, -1, -1, NULL}};
    struct cli_config cc;
    int status;

    switch (cli_parse_config(&cc, argc, argv)) {
    case 0:
        break;
    case CLI_HELP:
        return EXIT_OK;
    default:
        return EXIT_USAGE;
    }
    if (cc.first < argc) {
        fprintf(stderr,
                "retriever run: unexpected argument: %s (did you mean "
                "`retriever exec`?)\n",
                argv[cc.first]);
        return EXIT_USAGE;
    }
    keeper_hold_standard_fds();
    (void)keeper_expect_children();
    if (keeper_on_trial(&k))
        return keeper_trial(&k, keeper_configure(&k, &cc.sources));
    status = start(&k, &cc.sources);
    if (status != 0) {
        keeper_fall_back(&k);
    } else {
        keeper_take_kept_conns(&k);
        status = keeper_run(&k);
        keeper_keep_conns(&k);
        keeper_close_ring(&k);
    }
    keeper_fini(&k);
    return status;
}
