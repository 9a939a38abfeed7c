"""Software updates that cannot be forged, cannot break the machine, and cost almost nothing to ship."""
