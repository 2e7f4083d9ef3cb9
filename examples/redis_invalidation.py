#!/usr/bin/env python3
"""Deletes from Redis what has changed in PostgreSQL: a consumer of partition_router's change feed.

    redis_invalidation.py "dbname=app" redis://localhost:6379/0

A row of feed `revenues` with the key 42 is cached as `revenues:42`; with two key columns as `revenues:7:42`. Debian has what it
needs: python3-psycopg2 python3-redis. Stop it, or kill it, whenever you like, and start it again. Several may run.

Why no change is missed:
- A change leaves the outbox when the transaction that took it commits, and that is after Redis has answered. Whatever ends in
  between - this program, Redis, PostgreSQL - the change is there again, and is done twice. Deleting twice is harmless.
- There is no "last id". A transaction that commits late brings its changes when it commits, and they are found then.
- NOTIFY only wakes; if it is lost (a restart, a prepared transaction), the next look comes within a second.
- A Redis that was restarted may have loaded an old state, from before keys were deleted; a replica that took over may have it,
  too. So each connection looks whether this is still the process in which keys were deleted (its run_id), and empties the cache of
  all feeds if not.
"""

import select
import sys
import time

import psycopg2
import redis

BATCH = 1000  # changes a transaction
LOOK = 1.0  # seconds between looks, when nobody wakes us
MARK = "partition_router:run_id"


def cache_key(feed, key):
    """`feed:value:value`, with `:` and `%` in values escaped; NULL as `%0`."""

    def text(value):
        return "%0" if value is None else value.replace("%", "%25").replace(":", "%3A")

    return ":".join([feed, *map(text, key)])


def forget(cache, feed):
    """Deletes every key of a feed."""
    pattern = "".join("\\" + c if c in "*?[]\\^-" else c for c in feed) + ":*"
    batch = []
    for key in cache.scan_iter(match=pattern, count=BATCH):
        batch.append(key)
        if len(batch) == BATCH:
            cache.unlink(*batch)
            batch.clear()
    if batch:
        cache.unlink(*batch)


class Cache:
    """A Redis process, known by its run_id: what was deleted in another one does not count here."""

    def __init__(self, url, feeds):
        self.redis = redis.Redis.from_url(url, socket_timeout=10)
        run_id = self.redis.info("server")["run_id"]
        known = self.redis.get(MARK)
        if known is None or known.decode() != run_id:
            for feed in feeds:
                forget(self.redis, feed)
            self.redis.set(MARK, run_id)
        self.run_id = run_id

    def apply(self, changes):
        for feed in {feed for feed, key in changes if key is None}:
            forget(self.redis, feed)
        keys = [cache_key(feed, key) for feed, key in changes if key is not None]
        if keys:
            self.redis.unlink(*keys)
        # The client connects anew by itself when Redis went away.
        if self.redis.info("server")["run_id"] != self.run_id:
            raise redis.ConnectionError("Redis was restarted")


def consume(database, url):
    """Takes changes until something breaks."""
    connection = psycopg2.connect(database, application_name="redis_invalidation")
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("LISTEN partition_router_changes")
            cursor.execute("SELECT name FROM partition_router.change_feeds")
            cache = Cache(url, [name for (name,) in cursor.fetchall()])
        connection.autocommit = False
        print("ready", flush=True)
        while True:
            with connection.cursor() as cursor:
                cursor.execute("SELECT feed, key FROM partition_router.take_changes(%s)", (BATCH,))
                changes = cursor.fetchall()
                cache.apply(changes)
                connection.commit()
            if len(changes) < BATCH and not connection.notifies:
                select.select([connection], [], [], LOOK)
            connection.poll()
            connection.notifies.clear()
    finally:
        connection.close()


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    while True:
        try:
            consume(sys.argv[1], sys.argv[2])
        except (psycopg2.Error, redis.RedisError, OSError) as error:
            print(f"again in a moment: {error}", file=sys.stderr, flush=True)
            time.sleep(LOOK / 2)


if __name__ == "__main__":
    main()
