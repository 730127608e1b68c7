/* SPDX-License-Identifier: Apache-2.0 */
/* What a client of an IPsec gateway says on port 4500, as far as a balancer can read it: an IKE_SA begins with
 * IKE_SA_INIT and IKE_AUTH, each of them answered; what comes then is ESP, always with the same SPI. The SPIs of a
 * client are made of its address, so that whoever sees a datagram of it, in any process, knows them all. */
#ifndef BENCH_MESSAGE_H
#define BENCH_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#define MESSAGE_HEAD 32u /* octets that are written and read; what follows them does not matter */

enum message_step { MESSAGE_INIT, MESSAGE_AUTH, MESSAGE_ESP, MESSAGE_STEPS };

/* size: of the datagram, at least MESSAGE_HEAD. client: host order. */
void message_write(uint8_t *data, uint32_t size, uint32_t client, enum message_step step);
/* What was written as ESP is one way from now on: nobody answers it. */
void message_silence(uint8_t *data);
bool message_is_silent(const uint8_t *data, uint32_t size);
/* ESP bears a time, which its answer bears as well. */
void message_stamp(uint8_t *data, uint64_t time_ns);
uint64_t message_time(const uint8_t *data);
/* An IKE request becomes its answer. ESP stays as it is: an SPI is chosen by who receives it, so both may choose the
 * same. */
void message_answer(uint8_t *data, uint32_t size);
/* What a datagram is, or what it answers. */
enum message_step message_step(const uint8_t *data, uint32_t size);

#endif
