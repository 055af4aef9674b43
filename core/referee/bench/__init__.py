"""Benches: a list of prompts, the methods that draw them, and a scorer of what was drawn; see `referee.bench.contract`.

`runner` draws and scores, `records` reads and joins what was written, `statistics` makes numbers of it, `table`, `plot`
and `sheet` show them, `images` takes pictures that are there already; the command is `referee.command.bench`.
"""
