// SPDX-License-Identifier: MIT
// The `vkmoe` program: finds the command and runs it.
#include "cli.h"
#include "commands.h"

#include <stdio.h>

struct command {
    const char *name;
    const char *summary;
    int (*run)(int argc, char **argv);
};

static const struct command commands[] = {
#define COMMAND_ROW(name, summary) {#name, summary, cmd_##name},
    COMMAND_LIST(COMMAND_ROW)
#undef COMMAND_ROW
};

static void print_help(FILE *file)
{
    fputs("Usage: vkmoe COMMAND [options]\n\n"
          "Runs Mixture-of-Experts layers on Vulkan devices and on the CPU.\n\nCommands:\n",
          file);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(file, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fputs("\nvkmoe COMMAND --help tells more. Exit codes: 0 ok, 1 failure, 2 usage,\n"
          "3 verification failed, 4 regression, 5 no usable device, 130 interrupted.\n",
          file);
}

static int run(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        print_help(stdout);
        return CLI_OK;
    }
    if (strcmp(name, "--version") == 0) {
        uint32_t version = vkmoe_version();
        printf("vkmoe %u.%u.%u\n", (unsigned) (version >> 22),
               (unsigned) (version >> 12 & 0x3ff), (unsigned) (version & 0xfff));
        return CLI_OK;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(name, commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    }
    if (*name)
        cli_error("unknown command '%s'", name);
    print_help(stderr);
    return CLI_USAGE;
}

int main(int argc, char **argv)
{
    cli_catch_interrupt();
    int code = run(argc, argv);
    // A full disk behind stdout shows only here.
    if (fflush(stdout) != 0 || ferror(stdout)) {
        cli_error("standard output could not be written");
        return code == CLI_OK ? CLI_FAILED : code;
    }
    return code;
}
