/* SPDX-License-Identifier: Apache-2.0 */
/* `retriever check`: the effective configuration, and what is wrong with it. */
#include <stdio.h>
#include <string.h>

#include "agent/cli.h"
#include "agent/config_table.h"

static void print_lines(const char *label, const struct string_list *lines)
{
    for (size_t i = 0; i < lines->n; i++)
        (void)fprintf(stderr, "%s: %s\n", label, lines->items[i]);
}

int cmd_check(int argc, char **argv)
{
    struct config_report report;
    struct cli_config cli;
    struct config cfg;
    int rc;

    /* For the build and its lint, hence not in the help. */
    if (argc == 2 && strcmp(argv[1], "--generate-docs") == 0) {
        config_write_docs(stdout);
        return EXIT_OK;
    }
    if (argc == 2 && strcmp(argv[1], "--generate-example") == 0) {
        config_write_example(stdout);
        return EXIT_OK;
    }
    rc = cli_parse_config(&cli, argc, argv);
    if (rc != 0)
        return rc == CLI_HELP ? EXIT_OK : EXIT_USAGE;
    if (cli.first < argc) {
        (void)fprintf(stderr,
                      "retriever check: unexpected argument '%s'; see "
                      "retriever check --help\n",
                      argv[cli.first]);
        return EXIT_USAGE;
    }
    if (config_load(&cfg, &cli.sources, &report) != 0) {
        (void)fprintf(stderr, "retriever check: out of memory\n");
        return EXIT_FAILED;
    }
    config_dump(&cfg, stdout);
    (void)fflush(stdout); /* what is wrong stands below, not in the middle */
    print_lines("note", &report.notes);
    print_lines("warning", &report.warnings);
    print_lines("error", &report.errors);
    if (report.n_dropped > 0)
        (void)fprintf(stderr, "... and %zu more\n", report.n_dropped);
    rc = report.errors.n > 0 ? EXIT_USAGE : EXIT_OK;
    config_report_fini(&report);
    config_fini(&cfg);
    return rc;
}
