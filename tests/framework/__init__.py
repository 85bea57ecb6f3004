"""What the tests stand on: real daemons with their own everything, leak checks, probes. No tests in here."""
