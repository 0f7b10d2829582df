"""The edge: sockets, HTTP, admission."""
