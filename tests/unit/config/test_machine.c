/* SPDX-License-Identifier: Apache-2.0 */
#include "config/machine.h"

#include "reading.h"
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <ftw.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[] = "/tmp/homeport-cgroup-XXXXXX";

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
    (void)stat;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void make_root(void)
{
    cr_assert_not_null(mkdtemp(root));
}

static void remove_root(void)
{
    nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[256];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", root, folder);
    for (char *slash = path + strlen(root); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/%s/%s", root, folder, name);
    file = fopen(path, "we");
    cr_assert_not_null(file, "%s", path);
    fputs(text, file);
    fclose(file);
}

Test(cpus, are_at_least_one)
{
    cr_expect_geq(machine_cpus(), 1);
    cr_expect_leq(machine_cpus(), (uint32_t)sysconf(_SC_NPROCESSORS_CONF));
}

Test(cpus, without_a_cgroup_have_no_limit, .init = make_root, .fini = remove_root)
{
    cr_expect_eq(machine_cgroup_cpus(root, "0::/\n"), UINT32_MAX);
    cr_expect_eq(machine_cgroup_cpus(root, ""), UINT32_MAX);
    cr_expect_eq(machine_cgroup_cpus(root, "nonsense\n\n::\n0::\n"), UINT32_MAX);
}

Test(cpus, are_capped_by_version_2_rounded_up, .init = make_root, .fini = remove_root)
{
    write_file("a/b", "cpu.max", "150000 100000\n");
    cr_expect_eq(machine_cgroup_cpus(root, "0::/a/b\n"), 2);
    write_file("a/b", "cpu.max", "50000 100000\n");
    cr_expect_eq(machine_cgroup_cpus(root, "0::/a/b\n"), 1);
    write_file("a/b", "cpu.max", "max 100000\n");
    cr_expect_eq(machine_cgroup_cpus(root, "0::/a/b\n"), UINT32_MAX);
}

Test(cpus, are_capped_by_the_tightest_group_above, .init = make_root, .fini = remove_root)
{
    write_file("a/b", "cpu.max", "800000 100000\n");
    write_file("a", "cpu.max", "300000 100000\n");
    cr_expect_eq(machine_cgroup_cpus(root, "0::/a/b\n"), 3);
    write_file(".", "cpu.max", "200000 100000\n");
    cr_expect_eq(machine_cgroup_cpus(root, "0::/a/b\n"), 2);
    cr_expect_eq(machine_cgroup_cpus(root, "0::/not/here\n"), 2);
}

Test(cpus, are_capped_by_version_1, .init = make_root, .fini = remove_root)
{
    write_file("cpu/docker/x", "cpu.cfs_quota_us", "400000\n");
    write_file("cpu/docker/x", "cpu.cfs_period_us", "100000\n");
    cr_expect_eq(machine_cgroup_cpus(root, "5:cpuset:/\n4:cpu,cpuacct:/docker/x\n1:name=systemd:/y\n"), 4);
    write_file("cpu/docker/x", "cpu.cfs_quota_us", "-1\n");
    cr_expect_eq(machine_cgroup_cpus(root, "4:cpu,cpuacct:/docker/x\n"), UINT32_MAX);
}

Test(cpus, nonsense_of_the_kernel_limits_nothing, .init = make_root, .fini = remove_root)
{
    write_file("a", "cpu.max", "1 0\n");
    cr_expect_eq(machine_cgroup_cpus(root, "0::/a\n"), UINT32_MAX);
    write_file("a", "cpu.max", "-5 -5");
    cr_expect_eq(machine_cgroup_cpus(root, "0::/a\n"), UINT32_MAX);
    write_file("a", "cpu.max", "");
    cr_expect_eq(machine_cgroup_cpus(root, "0::/a\n"), UINT32_MAX);
}

Test(ports, are_shared_where_ranges_meet_and_nothing_is_reserved)
{
    cr_expect_not(machine_ports_shared("32768\t60999", "", 10240, 29999));
    cr_expect(machine_ports_shared("32768\t60999", "", 10240, 32768));
    cr_expect(machine_ports_shared("1024 65535", "", 10240, 29999));
    cr_expect(machine_ports_shared("32768 60999", "", 40000, 40000));
    cr_expect_not(machine_ports_shared("", "", 10240, 65535));
}

Test(ports, reserved_ones_are_not_shared)
{
    cr_expect_not(machine_ports_shared("1024 65535", "10240-29999", 10240, 29999));
    cr_expect_not(machine_ports_shared("1024 65535", "80,5000-10300,10301-29998,29999", 10240, 29999));
    cr_expect(machine_ports_shared("1024 65535", "80,5000-10300,10302-29999", 10240, 29999));
    cr_expect_not(machine_ports_shared("32768 60999", "32768,32769", 10240, 32769));
}

Test(addresses, that_are_not_here_are_warned_about_where_they_stand)
{
    static const char text[] =
        "servers: { a: { address: 192.0.2.1 } }\n"
        "pools: { p: { servers: [ a ], health: { check: none, source: 198.51.100.7 } } }\n"
        "services:\n"
        "  x: { listen: [ 127.0.0.9:53, 0.0.0.0:53, 198.51.100.8:53 ], protocol: udp, pool: p }\n";
    struct reading reading;
    char line[256];

    reading_open(&reading, text, sizeof text - 1);
    cr_assert_eq(reading.status, 0, "%s", reading.said);
    config_check_machine(reading.config, reading.diagnostics);
    reading_print(&reading);
    for (unsigned n = 0; *reading_message(&reading, n, line, sizeof line) != '\0'; n++)
        if (strstr(line, "sysctl") == NULL) /* this machine's own range may meet the default ports */
            cr_expect(strncmp(line, "2:62: warning: 198.51.100.7 ", 28) == 0 ||
                          strncmp(line, "4:44: warning: 198.51.100.8 ", 28) == 0,
                      "%s", line);
    cr_expect_not_null(strstr(reading.said, "198.51.100.7 is not an address of this machine"));
    cr_expect_not_null(strstr(reading.said, "198.51.100.8 is not an address of this machine"));
    reading_close(&reading);
}

Test(addresses, with_a_zone_that_is_no_interface_of_this_machine_are_errors)
{
    static const char text[] = "servers: { a: { address: fe80::1%nothere }, b: { address: fe80::4%lo } }\n"
                               "pools: { p: { servers: [ a, b ], health: { source: fe80::3%4711 } } }\n"
                               "services:\n"
                               "  x: { listen: [ \"[fe80::5%nothere]:53\", \"[fe80::2%lo]:53\" ], protocol: udp, "
                               "pool: p }\n";
    struct reading reading;

    reading_open(&reading, text, sizeof text - 1);
    cr_assert_eq(reading.status, 0, "what a file means does not depend on where it is read: %s", reading.said);
    config_check_machine(reading.config, reading.diagnostics);
    reading_print(&reading);
    cr_expect_eq(diagnostics_errors(reading.diagnostics), 3u, "%s", reading.said);
    cr_expect_not_null(strstr(reading.said, "1:12: error: the zone of fe80::1 is no interface of this machine: write "
                                            "the name of one that is (ip link), as in fe80::1%eth0"));
    cr_expect_not_null(strstr(reading.said, "2:52: error: the zone of fe80::3"), "%s", reading.said);
    cr_expect_not_null(strstr(reading.said, "4:18: error: the zone of fe80::5"), "%s", reading.said);
    cr_expect_not_null(strstr(reading.said, "warning: fe80::2%1 is not an address of this machine"));
    reading_close(&reading);
}

/* An IPv4 address of this machine that is not loopback, as text. */
static bool own_address(char text[INET_ADDRSTRLEN])
{
    struct ifaddrs *all = NULL, *one;
    bool found = false;

    cr_assert_eq(getifaddrs(&all), 0);
    for (one = all; one != NULL && !found; one = one->ifa_next) {
        const struct sockaddr_in *address = (const void *)one->ifa_addr;

        found = address != NULL && address->sin_family == AF_INET && (one->ifa_flags & IFF_LOOPBACK) == 0 &&
                inet_ntop(AF_INET, &address->sin_addr, text, INET_ADDRSTRLEN) != NULL;
    }
    freeifaddrs(all);
    return found;
}

Test(addresses, of_this_machine_are_no_servers_of_a_service_that_listens_on_all)
{
    char address[INET_ADDRSTRLEN], text[512];
    struct reading reading;

    if (!own_address(address))
        cr_skip_test("this machine has no address but loopback");
    snprintf(text, sizeof text,
             "servers: { a: { address: %s } }\n"
             "pools: { p: { servers: [ a ], health: { check: none } } }\n"
             "services: { x: { listen: \"0.0.0.0:53\", protocol: udp, pool: p } }\n",
             address);
    reading_open(&reading, text, strlen(text));
    cr_assert_eq(reading.status, 0, "%s", reading.said);
    config_check_machine(reading.config, reading.diagnostics);
    cr_expect_eq(diagnostics_errors(reading.diagnostics), 1u);
    reading_print(&reading);
    cr_expect_not_null(strstr(reading.said, "error: `x` would send to itself"), "%s", reading.said);
    reading_close(&reading);
}
