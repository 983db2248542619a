"""Counts who is in which meeting, and for how long, from Convoke's stream. Ends with SIGTERM, and goes on where it stopped.

    pip install -r requirements.txt
    NATS_URL=nats://127.0.0.1:4222 python consumer.py
    sqlite3 -box attendance.db 'SELECT * FROM presence'

Also from the environment: NATS_STREAM (MEETINGS), SUBJECT_PREFIX (meetings), NATS_DURABLE (attendance), ACK_WAIT (30 s: what is
not acknowledged by then comes again), DATABASE (attendance.db). Processes of one durable name share the work, and have to share the database.

Every event is delivered at least once, in any order. Here is what makes that exactly once for the table: an event's id is kept
in the same transaction as what the event did, and the message is acknowledged after that. The counts only add up, so the order
does not matter.
"""

import asyncio
import json
import logging
import os
import signal
import sqlite3
from types import NoneType
from typing import Any, NotRequired, TypedDict, get_args, get_type_hints, is_typeddict

import nats
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NothingNew
from nats.js.api import AckPolicy, ConsumerConfig

log = logging.getLogger("consumer")

BATCH = 100
LATEST = 253_402_300_799_999  # the end of the year 9999, in milliseconds


# The types are those of asyncapi.yaml. `None` is what the platform does not tell; masked members are missing.


class MeetingInfo(TypedDict):
    meetingID: NotRequired[str | None]
    meetingUUID: NotRequired[str]
    meetingCycleSubID: NotRequired[str]


class AttendeeInfo(TypedDict):
    userUUID: NotRequired[str | None]
    userAgent: NotRequired[str | None]
    account: NotRequired[str | None]
    participantID: NotRequired[str | None]
    displayName: NotRequired[str | None]
    joinTime: NotRequired[int]
    leftTime: NotRequired[int]
    role: NotRequired[str | None]
    callNumber: NotRequired[str | None]


class AttendanceData(TypedDict):
    meetingInfo: MeetingInfo
    attendeeInfo: NotRequired[AttendeeInfo]
    attendeelInfo: NotRequired[AttendeeInfo]  # the same, as one edition of the platform's manual prints it


class CloudEvent(TypedDict):
    specversion: str
    id: str
    source: str
    type: str
    subject: NotRequired[str]
    time: str
    datacontenttype: str
    sequence: str
    recordedtime: str
    meetingid: NotRequired[str]
    origin: str
    data: AttendanceData


class Unusable(ValueError):
    """No event that this consumer can use, however often it is delivered."""


def checked(value: Any, shape: Any, name: str) -> None:
    """Raises `Unusable` unless `value` has this shape. Members that it does not name may come at any time."""
    if is_typeddict(shape):
        if not isinstance(value, dict):
            raise Unusable(f"{name} is no object")
        for member, member_shape in get_type_hints(shape).items():
            if member in value:
                checked(value[member], member_shape, member)
            elif member in shape.__required_keys__:
                raise Unusable(f"{member} is missing")
        return
    kinds = get_args(shape) or (shape,)
    if type(value) not in kinds:
        raise Unusable(f"{name} is no {' or '.join(kind.__name__ for kind in kinds if kind is not NoneType)}")
    if isinstance(value, int) and not 0 <= value <= LATEST:
        raise Unusable(f"{name} is out of range")
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise Unusable(f"{name} holds half a surrogate pair")


def parsed(body: bytes) -> CloudEvent:
    try:
        event: CloudEvent = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"no JSON: {error}") from error
    checked(event, CloudEvent, "the event")
    return event


class Store:
    """What was made of the events, and which."""

    def __init__(self, file: str) -> None:
        self.database = sqlite3.connect(file)
        self.database.executescript(
            """
            CREATE TABLE IF NOT EXISTS done (event_id TEXT PRIMARY KEY) WITHOUT ROWID;
            CREATE TABLE IF NOT EXISTS presence (
                source TEXT NOT NULL, meeting TEXT NOT NULL, person TEXT NOT NULL, name TEXT,
                devices INTEGER NOT NULL, milliseconds INTEGER NOT NULL,
                PRIMARY KEY (source, meeting, person)
            ) WITHOUT ROWID;
            """
        )

    def apply(self, event: CloudEvent) -> None:
        data = event["data"]
        attendee = data.get("attendeeInfo", data.get("attendeelInfo"))
        if attendee is None:
            raise Unusable("attendeeInfo is missing")
        ids = (attendee.get("userUUID"), attendee.get("account"), attendee.get("callNumber"), attendee.get("participantID"))
        person = next(filter(None, ids), None)
        meeting = event.get("subject") or event.get("meetingid")
        if person is None or meeting is None:
            raise Unusable("it does not say who, or where")
        joined, left = attendee.get("joinTime", 0), attendee.get("leftTime", 0)
        match event["type"]:
            case "com.huaweicloud.meeting.join":
                devices, milliseconds = 1, 0
            case "com.huaweicloud.meeting.left":
                devices, milliseconds = -1, max(left - joined, 0) if joined else 0
            case other:
                raise Unusable(f"it is of type {other!r}")
        with self.database:  # one transaction
            if self.database.execute("INSERT OR IGNORE INTO done VALUES (?)", (event["id"],)).rowcount == 0:
                return  # a copy
            self.database.execute(
                """
                INSERT INTO presence VALUES (?, ?, ?, ?, ?, ?)
                ON CONFLICT DO UPDATE SET name = coalesce(excluded.name, name),
                    devices = devices + excluded.devices, milliseconds = milliseconds + excluded.milliseconds
                """,
                (event["source"], meeting, person, attendee.get("displayName"), devices, milliseconds),
            )


async def handle(message: Msg, store: Store) -> None:
    try:
        store.apply(parsed(message.data))
    except Unusable as reason:
        log.warning("message %d is terminated: %s", message.metadata.sequence.stream, reason)
        await message.term()
    except sqlite3.Error as error:
        delay = 2 ** min(message.metadata.num_delivered or 1, 6)
        log.error("message %d is tried again in %d s: %s", message.metadata.sequence.stream, delay, error)
        await message.nak(delay=delay)
    else:
        await message.ack()


async def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    setting = os.environ.get
    stream, durable = setting("NATS_STREAM", "MEETINGS"), setting("NATS_DURABLE", "attendance")
    prefix = setting("SUBJECT_PREFIX", "meetings")
    store = Store(setting("DATABASE", "attendance.db"))

    client = await nats.connect(setting("NATS_URL", "nats://127.0.0.1:4222"), max_reconnect_attempts=-1)
    jetstream = client.jetstream()
    config = ConsumerConfig(
        durable_name=durable,
        filter_subjects=[f"{prefix}.*.meeting.join.>", f"{prefix}.*.meeting.left.>"],
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=float(setting("ACK_WAIT", "30")),
        max_ack_pending=2 * BATCH,
    )
    await jetstream.add_consumer(stream, config)  # makes it, or finds it as it is
    subscription = await jetstream.pull_subscribe_bind(durable=durable, stream=stream)

    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    stopping = asyncio.create_task(stopped.wait())
    log.info("reading %s as %s", stream, durable)
    while not stopped.is_set():
        fetching = asyncio.create_task(subscription.fetch(BATCH, timeout=30))
        await asyncio.wait({fetching, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not fetching.done():
            fetching.cancel()
            break
        try:
            messages = fetching.result()
        except NothingNew:
            continue
        for message in messages:
            await handle(message, store)
    await client.close()  # after what was acknowledged is sent
    store.database.close()


if __name__ == "__main__":
    asyncio.run(main())
