/* SPDX-License-Identifier: Apache-2.0 */
/* Events of libyaml, one after the other, into nodes; what is open lies on a stack of TREE_DEPTH.
 * Fails: not UTF-8, a NUL, bad YAML, too deep, a second document -> reported where it is, and no tree: what follows
 *                                                                   cannot be understood
 *        anchor, alias, tag, control character, duplicate key    -> reported, and the reading goes on
 *        no memory                                               -> no tree */
#include "config/tree.h"

#include "config/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct builder {
    struct diagnostics *diagnostics;
    struct node *open[TREE_DEPTH + 1]; /* open[0] holds the root as its only entry */
    uint32_t depth;                    /* of the innermost open one */
    char *key;                         /* read, its value not yet */
    struct position key_at;
    bool stream_ended;
};

static struct position position_of(yaml_mark_t mark)
{
    return (struct position){(uint32_t)mark.line + 1, (uint32_t)mark.column + 1};
}

static int syntax_error(struct builder *self, struct position at, const char *text)
{
    diagnostics_add(self->diagnostics, SEVERITY_ERROR, at, "%s", text);
    return -EINVAL;
}

static void tree_free_entries(struct node *node)
{
    struct node *next;

    for (struct node *entry = node->first; entry != NULL; entry = next) {
        next = entry->next;
        tree_free(entry);
    }
}

void tree_free(struct node *node)
{
    if (node == NULL)
        return;
    tree_free_entries(node); /* recursive, TREE_DEPTH deep at most */
    free(node->key);
    free(node->text);
    free(node);
}

const struct node *node_child(const struct node *node, const char *key)
{
    if (node->kind == NODE_MAPPING)
        for (const struct node *entry = node->first; entry != NULL; entry = entry->next)
            if (strcmp(entry->key, key) == 0)
                return entry;
    return NULL;
}

/* Hangs a new node into the innermost open one. NULL: no memory. */
static struct node *add_node(struct builder *self, enum node_kind kind, struct position at)
{
    struct node *parent = self->open[self->depth], *node = calloc(1, sizeof *node);

    if (node == NULL)
        return NULL;
    node->kind = kind;
    node->at = at;
    node->key = self->key;
    node->key_at = self->key_at;
    self->key = NULL;
    if (parent->last == NULL)
        parent->first = node;
    else
        parent->last->next = node;
    parent->last = node;
    parent->count++;
    return node;
}

/* Neither names, nor paths, nor a plugin's options have a use for them; logs and terminals suffer from them. */
static bool has_control(const char *text, size_t size)
{
    for (size_t i = 0, length; i < size; i += length) {
        length = text_character(text + i, size - i);
        if (length == 0 || text_is_control(text + i, length))
            return true;
    }
    return false;
}

static void refuse_marks(struct builder *self, struct position at, const yaml_char_t *anchor, const yaml_char_t *tag)
{
    if (anchor != NULL)
        diagnostics_add(self->diagnostics, SEVERITY_ERROR, at, "anchors (&%.40s) are not used here: write it out",
                        (const char *)anchor);
    if (tag != NULL)
        diagnostics_add(self->diagnostics, SEVERITY_ERROR, at, "tags (%.40s) are not used here: leave it out",
                        (const char *)tag);
}

static bool awaits_key(const struct builder *self)
{
    return self->open[self->depth]->kind == NODE_MAPPING && self->key == NULL;
}

static bool is_nothing(const char *text, bool quoted)
{
    return !quoted && (*text == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0);
}

static int on_scalar(struct builder *self, const yaml_event_t *event)
{
    const char *text = (const char *)event->data.scalar.value;
    struct position at = position_of(event->start_mark);
    bool quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    bool bad = has_control(text, event->data.scalar.length);
    struct node *node;
    char *copy;

    refuse_marks(self, at, event->data.scalar.anchor, event->data.scalar.tag);
    if (bad)
        diagnostics_add(self->diagnostics, SEVERITY_ERROR, at, "a text with control characters or line breaks");
    copy = strdup(bad ? "?" : text);
    if (copy == NULL)
        return -ENOMEM;
    if (awaits_key(self)) {
        self->key = copy;
        self->key_at = at;
        return 0;
    }
    node = add_node(self, bad ? NODE_BAD : is_nothing(text, quoted) ? NODE_NOTHING : NODE_TEXT, at);
    if (node == NULL) {
        free(copy);
        return -ENOMEM;
    }
    node->text = copy;
    node->quoted = quoted;
    return 0;
}

static int on_alias(struct builder *self, const yaml_event_t *event)
{
    struct position at = position_of(event->start_mark);

    diagnostics_add(self->diagnostics, SEVERITY_ERROR, at, "aliases (*%.40s) are not used here: write it out",
                    (const char *)event->data.alias.anchor);
    if (!awaits_key(self))
        return add_node(self, NODE_BAD, at) != NULL ? 0 : -ENOMEM;
    self->key = strdup("?");
    self->key_at = at;
    return self->key != NULL ? 0 : -ENOMEM;
}

static int open_node(struct builder *self, enum node_kind kind, struct position at)
{
    struct node *node;

    if (awaits_key(self))
        return syntax_error(self, at, "a list or mapping cannot be a key");
    if (self->depth == TREE_DEPTH)
        return syntax_error(self, at, "lists or mappings too deep inside each other");
    node = add_node(self, kind, at);
    if (node == NULL)
        return -ENOMEM;
    self->open[++self->depth] = node;
    return 0;
}

struct entry {
    struct node *node;
    uint32_t number; /* in the order of the file */
};

static int compare_entries(const void *a, const void *b)
{
    const struct entry *left = a, *right = b;
    int order = strcmp(left->node->key, right->node->key);

    return order != 0 ? order : left->number < right->number ? -1 : 1;
}

static void report_duplicates(struct builder *self, const struct entry *sorted, uint32_t count, bool *duplicate)
{
    for (uint32_t i = 1, first = 0; i < count; i++) {
        struct node *node = sorted[i].node, *original = sorted[first].node;

        if (strcmp(original->key, node->key) != 0) {
            first = i;
            continue;
        }
        diagnostics_add(self->diagnostics, SEVERITY_ERROR, node->key_at, "`%.64s` stands here twice: first in line %u",
                        node->key, original->key_at.line);
        free(node->key);
        node->key = NULL; /* the mark for leave_out_duplicates */
        *duplicate = true;
    }
}

static void leave_out_duplicates(struct node *mapping)
{
    struct node **link = &mapping->first, *node;

    mapping->last = NULL;
    while ((node = *link) != NULL) {
        if (node->key != NULL) {
            mapping->last = node;
            link = &node->next;
            continue;
        }
        *link = node->next;
        mapping->count--;
        tree_free(node);
    }
}

/* Sorted first: with every pair compared, a file of 1 MiB would keep the reader busy for minutes. */
static int check_duplicates(struct builder *self, struct node *mapping)
{
    struct entry *sorted;
    uint32_t count = 0;
    bool duplicate = false;

    if (mapping->count < 2)
        return 0;
    sorted = calloc(mapping->count, sizeof *sorted);
    if (sorted == NULL)
        return -ENOMEM;
    for (struct node *node = mapping->first; node != NULL; node = node->next, count++)
        sorted[count] = (struct entry){node, count};
    qsort(sorted, count, sizeof *sorted, compare_entries);
    report_duplicates(self, sorted, count, &duplicate);
    free(sorted);
    if (duplicate)
        leave_out_duplicates(mapping);
    return 0;
}

static int close_node(struct builder *self)
{
    struct node *closed = self->open[self->depth];

    if (self->depth == 0) /* libyaml ends nothing that it did not begin */
        return -EINVAL;
    self->depth--;
    return closed->kind == NODE_MAPPING ? check_duplicates(self, closed) : 0;
}

static int on_document(struct builder *self, const yaml_event_t *event)
{
    if (self->open[0]->count == 0)
        return 0;
    return syntax_error(self, position_of(event->start_mark), "a second document: a configuration is one");
}

static int on_event(struct builder *self, const yaml_event_t *event)
{
    struct position at = position_of(event->start_mark);

    switch (event->type) {
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        return 0;
    case YAML_STREAM_END_EVENT:
        self->stream_ended = true;
        return 0;
    case YAML_DOCUMENT_START_EVENT:
        return on_document(self, event);
    case YAML_ALIAS_EVENT:
        return on_alias(self, event);
    case YAML_SCALAR_EVENT:
        return on_scalar(self, event);
    case YAML_SEQUENCE_START_EVENT:
        refuse_marks(self, at, event->data.sequence_start.anchor, event->data.sequence_start.tag);
        return open_node(self, NODE_LIST, at);
    case YAML_MAPPING_START_EVENT:
        refuse_marks(self, at, event->data.mapping_start.anchor, event->data.mapping_start.tag);
        return open_node(self, NODE_MAPPING, at);
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        return close_node(self);
    }
    return 0;
}

static int parser_failure(struct builder *self, const yaml_parser_t *parser)
{
    struct position at = position_of(parser->problem_mark);
    const char *problem = parser->problem != NULL ? parser->problem : "it cannot be read", *hint = "";

    if (parser->error == YAML_MEMORY_ERROR)
        return -ENOMEM;
    if (parser->error == YAML_READER_ERROR) /* has no mark; check_octets has seen the usual ones */
        at = (struct position){0, 0};
    if (strstr(problem, "start any token") != NULL)
        hint = " (a tab? indent with spaces)";
    if (parser->context != NULL && parser->context_mark.line != parser->problem_mark.line)
        diagnostics_add(self->diagnostics, SEVERITY_ERROR, at, "not YAML: %s (%s from line %u)%s", problem,
                        parser->context, (unsigned)parser->context_mark.line + 1, hint);
    else
        diagnostics_add(self->diagnostics, SEVERITY_ERROR, at, "not YAML: %s%s", problem, hint);
    return -EINVAL;
}

static int parse_events(struct builder *self, yaml_parser_t *parser)
{
    yaml_event_t event;
    int status = 0;

    while (status == 0 && !self->stream_ended) {
        if (!yaml_parser_parse(parser, &event))
            return parser_failure(self, parser);
        status = on_event(self, &event);
        yaml_event_delete(&event);
    }
    return status;
}

/* YAML wants printable UTF-8; said in our own words and with a position, which libyaml does not give here. */
static int check_octets(struct builder *self, const char *text, size_t size)
{
    struct position at = {1, 1};

    for (size_t i = text_byte_order_mark(text, size), length; i < size; i += length) {
        length = text_line_break(text + i, size - i);
        if (length > 0) {
            at = (struct position){at.line + 1, 1};
            continue;
        }
        length = text_character(text + i, size - i);
        if (length == 0)
            return syntax_error(self, at, "not UTF-8: save the file in that encoding");
        if (length == 1 && text_is_control(text + i, length) && text[i] != '\t')
            return syntax_error(self, at,
                                text[i] == '\0' ? "a NUL octet: this is no text file" : "a control character");
        at.column++;
    }
    return 0;
}

int tree_read(struct node **out, const char *text, size_t size, struct diagnostics *diagnostics)
{
    struct node top = {.kind = NODE_LIST};
    struct builder builder = {.diagnostics = diagnostics, .open = {&top}};
    yaml_parser_t parser;
    int status = check_octets(&builder, text, size);

    if (status < 0)
        return status;
    if (!yaml_parser_initialize(&parser))
        return -ENOMEM;
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
    status = parse_events(&builder, &parser);
    yaml_parser_delete(&parser);
    free(builder.key);
    if (status == 0 && top.count == 0)
        status = add_node(&(struct builder){.open = {&top}}, NODE_NOTHING, (struct position){1, 1}) ? 0 : -ENOMEM;
    if (status == 0)
        *out = top.first;
    else
        tree_free_entries(&top);
    return status;
}
