/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/demo/rewrite.h"
#include "config/config.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct place place = {.ike = 30500, .nat_t = 31500, .claim = -1};

struct moved { /* a file, where it went, and what the daemon makes of it */
    char from[64], to[64];
    struct rewrite rewrite;
    char *text;
    struct config *config;
};

static char *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "r");
    char *text = calloc(1, 65536);

    cr_assert_not_null(file, "%s", path);
    *size = fread(text, 1, 65535, file);
    fclose(file);
    return text;
}

static struct config *parse(const char *path, char **text)
{
    struct diagnostics *diagnostics = NULL;
    struct config *config = NULL;
    size_t size;

    *text = read_file(path, &size);
    cr_assert_eq(diagnostics_open(&diagnostics, path, *text, size), 0);
    if (config_read(&config, path, *text, size, diagnostics) < 0)
        diagnostics_print(diagnostics, stderr);
    diagnostics_close(diagnostics);
    cr_assert_not_null(config, "%s became: %s", path, *text);
    return config;
}

static void temporary(char path[64], const char *text)
{
    int fd;

    strcpy(path, "/tmp/homeport-rewrite-XXXXXX");
    fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static void move_file(struct moved *moved, const char *from)
{
    struct error error = {0};

    temporary(moved->to, "what was there before, which must not shine through: [");
    moved->rewrite = (struct rewrite){
        .from = from,
        .to = moved->to,
        .state = "/run/demo: #1", /* needs its quotes */
        .user = "nobody",
        .plugins = "/tmp/folder, of plugins",
        .place = &place,
    };
    cr_assert_eq(rewrite_config(&moved->rewrite, &error), 0, "%s", error.what);
    moved->config = parse(moved->to, &moved->text);
}

static void forget(struct moved *moved)
{
    unlink(moved->to);
    free(moved->text);
    config_free(moved->config);
}

static const char *samples[] = {"ike_spi", "match_across_services", "persistency_group", "port_following", "quickstart",
                                "rras",    "source_address"};

static void check_servers(const struct moved *moved)
{
    char text[INET_ADDRSTRLEN];

    cr_assert_eq(moved->config->server_count, DEMO_SERVERS);
    for (uint32_t i = 0; i < DEMO_SERVERS; i++) {
        struct sockaddr_in at = place_server(i, 0);
        const struct config_server *server = &moved->config->servers[i];

        cr_assert_str_eq(server->name, moved->rewrite.servers[i]);
        cr_assert_arr_eq(server->address.address, &at.sin_addr, 4, "%s", place_text(&at, text));
    }
}

static void check_services(const struct config *config)
{
    struct sockaddr_in at = place_service(0);

    cr_assert_eq(config->service_count, 2);
    for (uint32_t i = 0; i < 2; i++) {
        cr_assert_eq(config->services[i].listen_count, 1);
        cr_assert_eq(config->services[i].port, i == 0 ? place.ike : place.nat_t);
        cr_assert_arr_eq(config->services[i].listen[0].address, &at.sin_addr, 4);
    }
}

Test(rewrite, moves_every_shipped_sample_to_the_loopback)
{
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        struct moved moved;
        char from[256];

        snprintf(from, sizeof from, SAMPLES "/%s.yaml", samples[i]);
        move_file(&moved, from);
        check_servers(&moved);
        check_services(moved.config);
        cr_assert_str_eq(moved.config->state, "/run/demo: #1");
        cr_assert_str_eq(moved.config->user, "nobody");
        cr_assert_eq(moved.config->plugin_path_count, 1);
        cr_assert_str_eq(moved.config->plugin_path[0], "/tmp/folder, of plugins");
        forget(&moved);
    }
}

static void check_same_persistence(const struct config *moved, const struct config *original)
{
    cr_assert_eq(moved->profile_count, original->profile_count);
    for (uint32_t i = 0; i < moved->profile_count; i++) {
        const struct config_profile *one = &moved->profiles[i], *other = &original->profiles[i];

        cr_assert_str_eq(one->plugin, other->plugin);
        cr_assert_eq(one->option_count, other->option_count);
        for (uint32_t k = 0; k < one->option_count; k++) {
            cr_assert_str_eq(one->options[k].name, other->options[k].name);
            cr_assert_str_eq(one->options[k].text, other->options[k].text);
        }
    }
    for (uint32_t i = 0; i < moved->service_count; i++) {
        cr_assert_eq(moved->services[i].profile, original->services[i].profile);
        cr_assert_eq(moved->services[i].pool, original->services[i].pool);
        cr_assert_eq(moved->services[i].option_count, original->services[i].option_count);
    }
}

Test(rewrite, leaves_the_vendors_ways_as_they_were_written)
{
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        struct moved moved;
        struct config *original;
        char from[256], *text;

        snprintf(from, sizeof from, SAMPLES "/%s.yaml", samples[i]);
        original = parse(from, &text);
        move_file(&moved, from);
        check_same_persistence(moved.config, original);
        forget(&moved);
        config_free(original);
        free(text);
    }
}

Test(rewrite, leaves_user_and_plugins_alone_unless_they_are_given)
{
    struct rewrite rewrite = {.from = SAMPLES "/quickstart.yaml", .state = "/run/x", .place = &place};
    struct error error = {0};
    struct config *config;
    char to[64], *text;

    temporary(to, "");
    rewrite.to = to;
    cr_assert_eq(rewrite_config(&rewrite, &error), 0, "%s", error.what);
    config = parse(to, &text);
    cr_assert_null(config->user);
    cr_assert_null(strstr(text, "plugin_path"));
    config_free(config);
    free(text);
    unlink(to);
}

Test(rewrite, replaces_what_is_there_already_and_keeps_ports_that_are_not_ike)
{
    struct moved moved;
    char from[64];

    temporary(from,
              "user: somebody\nstate: /elsewhere\nplugin_path: [ /a, /b ]\n"
              "servers: { one: { weight: 3, address: 192.0.2.1 }, two: { address: 192.0.2.2 },"
              " three: { address: 192.0.2.3 } }\n"
              "pools: { all: { servers: [ one, two, three ], health: { check: none } } }\n"
              "services: { odd: { listen: [ '192.0.2.9:1194', '192.0.2.10:1194' ], protocol: udp, pool: all } }\n");
    move_file(&moved, from);
    cr_assert_str_eq(moved.config->user, "nobody");
    cr_assert_eq(moved.config->plugin_path_count, 1);
    cr_assert_eq(moved.config->servers[0].weight, 3);
    cr_assert_eq(moved.config->services[0].listen_count, 1);
    cr_assert_eq(moved.config->services[0].port, 1194);
    forget(&moved);
    unlink(from);
}

Test(rewrite, writes_a_file_that_others_cannot_read)
{
    struct rewrite rewrite = {.from = SAMPLES "/quickstart.yaml", .state = "/run/x", .place = &place};
    struct error error = {0};
    struct stat status;
    char to[64];

    temporary(to, "");
    unlink(to);
    rewrite.to = to;
    umask(0);
    cr_assert_eq(rewrite_config(&rewrite, &error), 0, "%s", error.what);
    cr_assert_eq(stat(to, &status), 0);
    cr_assert_eq(status.st_mode & 0777, 0600);
    unlink(to);
}

struct garbage {
    char name[32], text[160], says[64];
};

#define THREE "servers: { a: {}, b: {}, c: {} }\n"
static struct garbage garbage[] = {
    {"nothing", "", "3 servers"},
    {"comments", "# nothing here\n", "3 servers"},
    {"no yaml", "servers: [ {", ":1:"},
    {"a tab", "servers:\n\t- x\n", ":2:"},
    {"binary", "\x01\x02\xff\xfe", ""},
    {"a scalar", "servers\n", "3 servers"},
    {"a list", "- servers\n- pools\n", "3 servers"},
    {"two servers", "servers: { a: {}, b: {} }\n", "3 servers"},
    {"a list of servers", "servers: [ a, b, c ]\n", "3 servers"},
    {"scalar servers", "servers: { a: 1, b: 2, c: 3 }\nservices: { x: {} }\n", "server a is no mapping"},
    {"no services", THREE, "services"},
    {"a list of services", THREE "services: [ a ]\n", "services"},
    {"a scalar service", THREE "services: { ike: 500 }\n", "service ike is no mapping"},
    {"a null service", THREE "services: { ike: }\n", "service ike is no mapping"},
};

ParameterizedTestParameters(rewrite, refuses_what_it_cannot_move_and_says_why)
{
    return cr_make_param_array(struct garbage, garbage, sizeof garbage / sizeof garbage[0]);
}

ParameterizedTest(struct garbage *one, rewrite, refuses_what_it_cannot_move_and_says_why)
{
    struct rewrite rewrite = {.state = "/run/x", .user = "nobody", .plugins = "/p", .place = &place};
    struct error error = {0};
    char from[64], to[64];

    temporary(from, one->text);
    temporary(to, "");
    unlink(to);
    rewrite.from = from;
    rewrite.to = to;
    cr_assert_eq(rewrite_config(&rewrite, &error), -EINVAL, "%s", one->name);
    cr_assert_not_null(strstr(error.what, one->says), "%s: %s", one->name, error.what);
    cr_assert_not_null(strstr(error.what, from), "%s: %s", one->name, error.what);
    cr_assert_neq(access(to, F_OK), 0, "%s left a file", one->name);
    unlink(from);
}

Test(rewrite, services_without_a_listening_address_are_left_to_the_check)
{
    static const char *const texts[] = {THREE "services: { x: { listen: [] } }\n", THREE "services: { x: {} }\n",
                                        THREE "services: { x: { listen: { a: b } } }\n",
                                        THREE "services: { x: { listen: '1:99999999999999999999' } }\n"};

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct rewrite rewrite = {.state = "/run/x", .place = &place};
        struct error error = {0};
        char from[64], to[64];

        temporary(from, texts[i]);
        temporary(to, "");
        rewrite.from = from;
        rewrite.to = to;
        cr_assert_eq(rewrite_config(&rewrite, &error), 0, "%s: %s", texts[i], error.what);
        unlink(from);
        unlink(to);
    }
}

Test(rewrite, names_a_file_that_is_not_there_and_one_that_cannot_be_made)
{
    struct rewrite rewrite = {.from = "/nowhere/x.yaml", .to = "/nowhere/y.yaml", .state = "/run/x", .place = &place};
    struct error error = {0};

    cr_assert_eq(rewrite_config(&rewrite, &error), -ENOENT);
    cr_assert_not_null(strstr(error.what, "/nowhere/x.yaml"));
    rewrite.from = SAMPLES "/quickstart.yaml";
    cr_assert_eq(rewrite_config(&rewrite, &error), -ENOENT);
    cr_assert_not_null(strstr(error.what, "/nowhere/y.yaml"));
}
