"""For tests of searches that are about something else than how a network is derived in the end."""

BY_LOGITS = ("--arch.prior", "none", "--arch.samples", "0")
"""A search without the prior and the verdicts on a hundred networks, which take longer than its few steps here."""
