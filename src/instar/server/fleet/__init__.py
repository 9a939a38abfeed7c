"""What a fleet can do, on values: devices ask, operators decide, workers go on. No network in here."""

from instar.server.fleet.service import Fleet, Notification

__all__ = ["Fleet", "Notification"]
