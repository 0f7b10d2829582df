"""The client library: talk to this server, or to any other that speaks the OpenAI Realtime API (docs/client.md).

from relay.client import connect, events
"""

from relay.client import events
from relay.client.dialogue import Dialogue, Reply, hold
from relay.client.playout import Playback, PlayoutClock
from relay.client.realtime import (
    Client,
    Event,
    OutputAudio,
    Reconnect,
    Reconnected,
    Reconnecting,
    UnknownEvent,
    connect,
)

__all__ = [
    "Client",
    "Dialogue",
    "Event",
    "OutputAudio",
    "Playback",
    "PlayoutClock",
    "Reconnect",
    "Reconnected",
    "Reconnecting",
    "Reply",
    "UnknownEvent",
    "connect",
    "events",
    "hold",
]
