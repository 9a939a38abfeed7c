"""steamos-atomupd: its pools, static trees and queries, and its client's side. No package below knows its words.

The facts about the protocol come from its public documentation and behaviour; no code of it is used.
"""
