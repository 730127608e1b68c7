/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/arguments.h"
#include "cli/verbs.h"
#include "process/process.h"

static const struct usage usage = {
    .verb = "check",
    .operands = "[FILE]",
    .text = "Checks a configuration as the daemon would: the whole file, every plugin that it names and\n"
            "their options, this machine's addresses and ports. All errors of the text come in one go, as\n"
            "FILE:LINE:COLUMN, then those of the plugins' options. Exit status 1 when there are errors;\n"
            "warnings alone are 0.",
    .example = "homeport check ./homeport.yaml",
    .options = ARGUMENT_CONFIG,
    .most = 1,
};

int cli_check(int argc, char **argv)
{
    struct arguments arguments;
    int status = arguments_read(&arguments, &usage, argc, argv);

    if (status >= 0)
        return status;
    return check_run(arguments.operand_count > 0 ? arguments.operands[0] : arguments.config);
}
