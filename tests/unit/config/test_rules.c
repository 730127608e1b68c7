/* SPDX-License-Identifier: Apache-2.0 */
/* One mistake at a time in a file that is whole: what is said, and exactly where. */
#include "reading.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* clang-format off: a row is a rule */
static const char whole[] =
    "workers: 2\n"
    "user: homeport\n"
    "state: /run/homeport\n"
    "plugin_path: [ /usr/lib/homeport/plugins ]\n"
    "log: { level: info, format: text, sessions: off }\n"
    "affinity: { capacity: 65536, when_full: evict }\n"
    "sessions: { capacity: 65536, idle: 120s, idle_unproven: 10s, ports: 10240-29999 }\n"
    "servers:\n"
    "  vpn1: { address: 192.0.2.11, weight: 1, state: enabled }\n"
    "  vpn2: { address: 192.0.2.12, max_clients: 5000, priority: 0 }\n"
    "pools:\n"
    "  rras:\n"
    "    servers: [ vpn1, vpn2 ]\n"
    "    scheduler: round_robin\n"
    "    health: { check: auto, interval: 5s, timeout: 2s, rise: 2, fall: 3, source: 192.0.2.1 }\n"
    "    all_down: serve\n"
    "    min_active: 1\n"
    "    source: nat\n"
    "persistence:\n"
    "  kemp: { plugin: port_following, on_failure: scheduler, options: { timeout: 6m } }\n"
    "services:\n"
    "  ike: { listen: \"203.0.113.10:500\", protocol: udp, pool: rras, persistence: { profile: kemp, follow: nat-t } "
    "}\n"
    "  nat-t: { listen: \"203.0.113.10:4500\", protocol: udp, pool: rras, persistence: kemp, idle: 2h, max_clients: 9 "
    "}\n";

static const struct {
    const char *claim, *from, *to, *said;
} rules[] = {
    {"unknown_key_with_a_close_one",
     "scheduler: ", "schedular: ", "14:5: error: unknown key `schedular`; did you mean `scheduler`?"},
    {"unknown_key_with_none_close", "workers: 2", "colour: red\nworkers: 2",
     "1:1: error: unknown key `colour`; here it can be workers, user, state, plugin_path, log, affinity, sessions, "
     "metrics, servers, pools, persistence or services"},
    {"unknown_key_deep_inside", "fall: 3", "fail: 3", "15:64: error: unknown key `fail`; did you mean `fall`?"},
    {"server_without_address", "address: 192.0.2.11, ", "", "9:3: error: `address` is missing in `vpn1`"},
    {"pool_without_servers_key", "    servers: [ vpn1, vpn2 ]\n", "", "12:3: error: `servers` is missing in `rras`"},
    {"pool_of_nobody", "[ vpn1, vpn2 ]", "[ ]", "13:14: error: a pool without a server"},
    {"profile_without_plugin", "plugin: port_following, ", "", "20:3: error: `plugin` is missing in `kemp`"},
    {"service_without_protocol", "\"203.0.113.10:500\", protocol: udp", "\"203.0.113.10:500\"",
     "22:3: error: `protocol` is missing in `ike`"},
    {"service_without_listen", "listen: \"203.0.113.10:500\", ", "", "22:3: error: `listen` is missing in `ike`"},
    {"section_missing",
     "servers:\n  vpn1: { address: 192.0.2.11, weight: 1, state: enabled }\n  vpn2: { address: 192.0.2.12, "
     "max_clients: 5000, priority: 0 }\n",
     "", "1:1: error: `servers` is missing"},
    {"list_where_a_mapping_belongs", "log: { level: info, format: text, sessions: off }", "log: [ info ]",
     "5:6: error: `log` wants a mapping (key: value), not a list"},
    {"mapping_where_a_list_belongs", "[ vpn1, vpn2 ]", "{ vpn1: 1 }",
     "13:14: error: `servers` wants a list of servers, not a mapping"},
    {"value_where_a_mapping_belongs", "{ address: 192.0.2.11, weight: 1, state: enabled }", "192.0.2.11",
     "9:9: error: `vpn1` wants a mapping (key: value), not a single value"},
    {"value_where_a_list_belongs", "[ /usr/lib/homeport/plugins ]", "/usr/lib/homeport/plugins",
     "4:14: error: `plugin_path` wants a list of folders, not a single value"},
    {"mapping_where_a_value_belongs", "level: info", "level: { info: 1 }",
     "5:15: error: `level` wants error, warning, info or debug, not a mapping"},
    {"nothing_where_a_value_belongs", "workers: 2", "workers:", "1:1: error: `workers` wants a number, not nothing"},
    {"null_where_a_value_belongs", "user: homeport", "user: null", "2:1: error: `user` wants a text, not nothing"},
    {"nothing_where_a_server_belongs", "{ address: 192.0.2.12, max_clients: 5000, priority: 0 }", "",
     "10:3: error: `vpn2` wants a mapping (key: value), not nothing"},
    {"list_element_of_the_wrong_kind", "[ vpn1, vpn2 ]", "[ vpn1, [ vpn2 ] ]",
     "13:22: error: this place wants the name of a server, not a list"},
    {"words_are_no_number", "workers: 2", "workers: many", "1:10: error: `workers` wants a whole number, not `many`"},
    {"quoted_text_is_no_number", "weight: 1", "weight: \"1\"",
     "9:40: error: `weight` wants a whole number, not \"1\" in quotes"},
    {"octal_is_no_number", "weight: 1", "weight: 010", "9:40: error: `weight` wants a whole number, not `010`"},
    {"negative_is_no_number", "rise: 2", "rise: -2", "15:61: error: `rise` wants a whole number, not `-2`"},
    {"fraction_is_no_number", "rise: 2", "rise: 2.5", "15:61: error: `rise` wants a whole number, not `2.5`"},
    {"huge_number", "max_clients: 9", "max_clients: 99999999999999999999",
     "23:110: error: `max_clients` wants a whole number, not `99999999999999999999`"},
    {"number_below_its_range", "weight: 1", "weight: 0", "9:40: error: `weight` must be from 1 to 1000, not 0"},
    {"number_above_its_range", "workers: 2", "workers: 121", "1:10: error: `workers` must be from 1 to 120, not 121"},
    {"no_capacity", "affinity: { capacity: 65536", "affinity: { capacity: 0",
     "6:23: error: `capacity` must be from 1 to 16777216, not 0"},
    {"word_that_is_no_choice", "when_full: evict", "when_full: sometimes",
     "6:41: error: `when_full` cannot be `sometimes`; it is evict or refuse"},
    {"word_close_to_a_choice", "scheduler: round_robin", "scheduler: roundrobin",
     "14:16: error: `scheduler` cannot be `roundrobin`; did you mean `round_robin`?"},
    {"word_that_is_no_truth", "sessions: off", "sessions: sometimes",
     "5:45: error: `sessions` wants on or off (yes or no, true or false), not `sometimes`"},
    {"quoted_truth", "sessions: off", "sessions: \"off\"",
     "5:45: error: `sessions` wants on or off (yes or no, true or false), not `off` in quotes"},
    {"duration_without_unit", "idle: 120s", "idle: 120",
     "7:36: error: `idle`: `120` is a bare number: seconds or milliseconds? Write the unit: 250ms, 180s, 6m, 2h"},
    {"duration_with_a_strange_unit", "idle: 120s", "idle: 2min",
     "7:36: error: `idle`: `2min` is not a duration: write a whole number and its unit, such as 250ms, 180s, 6m or 2h"},
    {"duration_never_where_time_must_pass", "idle: 2h", "idle: never",
     "23:93: error: `idle`: `never` is not possible here: write a duration such as 180s, 6m or 2h"},
    {"duration_too_short", "interval: 5s", "interval: 1ms",
     "15:38: error: `interval` must be from 100ms to 1h, not 1ms"},
    {"duration_too_long", "idle: 2h", "idle: 4000h", "23:93: error: `idle` must be from 100ms to 720h, not 4000h"},
    {"duration_beyond_all_numbers", "idle: 2h", "idle: 99999999999999999999999h",
     "23:93: error: `idle`: `99999999999999999999999h` is longer than 180 days"},
    {"probe_that_outlasts_its_interval", "interval: 5s", "interval: 1s",
     "15:51: error: `timeout` is longer than `interval`: a probe ends before the next begins"},
    {"state_is_relative", "state: /run/homeport", "state: run/homeport",
     "3:8: error: `state` wants a path from the root, such as /run/homeport"},
    {"state_is_too_long", "state: /run/homeport",
     "state: /xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
     "3:8: error: `state` is longer than 88 octets: the paths of its sockets would be too long"},
    {"state_is_empty", "state: /run/homeport", "state: \"\"", "3:8: error: `state` is empty"},
    {"plugin_folder_is_empty", "[ /usr/lib/homeport/plugins ]", "[ \"\" ]", "4:16: error: a folder without a name"},
    {"ports_are_no_range", "ports: 10240-29999", "ports: 10240",
     "7:69: error: `ports`: `10240` is not a range FIRST-LAST of ports from 1024 to 65535"},
    {"ports_backwards", "ports: 10240-29999", "ports: 29999-10240",
     "7:69: error: `ports`: `29999-10240` is not a range FIRST-LAST of ports from 1024 to 65535"},
    {"ports_of_the_privileged", "ports: 10240-29999", "ports: 100-29999",
     "7:69: error: `ports`: `100-29999` is not a range FIRST-LAST of ports from 1024 to 65535"},
    {"ports_beyond_all_ports", "ports: 10240-29999", "ports: 10240-65536",
     "7:69: error: `ports`: `10240-65536` is not a range FIRST-LAST of ports from 1024 to 65535"},
    {"ports_too_few_for_the_lanes", "ports: 10240-29999", "ports: 10240-10246",
     "7:69: error: 7 source ports are too few: 2 workers need 8 at least"},
    {"ports_hold_a_services_port", "ports: 10240-29999", "ports: 4000-5000",
     "23:20: error: port 4500 lies in the own source ports 4000-5000: choose other `ports` under `sessions`"},
    {"address_is_a_host_name", "192.0.2.11,", "vpn1.example.org,",
     "9:20: error: `vpn1.example.org` is not an address (names are not looked up)"},
    {"address_is_cut", "192.0.2.11,", "192.0.2,", "9:20: error: `192.0.2` is not an address (names are not looked up)"},
    {"address_of_a_server_with_a_port", "192.0.2.11,", "\"192.0.2.11:500\",",
     "9:20: error: `address` of a server takes no port: the services and `port` of a pool say which"},
    {"address_of_a_server_is_any", "192.0.2.11,", "0.0.0.0,",
     "9:20: error: `0.0.0.0` is not the address of one machine"},
    {"address_is_multicast", "192.0.2.11,", "224.0.0.1,", "9:20: error: `224.0.0.1` is not the address of one machine"},
    {"server_in_ipv6_with_brackets", "192.0.2.11,", "\"[2001:db8::1]\",",
     "9:20: error: `[2001:db8::1]` has brackets, but no port: write 2001:db8::1, or [2001:db8::1]:500"},
    {"server_in_ipv6_with_a_port", "192.0.2.11,", "\"[2001:db8::1]:500\",",
     "9:20: error: `address` of a server takes no port: the services and `port` of a pool say which"},
    {"server_in_ipv6_is_any", "192.0.2.11,", "\"::\",", "9:20: error: `::` is not the address of one machine"},
    {"server_in_ipv6_is_multicast", "192.0.2.11,", "\"ff02::1\",",
     "9:20: error: `ff02::1` is not the address of one machine"},
    {"server_in_ipv6_stands_for_ipv4", "192.0.2.11,", "\"::ffff:192.0.2.11\",",
     "9:20: error: `::ffff:192.0.2.11` is an IPv4 address: write 192.0.2.11"},
    {"server_is_link_local_without_a_zone", "192.0.2.11,", "\"fe80::11\",",
     "9:20: error: `fe80::11` is a link-local address: it wants its interface, as in fe80::1%eth0"},
    {"server_has_a_zone_and_needs_none", "192.0.2.11,", "\"2001:db8::11%lo\",",
     "9:20: error: `2001:db8::11%lo`: only link-local addresses (fe80::) have a zone: leave it out, and the % before "
     "it"},
    {"server_has_an_empty_zone", "192.0.2.11,", "\"fe80::11%\",",
     "9:20: error: `fe80::11%` is not an address with a port from 1 to 65535"},
    {"listen_in_ipv6_without_a_port", "\"203.0.113.10:500\"", "\"2001:db8::10\"",
     "22:18: error: `2001:db8::10` wants a port: [2001:db8::10]:500"},
    {"listen_in_ipv6_without_brackets", "\"203.0.113.10:500\"", "\"2001:db8::10:500\"",
     "22:18: error: `2001:db8::10:500` wants a port: [2001:db8::10:500]:500"},
    {"listen_in_ipv6_stands_for_ipv4", "\"203.0.113.10:500\"", "\"[::ffff:203.0.113.10]:500\"",
     "22:18: error: `[::ffff:203.0.113.10]:500` is an IPv4 address: write 203.0.113.10"},
    {"listen_is_link_local_without_a_zone", "\"203.0.113.10:500\"", "\"[fe80::10]:500\"",
     "22:18: error: `[fe80::10]:500` is a link-local address: it wants its interface, as in fe80::1%eth0"},
    {"listen_in_ipv6_twice", "\"203.0.113.10:500\"", "[ \"[2001:db8::10]:500\", \"[2001:db8:0::10]:500\" ]",
     "22:42: error: [2001:db8::10]:500 is a listener of `ike` already (line 22)"},
    {"listen_without_a_port", "\"203.0.113.10:500\"", "203.0.113.10",
     "22:18: error: `203.0.113.10` wants a port: 203.0.113.10:500"},
    {"listen_on_port_zero", "\"203.0.113.10:500\"", "\"203.0.113.10:0\"",
     "22:18: error: `203.0.113.10:0` is not an address with a port from 1 to 65535"},
    {"listen_on_a_port_too_large", "\"203.0.113.10:500\"", "\"203.0.113.10:65536\"",
     "22:18: error: `203.0.113.10:65536` is not an address with a port from 1 to 65535"},
    {"listen_nowhere", "\"203.0.113.10:500\"", "[ ]", "22:18: error: `listen` wants 1 to 64 addresses, not 0"},
    {"listen_on_two_ports", "\"203.0.113.10:500\"", "[ \"203.0.113.10:500\", \"203.0.113.11:501\" ]",
     "22:40: error: port 501 beside port 500 in one service: make a service for each port"},
    {"health_source_in_ipv6_for_ipv4_servers", "source: 192.0.2.1 ", "source: \"::1\" ",
     "15:81: error: an IPv6 address cannot probe `vpn1`, which has an IPv4 address: leave `source` out, or give the "
     "servers of each family a pool of their own"},
    {"health_source_with_a_port", "source: 192.0.2.1 ", "source: \"192.0.2.1:99\" ",
     "15:81: error: `source` wants one own address, without a port"},
    {"health_source_is_any", "source: 192.0.2.1 ", "source: 0.0.0.0 ",
     "15:81: error: `source` wants one own address, without a port"},
    {"one_address_under_two_names", "192.0.2.12,", "192.0.2.11,",
     "10:20: error: `vpn2` has the address of `vpn1` (line 9): one server has one name"},
    {"one_server_twice_in_a_pool", "[ vpn1, vpn2 ]", "[ vpn1, vpn2, vpn1 ]",
     "13:28: error: server `vpn1` is in this pool twice (for a larger share: its `weight`)"},
    {"dangling_server", "[ vpn1, vpn2 ]", "[ vpn1, wpn2 ]",
     "13:22: error: there is no server `wpn2`; did you mean `vpn2`?"},
    {"dangling_server_with_none_close", "[ vpn1, vpn2 ]", "[ vpn1, mail ]", "13:22: error: there is no server `mail`"},
    {"dangling_pool", "pool: rras, persistence: kemp", "pool: rars, persistence: kemp",
     "23:62: error: there is no pool `rars`; did you mean `rras`?"},
    {"dangling_profile", "persistence: kemp", "persistence: kamp",
     "23:81: error: there is no persistence profile `kamp`; did you mean `kemp`?"},
    {"dangling_profile_in_a_mapping", "profile: kemp", "profile: f5",
     "22:89: error: there is no persistence profile `f5`"},
    {"persistence_mapping_without_profile", "profile: kemp, ", "",
     "22:78: error: `profile` is missing in `persistence`"},
    {"persistence_option_is_a_list", "follow: nat-t", "follow: [ nat-t ]",
     "22:103: error: `follow` wants a single value, not a list"},
    {"profile_option_is_nothing", "timeout: 6m }", "timeout: }",
     "20:69: error: `timeout` wants a single value, not nothing"},
    {"duplicate_key", "user: homeport", "user: homeport\nuser: nobody",
     "3:1: error: `user` stands here twice: first in line 2"},
    {"duplicate_server", "  vpn2: {", "  vpn1: { address: 192.0.2.13 }\n  vpn2: {",
     "10:3: error: `vpn1` stands here twice: first in line 9"},
    {"duplicate_listener", "203.0.113.10:4500", "203.0.113.10:500",
     "23:20: error: 203.0.113.10:500 is a listener of `ike` already (line 22)"},
    {"duplicate_listener_in_one_list", "\"203.0.113.10:500\"", "[ \"203.0.113.10:500\", \"203.0.113.10:500\" ]",
     "22:40: error: 203.0.113.10:500 is a listener of `ike` already (line 22)"},
    {"pool_port_for_two_ports", "    all_down: serve", "    port: 500\n    all_down: serve",
     "16:11: error: `port` in a pool that services of different ports or protocols use (`ike` and `nat-t`): leave it "
     "out, or give each its own pool"},
    {"service_that_feeds_itself", "203.0.113.10:500", "192.0.2.11:500",
     "22:18: error: `ike` would send to itself: this is the address and port of its server `vpn1`"},
    {"name_too_long", "  vpn2: {",
     "  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx: { address: 192.0.2.13 }\n  vpn2: {",
     "10:3: error: a name has at most 63 octets, not 64"},
    {"name_with_a_space", "  vpn2: {", "  v pn: { address: 192.0.2.13 }\n  vpn2: {",
     "10:3: error: `v pn` is not a name: letters, digits and . _ - / : @ + make one, and - does not begin it"},
    {"name_like_an_option", "  vpn2: {", "  --all: { address: 192.0.2.13 }\n  vpn2: {",
     "10:3: error: `--all` is not a name: letters, digits and . _ - / : @ + make one, and - does not begin it"},
    {"name_is_empty", "  vpn2: {", "  \"\": { address: 192.0.2.13 }\n  vpn2: {",
     "10:3: error: `` is not a name: letters, digits and . _ - / : @ + make one, and - does not begin it"},
    {"health_at_a_service_is_only_group", "idle: 2h", "health: { check: none }",
     "23:97: error: unknown key `check`; here it can be group"},
    {"check_tcp_of_a_udp_service", "check: auto", "check: tcp",
     "22:3: error: `ike` is UDP, but its pool `rras` has `check: tcp`: with `check: auto` each service is probed in "
     "its "
     "own protocol"},
    {"later_check_sstp", "check: auto", "check: sstp", "15:22: error: `check: sstp`: not in this version"},
    {"protocol_misspelt", "protocol: udp, pool: rras, persistence: kemp",
     "protocol: tpc, pool: rras, persistence: kemp", "23:51: error: `protocol` cannot be `tpc`; did you mean `tcp`?"},
    {"source_list_is_empty", "source: nat", "source: []", "18:13: error: `source` wants 1 to 63 own addresses, not 0"},
    {"source_list_has_a_port", "source: nat", "source: [ 192.0.2.1, \"192.0.2.2:500\" ]",
     "18:26: error: `192.0.2.2:500` in `source`: own addresses, each without a port"},
    {"source_list_has_any_address", "source: nat", "source: [ 0.0.0.0 ]",
     "18:15: error: `0.0.0.0` in `source`: own addresses, each without a port"},
    {"source_list_twice_the_same", "source: nat", "source: [ 192.0.2.1, 192.0.2.1 ]",
     "18:26: error: 192.0.2.1 is in this list twice"},
    {"source_list_of_the_other_family", "source: nat", "source: [ \"2001:db8::1\" ]",
     "18:13: error: `vpn1` has an IPv4 address, and none of these source addresses is IPv4: add one of this machine's, "
     "or take the server out of the pool"},
    {"source_of_one_port_alone", "idle: 2h", "source: [ 192.0.2.1 ]",
     "23:3: error: `ike` and `nat-t` share records, but not their `source`: the two ports of one client would come "
     "from "
     "two addresses, and IKEv2 breaks; give both the same"},
    {"source_is_nothing_known", "source: nat", "source: masquerade",
     "18:13: error: `source` cannot be `masquerade`; it is nat, transparent, or a list of own addresses: [ADDRESS, "
     "...]"},
    {"later_source_misspelt", "source: nat", "source: snat",
     "18:13: error: `source` cannot be `snat`; did you mean `nat`?"},
    {"later_priority", "priority: 0", "priority: 10", "10:61: error: `priority`: not in this version"},
    {"later_min_active", "min_active: 1", "min_active: 2", "17:17: error: `min_active`: not in this version"},
    {"later_slow_start", "min_active: 1", "slow_start: 60s", "17:17: error: `slow_start`: not in this version"},
    {"later_drain", "min_active: 1", "drain: { timeout: 8h, at_end: keep }",
     "17:12: error: `drain`: not in this version"},
    {"later_max_new_per_second", "max_clients: 5000", "max_new_per_second: 200",
     "10:52: error: `max_new_per_second`: not in this version"},
    {"later_metrics", "workers: 2", "workers: 2\nmetrics: { listen: 127.0.0.1:9477 }",
     "2:10: error: `metrics`: not in this version"},
    {"yaml_bracket_left_open", "[ vpn1, vpn2 ]", "[ vpn1, vpn2",
     "14:14: error: not YAML: did not find expected ',' or ']' (while parsing a flow sequence from line 13)"},
    {"yaml_tab", "    scheduler", "\tscheduler",
     "14:1: error: not YAML: found character that cannot start any token (a tab? indent with spaces)"},
    {"yaml_quote_left_open", "\"203.0.113.10:4500\"", "\"203.0.113.10:4500",
     "24:1: error: not YAML: found unexpected end of stream (while scanning a quoted scalar from line 23)"},
    {"yaml_anchor", "{ address: 192.0.2.11", "&a { address: 192.0.2.11",
     "9:9: error: anchors (&a) are not used here: write it out"},
    {"yaml_alias", "192.0.2.12", "*a", "10:20: error: aliases (*a) are not used here: write it out"},
    {"yaml_tag", "192.0.2.12", "!!str 192.0.2.12",
     "10:20: error: tags (tag:yaml.org,2002:str) are not used here: leave it out"},
    {"yaml_second_document", "services:", "---\nservices:", "21:1: error: a second document: a configuration is one"},
    {"yaml_list_as_key", "  vpn2: {", "  [ vpn2 ]: {", "10:3: error: a list or mapping cannot be a key"},
    {"yaml_too_deep", "[ vpn1, vpn2 ]", "[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]",
     "13:27: error: lists or mappings too deep inside each other"},
    {"yaml_control_character", "user: homeport", "user: \"home\\x07port\"",
     "2:7: error: a text with control characters or line breaks"},
    {"yaml_nul_in_quotes", "user: homeport", "user: \"home\\0port\"",
     "2:7: error: a text with control characters or line breaks"},
    {"octet_is_not_utf8", "user: homeport", "user: hom\xff", "2:10: error: not UTF-8: save the file in that encoding"},
    {"octet_is_a_control_character", "user: homeport", "user: hom\x01", "2:10: error: a control character"},
};
/* clang-format on */

/* The whole file with its one (from) replaced. free() it. */
static char *edited(const char *from, const char *to)
{
    const char *place = strstr(whole, from);
    char *text = malloc(sizeof whole + strlen(to));

    cr_assert_not_null(place, "`%s` is not in the file", from);
    cr_assert_null(strstr(place + 1, from), "`%s` is in the file twice", from);
    sprintf(text, "%.*s%s%s", (int)(place - whole), whole, to, place + strlen(from));
    return text;
}

/* Without the warning that every pool behind nat gets. */
static uint32_t errors_of(struct reading *reading)
{
    return reading->diagnostics != NULL ? diagnostics_errors(reading->diagnostics) : 0;
}

static const char *first_error(struct reading *reading, char *line, size_t size)
{
    for (unsigned n = 0; *reading_message(reading, n, line, size) != '\0'; n++)
        if (strstr(line, ": error: ") != NULL)
            break;
    return line;
}

Test(rules, whole_file_breaks_none)
{
    struct reading reading;

    reading_open(&reading, whole, sizeof whole - 1);
    cr_expect_eq(reading.status, 0, "%s", reading.said);
    cr_expect_eq(errors_of(&reading), 0);
    reading_close(&reading);
}

Test(rules, each_broken_one_is_said_at_its_place_and_nothing_else)
{
    struct reading reading;
    char line[1024];

    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        char *text = edited(rules[i].from, rules[i].to);

        reading_open(&reading, text, strlen(text));
        cr_expect_eq(reading.status, -EINVAL, "%s", rules[i].claim);
        cr_expect_null(reading.config, "%s", rules[i].claim);
        cr_expect_eq(errors_of(&reading), 1, "%s:\n%s", rules[i].claim, reading.said);
        cr_expect_str_eq(first_error(&reading, line, sizeof line), rules[i].said, "%s:\n%s", rules[i].claim,
                         reading.said);
        reading_close(&reading);
        free(text);
    }
}

Test(rules, all_broken_ones_are_said_in_one_go_in_the_order_of_the_file)
{
    static const char text[] = "services:\n"
                               "  ike: { listen: 203.0.113.10, protocol: udp, pool: vpm }\n"
                               "pools:\n"
                               "  vpn: { servers: [ a, c ], scheduler: rr }\n"
                               "servers:\n"
                               "  a: { address: 192.0.2.1 }\n"
                               "  b: { address: 192.0.2.1, wait: 3 }\n"
                               "worker: 3\n";
    static const char *const said[] = {"2:18: error: `203.0.113.10` wants a port",
                                       "2:53: error: there is no pool `vpm`; did you mean `vpn`?",
                                       "4:24: error: there is no server `c`",
                                       "4:40: error: `scheduler` cannot be `rr`",
                                       "7:17: error: `b` has the address of `a` (line 6)",
                                       "7:28: error: unknown key `wait`",
                                       "8:1: error: unknown key `worker`; did you mean `workers`?"};
    struct reading reading;
    char line[1024];

    reading_open(&reading, text, sizeof text - 1);
    cr_expect_eq(errors_of(&reading), 7);
    for (unsigned i = 0; i < 7; i++)
        cr_expect_eq(strncmp(reading_message(&reading, i, line, sizeof line), said[i], strlen(said[i])), 0, "%s", line);
    reading_close(&reading);
}

Test(rules, later_values_that_are_the_default_pass)
{
    /* whole has priority: 0, min_active: 1 and source: nat; here once more at a service */
    char *text = edited("idle: 2h", "source: nat");
    struct reading reading;

    reading_open(&reading, text, strlen(text));
    cr_expect_eq(reading.status, 0, "%s", reading.said);
    reading_close(&reading);
    free(text);
}

static void expect_about_the_file(const char *text, size_t size, const char *said)
{
    struct reading reading;
    char line[1024];

    reading_open(&reading, text, size);
    cr_expect_eq(reading.status, -EINVAL);
    cr_expect_str_eq(reading_message(&reading, 0, line, sizeof line), said);
    reading_close(&reading);
}

Test(rules, empty_file_is_an_error)
{
    static const char said[] = " error: the file is empty: servers, pools and services are needed";

    expect_about_the_file("", 0, said);
    expect_about_the_file("# nothing\n", 10, said);
    expect_about_the_file("\xef\xbb\xbf", 3, said);
}

Test(rules, nul_octet_is_an_error)
{
    expect_about_the_file("a: b\0c\n", 7, "1:5: error: a NUL octet: this is no text file");
}

Test(rules, utf16_is_an_error)
{
    expect_about_the_file("\xff\xfe"
                          "a\0:\0",
                          6, "1:1: error: not UTF-8: save the file in that encoding");
}

Test(rules, file_beyond_its_limit_is_not_even_parsed)
{
    size_t size = CONFIG_TEXT_MAX + 1;
    char *text = malloc(size);

    memset(text, '[', size);
    expect_about_the_file(text, size, " error: the file has 1048577 octets: more than 1048576 is no configuration");
    free(text);
}

static size_t many(char *text, unsigned servers, unsigned pools, unsigned services)
{
    char *at = text;

    at += sprintf(at, "servers:\n");
    for (unsigned i = 0; i < servers; i++)
        at += sprintf(at, "  s%u: { address: 10.0.%u.%u }\n", i, i / 256, i % 256);
    at += sprintf(at, "pools:\n");
    for (unsigned i = 0; i < pools; i++)
        at += sprintf(at, "  p%u: { servers: [ s0 ], health: { check: none } }\n", i);
    at += sprintf(at, "services:\n");
    for (unsigned i = 0; i < services; i++)
        at += sprintf(at, "  v%u: { listen: 203.0.113.10:%u, protocol: udp, pool: p0 }\n", i, 1000 + i);
    return (size_t)(at - text);
}

Test(rules, tables_of_the_segment_are_the_limit)
{
    char *text = malloc(256 * 1024), line[1024];
    struct reading reading;
    size_t size = many(text, SEGMENT_SERVERS, SEGMENT_POOLS, SEGMENT_SERVICES);

    reading_open(&reading, text, size);
    cr_expect_eq(reading.status, 0, "%s", reading.said);
    reading_close(&reading);

    size = many(text, SEGMENT_SERVERS + 1, SEGMENT_POOLS + 1, SEGMENT_SERVICES + 1);
    reading_open(&reading, text, size);
    cr_expect_eq(errors_of(&reading), 3, "%s", reading.said);
    cr_expect_str_eq(reading_message(&reading, 0, line, sizeof line),
                     "1026:3: error: more than 1024 servers: from here on none is read");
    reading_close(&reading);
    free(text);
}

Test(rules, server_is_probed_on_so_many_ports_and_no_more)
{
    char *text = malloc(64 * 1024), *at = text;
    struct reading reading;

    at += sprintf(at, "servers: { a: { address: 10.0.0.1 } }\npools: { p: { servers: [ a ] } }\nservices:\n");
    for (unsigned i = 0; i < SEGMENT_PROBES; i++)
        at += sprintf(at, "  v%u: { listen: 203.0.113.10:%u, protocol: udp, pool: p }\n", i, 1000 + i);
    reading_open(&reading, text, strlen(text));
    cr_expect_eq(reading.status, 0, "%s", reading.said);
    reading_close(&reading);

    sprintf(at, "  w: { listen: 203.0.113.10:999, protocol: udp, pool: p }\n");
    reading_open(&reading, text, strlen(text));
    cr_expect_not_null(strstr(reading.said, "20:3: error: server `a` would be probed on more than 16 ports"), "%s",
                       reading.said);
    reading_close(&reading);
    free(text);
}

Test(rules, pool_behind_nat_with_ike_services_is_warned_about_with_the_remedies)
{
    struct reading reading;

    reading_open(&reading, whole, sizeof whole - 1);
    cr_expect_eq(diagnostics_warnings(reading.diagnostics), 1);
    cr_expect_not_null(strstr(reading.said, "f:12:3: warning: "));
    cr_expect_not_null(strstr(reading.said, "IkeNumEstablishedForInitialQuery"));
    cr_expect_not_null(strstr(reading.said, "cookie_threshold_ip and block_threshold"));
    reading_close(&reading);
}

Test(rules, pool_of_other_services_is_not_warned_about)
{
    static const char text[] = "servers: { a: { address: 192.0.2.1 } }\n"
                               "pools: { p: { servers: [ a ], health: { check: none } } }\n"
                               "services: { dns: { listen: \"203.0.113.10:53\", protocol: udp, pool: p } }\n";
    struct reading reading;

    reading_open(&reading, text, sizeof text - 1);
    cr_expect_eq(reading.status, 0);
    cr_expect_str_eq(reading.said, "");
    reading_close(&reading);
}

Test(service, that_listens_everywhere_cannot_have_a_server_on_loopback_at_its_port)
{
    static const struct {
        const char *listen, *server;
        bool loop;
    } cases[] = {{"0.0.0.0:500", "127.0.0.11", true},
                 {"[::]:500", "::1", true},
                 {"[::]:500", "127.0.0.11", false},
                 {"0.0.0.0:500", "::1", false}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct reading reading;
        char text[512];

        snprintf(text, sizeof text,
                 "servers: { a: { address: \"%s\" } }\n"
                 "pools: { p: { servers: [ a ], health: { check: none } } }\n"
                 "services:\n"
                 "  x: { listen: \"%s\", protocol: udp, pool: p }\n",
                 cases[i].server, cases[i].listen);
        reading_open(&reading, text, strlen(text));
        cr_expect_eq(reading.status, cases[i].loop ? -EINVAL : 0, "%s", reading.said);
        cr_expect_eq(strstr(reading.said, "f:4:16: error: `x` would send to itself") != NULL, cases[i].loop, "%s",
                     reading.said);
        reading_close(&reading);
    }
}

Test(service, of_both_families_has_servers_of_both)
{
    static const char text[] = "servers: { a: { address: 192.0.2.1 }, b: { address: 2001:db8::1 }, "
                               "c: { address: fe80::3%lo }, d: { address: fe80::1%4711 }, e: { address: fd00::1 } }\n"
                               "pools: { p: { servers: [ a, b, c, d, e ], health: { check: none } } }\n"
                               "services:\n"
                               "  x: { listen: [ \"0.0.0.0:53\", \"[::]:53\", \"[fe80::1%lo]:53\", "
                               "\"[2001:db8::2]:53\" ], protocol: udp, pool: p }\n";
    struct reading reading;

    reading_open(&reading, text, sizeof text - 1);
    cr_assert_eq(reading.status, 0, "%s", reading.said);
    cr_expect_eq(reading.config->services[0].listen_count, 4);
    cr_expect_eq(reading.config->services[0].listen[1].family, 6);
    cr_expect_eq(reading.config->servers[3].address.scope, 4711);
    cr_expect_eq(reading.config->servers[2].address.scope, reading.config->services[0].listen[2].scope);
    reading_close(&reading);
}

Test(warnings, name_what_has_no_effect)
{
    static const char text[] = "servers: { a: { address: 192.0.2.1, weight: 5, state: disabled } }\n"
                               "pools: { p: { servers: [ a ], health: { check: none } } }\n"
                               "services:\n"
                               "  x: { listen: \"127.0.0.1:53\", protocol: udp, pool: p, health: { group: no } }\n";
    struct reading reading;

    reading_open(&reading, text, sizeof text - 1);
    cr_expect_eq(reading.status, 0, "%s", reading.said);
    cr_expect_not_null(strstr(reading.said, "warning: `weight` has no effect"), "%s", reading.said);
    cr_expect_not_null(strstr(reading.said, "warning: all servers of pool `p` are disabled"), "%s", reading.said);
    cr_expect_not_null(strstr(reading.said, "warning: `group: no` has no effect"), "%s", reading.said);
    reading_close(&reading);
}

#define MIXED                                                                                                          \
    "servers: { a: { address: 192.0.2.1 }, b: { address: \"2001:db8::1\" } }\n"                                        \
    "pools: { four: { servers: [ a ], source: transparent }, six: { servers: [ b ] } }\n"                              \
    "services:\n"

Test(rules, transparent_service_has_clients_and_servers_of_one_family)
{
    static const char fine[] = MIXED "  s: { listen: 203.0.113.10:500, protocol: udp, pool: four }\n"
                                     "  t: { listen: \"[2001:db8::10]:500\", protocol: udp, pool: four, source: nat }\n"
                                     "  u: { listen: 203.0.113.10:4500, protocol: udp, pool: six }\n";
    static const char wrong[] =
        MIXED "  s: { listen: [ 203.0.113.10:500, \"[2001:db8::10]:500\" ], protocol: udp, pool: four }\n"
              "  t: { listen: 203.0.113.10:4500, protocol: udp, pool: six, source: transparent }\n";
    struct reading reading;
    char line[1024];

    reading_open(&reading, fine, sizeof fine - 1);
    cr_assert_eq(reading.status, 0, "%s", reading.said);
    cr_expect(reading.config->services[0].transparent);
    cr_expect_not(reading.config->services[1].transparent);
    cr_expect_not(reading.config->services[2].transparent);
    cr_expect(config_is_transparent(reading.config));
    reading_close(&reading);
    reading_open(&reading, wrong, sizeof wrong - 1);
    cr_expect_eq(errors_of(&reading), 2);
    cr_expect_str_eq(first_error(&reading, line, sizeof line),
                     "4:36: error: `s` is transparent and has IPv6 clients here, but its server `a` has an IPv4 "
                     "address and cannot see theirs: make a service and a pool for each family, or write source: nat");
    cr_expect_not_null(strstr(reading.said, "f:5:16: error: `t` is transparent and has IPv4 clients here, but its "
                                            "server `b` has an IPv6 address"));
    reading_close(&reading);
}

Test(rules, transparent_pool_is_not_warned_about_nat_unless_a_service_of_it_is)
{
    char *text = edited("source: nat", "source: transparent");
    struct reading reading;

    reading_open(&reading, text, strlen(text));
    cr_assert_eq(reading.status, 0, "%s", reading.said);
    cr_expect_eq(diagnostics_warnings(reading.diagnostics), 0, "%s", reading.said);
    cr_expect(config_is_transparent(reading.config));
    reading_close(&reading);
    text = realloc(text, strlen(text) + 100);
    strcat(text, "  nat: { listen: \"203.0.113.10:5000\", protocol: udp, pool: rras, source: nat }\n");
    reading_open(&reading, text, strlen(text));
    cr_assert_eq(reading.status, 0, "%s", reading.said);
    cr_expect_eq(diagnostics_warnings(reading.diagnostics), 1, "%s", reading.said);
    reading_close(&reading);
    free(text);
}
