"""Who may say what runs. The device's half is here; the publisher's (keys, roles, ceremony) is imported by name."""

from instar.trust.layout import Fetch, Target, channels_path, floor_path, manifest_path
from instar.trust.verify import TrustedMetadata

__all__ = ["Fetch", "Target", "TrustedMetadata", "channels_path", "floor_path", "manifest_path"]
