"""Pure decisions, written once and asked by publisher, client and server. Clock and randomness come in as values."""
