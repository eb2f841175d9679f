/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One table of 256 bytes decides ASCII; beyond ASCII a character counts as a
 * letter unless it lies in one of a few blocks of spaces, punctuation and
 * symbols. The intake asks the Unicode database; the difference can only touch
 * which of two exotic spellings share a series, never what is sent.
 */
#include "aggregator/normalise.h"

#include <stdint.h>
#include <string.h>

enum {
    IN_NAME = 1,   /* [A-Za-z0-9_.] */
    IN_TAG = 2,    /* [A-Za-z0-9_:./-] */
    IS_LETTER = 4, /* [A-Za-z] */
    IS_UPPER = 8,
    /* Stay what they are, among others of their kind: */
    NAME_STAYS = 16, /* [A-Za-z0-9.] */
    TAG_STAYS = 32,  /* [a-z0-9_:./-] */
};

#define UPPER (IN_NAME | IN_TAG | IS_LETTER | IS_UPPER | NAME_STAYS)
#define LOWER (IN_NAME | IN_TAG | IS_LETTER | NAME_STAYS | TAG_STAYS)
#define DIGIT (IN_NAME | IN_TAG | NAME_STAYS | TAG_STAYS)

static const uint8_t class_of[256] = {
    ['-'] = IN_TAG | TAG_STAYS,
    ['.'] = IN_NAME | IN_TAG | NAME_STAYS | TAG_STAYS,
    ['/'] = IN_TAG | TAG_STAYS,
    ['0' ... '9'] = DIGIT,
    [':'] = IN_TAG | TAG_STAYS,
    ['A' ... 'Z'] = UPPER,
    ['a' ... 'z'] = LOWER,
    ['_'] = IN_NAME | IN_TAG | TAG_STAYS,
};

/* The classes that the eight bytes at @p have in common. */
static uint8_t class_of_eight(const unsigned char *p)
{
    return class_of[p[0]] & class_of[p[1]] & class_of[p[2]] & class_of[p[3]] &
           class_of[p[4]] & class_of[p[5]] & class_of[p[6]] & class_of[p[7]];
}

#define REPLACEMENT_UTF8 "\xef\xbf\xbd"

/*
 * First character of the n > 0 bytes at p. Returns how many bytes it takes and
 * sets *cp; where they are no character, *cp is -1 and the length is that of
 * the longest start of one (at least 1), as the Unicode Standard recommends for
 * replacement (chapter 3, "U+FFFD Substitution of Maximal Subparts").
 */
static size_t decode(const unsigned char *p, size_t n, int32_t *cp)
{
    unsigned char first = p[0];
    unsigned char low = 0x80, high = 0xbf; /* bounds of the second byte */
    size_t len;
    int32_t c;

    *cp = -1;
    if (first < 0x80) {
        *cp = first;
        return 1;
    }
    if (first < 0xc2 || first > 0xf4)
        return 1;
    if (first < 0xe0) {
        len = 2;
        c = first & 0x1f;
    } else if (first < 0xf0) {
        len = 3;
        c = first & 0x0f;
        if (first == 0xe0)
            low = 0xa0; /* overlong below */
        else if (first == 0xed)
            high = 0x9f; /* surrogates above */
    } else {
        len = 4;
        c = first & 0x07;
        if (first == 0xf0)
            low = 0x90; /* overlong below */
        else if (first == 0xf4)
            high = 0x8f; /* above U+10FFFF */
    }
    for (size_t i = 1; i < len; i++) {
        if (i == n || p[i] < low || p[i] > high)
            return i;
        low = 0x80;
        high = 0xbf;
        c = (c << 6) | (p[i] & 0x3f);
    }
    *cp = c;
    return len;
}

/* How many of the first bytes are ASCII. */
static size_t ascii_prefix(const char *p, size_t n)
{
    size_t i = 0;

    while (n - i >= 8) {
        uint64_t word;

        memcpy(&word, p + i, 8);
        if (word & 0x8080808080808080)
            break;
        i += 8;
    }
    while (i < n && (unsigned char)p[i] < 0x80)
        i++;
    return i;
}

/* Is this character beyond ASCII a letter or a digit, near enough? */
static int is_letter_like(int32_t cp)
{
    static const struct {
        int32_t from, to;
    } not_letters[] = {
        {0x0080, 0x00a9}, /* C1 controls, Latin-1 punctuation */
        {0x00ab, 0x00b4},    {0x00b6, 0x00b9}, {0x00bb, 0x00bf},
        {0x00d7, 0x00d7},    {0x00f7, 0x00f7}, /* multiply, divide */
        {0x2000, 0x206f}, /* general punctuation and its spaces */
        {0x20a0, 0x20cf}, /* currency */
        {0x2190, 0x2bff}, /* arrows, mathematics, boxes, symbols */
        {0x2e00, 0x2e7f}, /* supplemental punctuation */
        {0x3000, 0x3004},    {0x3008, 0x3020}, /* CJK punctuation */
        {0xe000, 0xf8ff},                      /* private use */
        {0xfe00, 0xfe1f},    {0xfe30, 0xfe6f}, /* selectors, forms */
        {0xfeff, 0xff0f},    {0xff1a, 0xff20}, /* BOM, full-width signs */
        {0xfff0, 0xffff},                      /* specials, U+FFFD among them */
        {0x1f000, 0x1faff},                    /* emoji */
        {0xe0000, 0x10ffff},                   /* tags, private use planes */
    };

    for (size_t i = 0; i < sizeof(not_letters) / sizeof(not_letters[0]); i++) {
        if (cp < not_letters[i].from)
            return 1;
        if (cp <= not_letters[i].to)
            return 0;
    }
    return 1;
}

size_t normalise_name(char *out, const char *in, size_t n)
{
    const unsigned char *p = (const unsigned char *)in;
    size_t i = 0;
    size_t o = 0;

    while (i < n && !(class_of[p[i]] & IS_LETTER))
        i++;
    /* The first character is a letter: behind it out[o - 1] exists. */
    while (i < n && o < NORMALISE_NAME_MAX) {
        unsigned char c;

        if (n - i >= 8 && NORMALISE_NAME_MAX - o >= 8 &&
            (class_of_eight(p + i) & NAME_STAYS) &&
            (p[i] != '.' || out[o - 1] != '_')) {
            memcpy(out + o, p + i, 8);
            i += 8;
            o += 8;
            continue;
        }
        c = class_of[p[i]] & IN_NAME ? p[i] : '_';
        i++;
        if (c == '_' && (out[o - 1] == '_' || out[o - 1] == '.'))
            continue;
        if (c == '.' && out[o - 1] == '_')
            o--;
        out[o++] = (char)c;
    }
    return o;
}

size_t normalise_tag(char *out, const char *in, size_t n)
{
    const unsigned char *p = (const unsigned char *)in;
    size_t i = 0;
    size_t o = 0;

    while (i < n && o < NORMALISE_TAG_MAX) {
        unsigned char c = p[i];
        int32_t cp;
        size_t len;

        if (n - i >= 8 && NORMALISE_TAG_MAX - o >= 8 &&
            (class_of_eight(p + i) & TAG_STAYS)) {
            memcpy(out + o, p + i, 8);
            i += 8;
            o += 8;
            continue;
        }
        if (c < 0x80) {
            if (class_of[c] & IS_UPPER)
                c |= 0x20;
            out[o++] = class_of[c] & IN_TAG ? (char)c : '_';
            i++;
            continue;
        }
        len = decode(p + i, n - i, &cp);
        if (cp < 0 || !is_letter_like(cp)) {
            out[o++] = '_';
        } else {
            if (o + len > NORMALISE_TAG_MAX)
                break;
            memcpy(out + o, in + i, len);
            o += len;
        }
        i += len;
    }
    while (o > 0 && out[o - 1] == '_')
        o--;
    return o;
}

size_t utf8_clean(char *out, size_t max, const char *in, size_t n,
                  unsigned *n_bad, int *cut)
{
    const unsigned char *p = (const unsigned char *)in;
    size_t i = 0;
    size_t o = 0;

    while (i < n) {
        size_t fits = n - i < max - o ? n - i : max - o;
        size_t len = ascii_prefix(in + i, fits);
        size_t out_len;
        int32_t cp;

        if (len > 0) {
            memcpy(out + o, in + i, len);
            i += len;
            o += len;
            continue;
        }
        len = decode(p + i, n - i, &cp);
        out_len = cp < 0 ? sizeof(REPLACEMENT_UTF8) - 1 : len;
        if (out_len > max - o) {
            *cut = 1;
            break;
        }
        memcpy(out + o, cp < 0 ? REPLACEMENT_UTF8 : in + i, out_len);
        *n_bad += cp < 0;
        i += len;
        o += out_len;
    }
    return o;
}

int utf8_valid(const char *in, size_t n)
{
    const unsigned char *p = (const unsigned char *)in;
    size_t i = 0;

    while (i < n) {
        int32_t cp;

        i += ascii_prefix(in + i, n - i);
        if (i == n)
            break;
        i += decode(p + i, n - i, &cp);
        if (cp < 0)
            return 0;
    }
    return 1;
}
