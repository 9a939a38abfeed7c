"""Pure decisions, written once and asked by publisher, client and server. Clock, randomness and I/O come in as values."""
