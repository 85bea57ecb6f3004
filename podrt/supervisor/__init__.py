"""The supervisor: one small process that forks, reaps and keeps the output of every container."""
