"""`ecg promote`: make a version champion that the gate kept as challenger."""

from __future__ import annotations

import click


@click.command("promote")
@click.argument("version", required=False, type=int)
@click.option("--why", required=True, help="The reason, written on the version and on the champion that it replaces.")
@click.option("--name", default="ecg-encoder", show_default=True, help="The registered model.")
@click.option("--by", default="", help="Who decides, written beside the reason. Without it: the user's login.")
def command(version: int | None, why: str, name: str, by: str) -> None:
    """Make VERSION, or the challenger, champion by hand, although the gate did not let it pass.

    The gate lets nothing pass that might be worse than the champion, so with few validation ECGs it keeps better ones,
    too. Who decided and why is written on the version, and `ecg models` shows it. A version that does not answer as it
    was released stays a challenger. `ecg rollback` takes the decision back.

    \b
    ecg promote 3 --name ecg-classifier-af --why "better on ward 7's last 200 ECGs, too"
    ecg promote --name ecg-classifier-af --why "the first one, for a demonstration" --by "Dr. Weber"
    """
    from pipelines.cli.rollback import moved
    from pipelines.cli.store import existing_store
    from pipelines.home import Home
    from pipelines.release.aliases import promote_by_hand

    home = Home.default()
    tracking = existing_store(home)
    champion = promote_by_hand(version=version, why=why, by=by or _login(), name=name, tracking=tracking)
    for line in moved(champion, home, tracking):
        click.echo(line)


def _login() -> str:
    """Return the user's login. Raises ValueError if it is not known, as in a container of a bare user number."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise ValueError("by: this user has no name here: say who decides, as in --by NAME") from error
