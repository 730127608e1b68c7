/* SPDX-License-Identifier: Apache-2.0 */
/* A state folder of its own, a log that can be read back, and a segment in it. Everything is gone after the test. */
#ifndef FIXTURE_H
#define FIXTURE_H

#include "segment/record.h"
#include "segment/segment.h"
#include "segment/session.h"
#include <sys/types.h>

struct fixture {
    char path[64];
    int directory;
    struct log log;
    struct error error;
    struct segment_shape shape;
    struct segment *segment; /* NULL: none open */
};

void fixture_open(struct fixture *fixture); /* no segment yet; shape: 60 records, 64 sessions, 8 lanes */
void fixture_close(struct fixture *fixture);
int fixture_segment(struct fixture *fixture); /* segment_open with the fixture's shape; closes the one before */
bool fixture_has(const struct fixture *fixture, const char *name);
/* What was logged since the last call, as text. */
const char *fixture_logged(struct fixture *fixture, char text[2048]);
/* Overwrites octets of the file. */
void fixture_poke(const struct fixture *fixture, off_t offset, const void *octets, size_t size);

/* A key that lies in this bucket; different numbers, different keys. */
struct record_key key_in_bucket(const struct segment *segment, uint32_t bucket, uint32_t number);
struct record_origin origin_of(uint32_t timeout_s);
struct hp_endpoint endpoint_of(uint8_t last, uint16_t port); /* 192.0.2.LAST:PORT */
/* Claims or ends the test. */
struct record_ref claim(struct segment *segment, uint32_t self, const struct record_key *key, uint32_t server,
                        uint32_t now_s);
/* The number of records in the bucket that have a key twice. */
uint32_t bucket_duplicates(const struct segment *segment, uint32_t bucket);

#endif
