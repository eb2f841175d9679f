/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the configuration: the one table of keys, and what the readers of
 * files (config_yaml.c), environment and command line (config_env.c) tell it.
 *
 * A reader offers what it found; the offer is checked against the table at once,
 * so that an error names the place it came from. What passed is kept as text and
 * becomes typed data when everything was read (config_apply()).
 *
 * Thread:  one; before the first fork.
 * Memory:  the text of the values, bounded by the table and CONFIG_MAX_TEXT.
 * Promise: any text may be offered; it is kept, or one finding says why not.
 */
#ifndef RETRIEVER_AGENT_CONFIG_TABLE_H
#define RETRIEVER_AGENT_CONFIG_TABLE_H

#include "agent/config.h"

#define CONFIG_MAX_TEXT 4096  /* of one value */
#define CONFIG_MAX_ITEMS 1000 /* of one list */
#define CONFIG_MAX_NAME 200   /* of a dotted key */
#define CONFIG_ALIASES 3      /* further names of a key, at most */

enum key_type {
    KEY_BOOL,
    KEY_INT,
    KEY_DOUBLE,
    KEY_STRING,
    KEY_LIST,
    KEY_CHOICE,
    KEY_DURATION,
    KEY_BYTES,
    KEY_MODE /* octal permissions */
};

enum key_flag {
    KEY_SECRET = 1u << 0,    /* printed as its last 5 characters */
    KEY_USERINFO = 1u << 1,  /* a URL that may carry a password */
    KEY_EMPTY_ENV = 1u << 2, /* set but empty in the environment: off */
    KEY_AUTO = 1u << 3,      /* the word "auto" stands for 0: resolved later */
    KEY_RANDOM = 1u << 4,    /* the word "__random__" stands for -1 */
    KEY_COMMAS = 1u << 5,    /* a list without blanks is split at commas */
    KEY_FOREIGN = 1u << 6,   /* environment names of the system, too: a fault
                               there is a warning */
    KEY_LATE = 1u << 7, /* bounds depend on another key: config_resolve.c */
    KEY_AGREE = 1u << 8 /* variables of several names must agree */
};

struct config_choice {
    const char *text;
    int value;
};

/** NULL = good, else what is wrong (static text). */
typedef const char *config_check_fn(const char *text);

struct config_key {
    const char *name;
    const char *section; /* heading in the documentation; NULL = as before */
    const char *help;
    const char *def;      /* default as text; lists: blanks between items */
    const char *def_exec; /* where `exec` differs; NULL = the same */
    const char *def_note; /* what the default means, when def is resolved */
    const char *aliases[CONFIG_ALIASES];
    const char *env[2]; /* besides DD_ + name and DD_ + aliases */
    const char *unit;   /* of a plain number */
    const struct config_choice *choices; /* ends with a NULL text */
    config_check_fn *check;              /* of the text, or of each item */
    double min, max;                     /* inclusive, in the unit */
    enum key_type type;
    unsigned flags;
    uint32_t unit_ms;      /* durations: of a plain number */
    uint32_t field_ms;     /* durations: of the field */
    uint32_t offset, size; /* in struct config; size 0: made in
                              config_resolve.c */
};

/** The table has a part in each of two files; its rows are numbered through. */
struct config_part {
    const struct config_key *rows;
    size_t n;
};
extern const struct config_part config_keys, config_keys_kernel;

size_t config_n_keys(void);
const struct config_key *config_key_at(size_t i);
size_t config_key_index(const struct config_key *key);

/** By name or alias; NULL = none. */
const struct config_key *config_key_find(const char *name);
/** The name among those of @key that was @written; its own when that is NULL. */
const char *config_key_spelled(const struct config_key *key,
                               const char *written);
/** By environment name; NULL = none. */
const struct config_key *config_key_find_env(const char *env);
/** Is @path the beginning of a dotted key or alias ("proxy")? */
bool config_is_prefix(const char *path);
/** DD_ + upper case, dots to underscores; cut at @size. */
void config_env_name(const char *name, char *out, size_t size);
/** What of @env follows the variable's name of @name ("" = it is that); NULL when
 *  it does not begin so. */
const char *config_env_rest(const char *env, const char *name);

/* ---- Values (config_value.c) ------------------------------------------- */

#define CONFIG_WHY 160

/** Parse @text (not of a KEY_LIST) into @dest, which has the key's size, or check
 *  it alone (@dest NULL). Strings are copied to the heap. Returns 0, -EINVAL with
 *  @why filled (what is wrong, with the bound), or -ENOMEM. */
int config_parse(const struct config_key *key, const char *text, void *dest,
                 char why[CONFIG_WHY]);

/** Split @text at blanks, or commas as the key's flags say. 0 or -ENOMEM, -E2BIG
 *  (*out untouched). */
int config_split(const struct config_key *key, const char *text,
                 struct string_list *out);

/** Leave the blanks and line ends at both ends out: *text moves on, the length
 *  that stays is returned. */
size_t config_trim(const char **text, size_t n);

/** The field of @key in @c as text for people; secrets masked. */
void config_print(const struct config *c, const struct config_key *key,
                  FILE *out);

/** "0 to 65535", "zstd, zlib": what the key takes; "" when anything. */
void config_bounds_text(const struct config_key *key, char *out, size_t size);

int string_list_add(struct string_list *l, const char *text, size_t n);
void string_list_fini(struct string_list *l);
bool string_list_has(const struct string_list *l, const char *text);

/* ---- Collecting (config.c) --------------------------------------------- */

struct config_value {
    char *text; /* scalars; NULL = not set */
    struct string_list list;
    char *origin;     /* "/etc/x.yaml:3", "DD_X", "--set" */
    const char *name; /* as it was written there: the key's, or an alias */
    unsigned layer;   /* source that set it; 0 = not set */
    bool refused;     /* some source gave what it cannot be */
};

struct config_origins {
    struct config_value *values; /* config_n_keys() */
};

struct config_loader {
    struct config_report report;
    struct config_value *values;
    struct string_list unknown; /* keys that a warning named */
    unsigned layer;             /* of the source being read; grows */
    bool exec_mode;
    bool failed; /* memory was out */
};

/** Where something was found. */
struct config_place {
    const char *source;    /* file name, or what stands for one */
    unsigned line, column; /* 0 = the source has none */
    const char *key;       /* as written there; NULL = the key's own name */
};

enum finding { FINDING_ERROR, FINDING_WARNING, FINDING_NOTE };

/** One line into the report. @at may be NULL. */
void config_found(struct config_loader *l, enum finding kind,
                  const struct config_place *at, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/** What was found is that @key was given, but cannot be that. */
void config_refused(struct config_loader *l, const struct config_key *key);

/** @text with @n bytes was given for @key. Lists are split. */
void config_offer(struct config_loader *l, const struct config_place *at,
                  const struct config_key *key, const char *text, size_t n);
/** The same for a list; @items is taken (empty afterwards). */
void config_offer_list(struct config_loader *l, const struct config_place *at,
                       const struct config_key *key, struct string_list *items);

/** Text of @key as it will be used: what was set, or its default. */
const char *config_text(const struct config_loader *l, const char *name);
const struct config_value *config_value(const struct config_loader *l,
                                        const char *name);

/** The place that set @name, for findings, and the name it was given by. */
struct config_place config_place_of(const struct config_loader *l,
                                    const char *name);
const char *config_name_of(const struct config_loader *l, const char *name);

/* ---- Sources ------------------------------------------------------------ */

/** Read the file, or pipe that has a writer, @path; waits for no other. Returns 0
 *  (*text, not terminated, is the caller's), -ENOENT, -EINVAL with @why (why it
 *  cannot be read), or -ENOMEM. */
int config_read_file(const char *path, char **text, size_t *n,
                     char why[CONFIG_WHY]);

/** Read YAML text. */
void config_yaml_read(struct config_loader *l, const char *source,
                      const char *text, size_t n);
/** A JSON (or YAML flow) list of scalars. Returns 0, -EINVAL or -ENOMEM. */
int config_yaml_list(const char *text, struct string_list *out);
void config_read_env(struct config_loader *l, char *const *env);
void config_read_set(struct config_loader *l, const char *assignment);

/* ---- Keys that are not ours (config_unserved.c) ------------------------- */

/** @name is no key of the table: say so once, as fits. @active: it has a value
 *  that would switch something on. */
void config_unknown(struct config_loader *l, const struct config_place *at,
                    const char *name, bool active);
/** The same for a DD_ variable. */
void config_unknown_env(struct config_loader *l, const char *env,
                        const char *value);
/** Nearest name of the table, NULL when nothing is near. */
const char *config_nearest(const char *name);

/* ---- Afterwards (config_resolve.c, config_limit.c, ...) ----------------- */

/** Fields that follow from several keys or from the system. Returns 0 or
 *  -ENOMEM. */
int config_resolve(struct config *c, struct config_loader *l, const char *root);

/** One path or port for two listeners is an error; the second gets its key's
 *  default. Returns 0 or -ENOMEM. */
int config_check_listeners(struct config *c, struct config_loader *l);

/** Owners of sockets that do not exist are errors; nobody is named then. */
void config_check_owners(struct config *c, struct config_loader *l);

/** Files that TLS is to read and write, as far as one can see from outside. */
void config_check_tls_files(const struct config *c, struct config_loader *l);

/** Memory limit of our control group, 0 = none. @root: before /proc and /sys. */
uint64_t config_container_limit(const char *root);

/** Read the key file. Returns 0 (*key on the heap), -EINVAL with @why, -ENOMEM. */
int config_read_key_file(const char *path, char **key,
                         struct config_key_stamp *stamp, unsigned *mode,
                         char why[CONFIG_WHY]);

/** @text with the user information of a URL replaced by stars. */
void config_mask_url(const char *text, char *out, size_t size);

/* ---- Documentation (config_docs.c) -------------------------------------- */

void config_write_docs(FILE *out);
void config_write_example(FILE *out);

#endif
