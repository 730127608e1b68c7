/* SPDX-License-Identifier: Apache-2.0 */
/* proxy_map: clients that come through a farm of proxies, or out of an office with several lines, are one client.
 *
 * A file names networks, one a line: `192.0.2.0/28 berlin`. All addresses of one name share a record, whatever their
 * family; who is in no network is a client by itself. It shows the shorter of a plugin's two forms: derive_key says
 * what a client is, homeport does the rest. create() reads the file: once, before the worker gives up its right to open
 * files. Fails: the file cannot be read, or a line is wrong -> create says where and returns NULL, and homeport says so
 * too */
#define _POSIX_C_SOURCE 200809L /* getline, strtok_r */
#include <homeport/plugin.h>
#include <homeport/plugin_util.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_SIZE 32u

enum { TIMEOUT, FILE_NAME, OPTIONS };

static const struct hp_option options[OPTIONS] = {
    [TIMEOUT] = {"timeout", HP_OPTION_DURATION, 0, "180s", "1s..4000h", "How long a record outlives its traffic."},
    [FILE_NAME] = {"file", HP_OPTION_STRING, HP_OPTION_REQUIRED, NULL, NULL,
                   "Networks that are one client: lines of NETWORK/LENGTH NAME."},
};
static const char *const tables[] = {"clients"};

struct network {
    uint8_t address[16]; /* network order */
    uint32_t length;     /* bits of it that count */
    uint32_t family;     /* 4 or 6 */
    char name[NAME_MAX_SIZE];
};
struct proxy_map {
    struct network *networks; /* the first that holds an address decides */
    size_t count;
};

static int holds(const struct network *network, const struct hp_endpoint *client)
{
    uint32_t octets = network->length / 8, bits = network->length % 8;

    if (network->family != client->family || memcmp(network->address, client->address, octets) != 0)
        return 0;
    return bits == 0 || (network->address[octets] ^ client->address[octets]) >> (8 - bits) == 0;
}

/* Key: 1 and the network's name, or 0, the family and the address. No service in it: the record is for all ports. */
static int32_t client_key(void *self, const struct hp_flow *flow, uint8_t *key)
{
    const struct proxy_map *map = self;
    size_t size = flow->client.family == 6 ? 16 : 4;

    for (size_t i = 0; i < map->count; i++)
        if (holds(&map->networks[i], &flow->client)) {
            key[0] = 1;
            memcpy(key + 1, map->networks[i].name, NAME_MAX_SIZE);
            return 1 + (int32_t)NAME_MAX_SIZE;
        }
    key[0] = 0;
    key[1] = (uint8_t)flow->client.family;
    memcpy(key + 2, flow->client.address, size);
    return 2 + (int32_t)size;
}

/* "NETWORK/LENGTH NAME"; NULL: fine, else what is wrong with it. */
static const char *parse_network(struct network *network, char *line)
{
    char *rest, *end, *address = strtok_r(line, " \t\n", &rest), *name = strtok_r(NULL, " \t\n", &rest);
    char *slash = strchr(address, '/');
    unsigned long length;

    memset(network, 0, sizeof *network);
    if (slash == NULL || name == NULL || strtok_r(NULL, " \t\n", &rest) != NULL)
        return "want NETWORK/LENGTH NAME";
    *slash = '\0';
    network->family = strchr(address, ':') == NULL ? 4 : 6;
    if (inet_pton(network->family == 4 ? AF_INET : AF_INET6, address, network->address) != 1)
        return "the network is no address";
    length = strtoul(slash + 1, &end, 10);
    if (slash[1] < '0' || slash[1] > '9' || *end != '\0' || length > (network->family == 4 ? 32u : 128u))
        return "the length is no number of bits";
    network->length = (uint32_t)length;
    if (strlen(name) >= NAME_MAX_SIZE)
        return "the name is too long (31 octets)";
    memcpy(network->name, name, strlen(name));
    return NULL;
}

static int add_network(struct proxy_map *map, const struct network *network)
{
    struct network *grown = realloc(map->networks, (map->count + 1) * sizeof *grown);

    if (grown == NULL)
        return -1;
    map->networks = grown;
    map->networks[map->count++] = *network;
    return 0;
}

/* NULL: fine, else what is wrong; *number is the line. Empty lines and those that begin with # are skipped. */
static const char *read_networks(struct proxy_map *map, FILE *file, unsigned *number)
{
    struct network network;
    const char *wrong = NULL;
    char *line = NULL;
    size_t size = 0;

    for (*number = 1; wrong == NULL && getline(&line, &size, file) >= 0; ++*number) {
        if (line[strspn(line, " \t\n")] == '\0' || line[0] == '#')
            continue;
        wrong = parse_network(&network, line);
        if (wrong == NULL && add_network(map, &network) < 0)
            wrong = "no memory";
    }
    --*number;
    free(line);
    return wrong;
}

static void proxy_map_destroy(void *self)
{
    struct proxy_map *map = self;

    free(map->networks);
    free(map);
}

static void *proxy_map_create(const struct hp_host *host, const struct hp_profile *profile)
{
    const char *path = profile->values[FILE_NAME].as.text, *wrong = NULL;
    struct proxy_map *map = calloc(1, sizeof *map);
    FILE *file = fopen(path, "re");
    unsigned number = 0;

    if (file == NULL)
        hp_problem(host, HP_NO_SERVICE, FILE_NAME, "cannot read %s: %s", path, strerror(errno));
    else if (map == NULL)
        hp_problem(host, HP_NO_SERVICE, HP_NO_OPTION, "no memory");
    else if ((wrong = read_networks(map, file, &number)) != NULL)
        hp_problem(host, HP_NO_SERVICE, FILE_NAME, "%s:%u: %s", path, number, wrong);
    if (file != NULL)
        fclose(file);
    if (map != NULL && (file == NULL || wrong != NULL)) {
        proxy_map_destroy(map);
        map = NULL;
    }
    return map;
}

const struct hp_plugin hp_plugin_v1 = {
    .abi_major = HP_ABI_MAJOR,
    .abi_minor = HP_ABI_MINOR,
    .size = sizeof hp_plugin_v1,
    .name = "proxy_map",
    .version = "1.0",
    .summary = "An example: all addresses of a proxy farm or an office are one client.",
    .author = "homeport",
    .options = options,
    .option_count = OPTIONS,
    .option_size = sizeof(struct hp_option),
    .tables = tables,
    .table_count = 1,
    .ttl_option = TIMEOUT,
    .create = proxy_map_create,
    .destroy = proxy_map_destroy,
    .derive_key = client_key,
};
