/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a value of CUDA_VISIBLE_DEVICES means on this host, and the tags that say so.
 *
 * Thread:  any; no state.
 * Memory:  the caller's.
 * Promise: total over all values and all texts of the driver; pure but for
 *          cuda_devices_read(). How the driver itself reads odd values is not
 *          documented: the rules are those that PyTorch's own parser follows, and
 *          have not been compared with a driver.
 */
#ifndef RETRIEVER_BPF_CUDA_H
#define RETRIEVER_BPF_CUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CUDA_MAX_DEVICES 64u
#define CUDA_MAX_TAGGED 16u /* devices with tags of their own */
#define CUDA_UUID_BYTES 64u
#define CUDA_TAGS_BYTES 2048u /* enough for whatever cuda_tags() writes */

struct cuda_device {
    char bus[24];               /* "0000:07:00.0" */
    char uuid[CUDA_UUID_BYTES]; /* "" = not told yet */
    char model[96];
    int32_t minor; /* -1 = not told */
};

/** In the order of their places on the bus. */
struct cuda_devices {
    uint32_t n; /* 0 = nothing is known */
    struct cuda_device v[CUDA_MAX_DEVICES];
};

enum cuda_semantics {
    CUDA_AS_CUDA,   /* what is wrong ends the list */
    CUDA_AS_DATADOG /* what is wrong empties it, "" means all */
};

/** One that the value names. */
struct cuda_item {
    int32_t index;              /* -1 = named by UUID */
    char uuid[CUDA_UUID_BYTES]; /* of a GPU or MIG instance; "" by index */
    bool is_mig;
};

struct cuda_list {
    bool is_all;
    bool is_error; /* CUDA_AS_DATADOG: so nothing is visible */
    uint32_t n;
    struct cuda_item v[CUDA_MAX_DEVICES];
};

/** Devices that the driver lists below @root ("" = ours). Returns 0 (.n may be 0) or
 *  -errno. */
int cuda_devices_read(const char *root, struct cuda_devices *out);

/** The text of /proc/driver/nvidia/gpus/BUS/information. False: no UUID in it. */
bool cuda_parse_information(const char *text, struct cuda_device *out);

/** Meaning of a variable that is set, to @n bytes. */
void cuda_parse(const char *value, size_t n, const struct cuda_devices *devices,
                enum cuda_semantics semantics, struct cuda_list *out);

/** Tags: cuda_visible_devices, and for each of the first CUDA_MAX_TAGGED devices
 *  gpu_index or gpu_uuid or both, as far as known. @by_bus: CUDA_DEVICE_ORDER is
 *  PCI_BUS_ID; else indices tell a device only where all are of one model. Returns
 *  the length; *out ends with a NUL. */
size_t cuda_tags(const struct cuda_list *list,
                 const struct cuda_devices *devices, bool by_bus, char *out,
                 size_t size);

#endif
