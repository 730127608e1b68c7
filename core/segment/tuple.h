/* SPDX-License-Identifier: Apache-2.0 */
/* Which session has a client's address and port at a server to itself (`source: transparent`). Two flows of a client
 * may come to two addresses of ours and lead to one port of one server: the kernel lets both sockets be, and one of
 * them silently takes the other's answers. They may lie in two workers' lanes, so the index is in the segment. */
#ifndef SEGMENT_TUPLE_H
#define SEGMENT_TUPLE_H

#include "segment/segment.h"

/* server: with port, where the row's socket is, or will be, connected to.
 *
 * [holder] For a row of its own that is live, before its socket is there; once more, for a row that was adopted, is
 * fine. false: a live row of another flow has the same client at the same server (or the index is full), and the caller
 * ends its row. Of two that try at the same instant one at most has it; it may be none. A row of the same flow, in a
 * lane to which the kernel does not send that flow any more, loses it to us: tuple_holds tells its holder. */
bool tuple_claim(struct segment *segment, const struct session_row *row, const struct hp_endpoint *server);
/* [holder] Has the row still what it has claimed? */
bool tuple_holds(const struct segment *segment, const struct session_row *row, const struct hp_endpoint *server);
/* [holder] Before the row ends. Who does not come to it leaves a word that names a dead row, and is passed over. */
void tuple_release(struct segment *segment, const struct session_row *row, const struct hp_endpoint *server);

#endif
