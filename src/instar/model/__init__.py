"""Frozen values, checked where they are made and valid ever after. No I/O."""
