/* SPDX-License-Identifier: Apache-2.0 */
/* From tree to model, by tables: each kind of mapping has one, which says for each key who reads it, into which member,
 * and what is allowed. Keys are read in the order of the table, whatever their order in the file, so that what is named
 * has been read before those that name it. Errors are reported and the reading goes on. */
#ifndef CONFIG_READER_H
#define CONFIG_READER_H

#include "config/config.h"
#include "config/tree.h"

struct reader {
    struct config *config;
    struct diagnostics *diagnostics;
    const struct node *root;
    bool out_of_memory; /* nothing more is of use */
    bool names_cut;     /* a table was full: names that are not found may be beyond its limit */
};

struct key {          /* initialized with a designator at least once, so that -Wextra lets the rest be zero */
    const char *name; /* NULL ends a table */
    /* Fills the member at offset. NULL: a key that this version does not know how to obey. */
    void (*read)(struct reader *reader, const struct key *key, const struct node *node, void *member);
    size_t offset;
    uint64_t low, high;         /* of numbers, and of durations in milliseconds */
    const char *const *choices; /* in the order of the enum, NULL at the end */
    bool required;
    /* Without read: the value that passes, because it is the default and asks for nothing that is missing here. */
    const char *harmless;
};

void reader_mapping(struct reader *reader, const struct node *node, const struct key *keys, void *target);
/* The error stands at the value, or at the key where there is no value. */
void reader_error(struct reader *reader, const struct node *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void reader_not_in_this_version(struct reader *reader, const struct node *node, const char *what);
/* Of the expected kind? Else the error is reported (in silence for NODE_BAD). wanted: "a duration such as 180s". */
bool reader_wants(struct reader *reader, const struct node *node, enum node_kind kind, const char *wanted);
bool reader_address(struct reader *reader, const struct node *node, struct hp_endpoint *out);
/* NULL and out_of_memory when there is none. */
char *reader_copy(struct reader *reader, const char *text);
void *reader_array(struct reader *reader, size_t count, size_t size);

/* A mapping of names to things. Returns the number of entries to read, at most limit (more are an error). */
uint32_t reader_names(struct reader *reader, const struct node *node, const char *things, uint32_t limit);
/* The entry's key as the name of a thing, checked and copied. */
char *reader_name(struct reader *reader, const struct node *entry);
/* `name` at node is no such thing: did you mean one of names? */
void reader_no_such(struct reader *reader, const struct node *node, const char *thing, const char *name,
                    const char *const *names, uint32_t count);

/* Readers for the table. The member's type is in the name: uint32_t for choices (an enum), uint64_t for durations. */
void read_text(struct reader *reader, const struct key *key, const struct node *node, void *member); /* char * */
void read_u16(struct reader *reader, const struct key *key, const struct node *node, void *member);
void read_u32(struct reader *reader, const struct key *key, const struct node *node, void *member);
void read_bool(struct reader *reader, const struct key *key, const struct node *node, void *member);
void read_duration(struct reader *reader, const struct key *key, const struct node *node, void *member);
void read_choice(struct reader *reader, const struct key *key, const struct node *node, void *member);

/* The sections, one file each. */
void read_workers(struct reader *reader, const struct key *key, const struct node *node, void *member);
void read_state(struct reader *reader, const struct key *key, const struct node *node, void *member);
void read_user(struct reader *reader, const struct key *key, const struct node *node, void *member);
void read_plugin_path(struct reader *reader, const struct key *key, const struct node *node, void *member);
void read_log(struct reader *reader, const struct key *key, const struct node *node, void *member);
void read_affinity(struct reader *reader, const struct key *key, const struct node *node, void *member);
void read_sessions(struct reader *reader, const struct key *key, const struct node *node, void *member);
void read_servers(struct reader *reader, const struct key *key, const struct node *node, void *member);
void read_pools(struct reader *reader, const struct key *key, const struct node *node, void *member);
void read_profiles(struct reader *reader, const struct key *key, const struct node *node, void *member);
void read_services(struct reader *reader, const struct key *key, const struct node *node, void *member);
/* `source` of a pool or a service, into a struct config_source. */
void read_source(struct reader *reader, const struct key *key, const struct node *node, void *member);
void read_source_list(struct reader *reader, const struct node *node, struct config_source *source);
/* Options as written, from the entries of mapping but the one named except (NULL: all). */
uint32_t read_options(struct reader *reader, const struct node *mapping, const char *except,
                      struct config_option **out);

/* What concerns more than one thing; fills the derived members before. */
void check_config(struct reader *reader);
void check_sources(struct reader *reader);                                         /* of it: who the servers see */
uint32_t source_family_count(const struct config_source *source, uint32_t family); /* addresses of a list */

#endif
