"""What every test shares: how hypothesis behaves on machines that others use at the same time."""

import os

from hypothesis import HealthCheck, settings

# Deadlines measure the machine, not the code. In CI the examples are the same each time: a failure there is about the
# change, not about luck; luck is for the developer's own runs.
settings.register_profile("instar", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("instar"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "instar")
