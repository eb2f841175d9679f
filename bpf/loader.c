/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libbpf loads an object whole or not at all, so there is one object per thing
 * that may be refused alone. What libbpf prints goes to our log at debug level: the
 * verifier's words help a developer, not an operator.
 */
#include "bpf/loader.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/log.h"

#define MODULE "bpf"

extern const unsigned char bpf_tap_begin[], bpf_tap_end[];
extern const unsigned char bpf_sched_begin[], bpf_sched_end[];
extern const unsigned char bpf_drop_begin[], bpf_drop_end[];
extern const unsigned char bpf_life_begin[], bpf_life_end[];
extern const unsigned char bpf_activity_begin[], bpf_activity_end[];
extern const unsigned char bpf_env_begin[], bpf_env_end[];
extern const unsigned char bpf_env_exec_begin[], bpf_env_exec_end[];

static const struct {
    const char *name;
    const unsigned char *begin, *end;
} objects[LOADER_N] = {
    [LOADER_TAP] = {"tap", bpf_tap_begin, bpf_tap_end},
    [LOADER_SCHED] = {"sched", bpf_sched_begin, bpf_sched_end},
    [LOADER_DROP] = {"drop", bpf_drop_begin, bpf_drop_end},
    [LOADER_LIFE] = {"life", bpf_life_begin, bpf_life_end},
    [LOADER_ACTIVITY] = {"activity", bpf_activity_begin, bpf_activity_end},
    [LOADER_ENV] = {"env", bpf_env_begin, bpf_env_end},
    [LOADER_ENV_EXEC] = {"env_exec", bpf_env_exec_begin, bpf_env_exec_end},
};

static int print(enum libbpf_print_level level, const char *fmt, va_list args)
{
    char line[400];
    size_t n;

    if (level == LIBBPF_DEBUG || !log_enabled(LOG_LEVEL_DEBUG))
        return 0;
    (void)vsnprintf(line, sizeof(line), fmt, args);
    n = strlen(line);
    if (n > 0 && line[n - 1] == '\n')
        line[n - 1] = '\0';
    log_debug(MODULE, "%s", line);
    return 0;
}

/* A program for a raw tracepoint, which is attached nowhere, needs what all others
 * need. Run by hand it says who runs it: no file does, inside a pid namespace. */
int loader_probe(struct loader_cause *cause, uint32_t *own_tgid)
{
    const struct bpf_insn program[] = {
        {.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_get_current_pid_tgid},
        {.code = BPF_ALU64 | BPF_RSH | BPF_K, .dst_reg = BPF_REG_0, .imm = 32},
        {.code = BPF_JMP | BPF_EXIT},
    };
    LIBBPF_OPTS(bpf_test_run_opts, run);
    int fd =
        bpf_prog_load(BPF_PROG_TYPE_RAW_TRACEPOINT, "retriever_probe", "GPL",
                      program, sizeof(program) / sizeof(program[0]), NULL);

    if (fd < 0) {
        loader_explain(cause, "the kernel refused to load a program", errno);
        return LOADER_REFUSED;
    }
    if (own_tgid != NULL && bpf_prog_test_run_opts(fd, &run) == 0)
        *own_tgid = run.retval;
    (void)close(fd);
    return 0;
}

int loader_open(struct bpf_object **out, enum loader_object which,
                const char *types, struct loader_cause *cause)
{
    LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = objects[which].name,
                .btf_custom_path = types);
    struct bpf_object *o;

    (void)libbpf_set_print(print);
    o = bpf_object__open_mem(objects[which].begin,
                             (size_t)(objects[which].end -
                                      objects[which].begin),
                             &opts);
    if (o == NULL) {
        loader_explain(cause, "the program could not be opened", errno);
        return LOADER_REFUSED;
    }
    *out = o;
    return 0;
}

int loader_set_constants(struct bpf_object *o, const void *p, size_t n)
{
    struct bpf_map *m;

    bpf_object__for_each_map(m, o)
    {
        if (strstr(bpf_map__name(m), ".rodata") != NULL)
            return bpf_map__set_initial_value(m, p, n);
    }
    return -ENOENT;
}

int loader_share_map(struct bpf_object *o, const char *name, int fd)
{
    struct bpf_map *m = bpf_object__find_map_by_name(o, name);

    return m != NULL ? bpf_map__reuse_fd(m, fd) : -ENOENT;
}

int loader_load(struct bpf_object *o, struct loader_cause *cause)
{
    int rc = bpf_object__load(o);

    if (rc == 0)
        return 0;
    loader_explain(cause, "the kernel refused the program", rc);
    return LOADER_REFUSED;
}

int loader_program(const struct bpf_object *o, const char *name)
{
    const struct bpf_program *p = bpf_object__find_program_by_name(o, name);

    return p != NULL ? bpf_program__fd(p) : -ENOENT;
}

int loader_map(const struct bpf_object *o, const char *name)
{
    const struct bpf_map *m = bpf_object__find_map_by_name(o, name);

    return m != NULL ? bpf_map__fd(m) : -ENOENT;
}

void loader_close(struct bpf_object *o)
{
    bpf_object__close(o);
}
