"""Prints every message of a stream, one JSON object a line, as nats-py and the CloudEvents SDK read it.

Arguments: the server's URL, the stream, a filter of subjects.
"""

import asyncio
import json
import sys

import nats
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from nats.errors import TimeoutError as NoMore
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy


async def main(url, stream, subject):
    client = await nats.connect(url)
    config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE)
    pull = await client.jetstream().pull_subscribe(subject, stream=stream, config=config)
    left = (await pull.consumer_info()).num_pending
    while left:
        try:
            messages = await pull.fetch(min(left, 100), timeout=5)
        except NoMore:
            break
        for message in messages:
            left -= 1
            # Checks the required attributes, the names and types of all others, and the time.
            event = JSONFormat().read(CloudEvent, message.data)
            assert event.get_time() is not None and event.get_time().tzinfo is not None
            attributes = json.loads(message.data)
            attributes.pop("data", None)
            assert {name for name in event.get_attributes()} == set(attributes), event.get_attributes()
            shown = {
                "subject": message.subject,
                "headers": message.headers,
                "event": attributes | ({} if event.get_data() is None else {"data": "…"}),
                "data": event.get_data(),
                "body": message.data.decode(),
            }
            print(json.dumps(shown))
    await client.close()


asyncio.run(main(*sys.argv[1:]))
