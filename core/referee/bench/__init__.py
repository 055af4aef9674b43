"""Benches: a list of prompts, the methods that draw them, and a scorer of what was drawn; see `referee.bench.contract`.

`runner` draws and scores, `records` reads and joins what was written, `statistics` makes numbers of it, `table`, `plot`
and `sheet` show them, `images` takes pictures that are there already. `draws` lists the ways to make one; `peers`, with
`best_of` and `noise`, are two of them, and `compute` brings them to equal cost. The command is `referee.command.bench`.
"""
