/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/demo/rewrite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yaml.h>

/* Nodes are named by their number in the document: adding one moves the others in memory. 0 is no node. */

static const char *text_of(yaml_document_t *document, int node)
{
    yaml_node_t *found = yaml_document_get_node(document, node);

    return found != NULL && found->type == YAML_SCALAR_NODE ? (const char *)found->data.scalar.value : "";
}

static bool is_mapping(yaml_document_t *document, int node)
{
    yaml_node_t *found = yaml_document_get_node(document, node);

    return found != NULL && found->type == YAML_MAPPING_NODE;
}

static yaml_node_pair_t *find_pair(yaml_document_t *document, int mapping, const char *key)
{
    yaml_node_t *node = yaml_document_get_node(document, mapping);

    if (!is_mapping(document, mapping))
        return NULL;
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
        if (strcmp(text_of(document, pair->key), key) == 0)
            return pair;
    }
    return NULL;
}

static int find(yaml_document_t *document, int mapping, const char *key)
{
    yaml_node_pair_t *pair = find_pair(document, mapping, key);

    return pair == NULL ? 0 : pair->value;
}

static int add_text(yaml_document_t *document, const char *text, yaml_scalar_style_t style)
{
    return yaml_document_add_scalar(document, NULL, (const yaml_char_t *)text, -1, style);
}

static int set_node(yaml_document_t *document, int mapping, const char *key, int value)
{
    yaml_node_pair_t *pair = find_pair(document, mapping, key);
    int name;

    if (pair != NULL) {
        pair->value = value;
        return 0;
    }
    if (!is_mapping(document, mapping)) /* libyaml would abort */
        return -EINVAL;
    name = add_text(document, key, YAML_PLAIN_SCALAR_STYLE);
    return yaml_document_append_mapping_pair(document, mapping, name, value) ? 0 : -ENOMEM;
}

static int set(yaml_document_t *document, int mapping, const char *key, const char *text)
{
    return set_node(document, mapping, key, add_text(document, text, YAML_DOUBLE_QUOTED_SCALAR_STYLE));
}

/* A list of one. */
static int set_list(yaml_document_t *document, int mapping, const char *key, const char *text)
{
    int list = yaml_document_add_sequence(document, NULL, YAML_FLOW_SEQUENCE_STYLE);
    int item = add_text(document, text, YAML_DOUBLE_QUOTED_SCALAR_STYLE);

    return yaml_document_append_sequence_item(document, list, item) ? set_node(document, mapping, key, list) : -ENOMEM;
}

static size_t mapping_size(yaml_document_t *document, int mapping)
{
    yaml_node_t *node = yaml_document_get_node(document, mapping);

    if (!is_mapping(document, mapping))
        return 0;
    return (size_t)(node->data.mapping.pairs.top - node->data.mapping.pairs.start);
}

static yaml_node_pair_t pair_at(yaml_document_t *document, int mapping, size_t at)
{
    return yaml_document_get_node(document, mapping)->data.mapping.pairs.start[at];
}

static int move_servers(struct rewrite *rewrite, yaml_document_t *document, struct error *error)
{
    int servers = find(document, 1, "servers");
    char address[INET_ADDRSTRLEN];

    if (mapping_size(document, servers) != DEMO_SERVERS)
        return error_set(error, -EINVAL, "the demo needs a configuration with %u servers", DEMO_SERVERS);
    for (uint32_t i = 0; i < DEMO_SERVERS; i++) {
        yaml_node_pair_t pair = pair_at(document, servers, i);
        struct sockaddr_in at = place_server(i, 0);
        snprintf(rewrite->servers[i], sizeof rewrite->servers[i], "%s", text_of(document, pair.key));
        if (set(document, pair.value, "address", place_text(&at, address)) < 0)
            return error_set(error, -EINVAL, "server %s is no mapping", rewrite->servers[i]);
    }
    return 0;
}

/* "203.0.113.10:4500" -> "127.30.0.1:4500" */
static const char *moved(const struct place *place, const char *listen, char text[32])
{
    const char *colon = strrchr(listen, ':');
    long port = colon == NULL ? 0 : strtol(colon + 1, NULL, 10);
    struct sockaddr_in at = place_service(0);
    char address[INET_ADDRSTRLEN];

    if (port == 500)
        port = place->ike;
    if (port == 4500)
        port = place->nat_t;
    snprintf(text, 32, "%s:%ld", place_text(&at, address), port);
    return text;
}

static int move_services(const struct rewrite *rewrite, yaml_document_t *document, struct error *error)
{
    int services = find(document, 1, "services");
    char text[32];

    if (mapping_size(document, services) == 0)
        return error_set(error, -EINVAL, "the demo needs a configuration with services");
    for (size_t i = 0; i < mapping_size(document, services); i++) {
        int service = pair_at(document, services, i).value, listen = find(document, service, "listen");
        yaml_node_t *node = yaml_document_get_node(document, listen);
        if (node != NULL && node->type == YAML_SEQUENCE_NODE &&
            node->data.sequence.items.start < node->data.sequence.items.top)
            listen = node->data.sequence.items.start[0]; /* one address is enough here */
        if (set(document, service, "listen", moved(rewrite->place, text_of(document, listen), text)) < 0)
            return error_set(error, -EINVAL, "service %s is no mapping",
                             text_of(document, pair_at(document, services, i).key));
    }
    return 0;
}

static int move(struct rewrite *rewrite, yaml_document_t *document, struct error *error)
{
    int status = move_servers(rewrite, document, error);

    if (status == 0)
        status = move_services(rewrite, document, error);
    if (status == 0 && set(document, 1, "state", rewrite->state) < 0)
        status = error_set(error, -ENOMEM, "no memory for the configuration");
    if (status == 0 && rewrite->user != NULL && set(document, 1, "user", rewrite->user) < 0)
        status = error_set(error, -ENOMEM, "no memory for the configuration");
    if (status == 0 && rewrite->plugins != NULL && set_list(document, 1, "plugin_path", rewrite->plugins) < 0)
        status = error_set(error, -ENOMEM, "no memory for the configuration");
    return status;
}

static int load(yaml_document_t *document, const char *path, struct error *error)
{
    FILE *file = fopen(path, "re");
    yaml_parser_t parser;
    int status = 0;

    if (file == NULL)
        return error_set(error, -errno, "cannot read %s: %s", path, strerror(errno));
    yaml_parser_initialize(&parser);
    yaml_parser_set_input_file(&parser, file);
    if (!yaml_parser_load(&parser, document))
        status = error_set(error, -EINVAL, "%s:%zu:%zu: %s", path, parser.problem_mark.line + 1,
                           parser.problem_mark.column + 1, parser.problem == NULL ? "no YAML" : parser.problem);
    yaml_parser_delete(&parser);
    fclose(file);
    return status;
}

/* Takes the document over. Readable for its owner alone: as root, homeport refuses a file that others can write. */
static int store(yaml_document_t *document, const char *path, struct error *error)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    yaml_emitter_t emitter;
    bool written;

    if (file == NULL) {
        yaml_document_delete(document);
        return error_set(error, -errno, "cannot write %s: %s", path, strerror(errno));
    }
    yaml_emitter_initialize(&emitter);
    yaml_emitter_set_output_file(&emitter, file);
    yaml_emitter_set_width(&emitter, 120);
    yaml_emitter_set_unicode(&emitter, 1);
    written = yaml_emitter_open(&emitter) && yaml_emitter_dump(&emitter, document) && yaml_emitter_close(&emitter);
    yaml_emitter_delete(&emitter);
    if (fclose(file) != 0 || !written)
        return error_set(error, -EIO, "cannot write %s", path);
    return 0;
}

int rewrite_config(struct rewrite *rewrite, struct error *error)
{
    yaml_document_t document;
    int status = load(&document, rewrite->from, error);

    if (status < 0)
        return status;
    status = move(rewrite, &document, error);
    if (status < 0) {
        yaml_document_delete(&document);
        return error_under(error, "%s", rewrite->from);
    }
    return store(&document, rewrite->to, error);
}
