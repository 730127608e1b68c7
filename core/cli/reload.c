/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/client.h"
#include "cli/verbs.h"

#include <stdio.h>

static const struct usage usage = {
    .verb = "reload",
    .operands = "",
    .text = "Has the running daemon read its configuration again (the file that it was started with) and\n"
            "waits for the outcome. No datagram is dropped and no client moves; a file with errors\n"
            "changes nothing. The same as SIGHUP to the master, with an answer.",
    .example = "homeport reload",
    .options = ARGUMENT_CONFIG | ARGUMENT_STATE | ARGUMENT_JSON,
};

int cli_reload(int argc, char **argv)
{
    struct arguments arguments;
    struct error error = {0};
    int status = arguments_read(&arguments, &usage, argc, argv);
    const char *findings;
    json_t *answer;

    if (status >= 0)
        return status;
    status = client_ask(&arguments, json_pack("{s:s}", "verb", "reload"), CLIENT_RELOAD_TIMEOUT_MS, &answer, &error);
    findings = json_string_value(json_object_get(answer, "diagnostics"));
    if (arguments.json && answer != NULL) {
        json_dumpf(answer, stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (findings != NULL) {
        fputs(findings, stderr);
    }
    json_decref(answer);
    if (status < 0)
        return cli_failed(arguments.verb, &error);
    if (!arguments.json)
        puts("reloaded");
    return 0;
}
