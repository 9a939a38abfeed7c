"""Twins of every port, faults to order, and killers: test your own app with what instar is tested with."""
