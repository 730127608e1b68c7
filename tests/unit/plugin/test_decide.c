/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of each answer of a plugin, and of plugins that fail. */
#include "base/clock.h"
#include "deciding.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static struct deciding deciding;

static void close_deciding(void)
{
    deciding_close(&deciding);
}

TestSuite(decide, .fini = close_deciding);

static void open_behaving(const char *behaviour, const char *on_failure)
{
    char yaml[2048], options[128], extra[64];

    snprintf(options, sizeof options, "behave: %s", behaviour);
    snprintf(extra, sizeof extra, ", on_failure: %s", on_failure);
    deciding_open_yaml(&deciding, deciding_yaml(yaml, "scripted", options, extra), 1600);
}

Test(decide, a_service_without_persistence_is_scheduled_flow_by_flow)
{
    uint32_t flows[3] = {0};

    open_behaving("claim", "scheduler");
    for (int i = 0; i < 30; i++) {
        struct decision decision = ask_new(&deciding, "plain", 1);

        cr_assert_eq(decision.reason, DECISION_NO_RECORD);
        cr_assert_eq(decision.record, SEGMENT_NO_INDEX);
        flows[decision.server]++;
    }
    for (int i = 0; i < 3; i++)
        cr_assert_eq(flows[i], 10);
    cr_assert_eq(counted(&deciding, COUNTER_records_created), 0);
}

Test(decide, a_live_session_without_a_record_keeps_its_server_while_it_may_serve)
{
    open_behaving("claim", "scheduler");
    for (int i = 0; i < 5; i++)
        cr_assert_eq(ask(&deciding, 0, "plain", 1, 1, LATER).server, 1);
    server_set_state(deciding.world.segment, 1, SERVER_DISABLED, true);
    cr_assert_neq(ask(&deciding, 0, "plain", 1, 1, INIT).server, 1);
}

Test(decide, no_key_is_the_scheduler_without_a_record)
{
    open_behaving("nothing", "refuse");
    cr_assert_eq(ask_new(&deciding, "ike", 1).reason, DECISION_NO_RECORD);
    cr_assert_eq(counted(&deciding, COUNTER_records_no_key), 1);
    cr_assert_eq(counted(&deciding, COUNTER_plugin_failures), 0);
}

Test(decide, refuse_is_counted_and_drops)
{
    struct decision decision;

    open_behaving("refuse", "scheduler");
    decision = ask_new(&deciding, "ike", 1);
    cr_assert_eq(decision.server, -1);
    cr_assert_eq(decision.reason, DECISION_REFUSED_PLUGIN);
    cr_assert_eq(counted(&deciding, COUNTER_refused_by_plugin), 1);
}

Test(decide, failed_is_on_failure_scheduler)
{
    open_behaving("failed", "scheduler");
    cr_assert_geq(ask_new(&deciding, "ike", 1).server, 0);
    cr_assert_eq(counted(&deciding, COUNTER_plugin_failures), 1);
}

Test(decide, failed_is_on_failure_refuse_for_new_flows_alone)
{
    open_behaving("failed", "refuse");
    cr_assert_eq(ask_new(&deciding, "ike", 1).reason, DECISION_REFUSED_PLUGIN);
    cr_assert_eq(ask(&deciding, 0, "ike", 1, 2, LATER).server, 2);
}

Test(decide, an_answer_that_the_abi_does_not_know_is_a_failure)
{
    open_behaving("nonsense", "refuse");
    cr_assert_eq(ask_new(&deciding, "ike", 1).server, -1);
    cr_assert_eq(counted(&deciding, COUNTER_plugin_failures), 1);
}

Test(decide, a_key_longer_than_keys_are_is_a_failure)
{
    deciding_open(&deciding, "derived", "behave: nonsense");
    cr_assert_geq(ask_new(&deciding, "ike", 1).server, 0);
    cr_assert_eq(counted(&deciding, COUNTER_plugin_failures), 1);
}

Test(decide, derive_key_that_fails_or_has_no_key_is_told_apart)
{
    deciding_open(&deciding, "derived", "behave: failed");
    ask_new(&deciding, "ike", 1);
    cr_assert_eq(counted(&deciding, COUNTER_plugin_failures), 1);
    cr_assert_eq(counted(&deciding, COUNTER_records_no_key), 0);
}

Test(decide, a_server_that_is_none_is_asked_about_once_more)
{
    char yaml[2048];

    deciding_open_yaml(&deciding, deciding_yaml(yaml, "scripted", "behave: name, server: 4711", ""), 1600);
    cr_assert_eq(ask_new(&deciding, "ike", 1).reason, DECISION_NEW_RECORD, "attempt 1 claims");
    cr_assert_eq(plugin_counted(&deciding, "calls"), 2);
    cr_assert_eq(counted(&deciding, COUNTER_plugin_failures), 0);
}

Test(decide, a_server_that_is_none_twice_is_the_schedulers_turn)
{
    char yaml[2048];

    deciding_open_yaml(&deciding, deciding_yaml(yaml, "scripted", "behave: stubborn, server: 1023", ""), 1600);
    cr_assert_lt((uint32_t)ask_new(&deciding, "ike", 1).server, 3);
    cr_assert_eq(counted(&deciding, COUNTER_plugin_failures), 1);
}

Test(decide, a_plugin_cannot_hand_out_a_server_that_takes_nobody_new)
{
    char yaml[2048];

    deciding_open_yaml(&deciding, deciding_yaml(yaml, "scripted", "behave: stubborn, server: 1", ""), 1600);
    cr_assert_eq(ask_new(&deciding, "ike", 1).server, 1);
    server_set_state(deciding.world.segment, 1, SERVER_DRAIN, true);
    for (uint32_t i = 0; i < 6; i++)
        cr_assert_neq(ask_new(&deciding, "ike", i).server, 1);
    cr_assert_eq(ask(&deciding, 0, "ike", 1, 1, LATER).server, 1, "but its own session stays");
}

Test(decide, a_plugin_may_keep_records_of_its_own)
{
    struct decision first;

    open_behaving("records", "refuse");
    first = ask_new(&deciding, "ike", 1);
    cr_assert_geq(first.server, 0, "%s", decision_reason_name(first.reason));
    cr_assert_eq(ask(&deciding, 1, "nat-t", 1, -1, LATER).server, first.server);
    server_set_state(deciding.world.segment, (uint32_t)first.server, SERVER_DRAIN, true);
    cr_assert_eq(ask_new(&deciding, "nat-t", 1).server, first.server, "a recorded client of a draining server");
    server_set_state(deciding.world.segment, (uint32_t)first.server, SERVER_DISABLED, true);
    cr_assert_neq(ask_new(&deciding, "nat-t", 1).server, first.server);
}

Test(decide, claims_that_no_host_may_take_are_answered_with_nothing)
{
    open_behaving("bad_claim", "refuse");
    cr_assert_geq(ask_new(&deciding, "ike", 1).server, 0);
    cr_assert_eq(counted(&deciding, COUNTER_plugin_failures), 3);
    cr_assert_eq(counted(&deciding, COUNTER_records_created), 0);
}

Test(decide, a_plugin_may_leave_it_to_the_scheduler)
{
    open_behaving("schedule", "refuse");
    for (int i = 0; i < 6; i++)
        cr_assert_eq(ask_new(&deciding, "ike", 1).server, i % 3, "one turn a flow");
}

static void quarantine(bool on)
{
    atomic_store(&deciding.world.segment->profiles[profile_find(deciding.world.segment, "home")].quarantined, on);
}

Test(decide, a_quarantined_plugin_is_not_called)
{
    open_behaving("claim", "scheduler");
    quarantine(true);
    cr_assert_eq(ask_new(&deciding, "ike", 1).reason, DECISION_NO_RECORD);
    cr_assert_eq(plugin_counted(&deciding, "calls"), 0);
    cr_assert_not(decider_observes(deciding.deciders[0], 0, HP_OBSERVE_IKE_CLIENT));
    quarantine(false); /* or destroy is not called either */
}

/* Its file may crash as it is loaded: a worker that is born into the quarantine must not touch it. */
Test(decide, a_quarantined_plugin_is_not_even_loaded)
{
    struct config_profile *profile;
    struct error error = {0};

    open_behaving("claim", "refuse");
    decider_close(deciding.deciders[0]);
    profile = &deciding.world.config->profiles[0];
    free(profile->plugin);
    profile->plugin = strdup("/nowhere/vanished.so");
    quarantine(true);
    cr_assert_eq(decider_open(&deciding.deciders[0], deciding.world.config, deciding.topologies[0],
                              deciding.world.segment, deciding.slots[0], geteuid() == 0, &deciding.world.log, &error),
                 0);
    cr_assert_eq(ask_new(&deciding, "ike", 1).reason, DECISION_REFUSED_PLUGIN);
    cr_assert_eq(ask(&deciding, 0, "ike", 1, 1, LATER).server, 1);
    cr_assert_geq(ask_new(&deciding, "plain", 1).server, 0, "everything else runs on");
    decider_tick(deciding.deciders[0], 5000);
    quarantine(false);
}

Test(decide, logging_is_bounded_and_says_what_it_left_out)
{
    char text[4096];

    open_behaving("chatter", "scheduler");
    ask_new(&deciding, "ike", 1);
    world_logged(&deciding.world, text);
    cr_assert_not_null(strstr(text, "profile home: line 9"), "%s", text);
    cr_assert_null(strstr(text, "line 11"), "%s", text);
}

static const struct process_slot *worker_slot(void)
{
    return &deciding.world.segment->processes[deciding.slots[0]];
}

Test(decide, a_breadcrumb_is_there_during_the_call_alone)
{
    uint64_t before;

    open_behaving("claim", "scheduler");
    before = atomic_load(&worker_slot()->inside_calls);
    ask_new(&deciding, "ike", 1);
    cr_assert_eq(atomic_load(&worker_slot()->inside_calls), before + 1);
    cr_assert_eq(atomic_load(&worker_slot()->inside_since_ms), 0);
}

Test(decide, a_crash_leaves_the_breadcrumb_for_the_master)
{
    int status;
    pid_t child;

    open_behaving("crash", "scheduler");
    child = fork();
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        signal(SIGABRT, SIG_DFL);
        ask_new(&deciding, "ike", 1);
        _exit(0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFSIGNALED(status));
    cr_assert_neq(atomic_load(&worker_slot()->inside_since_ms), 0);
    cr_assert_leq(atomic_load(&worker_slot()->inside_since_ms), clock_now_ms());
    cr_assert_eq(atomic_load(&worker_slot()->inside_operation), PLUGIN_SELECT);
    cr_assert_eq(atomic_load(&worker_slot()->inside_profile), profile_find(deciding.world.segment, "home"));
}

Test(decide, a_create_that_fails_says_where_and_why)
{
    struct decider *decider = NULL;
    struct error error = {0};

    deciding_open(&deciding, "scripted", "create: yes");
    free(deciding.world.config->profiles[0].options[0].text);
    deciding.world.config->profiles[0].options[0].text = strdup("no");
    cr_assert_lt(decider_open(&decider, deciding.world.config, deciding.topologies[0], deciding.world.segment,
                              deciding.slots[0], geteuid() == 0, &deciding.world.log, &error),
                 0);
    cr_assert_null(decider);
    cr_assert_not_null(strstr(error.what, "profile home: test.yaml:9:"), "%s", error.what);
    cr_assert_not_null(strstr(error.what, "plugin scripted cannot begin: the file of clients is gone"), "%s",
                       error.what);
}

Test(decide, sights_reach_a_plugin_that_asked_for_them_and_no_more_than_it_asked_for)
{
    struct decision_request request;

    deciding_open(&deciding, "scripted", "");
    cr_assert(decider_observes(deciding.deciders[0], 0, HP_OBSERVE_IKE_CLIENT));
    cr_assert_not(decider_observes(deciding.deciders[0], 0, HP_OBSERVE_IKE_SERVER));
    cr_assert_not(decider_observes(deciding.deciders[0], 2, HP_OBSERVE_IKE_CLIENT), "no persistence");
    request_fill(&deciding, &request, "ike", 1, 2, LATER);
    for (uint32_t i = 1; i <= 5; i++)
        decider_observe(deciding.deciders[0], &request, HP_OBSERVE_IKE_CLIENT, 2, i);
    decider_observe(deciding.deciders[0], &request, HP_OBSERVE_IKE_SERVER, 2, 1);
    cr_assert_eq(plugin_counted(&deciding, "sights"), 3, "and each claim in it answered the session's own server");
}

Test(decide, ends_and_ticks_are_told)
{
    const struct hp_endpoint somewhere = {.family = 4};

    deciding_open(&deciding, "scripted", "");
    decider_session_end(deciding.deciders[0], 0, &somewhere, &somewhere, 1);
    decider_session_end(deciding.deciders[0], 2, &somewhere, &somewhere, 1);
    cr_assert_eq(plugin_counted(&deciding, "ends"), 1);
    for (uint64_t now_ms = 10000; now_ms < 20000; now_ms += 1000)
        decider_tick(deciding.deciders[0], now_ms);
    cr_assert_eq(plugin_counted(&deciding, "ticks"), 5, "every 2 s");
}

Test(decide, a_key_is_explained_without_a_segment)
{
    const struct hp_endpoint client = {.address = {203, 0, 113, 9}, .family = 4};
    struct decider *decider;
    struct error error = {0};
    uint8_t key[HP_KEY_MAX];

    deciding_open(&deciding, "scripted", "");
    cr_assert_eq(decider_open(&decider, deciding.world.config, NULL, NULL, 0, geteuid() == 0, NULL, &error), 0, "%s",
                 error.what);
    cr_assert_eq(decider_explain(decider, 0, &client, &client, key), 4);
    cr_assert_arr_eq(key, client.address, 4);
    cr_assert_eq(decider_explain(decider, 2, &client, &client, key), HP_NOTHING, "no persistence, no key");
    decider_tick(decider, 5000);
    decider_close(decider);
}

Test(decide, every_reason_has_a_name_and_so_has_nonsense)
{
    open_behaving("claim", "scheduler");
    for (int i = 0; i <= DECISION_REFUSED_SERVICE_LIMIT; i++)
        cr_assert_str_neq(decision_reason_name((enum decision_reason)i), "unknown");
    cr_assert_str_eq(decision_reason_name((enum decision_reason)99), "unknown");
}
