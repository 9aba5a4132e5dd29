"""`lepta demo`: the whole flow on this machine, with real programs and real data, and every answer checked."""
