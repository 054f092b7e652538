"""The help of the command `compilepool`: its subcommands in groups, on one screen."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class GroupedCommands(TyperGroup):
    """Lists subcommands under the `rich_help_panel` of each, in the order in which they are made.

    Of the options that typer adds, only the one that people need is listed, in a few words.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the subcommands, in order."""
        return list(self.commands)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, and then the subcommands."""
        rows = []
        for param in self.get_params(ctx):
            if param.name == "install_completion":
                rows.append(("--install-completion", "Have your shell complete commands."))
            elif param.name != "show_completion" and (row := param.get_help_record(ctx)):
                rows.append(row)
        self.format_commands(ctx, formatter)
        with formatter.section("Options"):
            formatter.write_dl(rows)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the subcommands in their groups."""
        groups: dict[str, list[tuple[str, str]]] = {}
        room = formatter.width - 4 - max(map(len, self.commands))
        for name, command in self.commands.items():
            group = str(getattr(command, "rich_help_panel", None) or "Other")
            groups.setdefault(group, []).append((name, command.get_short_help_str(room)))
        for group, rows in groups.items():
            with formatter.section(group):
                formatter.write_dl(rows)
