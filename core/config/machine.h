/* SPDX-License-Identifier: Apache-2.0 */
/* What this machine has and what its kernel has given away: processors, own addresses, ephemeral ports. Reads /proc,
 * the cgroup's files and the interfaces; what cannot be read limits nothing. */
#ifndef CONFIG_MACHINE_H
#define CONFIG_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* CPUs of the affinity mask, capped by the cgroup's share, at least 1. */
uint32_t machine_cpus(void);
/* The smallest share, rounded up, that the process's cgroup or one above it has; UINT32_MAX: no limit. groups: text of
 * /proc/self/cgroup; root: where the cgroups are mounted (/sys/fs/cgroup). */
uint32_t machine_cgroup_cpus(const char *root, const char *groups);
/* Does the kernel hand out a port of first..last to others? range and reserved: texts of ip_local_port_range and
 * ip_local_reserved_ports. */
bool machine_ports_shared(const char *range, const char *reserved, uint16_t first, uint16_t last);

#endif
