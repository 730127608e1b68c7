/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/client.h"
#include "cli/verbs.h"

#include <stdio.h>

static const struct usage usage = {
    .verb = "drop",
    .operands = "CLIENT",
    .text = "Ends the sessions of a client, an address, and deletes the records that it has made. Its next\n"
            "datagram is a new client's. Nothing is sent to anybody: an IKEv2 client finds out by its own\n"
            "liveness check.",
    .example = "homeport drop 198.51.100.7",
    .options = ARGUMENT_CONFIG | ARGUMENT_STATE | ARGUMENT_JSON,
    .least = 1,
    .most = 1,
};

int cli_drop(int argc, char **argv)
{
    struct arguments arguments;
    int status = arguments_read(&arguments, &usage, argc, argv);
    json_t *answer;

    if (status >= 0)
        return status;
    answer = client_read(&arguments, json_pack("{s:s, s:s}", "verb", "drop", "client", arguments.operands[0]), &status);
    if (answer == NULL)
        return status;
    printf("%s: %d sessions ended, %d records deleted\n", arguments.operands[0],
           (int)answer_number(answer, "sessions_ended"), (int)answer_number(answer, "records_deleted"));
    if ((int)answer_number(answer, "records_left") > 0)
        printf("%d records stay: sessions of others use them\n", (int)answer_number(answer, "records_left"));
    if ((int)answer_number(answer, "lanes_behind") > 0)
        printf("%d lanes have not carried it out yet; they will when a worker takes them\n",
               (int)answer_number(answer, "lanes_behind"));
    json_decref(answer);
    return 0;
}
