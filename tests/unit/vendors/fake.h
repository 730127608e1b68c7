/* SPDX-License-Identifier: Apache-2.0 */
/* A host that a plugin cannot tell from the real one: a profile that tests put together, a record table without limits,
 * servers handed out in turn. What the plugin claims, reports and counts is kept for the test to look at. */
#ifndef VENDORS_FAKE_H
#define VENDORS_FAKE_H

#include <homeport/plugin.h>
#include <stdbool.h>

#define FAKE_SERVICES 8u
#define FAKE_OPTIONS 16u
#define FAKE_RECORDS 64u
#define FAKE_PROBLEMS 16u

struct fake_record {
    uint8_t key[HP_KEY_MAX];
    uint32_t size;
    int32_t server;
};
struct fake_problem {
    uint32_t service, option;
    bool warning;
    char text[512];
};

struct fake {
    struct hp_host host; /* first: the plugin hands it back */
    const struct hp_plugin *plugin;
    void *self;
    struct hp_profile profile;
    struct hp_service services[FAKE_SERVICES];
    const struct hp_service *by_id[FAKE_SERVICES];
    struct hp_value values[FAKE_SERVICES + 1][FAKE_OPTIONS]; /* the profile's are the last row */
    struct fake_record records[FAKE_RECORDS];
    uint32_t record_count;
    struct fake_problem problems[FAKE_PROBLEMS];
    uint32_t problem_count;
    uint64_t counted[4];
    uint32_t claims;
    struct hp_claim claim; /* the last one; its key points to claim_key */
    uint8_t claim_key[HP_KEY_MAX];
    int32_t next_server; /* the scheduler; below 0: what claim answers for a new key */
};

/* Loads build/plugins/NAME/NAME.so; options have their fallbacks. Fails the test when it cannot. */
struct fake *fake_open(const char *name);
void fake_close(struct fake *fake);

/* Adds a service and returns its id. Its identity comes from the name. */
uint32_t fake_service(struct fake *fake, const char *name, uint64_t listen, uint64_t servers);
/* An option of the profile, as a user writes it. */
void fake_set(struct fake *fake, const char *option, const char *text);
/* The service option `follow`. */
void fake_follow(struct fake *fake, uint32_t service, uint32_t other);
uint32_t fake_option(const struct fake *fake, const char *name);

/* The plugin's check(), 0 where it has none. */
int fake_check(struct fake *fake);
uint32_t fake_errors(const struct fake *fake);
uint32_t fake_warnings(const struct fake *fake);

/* The server that the plugin answers for the first datagram of a client ("192.0.2.1", "2001:db8::1"). Without select:
 * derive_key, then a claim of that key, as the real host does. The first call creates the instance. */
int32_t fake_decide(struct fake *fake, uint32_t service, const char *client);
/* derive_key: the size of the key, or what it answered instead. */
int32_t fake_explain(struct fake *fake, uint32_t service, const char *client, uint8_t key[HP_KEY_MAX]);

/* A value as a user writes it, by the option's kind; fails the test when it is none. */
struct hp_value fake_value(const struct hp_option *option, const char *text, uint32_t given);

#endif
