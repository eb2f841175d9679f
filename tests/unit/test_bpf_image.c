/* SPDX-License-Identifier: Apache-2.0 */
/* Paths of somebody else's root: what lies there was put there by him. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bpf/image.h"

static char root[] = "/tmp/retriever-image-XXXXXX";
static int root_fd = -1;
static const char *const names[] = {"file", "fifo", "out",
                                    "in",   "loop", "magic"};

static int make_root(void **state)
{
    int fd;

    (void)state;
    memcpy(root + sizeof(root) - 7, "XXXXXX", 6);
    if (mkdtemp(root) == NULL)
        return -1;
    root_fd = open(root, O_PATH | O_CLOEXEC);
    fd = openat(root_fd, "file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, "text", 4) != 4 || close(fd) != 0)
        return -1;
    return mkfifoat(root_fd, "fifo", 0600) == 0 &&
                   symlinkat("/../../etc/passwd", root_fd, "out") == 0 &&
                   symlinkat("/../file", root_fd, "in") == 0 &&
                   symlinkat("loop", root_fd, "loop") == 0 &&
                   symlinkat("/proc/self/exe", root_fd, "magic") == 0
               ? 0
               : -1;
}

static int remove_root(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        (void)unlinkat(root_fd, names[i], 0);
    (void)close(root_fd);
    return rmdir(root);
}

static void links_stay_below_the_root(void **state)
{
    char text[8] = "";
    int fd = image_open(root_fd, "/in");

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(read(fd, text, sizeof(text)), 4);
    assert_string_equal(text, "text");
    (void)close(fd);
    assert_int_equal(image_open(root_fd, "/out"), -ENOENT);
    assert_int_equal(image_open(root_fd, "/magic"), -ENOENT);
    assert_int_equal(image_open(root_fd, "/loop"), -ELOOP);
}

/* Opening a pipe would wait for a writer, opening a device might do anything. */
static void only_files_are_opened(void **state)
{
    (void)state;
    assert_int_equal(image_open(root_fd, "/fifo"), -EINVAL);
    assert_int_equal(image_open(root_fd, "/"), -EINVAL);
    assert_int_equal(image_open(-1, "/dev/null"), -EINVAL);
}

static void what_is_no_program_has_nothing(void **state)
{
    struct images *images;
    const struct image *im;
    int fd = image_open(root_fd, "/file");

    (void)state;
    assert_int_equal(images_create(&images), 0);
    im = image_get(images, fd);
    assert_non_null(im);
    assert_false(im->is_elf || im->has_environ || im->n_functions > 0);
    assert_null(image_get(images, -1));
    (void)close(fd);
    fd = image_open(-1, "/proc/self/exe");
    im = image_get(images, fd);
    assert_true(im->is_elf && !im->is_static);
    assert_int_equal(im->interpreter[0], '/');
    (void)close(fd);
    images_close(images);
}

/* The same inode, but another content. */
static void a_file_that_changed_is_read_again(void **state)
{
    struct images *images;
    int exe = image_open(-1, "/proc/self/exe");
    int to = openat(root_fd, "file", O_RDWR | O_CLOEXEC);
    char bytes[4096];
    ssize_t n;

    (void)state;
    assert_int_equal(images_create(&images), 0);
    assert_false(image_get(images, to)->is_elf);
    while ((n = read(exe, bytes, sizeof(bytes))) > 0)
        assert_int_equal(write(to, bytes, (size_t)n), n);
    assert_true(image_get(images, to)->is_elf);
    (void)close(exe);
    (void)close(to);
    images_close(images);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, make_root, remove_root)
    const struct CMUnitTest tests[] = {
        CASE(links_stay_below_the_root),
        CASE(only_files_are_opened),
        CASE(what_is_no_program_has_nothing),
        CASE(a_file_that_changed_is_read_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
