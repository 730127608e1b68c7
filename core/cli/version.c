/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/arguments.h"
#include "cli/verbs.h"

#include <homeport/plugin.h>
#include <stdio.h>

static const struct usage usage = {
    .verb = "version",
    .operands = "",
    .text = "Prints the version of homeport and of the plugin ABI that it speaks. It loads plugins that\n"
            "were built for the same major number.",
    .example = "homeport version",
    .options = ARGUMENT_JSON,
};

int cli_version(int argc, char **argv)
{
    struct arguments arguments;
    int status = arguments_read(&arguments, &usage, argc, argv);

    if (status >= 0)
        return status;
    if (arguments.json)
        printf("{\n  \"ok\": true,\n  \"version\": \"%s\",\n  \"abi\": \"%u.%u\"\n}\n", HOMEPORT_VERSION, HP_ABI_MAJOR,
               HP_ABI_MINOR);
    else
        printf("homeport %s, plugin ABI %u.%u\n", HOMEPORT_VERSION, HP_ABI_MAJOR, HP_ABI_MINOR);
    return 0;
}
