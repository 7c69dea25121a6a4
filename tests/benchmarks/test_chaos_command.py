"""The command of the experiments: one of a table, its figures as a table or as JSON, and an exit code."""

import json
import types

import chaos
import pytest

ROWS = [{"what": "a", "times": 1, "seconds": None}, {"what": "b", "times": 2000, "seconds": 0.25}]


def experiment(*broken: str) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        HELP="does nothing",
        add_options=lambda parser: parser.add_argument("--times", type=int, default=1),
        run=lambda options: {"times": options.times, "seed": options.seed},
        rows=lambda found: ROWS,
        faults=lambda found: list(broken),
    )


@pytest.mark.parametrize(("broken", "code"), [((), 0), (("bits differ", "it hangs"), 1)])
def test_what_does_not_hold_is_said_and_makes_the_exit_code(
    broken: tuple[str, ...], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chaos.main(["nothing"], {"nothing": experiment(*broken)}) == code
    out = capsys.readouterr().out
    assert [line.partition(": ")[2] for line in out.splitlines() if "DOES NOT HOLD" in line] == list(broken)
    assert ("everything holds" in out) == (not broken)


def test_json_is_one_object_with_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    chaos.main(["nothing", "--times", "3", "--seed", "5", "--json"], {"nothing": experiment("it hangs")})
    said = json.loads(capsys.readouterr().out)
    assert said["found"] == {"times": 3, "seed": 5}
    assert said["faults"] == ["it hangs"]
    assert said["seed"] == 5


def test_a_column_is_drawn_by_the_first_value_in_it() -> None:
    assert chaos.columns(ROWS) == {"what": "", "times": ",d", "seconds": ",.2f"}


def test_a_name_that_is_not_in_the_table_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        chaos.main(["earthquake"], {"nothing": experiment()})
    assert ended.value.code == 2
    assert "nothing" in capsys.readouterr().err
