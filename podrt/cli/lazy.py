"""A click group that imports a command's module when it is run, and lists its commands without importing any."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from podrt.cli.errors import CliError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Lazy(NamedTuple):
    """Where a command is found."""

    module: str
    attribute: str
    help: str
    """One line for the list of commands; kept here so that ``--help`` imports nothing."""


class LazyGroup(click.Group):
    """``sections`` maps a heading to the commands listed below it."""

    def __init__(self, *args: Any, sections: Mapping[str, Mapping[str, Lazy]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections

    def _lazy(self) -> dict[str, Lazy]:
        return {name: lazy for commands in self.sections.values() for name, lazy in commands.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._lazy())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = self._lazy().get(cmd_name)
        if lazy is None:
            return None
        __import__(lazy.module)
        command = getattr(sys.modules[lazy.module], lazy.attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, commands in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name, lazy.help) for name, lazy in commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        items = [
            CompletionItem(name, help=lazy.help) for name, lazy in self._lazy().items() if name.startswith(incomplete)
        ]
        return items + click.Command.shell_complete(self, ctx, incomplete)


class RootGroup(LazyGroup):
    """The outermost group: the one place where errors become messages and exit codes."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        sys.exit(self._run(args, prog_name, complete_var, **extra))

    def _run(self, args: Sequence[str] | None, prog_name: str | None, complete_var: str | None, **extra: Any) -> int:
        try:
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
            return result if isinstance(result, int) else 0
        except CliError as error:
            sys.stdout.flush()
            sys.stderr.write(error.render() + "\n")
            return error.code
        except click.UsageError as error:
            error.show()
            return 2
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except (KeyboardInterrupt, click.Abort):
            return 130
        except BrokenPipeError:
            _forget_stdout()
            return 141
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            sys.stderr.write(f"error: {where}{error.strerror or error}\n")
            return 1


def _forget_stdout() -> None:
    """The reader of stdout is gone: the interpreter's last flush must not complain."""
    import os

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
