"""Storages: where the objects of a repository lie, behind small ports by capability.

Knows nothing of signatures: whoever reads checks what came against the digest that was signed.
"""

from instar.storage.http import HttpReader, RequestRefused
from instar.storage.keys import Key, is_immutable
from instar.storage.local import LocalStorage
from instar.storage.memory import MemoryStorage
from instar.storage.mirrors import MirrorReader
from instar.storage.opening import open_reader, open_storage
from instar.storage.options import HttpOptions
from instar.storage.ports import (
    READ_BLOCK,
    ConditionalWriter,
    Exclusive,
    Listed,
    Lister,
    Reader,
    Stat,
    Storage,
    Traffic,
    Writer,
)

__all__ = [
    "READ_BLOCK",
    "ConditionalWriter",
    "Exclusive",
    "HttpOptions",
    "HttpReader",
    "Key",
    "Listed",
    "Lister",
    "LocalStorage",
    "MemoryStorage",
    "MirrorReader",
    "Reader",
    "RequestRefused",
    "Stat",
    "Storage",
    "Traffic",
    "Writer",
    "is_immutable",
    "open_reader",
    "open_storage",
]
