/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/demo/stay.h"
#include "base/clock.h"

#include <stdio.h>
#include <string.h>

enum { REPEAT_MS = 5000 }; /* where nobody sees the line below */

static void compose(const struct stay *self, char text[128])
{
    uint32_t home = 0, moved = 0;
    int at;

    for (uint32_t i = 1; i <= DEMO_CLIENTS; i++) {
        if (!clients_at_home(self->clients, i))
            continue;
        if (responders_seen(self->responders, i)->home == self->home[i])
            home++;
        else
            moved++;
    }
    at = snprintf(text, 128, "%u of %u still at home", home, DEMO_CLIENTS);
    if (moved > 0)
        at += snprintf(text + at, 128 - (size_t)at, ", %u connected anew with another server", moved);
    if (home + moved < DEMO_CLIENTS)
        snprintf(text + at, 128 - (size_t)at, ", %u without an answer", DEMO_CLIENTS - home - moved);
}

static void on_second(uv_timer_t *timer)
{
    struct stay *self = timer->data;
    uint64_t now_ms = clock_now_ms();
    unsigned seconds = (unsigned)((now_ms - self->since_ms) / 1000);
    char text[128];

    compose(self, text);
    if (strcmp(text, self->said) != 0 || (!self->console->terminal && now_ms - self->said_ms >= REPEAT_MS)) {
        console_line(self->console, "%5u s  %s", seconds, text);
        self->said_ms = now_ms;
    }
    memcpy(self->said, text, sizeof self->said);
    console_progress(self->console, "%5u s  %s", seconds, text);
}

void stay_open(struct stay *self, uv_loop_t *loop)
{
    for (uint32_t i = 1; i <= DEMO_CLIENTS; i++)
        self->home[i] = responders_seen(self->responders, i)->home;
    self->said[0] = '\0';
    self->since_ms = clock_now_ms();
    clients_stay(self->clients);
    uv_timer_init(loop, &self->timer);
    self->timer.data = self;
    self->open = true;
    uv_timer_start(&self->timer, on_second, 1000, 1000);
}

static void on_closed(uv_handle_t *handle)
{
    struct stay *self = handle->data;

    self->open = false;
}

void stay_close(struct stay *self, uv_loop_t *loop)
{
    uv_close((uv_handle_t *)&self->timer, on_closed);
    while (self->open)
        uv_run(loop, UV_RUN_ONCE);
    console_progress(self->console, "%s", "");
}

void stay_lost(struct stay *self, uint32_t server)
{
    console_line(self->console, "  %s's process has ended: its clients connect anew", self->servers[server]);
}
