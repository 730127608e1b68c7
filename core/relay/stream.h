/* SPDX-License-Identifier: Apache-2.0 */
/* TCP streams: two sockets, one session row. A stream is what a path has instead of a socket of its own; begin and end,
 * watch and record, log and drop are the path's (path.c). Nothing here is seen outside this folder. */
#ifndef RELAY_STREAM_H
#define RELAY_STREAM_H

#include "relay/private.h"
#include "relay/socket_message.h"

#define STREAM_CONNECT_MS 5000u /* for a server to accept; a look each second */
#define STREAM_SILENT 6u        /* x sessions.idle_unproven: for the first octet of either side */

struct stream_side {
    struct watched watched;
    struct stream *stream;
    uint32_t events; /* that epoll is asked for */
    bool hung_up;    /* both its directions are over: watched no more, epoll would not stop to say so */
};

struct stream {
    struct path *path; /* NULL: on its way from the last holder */
    struct stream_side client, server;
    struct stream_half to_server, to_client;
    uint64_t connect_ms;   /* since when the server's side waits to be connected; 0: it is */
    uint32_t first, tried; /* server that the decision named; how many others have been looked at since */
    uint32_t queued;       /* octets in the kernel for either side, when it was last asked whether the stream is idle */
    bool handed_over;      /* its last holder may have its sockets still: closing them says nothing */
    bool clean;            /* both sides have ended of their own will: no reset */
};

/* A client's connection that wants a server. */
struct stream_start {
    struct flow flow;
    int client;
    struct decision decision;
    uint32_t first, tried; /* as in struct stream */
    bool moved;            /* it had a server before */
};

/* stream_accept.c */
int stream_limit(void);                      /* for relay.stream_limit */
int stream_spare(const struct relay *relay); /* for relay.spare; -1: none */
/* true: there may be more. */
bool stream_accept(struct listener *listener);
void stream_accept_again(struct lane *lane);         /* listeners that rest for want of descriptors */
bool stream_next_server(struct stream_start *start); /* false: none is left */
void stream_begin(struct stream_start *start);       /* takes the connection over; one that cannot be served is reset */

/* stream.c */
struct stream *stream_make(int client, int server); /* NULL: no memory; nothing is watched yet */
int stream_watch(struct stream *stream);            /* in its lane, what it waits for; negative errno values */
void stream_event(struct stream_side *side, uint32_t events);
bool stream_sweep(struct path *path);     /* once a second; false: it has ended */
void stream_ask_again(struct path *path); /* path_rekey, for streams */
void stream_close(struct stream *stream); /* for path_end */
void stream_free(
    struct stream *stream); /* closes what is open still; who has it as well notices nothing; NULL is fine */

/* stream_give.c: hand-over. Streams without their unsent octets come first, the octets behind. */
struct stream_place { /* where the giver is */
    uint32_t row, half, offset;
};
/* Fill the next message. false: there is no more. */
bool streams_give(const struct lane *lane, struct stream_place *place, struct socket_message *message, int *descriptors,
                  uint32_t *count);
bool streams_give_rest(const struct lane *lane, struct stream_place *place, struct socket_message *message,
                       const uint8_t **data, uint32_t *size);
/* Take the descriptors over. */
void streams_come(struct lane *lane, const struct socket_message *message, const int *descriptors, uint32_t count);
void stream_rest_comes(struct lane *lane, const struct socket_message *message, const uint8_t *data, uint32_t size);
/* The path of a row whose stream has come. NULL: there is none, and why. */
struct path *stream_adopt(struct lane *lane, struct session_row *row, struct listener *listener, const char **why);
void streams_forget(struct lane *lane); /* those that have come and are nobody's; they are reset */

#endif
