/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bpf/cuda.h"

#define UUID_0 "GPU-8923b5c5-1111-2222-3333-444444444444"
#define UUID_1 "GPU-8a45b5c5-1111-2222-3333-444444444444"

/* Two devices of one model. */
static const struct cuda_devices two = {
    .n = 2,
    .v = {{.bus = "0000:07:00.0", .uuid = UUID_0, .model = "A"},
          {.bus = "0000:0f:00.0", .uuid = UUID_1, .model = "A"}},
};
static const struct cuda_devices unlike = {
    .n = 2,
    .v = {{.bus = "0000:07:00.0", .uuid = UUID_0, .model = "A"},
          {.bus = "0000:0f:00.0", .uuid = UUID_1, .model = "B"}},
};
static const struct cuda_devices none;

/* "1,0", "none", "all", "error" */
static const char *meaning(const char *value, const struct cuda_devices *d,
                           enum cuda_semantics semantics)
{
    static char text[4096];
    struct cuda_list list;
    size_t n = 0;

    cuda_parse(value, strlen(value), d, semantics, &list);
    if (list.is_all)
        return "all";
    if (list.is_error)
        return "error";
    if (list.n == 0)
        return "none";
    for (uint32_t i = 0; i < list.n; i++)
        n += (size_t)(list.v[i].index >= 0
                          ? snprintf(text + n, sizeof(text) - n, "%s%d",
                                     i > 0 ? "," : "", list.v[i].index)
                          : snprintf(text + n, sizeof(text) - n, "%s%s",
                                     i > 0 ? "," : "", list.v[i].uuid));
    return text;
}

static void a_value_means_what_the_table_says(void **state)
{
    static const struct {
        const char *value, *cuda, *datadog;
    } rows[] = {
        {"", "none", "all"},
        {"0", "0", "0"},
        {"1,0", "1,0", "1,0"},
        {"0,235,1", "0", "error"},
        {"-1", "none", "error"},
        {"NoDevFiles", "none", "error"},
        {"0,-1,1", "0", "error"},
        {"0,0", "none", "0,0"},
        {"1gpu2,0x", "1,0", "error"},
        {" 0, 1", "0,1", "error"},
        {"0,", "0", "error"},
        {",", "none", "error"},
        {"GPU-89", UUID_0, UUID_0},
        {"GPU-8", "none", "error"},        /* both begin so */
        {"GPU-8a,GPU-8", UUID_1, "error"}, /* stops at the ambiguous one */
        {"GPU-77", "none", "error"},       /* neither does */
        {"GPU-89,0", UUID_0, UUID_0 ",0"}, /* another kind */
        {"0,GPU-89", "0", "0," UUID_0},    /* the other way round */
        {"GPU-89,GPU-892", "none", UUID_0 "," UUID_0}, /* twice the same */
        {"MIG-1,MIG-2", "MIG-1,MIG-2", "MIG-1"},
        {"0,MIG-1", "0", "MIG-1"},
        {"99999999999999999999", "none", "error"},
        {"+1", "1", "1"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *got = meaning(rows[i].value, &two, CUDA_AS_CUDA);

        if (strcmp(got, rows[i].cuda) != 0)
            fail_msg("cuda: \"%s\" means %s", rows[i].value, got);
        got = meaning(rows[i].value, &two, CUDA_AS_DATADOG);
        if (strcmp(got, rows[i].datadog) != 0)
            fail_msg("datadog: \"%s\" means %s", rows[i].value, got);
    }
}

static void without_devices_only_the_form_is_checked(void **state)
{
    (void)state;
    assert_string_equal(meaning("7,9", &none, CUDA_AS_CUDA), "7,9");
    assert_string_equal(meaning("GPU-8", &none, CUDA_AS_CUDA), "GPU-8");
    assert_string_equal(meaning("7,x", &none, CUDA_AS_DATADOG), "error");
}

static void long_lists_are_cut(void **state)
{
    char value[4096];
    struct cuda_list list;
    size_t n = 0;

    (void)state;
    for (int i = 0; i < 500; i++)
        n += (size_t)snprintf(value + n, sizeof(value) - n, "%s%d",
                              i > 0 ? "," : "", i);
    cuda_parse(value, n, &none, CUDA_AS_CUDA, &list);
    assert_int_equal(list.n, CUDA_MAX_DEVICES);
    cuda_parse(value, n, &none, CUDA_AS_DATADOG, &list);
    assert_int_equal(list.n, CUDA_MAX_DEVICES);
}

static void hostile_values_have_a_meaning(void **state)
{
    uint32_t seed = 1;
    struct cuda_list list;
    char value[64], tags[CUDA_TAGS_BYTES];

    (void)state;
    for (int i = 0; i < 20000; i++) {
        static const char alphabet[] = "01,,-+GPU-MIG x9\t|#\n";
        size_t n;

        seed = seed * 1103515245 + 12345;
        n = seed >> 16 & 63;
        for (size_t k = 0; k < n; k++) {
            seed = seed * 1103515245 + 12345;
            value[k] = alphabet[(seed >> 16) % (sizeof(alphabet) - 1)];
        }
        cuda_parse(value, n, &two, (enum cuda_semantics)(i & 1), &list);
        n = cuda_tags(&list, &two, (i & 2) != 0, tags, sizeof(tags));
        assert_int_equal(strlen(tags), n);
        assert_null(strpbrk(tags, "|#\n"));
    }
}

static const char *tags_of(const char *value, const struct cuda_devices *d,
                           bool by_bus)
{
    static char tags[CUDA_TAGS_BYTES];
    struct cuda_list list;

    cuda_parse(value, strlen(value), d, CUDA_AS_CUDA, &list);
    (void)cuda_tags(&list, d, by_bus, tags, sizeof(tags));
    return tags;
}

static void tags_name_devices(void **state)
{
    (void)state;
    assert_string_equal(tags_of("1", &none, false),
                        "cuda_visible_devices:1,gpu_index:1");
    assert_string_equal(tags_of("", &two, false), "cuda_visible_devices:none");
    assert_string_equal(tags_of("1,0", &two, false),
                        "cuda_visible_devices:1_0,gpu_index:1,gpu_uuid:" UUID_1
                        ",gpu_index:0,gpu_uuid:" UUID_0);
    assert_string_equal(tags_of("GPU-8a", &two, false),
                        "cuda_visible_devices:" UUID_1
                        ",gpu_index:1,gpu_uuid:" UUID_1);
}

/* The default order is fastest first, which is not that of the bus. */
static void unlike_devices_are_not_told_by_index(void **state)
{
    (void)state;
    assert_string_equal(tags_of("1", &unlike, false),
                        "cuda_visible_devices:1,gpu_index:1");
    assert_string_equal(tags_of("1", &unlike, true),
                        "cuda_visible_devices:1,gpu_index:1,gpu_uuid:" UUID_1);
    assert_string_equal(tags_of("GPU-8a", &unlike, false),
                        "cuda_visible_devices:" UUID_1 ",gpu_uuid:" UUID_1);
}

static void no_tag_is_too_long(void **state)
{
    char value[1024] = "";
    char uuid[64];
    const char *tags;

    (void)state;
    for (int i = 0; i < 16; i++) {
        (void)snprintf(uuid, sizeof(uuid),
                       "%sGPU-%08d-1111-2222-3333-444444444444",
                       i > 0 ? "," : "", i);
        memcpy(value + strlen(value), uuid, strlen(uuid) + 1);
    }
    tags = tags_of(value, &none, false);
    assert_true(strcspn(tags, ",") < 200);
    assert_non_null(strstr(tags, "_etc,gpu_uuid:GPU-00000000"));
    assert_non_null(strstr(tags, "gpu_uuid:GPU-00000015"));
}

/* ---- /proc/driver/nvidia ------------------------------------------------ */

static const char information[] = "Model: \t\t NVIDIA H100 80GB HBM3\n"
                                  "IRQ:   \t\t 52\n"
                                  "GPU UUID: \t " UUID_0 "\n"
                                  "Video BIOS: \t 96.00.61.00.01\n"
                                  "Bus Type: \t PCIe\n"
                                  "DMA Size: \t 52 bits\n"
                                  "DMA Mask: \t 0xfffffffffffff\n"
                                  "Bus Location: \t 0000:0f:00.0\n"
                                  "Device Minor: \t 3\n"
                                  "GPU Firmware: \t 535.104.05\n"
                                  "GPU Excluded:\t No\n";

static void information_is_read(void **state)
{
    struct cuda_device d;

    (void)state;
    assert_true(cuda_parse_information(information, &d));
    assert_string_equal(d.uuid, UUID_0);
    assert_string_equal(d.model, "NVIDIA H100 80GB HBM3");
    assert_string_equal(d.bus, "0000:0f:00.0");
    assert_int_equal(d.minor, 3);
    assert_false(cuda_parse_information("", &d));
    /* before the driver has looked at the device */
    assert_true(cuda_parse_information("GPU UUID: \t GPU-?\077-?\n", &d));
    assert_string_equal(d.uuid, "");
    assert_false(cuda_parse_information("Model: \t x\nGPU UUID:", &d));
    assert_false(cuda_parse_information("GPU UUID: \t DLA-1\n", &d));
}

static void put_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void devices_are_in_the_order_of_the_bus(void **state)
{
    static const char *const folders[] = {
        "/proc",
        "/proc/driver",
        "/proc/driver/nvidia",
        "/proc/driver/nvidia/gpus",
        "/proc/driver/nvidia/gpus/0000:0f:00.0",
        "/proc/driver/nvidia/gpus/0000:07:00.0",
        "/proc/driver/nvidia/gpus/empty"};
    size_t n = sizeof(folders) / sizeof(folders[0]);
    char root[] = "/tmp/retriever-cuda-XXXXXX", path[256];
    struct cuda_devices d;

    (void)state;
    assert_non_null(mkdtemp(root));
    assert_int_equal(cuda_devices_read(root, &d), 0);
    assert_int_equal(d.n, 0);
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(path, sizeof(path), "%s%s", root, folders[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    (void)snprintf(path, sizeof(path), "%s%s/information", root, folders[4]);
    put_file(path, information);
    (void)snprintf(path, sizeof(path), "%s%s/information", root, folders[5]);
    put_file(path, "GPU UUID: \t " UUID_1 "\nBus Location: \t 0000:07:00.0\n");
    assert_int_equal(cuda_devices_read(root, &d), 0);
    for (size_t i = 4; i < 6; i++) {
        (void)snprintf(path, sizeof(path), "%s%s/information", root,
                       folders[i]);
        assert_int_equal(unlink(path), 0);
    }
    for (size_t i = n; i > 0; i--) {
        (void)snprintf(path, sizeof(path), "%s%s", root, folders[i - 1]);
        assert_int_equal(rmdir(path), 0);
    }
    assert_int_equal(rmdir(root), 0);
    assert_int_equal(d.n, 2);
    assert_string_equal(d.v[0].uuid, UUID_1);
    assert_string_equal(d.v[1].uuid, UUID_0);
    assert_int_equal(d.v[0].minor, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_means_what_the_table_says),
        cmocka_unit_test(without_devices_only_the_form_is_checked),
        cmocka_unit_test(long_lists_are_cut),
        cmocka_unit_test(hostile_values_have_a_meaning),
        cmocka_unit_test(tags_name_devices),
        cmocka_unit_test(unlike_devices_are_not_told_by_index),
        cmocka_unit_test(no_tag_is_too_long),
        cmocka_unit_test(information_is_read),
        cmocka_unit_test(devices_are_in_the_order_of_the_bus),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
