"""The protocols, sans-IO: bytes to typed events and back; no asyncio here."""
