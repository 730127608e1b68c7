/* SPDX-License-Identifier: Apache-2.0 */
#include "config/config.h"

#include <errno.h>
#include <stdio.h>

static void check(bool claim)
{
    if (!claim)
        __builtin_trap();
}

/* What every layer above takes for granted. */
static void check_model(const struct config *config)
{
    check(config->workers >= 1 && config->state != NULL && config->port_first <= config->port_last);
    check(config->server_count >= 1 && config->pool_count >= 1 && config->service_count >= 1);
    for (uint32_t i = 0; i < config->server_count; i++)
        check(config->servers[i].address.family == 4 && config->servers[i].weight >= 1);
    for (uint32_t i = 0; i < config->pool_count; i++) {
        check(config->pools[i].server_count >= 1);
        check(config->pools[i].health.timeout_ms <= config->pools[i].health.interval_ms);
        for (uint32_t j = 0; j < config->pools[i].server_count; j++)
            check(config->pools[i].servers[j] < config->server_count);
    }
    for (uint32_t i = 0; i < config->profile_count; i++)
        check(config->profiles[i].plugin != NULL);
    for (uint32_t i = 0; i < config->service_count; i++) {
        check(config->services[i].pool < config->pool_count && config->services[i].listen_count >= 1);
        check(config->services[i].profile >= -1 && config->services[i].profile < (int32_t)config->profile_count);
        check(config->services[i].port != 0 && config->services[i].server_port != 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct diagnostics *diagnostics = NULL;
    struct config *config = NULL;
    char said[65536];
    FILE *stream = fmemopen(said, sizeof said, "w");
    int status;

    check(stream != NULL && diagnostics_open(&diagnostics, "f", (const char *)data, size) == 0);
    status = config_read(&config, "f", (const char *)data, size, diagnostics);
    check(status == 0 || (status == -EINVAL && diagnostics_errors(diagnostics) > 0 && config == NULL));
    if (status == 0)
        check_model(config);
    diagnostics_print(diagnostics, stream);
    fclose(stream);
    config_free(config);
    diagnostics_close(diagnostics);
    return 0;
}
