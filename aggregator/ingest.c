/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A packet is applied in stretches: lines until the journal or the room ahead
 * runs short, or LINES_PER_COMMIT of them, then one commit that also moves the
 * position. A line with very many values is cut at AGG_MAX_VALUES; the position
 * then says how many of its values are applied.
 *
 * Usual lines go in groups: all are parsed and hashed, then all their slots
 * read, then all their contexts, so that with many contexts the memory works on
 * the next lines while one is looked at. They are applied in their order. All
 * other lines go one by one. Datagrams of a few usual lines, which is what most
 * clients send, go in such groups as well, several to a transaction.
 */
#include "aggregator/ingest.h"

#include <string.h>

#include "aggregator/cell.h"
#include "aggregator/context.h"

#define LINES_PER_COMMIT 64u
#define NAMED_EVERY_S 60
/* Per line, in two loops. */
#define INLINE inline __attribute__((always_inline))

/* What the open transaction adds to the hot counters. */
struct stretch {
    uint64_t n_received;
    uint64_t n_datagrams, n_bytes;
    uint32_t n_lines;
    bool full; /* commit before the next line: the last one took much room */
};

static void count(struct ingest *in, uint64_t *counter, uint64_t n)
{
    region_set(in->region, *counter, *counter + n);
}

static void commit(struct ingest *in, struct stretch *st, enum transport t,
                   struct ingest_pos *pos, struct ingest_pos to)
{
    struct ingest_counts *k = agg_counts(in->agg);

    region_save(in->region, k, COUNTS_HOT_BYTES);
    k->datagrams += st->n_datagrams;
    k->bytes += st->n_bytes;
    k->received[t] += st->n_received;
    region_save(in->region, pos, sizeof(*pos));
    *pos = to;
    agg_commit(in->agg);
    *st = (struct stretch){0};
}

/* Values of the line at @pos that a predecessor or a stretch applied. */
static uint32_t values_done(const struct ingest *in,
                            const struct ingest_pos *pos)
{
    const struct agg_partial *part = agg_partial(in->agg);

    if (part->source != pos || part->record != pos->record ||
        part->offset != pos->offset)
        return 0;
    return part->n_values;
}

static void set_values_done(struct ingest *in, const struct ingest_pos *pos,
                            uint32_t offset, uint32_t n)
{
    struct agg_partial *part = agg_partial(in->agg);

    if (n == 0 && part->source != pos)
        return;
    region_save(in->region, part, sizeof(*part));
    *part = (struct agg_partial){n > 0 ? pos : NULL, pos->record, offset, n};
}

static bool is_filtered(const struct ingest *in, unsigned type)
{
    return type == METRIC_DISTRIBUTION ? in->drop_sketches : in->drop_series;
}

/* Keep the line for the log, one per reason and minute: who sends it can mend
 * it only when somebody shows it. */
static void name_offender(struct ingest *in, enum dsd_result r, const char *p,
                          size_t n)
{
    struct ingest_offender *o = &in->offender;

    if (in->has_offender || (in->named_at_s[r] != 0 &&
                             in->now_s - in->named_at_s[r] < NAMED_EVERY_S))
        return;
    in->named_at_s[r] = in->now_s;
    in->has_offender = true;
    o->reason = r;
    o->n = (uint32_t)(n < sizeof(o->line) ? n : sizeof(o->line));
    memcpy(o->line, p, o->n);
}

/* Apply values [from, from + AGG_MAX_VALUES) of the parsed sample, which was
 * read from the @n bytes at @p. Returns where to go on; 0 = the line is done. */
static uint32_t metric(struct ingest *in, struct stretch *st, const char *p,
                       size_t n, uint32_t from)
{
    struct sample s = in->parser.sample;
    uint32_t left = s.n_values - from;
    enum dsd_result r;

    if (is_filtered(in, s.type)) {
        st->n_received += left;
        count(in, &agg_counts(in->agg)->filtered[FILTER_DISABLED], left);
        return 0;
    }
    s.n_values = left < AGG_MAX_VALUES ? left : AGG_MAX_VALUES;
    if (s.type != METRIC_SET)
        s.values += from;
    st->n_received += s.n_values;
    r = agg_sample(in->agg, &s);
    if (__builtin_expect(r != DSD_METRIC, 0))
        name_offender(in, r, p, n);
    return left > s.n_values ? from + s.n_values : 0;
}

static void rejected(struct ingest *in, struct stretch *st, enum dsd_result r,
                     const char *p, size_t n)
{
    struct ingest_counts *k = agg_counts(in->agg);

    name_offender(in, r, p, n);
    if (r == DSD_PARSE_EVENT) {
        count(in, &k->events_rejected, 1);
    } else if (r == DSD_PARSE_CHECK) {
        count(in, &k->checks_rejected, 1);
    } else {
        st->n_received++;
        count(in, &k->rejected[r], 1);
    }
}

/* One line from value @from on; as metric(). */
static uint32_t line(struct ingest *in, struct stretch *st, const char *p,
                     size_t n, uint32_t from)
{
    enum dsd_result r = dsd_parse(&in->parser, p, n);
    struct ingest_counts *k = agg_counts(in->agg);

    switch (r) {
    case DSD_METRIC:
        if (from < in->parser.sample.n_values)
            return metric(in, st, p, n, from);
        return 0;
    case DSD_EVENT:
        if (in->drop_events)
            count(in, &k->events_rejected, 1);
        else
            agg_event(in->agg, &in->parser.event);
        return 0;
    case DSD_CHECK:
        if (in->drop_checks)
            count(in, &k->checks_rejected, 1);
        else
            agg_check(in->agg, &in->parser.check);
        return 0;
    case DSD_EMPTY:
        return 0;
    case DSD_PARSE_STRUCTURE:
    case DSD_PARSE_NAME:
    case DSD_PARSE_VALUE:
    case DSD_PARSE_TYPE:
    case DSD_PARSE_RATE:
    case DSD_PARSE_TIMESTAMP:
    case DSD_PARSE_EVENT:
    case DSD_PARSE_CHECK:
    case DSD_UNTERMINATED:
    case DSD_UNSUPPORTED:
    case DSD_NAN:
    case DSD_NAME:
    case DSD_FUTURE:
    case DSD_POISON:
    case DSD_TRUNCATED:
    case DSD_N_RESULTS:
        break;
    }
    rejected(in, st, r, p, n);
    return 0;
}

/* The bytes behind the last LF. */
static void last_line(struct ingest *in, struct stretch *st, const char *p,
                      size_t n, enum transport t, unsigned flags,
                      uint32_t *from)
{
    if (n == 0)
        return;
    if ((flags & INGEST_TRUNCATED) != 0)
        rejected(in, st, DSD_TRUNCATED, p, n);
    else if (in->eol_required[t])
        rejected(in, st, DSD_UNTERMINATED, p, n);
    else
        *from = line(in, st, p, n, *from);
}

/* A group of plain lines fits behind it: those save a cell of 32 bytes each. */
static bool is_full(const struct ingest *in, const struct stretch *st)
{
    return st->n_lines >= LINES_PER_COMMIT ||
           (in->agg->low && agg_wants_begin(in->agg)) ||
           region_room(in->region) < AGG_MAX_SAVE + 4096;
}

/* ---- Groups of usual lines ---------------------------------------------- */

/* Contexts of the lines in in->ahead. */
struct group {
    struct context *of[DSD_AHEAD_LINES];
};

static void read_ahead(struct ingest *in, const struct dsd_packet *r,
                       uint32_t n, uint32_t *working, bool may_end_bare)
{
    const struct dsd_ahead_opts o = {
        .parser = &in->parser.opts,
        .key = &in->agg->spelling,
        .class = in->agg->own,
        .may_end_bare = may_end_bare,
        .readable = in->readable,
        .spellings = context_spellings(in->agg),
    };

    in->agg->form->read(&o, &in->ahead, r, n, working);
}

static INLINE void find_group(struct ingest *in, struct group *g)
{
    const struct dsd_ahead *d = in->ahead.lines;
    const uint32_t n = in->ahead.n;
    const struct agg *a = in->agg;
    const struct spellings s = context_spellings(a);
    /* Where no store can change them. */
    struct context *const contexts = a->contexts;
    const struct alias *const aliases = a->aliases;
    const unsigned char *const blocks = a->blocks;
    uint32_t refs[DSD_AHEAD_LINES];
    uint32_t
        elsewhere[DSD_AHEAD_LINES]; /* lines that are not where they belong */
    uint32_t n_elsewhere = 0;

    for (uint32_t i = 0; i < n; i++) {
        refs[i] = context_guess(s, d[i].hash);
        if (__builtin_expect(refs[i] == 0, 0)) {
            __builtin_prefetch(context_next_line(s, d[i].hash));
            elsewhere[n_elsewhere++] = i;
        }
        __builtin_prefetch(context_record(contexts, aliases, refs[i]));
    }
    for (uint32_t k = 0; k < n_elsewhere; k++) {
        uint32_t i = elsewhere[k];

        refs[i] =
            table_look(context_next_line(s, d[i].hash), (uint32_t)d[i].hash.lo);
        __builtin_prefetch(context_record(contexts, aliases, refs[i]));
    }
    for (uint32_t i = 0; i < n; i++) {
        struct context *c = context_at(contexts, aliases, refs[i], d[i].hash);

        if (__builtin_expect(c == NULL, 0))
            c = context_find(a, d[i].hash);
        if (__builtin_expect(c != NULL, 1))
            __builtin_prefetch(blocks + (size_t)c->cell * BLOCK_REF_UNIT, 1);
        g->of[i] = c;
    }
}

/* The long way of a line that was read ahead. */
static void apply_one(struct ingest *in, const struct dsd_ahead *d,
                      struct context *c)
{
    enum dsd_result r;

    if (is_filtered(in, d->type)) {
        count(in, &agg_counts(in->agg)->filtered[FILTER_DISABLED], 1);
        return;
    }
    dsd_ahead_fill(&in->sample, d);
    r = agg_sample_of(in->agg, &in->sample, c);
    if (r != DSD_METRIC)
        name_offender(in, r, d->name,
                      d->n_bytes - (d->name[d->n_bytes - 1] == '\n'));
}

static INLINE bool apply_plain(struct cell_plain *k, const struct dsd_ahead *d,
                               const struct context *c)
{
    double v = d->value;

    if (c == NULL)
        return false;
    if (d->is_rated) {
        if (d->bad_rate)
            return false;
        if (c->kind == KIND_COUNTER)
            v = rated_value(v, d->rate);
    }
    return cell_add_plain(k, c, v);
}

/* Applies lines from @i on, up to the first that takes the long way, or to @to. Not
 * inlined: here it has all registers. */
static __attribute__((noinline)) uint32_t apply_run(const struct ingest *in,
                                                    const struct group *g,
                                                    uint32_t i, uint32_t to)
{
    struct cell_plain k = cell_plain_of(in->agg, to - i);
    const struct dsd_ahead *d = in->ahead.lines;
    uint32_t from = i;

    if (in->drop_series)
        return i;
    while (i < to && apply_plain(&k, &d[i], g->of[i]))
        i++;
    in->agg->pending_aggregated += i - from;
    return i;
}

/* Applies the first @n lines of the packets at @r, until the stretch is full. Returns
 * how many. */
static uint32_t apply_lines(struct ingest *in, struct stretch *st,
                            const struct group *g, uint32_t n,
                            const struct dsd_packet *r, uint32_t *working)
{
    uint32_t i = apply_run(in, g, 0, n);
    uint32_t packet = 0;

    while (i < n && !st->full) {
        while (packet < in->ahead.n_packets && in->ahead.ends[packet] <= i)
            packet++;
        *working = r[packet].record;
        apply_one(in, &in->ahead.lines[i], g->of[i]);
        st->full = is_full(in, st); /* it may have filled it */
        i++;
        if (!st->full)
            i = apply_run(in, g, i, n);
    }
    st->n_lines += i;
    st->n_received += i;
    return i;
}

/* Bytes of the packet at @p up to line @to. */
static size_t bytes_to(const struct ingest *in, const char *p, uint32_t to)
{
    const struct dsd_ahead *last = &in->ahead.lines[to - 1];

    return (size_t)(last->name - p) + last->n_bytes;
}

/* Usual lines at @p. Returns their bytes. */
static size_t group(struct ingest *in, struct stretch *st, const char *p,
                    size_t n, bool may_end_bare)
{
    const struct dsd_packet packet = {.p = p, .n = (uint32_t)n};
    struct group g;
    uint32_t working;

    read_ahead(in, &packet, 1, &working, may_end_bare);
    if (in->ahead.n == 0)
        return 0;
    find_group(in, &g);
    return bytes_to(in, p,
                    apply_lines(in, st, &g, in->ahead.n, &packet, &working));
}

/* One line of any sort. Returns its bytes with its LF; 0: not all of its values
 * are applied yet (*from of them are). */
static size_t single(struct ingest *in, struct stretch *st, const char *p,
                     size_t n, enum transport t, unsigned flags, uint32_t *from)
{
    const char *lf = memchr(p, '\n', n);

    if (lf == NULL)
        last_line(in, st, p, n, t, flags, from);
    else
        *from = line(in, st, p, (size_t)(lf - p), *from);
    st->n_lines++;
    if (*from != 0)
        return 0;
    return lf == NULL ? n : (size_t)(lf - p) + 1;
}

void ingest_packet(struct ingest *in, struct ingest_pos *pos,
                   uint32_t next_record, const char *packet, size_t n,
                   enum transport t, unsigned flags, int64_t now_s)
{
    struct stretch st = {0};
    uint32_t record = pos->record;
    uint32_t from = values_done(in, pos);
    bool may_end_bare = (flags & INGEST_TRUNCATED) == 0 && !in->eol_required[t];
    size_t at = pos->offset;

    REQUIRE(at <= n && n < UINT32_MAX);
    in->now_s = now_s;
    in->agg->own = t == TRANSPORT_KERNEL ? SPELLING_OWN : 0;
    agg_begin(in->agg, now_s);
    if (at == 0 && from == 0 && t != TRANSPORT_KERNEL &&
        (flags & INGEST_CONTINUED) == 0) {
        st.n_datagrams = 1;
        st.n_bytes = n;
        if ((flags & INGEST_TRUNCATED) != 0)
            count(in, &agg_counts(in->agg)->truncated_datagrams, 1);
    }
    while (at < n) {
        size_t done = 0;

        if (from == 0)
            done = group(in, &st, packet + at, n - at, may_end_bare);
        if (done == 0)
            done = single(in, &st, packet + at, n - at, t, flags, &from);
        at += done;
        if (at < n && (from != 0 || is_full(in, &st))) {
            set_values_done(in, pos, (uint32_t)at, from);
            commit(in, &st, t, pos, (struct ingest_pos){record, (uint32_t)at});
            agg_begin(in->agg, now_s);
        }
    }
    set_values_done(in, pos, 0, 0);
    commit(in, &st, t, pos, (struct ingest_pos){next_record, 0});
}

uint32_t ingest_datagrams(struct ingest *in, struct ingest_pos *pos,
                          const struct dsd_packet *r, uint32_t n,
                          uint32_t *working, enum transport t, int64_t now_s)
{
    const struct dsd_ahead_lines *ahead = &in->ahead;
    struct stretch st = {0};
    struct ingest_pos to;
    struct group g;
    uint32_t n_lines, i;

    if (pos->offset != 0 || values_done(in, pos) > 0)
        return 0;
    in->now_s = now_s;
    in->agg->own = 0;
    agg_begin(in->agg, now_s);
    read_ahead(in, r, n, working, !in->eol_required[t]);
    if (ahead->n_packets == 0)
        return 0;
    in->ahead.n = ahead->ends[ahead->n_packets - 1];
    find_group(in, &g);
    n_lines = apply_lines(in, &st, &g, ahead->n, r, working);
    i = ahead->n_packets;
    st.n_bytes = ahead->n_bytes;
    to = (struct ingest_pos){r[i - 1].next, 0};
    if (n_lines < ahead->n) {
        for (i = 0, st.n_bytes = 0; ahead->ends[i] <= n_lines; i++)
            st.n_bytes += r[i].n;
        to = (struct ingest_pos){r[i].record, 0};
        if (n_lines > (i > 0 ? ahead->ends[i - 1] : 0)) {
            st.n_datagrams = 1; /* counted by its first line */
            st.n_bytes += r[i].n;
            to.offset = (uint32_t)bytes_to(in, r[i].p, n_lines);
        }
    }
    st.n_datagrams += i;
    set_values_done(in, pos, 0, 0);
    commit(in, &st, t, pos, to);
    return i;
}

void ingest_skip(struct ingest *in, struct ingest_pos *pos,
                 uint32_t next_record, enum transport t)
{
    struct stretch st = {0};

    count(in, &agg_counts(in->agg)->rejected[DSD_POISON], 1);
    st.n_received = 1;
    set_values_done(in, pos, 0, 0);
    commit(in, &st, t, pos, (struct ingest_pos){next_record, 0});
}
