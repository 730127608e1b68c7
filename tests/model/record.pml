/* SPDX-License-Identifier: Apache-2.0 */
/* The record table's claim, delete and find (core/segment/record.c) on a machine whose memory is weak.
 *
 * Spin itself is sequentially consistent, so the memory is part of the model: the release/acquire view machine. A word
 * is the history of what was stored there. A process has a view: for each word the oldest entry that it may still see.
 * A load takes any entry that is not older, so processes see stores late and in different orders. A release store
 * leaves its process's view in the entry, and an acquire load takes that view over. A CAS takes the newest entry or
 * fails. So each memory order that the code leaves out is left out here (ACQUIRE, RELAXED below), and a missing one is
 * found: SCAN_RELAXED, FILL_RELAXED and PUBLISH_RELAXED are such mistakes, and each of them must be found.
 *
 * A bucket of two slots. Slot 0 holds key 2's record. Two processes claim key 1, each for its own server. A third
 * deletes key 2's record, which makes slot 0 free while the others look; a reader looks for both keys. Any of the first
 * three may die (or be stopped for good) before any of its accesses; a dead one's generation may be raised.
 *
 * Asserted: all who are told a server of key 1 are told the same one; who finds key 2 is told its server; there is never
 * a second live record of key 1; a word is stored plainly only by who knows its newest entry. */
#ifndef READERS
#define READERS 0
#endif
#ifndef CLAIMERS
#define CLAIMERS 2
#endif
#ifndef DEATHS
#define DEATHS 1 /* at most */
#endif

#ifdef SCAN_RELAXED
#define SCAN RELAXED
#else
#define SCAN ACQUIRE
#endif
#ifdef FILL_RELAXED
#define FILL false
#else
#define FILL true
#endif
#ifdef PUBLISH_RELAXED
#define PUBLISH false
#else
#define PUBLISH true
#endif
#define ACQUIRE true
#define RELAXED false

/* Words. */
#define WORDS 7
#define HEAD 0
#define VALUE(s) (1 + (s))
#define KEY(s) (3 + (s))
#define RESERVE(s) (5 + (s))
#define SLOTS 2
#define NONE 2 /* no slot */

/* head: version * 4 + occupied bits. value: generation * 8 + server. */
#define OCCUPIED(h, s) (((h) >> (s)) & 1)
#define VERSION_STEP 4
#define SERVER(v) ((v) & 7)
#define DEAD 7
#define KEY_2_SERVER 5

#define ENTRIES 7
typedef Entry { byte content; byte view[WORDS] };
typedef Word { byte count; Entry entry[ENTRIES] };
typedef View { byte sees[WORDS] };
#define PROCESSES 4
Word word[WORDS];
View view[PROCESSES];
bool dead[PROCESSES];
byte deaths;
byte told; /* the server of key 1; 0: nobody was told yet */

inline join(W, E) /* takes over the view of an entry */
{
    j = 0;
    do
    :: j < WORDS ->
        if
        :: word[W].entry[E].view[j] > view[me].sees[j] -> view[me].sees[j] = word[W].entry[E].view[j]
        :: else
        fi;
        j++
    :: else -> break
    od;
    j = 0
}

inline append(W, IS, RELEASE) /* the newest entry of a word */
{
    assert(word[W].count < ENTRIES);
    e = word[W].count;
    word[W].entry[e].content = IS;
    view[me].sees[W] = e;
    j = 0;
    do
    :: j < WORDS && RELEASE -> word[W].entry[e].view[j] = view[me].sees[j]; j++
    :: else -> break
    od;
    word[W].entry[e].view[W] = e;
    word[W].count++;
    e = 0;
    j = 0
}

inline load(W, ACQUIRING, OUT)
{
    atomic {
        e = view[me].sees[W];
        do
        :: e + 1 < word[W].count -> e++
        :: break
        od;
        OUT = word[W].entry[e].content;
        view[me].sees[W] = e;
        if
        :: ACQUIRING -> join(W, e)
        :: else
        fi;
        e = 0
    }
}

inline store(W, IS, RELEASE)
{
    atomic {
        assert(view[me].sees[W] == word[W].count - 1);
        append(W, IS, RELEASE)
    }
}

/* Strong: it fails only by an entry that differs. acq_rel when it succeeds, else relaxed. */
inline cas(W, WAS, IS, RELEASE, DONE)
{
    atomic {
        e = view[me].sees[W];
        do
        :: e + 1 < word[W].count -> e++
        :: word[W].entry[e].content != WAS || e == word[W].count - 1 -> break
        od;
        if
        :: word[W].entry[e].content != WAS -> view[me].sees[W] = e; DONE = false
        :: word[W].entry[e].content == WAS && e == word[W].count - 1 ->
            join(W, e);
            if
            :: !RELEASE -> append(W, IS, false)
            :: else -> append(W, IS, true)
            fi;
            DONE = true
        fi;
        e = 0
    }
}

inline may_die()
{
    if
    :: atomic { deaths < DEATHS -> deaths++; goto died }
    :: true
    fi
}

/* bucket_scan: fine false: spoilt, look again. */
inline scan(WANTED)
{
    load(HEAD, ACQUIRE, head);
    found = NONE;
    s = 0;
    do
    :: s < SLOTS && !OCCUPIED(head, s) -> s++
    :: s < SLOTS && OCCUPIED(head, s) ->
        load(KEY(s), SCAN, x);
        if
        :: x != WANTED -> s++
        :: else ->
            load(VALUE(s), SCAN, value);
            if
            :: SERVER(value) == DEAD -> s++
            :: else -> found = s; break
            fi
        fi
    :: s == SLOTS -> break
    od;
    load(HEAD, RELAXED, x);
    fine = (x == head);
    s = 0;
    x = 0
}

/* record_clear */
inline clear(SLOT)
{
    do
    :: load(HEAD, ACQUIRE, x);
       if
       :: !OCCUPIED(x, SLOT) -> break
       :: else
       fi;
       load(VALUE(SLOT), ACQUIRE, y);
       if
       :: SERVER(y) != DEAD -> break
       :: else
       fi;
       may_die();
       cas(HEAD, x, x - (1 << (SLOT)) + VERSION_STEP, true, fine);
       if
       :: fine -> break
       :: else
       fi
    od;
    x = 0;
    y = 0
}

/* slot_reserve: mine = slot, or as it was. A dead one's reservation counts only when its generation was seen raised,
 * which shows its last stores as well. */
inline reserve(SLOT)
{
    load(RESERVE(SLOT), ACQUIRE, x);
    if
    :: x == 0
    :: atomic {
           x != 0 && dead[x - 1];
           j = 0;
           do
           :: j < WORDS ->
               if
               :: view[x - 1].sees[j] > view[me].sees[j] -> view[me].sees[j] = view[x - 1].sees[j]
               :: else
               fi;
               j++
           :: else -> break
           od;
           j = 0
       }
    :: x != 0 -> goto reserved
    fi;
    may_die();
    cas(RESERVE(SLOT), x, me + 1, true, fine);
    if
    :: fine ->
        load(HEAD, ACQUIRE, x);
        if
        :: !OCCUPIED(x, SLOT) -> mine = SLOT
        :: else -> store(RESERVE(SLOT), 0, true)
        fi
    :: else
    fi;
reserved:
    x = 0
}

inline tell(server)
{
    atomic {
        assert(told == 0 || told == server);
        told = server
    }
}

proctype claimer(byte me; byte server)
{
    byte e, j, s, x, y, head, value, found, seen, slot, mine = NONE;
    bool fine;

    do
    :: scan(1);
       may_die();
       if
       :: !fine -> skip
       :: fine && found != NONE -> tell(SERVER(value)); break
       :: else ->
           if
           :: mine == NONE ->
               /* slot_find_free */
               load(HEAD, ACQUIRE, seen);
               slot = 0;
               do
               :: slot == SLOTS -> break
               :: slot < SLOTS ->
                   y = DEAD;
                   if
                   :: OCCUPIED(seen, slot) ->
                       load(VALUE(slot), ACQUIRE, y);
                       if
                       :: SERVER(y) == DEAD -> clear(slot); y = DEAD
                       :: else
                       fi
                   :: else
                   fi;
                   if
                   :: SERVER(y) == DEAD -> reserve(slot)
                   :: else
                   fi;
                   if
                   :: mine != NONE -> break
                   :: else -> slot++
                   fi
               od;
               slot = 0;
               seen = 0;
               y = 0;
               if
               :: mine == NONE -> break /* FULL: nothing is told */
               :: else
               fi;
               /* slot_fill */
               may_die();
               load(VALUE(mine), RELAXED, value);
               value = ((value >> 3) + 1) * 8 + server;
               store(VALUE(mine), value, FILL);
               may_die();
               store(KEY(mine), 1, FILL)
           :: else -> skip
           fi;
           may_die();
           cas(HEAD, head, (head | (1 << mine)) + VERSION_STEP, PUBLISH, fine);
           if
           :: fine ->
               may_die();
               tell(server);
               break
           :: else
           fi
       fi
    od;
    may_die();
    if
    :: mine != NONE -> store(RESERVE(mine), 0, true)
    :: else
    fi;
    goto over;
died:
    if
    :: atomic { true; dead[me] = true }
    :: true /* stopped for good: nobody raises its generation */
    fi;
over:
    skip
}

proctype deleter(byte me)
{
    byte e, j, s, x, y, head, value, found;
    bool fine;

    do
    :: scan(2);
       if
       :: fine -> break
       :: else
       fi
    od;
    if
    :: found == NONE -> goto over
    :: else
    fi;
    assert(SERVER(value) == KEY_2_SERVER);
    may_die();
    cas(VALUE(found), value, (value & 248) + DEAD, true, fine);
    if
    :: fine -> may_die(); clear(found)
    :: else
    fi;
    goto over;
died:
    skip;
over:
    skip
}

proctype reader(byte me)
{
    byte e, j, s, x, head, value, found;
    bool fine;

    do
    :: scan(1);
       if
       :: fine && found != NONE -> tell(SERVER(value)); break
       :: fine && found == NONE -> break
       :: else
       fi
    od;
    do
    :: scan(2);
       if
       :: fine && found != NONE -> assert(SERVER(value) == KEY_2_SERVER); break
       :: fine && found == NONE -> break
       :: else
       fi
    od
}

#define NOW(w) word[w].entry[word[w].count - 1].content
#define LIVE_1(s) (OCCUPIED(NOW(HEAD), s) && NOW(KEY(s)) == 1 && SERVER(NOW(VALUE(s))) != DEAD)

proctype twice()
{
end:
    atomic { LIVE_1(0) && LIVE_1(1) -> assert(false) }
}

init
{
    byte w;

    atomic {
        for (w : 0 .. WORDS - 1) {
            word[w].count = 1
        }
        word[HEAD].entry[0].content = 1;
        word[VALUE(0)].entry[0].content = 8 + KEY_2_SERVER;
        word[KEY(0)].entry[0].content = 2;
        run twice();
        run claimer(0, 1);
        if
        :: CLAIMERS > 1 -> run claimer(1, 2)
        :: else
        fi;
        run deleter(2);
        if
        :: READERS > 0 -> run reader(3)
        :: else
        fi
    }
}
