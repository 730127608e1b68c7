/* SPDX-License-Identifier: Apache-2.0 */
/* The promise of layout.h, held by the compiler: where each member lies. A line that fails means that a shape has
 * changed: raise SEGMENT_LAYOUT, give the shape before a place in layout_old.c, then put the new number here. */
#include "segment/tables.h"
#include <stddef.h>

/* structure, member, offset in octets */
#define OFFSETS(X)                                                                                                     \
    X(segment_header, magic, 0)                                                                                        \
    X(segment_header, layout, 8)                                                                                       \
    X(segment_header, lanes, 12)                                                                                       \
    X(segment_header, boot_id, 16)                                                                                     \
    X(segment_header, secret, 32)                                                                                      \
    X(segment_header, records, 48)                                                                                     \
    X(segment_header, buckets, 52)                                                                                     \
    X(segment_header, sessions, 56)                                                                                    \
    X(segment_header, rows_per_lane, 60)                                                                               \
    X(segment_header, size, 64)                                                                                        \
    X(segment_header, created_ms, 72)                                                                                  \
    X(segment_header, recount, 80)                                                                                     \
    X(segment_header, drop_last, 88)                                                                                   \
    X(segment_header, reloads, 96)                                                                                     \
    X(process_slot, generation, 0)                                                                                     \
    X(process_slot, role, 4)                                                                                           \
    X(process_slot, number, 8)                                                                                         \
    X(process_slot, pid, 12)                                                                                           \
    X(process_slot, started_ms, 16)                                                                                    \
    X(process_slot, loop_ms, 24)                                                                                       \
    X(process_slot, inside_since_ms, 32)                                                                               \
    X(process_slot, inside_calls, 40)                                                                                  \
    X(process_slot, inside_profile, 48)                                                                                \
    X(process_slot, inside_operation, 52)                                                                              \
    X(process_slot, last_words, 56)                                                                                    \
    X(process_slot, counters, 192)                                                                                     \
    X(process_slot, plugin_counters, 576)                                                                              \
    X(server_slot, word, 0)                                                                                            \
    X(server_slot, identity, 8)                                                                                        \
    X(server_slot, name, 16)                                                                                           \
    X(server_slot, address, 80)                                                                                        \
    X(server_slot, clients, 104)                                                                                       \
    X(server_slot, sessions, 108)                                                                                      \
    X(server_slot, answered_ms, 112)                                                                                   \
    X(server_slot, probes, 120)                                                                                        \
    X(server_probe, key, 0)                                                                                            \
    X(server_probe, failures, 4)                                                                                       \
    X(server_probe, since_ms, 8)                                                                                       \
    X(server_probe, known, 16)                                                                                         \
    X(server_probe, answered_ms, 24)                                                                                   \
    X(server_probe, reason, 32)                                                                                        \
    X(pool_slot, cursor, 0)                                                                                            \
    X(pool_slot, identity, 8)                                                                                          \
    X(service_slot, identity, 0)                                                                                       \
    X(service_slot, name, 8)                                                                                           \
    X(service_slot, clients, 72)                                                                                       \
    X(service_slot, sessions, 76)                                                                                      \
    X(profile_slot, identity, 0)                                                                                       \
    X(profile_slot, name, 8)                                                                                           \
    X(profile_slot, quarantined, 72)                                                                                   \
    X(profile_slot, deaths, 76)                                                                                        \
    X(profile_slot, last_death_ms, 80)                                                                                 \
    X(lane_slot, epoch, 0)                                                                                             \
    X(lane_slot, holder, 8)                                                                                            \
    X(lane_slot, drop_seen, 16)                                                                                        \
    X(lane_slot, losses, 64)                                                                                           \
    X(drop_slot, sequence, 0)                                                                                          \
    X(drop_slot, client, 8)                                                                                            \
    X(drop_slot, ended, 32)                                                                                            \
    X(source_slot, address, 0)                                                                                         \
    X(source_slot, absent, 24)                                                                                         \
    X(source_slot, used, 28)                                                                                           \
    X(source_load, counted, 0)                                                                                         \
    X(source_load, refusal, 8)                                                                                         \
    X(source_load, added, 16)                                                                                          \
    X(source_load, clients, 20)                                                                                        \
    X(trace_event, client, 8)                                                                                          \
    X(trace_event, service, 32)                                                                                        \
    X(trace_event, kind, 56)                                                                                           \
    X(trace_event, worker, 64)                                                                                         \
    X(trace_event, text, 80)                                                                                           \
    X(trace_slot, event, 8)                                                                                            \
    X(trace_board, until_ms, 0)                                                                                        \
    X(trace_board, generation, 8)                                                                                      \
    X(trace_board, watches, 16)                                                                                        \
    X(trace_board, last, 576)                                                                                          \
    X(trace_board, events, 640)                                                                                        \
    X(record_slot, value, 0)                                                                                           \
    X(record_slot, reserve, 8)                                                                                         \
    X(record_slot, fingerprint, 16)                                                                                    \
    X(record_slot, timeout_s, 32)                                                                                      \
    X(record_slot, created_s, 36)                                                                                      \
    X(record_slot, profile, 40)                                                                                        \
    X(record_slot, service, 44)                                                                                        \
    X(record_slot, client, 48)                                                                                         \
    X(record_bucket, head, 0)                                                                                          \
    X(record_bucket, sources, 8)                                                                                       \
    X(record_bucket, slots, 64)                                                                                        \
    X(session_row, state, 0)                                                                                           \
    X(session_row, client, 8)                                                                                          \
    X(session_row, local, 32)                                                                                          \
    X(session_row, service, 48)                                                                                        \
    X(session_row, server, 56)                                                                                         \
    X(session_row, server_port, 58)                                                                                    \
    X(session_row, source_port, 60)                                                                                    \
    X(session_row, local_port, 62)                                                                                     \
    X(session_row, watch, 64)                                                                                          \
    X(session_row, record, 72)                                                                                         \
    X(session_row, flags, 76)                                                                                          \
    X(session_row, begun_ms, 80)                                                                                       \
    X(session_row, client_ms, 88)                                                                                      \
    X(session_row, server_ms, 96)                                                                                      \
    X(session_row, bytes_to_server, 104)                                                                               \
    X(session_row, bytes_to_client, 112)                                                                               \
    X(session_row, settings, 120)                                                                                      \
    X(session_row, kept_watch, 128)                                                                                    \
    X(session_row, kept_record, 152)                                                                                   \
    X(session_row, source, 164)

#define X(type, member, offset)                                                                                        \
    _Static_assert(offsetof(struct type, member) == (offset), #type "." #member " has moved: raise SEGMENT_LAYOUT");
OFFSETS(X)
#undef X

/* structure, octets */
#define SIZES(X)                                                                                                       \
    X(segment_header, 104)                                                                                             \
    X(process_slot, 2624)                                                                                              \
    X(server_slot, 1408)                                                                                               \
    X(server_probe, 80)                                                                                                \
    X(pool_slot, 64)                                                                                                   \
    X(service_slot, 80)                                                                                                \
    X(profile_slot, 88)                                                                                                \
    X(lane_slot, 256)                                                                                                  \
    X(drop_slot, 40)                                                                                                   \
    X(source_slot, 32)                                                                                                 \
    X(source_load, 24)                                                                                                 \
    X(trace_slot, 128)                                                                                                 \
    X(trace_board, 131712)

#define X(type, octets)                                                                                                \
    _Static_assert(sizeof(struct type) == (octets), #type " has another size: raise SEGMENT_LAYOUT");
SIZES(X)
#undef X

_Static_assert(COUNTER_COUNT == 46,
               "the counters of an old file would be read under other names: raise SEGMENT_LAYOUT");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && ATOMIC_LLONG_LOCK_FREE == 2, "words must be atomic between processes");
_Static_assert(SEGMENT_SERVERS <= RECORD_DEAD, "a record's value must be able to name every server");

const struct segment_layout segment_layout_present = {
    .number = SEGMENT_LAYOUT,
    .tables = {[TABLE_PROCESSES] = {SEGMENT_PROCESSES, sizeof(struct process_slot), NULL},
               [TABLE_SERVERS] = {SEGMENT_SERVERS, sizeof(struct server_slot), NULL},
               [TABLE_POOLS] = {SEGMENT_POOLS, sizeof(struct pool_slot), NULL},
               [TABLE_SERVICES] = {SEGMENT_SERVICES, sizeof(struct service_slot), NULL},
               [TABLE_PROFILES] = {SEGMENT_PROFILES, sizeof(struct profile_slot), NULL},
               [TABLE_LANES] = {SEGMENT_LANES, sizeof(struct lane_slot), NULL},
               [TABLE_DROPS] = {SEGMENT_DROPS, sizeof(struct drop_slot), NULL},
               [TABLE_SOURCES] = {SEGMENT_SOURCES, sizeof(struct source_slot), NULL},
               [TABLE_LOADS] = {SEGMENT_SERVERS * SEGMENT_SOURCES, sizeof(struct source_load), NULL},
               [TABLE_TRACES] = {1, sizeof(struct trace_board), NULL},
               [TABLE_BUCKETS] = {0, sizeof(struct record_bucket), NULL},
               [TABLE_ROWS] = {0, sizeof(struct session_row), NULL},
               [TABLE_TUPLES] = {0, sizeof(uint64_t), NULL}},
};

void segment_tables_plan(struct segment_tables *out, const struct segment_layout *layout,
                         const struct segment_header *capacities)
{
    size_t end = SEGMENT_PAGE;

    for (uint32_t i = 0; i < TABLE_COUNT; i++) {
        size_t count = layout->tables[i].count;

        if (i == TABLE_BUCKETS)
            count = capacities->buckets;
        else if (i == TABLE_ROWS)
            count = (size_t)capacities->lanes * capacities->rows_per_lane;
        else if (i == TABLE_TUPLES)
            count = segment_tuple_count(capacities->lanes, capacities->rows_per_lane);
        out->at[i] = end;
        end = (end + count * layout->tables[i].size + SEGMENT_PAGE - 1) / SEGMENT_PAGE * SEGMENT_PAGE;
    }
    out->size = end;
}

uint32_t segment_bucket_count(uint32_t records)
{
    uint32_t buckets = records / 6 + (records % 6 != 0);

    return buckets < 4 ? 4 : buckets;
}

uint32_t segment_rows_per_lane(uint32_t sessions, uint32_t lanes)
{
    return sessions / lanes + (sessions % lanes != 0);
}

uint32_t segment_tuple_count(uint32_t lanes, uint32_t rows_per_lane)
{
    uint64_t rows = (uint64_t)lanes * rows_per_lane, count = 64;

    while (count < 2 * rows && count < SEGMENT_TUPLES_MAX)
        count *= 2;
    return (uint32_t)count;
}
