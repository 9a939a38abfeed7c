"""Benchmarks: instar measured against its peers, in the same run, on real inputs. Not shipped."""
