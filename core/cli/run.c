/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/arguments.h"
#include "cli/verbs.h"
#include "process/process.h"

static const struct usage usage = {
    .verb = "run",
    .operands = "",
    .text = "Runs the daemon in the foreground until SIGTERM or SIGINT; SIGHUP reloads. It logs to\n"
            "standard error. A second one on the same state folder is refused.",
    .example = "homeport run -c /etc/homeport/homeport.yaml",
    .options = ARGUMENT_CONFIG,
};

int cli_run(int argc, char **argv)
{
    struct arguments arguments;
    int status = arguments_read(&arguments, &usage, argc, argv);

    return status >= 0 ? status : master_run(arguments.config);
}
