"""What the commands do, one file each. They get parsed options and return an exit status; `relay.cli` parses."""
