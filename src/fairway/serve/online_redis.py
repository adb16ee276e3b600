"""Online state in Redis, for a team. Needs the extra `redis`. One server; a cluster's hash slots are not supported.

Keys, below "fairway:WORKSPACE:": "event:SOURCE" hash of key -> times and packed row; "at:SOURCE:COLUMN:ENTITY" sorted
set of event keys by time; "slots:SOURCE" set of columns. Each call is one script, so it happens whole or not at all.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from fairway._optional import need
from fairway.data.segment import EventRow
from fairway.serve.online import (
    MAX_EVENTS,
    Ask,
    Need,
    OnlineFailed,
    Seen,
    Slot,
    entity_of,
    entity_text,
    is_about,
    known_of,
    pack,
    too_many,
    unpack,
)

ANSWER_S = 2.0  # of the server, at most
_BATCH = 500  # events of one script: the server does nothing else meanwhile
_HEAD = 33  # two times of 16 digits, and 1 for history
_encoder = msgspec.msgpack.Encoder()

_HELP = """
local function place_of(column, entity)
  return KEYS[1] .. 'at:' .. KEYS[2] .. ':' .. #column .. ':' .. column .. ':' .. entity
end
"""
_PUT = (
    _HELP
    + """
-- KEYS: prefix, source. ARGV: how many slots are known, then per event: key, record, packed {column: entity}
if redis.call('SCARD', KEYS[1] .. 'slots:' .. KEYS[2]) ~= tonumber(ARGV[1]) then return -1 end
local events, new = KEYS[1] .. 'event:' .. KEYS[2], 0
for i = 2, #ARGV, 3 do
  local key, record = ARGV[i], ARGV[i + 1]
  local old = redis.call('HGET', events, key)
  if not old or (string.sub(old, 33, 33) == '1' and string.sub(record, 33, 33) == '0') then
    if old then
      for column, entity in pairs(cmsgpack.unpack(redis.call('HGET', events .. ':of', key))) do
        redis.call('ZREM', place_of(column, entity), key)
      end
    else
      new = new + 1
    end
    redis.call('HSET', events, key, record)
    redis.call('HSET', events .. ':of', key, ARGV[i + 2])
    redis.call('ZADD', KEYS[1] .. 'all:' .. KEYS[2], string.sub(record, 1, 16), key)
    for column, entity in pairs(cmsgpack.unpack(ARGV[i + 2])) do
      redis.call('ZADD', place_of(column, entity), string.sub(record, 1, 16), key)
    end
  end
end
return new
"""
)
_READ = """
-- KEYS: prefix. ARGV: limit, then per ask: source, column, entity, since_us, at_us, '1' for the newest moment only
local answers = {}
for i = 2, #ARGV, 6 do
  local column = ARGV[i + 1]
  local place = KEYS[1] .. 'at:' .. ARGV[i] .. ':' .. #column .. ':' .. column .. ':' .. ARGV[i + 2]
  local events, last, found, offset, moment = KEYS[1] .. 'event:' .. ARGV[i], ARGV[i + 5] == '1', {}, 0, nil
  local step = last and 4 or 1000
  while true do
    local keys = redis.call('ZREVRANGEBYSCORE', place, ARGV[i + 4], '(' .. ARGV[i + 3], 'LIMIT', offset, step)
    if #keys == 0 then break end
    local records, over = redis.call('HMGET', events, unpack(keys)), false
    for n, record in ipairs(records) do
      if record then
        local at = string.sub(record, 1, 16)
        if moment and at ~= moment then over = true break end
        if tonumber(string.sub(record, 17, 32)) <= tonumber(ARGV[i + 4]) then
          if last then moment = at end
          found[#found + 1] = keys[n]
          found[#found + 1] = record
        end
      end
    end
    if over or #keys < step or #found > 2 * tonumber(ARGV[1]) then break end
    offset, step = offset + step, 1000
  end
  answers[#answers + 1] = found
end
return answers
"""
_WATCH = (
    _HELP
    + """
-- KEYS: prefix, source. ARGV: column, then per event that has no place by it: key, entity
redis.call('SADD', KEYS[1] .. 'slots:' .. KEYS[2], ARGV[1])
local events = KEYS[1] .. 'event:' .. KEYS[2]
for i = 2, #ARGV, 2 do
  local record = redis.call('HGET', events, ARGV[i])
  if record then
    local of = cmsgpack.unpack(redis.call('HGET', events .. ':of', ARGV[i]))
    of[ARGV[1]] = ARGV[i + 1]
    redis.call('HSET', events .. ':of', ARGV[i], cmsgpack.pack(of))
    redis.call('ZADD', place_of(ARGV[1], ARGV[i + 1]), string.sub(record, 1, 16), ARGV[i])
  end
end
"""
)
_FORGET = (
    _HELP
    + """
-- KEYS: prefix, source. ARGV: keys of events
local events = KEYS[1] .. 'event:' .. KEYS[2]
for _, key in ipairs(ARGV) do
  local of = redis.call('HGET', events .. ':of', key)
  if of then
    for column, entity in pairs(cmsgpack.unpack(of)) do redis.call('ZREM', place_of(column, entity), key) end
  end
  redis.call('HDEL', events, key) redis.call('HDEL', events .. ':of', key)
  redis.call('ZREM', KEYS[1] .. 'all:' .. KEYS[2], key)
end
"""
)
_PRUNE = (
    _HELP
    + """
-- KEYS: prefix, source. ARGV: horizon_us, limit, offset, then per slot: column, window_us, latest_us
local horizon, events, all = tonumber(ARGV[1]), KEYS[1] .. 'event:' .. KEYS[2], KEYS[1] .. 'all:' .. KEYS[2]
local gone, keys = 0, redis.call('ZRANGEBYSCORE', all, '-inf', ARGV[1], 'LIMIT', ARGV[3], ARGV[2])
for _, key in ipairs(keys) do
  local at, kept = tonumber(string.sub(redis.call('HGET', events, key), 1, 16)), false
  local of = cmsgpack.unpack(redis.call('HGET', events .. ':of', key))
  for column, entity in pairs(of) do
    local place, needed = place_of(column, entity), true
    for i = 4, #ARGV, 3 do
      if ARGV[i] == column then
        needed = at > horizon - tonumber(ARGV[i + 1])
        if not needed and at > horizon - tonumber(ARGV[i + 2]) then
          needed = true
          local newer = redis.call('ZRANGEBYSCORE', place, '(' .. string.format('%.0f', at), ARGV[1])
          for _, other in ipairs(newer) do
            local record = redis.call('HGET', events, other)
            if record and tonumber(string.sub(record, 17, 32)) <= horizon then needed = false break end
          end
        end
      end
    end
    if needed then kept = true else redis.call('ZREM', place, key) of[column] = nil end
  end
  if kept then
    redis.call('HSET', events .. ':of', key, cmsgpack.pack(of))
  else
    redis.call('HDEL', events, key) redis.call('HDEL', events .. ':of', key) redis.call('ZREM', all, key)
    gone = gone + 1
  end
end
return {gone, #keys}
"""
)


class RedisOnline:
    """`OnlineStore` in Redis. Safe for several threads. It is as lasting as the server is set up to be (appendonly).

    What a restart of Redis loses comes back from the sources' history and the log at the next start of `fairway serve`.
    """

    local = False

    def __init__(self, url: str, *, workspace: str = "default") -> None:
        self._redis = need("redis", extra="redis")
        self._prefix = f"fairway:{workspace}:"
        self._client = self._redis.Redis.from_url(
            url, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S, max_connections=16, protocol=2,
        )  # fmt: skip
        self._scripts = {n: self._client.register_script(s) for n, s in
                         (("put", _PUT), ("read", _READ), ("watch", _WATCH), ("prune", _PRUNE),
                          ("forget", _FORGET))}  # fmt: skip
        self._slots: set[Slot] = set()
        self._ask(self._client.ping)

    def watch(self, slots: Sequence[Slot]) -> None:
        for slot in sorted(set(slots) - self._slots):
            if slot.column not in self._columns(slot.source):
                self._run("watch", [slot.source], [slot.column])
                self._place_all(slot)
            self._slots.add(slot)

    def _place_all(self, slot: Slot) -> None:
        events = f"{self._prefix}event:{slot.source}"
        found: list[Any] = []
        for key, record in self._ask(lambda: list(self._client.hscan_iter(events, count=1000))):
            entity = unpack(record[_HEAD:]).get(slot.column)
            if entity is not None:
                found += [key, entity_text(entity)]
        for start in range(0, len(found), 2 * _BATCH):
            self._run("watch", [slot.source], [slot.column, *found[start : start + 2 * _BATCH]])

    def put(self, source: str, rows: Sequence[EventRow], *, history: bool = False) -> int:
        new = 0
        for start in range(0, len(rows), _BATCH):
            while True:
                columns = self._columns(source)
                arguments: list[Any] = [len(columns)]
                for row in rows[start : start + _BATCH]:
                    record = b"%016d%016d%d" % (row.at_us, known_of(row), history) + pack(row.data)
                    found = {c: e for c in columns if (e := entity_of(row, c)) is not None}
                    arguments += [row.key, record, _encoder.encode(found)]
                done = int(self._run("put", [source], arguments))
                if done >= 0:
                    break  # else another gateway has begun to watch a slot meanwhile
            new += done
        return new

    def read(self, asks: Sequence[Ask]) -> list[list[Seen]]:
        arguments: list[Any] = [MAX_EVENTS]
        for ask in asks:
            arguments += [*ask.slot, ask.entity, ask.since_us, ask.at_us, "1" if ask.last else "0"]
        found = []
        for ask, events in zip(asks, self._run("read", [], arguments), strict=True):
            if len(events) > 2 * MAX_EVENTS:
                raise too_many(ask)
            pairs = zip(events[::2], events[1::2], strict=True)
            found.append([Seen(k.decode(), int(r[:16]), int(r[16:32]), r[_HEAD:]) for k, r in pairs])
        return found

    def prune(self, needs: Sequence[Need], *, horizon_us: int) -> int:
        gone = 0
        for source in sorted({n.slot.source for n in needs}):
            slots = [v for n in needs if n.slot.source == source for v in (n.slot.column, n.window_us, n.latest_us)]
            kept = 0
            while True:
                left, seen = self._run("prune", [source], [horizon_us, _BATCH, kept, *slots])
                gone, kept = gone + left, kept + seen - left
                if seen < _BATCH:
                    break
        return gone

    def forget(self, slot: Slot, entity: str) -> int:
        events = f"{self._prefix}event:{slot.source}"
        found = self._ask(lambda: list(self._client.hscan_iter(events, count=1000)))
        gone = [key for key, record in found if is_about(record[_HEAD:], slot.column, entity)]
        for start in range(0, len(gone), _BATCH):
            self._run("forget", [slot.source], gone[start : start + _BATCH])
        return len(gone)

    def close(self) -> None:
        self._client.close()

    def _columns(self, source: str) -> list[str]:
        found = self._ask(lambda: self._client.smembers(f"{self._prefix}slots:{source}"))
        return sorted(name.decode() for name in found)

    def _run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        return self._ask(lambda: self._scripts[script](keys=[self._prefix, *keys], args=list(arguments)))

    def _ask(self, call: Any) -> Any:
        """Raises: OnlineFailed."""
        try:
            return call()
        except self._redis.RedisError as exc:
            raise OnlineFailed(f"the online state in Redis failed: {exc}") from exc
