"""`tidewire coupon …`: campaigns, codes, and that none comes twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import TidewireError
from streams.cli.options import Analytics, Config, Data, Json, Log, settings_of

if TYPE_CHECKING:
    from streams.access import Api

Campaign = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="Name of the campaign.")]
LOOK_EVERY_S = 0.25
MOST_CHECKED = 10_000_000  # codes at once in memory
CHECKED_LENGTH = 10  # of codes, where no campaign says another


def register(app: typer.Typer) -> None:
    coupon = typer.Typer(help="Coupons: campaigns, codes, who has which.", no_args_is_help=True)
    app.add_typer(coupon, name="coupon")
    coupon.command("list", short_help="Every campaign, and what came of it.")(list_)
    coupon.command(short_help="Give somebody a coupon.")(give)
    coupon.command(short_help="One code: whose it is, and whether it was used.")(show)
    coupon.command(short_help="Read the files, and make codes to see that none comes twice.")(check)


def list_(
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """Every campaign: what was given, used and refused, and what is left."""
    from streams.cli.question import ask
    from streams.cli.show import as_json_line, print_table

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    found = ask(settings, lambda api: api.get("/api/coupons"))["campaigns"]
    if as_json:
        for row in found:
            print(as_json_line(row))
    else:
        names = ("campaign", "worth", "unit", "given", "used", "refused", "misused", "codes_left", "worth_left",
                 "expires")  # fmt: skip
        print_table([{name: row[name] for name in names} for row in found])


def give(
    campaign: Campaign,
    to: Annotated[str, typer.Option("--to", metavar="PERSON", help="A person key, a user id, an anonymous id or an "
                                    "e-mail address.")],
    once: Annotated[str, typer.Option("--once", metavar="TEXT", help="Requests for this person with the same text are "
                                      "one.")] = "",
    wait: Annotated[float, typer.Option("--wait", metavar="SECONDS", min=0, max=3600, help="Wait so long for the "
                                        "code.")] = 10,
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """Give somebody a coupon of a campaign; who has one already keeps it, and it is shown. Exit code 1 where she is
    given none."""
    from urllib.parse import quote

    from streams.cli.question import ask
    from streams.cli.show import as_json_line, cell

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    path = f"/api/coupons/{quote(campaign, safe='')}"
    asked = ask(settings, lambda api: api.post(f"{path}/give", {"to": to, "once": once}))
    row = ask(settings, lambda api: _wait(api, path, asked, wait)) if wait else {**asked, "state": "asked", "why": ""}
    if as_json:
        print(as_json_line(row))
    elif row["state"] == "given":
        print(cell(row["code"]))
    else:
        print(cell(f"{row['state']}{': ' + row['why'] if row['why'] else ''}"))
    if wait and row["state"] != "given":
        raise typer.Exit(1)


def _wait(api: Api, path: str, asked: dict[str, Any], seconds: float) -> Any:
    import time

    until = time.monotonic() + seconds
    while True:
        row = api.get(f"{path}/of", person=asked["person"], request=asked["request"])
        if row["state"] != "asked" or time.monotonic() >= until:
            break
        time.sleep(LOOK_EVERY_S)
    return row if row["state"] != "asked" else {**row, "why": "it is not known yet; does a worker run?"}


def show(
    code: Annotated[str, typer.Argument(metavar="CODE", help="The code, however it is typed.")],
    as_json: Json = False, data: Data = None, config: Config = None, log: Log = None, analytics: Analytics = None,
) -> None:  # fmt: skip
    """One code: of which campaign it is, who was given it, and whether it was used. Exit code 1 where nobody was."""
    from urllib.parse import quote

    from streams.cli.question import ask
    from streams.cli.show import as_json_line, cell

    settings = settings_of(data=data, config=config, log=log, analytics=analytics)
    row = ask(settings, lambda api: api.get(f"/api/coupons/codes/{quote(code, safe='')}"))
    row.pop("given_ms")
    if as_json:
        print(as_json_line(row))
        return
    for name, value in row.items():
        if value not in ("", None):
            print(f"{name}: {cell(value)}")


def check(
    codes: Annotated[int, typer.Option("--codes", metavar="N", min=0, max=MOST_CHECKED, help="Make so many codes of a "
                                       "random series, and count doubles.")] = 0,
    as_json: Json = False, config: Config = None,
) -> None:  # fmt: skip
    """Read config/coupons/*.yaml as `up` does. With --codes make codes as campaigns do, and count those that came
    before; exit code 1 where any did."""
    from config.coupons import read_campaigns
    from streams.cli.show import as_json_line, print_table

    settings = settings_of(config=config)
    found = read_campaigns(settings.config, settings.timezone)
    rows = [{"campaign": name, "codes": f"a pool of {len(each.pool):,}" if each.pool else each.campaign.prefix,
             "worth": each.campaign.worth / 10_000, "unit": each.campaign.unit, "expires": each.campaign.expires}
            for name, each in found.items()]  # fmt: skip
    if codes:
        _count_doubles(codes, as_json)
    elif as_json:
        for row in rows:
            print(as_json_line(row))
    else:
        print_table(rows)


def _count_doubles(count: int, as_json: bool) -> None:
    import secrets
    import time

    from schemas.codes import SEED_BYTES, UNLIKELY, code_of, is_mistyped
    from streams.cli.show import as_json_line

    seed, began = secrets.token_bytes(SEED_BYTES), time.monotonic()
    made = {code_of("CHECK", CHECKED_LENGTH, seed, number) for number in range(count)}
    doubles, seconds = count - len(made), time.monotonic() - began
    if any(is_mistyped(code, "CHECK", CHECKED_LENGTH) for code in list(made)[:1_000]):
        raise TidewireError("A code does not pass its own check character: a fault in Tidewire itself.")
    possible = 31 ** (CHECKED_LENGTH - 1)
    if as_json:
        told = {"codes": count, "doubles": doubles, "possible": possible, "seconds": round(seconds, 3)}
        print(as_json_line(told))
    else:
        print(f"{count:,} codes, {doubles:,} doubles, {seconds:.1f} s, such as {next(iter(made))}")
        print(f"A guess hits one of them once in {possible // count:,} tries; at most once in {UNLIKELY:,}, ever.")
    if doubles:
        raise typer.Exit(1)
