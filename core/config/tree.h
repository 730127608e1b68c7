/* SPDX-License-Identifier: Apache-2.0 */
/* YAML as a tree of values with positions: what a file says, before anybody asks what it means. Any process but the
 * master. Anchors, aliases and tags are refused: they can make a small file large, and nobody needs them here. */
#ifndef CONFIG_TREE_H
#define CONFIG_TREE_H

#include "config/diagnostics.h"
#include <stdbool.h>

#define TREE_DEPTH 16u /* lists and mappings inside each other; the contract's deepest is 4 */

enum node_kind {
    NODE_NOTHING, /* `key:` with nothing behind it, ~ or null */
    NODE_TEXT,
    NODE_LIST,
    NODE_MAPPING,
    NODE_BAD, /* an error was reported: a reader passes over it in silence */
};

struct node {
    enum node_kind kind;
    bool quoted; /* a text in quotes: never a number or a truth value */
    char *key;   /* of an entry of a mapping; NULL else */
    struct position key_at;
    char *text; /* NODE_TEXT: no control characters; never NULL */
    struct position at;
    struct node *first, *last, *next; /* entries in the order of the file */
    uint32_t count;
};

/* 0: *out is the tree, and what was wrong in it is reported and a NODE_BAD (duplicate keys are reported and left out).
 * Errors: -EINVAL  no tree can be made of it: not UTF-8, not YAML, too deep; reported
 *         -ENOMEM */
int tree_read(struct node **out, const char *text, size_t size, struct diagnostics *diagnostics);
void tree_free(struct node *node); /* NULL is fine */
/* NULL: no such key, or not a mapping. */
const struct node *node_child(const struct node *node, const char *key);

#endif
