"""``python -m referee``: the command, where it is not on the PATH."""

from referee.command.app import main

main()
