"""Docker's stream framing."""
