"""Somebody else's WebSocket, at either end of a meeting's own push."""

import asyncio
import json
import sys
import urllib.request

import websockets

PATH = "/cms/open/websocket/confctl/increment/conn"


def say(value):
    print(json.dumps(value), flush=True)


async def client(base, number, password):
    """Reads the simulated platform's side, as its manual describes it."""

    def get(path, headers):
        request = urllib.request.Request(f"{base}{path}?conferenceID={number}", headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return json.load(opener.open(request, timeout=20))

    control = get("/v1/mmc/control/conferences/token", {"X-Password": password, "X-Login-Type": "1"})["data"]
    token = get("/v1/mmc/control/conferences/wsToken", {"X-Conference-Authorization": control["token"]})
    url = f"{control['wsURL']}{PATH}?confID={number}&tmpToken={token['webSocketToken']}"
    async with websockets.connect(url, proxy=None) as socket:
        data = {"conferenceID": number, "subscribeType": ["ParticipantsNotify"], "confToken": control["token"]}
        await socket.send(json.dumps({"action": "Subscribe", "sequence": "0" * 30, "data": json.dumps(data)}))
        say(json.loads(await socket.recv()))
        say(json.loads(await socket.recv()))
        await socket.send(json.dumps({"action": "HeartBeat", "sequence": "1" * 30}))
        say(json.loads(await socket.recv()))
        # One more that changes something, and then the meeting is over.
        async for text in socket:
            say(json.loads(text))
    try:
        # It opens once.
        async with websockets.connect(url, proxy=None) as socket:
            await socket.recv()
            say("opened twice")
    except websockets.ConnectionClosed:
        say("closed")


async def server():
    """Speaks to our client."""
    done = asyncio.Event()

    async def serve(socket):
        say(socket.request.path)
        async for text in socket:
            asked = json.loads(text)
            if asked["action"] == "Subscribe":
                say(json.loads(asked["data"]))
                await socket.send(json.dumps({"action": "ParticipantsNotify", "data": [], "msgID": "before"}))
                answer = {"action": "Subscribe", "sequence": asked["sequence"], "data": {"returnCode": 0, "returnDesc": "SUCCESS"}}
                await socket.send(json.dumps(answer))
            elif asked["action"] == "HeartBeat":
                say(asked)
                await socket.ping()
                await socket.send(json.dumps(asked))
                # In pieces.
                await socket.send(['{"action":"ParticipantsNotify",', '"msgID":"pieces"', "}"])
                await socket.send(b'{"action":"WaitingListNotify","msgID":"bytes"}')
                await socket.close()
                done.set()

    async with websockets.serve(serve, "127.0.0.1", 0) as listening:
        say(listening.sockets[0].getsockname()[1])
        await done.wait()


asyncio.run(client(*sys.argv[2:]) if sys.argv[1] == "client" else server())
