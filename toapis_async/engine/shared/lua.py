"""`protocol.leasing.lease` once more, in Lua, so that Redis takes each step whole. A test holds the two equal.

Numbers travel with 17 digits, so that nothing is rounded. Needs effects replication (Redis 5 and later) for its clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from toapis_async.protocol import leasing
from toapis_async.protocol.leasing import Ask, Grant
from toapis_async.protocol.pacing import SHARED_FOR_S, SLOWER, SLOWEST

if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT_S: Final = 86_400
"""A state that nobody asks for is dropped after this long."""

REDIS_CLOCK: Final = "local clock = redis.call('TIME')\nlocal now = clock[1] + clock[2] / 1000000\n"

_CONSTANTS: Final = f"""
local MARGIN_S, HOLD_S, SHORTEST_HOLD_S = {leasing.MARGIN_S!r}, {leasing.HOLD_S!r}, {leasing.SHORTEST_HOLD_S!r}
local LOOSE, LOOSE_S, LOOSE_PART = {leasing.LOOSE!r}, {leasing.LOOSE_S!r}, {leasing.LOOSE_PART!r}
local SEEN_S, MOST_MEMBERS, SEEN = {leasing.SEEN_S!r}, {leasing.MOST_MEMBERS!r}, {leasing.SEEN!r}
local RETURN_S = {leasing.RETURN_S!r}
local SHARED_FOR_S, SLOWER, SLOWEST, ROUNDING = {SHARED_FOR_S!r}, {SLOWER!r}, {SLOWEST!r}, {leasing.ROUNDING!r}
local KEPT_S = {KEPT_S}
"""

_STEP: Final = """
local function number(place) return tonumber(ARGV[place]) end
local ask = {
  member = ARGV[1], burst = number(2), per_s = number(3), sureness = number(4), epoch = number(5), want = number(6),
  is_loose = ARGV[7] == '1', lease_s = number(8), unused = number(9), unused_for_s = number(10), extra = number(11),
  alone_s = number(12), spent_alone = number(13), remaining = number(14), pause_s = number(15),
  is_leaving = ARGV[16] == '1', of = number(17),
}
local NAMES = {
  'level', 'at_s', 'burst', 'per_s', 'sureness', 'pace', 'throttled_at_s', 'paused_until_s', 'served_since_s',
  'ample_at_s', 'epoch',
}
local function part_of(burst)
  if ask.is_loose then return burst * (1.0 - LOOSE_PART) end
  return burst * 1.0
end
local function capacity(burst, per_s) return math.max(part_of(burst) - per_s * MARGIN_S, 1.0) end

local state, members = {}, {}
local stored = redis.call('HGETALL', KEYS[1])
for place = 1, #stored, 2 do
  local name, value = stored[place], tonumber(stored[place + 1])
  if string.sub(name, 1, 2) == 'm:' then members[string.sub(name, 3)] = value or 0 else state[name] = value end
end
local is_whole, is_set_back = true, false
for _, name in ipairs(NAMES) do
  local value = state[name]
  is_whole = is_whole and value ~= nil and value - value == 0  -- neither infinite nor no number
end
is_whole = is_whole and state.burst >= 1 and state.per_s > 0 and state.pace > 0 and state.pace <= 1

if not is_whole then
  redis.call('DEL', KEYS[1])
  members = {}
  state = {
    level = ask.epoch > 0 and 0.0 or capacity(ask.burst, ask.per_s), at_s = now, burst = ask.burst, per_s = ask.per_s,
    sureness = ask.sureness, pace = 1.0, throttled_at_s = now - 2 * SHARED_FOR_S, paused_until_s = now,
    served_since_s = now, ample_at_s = now, epoch = ask.epoch + 1,
  }
elseif state.at_s - now > 0 then
  is_set_back = true
  local back_s = state.at_s - now
  state.at_s = now
  for _, name in ipairs({'throttled_at_s', 'paused_until_s', 'served_since_s', 'ample_at_s'}) do
    state[name] = state[name] - back_s
  end
  for member, seen_s in pairs(members) do members[member] = seen_s - back_s end
end
local level_before, idle_s = state.level, now - state.at_s
if not is_whole then idle_s = math.huge end

if ask.sureness > state.sureness or ask.sureness == SEEN then
  state.burst, state.per_s, state.sureness = ask.burst, ask.per_s, ask.sureness
end

local full = capacity(state.burst, state.per_s)
local gone_s = math.max(now - math.max(state.at_s, state.paused_until_s), 0.0)
state.level = math.min(state.level + gone_s * state.per_s * state.pace, full)
state.pace = math.min(state.pace + gone_s * (1.0 - SLOWER) / SHARED_FOR_S, 1.0)
if now - state.at_s > SEEN_S then state.served_since_s = now end
state.at_s = now
if state.level >= full / 2 then state.ample_at_s = now end

local kept, count = {}, 0
for member, seen_s in pairs(members) do
  if seen_s >= now - SEEN_S and seen_s <= now and member ~= ask.member then
    kept[member] = seen_s
    count = count + 1
  else
    redis.call('HDEL', KEYS[1], 'm:' .. member)
  end
end
if not ask.is_leaving and count < MOST_MEMBERS then
  kept[ask.member] = now
  count = count + 1
end

if state.epoch < ask.epoch then
  state.level, state.epoch = math.min(state.level, 0.0), ask.epoch + 1
end
if ask.alone_s > 0 then
  if idle_s >= ask.alone_s then
    local ahead = state.per_s * state.pace * RETURN_S * (1.0 - 1.0 / ask.of)
    state.level, state.served_since_s = math.min(state.level, math.max(level_before, 0.0)) - ahead, now
  elseif now - state.served_since_s >= ask.alone_s then
    state.level = state.level - ask.spent_alone
  else
    state.level = state.level - ask.spent_alone * math.max(now - state.served_since_s - RETURN_S, 0.0) / ask.alone_s
  end
end
if ask.unused > 0 and ask.epoch == state.epoch and now - ask.unused_for_s > state.ample_at_s then
  state.level = math.max(state.level, math.min(state.level + ask.unused, full / 2))
end
state.level = state.level - ask.extra
if ask.remaining then state.level = math.min(state.level, ask.remaining) end

if ask.pause_s then
  if ask.epoch >= state.epoch then
    if now >= state.paused_until_s and state.level < full / 2 then
      if now - state.throttled_at_s < SHARED_FOR_S then state.pace = math.max(state.pace * SLOWER, SLOWEST) end
      state.throttled_at_s = now
    end
    state.level, state.epoch = 0.0, state.epoch + 1
    redis.call('PUBLISH', ARGV[18], state.epoch)
  end
  state.paused_until_s = math.max(state.paused_until_s, now + ask.pause_s)
end

local counted = math.min(math.max(count, 1), MOST_MEMBERS)
local rate, after_s = state.per_s * state.pace, math.max(state.paused_until_s - now, 0.0)
local level = state.level
local fit = math.floor(level + rate * (ask.lease_s - after_s) + ROUNDING)
local share = math.floor((math.max(level, 0.0) + rate * ask.lease_s) / counted + ROUNDING)
local turns = math.min(ask.want, math.max(math.min(fit, share), 1))
local spare = part_of(state.burst) - full
local hold_s = math.min(math.max(spare / state.per_s * (HOLD_S / MARGIN_S), SHORTEST_HOLD_S), HOLD_S)
if ask.is_loose and ask.want > 0 and after_s == 0 then
  local loose = math.min(math.max(ask.want, LOOSE), math.floor(state.burst * LOOSE_PART / counted + ROUNDING))
  if loose >= turns and level - loose >= full / 2 then turns, hold_s = loose, LOOSE_S end
end
state.level = level - turns

local function text(value) return string.format('%.17g', value) end
local fields = {}
for _, name in ipairs(NAMES) do
  fields[#fields + 1] = name
  fields[#fields + 1] = text(state[name])
end
redis.call('HSET', KEYS[1], unpack(fields))
for member, seen_s in pairs(kept) do
  if member == ask.member or is_set_back then redis.call('HSET', KEYS[1], 'm:' .. member, text(seen_s)) end
end
redis.call('EXPIRE', KEYS[1], KEPT_S)
return {
  text(turns), text(level), text(after_s), text(rate), text(hold_s), text(state.burst), text(state.per_s),
  text(state.epoch), text(counted),
}
"""


def script(clock: str = REDIS_CLOCK) -> str:
    """The script: its key is the bucket's, its arguments are `arguments_of` and the channel that is told of new epochs.
    `clock` sets `now`, in seconds."""
    return clock + _CONSTANTS + _STEP


def arguments_of(ask: Ask) -> list[str]:
    """An `Ask` as the script's arguments."""
    numbers = (ask.burst, ask.per_s, ask.sureness, ask.epoch, ask.want)
    return [
        ask.member,
        *map(repr, numbers),
        "1" if ask.is_loose else "0",
        *map(repr, (ask.lease_s, ask.unused, ask.unused_for_s, ask.extra, ask.alone_s, ask.spent_alone)),
        "" if ask.remaining is None else repr(ask.remaining),
        "" if ask.pause_s is None else repr(ask.pause_s),
        "1" if ask.is_leaving else "0",
        repr(ask.of),
    ]


def grant_of(answer: Sequence[bytes]) -> Grant:
    """The script's answer. Raises `ValueError` for anything else."""
    turns, level, after_s, rate, hold_s, burst, per_s, epoch, members = map(float, answer)
    return Grant(int(turns), level, after_s, rate, hold_s, burst, per_s, int(epoch), int(members))
