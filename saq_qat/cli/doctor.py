"""`saq-qat doctor`: is everything there that the commands need?"""

from typing import Annotated

import typer

__all__ = ["doctor"]

_COLOURS = {"ok": "green", "absent": "yellow", "broken": "red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Check packages, engines and processor; exit with 4 if something that is needed is broken."""
    import json
    from dataclasses import asdict

    from rich.markup import escape

    from saq_qat.cli.console import table
    from saq_qat.cli.environment import examine
    from saq_qat.errors import SetupError

    findings = examine()
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        rows = [
            (
                f"[{_COLOURS[f.state]}]{f.state}[/]",
                f.name,
                # Extras stand in brackets, as in saq-qat[rtx], which rich would take for markup.
                escape(f.detail + (f"; {f.fix}" if f.fix else "")),
            )
            for f in findings
        ]
        table(("state", "what", "found"), rows)
    broken = [finding for finding in findings if finding.state == "broken"]
    if broken:
        raise SetupError("\n".join(f"{f.name}: {f.detail}; {f.fix}" for f in broken))
