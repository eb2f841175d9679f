/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the reader's real-time priority is for: on each CPU two processes that never
 * stop and two that switch all the time, all with the highest usual priority, and a
 * record for each switch. A usual reader loses records; one with SCHED_FIFO 10 and
 * the ring's own way of waking loses none, and leaves the others their work.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/base/clock.h"
#include "agent/base/contract.h"
#include "agent/priority.h"
#include "bpf/ring.h"
#include "tests/bpf/require.h"
#include "tests/bpf/switches.h"

#define MAX_CPUS 8
#define PER_CPU 4 /* processes: two spin, two play ping-pong */
#define WINDOW_MS 1500
#define TIMER_MS 100
#define TRIES 3
#define STRETCH 256u /* records for which room is given back at once */

extern const unsigned char bpf_switches_begin[], bpf_switches_end[];

struct load {
    _Atomic uint64_t
        trips[MAX_CPUS]; /* of the ping-pong; the rest is padding */
    pid_t pids[MAX_CPUS * PER_CPU];
    unsigned n_pids;
    long n_cpus;
};

struct source {
    struct ring ring;
    struct bpf_object *object;
    struct bpf_link *link;
};

struct reader {
    struct ring *ring;
    struct priority_request want;
    pthread_t thread;
    sem_t ready; /* it has what it asked for */
    _Atomic bool over;
    uint64_t n_read, n_wakes;
};

static struct load *load;

/* ---- The load -------------------------------------------------------------- */

static void go_to(long cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0 ||
        setpriority(PRIO_PROCESS, 0, -20) != 0)
        _exit(1);
}

static void spin(void)
{
    for (;;)
        atomic_signal_fence(memory_order_seq_cst);
}

/* Bounce a byte; whoever @serves counts. */
static void play(const int in[2], const int out[2], bool serves, long cpu)
{
    char ball = 0;

    for (;;) {
        if (serves && write(out[1], &ball, 1) != 1)
            _exit(1);
        if (read(in[0], &ball, 1) != 1)
            _exit(1);
        if (serves)
            atomic_fetch_add_explicit(&load->trips[cpu], 1,
                                      memory_order_relaxed);
        else if (write(out[1], &ball, 1) != 1)
            _exit(1);
    }
}

static void start_process(long cpu, unsigned role, int a[2], int b[2])
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid > 0) {
        load->pids[load->n_pids++] = pid;
        return;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    go_to(cpu);
    if (role < 2)
        spin();
    play(role == 2 ? a : b, role == 2 ? b : a, role == 2, cpu);
}

static void start_load(void)
{
    for (long cpu = 0; cpu < load->n_cpus; cpu++) {
        int a[2], b[2];

        assert_int_equal(pipe2(a, O_CLOEXEC), 0);
        assert_int_equal(pipe2(b, O_CLOEXEC), 0);
        for (unsigned role = 0; role < PER_CPU; role++)
            start_process(cpu, role, a, b);
        for (int i = 0; i < 2; i++) {
            close(a[i]);
            close(b[i]);
        }
    }
}

static int stop_load(void **state)
{
    (void)state;
    for (unsigned i = 0; i < load->n_pids; i++) {
        (void)kill(load->pids[i], SIGKILL);
        (void)waitpid(load->pids[i], NULL, 0);
    }
    load->n_pids = 0;
    return 0;
}

static uint64_t trips(void)
{
    uint64_t n = 0;

    for (long i = 0; i < load->n_cpus; i++)
        n += atomic_load(&load->trips[i]);
    return n;
}

/* ---- The source ------------------------------------------------------------ */

static void share(struct bpf_object *o, const char *name, int fd)
{
    struct bpf_map *m = bpf_object__find_map_by_name(o, name);

    assert_non_null(m);
    assert_int_equal(bpf_map__reuse_fd(m, fd), 0);
}

static void open_source(struct source *s)
{
    const struct switches_config config = {.own_tgid = getpid()};
    struct loader_cause cause = {0};
    struct bpf_map *m;

    assert_int_equal(ring_create(&s->ring, SWITCHES_RING_BYTES, &cause), 0);
    s->object =
        bpf_object__open_mem(bpf_switches_begin,
                             (size_t)(bpf_switches_end - bpf_switches_begin),
                             NULL);
    assert_non_null(s->object);
    share(s->object, "ring", s->ring.ring_fd);
    share(s->object, "control", s->ring.control_fd);
    bpf_object__for_each_map(m, s->object)
    {
        if (strstr(bpf_map__name(m), ".rodata") != NULL)
            assert_int_equal(bpf_map__set_initial_value(m, &config,
                                                        sizeof(config)),
                             0);
    }
    assert_int_equal(bpf_object__load(s->object), 0);
}

static void attach(struct source *s)
{
    struct bpf_program *p =
        bpf_object__find_program_by_name(s->object, "on_switch");

    assert_non_null(p);
    s->link = bpf_program__attach(p);
    assert_non_null(s->link);
}

static void counts(const struct source *s, struct switches_counts *out)
{
    int n_cpus = libbpf_num_possible_cpus();
    struct switches_counts *all = calloc((size_t)n_cpus, sizeof(*all));
    uint32_t zero = 0;
    int fd = bpf_object__find_map_fd_by_name(s->object, "counts");

    assert_non_null(all);
    assert_int_equal(bpf_map_lookup_elem(fd, &zero, all), 0);
    memset(out, 0, sizeof(*out));
    for (int i = 0; i < n_cpus; i++) {
        out->sent += all[i].sent;
        out->lost += all[i].lost;
    }
    free(all);
}

/* ---- The reader --------------------------------------------------------------- */

static uint64_t drain(struct ring *r)
{
    uint64_t pos = ring_begin(r);
    uint64_t n_records = 0;
    const void *record;
    uint64_t next;
    uint32_t n;

    while (ring_at(r, pos, &record, &n, &next) == RING_RECORD) {
        REQUIRE(n == sizeof(struct switches_record));
        pos = next;
        if (++n_records % STRETCH == 0)
            ring_consumed(r, pos);
    }
    ring_consumed(r, pos);
    return n_records;
}

static void *run_reader(void *arg)
{
    struct reader *r = arg;
    struct priority priority = {0};
    struct epoll_event ev = {.events = EPOLLIN};
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    int timeout_ms = 0;

    REQUIRE(epoll >= 0);
    REQUIRE(epoll_ctl(epoll, EPOLL_CTL_ADD, r->ring->wait_fd, &ev) == 0);
    priority_take(&priority, &r->want, NULL, 0);
    (void)sem_post(&r->ready);
    while (!atomic_load(&r->over)) {
        bool woken = epoll_wait(epoll, &ev, 1, timeout_ms) == 1;
        uint64_t n;

        if (woken)
            ring_awake(r->ring);
        r->n_wakes++;
        n = drain(r->ring);
        r->n_read += n;
        (void)priority_breathe(&priority, clock_mono_ns(&clock_real));
        switch (ring_rest(r->ring, n, woken, clock_mono_ns(&clock_real))) {
        case RING_AGAIN:
            timeout_ms = 0;
            break;
        case RING_TIMER:
        case RING_SLEEP: /* the test wants it back */
            timeout_ms = TIMER_MS;
            break;
        }
    }
    close(epoll);
    return NULL;
}

/* ---- The test ------------------------------------------------------------------ */

/* Real time itself, above the reader: it must come back in time. */
static void window(void)
{
    struct timespec ts = {WINDOW_MS / 1000, WINDOW_MS % 1000 * 1000000L};

    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
}

static uint64_t bare_trips(void)
{
    uint64_t before = trips();

    window();
    return trips() - before;
}

struct result {
    double lost; /* share */
    uint64_t sent, trips, n_wakes;
};

static void with_reader(int policy, struct result *out)
{
    struct reader r = {
        .want = {.policy = policy, .rt_priority = 10, .rttime_ms = 200}};
    struct switches_counts last, all;
    struct source s = {0};

    open_source(&s);
    r.ring = &s.ring;
    assert_int_equal(sem_init(&r.ready, 0, 0), 0);
    assert_int_equal(pthread_create(&r.thread, NULL, run_reader, &r), 0);
    while (sem_wait(&r.ready) != 0) /* a new thread has to wait, too */
        ;
    attach(&s);
    out->trips = trips();
    window();
    counts(&s, &last);
    out->trips = trips() - out->trips;
    bpf_link__destroy(s.link);
    atomic_store(&r.over, true);
    (void)stop_load(NULL);
    assert_int_equal(pthread_join(r.thread, NULL), 0);
    counts(&s, &all);
    r.n_read += drain(&s.ring);
    assert_int_equal(all.sent, all.lost + r.n_read);
    out->sent = last.sent;
    out->lost = (double)last.lost / (double)last.sent;
    out->n_wakes = r.n_wakes;
    bpf_object__close(s.object);
    ring_close(&s.ring, false);
}

static void say(const char *who, const struct result *r, uint64_t bare)
{
    print_message("%s: %.2f %% lost of %lu, %lu turns, work %.0f %% of %lu\n",
                  who, r->lost * 100, (unsigned long)r->sent,
                  (unsigned long)r->n_wakes,
                  100.0 * (double)r->trips / (double)bare, (unsigned long)bare);
}

static bool saved(void)
{
    struct result usual, fifo;
    uint64_t bare;

    start_load();
    bare = bare_trips();
    with_reader(SCHED_OTHER, &usual);
    start_load();
    with_reader(SCHED_FIFO, &fifo);
    say("usual", &usual, bare);
    say("fifo ", &fifo, bare);
    return usual.lost >= 0.1 && fifo.lost <= 0.005 &&
           (double)fifo.trips >= 0.75 * (double)bare;
}

/* For a moment the machine may be somebody else's. */
static void real_time_saves_the_stream(void **state)
{
    (void)state;
    for (int i = 0; i < TRIES; i++) {
        if (saved())
            return;
    }
    fail_msg("at none of %d tries", TRIES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(real_time_saves_the_stream, stop_load),
    };
    const struct sched_param above = {.sched_priority = 20};

    require_bpf();
    load = mmap(NULL, sizeof(*load), PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (load == MAP_FAILED)
        return 1;
    load->n_cpus = sysconf(_SC_NPROCESSORS_ONLN);
    if (load->n_cpus > MAX_CPUS)
        skip_for("more CPUs than this load keeps busy");
    if (syscall(SYS_sched_setscheduler, 0,
                SCHED_FIFO | 0x40000000 /* not what it starts */, &above) != 0)
        skip_for("no real-time scheduling");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
