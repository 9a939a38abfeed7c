"""What the fleet's server remembers: tables and the statements on them. Decides nothing; that is the policy's."""
